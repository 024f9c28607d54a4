"""Warehouse facts: what happened to the units. Applied even when inconvenient; rejected is only what cannot be understood.

Decided at the stock key's actor. Ids, sequences and waiting are ``actors.domain.feeds``'s, which calls this once an event's
time has come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from actors.domain.alarms import watch_shortage
from actors.domain.commands import Ingest
from actors.domain.counting import book_count, is_remembered, note_move
from actors.domain.events import OnHandChanged, StockKeyRegistered
from actors.domain.fulfilling import (
    Shipment,
    book_shipment,
    booked_before,
    door_of,
    mismatch,
)
from actors.domain.gate import booked_as, lifts_recalled_lot, through_gate
from actors.domain.history import Place
from actors.domain.outcomes import Disposition, Door, Fact, IngestOutcome, RejectReason
from actors.domain.picking import pick, unpick
from actors.domain.quantities import shortage
from actors.domain.rules import ON_HAND_MAX
from actors.domain.state import ShardState, StockActor
from actors.domain.transfers import dispatched, received
from actors.domain.turn import Turn, make

APPLIED = int(IngestOutcome.APPLIED)
DUPLICATE = int(IngestOutcome.DUPLICATE)
REJECTED = int(IngestOutcome.REJECTED)
HANDED_ON = 5  # in a feed's journal only: another host's shard decides it, callers wait for what it says
SELLABLE = int(Disposition.SELLABLE)
NOT_NOTED = Place("", 0, -1)  # of a change that is no fact of the history
SHIPMENT, STOCK_COUNT = int(Fact.SHIPMENT), int(Fact.STOCK_COUNT)


class Decided(NamedTuple):
    """What became of a fact. ``place``: the position of the stock key's shard after it; empty: it touched none."""

    outcome: int
    place: tuple[int, ...]
    shortage_quantity: int
    exception_id: str
    reject_reason: int
    booked_disposition: int = 0
    gate_reasons: Sequence[int] = ()


def rejected(reason: RejectReason) -> Decided:
    """It cannot be understood; nothing was booked, and the exception is the caller's to open."""
    return Decided(REJECTED, (), 0, "", int(reason))


def decide(turn: Turn, shard: ShardState, actor: StockActor | None, command: Ingest) -> Decided:
    """Decide one fact and book it in ``shard``, the stock key's; ``actor`` None: nobody registered it yet."""
    if actor is None and not turn.books.rules.catalog_open:
        return rejected(RejectReason.UNKNOWN_STOCK_KEY)
    if command.fact == STOCK_COUNT and not command.details[3] and not is_remembered(turn, actor, command.occur_time_ms):
        return rejected(RejectReason.BEFORE_HISTORY)
    if lifts_recalled_lot(actor, command):
        return rejected(RejectReason.LOT_RECALLED)
    command, reasons = through_gate(turn, actor, command)
    if actor is not None and not fits_on_hand(
        actor, command.details[0]
    ):  # one fact's magnitude is within bounds by itself
        return rejected(RejectReason.QUANTITY_OUT_OF_RANGE)
    if command.fact == SHIPMENT and actor is not None:
        shipment = shipment_of(command)
        booked = booked_before(turn, actor, shipment)
        if booked is not None:
            return _shipment_again(turn, actor, shipment, booked, command)
    if actor is None:
        turn.emit(shard, StockKeyRegistered(command.stock_key))
        actor = shard.stock[command.stock_key]
    opened = FACTS[command.fact](turn, actor, command)
    short = shortage(actor)
    if short or actor.shortage_exception_id:
        watch_shortage(turn, actor)
    opened = opened or actor.shortage_exception_id
    booked_disposition = booked_as(command) if reasons else 0
    answer = (APPLIED, turn.position(shard), short, opened, 0, booked_disposition, reasons)
    decided: Decided = make(Decided, answer)
    return decided


def _shipment_again(turn: Turn, actor: StockActor, shipment: Shipment, booked: int, command: Ingest) -> Decided:
    """The same shipment under another event id: a duplicate, or with another quantity an exception."""
    if booked == shipment.quantity:
        return Decided(DUPLICATE, turn.position(actor.shard), shortage(actor), "", 0)
    if actor.shard.exceptions_open >= turn.books.rules.exceptions_open_max:
        return rejected(RejectReason.SHIPMENT_MISMATCH)  # its feed shard may still have room; else its sender keeps it
    opened = mismatch(turn, actor, shipment, booked, tuple(command))
    reason = int(RejectReason.SHIPMENT_MISMATCH)
    return Decided(REJECTED, turn.position(actor.shard), shortage(actor), opened, reason)


