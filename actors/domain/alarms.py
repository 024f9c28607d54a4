"""Stock exceptions: opened, kept true and healed. A shortage names the reservations concerned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.events import ExceptionChanged, ExceptionHealed, ExceptionOpened
from actors.domain.keys import exception_id, split_stock_key
from actors.domain.outcomes import ExceptionKind
from actors.domain.quantities import shortage
from actors.domain.state import ShardState, StockActor
from actors.domain.turn import Turn

RESERVATIONS_NAMED_MAX = 100  # per exception: enough to act on, small enough to journal with every change


def watch_shortage(turn: Turn, actor: StockActor) -> None:
    """Open, change or heal the stock actor's shortage exception, as its quantities now ask. Call after every change."""
    short = shortage(actor)
    if not actor.shortage_exception_id:
        if short:
            sku, warehouse = _names(actor.key)
            message = f"{short} promised units of {sku} are not in {warehouse}"
            raise_alarm(turn, actor.shard, ExceptionKind.SHORTAGE, actor.key, message, short, concerned(actor, short))
        return
    if not short:
        turn.emit(actor.shard, ExceptionHealed(actor.shortage_exception_id))
    elif short != actor.shard.exceptions[actor.shortage_exception_id].quantity:
        turn.emit(actor.shard, ExceptionChanged(actor.shortage_exception_id, short, concerned(actor, short)))


def concerned(actor: StockActor, short: int) -> list[str]:
    """The reservations a shortage concerns: newest claims first, until their open units make it up."""
    ids: list[str] = []
    for reservation_id in reversed(list(actor.claims)):
        units = sum(claim.open for claim in actor.claims[reservation_id].chain())
        if not units:
            continue
        ids.append(reservation_id)
        short -= units
        if short <= 0 or len(ids) >= RESERVATIONS_NAMED_MAX:
            break
    return ids


def raise_alarm(  # noqa: PLR0913  an exception has this many parts
    turn: Turn,
    shard: ShardState,
    kind: ExceptionKind,
    key: str,
    message: str,
    quantity: int,
    reservation_ids: list[str],
    reject_reason: int = 0,
    payload: Sequence[Any] = (),
) -> str:
    """Open a stock exception because of the turn's cause; its id. ``payload``: the event it is about, to be decided again."""
    number = shard.next_exception_number
    opened = exception_id(shard.timeline, shard.id, number)
    cause = turn.cause
    turn.emit(
        shard,
        ExceptionOpened(
            opened,
            number,
            int(kind),
            key,
            message,
            quantity,
            reservation_ids,
            cause.source_id,
            cause.request_id if cause.source_id else "",
            "" if cause.source_id else cause.request_id,
            cause.channel_id,
            reject_reason,
            payload,
            (
                cause.verb,
                cause.principal,
                cause.correlation_id,
                cause.stream_id,
                cause.source_sequence,
                cause.occur_time_ms,
            ),
        ),
    )
    return opened


def _names(key: str) -> tuple[str, str]:
    parts = split_stock_key(key)
    return f"SKU {parts.sku!r}", f"warehouse {parts.warehouse_id!r}"
