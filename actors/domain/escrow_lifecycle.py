"""Confirm, release, extend, expire and read reservations whose lines live on several hosts.

The home alone decides: once begun none of these can be refused or given up. Each other shard is told and answers what ended
there; a shipment that was faster is told of by its shard (``escrow_fulfilling``), and an operation that ends every unit waits
for that, so that none is counted twice. The home's record changes when all have answered, but for a confirmation, which is a
fact from its intent on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actors.domain.answers import Reply, error, ok, refused
from actors.domain.commands import Confirm, Extend, GetReservation, Release, Verb
from actors.domain.errand_registry import ASKS
from actors.domain.escrow import (
    READ_LINES,
    RETRY_AFTER_MS,
    STEPS,
    TELL_LINES,
    Replies,
    begin,
    busy,
    end,
    is_spread,
    keys_ever,
    keys_of,
    move,
    no_room,
    shards_of,
)
from actors.domain.escrow_legs import confirm_claims, release_claims
from actors.domain.escrow_views import note_rows, note_told, rows_told
from actors.domain.events import ReservationConfirmed, ReservationEnded, ReservationUnitsEnded, VerbSpent
from actors.domain.identity import request_key
from actors.domain.lifecycle import (
    CAUSE_EXPIRE,
    CAUSE_RETIRE,
    CONFIRMED,
    HELD,
    VERB_CONFIRM,
    VERB_RELEASE,
    claims_of,
    confirm,
    ended_refusal,
    expire_if_due,
    extend,
    final_state,
    is_due,
    release,
    version_refusal,
)
from actors.domain.operation_state import Operation, Outcome
from actors.domain.outcomes import ErrorReason, RefusalReason, ReservationState
from actors.domain.reading import get_reservation
from actors.domain.state import Books, Reservation, ShardState
from actors.domain.turn import Turn
from actors.domain.views import refused_about, repeat, reservation_view

LIVE = (HELD, CONFIRMED)


# --- before a verb ----------------------------------------------------------------------------------------------------------


def meet(turn: Turn, home: ShardState, command: Any, reservation: Reservation) -> Reply | None:
    """What stands before a verb on a reservation with lines elsewhere: its answer was given, or is under way; its deadline
    has come; something else is under way. None: nothing does."""
    note_told(turn, reservation.id)
    again = shown_again(turn, home, reservation.channel_id, command)
    if again is not None:
        return again
    expire_if_due(turn, home, reservation)
    return busy(home, reservation.id)


def shown_again(
    turn: Turn, home: ShardState, channel_id: str, command: Any, *, is_reserve: bool = False
) -> Reply | None:
    """``views.repeat``, for a decision whose lines are shown as they are now and some of them elsewhere."""
    spender = turn.spender(request_key(channel_id, command.request_id))
    if isinstance(spender, Reservation) and spender.final_lines is None:
        note_told(turn, spender.id)
        moved = unread(turn, home, spender, keys_ever(spender), in_any_version=True)
        if moved is not None:
            return moved
    return repeat(turn, home, channel_id, command.request_id, command.digest, is_reserve=is_reserve)


def spread(turn: Turn, home: ShardState, reservation_id: str) -> Reservation | None:
    """The reservation, when it cannot be decided as on one host: lines elsewhere, or an operation under way."""
    reservation = turn.books.reservations.get(reservation_id)
    if reservation is None or not (home.busy or turn.books.partial):
        return None
    return reservation if reservation_id in home.busy or is_spread(turn.books, keys_of(reservation)) else None


def unread(
    turn: Turn,
    home: ShardState,
    reservation: Reservation,
    keys: Sequence[str] = (),
    *,
    in_any_version: bool = False,
) -> Reply | None:
    """Other shards were not asked, or before something else happened: what they hold is not known. Come again."""
    seen = turn.remote[reservation.id][1] if reservation.id in turn.remote else {}
    here = turn.books.shards
    legs = shards_of(turn.books, home, keys or keys_of(reservation))
    fresh = in_any_version or all(told[3] == reservation.version for told in turn.told)
    if fresh and all(shard_id in seen or shard_id in here for shard_id in legs):
        return None
    return error(ErrorReason.BUSY, f"lines of reservation {reservation.id!r} have just changed", RETRY_AFTER_MS)


def own_keys(turn: Turn, home: ShardState, reservation: Reservation) -> list[str]:
    """The stock keys of its lines that live at its home."""
    return list(dict.fromkeys(key for key in keys_of(reservation) if turn.books.shard_of(key) == home.id))


# --- verbs ------------------------------------------------------------------------------------------------------------------


def confirm_anywhere(turn: Turn, home: ShardState, command: Confirm) -> Reply:
    """CONFIRM: decided at once, answered when all shards know."""
    reservation = spread(turn, home, command.reservation_id)
    if reservation is None:
        return confirm(turn, home, command)
    before = meet(turn, home, command, reservation) or ended_refusal(turn, home, reservation)
    if before is not None:
        return before
    if reservation.state == CONFIRMED:
        reason, position = RefusalReason.RESERVATION_ALREADY_CONFIRMED, turn.position(home)
        return refused(reason, position, state=reservation.state, version=reservation.version)
    refusal = version_refusal(turn, home, reservation, command.expected_version)
    legs = shards_of(turn.books, home, keys_of(reservation))
    refusal = refusal or no_room(home, legs)
    if refusal is not None:
        return refusal
    told = {
        shard_id: (TELL_LINES, ["confirm", reservation.id, keys, command.order_reference])
        for shard_id, keys in legs.items()
    }
    key = request_key(reservation.channel_id, command.request_id)
    answer = begin(turn, home, key, VERB_CONFIRM, command, reservation.id, told)
    confirm_claims(turn, home, reservation.id, own_keys(turn, home, reservation), [command.order_reference])
    turn.emit(home, ReservationConfirmed(reservation.id, command.order_reference, reservation.channel_id))
    return answer


def extend_anywhere(turn: Turn, home: ShardState, command: Extend) -> Reply:
    """EXTEND: the home's alone; only what the lines have is read elsewhere."""
    reservation = spread(turn, home, command.reservation_id)
    if reservation is None:
        return extend(turn, home, command)
    before = meet(turn, home, command, reservation) or unread(turn, home, reservation)
    return before if before is not None else extend(turn, home, command)


