"""What a home asks the host of another shard, see ``actors.domain.escrow_legs``. Field order is wire format between hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ReadLines(NamedTuple):
    """What a reservation has on these stock keys, and what shipments [[stock key, shipment id, line], …] were booked with.
    Item shard: that of the stock keys. ``version``: the reservation's when it was asked, given back."""

    reservation_id: str
    stock_keys: Sequence[str]
    version: int = 0
    shipments: Sequence[Sequence[str]] = ()
