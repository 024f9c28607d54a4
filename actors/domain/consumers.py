"""Named consumers of changes: where they stand, what they refuse, and when they are too far behind.

A consumer is declared in the settings and known from its first word on; its place is journaled in its own shard and only moves
forward. It never holds anything up: one that is silent gets an exception and loses, at the end of its retention, the changes
that it did not come for. What a change is: ``actors.domain.changes``; who reads: the gateway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.alarms import raise_alarm
from actors.domain.answers import AcknowledgedView, ConsumerView, Page, Reply, error, ok
from actors.domain.commands import Cause
from actors.domain.consumer_commands import AcknowledgeChanges, AttachConsumer, ListConsumers
from actors.domain.consumer_events import ChangesAcknowledged, ConsumerForgotten, ConsumerLagSet, ConsumerStarted
from actors.domain.consumer_state import Consumer, ConsumerLimits
from actors.domain.events import EntrySpent, ExceptionHealed
from actors.domain.identity import ANSWER_CHANGE_REJECTED, rejection_key
from actors.domain.outcomes import ErrorReason, ExceptionKind
from actors.domain.state import Books, ShardState
from actors.domain.turn import Turn

CAUSE_CONSUMER_WATCH = 103  # the verb of a cause that is the look at consumers' lag
RETENTION_MARGIN_MS = 60_000  # more than the look at their lag may be late
OVERLOADED_RETRY_MS = 1_000
WATCH_MS = 1_000  # how often that look is taken while somebody is behind

RESYNC_TIMELINE = 1  # as the change feed's results


def acknowledge(turn: Turn, shard: ShardState, command: AcknowledgeChanges) -> Reply:
    """Take a place on record, and refused changes as exceptions. OK payload: ``AcknowledgedView``."""
    consumer = _known(turn, shard, command.consumer_id)
    if consumer is None:
        return _undeclared(command.consumer_id)
    problem = _problem(turn, shard, command)
    if problem:
        return error(ErrorReason.INVALID_FIELD, problem)
    if shard.exceptions_open + len(command.rejections) > turn.books.rules.exceptions_open_max:
        return error(ErrorReason.OVERLOADED, "too many exceptions are open: resolve some first", OVERLOADED_RETRY_MS)
    moved = _moved(consumer, command)
    cause = turn.cause
    exception_ids = [_reject(turn, shard, consumer, change_id, reason) for change_id, reason in command.rejections]
    if exception_ids:
        emitted = turn.emitted
        turn.begin(cause)
        turn.emitted = emitted
    rejected = sum(fresh for _, fresh in exception_ids)
    timeline = command.timeline if command.positions else ""
    time_ms = command.cursor_time_ms
    if timeline == consumer.timeline:
        time_ms = max(time_ms, consumer.cursor_time_ms)
    # a later time alone is worth a record only while something waits: an idle consumer says its place every second
    later = time_ms != consumer.cursor_time_ms and _waits(turn.books, consumer)
    placed = bool(timeline) and (bool(moved) or later or not consumer.acknowledge_time_ms)
    if placed or rejected or command.error != consumer.last_error:
        turn.emit(shard, ChangesAcknowledged(consumer.id, timeline, time_ms, moved, command.error, rejected))
    _settle(turn, consumer)
    return ok(AcknowledgedView(view(turn, shard, consumer), [exception_id for exception_id, _ in exception_ids]))


def attach(turn: Turn, shard: ShardState, command: AttachConsumer) -> Reply:
    """Where a consumer stands, known from now on. OK payload: ``ConsumerView``."""
    consumer = _known(turn, shard, command.consumer_id)
    if consumer is None:
        return _undeclared(command.consumer_id)
    return ok(view(turn, shard, consumer))


def list_consumers(turn: Turn, _command: ListConsumers) -> Reply:
    """Every consumer of this host by id. OK payload: ``Page`` of ``ConsumerView``; few, so one page."""
    found = [
        (consumer.id, view(turn, shard, consumer))
        for shard in turn.books.shards.values()
        for consumer in shard.consumers.values()
    ]
    return ok(Page([one for _, one in sorted(found, key=lambda pair: pair[0])], ""))


def _undeclared(consumer_id: str) -> Reply:
    return error(ErrorReason.INVALID_FIELD, f"consumer_id: {consumer_id!r} is not declared in the settings")


def _known(turn: Turn, shard: ShardState, consumer_id: str) -> Consumer | None:
    """The consumer, made known when it is declared."""
    consumer = shard.consumers.get(consumer_id)
    if consumer is None and consumer_id in turn.books.rules.consumers:
        stands = [(each.id, each.sequence) for each in turn.books.shards.values() if each.sequence]
        turn.reads.update(turn.books.shards)
        turn.emit(shard, ConsumerStarted(consumer_id, shard.timeline, stands))
        consumer = shard.consumers[consumer_id]
    return consumer


def _problem(turn: Turn, shard: ShardState, command: AcknowledgeChanges) -> str:
    """Why that place cannot be taken on record; empty when it can."""
    if not command.positions:
        return ""
    if command.timeline != shard.timeline:
        return "cursor: it is of another journal history: begin anew from a snapshot"
    shards = turn.books.shards
    for shard_id, sequence in command.positions:
        stands = shards.get(shard_id)
        if stands is not None and sequence > stands.sequence:
            return "cursor: it is ahead of the journal: an old copy of it was put back; begin anew from a snapshot"
    return ""


def _moved(consumer: Consumer, command: AcknowledgeChanges) -> list[tuple[int, int]]:
    """The shards whose place moves forward; all of them, as they are told, with the first place in a timeline."""
    if not command.positions:
        return []
    if command.timeline != consumer.timeline or not consumer.acknowledge_time_ms:
        return [(shard_id, sequence) for shard_id, sequence in command.positions if sequence]
    known = consumer.positions
    return [(shard_id, sequence) for shard_id, sequence in command.positions if sequence > known.get(shard_id, 0)]


def _reject(turn: Turn, shard: ShardState, consumer: Consumer, change_id: str, reason: str) -> tuple[str, bool]:
    """An exception for a refused change, once: (its id, whether it is new)."""
    key = rejection_key(consumer.id, change_id)
    known = turn.entry(shard, key)
    if known is not None:
        return (str(known.answer[1]), False)
    message = f"consumer {consumer.id!r} did not take change {change_id}: {reason}"
    emitted = turn.emitted
    turn.begin(turn.cause._replace(source_id=consumer.id, request_id=change_id))
    turn.emitted = emitted  # it is still the same command
    opened = raise_alarm(turn, shard, ExceptionKind.CHANGE_REJECTED, "", message, 0, [])
    turn.emit(shard, EntrySpent(key, b"", [ANSWER_CHANGE_REJECTED, opened]))
    return (opened, True)


# --- lag ------------------------------------------------------------------------------------------------------------------


def lag_events(books: Books, consumer: Consumer) -> int:
    """Events up to the last change of each shard that it has not taken in: at least as many as changes."""
    positions = consumer.positions
    lag = 0
    for shard_id, last in books.changed.items():
        taken = max(0, positions.get(shard_id, 0))
        if last > taken:
            lag += last - taken
    return lag


def _waits(books: Books, consumer: Consumer) -> bool:
    return lag_events(books, consumer) > 0


def _settle(turn: Turn, consumer: Consumer) -> None:
    """Its place moved: since when is it behind now?"""
    if not _waits(turn.books, consumer):
        consumer.behind_since_ms = 0
    elif consumer.behind_since_ms:
        consumer.behind_since_ms = max(consumer.behind_since_ms, min(consumer.cursor_time_ms, turn.now_ms))


def lag_ms(consumer: Consumer, now_ms: int) -> int:
    """How long the oldest change that it has not taken in may have waited; 0 when none waits."""
    return max(0, now_ms - consumer.behind_since_ms) if consumer.behind_since_ms else 0


def view(turn: Turn, shard: ShardState, consumer: Consumer) -> ConsumerView:
    """Where it stands now."""
    turn.reads.update(turn.books.shards)
    limits = turn.books.rules.consumers.get(consumer.id, ConsumerLimits())
    waiting = lag_events(turn.books, consumer)
    return ConsumerView(
        consumer.id,
        consumer.timeline if consumer.acknowledge_time_ms else "",
        consumer.cursor_time_ms if consumer.acknowledge_time_ms else 0,
        sorted(consumer.positions.items()) if consumer.acknowledge_time_ms else [],
        waiting,
        lag_ms(consumer, turn.now_ms) if waiting else 0,
        bool(consumer.exception_id),
        consumer.acknowledge_time_ms,
        consumer.last_error,
        consumer.rejected,
        RESYNC_TIMELINE if consumer.timeline != shard.timeline else 0,
        limits.lag_events_max,
        limits.lag_ms_max,
    )


def watch(turn: Turn) -> None:
    """Look at every consumer's lag: raise what is past its limit, heal what is not, forget who is not declared any more."""
    books = turn.books
    if turn.now_ms < books.consumers_due_ms:
        return
    books.consumers_due_ms = turn.now_ms + WATCH_MS
    for shard in books.shards.values():
        for consumer in list(shard.consumers.values()) if shard.consumers else ():
            waiting = lag_events(books, consumer)
            if not waiting:
                consumer.behind_since_ms = 0
            elif not consumer.behind_since_ms:
                consumer.behind_since_ms = turn.now_ms
            limits = books.rules.consumers.get(consumer.id)
            if limits is None:
                _forget(turn, shard, consumer)
            else:
                _judge(turn, shard, consumer, limits, waiting)