def get_anywhere(turn: Turn, home: ShardState, command: GetReservation) -> Reply:
    """GET_RESERVATION."""
    reservation = turn.books.reservations.get(command.reservation_id)
    if reservation is None or not is_spread(turn.books, keys_of(reservation)):
        return get_reservation(turn, home, command)
    note_told(turn, reservation.id)
    expire_if_due(turn, home, reservation)
    under_way = busy(home, reservation.id) if is_due(turn, home, reservation) else None
    moved = unread(turn, home, reservation, in_any_version=True)
    return under_way or moved or get_reservation(turn, home, command)


def release_anywhere(turn: Turn, home: ShardState, command: Release) -> Reply:
    """RELEASE: irrevocable once begun; a shard releases what is still open there."""
    found = _to_release(turn, command)
    if isinstance(found, Operation):
        return error(ErrorReason.BUSY, "the reserve itself is under way", RETRY_AFTER_MS)
    reservation = spread(turn, home, found) if found else None
    if reservation is None:
        return release(turn, home, command)
    before = meet(turn, home, command, reservation) or ended_refusal(turn, home, reservation)
    before = before or (unread(turn, home, reservation) if command.lines else None)
    if before is not None:
        return before
    wanted, shortages = _wanted(turn, reservation, command)
    if shortages:
        return refused_about(turn, reservation, home, RefusalReason.QUANTITY_EXCEEDS_OPEN, shortages)
    legs = shards_of(turn.books, home, keys_of(reservation))
    crowded = no_room(home, legs)
    if crowded is not None:
        return crowded
    told = {
        shard_id: (TELL_LINES, _release_body(command, reservation, keys, wanted)) for shard_id, keys in legs.items()
    }
    here = own_keys(turn, home, reservation)
    what, _, _, *details = _release_body(command, reservation, here, wanted)
    released = release_claims(turn, home, reservation.id, here, details) if what == "release" else 0
    key = request_key(reservation.channel_id, command.request_id)
    return begin(turn, home, key, VERB_RELEASE, command, reservation.id, told, kept=[released])


