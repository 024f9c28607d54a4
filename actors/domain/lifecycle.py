"""Confirm, release, extend and expire: what the home alone decides about a reservation after it was made.

HELD is left once. A command first expires what is due on its own reservation; deadlines are exact.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from actors.domain.alarms import watch_shortage
from actors.domain.answers import Reply, error, ok, refused
from actors.domain.commands import Cause, Confirm, Extend, Release
from actors.domain.escrow import TELL_LINES, begin, is_spread, keys_of, shards_of
from actors.domain.events import (
    ClaimConfirmed,
    ClaimExpired,
    ClaimReleased,
    EntrySpent,
    ReservationConfirmed,
    ReservationEnded,
    ReservationExtended,
    ReservationUnitsEnded,
    VerbSpent,
)
from actors.domain.identity import ANSWER_TOMBSTONE, ANSWER_TOMBSTONE_RELEASE, expiry_key, request_key
from actors.domain.outcomes import ErrorReason, RefusalReason, ReservationState
from actors.domain.state import Books, Claim, Entry, Reservation, ShardState, StockActor
from actors.domain.turn import Turn
from actors.domain.views import refused_about, repeat, reservation_view, tombstone_view

HELD = int(ReservationState.HELD)
CONFIRMED = int(ReservationState.CONFIRMED)
FULFILLED = int(ReservationState.FULFILLED)

CAUSE_EXPIRE = 100  # the verb of a cause that is a deadline: the request id is then the reserve's own
CAUSE_RETIRE = 101  # … that is housekeeping

VERB_CONFIRM, VERB_RELEASE, VERB_EXTEND = 2, 3, 4

ENDED_REFUSALS = {
    int(ReservationState.RELEASED): RefusalReason.RESERVATION_RELEASED,
    int(ReservationState.FULFILLED): RefusalReason.RESERVATION_FULFILLED,
    int(ReservationState.EXPIRED): RefusalReason.RESERVATION_EXPIRED,
}


def deadline_of(shard: ShardState, reservation: Reservation) -> int:
    """When a hold ends: its deadline, or the end of the grace when it passed while nobody owned the shard."""
    expire_time_ms = reservation.expire_time_ms
    return max(expire_time_ms, shard.grace_until_ms) if expire_time_ms < shard.owned_time_ms else expire_time_ms


def final_state(reservation: Reservation, otherwise: ReservationState) -> int:
    """FULFILLED when some unit was, whatever ended the rest."""
    return FULFILLED if reservation.fulfilled_units else int(otherwise)


def claims_of(turn: Turn, reservation: Reservation) -> list[tuple[StockActor, Claim]]:
    """Every claim of the reservation, in the order of its lines."""
    found: list[tuple[StockActor, Claim]] = []
    for line_id, key, _, _ in reservation.lines:
        actor = turn.books.stock.get(key)
        first = actor.claims.get(reservation.id) if actor is not None else None
        claim = first.line(line_id) if first is not None else None
        if actor is not None and claim is not None:
            found.append((actor, claim))
    return found


def is_due(turn: Turn, home: ShardState, reservation: Reservation) -> bool:
    """Whether a hold's deadline has come."""
    return (
        reservation.state == HELD and reservation.final_lines is None and turn.now_ms >= deadline_of(home, reservation)
    )


def expire_if_due(turn: Turn, home: ShardState, reservation: Reservation) -> bool:
    """Expire a hold whose deadline has come; True when it did."""
    if reservation.state != HELD or reservation.final_lines is not None or turn.now_ms < deadline_of(home, reservation):
        return False
    if home.busy and reservation.id in home.busy:
        return False
    cause, emitted = turn.cause, turn.emitted
    turn.begin(Cause(CAUSE_EXPIRE, reservation.channel_id, reservation.request_id))
    if is_spread(turn.books, keys_of(reservation)):
        _begin_expiry(turn, home, reservation)
        turn.begin(cause)
        turn.emitted = emitted
        return True
    expired = reservation.open_units
    if home.inbound:  # a shard that lived on another host may still be about to tell of units that were shipped there
        expired = sum(claim.open for _, claim in claims_of(turn, reservation))
    actors = {actor.key: actor for actor, claim in claims_of(turn, reservation) if claim.open}
    for actor in actors.values():
        turn.emit(actor.shard, ClaimExpired(actor.key, reservation.id))
    turn.emit(home, ReservationUnitsEnded(reservation.id, 0, 0, expired, reservation.channel_id))
    if reservation.open_units == 0:
        turn.emit(
            home,
            ReservationEnded(
                reservation.id, final_state(reservation, ReservationState.EXPIRED), reservation.channel_id
            ),
        )
    for actor in actors.values():
        watch_shortage(turn, actor)
    turn.begin(cause)
    turn.emitted = emitted  # an expiry stands by itself: the command that met it may still fail without a trace
    return True


