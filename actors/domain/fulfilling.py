"""Units that leave: shipments by either door. Decided at the stock actor alone; the home is told.

Both doors write the same events, identified by (warehouse, shipment id, stock key, document line or line id): told again with
the same quantity it is a duplicate, with another quantity it is not booked and becomes an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.domain.alarms import raise_alarm, watch_shortage
from actors.domain.answers import Reply, error, ok
from actors.domain.commands import Fulfill
from actors.domain.counting import note_fact
from actors.domain.events import (
    ClaimFulfilled,
    ClaimReleased,
    EntrySpent,
    OnHandChanged,
    ReservationEnded,
    ReservationUnitsEnded,
    VerbSpent,
)
from actors.domain.history import Place
from actors.domain.identity import ANSWER_SHIPMENT, shipment_key
from actors.domain.keys import split_stock_key
from actors.domain.lifecycle import ENDED_REFUSALS, claims_of, ended_refusal, expire_if_due, final_state, not_found
from actors.domain.outcomes import (
    Disposition,
    Door,
    ErrorReason,
    ExceptionKind,
    Fact,
    RefusalReason,
    ReleaseReason,
    ReservationState,
)
from actors.domain.picking import claim_pile, move_to_claim, pick_adrift, pile_of, promised_claims
from actors.domain.rules import ON_HAND_MAX
from actors.domain.state import Claim, ShardState, StockActor
from actors.domain.turn import Turn
from actors.domain.views import refused_about, repeat, reservation_view

VERB_FULFILL = 6
HELD = int(ReservationState.HELD)
CONFIRMED = int(ReservationState.CONFIRMED)
SELLABLE = int(Disposition.SELLABLE)
SHIPPED_SHORT = int(ReleaseReason.SHIPPED_SHORT)


@dataclass(slots=True)
class Shipment:
    """What left the building on one stock key."""

    quantity: int
    shipment_id: str
    document_line: str  # or the line id: the identity's last part
    disposition: int = SELLABLE
    close_remainder: bool = False
    document_id: str = ""
    lot_id: str = ""
    lot_expire_time_ms: int = 0
    attributes: Sequence[Sequence[str]] = field(default_factory=tuple)


def door_of(turn: Turn, key: str) -> Door:
    """Which side tells of shipments from this stock key's warehouse."""
    return turn.books.rules.doors.get(split_stock_key(key).warehouse_id, Door.WAREHOUSE)


def booked_before(turn: Turn, actor: StockActor, shipment: Shipment) -> int | None:
    """The quantity this shipment's identity was booked with, or None for a new one."""
    entry = turn.entry(actor.shard, shipment_key(actor.key, shipment.shipment_id, shipment.document_line))
    return None if entry is None else int(entry.answer[1])


def book_shipment(turn: Turn, actor: StockActor, promise: Sequence[Any], shipment: Shipment, place: Place) -> str:
    """Book what left: it is applied even when it is inconvenient. The id of the exception it opened, or empty.

    The caller has checked the identity and the door.
    """
    shard = actor.shard
    claims = promised_claims(actor, promise)
    left = shipment.quantity
    told: dict[str, list[int]] = {}  # reservation id → [fulfilled, released]
    picks: dict[str, int] = {}
    pile = pile_of(turn, promise)  # picked under it before a claim was known, or without a promise at all
    for position, claim in enumerate(claims):
        units = min(left, claim.open)
        last = position == len(claims) - 1
        # what is shipped beyond the open units was picked adrift for one of these claims, or is an excess of the last
        gone = min(left, max(units, claim.picked)) if not last else left
        if gone:
            move_to_claim(turn, actor, pile, claim, gone - max(0, claim.picked), picks)
            turn.emit(shard, ClaimFulfilled(actor.key, claim.reservation_id, claim.line_id, units, gone, signed=True))
            picks[claim_pile(claim.reservation_id)] = picks.get(claim_pile(claim.reservation_id), 0) - gone
            told.setdefault(claim.reservation_id, [0, 0])[0] += units
            left -= gone
    fulfilled = sum(counts[0] for counts in told.values())
    pick_adrift(turn, actor, pile, -left, picks)
    turn.emit(
        shard,
        OnHandChanged(
            actor.key,
            int(Fact.SHIPMENT),
            shipment.disposition,
            -shipment.quantity,
            shipment.shipment_id,
            shipment.document_id,
            shipment.document_line,
            shipment.lot_id,
            shipment.lot_expire_time_ms,
            "",
            shipment.attributes,
        ),
    )
    note_fact(turn, actor, place, shipment.disposition, -shipment.quantity, picks)
    if shipment.close_remainder:
        for claim in claims:
            if claim.open:
                told.setdefault(claim.reservation_id, [0, 0])[1] += claim.open
                turn.emit(
                    shard, ClaimReleased(actor.key, claim.reservation_id, claim.line_id, claim.open, SHIPPED_SHORT)
                )
    identity = shipment_key(actor.key, shipment.shipment_id, shipment.document_line)
    turn.emit(shard, EntrySpent(identity, b"", (ANSWER_SHIPMENT, shipment.quantity)))
    opened = ""
    if promise and fulfilled < shipment.quantity:
        opened = _alarm(turn, actor, claims, shipment, fulfilled)
    for reservation_id, (units, released) in told.items():
        _tell_home(turn, reservation_id, units, released)
    watch_shortage(turn, actor)
    return opened


