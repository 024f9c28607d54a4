"""A transfer is one thing in two warehouses: what was dispatched, what came in, and what is on its way between them.

Dispatch and receipt book units where they happen; beside that both are noted at the stock key the units go to, by transfer and
line. The sums grow only, so it does not matter which is told first, and units in transit never count as available.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.alarms import raise_alarm
from actors.domain.commands import Ingest
from actors.domain.errand_registry import ANSWERS, ERRANDS
from actors.domain.errand_state import Errand
from actors.domain.errands import send
from actors.domain.events import ExceptionChanged, ExceptionHealed, StockKeyRegistered
from actors.domain.keys import split_stock_key, stock_key
from actors.domain.outcomes import ExceptionKind
from actors.domain.rules import ON_HAND_MAX
from actors.domain.state import ShardState, StockActor
from actors.domain.stock_parts import Transfer
from actors.domain.transfer_events import TransferAlarmed, TransferDispatched, TransferForgotten, TransferReceived
from actors.domain.turn import Turn

TELL_TRANSFER = 91
ELSEWHERE = "its shard is not on this host"
KEY_UNKNOWN = ExceptionKind.TRANSFER_KEY_UNKNOWN
TRANSFERS_PER_KEY_MAX = 1_000  # lines of transfers to one stock key that are remembered at a time
UNITS_PER_TRANSFER_MAX = 1_000 * ON_HAND_MAX  # a sum that every reader of the journal can hold


def transfer_name(transfer_id: str, transfer_line: str) -> str:
    """What a transfer's line is kept under at its stock key."""
    return f"{transfer_id}\x1f{transfer_line}"


def dispatched(turn: Turn, origin: StockActor, command: Ingest) -> str:
    """Note a dispatch at the stock key it goes to. The exception it opened when it cannot be followed there; else empty."""
    quantity, transfer_id, line, to_warehouse_id, _ = command.details
    parts = split_stock_key(origin.key)
    target, why = _target(turn, stock_key(to_warehouse_id, parts.sku))
    if why == ELSEWHERE:
        key = stock_key(to_warehouse_id, parts.sku)
        body = [key, transfer_id, line, parts.warehouse_id, quantity]
        send(turn, origin.shard, turn.books.shard_of(key), TELL_TRANSFER, body, ["transfer", origin.key, list(command)])
        return ""
    if target is not None:
        why = _make_room(turn, target, transfer_id, line, quantity)
    if target is None or why:
        return _dispatch_not_followed(turn, origin, command, why)
    event = TransferDispatched(target.key, transfer_id, line, parts.warehouse_id, quantity)
    turn.emit(target.shard, event)
    _watch(turn, target, transfer_id, line)
    return ""


def _dispatch_not_followed(turn: Turn, origin: StockActor, command: Ingest, why: str) -> str:
    quantity, transfer_id, _, to_warehouse_id, _ = command.details
    sku = split_stock_key(origin.key).sku
    message = f"transfer {transfer_id!r} of SKU {sku!r} to {to_warehouse_id!r} cannot be followed: {why}"
    return _not_followed(turn, origin, message, quantity, tuple(command))


def tell_transfer(turn: Turn, _shard: ShardState, _from_shard: int, body: Sequence[Any]) -> Sequence[Any]:
    """TELL_TRANSFER: a dispatch of another host is noted at the stock key it goes to. The reply: [why not, or empty]."""
    key, transfer_id, line, from_warehouse_id, quantity = body
    target, why = _target(turn, key)
    if target is not None:
        why = _make_room(turn, target, transfer_id, line, quantity)
    if target is not None and not why:
        turn.emit(target.shard, TransferDispatched(target.key, transfer_id, line, from_warehouse_id, quantity))
        _watch(turn, target, transfer_id, line)
    return [why]


def transfer_told(turn: Turn, shard: ShardState, errand: Errand, reply: Sequence[Any]) -> None:
    """A dispatch that cannot be followed there is somebody's to look at, where it was told."""
    origin = shard.stock.get(errand.purpose[1])
    if reply[0] and origin is not None:
        _dispatch_not_followed(turn, origin, Ingest(*errand.purpose[2]), reply[0])


ERRANDS[TELL_TRANSFER] = tell_transfer
ANSWERS["transfer"] = transfer_told


def received(turn: Turn, actor: StockActor, command: Ingest) -> str:
    """Note a receipt at its own stock key. The exception of what was lost, when it is the last; else empty."""
    quantity, transfer_id, line, from_warehouse_id, final, _ = command.details
    why = _make_room(turn, actor, transfer_id, line, quantity)
    if why:
        message = f"transfer {transfer_id!r} from {from_warehouse_id!r} cannot be followed: {why}"
        return _not_followed(turn, actor, message, quantity)
    turn.emit(actor.shard, TransferReceived(actor.key, transfer_id, line, from_warehouse_id, quantity, final))
    return _watch(turn, actor, transfer_id, line)


