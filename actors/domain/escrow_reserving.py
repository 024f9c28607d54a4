"""Reserve over several shards: tried at each at once, decided by the home when all have answered.

The home's own lines are decided with the intent: an order that falls short there is refused at once, and names only the
lines that were looked at. A try is a claim, not a lock, so nothing waits for anything. A hold to be replaced keeps its units
until the order is decided (``OperationMoved``), then each shard hands over what goes on in the new one and ends the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.answers import Granted, Reply, error, ok, refused
from actors.domain.commands import Reserve, Verb
from actors.domain.escrow import (
    ANSWER_MS_MAX,
    GIVE_UP,
    RETRY_AFTER_MS,
    STEPS,
    TELL_LINES,
    TRY_LINES,
    UNDO_LINES,
    Replies,
    begin,
    end,
    is_spread,
    keys_of,
    move,
    no_room,
    shards_of,
    tell,
)
from actors.domain.escrow_legs import Tried, is_whole, rows_of, take_over, undo_lines
from actors.domain.escrow_lifecycle import end_if_over, shown_again
from actors.domain.escrow_views import note_rows
from actors.domain.events import ReservationEnded, ReservationOpened, ReservationUnitsEnded
from actors.domain.identity import request_key
from actors.domain.lifecycle import final_state
from actors.domain.operation_state import Operation, Outcome
from actors.domain.outcomes import ErrorReason, RefusalReason, ReservationState
from actors.domain.reserving import CONFIRMED, HELD, WHEN_COVERED, replaced_hold, reserve, spend_refusal
from actors.domain.state import Reservation, ShardState
from actors.domain.turn import Turn
from actors.domain.views import line_views

RESERVE = int(Verb.RESERVE)
Shortage = Sequence[Any]  # [line id, stock key, requested, available, reason]


def reserve_anywhere(turn: Turn, home: ShardState, command: Reserve, *, accept_claims: bool) -> Reply:
    """Decide a reserve where not every shard is here."""
    if not is_spread(turn.books, _keys(turn, command)):
        return reserve(turn, home, command, accept_claims=accept_claims)
    key = request_key(command.channel_id, command.request_id)
    again = shown_again(turn, home, command.channel_id, command, is_reserve=True)
    if again is not None:
        return again
    if not accept_claims:
        return error(ErrorReason.JOURNAL_FULL, "disk space is below the floor: new claims are refused", 5000)
    replaced, refusal = replaced_hold(turn, home, command)
    if refusal is not None:
        return spend_refusal(turn, home, command, refusal)
    return _begin(turn, home, command, key, replaced)


def _keys(turn: Turn, command: Reserve) -> list[str]:
    keys = [line[1] for line in command.lines]
    old = turn.reservation(command.replaces_reservation_id) if command.replaces_reservation_id else None
    return keys + keys_of(old) if old is not None and old.final_lines is None else keys


def _begin(turn: Turn, home: ShardState, command: Reserve, key: str, replaced: Reservation | None) -> Reply:
    parts = _parts(turn, home, command, replaced)
    crowded = no_room(home, parts)
    if crowded is not None:
        return crowded
    reservation_id = home.id_prefix + str(home.next_reservation_number)
    replaced_id = replaced.id if replaced is not None else ""
    own = Tried(turn, _body(command, reservation_id, parts.pop(home.id, []), replaced_id))
    if own.falls_short:
        return spend_refusal(turn, home, command, _refusal(turn, home, own.shortages, {}))
    legs = {shard: (TRY_LINES, _body(command, reservation_id, at, replaced_id)) for shard, at in parts.items()}
    kept = own.grant(turn, home)
    until_ms = turn.now_ms + ANSWER_MS_MAX
    return begin(
        turn, home, key, RESERVE, command, reservation_id, legs, replaced_id=replaced_id, until_ms=until_ms, kept=kept
    )  # fmt: skip


def _parts(turn: Turn, home: ShardState, command: Reserve, replaced: Reservation | None) -> dict[int, list[int]]:
    """The places of the lines by shard; a shard that only the replaced hold has units in is there too."""
    parts: dict[int, list[int]] = {}
    for index, line in enumerate(command.lines):
        parts.setdefault(turn.books.shard_of(line[1]), []).append(index)
    for shard_id in shards_of(turn.books, home, keys_of(replaced)) if replaced is not None else ():
        parts.setdefault(shard_id, [])
    return parts


def _body(command: Reserve, reservation_id: str, at: Sequence[int], replaced_id: str) -> list[Any]:
    lines = [command.lines[index] for index in at]
    return [
        reservation_id, lines, command.fill_policy, command.admission, command.channel_id, command.confirm,
        command.order_reference, replaced_id,
    ]  # fmt: skip


def _refusal(turn: Turn, home: ShardState, shortages: Sequence[Shortage], replies: Replies) -> Reply:
    reason = RefusalReason(min(shortage[4] for shortage in shortages))
    others = [tuple(reply[3]) for reply in replies.values() if reply]
    return refused(reason, turn.position(home), shortages=[tuple(one) for one in shortages], other_positions=others)


# --- all have answered ----------------------------------------------------------------------------------------------------


def _step(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    if operation.phase == 1:
        _decide(turn, home, operation, replies)
    else:
        _carried(turn, home, operation, replies)


def _decide(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    command = Reserve(*operation.command)
    if not all(replies.values()):
        detail = "disk space is below the floor: new claims are refused"
        _undo(turn, home, operation, Outcome.ABORTED, error(ErrorReason.JOURNAL_FULL, detail, 5000))
        return
    told = {home.id: operation.kept, **replies}
    shortages = [one for reply in told.values() for one in reply[2]]
    nothing = not any(any(reply[0]) for reply in told.values())
    if shortages and (nothing or is_whole(command)):
        _refuse(turn, home, operation, shortages, replies)
    elif operation.replaced_id:
        _hand_over(turn, home, operation, told)
    else:
        granted = _by_line(turn, home, command, {shard: reply[0] for shard, reply in told.items()})
        rows = [row for reply in replies.values() for row in reply[4]]
        note_rows(turn, operation.reservation_id, rows, [reply[3] for reply in replies.values()])
        _open(turn, home, operation, command, granted)


def _by_line(turn: Turn, home: ShardState, command: Reserve, units: dict[int, Sequence[int]]) -> list[int]:
    """Units by shard and place in its part, put in the order of the order's lines."""
    found = [0] * len(command.lines)
    for shard, at in _parts(turn, home, command, None).items():
        for index, quantity in zip(at, units[shard], strict=True):
            found[index] = quantity
    return found


