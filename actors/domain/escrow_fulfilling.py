"""Shipments of reservations whose lines live on several hosts: told by order management to the home, or by a warehouse to the
stock actor alone.

The first is planned by the home with what the other shards say they hold, and booked by each of them; since the home lets
nothing else happen to the reservation meanwhile, what was planned is what is there. The second is decided by the stock actor,
whatever the home is deciding, and the home is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.answers import Reply, error
from actors.domain.commands import Fulfill, Verb
from actors.domain.errand_registry import ASKS, ERRAND_KEYS, ERRANDS
from actors.domain.escrow import SHIP_LINES, STEPS, TELL_HOME, Replies, begin, no_room, shards_of
from actors.domain.escrow_legs import release_claims, rows_of
from actors.domain.escrow_lifecycle import end_if_over, lines_elsewhere, meet, note_replies, spend, spread, unread
from actors.domain.escrow_views import rows_told
from actors.domain.events import ReservationUnitsEnded
from actors.domain.fulfilling import (
    SHIPPED_SHORT,
    VERB_FULFILL,
    Shipment,
    ShipmentPlan,
    book_shipment,
    booked_before,
    fulfill,
    mismatch,
    plan_shipments,
    units_told,
)
from actors.domain.history import Place
from actors.domain.identity import request_key, shipment_key
from actors.domain.lifecycle import claims_of
from actors.domain.operation_state import Operation
from actors.domain.outcomes import ErrorReason, ReservationState
from actors.domain.state import Books, Reservation, ShardState
from actors.domain.turn import Turn

NOT_BOOKED = -1


def fulfill_anywhere(turn: Turn, home: ShardState, command: Fulfill) -> Reply:
    """FULFILL."""
    reservation = spread(turn, home, command.reservation_id)
    if reservation is None:
        return fulfill(turn, home, command)
    before = meet(turn, home, command, reservation) or unread(turn, home, reservation)
    if before is not None:
        return before
    plan = _plan(turn, home, reservation, command)
    if plan.missing:
        return error(ErrorReason.INVALID_FIELD, f"lines: {plan.missing!r} is not a line of this reservation")
    refusal = plan.refusal(turn, home, reservation)
    legs = shards_of(turn.books, home, [line[1] for line in reservation.lines])
    refusal = refusal or no_room(home, legs)
    if refusal is not None:
        return refusal
    bodies = {shard_id: (SHIP_LINES, _body(turn, plan, reservation, command, keys)) for shard_id, keys in legs.items()}
    here = list(dict.fromkeys(line[1] for line in reservation.lines if turn.books.shard_of(line[1]) == home.id))
    own = ship_lines(turn, home, home.id, _body(turn, plan, reservation, command, here))
    key = request_key(reservation.channel_id, command.request_id)
    return begin(turn, home, key, VERB_FULFILL, command, reservation.id, bodies, kept=own[2:])


def _plan(turn: Turn, home: ShardState, reservation: Reservation, command: Fulfill) -> ShipmentPlan:
    rows = rows_told(turn, reservation.id)
    claims = {(claim.line_id, actor.key): claim.open for actor, claim in claims_of(turn, reservation)}
    entries = []
    for line in reservation.lines:
        entry = (line[0], line[1])
        if entry in claims:
            entries.append((line[1], line[0], claims[entry]))
        elif entry in rows:
            row = rows[entry]
            entries.append((line[1], line[0], row[2] - row[3] - row[4] - row[5]))
    booked = _booked_elsewhere(turn, home, reservation, command)

    def booked_with(key: str, shipment: Shipment) -> int | None:
        actor = turn.books.stock.get(key)
        if actor is not None:
            return booked_before(turn, actor, shipment)
        units = booked.get((key, shipment.document_line), NOT_BOOKED)
        return None if units == NOT_BOOKED else units

    return plan_shipments(turn, command, entries, booked_with)


def _booked_elsewhere(
    turn: Turn, home: ShardState, reservation: Reservation, command: Fulfill
) -> dict[tuple[str, str], int]:
    """By (stock key, document line): what the shipment was booked with at other hosts, as they answered the asks."""
    asked = lines_elsewhere(turn.books, reservation.id, home.id, _identities(reservation, command))
    told_by_shard = {told[1][0]: told for told in turn.told}
    return {
        (key, line): units
        for shard_id, _, body in asked
        for (key, _, line), units in zip(body[3], told_by_shard[shard_id][2], strict=True)
    }


def _identities(reservation: Reservation, command: Fulfill) -> list[tuple[str, str, str]]:
    """[(stock key, shipment id, document line), …] that a fulfilment may mean."""
    if not command.lines:
        return [(line[1], command.shipment_id, line[0]) for line in reservation.lines]
    return [
        (line[1], command.shipment_id, document_line or line_id)
        for line_id, _, document_line in command.lines
        for line in reservation.lines
        if line[0] == line_id
    ]


def _body(turn: Turn, plan: ShipmentPlan, reservation: Reservation, command: Fulfill, keys: Sequence[str]) -> list[Any]:
    """[reservation id, stock keys, shipment id, [[stock key, line id, quantity, document line], …], close remainder, time]"""
    shipments = [*plan.fresh, *((key, line_id, shipment) for key, line_id, shipment, _ in plan.mismatched)]
    lines = [
        [key, line_id, shipment.quantity, shipment.document_line] for key, line_id, shipment in shipments if key in keys
    ]
    closes = command.close_remainder and not plan.mismatched
    return [reservation.id, keys, command.shipment_id, lines, closes, command.occur_time_ms or turn.now_ms]


def ship_lines(turn: Turn, shard: ShardState, _from_shard: int, body: Sequence[Any]) -> list[Any]:
    """SHIP_LINES: book what left here. The answer: [rows, position, fulfilled, released]."""
    reservation_id, keys, shipment_id, lines, closes, occur_ms = body
    told: dict[str, list[int]] = {}
    for key, line_id, quantity, document_line in lines:
        actor = shard.stock[key]
        shipment = Shipment(quantity, shipment_id, document_line)
        booked = booked_before(turn, actor, shipment)
        if booked is None:
            book_shipment(turn, actor, (reservation_id, "", "", line_id), shipment, Place("", 0, occur_ms), told)
        elif booked != quantity:
            mismatch(turn, actor, shipment, booked)
    fulfilled, released = told.get(reservation_id, (0, 0))
    if closes:
        released += release_claims(turn, shard, reservation_id, keys, (SHIPPED_SHORT, ()))
    return [rows_of(shard, reservation_id, keys), turn.position(shard), fulfilled, released]


def _shipped(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    reservation = home.reservations[operation.reservation_id]
    note_replies(turn, operation, replies)
    fulfilled = operation.kept[0] + sum(reply[2] for reply in replies.values())
    released = operation.kept[1] + sum(reply[3] for reply in replies.values())
    if fulfilled + released:
        turn.emit(home, ReservationUnitsEnded(reservation.id, fulfilled, released, 0, reservation.channel_id))
    end_if_over(turn, home, reservation, ReservationState.RELEASED)
    spend(turn, home, operation, reservation)


def _hear(turn: Turn, home: ShardState, _from_shard: int, body: Sequence[Any]) -> list[Any] | None:
    """TELL_HOME [reservation id, fulfilled, released]: units ended at a stock actor elsewhere."""
    reservation_id, fulfilled, released = body
    reservation = home.reservations.get(reservation_id)
    if reservation is None:
        return None if reservation_id in home.busy else []  # its order is being decided, or came to nothing
    units_told(turn, home, reservation, fulfilled, released)
    return []


def _asks(books: Books, home_id: int, body: Sequence[Any]) -> list[tuple[int, int, Sequence[Any]]]:
    command = Fulfill(*body)
    reservation = books.reservations.get(command.reservation_id)
    if reservation is None:
        return []
    return lines_elsewhere(books, reservation.id, home_id, _identities(reservation, command))


STEPS[VERB_FULFILL] = _shipped
ERRANDS[SHIP_LINES] = ship_lines
ERRANDS[TELL_HOME] = _hear
ERRAND_KEYS[SHIP_LINES] = lambda _books, body: [shipment_key(line[0], body[2], line[3]) for line in body[3]]
ASKS[Verb.FULFILL] = _asks
