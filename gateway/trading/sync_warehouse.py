"""The warehouse of ``stockade demo sync``: what really lies on its floor, and what its system has to tell of that.

The floor is the truth that the story is judged by. The system's outbox is numbered without gaps; what of it gets through, how often
and in which order is the story's business.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from stockade.client import facts

WAREHOUSE = "north"
SOURCE, STREAM = "wms-north", "floor"
TYPO = "nroth"


class WarehouseSystem:
    """Units come, go and break; each is told by one event of the outbox. ``floor``: SKU → units that are there."""

    def __init__(self) -> None:
        self.floor: Counter[str] = Counter()
        self.outbox: list[Any] = []

    @property
    def last_sequence(self) -> int:
        """Of the newest event."""
        return len(self.outbox)

    def receives(self, sku: str, units: int, *, warehouse_id: str = WAREHOUSE) -> None:
        """Goods come in; with another warehouse's name somebody mistyped it, the goods lie here all the same."""
        self.floor[sku] += units
        self._tell(facts.receipt(self._told(sku, warehouse_id), units))

    def ships(self, sku: str, units: int, channel_id: str, order: str) -> None:
        """An order leaves: off the shelf, out of the door."""
        promise = facts.promise(channel_id=channel_id, order_reference=order)
        self._tell(facts.pick(self._told(sku), units, promise))
        self.floor[sku] -= units
        self._tell(facts.shipment(self._told(sku), units, f"parcel-{order}", promise))

    def breaks(self, sku: str, units: int) -> None:
        """Units are thrown away, and that is told."""
        self.floor[sku] -= units
        self._tell(facts.adjustment(self._told(sku), -units, reason="broken"))

    def counts(self, sku: str) -> None:
        """Somebody counts what lies there, as of everything told until now."""
        self._tell(facts.stock_count(self._told(sku), self.floor[sku], as_of=self.last_sequence, includes_picked=True))

    def loses(self, sku: str, units: int) -> None:
        """Units vanish, and nobody tells: what reconciliations are for."""
        self.floor[sku] -= units

    def events(self, sequences: Sequence[int]) -> list[Any]:
        """Copies, as sent."""
        copies = []
        for sequence in sequences:
            copy = type(self.outbox[0])()
            copy.CopyFrom(self.outbox[sequence - 1])
            copies.append(copy)
        return copies

    def _told(self, sku: str, warehouse_id: str = WAREHOUSE) -> facts.Told:
        sequence = self.last_sequence + 1
        now_ms = time.time_ns() // 1_000_000
        event_id = f"{STREAM}-{sequence}"
        return facts.Told(SOURCE, event_id, (sku, warehouse_id), now_ms, stream_id=STREAM, source_sequence=sequence)

    def _tell(self, event: Any) -> None:
        self.outbox.append(event)