def next_look_ms(books: Books) -> int | None:
    """When ``watch`` should be called although nothing else happens; None: nobody is behind."""
    if any(_waits(books, consumer) or consumer.exception_id for consumer in books.consumers.values()):
        return books.consumers_due_ms
    return None


def _judge(turn: Turn, shard: ShardState, consumer: Consumer, limits: ConsumerLimits, waiting: int) -> None:
    late_ms = lag_ms(consumer, turn.now_ms)
    if not consumer.exception_id:
        if (limits.lag_events_max and waiting > limits.lag_events_max) or (
            limits.lag_ms_max and late_ms > limits.lag_ms_max
        ):
            _begin(turn)
            message = f"consumer {consumer.id!r} is {late_ms // 1000} s and up to {waiting} changes behind"
            if consumer.last_error:
                message += f"; it says: {consumer.last_error}"
            opened = raise_alarm(turn, shard, ExceptionKind.CONSUMER_LAGGING, "", message, waiting, [])
            turn.emit(shard, ConsumerLagSet(consumer.id, opened))
        return
    # half of the limit: one that hovers around it is not told again and again
    if (not limits.lag_events_max or waiting * 2 <= limits.lag_events_max) and (
        not limits.lag_ms_max or late_ms * 2 <= limits.lag_ms_max
    ):
        _heal(turn, shard, consumer)


