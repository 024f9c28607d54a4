"""What the events of feeds and waiting events do, live and in replay; deciding is ``actors.domain.feeds``'s."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any

from actors.domain.feed_events import (
    DeferredEnded,
    EventDeferred,
    FeedGapClosed,
    FeedGapSet,
    FeedHeard,
    FeedReceived,
    FeedSettled,
    FeedStaleSet,
)
from actors.domain.feed_state import Deferred, Feed, FeedWarehouse
from actors.domain.outcomes import IngestOutcome
from actors.domain.state import Books, ShardState

APPLIED = int(IngestOutcome.APPLIED)
DUPLICATE = int(IngestOutcome.DUPLICATE)
DEFERRED = int(IngestOutcome.DEFERRED)
HANDED_ON = 5  # see ``warehouse``


def _feed(books: Books, shard: ShardState, key: str) -> Feed:
    feed = shard.feeds.get(key)
    if feed is None:
        feed = shard.feeds[key] = Feed(key)
        books.feeds_of.setdefault(key.partition("\x1f")[0], []).append(feed)
    return feed


def _count(part: FeedWarehouse, outcome: int) -> None:
    if outcome == APPLIED:
        part.applied += 1
    elif outcome == DUPLICATE:
        part.duplicates += 1
    elif outcome in (DEFERRED, HANDED_ON):
        part.waiting += 1
    else:
        part.rejected += 1


def _feed_received(books: Books, shard: ShardState, event: FeedReceived, time_ms: int) -> None:
    key, sequence, warehouse_id, occur_time_ms, outcome = event
    feed = shard.feeds.get(key)
    if feed is None:
        feed = _feed(books, shard, key)
    part = feed.warehouses.get(warehouse_id)
    if part is None:
        part = feed.warehouses[warehouse_id] = FeedWarehouse()
    part.last_received_ms = part.heard_ms = time_ms
    part.last_occur_ms = occur_time_ms
    if outcome == APPLIED:
        part.applied += 1
    else:
        _count(part, outcome)
    if sequence:
        sequences = feed.sequences
        if sequences.add(sequence, time_ms):
            if key in books.waiting:
                note_moved(books, feed)
        elif sequences.starts:
            watch_gap(books, shard, feed)


def note_moved(books: Books, feed: Feed) -> None:
    """The watermark moved: whether the first of those that wait may be decided now."""
    heap = books.waiting.get(feed.key)
    if heap and heap[0][0] <= feed.sequences.watermark:
        books.feeds_moved[feed.key] = None


def watch_gap(books: Books, shard: ShardState, feed: Feed) -> None:
    """Something is missing: somebody looks at it when it is missing for too long."""
    if feed.key not in books.gaps_watched and not feed.gap_exception_id:
        books.gaps_watched.add(feed.key)
        heappush(books.gaps, (feed.sequences.missing_since_ms(), shard.id, feed.key))


def _event_deferred(books: Books, shard: ShardState, event: EventDeferred, _time_ms: int) -> None:
    assert event.event_key not in shard.deferred, "an event waits once"
    waiting = shard.deferred[event.event_key] = Deferred(*event)
    index_deferred(books, shard, waiting)


def index_deferred(books: Books, shard: ShardState, waiting: Deferred) -> None:
    """Make it findable by what it waits for: its place, in its stream's order, and its time."""
    place = (waiting.place, waiting.body[3], waiting.event_key, shard.id)
    heappush(books.waiting.setdefault(waiting.feed_key, []), place)
    heappush(books.waiting_until, (waiting.until_ms, shard.id, waiting.event_key))


def _deferred_ended(_books: Books, shard: ShardState, event: DeferredEnded, _time_ms: int) -> None:
    del shard.deferred[event.event_key]


def _feed_settled(_books: Books, shard: ShardState, event: FeedSettled, _time_ms: int) -> None:
    part = shard.feeds[event.feed_key].warehouses[event.warehouse_id]
    part.waiting -= 1
    assert part.waiting >= 0, "more events settled than waited"
    _count(part, event.outcome)


def _feed_stale_set(books: Books, shard: ShardState, event: FeedStaleSet, _time_ms: int) -> None:
    feed = _feed(books, shard, event.feed_key)
    if event.stale:
        feed.stale[event.warehouse_id] = event.exception_id
    else:
        del feed.stale[event.warehouse_id]
    if shard.strict:
        books.set_stale(feed.key.partition("\x1f")[0], event.warehouse_id, stale=event.stale)


def _feed_gap_closed(books: Books, shard: ShardState, event: FeedGapClosed, _time_ms: int) -> None:
    feed = _feed(books, shard, event.feed_key)
    feed.sequences.close(event.up_to)
    note_moved(books, feed)


def _feed_gap_set(books: Books, shard: ShardState, event: FeedGapSet, _time_ms: int) -> None:
    feed = _feed(books, shard, event.feed_key)
    feed.gap_exception_id = event.exception_id
    if feed.sequences.missing_since_ms():
        watch_gap(books, shard, feed)


def _feed_heard(books: Books, shard: ShardState, event: FeedHeard, time_ms: int) -> None:
    feed = _feed(books, shard, event.feed_key)
    feed.warehouse(event.warehouse_id).heard_ms = time_ms
    feed.sequences.tell(event.last_source_sequence, time_ms)
    if feed.sequences.missing_since_ms():
        watch_gap(books, shard, feed)


def rebuild_feeds(books: Books) -> None:
    """Make what is derived from feeds and waiting events anew, after recovery."""
    books.waiting.clear()
    books.waiting_until.clear()
    books.feeds_moved.clear()
    books.gaps.clear()
    books.gaps_watched.clear()
    books.stale_feeds.clear()
    books.stale_warehouses.clear()
    books.feeds_of.clear()
    books.silence_look_ms = 0
    for shard in books.shards.values():
        for waiting in shard.deferred.values():
            index_deferred(books, shard, waiting)
        for feed in shard.feeds.values():
            books.feeds_of.setdefault(feed.key.partition("\x1f")[0], []).append(feed)
            if feed.sequences.missing_since_ms():
                watch_gap(books, shard, feed)
            note_moved(books, feed)
            for warehouse_id in feed.stale:
                books.set_stale(feed.key.partition("\x1f")[0], warehouse_id, stale=True)


APPLY_FEEDS: dict[type[Any], Callable[[Books, ShardState, Any, int], None]] = {
    FeedReceived: _feed_received,
    EventDeferred: _event_deferred,
    DeferredEnded: _deferred_ended,
    FeedStaleSet: _feed_stale_set,
    FeedGapClosed: _feed_gap_closed,
    FeedSettled: _feed_settled,
    FeedGapSet: _feed_gap_set,
    FeedHeard: _feed_heard,
}
