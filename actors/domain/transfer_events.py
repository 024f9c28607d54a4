"""Events of transfers, at the stock key they go to. As in ``actors.domain.events``, which numbers them."""

from __future__ import annotations

from typing import NamedTuple


class TransferDispatched(NamedTuple):
    """``quantity`` units of the transfer's line left for this stock key."""

    stock_key: str
    transfer_id: str
    transfer_line: str
    from_warehouse_id: str
    quantity: int


class TransferReceived(NamedTuple):
    """``quantity`` units of the transfer's line came in. ``final``: nothing more comes of it."""

    stock_key: str
    transfer_id: str
    transfer_line: str
    from_warehouse_id: str
    quantity: int
    final: bool


class TransferAlarmed(NamedTuple):
    """The exception of the units that the transfer's line lost; empty: they came after all."""

    stock_key: str
    transfer_id: str
    transfer_line: str
    exception_id: str


class TransferForgotten(NamedTuple):
    """The transfer's line is complete, or was closed so long ago that nothing is told of it any more."""

    stock_key: str
    transfer_id: str
    transfer_line: str
