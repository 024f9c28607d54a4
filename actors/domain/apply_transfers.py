"""What the events of transfers do; ``actors.domain.apply`` calls these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.domain.state import Books, ShardState
from actors.domain.stock_parts import Transfer
from actors.domain.transfer_events import TransferAlarmed, TransferDispatched, TransferForgotten, TransferReceived


def _line(shard: ShardState, event: TransferDispatched | TransferReceived) -> tuple[dict[str, Transfer], str, Transfer]:
    """The stock key's transfers, this line's name among them, and the line as it stands."""
    actor = shard.stock[event.stock_key]
    if actor.transfers is None:
        actor.transfers = {}
        shard.transferring[event.stock_key] = None
    name = f"{event.transfer_id}\x1f{event.transfer_line}"
    return actor.transfers, name, actor.transfers.get(name) or Transfer(event.from_warehouse_id)


def _transfer_dispatched(_books: Books, shard: ShardState, event: TransferDispatched, time_ms: int) -> None:
    transfers, name, transfer = _line(shard, event)
    transfers[name] = transfer._replace(dispatched=transfer.dispatched + event.quantity, time_ms=time_ms)


def _transfer_received(_books: Books, shard: ShardState, event: TransferReceived, time_ms: int) -> None:
    transfers, name, transfer = _line(shard, event)
    received, final = transfer.received + event.quantity, transfer.final or event.final
    transfers[name] = transfer._replace(received=received, final=final, time_ms=time_ms)


def _transfer_alarmed(_books: Books, shard: ShardState, event: TransferAlarmed, _time_ms: int) -> None:
    transfers = shard.stock[event.stock_key].transfers
    assert transfers is not None, "an alarm about a transfer that is not there"
    name = f"{event.transfer_id}\x1f{event.transfer_line}"
    transfers[name] = transfers[name]._replace(exception_id=event.exception_id)


def _transfer_forgotten(_books: Books, shard: ShardState, event: TransferForgotten, _time_ms: int) -> None:
    actor = shard.stock[event.stock_key]
    assert actor.transfers is not None, "a transfer is forgotten that is not there"
    del actor.transfers[f"{event.transfer_id}\x1f{event.transfer_line}"]
    if not actor.transfers:
        actor.transfers = None
        shard.transferring.pop(event.stock_key, None)


APPLY_TRANSFERS: dict[type[Any], Callable[[Books, ShardState, Any, int], None]] = {
    TransferDispatched: _transfer_dispatched,
    TransferReceived: _transfer_received,
    TransferAlarmed: _transfer_alarmed,
    TransferForgotten: _transfer_forgotten,
}
