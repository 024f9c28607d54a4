"""Operations over several shards: how a home asks other shards about one reservation, and goes on with their answers.

Where every shard of a reservation is on its home's host nothing of this happens: one turn decides it. Otherwise the home
journals its intent and sends each other shard an errand (a leg); only the home's own lines are decided in its own turn. What
is done with the answers stands in ``STEPS``, per verb; the home alone decides, so a successor goes on from its journal. An
intent that was not answered by ``until_ms`` is given up (``GIVE_UP``): no decision on record means that nothing happened, and
the errand that undoes a leg follows the one that did it, in the same channel. While an operation is under way its
reservation is busy: other verbs are asked to come again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop
from typing import Any

from actors.domain.answers import Reply, error, pending
from actors.domain.commands import Cause
from actors.domain.errand_registry import ANSWERS
from actors.domain.errand_state import Errand
from actors.domain.errands import has_room, plain, send
from actors.domain.operation_events import LegAnswered, OperationBegun, OperationEnded, OperationMoved
from actors.domain.operation_state import Operation, Outcome
from actors.domain.outcomes import ErrorReason
from actors.domain.state import Books, Reservation, ShardState
from actors.domain.turn import Turn

TRY_LINES, UNDO_LINES, TELL_LINES, READ_LINES, SHIP_LINES, TELL_HOME, TRY_MORE = range(82, 89)
ANSWER_MS_MAX = 5_000  # how long a reserve or an amend waits for another shard before it is given up
RETRY_AFTER_MS = 50
ORDER = "order"  # the purpose of a leg: [ORDER, operation id, serial, phase]

Replies = Mapping[int, Sequence[Any]]
Step = Callable[[Turn, ShardState, Operation, Replies], None]

STEPS: dict[int, Step] = {}  # by verb: all legs of the phase have answered
GIVE_UP: dict[int, Step] = {}  # by verb: they have not, in time; with those that did


def shards_of(books: Books, home: ShardState, keys: Iterable[str]) -> dict[int, list[str]]:
    """The stock keys by their shard, those of the home left out."""
    legs: dict[int, list[str]] = {}
    for key in dict.fromkeys(keys):
        shard_id = books.shard_of(key)
        if shard_id != home.id:
            legs.setdefault(shard_id, []).append(key)
    return legs


def is_spread(books: Books, keys: Iterable[str]) -> bool:
    """Whether some of these stock keys live on other hosts now."""
    if not books.partial:
        return False
    stock, shards = books.stock, books.shards
    return any(key not in stock and books.shard_of(key) not in shards for key in keys)


def keys_of(reservation: Reservation) -> list[str]:
    """The stock keys of a reservation's lines."""
    return [line[1] for line in reservation.lines]


def keys_ever(reservation: Reservation) -> list[str]:
    """Every stock key that may have claims of it, also those whose entries an amend dropped or moved elsewhere."""
    earlier = [reservation.first_lines or (), *(spent.lines or () for spent in reservation.spent or ())]
    return list(dict.fromkeys(line[1] for lines in (reservation.lines, *earlier) for line in lines))


def busy(home: ShardState, reservation_id: str) -> Reply | None:
    """An operation on this reservation is under way: come again."""
    if reservation_id not in home.busy:
        return None
    return error(ErrorReason.BUSY, f"another call on reservation {reservation_id!r} is under way", RETRY_AFTER_MS)


def no_room(home: ShardState, legs: Iterable[int]) -> Reply | None:
    """Too much is under way to one of these shards."""
    if all(has_room(home, shard_id) for shard_id in legs):
        return None
    return error(ErrorReason.OVERLOADED, "too much is under way to another host", RETRY_AFTER_MS)


def begin(  # noqa: PLR0913  the parts of an intent
    turn: Turn,
    home: ShardState,
    operation_id: str,
    verb: int,
    command: Sequence[Any],
    reservation_id: str,
    legs: Mapping[int, tuple[int, Sequence[Any]]],
    *,
    replaced_id: str = "",
    until_ms: int = 0,
    kept: Sequence[Any] = (),
) -> Reply:
    """Journal the intent and ask ``legs``: by shard, (verb, body). The answer for whoever waits: not yet."""
    turn.emit(
        home,
        OperationBegun(
            operation_id, verb, plain(command), reservation_id, replaced_id, until_ms, list(legs), plain(kept),
            list(turn.cause),
        ),
    )  # fmt: skip
    _ask(turn, home, home.operations[operation_id], legs)
    return pending(operation_id)


def move(
    turn: Turn,
    home: ShardState,
    operation: Operation,
    legs: Mapping[int, tuple[int, Sequence[Any]]],
    kept: Sequence[Any] = (),
) -> None:
    """The next phase. Without legs: goes on at once, unless units have to be told of first (``go_on``)."""
    turn.emit(home, OperationMoved(operation.id, operation.phase + 1, list(legs), plain(kept)))
    _ask(turn, home, operation, legs)


def end(turn: Turn, home: ShardState, operation: Operation, outcome: Outcome) -> None:
    """It is over; what it came to was emitted."""
    turn.emit(home, OperationEnded(operation.id, int(outcome)))


def tell(turn: Turn, home: ShardState, shard_id: int, verb: int, body: Sequence[Any]) -> None:
    """Ask for what nobody waits for."""
    send(turn, home, shard_id, verb, body, (ORDER, "", 0, 0))


def go_on(turn: Turn, home: ShardState, reservation_id: str) -> None:
    """Units of this reservation ended elsewhere: an operation may have waited for that."""
    operation = home.busy.get(reservation_id)
    if operation is not None and operation.is_answered:
        STEPS[operation.verb](turn, home, operation, {})


def _ask(turn: Turn, home: ShardState, operation: Operation, legs: Mapping[int, tuple[int, Sequence[Any]]]) -> None:
    purpose = (ORDER, operation.id, operation.serial, operation.phase)
    for shard_id, (verb, body) in legs.items():
        send(turn, home, shard_id, verb, body, purpose)


def _answered(turn: Turn, home: ShardState, errand: Errand, reply: Sequence[Any]) -> None:
    """A leg's answer; of an operation that was given up, or of one that nobody waits for, it says nothing new."""
    _, operation_id, serial, phase = errand.purpose
    operation = home.operations.get(operation_id)
    if operation is None or operation.serial != serial or operation.phase != phase:
        return
    shard_id = errand.to_shard
    replies = {other: told for other, told in operation.legs.items() if told is not None}
    if len(replies) + 1 < len(operation.legs):
        turn.emit(home, LegAnswered(operation_id, shard_id, plain(reply)))
        return
    replies[shard_id] = reply
    STEPS[operation.verb](turn, home, operation, replies)


def give_up_due(turn: Turn) -> None:
    """Abort what was not answered in time. No decision on record: nothing happened."""
    books = turn.books
    due = books.operations_due
    while due and due[0][0] <= turn.now_ms:
        _, shard_id, operation_id, serial = heappop(due)
        home = books.shards.get(shard_id)
        operation = home.operations.get(operation_id) if home is not None else None
        if home is None or operation is None or operation.serial != serial or not operation.until_ms:
            continue
        turn.begin(Cause(*operation.cause))
        replies = {other: told for other, told in operation.legs.items() if told is not None}
        GIVE_UP[operation.verb](turn, home, operation, replies)


ANSWERS[ORDER] = _answered