def _begin_expiry(turn: Turn, home: ShardState, reservation: Reservation) -> None:
    """Some of its lines are on other hosts: their shards are told (``escrow_lifecycle`` goes on with their answers)."""
    expired = 0
    actors: dict[str, StockActor] = {}
    for actor, claim in claims_of(turn, reservation):
        if claim.open and actor.shard is home:
            expired += claim.open
            actors[actor.key] = actor
    for actor in actors.values():
        turn.emit(home, ClaimExpired(actor.key, reservation.id))
    legs = {
        shard_id: (TELL_LINES, ("expire", reservation.id, keys))
        for shard_id, keys in shards_of(turn.books, home, keys_of(reservation)).items()
    }
    begin(turn, home, expiry_key(reservation.id), CAUSE_EXPIRE, (), reservation.id, legs, kept=(expired,))
    for actor in actors.values():
        watch_shortage(turn, actor)


def expire_due(turn: Turn, most: int) -> int:
    """Expire up to ``most`` reservations that are due, earliest deadline first; how many."""
    books = turn.books
    deadlines = books.deadlines
    if len(deadlines) > 2 * books.held_reservations + 10_000:
        _drop_stale_deadlines(books)
        deadlines = books.deadlines
    expired = 0
    while deadlines and expired < most:
        expire_time_ms, shard_id, reservation_id = deadlines[0]
        if expire_time_ms > turn.now_ms:
            break
        heappop(deadlines)
        reservation = books.reservations.get(reservation_id)
        if reservation is None or reservation.state != HELD:
            continue
        home = books.shards[shard_id]
        due_ms = deadline_of(home, reservation)
        if due_ms > turn.now_ms:
            if due_ms != expire_time_ms:
                heappush(deadlines, (due_ms, shard_id, reservation_id))
            continue
        expire_if_due(turn, home, reservation)
        expired += 1
    return expired


def _drop_stale_deadlines(books: Books) -> None:
    """Confirmed, released and extended holds leave their old deadline behind; throw those away now and then."""
    live = {
        (deadline_of(books.shards[shard_id], reservation), shard_id, reservation_id)
        for _, shard_id, reservation_id in books.deadlines
        if (reservation := books.reservations.get(reservation_id)) is not None and reservation.state == HELD
    }
    books.deadlines = list(live)
    heapify(books.deadlines)


def expire_due_on(turn: Turn, actor: StockActor) -> None:
    """Expire what is due on one stock key by homes of this host: done before a claim would be refused there."""
    for reservation_id in list(actor.claims):
        reservation = turn.books.reservations.get(reservation_id)
        if reservation is not None and reservation.state == HELD and reservation.expire_time_ms <= turn.now_ms:
            expire_if_due(turn, turn.books.home_of(reservation), reservation)


def ended_refusal(turn: Turn, home: ShardState, reservation: Reservation) -> Reply | None:
    """The refusal of a verb on an ended reservation, with the state that won; None while it lives."""
    reason = ENDED_REFUSALS.get(reservation.state)
    if reason is None:
        return None
    return refused(reason, turn.position(home), state=reservation.state, version=reservation.version)


def not_found(reservation_id: str) -> Reply:
    """No such reservation, in memory or within the window."""
    return error(ErrorReason.RESERVATION_NOT_FOUND, f"reservation_id {reservation_id!r} is unknown")


def version_refusal(turn: Turn, home: ShardState, reservation: Reservation, expected_version: int) -> Reply | None:
    """VERSION_MISMATCH when the caller expected another one."""
    if expected_version in (0, reservation.version):
        return None
    return refused(
        RefusalReason.VERSION_MISMATCH, turn.position(home), state=reservation.state, version=reservation.version
    )


def confirm(turn: Turn, home: ShardState, command: Confirm) -> Reply:
    """HELD → CONFIRMED: the order was placed. OK payload: ``ReservationView``."""
    reservation = turn.reservation(command.reservation_id)
    if reservation is None:
        return not_found(command.reservation_id)
    again = repeat(turn, home, reservation.channel_id, command.request_id, command.digest, reservation=reservation)
    if again is not None:
        return again
    expire_if_due(turn, home, reservation)
    refusal = ended_refusal(turn, home, reservation)
    if refusal is not None:
        return refusal
    if reservation.state == CONFIRMED:
        return refused(
            RefusalReason.RESERVATION_ALREADY_CONFIRMED,
            turn.position(home),
            state=reservation.state,
            version=reservation.version,
        )
    refusal = version_refusal(turn, home, reservation, command.expected_version)
    if refusal is not None:
        return refusal
    actors = {actor.key: actor for actor, _ in claims_of(turn, reservation)}
    for actor in actors.values():
        turn.emit(actor.shard, ClaimConfirmed(actor.key, reservation.id, command.order_reference))
    turn.emit(home, ReservationConfirmed(reservation.id, command.order_reference, reservation.channel_id))
    turn.emit(home, VerbSpent(reservation.id, command.request_id, command.digest, VERB_CONFIRM))
    return ok(reservation_view(turn, reservation, home))


