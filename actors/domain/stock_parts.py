"""What few stock actors have, kept apart so that the others stay small: a sale gate of their own, and transfers under way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from actors.domain.outcomes import Disposition, ItemState


class SaleGate(NamedTuple):
    """What units of a stock key need before they may be sold, beyond what its warehouse needs. No SaleGate: the defaults."""

    item_state: int = int(ItemState.ACTIVE)
    receipt_disposition: int = int(Disposition.SELLABLE)  # where units that come in as sellable start
    recalled_lot_ids: tuple[str, ...] = ()  # sorted


DEFAULT_GATE = SaleGate()


class Transfer(NamedTuple):
    """One line of a transfer at the stock key it goes to. Base units; both sums grow only, so the order of telling is no matter.

    ``final``: nothing more comes. ``exception_id``: the open exception of what was lost, else empty. ``time_ms``: of the last
    event about it.
    """

    from_warehouse_id: str
    dispatched: int = 0
    received: int = 0
    final: bool = False
    exception_id: str = ""
    time_ms: int = 0

    @property
    def in_transit(self) -> int:
        """Units on their way: dispatched, not received, and still to come."""
        return 0 if self.final else max(0, self.dispatched - self.received)

    @property
    def lost(self) -> int:
        """Units that were dispatched and will not come."""
        return max(0, self.dispatched - self.received) if self.final else 0


def in_transit(transfers: Mapping[str, Transfer] | None) -> int:
    """Units on their way to a stock key, over all its transfers."""
    return sum(transfer.in_transit for transfer in transfers.values()) if transfers else 0


def unsettled(transfers: Mapping[str, Transfer] | None) -> list[tuple[str, str, Transfer]]:
    """(transfer id, line, transfer) of those whose sums differ, the longest known first."""
    found = []
    for name, transfer in (transfers or {}).items():
        if transfer.dispatched != transfer.received:
            transfer_id, line = name.split("\x1f")
            found.append((transfer_id, line, transfer))
    return found