def _alarm(turn: Turn, actor: StockActor, claims: list[Claim], shipment: Shipment, fulfilled: int) -> str:
    excess = shipment.quantity - fulfilled
    kind = ExceptionKind.SHIPMENT_EXCEEDS_OPEN if claims else ExceptionKind.SHIPMENT_WITHOUT_CLAIM
    what = "more than is open" if claims else "for a promise that is not known here"
    message = f"shipment {shipment.shipment_id!r}: {excess} of {shipment.quantity} units shipped {what}"
    ids = list(dict.fromkeys(claim.reservation_id for claim in claims))[:100]
    return raise_alarm(turn, actor.shard, kind, actor.key, message, excess, ids)


def _tell_home(turn: Turn, reservation_id: str, fulfilled: int, released: int) -> None:
    """The home follows: what is left of the reservation is what its stock actors say."""
    reservation = turn.books.reservations.get(reservation_id)
    if reservation is None or not fulfilled + released:
        return
    home = turn.books.home_of(reservation)
    turn.emit(home, ReservationUnitsEnded(reservation_id, fulfilled, released, 0, reservation.channel_id))
    if reservation.open_units == 0 and reservation.state in (HELD, CONFIRMED):
        turn.emit(
            home,
            ReservationEnded(
                reservation_id, final_state(reservation, ReservationState.RELEASED), reservation.channel_id
            ),
        )


def mismatch(turn: Turn, actor: StockActor, shipment: Shipment, booked: int, payload: Sequence[Any] = ()) -> str:
    """The same shipment told with another quantity: not booked; the exception's id. ``payload``: the event that told it."""
    message = (
        f"shipment {shipment.shipment_id!r} line {shipment.document_line!r} was booked with {booked} units "
        f"and is told again with {shipment.quantity}"
    )
    kind = ExceptionKind.SHIPMENT_MISMATCH
    return raise_alarm(turn, actor.shard, kind, actor.key, message, shipment.quantity - booked, [], 0, payload)