def _heal(turn: Turn, shard: ShardState, consumer: Consumer) -> None:
    _begin(turn)
    exception = shard.exceptions.get(consumer.exception_id)
    if exception is not None and exception.state == 1:
        turn.emit(shard, ExceptionHealed(consumer.exception_id))
    turn.emit(shard, ConsumerLagSet(consumer.id, ""))


def _forget(turn: Turn, shard: ShardState, consumer: Consumer) -> None:
    if consumer.exception_id:
        _heal(turn, shard, consumer)
    _begin(turn)
    turn.emit(shard, ConsumerForgotten(consumer.id))


def _begin(turn: Turn) -> None:
    turn.begin(Cause(CAUSE_CONSUMER_WATCH, "", ""))


def kept_for_ms(books: Books, now_ms: int, otherwise_ms: int, *, whole: bool = True) -> int:
    """The time before which records may go: ``otherwise_ms``, or earlier where a consumer still needs them and its own limit
    allows it. ``whole``: every shard is here; else a consumer whose place another host knows may be as late as it may."""
    before_ms = otherwise_ms
    for consumer in books.consumers.values():
        limits = books.rules.consumers.get(consumer.id)
        if limits is not None and _waits(books, consumer):
            needed_ms = (consumer.behind_since_ms or consumer.cursor_time_ms) - RETENTION_MARGIN_MS
            before_ms = min(before_ms, max(needed_ms, now_ms - limits.retention_ms))
    for consumer_id, limits in books.rules.consumers.items():
        if not whole and consumer_id not in books.consumers:
            before_ms = min(before_ms, now_ms - limits.retention_ms)
    return before_ms


def entry_keys(body: Sequence[Any]) -> list[str]:
    """What an ACKNOWLEDGE_CHANGES may depend on in the entries table."""
    return [rejection_key(body[0], rejection[0]) for rejection in body[4]]