def _refuse(
    turn: Turn, home: ShardState, operation: Operation, shortages: Sequence[Shortage], replies: Replies
) -> None:
    command = Reserve(*operation.command)
    _undo(turn, home, operation, Outcome.REFUSED, None)
    refusal = _refusal(turn, home, shortages, replies)
    turn.finish(operation.id, spend_refusal(turn, home, command, refusal))


def _undo(turn: Turn, home: ShardState, operation: Operation, outcome: Outcome, reply: Reply | None) -> None:
    """It came to nothing: whoever was asked, heard or not, gives back what it claimed."""
    command = Reserve(*operation.command)
    keys = [line[1] for line in command.lines]
    for shard_id, there in shards_of(turn.books, home, keys).items():
        tell(turn, home, shard_id, UNDO_LINES, [operation.reservation_id, there])
    own = list(dict.fromkeys(key for key in keys if turn.books.shard_of(key) == home.id))
    end(turn, home, operation, outcome)
    undo_lines(turn, home, home.id, [operation.reservation_id, own])
    old = home.reservations.get(operation.replaced_id)
    if old is not None:  # shipped whole while it was to be replaced
        end_if_over(turn, home, old, ReservationState.RELEASED)
    if reply is not None:
        turn.finish(operation.id, reply)


def _give_up(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    """Not answered in time. A no that is certain already is told; else the caller may try again."""
    shortages = [one for reply in (operation.kept, *replies.values()) if reply for one in reply[2]]
    if shortages and is_whole(Reserve(*operation.command)):
        _refuse(turn, home, operation, shortages, replies)
        return
    silent = sorted(set(operation.legs) - set(replies))
    detail = f"shards {', '.join(map(str, silent))} did not answer in time: nothing was reserved"
    reply = error(ErrorReason.SHARD_UNAVAILABLE, detail, RETRY_AFTER_MS)
    _undo(turn, home, operation, Outcome.ABORTED, reply)


# --- it is decided --------------------------------------------------------------------------------------------------------


def _open(turn: Turn, home: ShardState, operation: Operation, command: Reserve, granted: Sequence[int]) -> None:
    state = CONFIRMED if command.confirm else HELD
    expire_time_ms = 0 if command.confirm else turn.now_ms + command.ttl_ms
    lines = [[line[0], line[1], line[2], units] for line, units in zip(command.lines, granted, strict=True)]
    number = int(operation.reservation_id.rpartition("-")[2])
    turn.emit(
        home,
        ReservationOpened(
            operation.reservation_id, number, command.channel_id, command.request_id, command.digest, state,
            expire_time_ms, lines, command.order_reference, command.customer_id, command.replaces_reservation_id,
            command.labels,
        ),
    )  # fmt: skip
    end(turn, home, operation, Outcome.DONE)
    reservation = home.reservations[operation.reservation_id]
    as_asked = (
        command.admission == WHEN_COVERED and not operation.replaced_id and all(one[2] == one[3] for one in lines)
    )
    views = None if as_asked else line_views(turn, reservation)
    positions = list(turn.remote[reservation.id][1].values())
    granted_view = Granted(
        reservation.id, state, 1, turn.now_ms, expire_time_ms, turn.position(home), views, positions
    )  # fmt: skip
    turn.finish(operation.id, ok(granted_view))


def _hand_over(turn: Turn, home: ShardState, operation: Operation, told: Replies) -> None:
    """Decided: what the replaced hold has goes on in the new one, or ends."""
    command = Reserve(*operation.command)
    old = home.reservations[operation.replaced_id]
    parts = _parts(turn, home, command, old)
    keys = {home.id: [key for key in keys_of(old) if turn.books.shard_of(key) == home.id]}
    keys |= shards_of(turn.books, home, keys_of(old))
    bodies: dict[int, list[Any]] = {}
    for shard_id, there in keys.items():
        carried = zip(parts.get(shard_id, ()), told[shard_id][1], strict=True)
        lines = [[command.lines[index][0], command.lines[index][1], units] for index, units in carried if units]
        details = [old.id, command.channel_id, command.confirm, command.order_reference, lines]
        bodies[shard_id] = ["take over", operation.reservation_id, there, *details]
    _, _, own_keys, *own = bodies.pop(home.id)
    ended = take_over(turn, home, operation.reservation_id, own_keys, own)
    rows = [row for reply in told.values() for row in reply[4]]
    positions = [reply[3] for shard, reply in told.items() if shard != home.id]
    legs = {shard_id: (TELL_LINES, body) for shard_id, body in bodies.items()}
    move(turn, home, operation, legs, [rows, positions, ended])
    if not legs:
        _carried(turn, home, operation, {})


def _carried(turn: Turn, home: ShardState, operation: Operation, replies: Replies) -> None:
    """All of it was handed over. The replaced hold ends when every unit of it is told of; then the new one is there."""
    command = Reserve(*operation.command)
    old = home.reservations[operation.replaced_id]
    rows, positions, ended = operation.kept
    if operation.phase == 2:  # noqa: PLR2004
        rows = [*rows, *(row for reply in replies.values() for row in reply[0])]
        positions = [*positions, *(reply[1] for reply in replies.values())]
        ended += sum(reply[2] for reply in replies.values())
        turn.emit(home, ReservationUnitsEnded(old.id, 0, ended, 0, old.channel_id))
    if old.open_units:  # shipped while this was decided: its shard tells of them
        move(turn, home, operation, {}, [rows, positions, 0])
        return
    if old.state == HELD:
        turn.emit(home, ReservationEnded(old.id, final_state(old, ReservationState.RELEASED), old.channel_id))
    rows += rows_of(home, operation.reservation_id, [line[1] for line in command.lines])
    note_rows(turn, operation.reservation_id, rows, positions)
    units = {(row[0], row[1]): row[2] for row in rows}
    _open(turn, home, operation, command, [units.get((line[0], line[1]), 0) for line in command.lines])


STEPS[RESERVE] = _step
GIVE_UP[RESERVE] = _give_up