def _to_release(turn: Turn, command: Release) -> str | Operation:
    """Which reservation is meant: also one whose answer was never seen; the operation that may make it."""
    if command.reservation_id:
        return command.reservation_id
    spender = turn.spender(request_key(command.channel_id, command.reserve_request_id))
    if isinstance(spender, Operation):
        return spender
    is_meant = isinstance(spender, Reservation) and spender.request_id == command.reserve_request_id
    return spender.id if is_meant and command.request_id != command.reserve_request_id else ""  # type: ignore[union-attr]


def _wanted(
    turn: Turn, reservation: Reservation, command: Release
) -> tuple[list[tuple[str, str, int]] | None, list[tuple[str, str, int, int, int]]]:
    """[(line id, stock key, units), …] to release (None: all that is open), and the lines that have not so many open."""
    if not command.lines:
        return None, []
    open_units = {
        (row[0], row[1]): row[2] - row[3] - row[4] - row[5] for row in rows_told(turn, reservation.id).values()
    }
    open_units |= {(claim.line_id, actor.key): claim.open for actor, claim in claims_of(turn, reservation)}
    sums: dict[str, int] = {}
    for line_id, quantity in command.lines:
        sums[line_id] = sums.get(line_id, 0) + quantity
    wanted, shortages = [], []
    for line_id, quantity in sums.items():
        left, key = quantity, ""
        for entry in [(line[0], line[1]) for line in reservation.lines if line[0] == line_id]:
            key = entry[1]
            units = min(left, open_units.get(entry, 0))
            left -= units
            if units:
                wanted.append((*entry, units))
        if left:
            shortages.append((line_id, key, quantity, quantity - left, int(RefusalReason.QUANTITY_EXCEEDS_OPEN)))
    return wanted, shortages


def _release_body(
    command: Release, reservation: Reservation, keys: Sequence[str], wanted: list[tuple[str, str, int]] | None
) -> list[Any]:
    if wanted is None:
        return ["release", reservation.id, keys, command.reason, []]
    lines = [entry for entry in wanted if entry[1] in keys]
    return ["release", reservation.id, keys, command.reason, lines] if lines else ["read", reservation.id, keys]


# --- all have answered ------------------------------------------------------------------------------------------------------


def note_replies(turn: Turn, operation: Operation, replies: Replies) -> None:
    """What the legs hold, for the answer; also what an earlier phase kept."""
    rows = [row for reply in replies.values() for row in reply[0]]
    positions = [reply[1] for reply in replies.values()]
    if operation.phase > 1:
        rows, positions = [*operation.kept[0], *rows], [*operation.kept[1], *positions]
    note_rows(turn, operation.reservation_id, rows, positions)