def _target(turn: Turn, key: str) -> tuple[StockActor | None, str]:
    """The stock actor that a dispatch goes to, made if it may be; or why there is none."""
    books = turn.books
    known = books.stock.get(key)
    if known is not None:
        return known, ""
    warehouse_id = split_stock_key(key).warehouse_id
    if books.rules.warehouses and warehouse_id not in books.rules.warehouses:
        return None, f"the warehouse {warehouse_id!r} is not declared in the settings"
    if not books.rules.catalog_open:
        return None, "the catalog is closed and the stock key is not registered there"
    shard = books.shards.get(books.shard_of(key))
    if shard is None:
        return None, ELSEWHERE
    turn.emit(shard, StockKeyRegistered(key))
    return shard.stock[key], ""


def may_go_to(turn: Turn, origin_key: str, to_warehouse_id: str) -> bool:
    """Whether a dispatch can be followed there now."""
    books, key = turn.books, stock_key(to_warehouse_id, split_stock_key(origin_key).sku)
    if key in books.stock:
        return True
    if books.shard_of(key) not in books.shards:  # its host says whether it can be
        return True
    declared = books.rules.warehouses
    return books.rules.catalog_open and (not declared or to_warehouse_id in declared)


def _make_room(turn: Turn, actor: StockActor, transfer_id: str, line: str, quantity: int) -> str:
    """See to it that this line can be followed, and forget what is over; why it cannot be followed, else empty."""
    transfers = actor.transfers
    if not transfers:
        return ""
    known = transfers.get(transfer_name(transfer_id, line))
    if known is not None:
        beyond = max(known.dispatched, known.received) + quantity > UNITS_PER_TRANSFER_MAX
        return "it has more units than can be" if beyond else ""
    over = sorted((transfer.time_ms, name) for name, transfer in transfers.items() if _is_over(actor, transfer))
    before_ms = turn.now_ms - turn.books.rules.history_ms
    too_many = len(transfers) - TRANSFERS_PER_KEY_MAX + 1  # of these the longest untold go, however young they are
    for place, (time_ms, name) in enumerate(over):
        if time_ms < before_ms or place < too_many:
            turn.emit(actor.shard, TransferForgotten(actor.key, *name.split("\x1f")))
    full = len(actor.transfers or ()) >= TRANSFERS_PER_KEY_MAX
    return f"{TRANSFERS_PER_KEY_MAX:,} transfers are under way to this stock key" if full else ""


def _is_over(actor: StockActor, transfer: Transfer) -> bool:
    """Whether nothing of it is under way and nobody has to look at it; only a late event can still be about it."""
    return not transfer.in_transit and not (transfer.exception_id and _is_open(actor, transfer.exception_id))


def _not_followed(turn: Turn, actor: StockActor, message: str, quantity: int, payload: Sequence[Any] = ()) -> str:
    """Tell somebody, as long as there are not endlessly many to look at; the units are booked all the same. ``payload``: the
    event, to be followed later.
    """
    if actor.shard.exceptions_open >= turn.books.rules.exceptions_open_max:
        return ""
    return raise_alarm(turn, actor.shard, KEY_UNKNOWN, actor.key, message, quantity, [], 0, payload)


def _watch(turn: Turn, actor: StockActor, transfer_id: str, line: str) -> str:
    """Open, change or heal the exception of lost units; forget a transfer that is complete. The open exception's id."""
    transfer = (actor.transfers or {})[transfer_name(transfer_id, line)]
    lost, opened = transfer.lost, transfer.exception_id
    if lost and not opened:
        sku, warehouse_id = split_stock_key(actor.key).sku, split_stock_key(actor.key).warehouse_id
        message = (
            f"transfer {transfer_id!r} of SKU {sku!r} from {transfer.from_warehouse_id!r} to {warehouse_id!r} came in short: "
            f"{lost} of {transfer.dispatched} units are missing"
        )
        opened = raise_alarm(turn, actor.shard, ExceptionKind.TRANSFER_SHORT, actor.key, message, lost, [])
        turn.emit(actor.shard, TransferAlarmed(actor.key, transfer_id, line, opened))
    elif opened and not lost:
        if _is_open(actor, opened):
            turn.emit(actor.shard, ExceptionHealed(opened))
        turn.emit(actor.shard, TransferAlarmed(actor.key, transfer_id, line, ""))
        opened = ""
    elif opened and _is_open(actor, opened) and actor.shard.exceptions[opened].quantity != lost:
        turn.emit(actor.shard, ExceptionChanged(opened, lost, []))
    if transfer.dispatched == transfer.received and not transfer.final:
        turn.emit(actor.shard, TransferForgotten(actor.key, transfer_id, line))
    return opened


def _is_open(actor: StockActor, exception_id: str) -> bool:
    exception = actor.shard.exceptions.get(exception_id)
    return exception is not None and exception.state == 1
