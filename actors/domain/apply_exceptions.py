"""What the events of exceptions do, live and in replay; opening them is ``actors.domain.alarms``'s, resolving ``resolving``'s."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from actors.domain.events import ExceptionChanged, ExceptionHealed, ExceptionOpened, ExceptionRetired
from actors.domain.exception_events import ExceptionHandled, ExceptionResolved, FeedCorrected
from actors.domain.exception_state import StockException
from actors.domain.outcomes import ExceptionKind, ExceptionState, IngestOutcome
from actors.domain.state import Books, ShardState

SHORTAGE = int(ExceptionKind.SHORTAGE)
OPEN, HEALED, RESOLVED = map(int, ExceptionState)
APPLIED, DUPLICATE = int(IngestOutcome.APPLIED), int(IngestOutcome.DUPLICATE)
HANDLINGS_KEPT_MAX = 10  # of one exception; the journal has them all
RESOLUTION_BUCKETS_S = (60, 300, 900, 3_600, 4 * 3_600, 12 * 3_600, 24 * 3_600, 72 * 3_600)


def _exception_opened(books: Books, shard: ShardState, event: ExceptionOpened, time_ms: int) -> None:
    fields = (
        event.kind,
        event.stock_key,
        event.message,
        event.source_id,
        event.event_id,
        event.request_id,
        event.channel_id,
        event.reject_reason,
    )
    opened = StockException(event.exception_id, fields)
    opened.payload, opened.cause = event.payload, event.cause
    opened.quantity = event.quantity
    opened.reservation_ids = event.reservation_ids
    opened.state = OPEN
    opened.open_time_ms = time_ms
    shard.exceptions[event.exception_id] = opened
    shard.exceptions_open += 1
    if event.number >= shard.next_exception_number:
        shard.next_exception_number = event.number + 1
    count_open(books, opened, 1)
    link_exception(books, opened)
    if event.kind == SHORTAGE:
        books.shortage_units += event.quantity


def link_exception(books: Books, opened: StockException) -> None:
    """What an open exception is about knows it."""
    kind = opened.fields[0]
    if kind == SHORTAGE and opened.fields[1] in books.stock:
        books.stock[opened.fields[1]].shortage_exception_id = opened.id


def count_open(books: Books, exception: StockException, delta: int) -> None:
    """One more exception is open, or one less."""
    key = (exception.fields[0], exception.fields[7])
    count = books.exceptions_open.get(key, 0) + delta
    if count:
        books.exceptions_open[key] = count
    else:
        books.exceptions_open.pop(key, None)


def _exception_changed(books: Books, shard: ShardState, event: ExceptionChanged, _time_ms: int) -> None:
    changed = shard.exceptions[event.exception_id]
    if changed.fields[0] == SHORTAGE:
        books.shortage_units += event.quantity - changed.quantity
    changed.quantity = event.quantity
    changed.reservation_ids = event.reservation_ids


def _end(books: Books, shard: ShardState, exception_id: str, state: int, time_ms: int) -> StockException:
    ended = shard.exceptions[exception_id]
    assert ended.state == OPEN, "an exception ends once"
    ended.state = state
    ended.end_time_ms = time_ms
    books.exceptions_healed.append((time_ms, shard.id, exception_id))
    shard.exceptions_open -= 1
    count_open(books, ended, -1)
    times = books.resolution_times.setdefault(ended.fields[0], [0.0, *[0] * (len(RESOLUTION_BUCKETS_S) + 1)])
    seconds = max(0, time_ms - ended.open_time_ms) / 1000
    times[0] += seconds
    times[1 + bisect_left(RESOLUTION_BUCKETS_S, seconds)] += 1
    kind, key = ended.fields[0], ended.fields[1]
    if kind == SHORTAGE:
        books.shortage_units -= ended.quantity
        if key in books.stock:
            books.stock[key].shortage_exception_id = ""
    return ended


def _exception_healed(books: Books, shard: ShardState, event: ExceptionHealed, time_ms: int) -> None:
    _end(books, shard, event.exception_id, HEALED, time_ms)


def _exception_resolved(books: Books, shard: ShardState, event: ExceptionResolved, time_ms: int) -> None:
    ended = _end(books, shard, event.exception_id, RESOLVED, time_ms)
    _handled(ended, (time_ms, event.action, event.resolver, event.note, 0))


def _exception_handled(_books: Books, shard: ShardState, event: ExceptionHandled, time_ms: int) -> None:
    exception = shard.exceptions[event.exception_id]
    assert exception.state == OPEN, "handled after its end"
    _handled(exception, (time_ms, event.action, event.resolver, event.note, event.reject_reason))


def _handled(exception: StockException, handling: tuple[Any, ...]) -> None:
    exception.handlings = (*exception.handlings, handling)[-HANDLINGS_KEPT_MAX:]


def _exception_retired(_books: Books, shard: ShardState, event: ExceptionRetired, _time_ms: int) -> None:
    assert shard.exceptions[event.exception_id].state != OPEN, "retired while open"
    del shard.exceptions[event.exception_id]


def _feed_corrected(_books: Books, shard: ShardState, event: FeedCorrected, _time_ms: int) -> None:
    part = shard.feeds[event.feed_key].warehouses[event.warehouse_id]
    part.rejected -= 1
    assert part.rejected >= 0, "more events corrected than were rejected"
    if event.outcome == APPLIED:
        part.applied += 1
    else:
        part.duplicates += 1


def rebuild_exceptions(books: Books) -> None:
    """Make what is derived from exceptions anew, after recovery."""
    ended: list[tuple[int, int, str]] = []
    books.exceptions_open.clear()
    books.resolution_times.clear()  # since the process began
    for shard in books.shards.values():
        shard.exceptions_open = 0
        for exception in shard.exceptions.values():
            if exception.state == OPEN:
                shard.exceptions_open += 1
                count_open(books, exception, 1)
                link_exception(books, exception)
                if exception.fields[0] == SHORTAGE:
                    books.shortage_units += exception.quantity
            else:
                ended.append((exception.end_time_ms, shard.id, exception.id))
    books.exceptions_healed.clear()
    books.exceptions_healed.extend(sorted(ended))


APPLY_EXCEPTIONS: dict[type[Any], Callable[[Books, ShardState, Any, int], None]] = {
    ExceptionOpened: _exception_opened,
    ExceptionChanged: _exception_changed,
    ExceptionHealed: _exception_healed,
    ExceptionRetired: _exception_retired,
    ExceptionResolved: _exception_resolved,
    ExceptionHandled: _exception_handled,
    FeedCorrected: _feed_corrected,
}
