"""Units that leave: shipments by either door. Decided at the stock actor alone; the home is told.

Both doors write the same events, identified by (warehouse, shipment id, stock key, document line or line id): told again with
the same quantity it is a duplicate, with another quantity it is not booked and becomes an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.domain.alarms import raise_alarm, watch_shortage
from actors.domain.answers import Reply, error, ok
from actors.domain.commands import Fulfill
from actors.domain.counting import note_fact
from actors.domain.errands import send
from actors.domain.escrow import ORDER, TELL_HOME, go_on
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
from actors.domain.keys import parse_reservation_id, split_stock_key
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
from actors.domain.state import Claim, Reservation, ShardState, StockActor
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


def book_shipment(  # noqa: PLR0913  the parts of a shipment
    turn: Turn,
    actor: StockActor,
    promise: Sequence[Any],
    shipment: Shipment,
    place: Place,
    told: dict[str, list[int]] | None = None,
) -> str:
    """Book what left: it is applied even when it is inconvenient. The id of the exception it opened, or empty.

    The caller has checked the identity and the door. ``told``: what homes are to be told, where the caller does that:
    reservation id → [fulfilled, released].
    """
    shard = actor.shard
    claims = promised_claims(actor, promise)
    left = shipment.quantity
    tells_homes = told is None
    told = {} if told is None else told
    before = sum(counts[0] for counts in told.values())
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
    fulfilled = sum(counts[0] for counts in told.values()) - before
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
    if tells_homes:
        for reservation_id, (units, released) in told.items():
            _tell_home(turn, shard, reservation_id, units, released)
    watch_shortage(turn, actor)
    return opened


def _alarm(turn: Turn, actor: StockActor, claims: list[Claim], shipment: Shipment, fulfilled: int) -> str:
    excess = shipment.quantity - fulfilled
    kind = ExceptionKind.SHIPMENT_EXCEEDS_OPEN if claims else ExceptionKind.SHIPMENT_WITHOUT_CLAIM
    what = "more than is open" if claims else "for a promise that is not known here"
    message = f"shipment {shipment.shipment_id!r}: {excess} of {shipment.quantity} units shipped {what}"
    ids = list(dict.fromkeys(claim.reservation_id for claim in claims))[:100]
    return raise_alarm(turn, actor.shard, kind, actor.key, message, excess, ids)


def _tell_home(turn: Turn, shard: ShardState, reservation_id: str, fulfilled: int, released: int) -> None:
    """The home follows: what is left of the reservation is what its stock actors say. One that is on another host, or that
    has not decided the order yet, is told by an errand."""
    if not fulfilled + released:
        return
    reservation = turn.books.reservations.get(reservation_id)
    if reservation is not None:
        units_told(turn, turn.books.home_of(reservation), reservation, fulfilled, released)
        return
    home = parse_reservation_id(reservation_id)
    if home is not None and (turn.books.partial or shard.inbound):
        send(turn, shard, home.shard, TELL_HOME, (reservation_id, fulfilled, released), (ORDER, "", 0, 0))


def units_told(turn: Turn, home: ShardState, reservation: Reservation, fulfilled: int, released: int) -> None:
    """Units ended at a stock actor."""
    turn.emit(home, ReservationUnitsEnded(reservation.id, fulfilled, released, 0, reservation.channel_id))
    if reservation.id in home.busy:  # an operation over several shards ends it, if anything does
        go_on(turn, home, reservation.id)
    elif reservation.open_units == 0 and reservation.state in (HELD, CONFIRMED):
        state = final_state(reservation, ReservationState.RELEASED)
        turn.emit(home, ReservationEnded(reservation.id, state, reservation.channel_id))


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
    actors = {actor.key: actor for actor, _ in claims_of(turn, reservation)}
    entries = [(actor.key, claim.line_id, claim.open) for actor, claim in claims_of(turn, reservation)]
    plan = plan_shipments(
        turn, command, entries, lambda key, shipment: booked_before(turn, actors[key], shipment)
    )  # fmt: skip
    if plan.missing:
        return error(ErrorReason.INVALID_FIELD, f"lines: {plan.missing!r} is not a line of this reservation")
    refusal = plan.refusal(turn, home, reservation)
    if refusal is not None:
        return refusal
    place = Place("", 0, command.occur_time_ms or turn.now_ms)
    for key, line_id, shipment in plan.fresh:
        book_shipment(turn, actors[key], (reservation.id, "", "", line_id), shipment, place)
    for key, _, shipment, booked in plan.mismatched:
        mismatch(turn, actors[key], shipment, booked)
    if command.close_remainder and not plan.mismatched:
        _close_remainder(turn, home, command)
    turn.emit(home, VerbSpent(reservation.id, command.request_id, command.digest, VERB_FULFILL))
    return ok(reservation_view(turn, reservation, home))


class ShipmentPlan:
    """What a fulfilment comes to, decided and nothing booked yet. Shipments with their stock key and line id."""

    __slots__ = ("duplicates", "exceeding", "fresh", "mismatched", "missing", "wrong_door")

    def __init__(self) -> None:
        self.missing = ""  # a line id that the reservation has not
        self.fresh: list[tuple[str, str, Shipment]] = []
        self.mismatched: list[tuple[str, str, Shipment, int]] = []  # … and the quantity it was booked with
        self.duplicates = 0
        self.wrong_door = False
        self.exceeding: list[tuple[str, str, int, int, int]] = []

    def refusal(self, turn: Turn, home: ShardState, reservation: Reservation) -> Reply | None:
        """Why it cannot be; None: it can. What was booked before is no reason against itself."""
        only_again = self.duplicates and not self.fresh and not self.mismatched and not self.wrong_door
        ended = ENDED_REFUSALS.get(reservation.state)
        if ended is not None and not only_again:
            return refused_about(turn, reservation, home, ended)
        if reservation.state == HELD:
            return refused_about(turn, reservation, home, RefusalReason.RESERVATION_NOT_CONFIRMED)
        if self.wrong_door:
            return refused_about(turn, reservation, home, RefusalReason.FULFILLED_BY_WAREHOUSE)
        if self.exceeding:
            return refused_about(turn, reservation, home, RefusalReason.QUANTITY_EXCEEDS_OPEN, self.exceeding)
        return None


def plan_shipments(
    turn: Turn,
    command: Fulfill,
    entries: Sequence[tuple[str, str, int]],
    booked_with: Callable[[str, Shipment], int | None],
) -> ShipmentPlan:
    """Decide a fulfilment. ``entries``: [(stock key, line id, open units), …]. ``booked_with``: what a shipment's identity was
    booked with on that stock key, or None."""
    plan = ShipmentPlan()
    parts, plan.missing = _parts(command, entries)
    seen: dict[tuple[str, str], int] = {}
    open_left = {(key, line_id): units for key, line_id, units in entries}
    for key, line_id, shipment in parts:
        if door_of(turn, key) != Door.ORDER_MANAGEMENT:
            plan.wrong_door = True
            continue
        booked = seen.get((key, shipment.document_line))
        if booked is None:
            booked = booked_with(key, shipment)
        if booked is not None:
            if booked == shipment.quantity:
                plan.duplicates += 1
            else:
                plan.mismatched.append((key, line_id, shipment, booked))
            continue
        seen[(key, shipment.document_line)] = shipment.quantity
        plan.fresh.append((key, line_id, shipment))
        open_left[(key, line_id)] -= shipment.quantity
        if open_left[(key, line_id)] < 0:
            available = shipment.quantity + open_left[(key, line_id)]
            reason = int(RefusalReason.QUANTITY_EXCEEDS_OPEN)
            plan.exceeding.append((line_id, key, shipment.quantity, available, reason))
    return plan


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
        _tell_home(turn, home, reservation.id, 0, released)
        assert turn.books.home_of(reservation) is home, "told another home"
        for actor in touched.values():
            watch_shortage(turn, actor)


def _parts(command: Fulfill, entries: Sequence[tuple[str, str, int]]) -> tuple[list[tuple[str, str, Shipment]], str]:
    """The shipments a command means, one per stock key and line; and a line id that the reservation has not."""
    parts: list[tuple[str, str, Shipment]] = []
    if not command.lines:
        for key, line_id, units in entries:
            if units:
                parts.append((key, line_id, Shipment(units, command.shipment_id, line_id)))
        return parts, ""
    for line_id, quantity, document_line in command.lines:
        own = [entry for entry in entries if entry[1] == line_id]
        if not own:
            return [], line_id
        # A moved line has several entries: the units come from where they are open, all of an excess from the last.
        left = quantity
        for position, (key, _, open_units) in enumerate(own):
            last = position == len(own) - 1
            units = left if last else min(left, open_units)
            if units:
                parts.append((key, line_id, Shipment(units, command.shipment_id, document_line or line_id)))
                left -= units
    return parts, ""


def in_bounds(actor: StockActor, disposition: int, delta: int) -> bool:
    """Whether on hand stays within ±10^15 after the change."""
    return abs(actor.on_hand_of(disposition) + delta) <= ON_HAND_MAX
