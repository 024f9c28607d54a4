"""Amend over several shards: increases are tried first, then it is decided, then decreases are applied.

The plan is ``amending``'s, made with what the other shards say they hold. Nothing is taken away before everything that is
added is claimed; what comes to nothing is taken back before the refusal. Units that a decrease finds already shipped are
released again from the increase of the same line, so that no line gets more than its target. An amend is not given up: a
silent shard's next owner answers.

Phases: 1 the increases are tried; 2 decided: the rest is applied, or what was tried is taken back; 3 what was shipped twice
over is released.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.alarms import watch_shortage
from actors.domain.amending import (
    AMENDED,
    CONFIRMED,
    VERB_AMEND,
    WHEN_COVERED,
    AmendPlan,
    Entry,
    amend,
    by_key,
    retarget_lines,
    spend_amend_refusal,
    why_not,
)
from actors.domain.answers import Reply, error
from actors.domain.commands import Amend, Verb
from actors.domain.errand_registry import ASKS, ERRANDS
from actors.domain.escrow import (
    STEPS,
    TELL_LINES,
    TRY_MORE,
    Replies,
    begin,
    end,
    is_spread,
    keys_of,
    move,
    no_room,
)
from actors.domain.escrow_legs import ABORTED, TOLD, claims_at, release_claims, rows_of
from actors.domain.escrow_lifecycle import end_if_over, lines_elsewhere, meet, spend, unread
from actors.domain.escrow_views import note_rows, rows_told
from actors.domain.events import ClaimGranted, ClaimReleased, ClaimsForgotten, ReservationAmended
from actors.domain.identity import request_key
from actors.domain.lifecycle import claims_of, ended_refusal, expire_due_on, version_refusal
from actors.domain.operation_state import Operation, Outcome
from actors.domain.outcomes import ErrorReason, RefusalReason, ReservationState
from actors.domain.quantities import headroom
from actors.domain.state import Claim, Reservation, ShardState, StockActor
from actors.domain.turn import Turn
from actors.domain.views import refused_about

Units = list[Any]  # [line id, stock key, units]


def amend_anywhere(turn: Turn, home: ShardState, command: Amend, *, accept_claims: bool) -> Reply:
    """AMEND."""
    books = turn.books
    reservation = books.reservations.get(command.reservation_id)
    if reservation is None or not (home.busy or books.partial):
        return amend(turn, home, command, accept_claims=accept_claims)
    keys = [*keys_of(reservation), *(line[1] for line in command.target_lines)]
    if reservation.id not in home.busy and not is_spread(books, keys):
        return amend(turn, home, command, accept_claims=accept_claims)
    before = meet(turn, home, command, reservation)
    if before is not None:
        return before
    if not accept_claims:
        return error(ErrorReason.JOURNAL_FULL, "disk space is below the floor: new claims are refused", 5000)
    refusal = ended_refusal(turn, home, reservation)
    refusal = refusal or version_refusal(turn, home, reservation, command.expected_version)
    if refusal is not None:
        return spend_amend_refusal(turn, home, command, reservation, refusal)
    moved = unread(turn, home, reservation)
    if moved is not None:
        return moved
    plan = _plan(turn, reservation)
    refusal = retarget_lines(turn, home, command, reservation, plan)
    return refusal if refusal is not None else _begin(turn, home, command, reservation, plan)


def _plan(turn: Turn, reservation: Reservation) -> AmendPlan:
    claims: dict[Entry, Claim] = {}
    for (line_id, key), row in rows_told(turn, reservation.id).items():
        claim = Claim(reservation.id, line_id, reservation.channel_id, reservation.order_reference, 0)
        _, _, claim.granted, claim.fulfilled, claim.released, claim.expired, claim.picked, _, _ = row
        claims[line_id, key] = claim
    claims |= {(claim.line_id, actor.key): claim for actor, claim in claims_of(turn, reservation)}
    return AmendPlan(reservation, claims)


def _begin(turn: Turn, home: ShardState, command: Amend, reservation: Reservation, plan: AmendPlan) -> Reply:
    parts = _parts(turn, home, reservation, plan)
    crowded = no_room(home, [shard_id for shard_id in parts if shard_id != home.id])
    if crowded is not None:
        return crowded
    own = try_more(turn, home, home.id, parts.pop(home.id))
    if own[1]:
        return spend_amend_refusal(turn, home, command, reservation, _refusal(turn, home, reservation, own[1]))
    lines = [
        [*entry, plan.requested.get(entry, -1), plan.open_before.get(entry, 0), after]
        for entry, after in plan.open_after.items()
    ]
    key = request_key(reservation.channel_id, command.request_id)
    legs = {shard_id: (TRY_MORE, body) for shard_id, body in parts.items()}
    return begin(turn, home, key, VERB_AMEND, command, reservation.id, legs, kept=[lines, own[0], own[4]])


def _parts(turn: Turn, home: ShardState, reservation: Reservation, plan: AmendPlan) -> dict[int, list[Any]]:
    """By shard: [reservation id, [[line id, stock key, open before, after], …], {stock key: fulfilled}, what its claims say]"""
    said = [reservation.state == CONFIRMED, reservation.channel_id, reservation.order_reference]
    parts: dict[int, list[Any]] = {home.id: [reservation.id, [], *said]}
    for entry, after in plan.open_after.items():
        shard_id = turn.books.shard_of(entry[1])
        part = parts.setdefault(shard_id, [reservation.id, [], *said])
        part[1].append([*entry, plan.open_before.get(entry, 0), after])
    return parts


def _refusal(turn: Turn, home: ShardState, reservation: Reservation, shortages: Sequence[Sequence[Any]]) -> Reply:
    reason = RefusalReason(min(shortage[4] for shortage in shortages))
    return refused_about(turn, reservation, home, reason, [tuple(shortage) for shortage in shortages])


# --- at the stock actors ----------------------------------------------------------------------------------------------------


def try_more(turn: Turn, shard: ShardState, _from_shard: int, body: Sequence[Any]) -> list[Any]:
    """TRY_MORE: claim what a stock key gets beyond what it has. The answer: [units claimed, shortages, position, rows, stock
    keys that had no claim]; with shortages nothing was claimed. While the disk is nearly full: []."""
    reservation_id, lines, confirmed, channel_id, order_reference = body
    if not turn.accept_claims:
        return []
    before = {(line[0], line[1]): line[2] for line in lines}
    after = {(line[0], line[1]): line[3] for line in lines}
    keys = list(dict.fromkeys(line[1] for line in lines))
    shortages = _shortages(turn, shard, reservation_id, before, after)
    given: list[Units] = []
    fresh: list[str] = []
    if not shortages:
        for key, excess in _excess(before, after).items():
            if reservation_id not in shard.stock[key].claims:
                fresh.append(key)
            left = excess
            for entry in [entry for entry in after if entry[1] == key]:
                units = min(left, max(0, after[entry] - before[entry]))
                left -= units
                if units:
                    given.append([*entry, units])
        for line_id, key, units in given:
            turn.emit(
                shard,
                ClaimGranted(
                    key, reservation_id, line_id, units, 0, WHEN_COVERED, 0, 0, confirmed, channel_id, order_reference
                ),
            )
    return [given, shortages, turn.position(shard), rows_of(shard, reservation_id, keys), fresh]


def _excess(before: dict[Entry, int], after: dict[Entry, int]) -> dict[str, int]:
    was = by_key(before)
    return {key: units - was.get(key, 0) for key, units in by_key(after).items() if units > was.get(key, 0)}


def _shortages(
    turn: Turn, shard: ShardState, reservation_id: str, before: dict[Entry, int], after: dict[Entry, int]
) -> list[tuple[str, str, int, int, int]]:
    """As ``amending``'s, of one shard's stock keys."""
    claims = {
        (claim.line_id, actor.key): claim
        for actor, claim in claims_at(shard, reservation_id, {entry[1]: None for entry in after})
    }
    was, will = by_key(before), by_key(after)
    fulfilled = by_key({entry: claim.fulfilled for entry, claim in claims.items()})
    shortages = []
    for key, excess in _excess(before, after).items():
        actor = shard.stock.get(key)
        adrift = _set_adrift(key, claims, before, after)
        if actor is not None and excess > headroom(actor) - adrift:
            expire_due_on(turn, actor)
        reason, available = why_not(actor, excess, will[key] + fulfilled.get(key, 0), adrift)
        if reason is not None:
            line_id = next(entry[0] for entry in after if entry[1] == key and after[entry])
            shortages.append((line_id, key, will[key], was.get(key, 0) + available, int(reason)))
    return shortages


def _set_adrift(key: str, claims: dict[Entry, Claim], before: dict[Entry, int], after: dict[Entry, int]) -> int:
    adrift = 0
    for entry, units in before.items():
        if entry[1] == key and after[entry] < units and entry in claims:
            picked = claims[entry].picked
            adrift += max(0, picked - after[entry]) - max(0, picked - units)
    return adrift


def apply_rest(
    turn: Turn, shard: ShardState, reservation_id: str, _keys: Sequence[str], details: Sequence[Any]
) -> list[Any]:
    """[fewer, more, confirmed, channel, order reference]: units [[line id, stock key, units], …] that end, and those that go
    on under other lines of the same stock key. The answer: [[line id, stock key, units that ended], …], units carried."""
    fewer, more, confirmed, channel_id, order_reference = details
    pool: dict[str, list[int]] = {}  # stock key → [units, of them imposed, of them uncovered] freed and not carried yet
    ended: list[Units] = []
    touched: dict[str, StockActor] = {}
    claims = {
        (claim.line_id, actor.key): claim
        for actor, claim in claims_at(shard, reservation_id, {one[1]: None for one in fewer})
    }
    for line_id, key, units in fewer:
        claim = claims.get((line_id, key))
        units = min(units, claim.open) if claim is not None else 0
        ended.append([line_id, key, units])
        if claim is None or not units:
            continue
        kept = pool.setdefault(key, [0, 0, 0])
        imposed = min(units, claim.imposed)
        kept[0] += units
        kept[1] += imposed
        kept[2] += min(imposed, claim.uncovered)
        touched[key] = shard.stock[key]
        turn.emit(shard, ClaimReleased(key, reservation_id, line_id, units, AMENDED))
    carried_units = 0
    for line_id, key, units in more:
        kept = pool.get(key, [0, 0, 0])
        carried = min(units, kept[0])
        if not carried:
            continue
        imposed = min(carried, kept[1])
        uncovered = min(imposed, kept[2])
        kept[0] -= carried
        kept[1] -= imposed
        kept[2] -= uncovered
        carried_units += carried
        turn.emit(
            shard,
            ClaimGranted(
                key, reservation_id, line_id, carried, carried, WHEN_COVERED, imposed, uncovered, confirmed,
                channel_id, order_reference,
            ),
        )  # fmt: skip
    for actor in touched.values():
        watch_shortage(turn, actor)
    return [ended, carried_units]


def take_back(
    turn: Turn, shard: ShardState, reservation_id: str, keys: Sequence[str], details: Sequence[Any]
) -> list[Any]:
    """[units claimed, stock keys that had no claim before]: the amend is refused elsewhere."""
    given, fresh = details
    for line_id, key, units in given:
        actor = shard.stock[key]
        claim = actor.claims[reservation_id].line(line_id)
        assert claim is not None, "what was tried here is not here"
        if min(units, claim.open):
            turn.emit(shard, ClaimReleased(key, reservation_id, line_id, min(units, claim.open), ABORTED))
    for key in fresh:
        first = shard.stock[key].claims[reservation_id]
        if all(not claim.open and claim.picked <= 0 and not claim.fulfilled for claim in first.chain()):
            turn.emit(shard, ClaimsForgotten(key, reservation_id))
    for key in keys:
        if key in shard.stock:
            watch_shortage(turn, shard.stock[key])
    return []


# --- all have answered ------------------------------------------------------------------------------------------------------


def _step(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    if operation.phase == 1:
        _decide(turn, home, operation, replies)
    elif operation.kept[0] == "refused":
        _refuse(turn, home, operation)
    else:
        _applied(turn, home, operation, replies)


def _decide(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    shortages = [one for reply in replies.values() if reply for one in reply[1]]
    if shortages or not all(replies.values()):
        _take_back(turn, home, operation, replies, shortages)
        return
    lines, own_given, _ = operation.kept
    reservation = home.reservations[operation.reservation_id]
    tried: dict[Entry, int] = {}
    for part in (own_given, *(reply[0] for reply in replies.values())):
        for line_id, key, units in part:
            tried[line_id, key] = tried.get((line_id, key), 0) + units
    said = [reservation.state == CONFIRMED, reservation.channel_id, reservation.order_reference]
    legs: dict[int, list[Any]] = {}
    for line_id, key, _, before, after in lines:
        body = legs.setdefault(turn.books.shard_of(key), ["amend", reservation.id, [], [], [], *said])
        body[2].append(key)
        if after < before:
            body[3].append([line_id, key, before - after])
        elif after - before > tried.get((line_id, key), 0):
            body[4].append([line_id, key, after - before - tried.get((line_id, key), 0)])
    own_ended: list[Units] = []
    own_carried = 0
    if home.id in legs:
        _, _, keys, *details = legs.pop(home.id)
        own_ended, own_carried = apply_rest(turn, home, reservation.id, keys, details)
    positions = [reply[2] for reply in replies.values()]
    added = sum(tried.values()) + own_carried
    move(
        turn, home, operation, {shard_id: (TELL_LINES, body) for shard_id, body in legs.items()},
        ["decided", lines, added, own_ended, [], positions],
    )  # fmt: skip
    if not legs:
        _applied(turn, home, operation, {})


def _take_back(
    turn: Turn, home: ShardState, operation: Operation, replies: Replies, shortages: Sequence[Sequence[Any]]
) -> None:
    _, own_given, own_fresh = operation.kept
    take_back(turn, home, operation.reservation_id, [one[1] for one in own_given], [own_given, own_fresh])
    legs: dict[int, tuple[int, Sequence[Any]]] = {}
    for shard_id, reply in replies.items():
        if reply and reply[0]:
            keys = list(dict.fromkeys(one[1] for one in reply[0]))
            legs[shard_id] = (TELL_LINES, ["take back", operation.reservation_id, keys, reply[0], reply[4]])
    move(turn, home, operation, legs, ["refused", shortages, [reply[2] for reply in replies.values() if reply]])
    if not legs:
        _refuse(turn, home, operation)


def _refuse(turn: Turn, home: ShardState, operation: Operation) -> None:
    _, shortages, positions = operation.kept
    reservation = home.reservations[operation.reservation_id]
    command = Amend(*operation.command)
    note_rows(turn, reservation.id, (), positions)
    end_if_over(turn, home, reservation, ReservationState.RELEASED)
    if not shortages:
        end(turn, home, operation, Outcome.ABORTED)
        detail = "disk space is below the floor: new claims are refused"
        turn.finish(operation.id, error(ErrorReason.JOURNAL_FULL, detail, 5000))
        return
    refusal = _refusal(turn, home, reservation, shortages)
    end(turn, home, operation, Outcome.REFUSED)
    turn.finish(operation.id, spend_amend_refusal(turn, home, command, reservation, refusal))


def _applied(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    """The decreases are applied; what of them had been shipped is released from the increases of the same lines."""
    reservation = home.reservations[operation.reservation_id]
    _, lines, added, ended, rows, positions = operation.kept
    rows = [*rows, *(row for reply in replies.values() for row in reply[0])]
    positions = [*positions, *(reply[1] for reply in replies.values())]
    if operation.phase == 2:  # noqa: PLR2004
        ended = [*ended, *(one for reply in replies.values() for one in reply[2][0])]
        added += sum(reply[2][1] for reply in replies.values())
        over = _shipped_over(lines, ended)
        if over:
            _release_over(turn, home, operation, over, ["decided", lines, added, ended, rows, positions])
            return
    else:
        ended = [*ended, *(["", "", reply[2]] for reply in replies.values())]
    note_rows(turn, reservation.id, rows, positions)
    released = sum(one[2] for one in ended)
    turn.emit(
        home,
        ReservationAmended(
            reservation.id, _lines_after(turn, home, reservation, lines), added, released, reservation.channel_id
        ),
    )
    end_if_over(turn, home, reservation, ReservationState.RELEASED)
    spend(turn, home, operation, reservation)


def _shipped_over(lines: Sequence[Sequence[Any]], ended: Sequence[Units]) -> list[Units]:
    """[[line id, stock key, units], …] to release from increases."""
    done = {(line_id, key): units for line_id, key, units in ended}
    over: dict[str, int] = {}
    for line_id, key, _, before, after in lines:
        missing = before - after - done.get((line_id, key), 0)
        if after < before and missing:
            over[line_id] = over.get(line_id, 0) + missing
    found = []
    for line_id, key, _, before, after in lines:
        units = min(over.get(line_id, 0), after - before)
        if units > 0:
            over[line_id] -= units
            found.append([line_id, key, units])
    return found


def _release_over(turn: Turn, home: ShardState, operation: Operation, over: Sequence[Units], kept: list[Any]) -> None:
    legs: dict[int, list[Any]] = {}
    for one in over:
        body = legs.setdefault(turn.books.shard_of(one[1]), ["release", operation.reservation_id, [], AMENDED, []])
        body[2].append(one[1])
        body[4].append(one)
    if home.id in legs:
        _, _, keys, *details = legs.pop(home.id)
        kept[3] = [*kept[3], ["", "", release_claims(turn, home, operation.reservation_id, keys, details)]]
    move(turn, home, operation, {shard_id: (TELL_LINES, body) for shard_id, body in legs.items()}, kept)
    if not legs:
        _applied(turn, home, operation, {})


def _lines_after(
    turn: Turn, home: ShardState, reservation: Reservation, lines: Sequence[Sequence[Any]]
) -> list[list[Any]]:
    """The reservation's lines: what each stock key has of them now. A moved line keeps its fulfilled units as an entry."""
    rows = dict(rows_told(turn, reservation.id))
    for row in rows_of(home, reservation.id, dict.fromkeys(line[1] for line in lines)):
        rows[row[0], row[1]] = row
    after = []
    for line_id, key, requested, _, units in lines:
        has = rows.get((line_id, key))
        granted, fulfilled = (has[2], has[3]) if has is not None else (0, 0)
        if not units and fulfilled:  # also those shipped while this was decided
            requested = fulfilled if requested < 0 else max(requested, fulfilled)
        if requested >= 0:
            after.append([line_id, key, requested, granted])
    return after


def _asks(books: Any, home_id: int, body: Sequence[Any]) -> list[tuple[int, int, Sequence[Any]]]:
    return lines_elsewhere(books, body[2], home_id)


STEPS[VERB_AMEND] = _step
ERRANDS[TRY_MORE] = try_more
TOLD["amend"] = apply_rest
TOLD["take back"] = take_back
ASKS[Verb.AMEND] = _asks