def extend(turn: Turn, home: ShardState, command: Extend) -> Reply:
    """A later deadline for a hold, within its lifetime bound; never an earlier one. OK payload: ``ReservationView``."""
    reservation = turn.reservation(command.reservation_id)
    if reservation is None:
        return not_found(command.reservation_id)
    again = repeat(turn, home, reservation.channel_id, command.request_id, command.digest, reservation=reservation)
    if again is not None:
        return again
    expire_if_due(turn, home, reservation)
    refusal = ended_refusal(turn, home, reservation)
    if refusal is not None:
        return refusal
    position = turn.position(home)
    if reservation.state == CONFIRMED:
        reason = RefusalReason.RESERVATION_ALREADY_CONFIRMED
        return refused(reason, position, state=reservation.state, version=reservation.version)
    expire_time_ms = turn.now_ms + command.ttl_ms
    if expire_time_ms > reservation.create_time_ms + turn.books.rules.lifetime_ms_max:
        reason = RefusalReason.LIFETIME_EXCEEDED
        return refused(reason, position, state=reservation.state, version=reservation.version)
    turn.emit(
        home,
        ReservationExtended(reservation.id, max(expire_time_ms, reservation.expire_time_ms), reservation.channel_id),
    )
    turn.emit(home, VerbSpent(reservation.id, command.request_id, command.digest, VERB_EXTEND))
    return ok(reservation_view(turn, reservation, home))


def release(turn: Turn, home: ShardState, command: Release) -> Reply:
    """End open units, all or part, with a reason. OK payload: ``ReservationView``."""
    if not command.reservation_id:
        return _release_by_request_id(turn, home, command)
    reservation = turn.reservation(command.reservation_id)
    if reservation is None:
        return not_found(command.reservation_id)
    return _release_found(turn, home, command, reservation)


def _release_found(turn: Turn, home: ShardState, command: Release, reservation: Reservation) -> Reply:
    again = repeat(turn, home, reservation.channel_id, command.request_id, command.digest, reservation=reservation)
    if again is not None:
        return again
    expire_if_due(turn, home, reservation)
    refusal = ended_refusal(turn, home, reservation)
    if refusal is not None:
        return refusal
    claims = claims_of(turn, reservation)
    wanted: dict[str, int] = {}
    for line_id, quantity in command.lines:
        wanted[line_id] = wanted.get(line_id, 0) + quantity
    plan: list[tuple[StockActor, Claim, int]] = []
    if not wanted:
        plan = [(actor, claim, claim.open) for actor, claim in claims if claim.open]
    shortages = []
    for line_id, quantity in wanted.items():
        left = quantity
        key = ""
        for actor, claim in claims:
            if claim.line_id == line_id:
                key = actor.key
                units = min(left, claim.open)
                if units:
                    plan.append((actor, claim, units))
                left -= units
        if left:
            shortages.append((line_id, key, quantity, quantity - left, int(RefusalReason.QUANTITY_EXCEEDS_OPEN)))
    if shortages:
        return refused_about(turn, reservation, home, RefusalReason.QUANTITY_EXCEEDS_OPEN, shortages)
    released = 0
    touched: dict[str, StockActor] = {}
    for actor, claim, units in plan:
        released += units
        touched[actor.key] = actor
        turn.emit(actor.shard, ClaimReleased(actor.key, reservation.id, claim.line_id, units, command.reason))
    turn.emit(home, ReservationUnitsEnded(reservation.id, 0, released, 0, reservation.channel_id))
    if reservation.open_units == 0:
        turn.emit(
            home,
            ReservationEnded(
                reservation.id, final_state(reservation, ReservationState.RELEASED), reservation.channel_id
            ),
        )
    for actor in touched.values():
        watch_shortage(turn, actor)
    turn.emit(home, VerbSpent(reservation.id, command.request_id, command.digest, VERB_RELEASE))
    return ok(reservation_view(turn, reservation, home))


def _release_by_request_id(turn: Turn, home: ShardState, command: Release) -> Reply:
    """Release a reserve whose answer was never seen; one not seen here leaves a tombstone that refuses it when it comes."""
    if command.request_id == command.reserve_request_id:  # both would be spent, the one under the other's key
        return error(ErrorReason.INVALID_FIELD, "request_id: is that of the reserve: the release needs one of its own")
    key = request_key(command.channel_id, command.reserve_request_id)
    spender = turn.spender(key)
    if isinstance(spender, Reservation):
        if spender.request_id != command.reserve_request_id:
            detail = f"reserve.request_id: {command.reserve_request_id!r} is that of another call, not of a reserve"
            return error(ErrorReason.INVALID_FIELD, detail)
        return _release_found(turn, turn.books.home_of(spender), command, spender)
    again = repeat(turn, home, command.channel_id, command.request_id, command.digest)
    if again is not None:
        return again
    if not isinstance(spender, Entry):
        turn.emit(home, EntrySpent(key, b"", (ANSWER_TOMBSTONE, command.request_id)))
    own_key = request_key(command.channel_id, command.request_id)
    turn.emit(home, EntrySpent(own_key, command.digest, (ANSWER_TOMBSTONE_RELEASE,)))
    return ok(tombstone_view(turn, command.channel_id, home))