def _confirmed(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    reservation = home.reservations[operation.reservation_id]
    note_replies(turn, operation, replies)
    end_if_over(turn, home, reservation, ReservationState.RELEASED)
    spend(turn, home, operation, reservation)


def _released(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    reservation = home.reservations[operation.reservation_id]
    note_replies(turn, operation, replies)
    if operation.phase == 1:
        released = operation.kept[0] + sum(reply[2] for reply in replies.values())
        turn.emit(home, ReservationUnitsEnded(reservation.id, 0, released, 0, reservation.channel_id))
    is_whole = not Release(*operation.command).lines
    if is_whole and _waits(turn, home, operation, reservation, replies):
        return
    end_if_over(turn, home, reservation, ReservationState.RELEASED)
    spend(turn, home, operation, reservation)


def _expired(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    reservation = home.reservations[operation.reservation_id]
    if operation.phase == 1:
        expired = operation.kept[0] + sum(reply[2] for reply in replies.values())
        turn.emit(home, ReservationUnitsEnded(reservation.id, 0, 0, expired, reservation.channel_id))
    if _waits(turn, home, operation, reservation, replies):
        return
    end_if_over(turn, home, reservation, ReservationState.EXPIRED)
    end(turn, home, operation, Outcome.DONE)


def _waits(turn: Turn, home: ShardState, operation: Operation, reservation: Reservation, replies: Replies) -> bool:
    """Units that were shipped meanwhile are still to be told of: the operation stays open until they are."""
    if not reservation.open_units:
        return False
    if operation.phase == 1:
        kept = [[row for reply in replies.values() for row in reply[0]], [reply[1] for reply in replies.values()]]
        move(turn, home, operation, {}, kept)
    return True


def end_if_over(turn: Turn, home: ShardState, reservation: Reservation, otherwise: ReservationState) -> None:
    """No unit is open any more."""
    if reservation.open_units == 0 and reservation.state in LIVE:
        state = final_state(reservation, otherwise)
        turn.emit(home, ReservationEnded(reservation.id, state, reservation.channel_id))


def spend(turn: Turn, home: ShardState, operation: Operation, reservation: Reservation) -> None:
    """The verb is done: its id is spent, and whoever waits is answered."""
    request_id, digest = operation.command[:2]
    end(turn, home, operation, Outcome.DONE)
    turn.emit(home, VerbSpent(reservation.id, request_id, digest, operation.verb))
    turn.finish(operation.id, ok(reservation_view(turn, reservation, home)))


def _retirable(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    """The ended reservation leaves memory at the end of this turn, unless units are still off the shelf for it."""
    note_replies(turn, operation, replies)
    end(turn, home, operation, Outcome.DONE)
    turn.retirable.append((operation.reservation_id, any(reply[2] for reply in replies.values())))


STEPS[VERB_CONFIRM] = _confirmed
STEPS[VERB_RELEASE] = _released
STEPS[CAUSE_EXPIRE] = _expired
STEPS[CAUSE_RETIRE] = _retirable


# --- what is read elsewhere first ---------------------------------------------------------------------------------------------

Ask = tuple[int, int, Sequence[Any]]


def lines_elsewhere(books: Books, reservation_id: str, home_id: int, shipments: Sequence[Any] = ()) -> list[Ask]:
    """Read the lines of a reservation that are on other hosts."""
    reservation = books.reservations.get(reservation_id)
    home = books.shards.get(home_id)
    every = keys_ever(reservation) if reservation is not None else []
    if reservation is None or home is None or not is_spread(books, every):
        return []
    return [
        (
            shard_id,
            READ_LINES,
            (reservation_id, keys, reservation.version, [one for one in shipments if one[0] in keys]),
        )
        for shard_id, keys in shards_of(books, home, every).items()
        if shard_id not in books.shards
    ]


def _of_repeat(channel_at: int) -> Callable[[Books, int, Sequence[Any]], list[Ask]]:
    """Only a request that was decided before shows lines as they are now."""

    def asks(books: Books, home_id: int, body: Sequence[Any]) -> list[Ask]:
        channel_id = body[channel_at]
        if channel_at == 2 and body[2] in books.reservations:  # noqa: PLR2004  a verb names its reservation there
            channel_id = books.reservations[body[2]].channel_id
        spender = books.request_ids.get(request_key(channel_id, body[0]))
        return lines_elsewhere(books, spender.id, home_id) if isinstance(spender, Reservation) else []

    return asks


def _of_release(books: Books, home_id: int, body: Sequence[Any]) -> list[Ask]:
    reservation_id = body[2]
    if not reservation_id:
        spender = books.request_ids.get(request_key(body[3], body[4]))
        reservation_id = spender.id if isinstance(spender, Reservation) else ""
    reservation = books.reservations.get(reservation_id)
    if reservation is None:
        return []
    known = request_key(reservation.channel_id, body[0]) in books.request_ids
    return lines_elsewhere(books, reservation_id, home_id) if body[5] or known else []


ASKS[Verb.RESERVE] = _of_repeat(2)
ASKS[Verb.CONFIRM] = _of_repeat(2)
ASKS[Verb.RELEASE] = _of_release
ASKS[Verb.EXTEND] = lambda books, home_id, body: lines_elsewhere(books, body[2], home_id)
ASKS[Verb.GET_RESERVATION] = lambda books, home_id, body: lines_elsewhere(books, body[0], home_id)