def fulfill(turn: Turn, home: ShardState, command: Fulfill) -> Reply:
    """A shipment told by order management, whole or in parts. OK payload: ``ReservationView``."""
    reservation = turn.reservation(command.reservation_id)
    if reservation is None:
        return not_found(command.reservation_id)
    again = repeat(turn, home, reservation.channel_id, command.request_id, command.digest, reservation=reservation)
    if again is not None:
        return again
    if reservation.final_lines is not None:
        refusal = ended_refusal(turn, home, reservation)
        assert refusal is not None, "only ended reservations leave memory"
        return refusal
    expire_if_due(turn, home, reservation)
    claims = claims_of(turn, reservation)
    parts, missing = _parts(command, claims)
    if missing:
        return error(ErrorReason.INVALID_FIELD, f"lines: {missing!r} is not a line of this reservation")
    fresh: list[tuple[StockActor, Shipment, str]] = []
    mismatched: list[tuple[StockActor, Shipment, int]] = []
    duplicates = 0
    wrong_door = False
    seen: dict[tuple[str, str], int] = {}
    open_left = {(actor.key, claim.line_id): claim.open for actor, claim in claims}
    exceeding = []
    for actor, line_id, shipment in parts:
        if door_of(turn, actor.key) != Door.ORDER_MANAGEMENT:
            wrong_door = True
            continue
        booked = seen.get((actor.key, shipment.document_line))
        if booked is None:
            booked = booked_before(turn, actor, shipment)
        if booked is not None:
            if booked == shipment.quantity:
                duplicates += 1
            else:
                mismatched.append((actor, shipment, booked))
            continue
        seen[(actor.key, shipment.document_line)] = shipment.quantity
        fresh.append((actor, shipment, line_id))
        open_left[(actor.key, line_id)] -= shipment.quantity
        if open_left[(actor.key, line_id)] < 0:
            available = shipment.quantity + open_left[(actor.key, line_id)]
            reason = RefusalReason.QUANTITY_EXCEEDS_OPEN
            exceeding.append((line_id, actor.key, shipment.quantity, available, int(reason)))
    if not (duplicates and not fresh and not mismatched and not wrong_door):
        ended = ENDED_REFUSALS.get(reservation.state)
        if ended is not None:
            return refused_about(turn, reservation, home, ended)
    if reservation.state == HELD:
        return refused_about(turn, reservation, home, RefusalReason.RESERVATION_NOT_CONFIRMED)
    if wrong_door:
        return refused_about(turn, reservation, home, RefusalReason.FULFILLED_BY_WAREHOUSE)
    if exceeding:
        return refused_about(turn, reservation, home, RefusalReason.QUANTITY_EXCEEDS_OPEN, exceeding)
    place = Place("", 0, command.occur_time_ms or turn.now_ms)
    for actor, shipment, line_id in fresh:
        book_shipment(turn, actor, (reservation.id, "", "", line_id), shipment, place)
    for actor, shipment, booked in mismatched:
        mismatch(turn, actor, shipment, booked)
    if command.close_remainder and not mismatched:
        _close_remainder(turn, home, command)
    turn.emit(home, VerbSpent(reservation.id, command.request_id, command.digest, VERB_FULFILL))
    return ok(reservation_view(turn, reservation, home))


def _close_remainder(turn: Turn, home: ShardState, command: Fulfill) -> None:
    """What is still open will not be shipped: released as SHIPPED_SHORT."""
    reservation = turn.books.reservations[command.reservation_id]
    released = 0
    touched: dict[str, StockActor] = {}
    for actor, claim in claims_of(turn, reservation):
        if claim.open:
            released += claim.open
            touched[actor.key] = actor
            turn.emit(actor.shard, ClaimReleased(actor.key, reservation.id, claim.line_id, claim.open, SHIPPED_SHORT))
    if released:
        _tell_home(turn, reservation.id, 0, released)
        assert turn.books.home_of(reservation) is home, "told another home"
        for actor in touched.values():
            watch_shortage(turn, actor)


def _parts(
    command: Fulfill, claims: list[tuple[StockActor, Claim]]
) -> tuple[list[tuple[StockActor, str, Shipment]], str]:
    """The shipments a command means, one per stock key and line; and a line id that the reservation has not."""
    parts: list[tuple[StockActor, str, Shipment]] = []
    if not command.lines:
        for actor, claim in claims:
            if claim.open:
                parts.append((actor, claim.line_id, Shipment(claim.open, command.shipment_id, claim.line_id)))
        return parts, ""
    for line_id, quantity, document_line in command.lines:
        entries = [(actor, claim) for actor, claim in claims if claim.line_id == line_id]
        if not entries:
            return [], line_id
        # A moved line has several entries: the units come from where they are open, all of an excess from the last.
        left = quantity
        for position, (actor, claim) in enumerate(entries):
            last = position == len(entries) - 1
            units = left if last else min(left, claim.open)
            if units:
                parts.append((actor, line_id, Shipment(units, command.shipment_id, document_line or line_id)))
                left -= units
    return parts, ""


def in_bounds(actor: StockActor, disposition: int, delta: int) -> bool:
    """Whether on hand stays within ±10^15 after the change."""
    return abs(actor.on_hand_of(disposition) + delta) <= ON_HAND_MAX