def cannot_be_understood(turn: Turn, command: Ingest) -> RejectReason | None:
    """Why this fact is rejected before anything is looked up; None: it is not."""
    if command.reject_reason:
        return RejectReason(command.reject_reason)
    fact, details = command.fact, command.details
    if fact not in FACTS:
        return RejectReason.UNKNOWN_FACT
    if not command.source_sequence and command.occur_time_ms < turn.now_ms - turn.books.rules.dedupe_window_ms:
        return RejectReason.TOO_OLD
    if fact == STOCK_COUNT and not details[3] and as_of(command) is None:
        return RejectReason.AS_OF_MISSING
    if fact == SHIPMENT and details[2] and door_of(turn, command.stock_key) == Door.ORDER_MANAGEMENT:
        return RejectReason.FULFILLED_BY_ORDER_MANAGEMENT
    return None


def fits_on_hand(actor: StockActor, quantity: int) -> bool:
    """Whether on hand stays within its range, whichever way so many units move."""
    quantity = abs(quantity)
    if abs(actor.sellable) + quantity > ON_HAND_MAX:
        return False
    return not actor.on_hand or all(abs(units) + quantity <= ON_HAND_MAX for units in actor.on_hand.values())


def shipment_of(command: Ingest) -> Shipment:
    """What left, as a shipment event tells it."""
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


def place_of(command: Ingest) -> Place:
    """Where in its source's order of things an event stands."""
    place: Place = make(
        Place, (f"{command.source_id}\x1f{command.stream_id}", command.source_sequence, command.occur_time_ms)
    )
    return place


def as_of(command: Ingest) -> int | None:
    """The sequence as of which a count was taken: what it says, else that before its own; None: it has neither."""
    return command.details[2] or (command.source_sequence - 1 if command.source_sequence else None)


def _changed(  # noqa: PLR0913  the parts of an event
    actor: StockActor, command: Ingest, disposition: int, delta: int, reference: str, note: str, place: Place
) -> OnHandChanged:
    changed: OnHandChanged = make(
        OnHandChanged,
        (
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
            *place,
        ),
    )
    return changed


def _move(
    turn: Turn, actor: StockActor, command: Ingest, disposition: int, delta: int, reference: str, note: str = ""
) -> str:
    note_move(turn, actor, _changed(actor, command, disposition, delta, reference, note, place_of(command)))
    return ""


def _receipt(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, disposition, inbound_reference, inbound_line = command.details
    return _move(turn, actor, command, disposition, quantity, inbound_reference, inbound_line)


def _document(command: Ingest) -> tuple[str, str, str]:
    return command.document_id, command.document_line, command.lot_id


def _pick(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, promise = command.details
    pick(turn, actor, promise, quantity, place_of(command), _document(command))
    return ""


def _unpick(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, promise = command.details
    unpick(turn, actor, promise, quantity, place_of(command), _document(command))
    return ""


def _shipped(turn: Turn, actor: StockActor, command: Ingest) -> str:
    return book_shipment(turn, actor, command.details[2], shipment_of(command), place_of(command))


def _adjustment(turn: Turn, actor: StockActor, command: Ingest) -> str:
    delta, disposition, reason, note = command.details
    return _move(turn, actor, command, disposition, delta, reason, note)


def _stock_count(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, disposition, _, take_as_now, includes_picked = command.details
    if take_as_now:
        # On hand becomes what was counted, plus what is picked where the count says it left that out.
        target = quantity
        if disposition == SELLABLE and not includes_picked:
            target += actor.picked
        difference = target - actor.on_hand_of(disposition)
        turn.emit(actor.shard, _changed(actor, command, disposition, difference, command.document_id, "", NOT_NOTED))
        return ""
    place = place_of(command)._replace(sequence=as_of(command) or 0)
    book_count(
        turn, actor, place, disposition, quantity, includes_picked=includes_picked, sequence=command.source_sequence,
        event_id=command.event_id, reference=command.event_id, document=(*_document(command), command.lot_expire_time_ms),
    )  # fmt: skip
    return ""


def _disposition_change(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, from_disposition, to_disposition = command.details
    _move(turn, actor, command, from_disposition, -quantity, "")
    return _move(turn, actor, command, to_disposition, quantity, "")


def _transfer_dispatch(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, transfer_id, transfer_line, to_warehouse_id, disposition = command.details
    note = f"{transfer_line} to {to_warehouse_id}".strip()
    _move(turn, actor, command, disposition, -quantity, transfer_id, note)
    return dispatched(turn, actor, command)


def _transfer_receipt(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, transfer_id, transfer_line, from_warehouse_id, _, disposition = command.details
    note = f"{transfer_line} from {from_warehouse_id}".strip()
    _move(turn, actor, command, disposition, quantity, transfer_id, note)
    return received(turn, actor, command)


def _customer_return(turn: Turn, actor: StockActor, command: Ingest) -> str:
    quantity, disposition, promise, return_id = command.details
    return _move(turn, actor, command, disposition, quantity, return_id, _returned_of(promise))


def _returned_of(promise: Sequence[str]) -> str:
    """Whose units came back, for the journal's readers; nothing is decided by it: what was promised has ended."""
    if not promise:
        return ""
    reservation_id, channel_id, order_reference, line_id = promise
    of = f"of reservation {reservation_id}" if reservation_id else f"of order {channel_id}/{order_reference}"
    return f"{of} line {line_id}" if line_id else of


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
