"""Warehouse facts: what happened to the units. Applied even when inconvenient; rejected is only what cannot be understood.

Deduplicated by source and event id at the stock key's shard. A rejection opens an exception, so nothing is dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.domain.alarms import raise_alarm, watch_shortage
from actors.domain.answers import IngestView, Reply, ok
from actors.domain.commands import Ingest
from actors.domain.events import EntrySpent, OnHandChanged, StockKeyRegistered
from actors.domain.fulfilling import (
    Shipment,
    book_shipment,
    booked_before,
    door_of,
    in_bounds,
    mismatch,
    pick,
    unpick,
)
from actors.domain.identity import ANSWER_INGEST, event_key
from actors.domain.outcomes import Disposition, Door, ExceptionKind, Fact, IngestOutcome, RejectReason
from actors.domain.quantities import shortage
from actors.domain.state import Entry, ShardState, StockActor
from actors.domain.turn import Turn

APPLIED = int(IngestOutcome.APPLIED)
DUPLICATE = int(IngestOutcome.DUPLICATE)
REJECTED = int(IngestOutcome.REJECTED)
SELLABLE = int(Disposition.SELLABLE)

MESSAGES = {
    RejectReason.UNKNOWN_FACT: "the kind of fact is not known to this version",
    RejectReason.UNKNOWN_WAREHOUSE: "the warehouse is not declared in the settings",
    RejectReason.UNKNOWN_STOCK_KEY: "the catalog is closed and the stock key is not registered",
    RejectReason.AS_OF_NOT_SUPPORTED: "a count needs take_as_now: counting as of a source sequence is not supported yet",
    RejectReason.FULFILLED_BY_ORDER_MANAGEMENT: "order management tells of shipments from this warehouse, not the warehouse",
    RejectReason.TOO_OLD: "it occurred before the dedupe window: it cannot be told from one applied before",
    RejectReason.SOURCE_NOT_ALLOWED: "the source may not send this kind of fact for this warehouse",
    RejectReason.EVENT_ID_REUSED: "the event id was already used for other content",
    RejectReason.SHIPMENT_MISMATCH: "the shipment was already booked with another quantity",
    RejectReason.QUANTITY_OUT_OF_RANGE: "on hand would leave the range of ±10^15 units",
}


def ingest(turn: Turn, shard: ShardState, command: Ingest) -> Reply:
    """Decide one warehouse event. OK payload: ``IngestView``."""
    key = event_key(command.source_id, command.event_id)
    entry = turn.entry(shard, key)
    if entry is not None and entry.digest != command.digest:
        # The id is taken: this content gets an entry of its own, so that its repeats do not open an exception each.
        key = f"{key}\x1f{command.digest.hex()}"
        entry = turn.entry(shard, key)
        if entry is None:
            return _reject(turn, shard, command, key, RejectReason.EVENT_ID_REUSED)
    if entry is not None:
        return _again(command, entry)
    rejection = RejectReason(command.reject_reason) if command.reject_reason else _cannot_be_understood(turn, command)
    if rejection is not None:
        return _reject(turn, shard, command, key, rejection)
    actor = shard.stock.get(command.stock_key)
    if actor is None and not turn.books.rules.catalog_open:
        return _reject(turn, shard, command, key, RejectReason.UNKNOWN_STOCK_KEY)
    if not _fits(actor, command):
        return _reject(turn, shard, command, key, RejectReason.QUANTITY_OUT_OF_RANGE)
    if command.fact == Fact.SHIPMENT and actor is not None:
        shipment = _shipment(command)
        booked = booked_before(turn, actor, shipment)
        if booked is not None:
            return _shipment_again(turn, actor, command, key, shipment, booked)
    if actor is None:
        turn.emit(shard, StockKeyRegistered(command.stock_key))
        actor = shard.stock[command.stock_key]
    opened = FACTS[Fact(command.fact)](turn, actor, command)
    watch_shortage(turn, actor)
    opened = opened or actor.shortage_exception_id
    return _answer(turn, shard, command, key, (APPLIED, shortage(actor), opened, 0))


def _again(command: Ingest, entry: Entry) -> Reply:
    _, outcome, short, exception, reason = entry.answer
    position = (entry.shard, entry.epoch, entry.sequence, entry.time_ms)
    if outcome == APPLIED:
        outcome = DUPLICATE
    return ok(IngestView(command.event_id, outcome, position, short, exception, reason), True)


def _answer(turn: Turn, shard: ShardState, command: Ingest, key: str, answer: tuple[int, int, str, int]) -> Reply:
    turn.emit(shard, EntrySpent(key, command.digest, (ANSWER_INGEST, *answer)))
    outcome, short, exception, reason = answer
    return ok(IngestView(command.event_id, outcome, turn.position(shard), short, exception, reason))


def _reject(turn: Turn, shard: ShardState, command: Ingest, key: str, reason: RejectReason) -> Reply:
    message = f"event {command.event_id!r} of source {command.source_id!r} rejected: {MESSAGES[reason]}"
    kind = ExceptionKind.EVENT_REJECTED
    opened = raise_alarm(turn, shard, kind, command.stock_key, message, 0, [], int(reason))
    return _answer(turn, shard, command, key, (REJECTED, 0, opened, int(reason)))


def _shipment_again(  # noqa: PLR0913  the parts of one answer
    turn: Turn, actor: StockActor, command: Ingest, key: str, shipment: Shipment, booked: int
) -> Reply:
    """The same shipment under another event id: a duplicate, or with another quantity an exception."""
    if booked == shipment.quantity:
        return _answer(turn, actor.shard, command, key, (DUPLICATE, shortage(actor), "", 0))
    opened = mismatch(turn, actor, shipment, booked)
    answer = (REJECTED, shortage(actor), opened, int(RejectReason.SHIPMENT_MISMATCH))
    return _answer(turn, actor.shard, command, key, answer)


def _cannot_be_understood(turn: Turn, command: Ingest) -> RejectReason | None:
    if command.fact not in FACTS:
        return RejectReason.UNKNOWN_FACT
    if command.occur_time_ms < turn.now_ms - turn.books.rules.dedupe_window_ms:
        return RejectReason.TOO_OLD
    details = command.details
    if command.fact == Fact.STOCK_COUNT and not details[3]:
        return RejectReason.AS_OF_NOT_SUPPORTED
    if command.fact == Fact.SHIPMENT and details[2] and door_of(turn, command.stock_key) == Door.ORDER_MANAGEMENT:
        return RejectReason.FULFILLED_BY_ORDER_MANAGEMENT
    return None


def _fits(actor: StockActor | None, command: Ingest) -> bool:
    if actor is None:
        return True  # one fact's magnitude is within bounds by itself
    quantity = command.details[0]
    return all(in_bounds(actor, int(disposition), sign * quantity) for disposition in Disposition for sign in (1, -1))


def _shipment(command: Ingest) -> Shipment:
    quantity, shipment_id, promise, close_remainder, disposition = command.details
    line = command.document_line or (promise[3] if promise else "")
    return Shipment(
        quantity,
        shipment_id,
        line,
        disposition,
        close_remainder,
        command.document_id,
        command.lot_id,
        command.lot_expire_time_ms,
        command.attributes,
    )


def _move(
    turn: Turn, actor: StockActor, command: Ingest, disposition: int, delta: int, reference: str, note: str = ""
) -> str:
    turn.emit(
        actor.shard,
        OnHandChanged(
            actor.key,
            command.fact,
            disposition,
            delta,
            reference,
            command.document_id,
            command.document_line,
            command.lot_id,
            command.lot_expire_time_ms,
            note,
            command.attributes,
        ),
    )
    return ""


def _receipt(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, disposition, inbound_reference, inbound_line = command.details
    return _move(turn, actor, command, disposition, quantity, inbound_reference, inbound_line)


def _pick(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, promise = command.details
    pick(turn, actor, promise, quantity)
    return ""


def _unpick(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, promise = command.details
    unpick(turn, actor, promise, quantity)
    return ""


def _shipped(turn: Turn, actor: StockActor, command: Ingest) -> str:
    return book_shipment(turn, actor, command.details[2], _shipment(command))


def _adjustment(turn: Turn, actor: StockActor, command: Ingest) -> str:
    delta, disposition, reason, note = command.details
    return _move(turn, actor, command, disposition, delta, reason, note)


def _stock_count(turn: Turn, actor: StockActor, command: Ingest) -> str:
    """Counted now: on hand becomes what was counted, plus what is picked where the count says it left that out."""
    quantity, disposition, _, _, includes_picked = command.details
    target = quantity
    if disposition == SELLABLE and not includes_picked:
        target += actor.picked
    return _move(turn, actor, command, disposition, target - actor.on_hand_of(disposition), command.document_id)


def _disposition_change(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, from_disposition, to_disposition = command.details
    _move(turn, actor, command, from_disposition, -quantity, "")
    return _move(turn, actor, command, to_disposition, quantity, "")


def _transfer_dispatch(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, transfer_id, transfer_line, to_warehouse_id, disposition = command.details
    return _move(
        turn, actor, command, disposition, -quantity, transfer_id, f"{transfer_line} to {to_warehouse_id}".strip()
    )


def _transfer_receipt(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, transfer_id, transfer_line, from_warehouse_id, _, disposition = command.details
    return _move(
        turn, actor, command, disposition, quantity, transfer_id, f"{transfer_line} from {from_warehouse_id}".strip()
    )


def _customer_return(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, disposition, _, return_id = command.details
    return _move(turn, actor, command, disposition, quantity, return_id)


FACTS: dict[int, Callable[[Turn, StockActor, Ingest], str]] = {
    Fact.RECEIPT: _receipt,
    Fact.PICK: _pick,
    Fact.UNPICK: _unpick,
    Fact.SHIPMENT: _shipped,
    Fact.ADJUSTMENT: _adjustment,
    Fact.STOCK_COUNT: _stock_count,
    Fact.DISPOSITION_CHANGE: _disposition_change,
    Fact.TRANSFER_DISPATCH: _transfer_dispatch,
    Fact.TRANSFER_RECEIPT: _transfer_receipt,
    Fact.CUSTOMER_RETURN: _customer_return,
}
