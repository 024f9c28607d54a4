"""Feeds that fall silent, and what is missing in them: noticed, raised, healed; and what a feed's status shows.

``feed_broken`` is the one place that is told when a feed cannot be relied on any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop

from actors.domain.alarms import raise_alarm
from actors.domain.answers import FeedView, FeedWarehouseView, HeartbeatView, Page, Reply, error, ok
from actors.domain.apply_feeds import watch_gap
from actors.domain.commands import Cause, GetFeedStatus, Heartbeat
from actors.domain.events import ExceptionHealed
from actors.domain.feed_events import FeedGapClosed, FeedGapSet, FeedHeard, FeedStaleSet
from actors.domain.feed_state import Feed, FeedWarehouse
from actors.domain.identity import feed_key, split_feed_key
from actors.domain.keys import stock_key
from actors.domain.outcomes import ErrorReason, ExceptionKind, ExceptionState
from actors.domain.reading import paged
from actors.domain.reconciliation_state import FAR_MS
from actors.domain.reconciliation_watch import request
from actors.domain.reconciliation_words import RequestReason
from actors.domain.state import Books, ShardState
from actors.domain.turn import Turn

CAUSE_FEED_WATCH = 102  # the verb of causes of its own
LOOKED_AT_PER_TURN_MAX = 1_000  # feeds with holes
MISSING_NAMED_MAX = 10  # holes that an exception's message names
FEEDS_PER_SHARD_MAX = 10_000  # streams: they are never forgotten, so nobody may make them at will
OVERLOADED_RETRY_MS = 1_000
MISSING_SHOWN_MAX = 100  # holes of one stream
HEARD_JOURNALED_MS = 60_000  # how often a heartbeat is journaled where no interval is expected


def feed_broken(turn: Turn, warehouse_id: str, why: RequestReason, feed: str) -> None:
    """A feed cannot be relied on about a warehouse: what nobody told can only be found by counting."""
    source_id, stream_id = split_feed_key(feed)
    request(turn, warehouse_id, why, source_id, stream_id)


def watch(turn: Turn) -> None:
    """Notice what is due: holes that stay, sources that are silent. Call it with every turn; two comparisons when nothing is."""
    books = turn.books
    if books.gaps and books.gaps[0][0] + books.rules.gap_patience_ms <= turn.now_ms:
        _look_at_gaps(turn)
    if books.silence_look_ms <= turn.now_ms and (books.rules.feeds or books.stale_feeds):
        _look_at_silence(turn)


def next_look_ms(books: Books) -> int:
    """When ``watch`` has something to do; FAR_MS: never, as things stand."""
    look_ms = books.silence_look_ms if books.rules.feeds or books.stale_feeds else FAR_MS
    return min(look_ms, books.gaps[0][0] + books.rules.gap_patience_ms) if books.gaps else look_ms


def _begin(turn: Turn, feed: str) -> None:
    source_id, stream_id = split_feed_key(feed)
    turn.begin(Cause(CAUSE_FEED_WATCH, "", stream_id or source_id, source_id=source_id, stream_id=stream_id))


# --- gaps --------------------------------------------------------------------------------------------------------------------


def _look_at_gaps(turn: Turn) -> None:
    books = turn.books
    patience_ms = books.rules.gap_patience_ms
    for _ in range(min(len(books.gaps), LOOKED_AT_PER_TURN_MAX)):
        if books.gaps[0][0] + patience_ms > turn.now_ms:
            return
        _, shard_id, key = heappop(books.gaps)
        books.gaps_watched.discard(key)
        shard = books.shards[shard_id]
        feed = shard.feeds[key]
        since_ms = feed.sequences.missing_since_ms()
        if not since_ms or feed.gap_exception_id:
            continue
        if since_ms + patience_ms > turn.now_ms:
            watch_gap(books, shard, feed)  # that hole was filled, another one is younger
        else:
            _begin(turn, key)
            _open_gap(turn, shard, feed)


def _open_gap(turn: Turn, shard: ShardState, feed: Feed) -> None:
    source_id, stream_id = split_feed_key(feed.key)
    holes = feed.sequences.missing(MISSING_NAMED_MAX + 1)
    named = ", ".join(
        str(first) if first == last else f"{first} to {last}" for first, last in holes[:MISSING_NAMED_MAX]
    )
    more = " and others" if len(holes) > MISSING_NAMED_MAX else ""
    stream = f"stream {stream_id!r} of " if stream_id else ""
    message = f"{stream}source {source_id!r}: events {named}{more} are missing"
    missing = sum(last - first + 1 for first, last in holes)
    warehouses = sorted(warehouse_id for warehouse_id in feed.warehouses if warehouse_id)
    key = stock_key(warehouses[0] if len(warehouses) == 1 else "", "")
    opened = raise_alarm(turn, shard, ExceptionKind.FEED_GAP, key, message, missing, [])
    turn.emit(shard, FeedGapSet(feed.key, opened))
    for warehouse_id in warehouses:
        feed_broken(turn, warehouse_id, RequestReason.FEED_GAP, feed.key)


def gap_moved(turn: Turn, shard: ShardState, feed: Feed) -> None:
    """Something of a stream with an open gap came: the exception heals once nothing is missing for too long."""
    since_ms = feed.sequences.missing_since_ms()
    if since_ms and since_ms + turn.books.rules.gap_patience_ms <= turn.now_ms:
        return
    _heal(turn, shard, feed.gap_exception_id)
    turn.emit(shard, FeedGapSet(feed.key, ""))


def close_gap(turn: Turn, shard: ShardState, exception_id: str) -> bool:
    """What an exception says is missing never comes: the watermark moves on. The caller ends the exception. False: it is about
    no gap that is open."""
    for feed in shard.feeds.values():
        if feed.gap_exception_id == exception_id:
            up_to = feed.sequences.missing_up_to(turn.now_ms - turn.books.rules.gap_patience_ms)
            turn.emit(shard, FeedGapClosed(feed.key, up_to))
            turn.emit(shard, FeedGapSet(feed.key, ""))
            return True
    return False


def _heal(turn: Turn, shard: ShardState, exception_id: str) -> None:
    known = shard.exceptions.get(exception_id)
    if known is not None and known.state == ExceptionState.OPEN:
        turn.emit(shard, ExceptionHealed(exception_id))


# --- silence -----------------------------------------------------------------------------------------------------------------


def _look_at_silence(turn: Turn) -> None:
    """Every expected source, by when it was last heard about its warehouse; how long until the next one can be silent."""
    books = turn.books
    next_ms = FAR_MS
    for warehouse_id, sources in books.rules.feeds.items():
        for source_id, interval_ms in sources.items():
            shard = books.feed_shard(source_id)
            if shard is None or not interval_ms or (source_id, warehouse_id) in books.stale_feeds:
                continue
            due_ms = _heard_ms(books, shard, source_id, warehouse_id) + interval_ms
            if due_ms > turn.now_ms:
                next_ms = min(next_ms, due_ms)
            else:
                _fall_silent(turn, shard, source_id, warehouse_id, interval_ms)
    for source_id, warehouse_id in sorted(books.stale_feeds):
        shard = books.feed_shard(source_id)
        if shard is not None and not expected_ms(books, source_id, warehouse_id):  # nobody expects it any more
            _begin(turn, feed_key(source_id, ""))
            heard(turn, shard, source_id, warehouse_id)
    books.silence_look_ms = next_ms


def _heard_ms(books: Books, shard: ShardState, source_id: str, warehouse_id: str) -> int:
    """When any stream of the source told of the warehouse; before this owner served, it could not."""
    heard_ms = shard.owned_time_ms
    for feed in books.feeds_of.get(source_id, ()):
        part = feed.warehouses.get(warehouse_id)
        if part is not None:
            heard_ms = max(heard_ms, part.heard_ms, part.lively_ms)
    return heard_ms


def _fall_silent(turn: Turn, shard: ShardState, source_id: str, warehouse_id: str, interval_ms: int) -> None:
    key = feed_key(source_id, "")
    _begin(turn, key)
    message = (
        f"source {source_id!r} is silent about warehouse {warehouse_id!r}: expected every {interval_ms / 1000:g} s"
    )
    opened = raise_alarm(turn, shard, ExceptionKind.FEED_STALE, stock_key(warehouse_id, ""), message, 0, [])
    turn.emit(shard, FeedStaleSet(key, warehouse_id, True, opened))  # noqa: FBT003  an event's field
    feed_broken(turn, warehouse_id, RequestReason.FEED_STALE, key)


def heard(turn: Turn, shard: ShardState, source_id: str, warehouse_id: str) -> None:
    """The source is heard about a warehouse: a silence ends."""
    books = turn.books
    if (source_id, warehouse_id) not in books.stale_feeds:
        return
    key = feed_key(source_id, "")
    _heal(turn, shard, shard.feeds[key].stale.get(warehouse_id, ""))
    turn.emit(shard, FeedStaleSet(key, warehouse_id, False))  # noqa: FBT003  an event's field
    books.silence_look_ms = min(books.silence_look_ms, turn.now_ms + expected_ms(books, source_id, warehouse_id))


def heartbeat(turn: Turn, shard: ShardState, command: Heartbeat) -> Reply:
    """The feed lives. OK payload: ``HeartbeatView``."""
    key = feed_key(command.source_id, command.stream_id)
    feed = shard.feeds.get(key)
    if feed is None and len(shard.feeds) >= FEEDS_PER_SHARD_MAX:
        return error(ErrorReason.OVERLOADED, "too many streams of events", OVERLOADED_RETRY_MS)
    part = feed.warehouses.get(command.warehouse_id) if feed is not None else None
    pause_ms = expected_ms(turn.books, command.source_id, command.warehouse_id) // 3 or HEARD_JOURNALED_MS
    told = command.last_source_sequence
    if part is not None:
        part.lively_ms = turn.now_ms
    if feed is None or part is None or told > feed.sequences.highest or turn.now_ms >= part.heard_ms + pause_ms:
        turn.emit(shard, FeedHeard(key, command.warehouse_id, told))
    heard(turn, shard, command.source_id, command.warehouse_id)
    feed = shard.feeds[key]
    sequences = feed.sequences
    return ok(HeartbeatView(sequences.watermark, sequences.highest, feed.waiting, turn.position(shard)))


def expected_ms(books: Books, source_id: str, warehouse_id: str) -> int:
    """How often the source is expected to be heard about a warehouse; 0: nobody said."""
    return books.rules.feeds.get(warehouse_id, {}).get(source_id, 0)


def get_feed_status(turn: Turn, command: GetFeedStatus) -> Reply:
    """Streams by shard and key. OK payload: ``Page`` of ``FeedView``."""

    def within(shard: ShardState, after: str) -> Iterator[tuple[str, Feed | None]]:
        for key in sorted(shard.feeds):
            if key > after:
                feed = shard.feeds[key]
                yield key, feed if wanted(feed) else None

    def wanted(feed: Feed) -> bool:
        source_id, stream_id = split_feed_key(feed.key)
        if command.source_id and source_id != command.source_id:
            return False
        if command.stream_id and stream_id != command.stream_id:
            return False
        return not command.warehouse_id or command.warehouse_id in {**feed.warehouses, **feed.stale}

    found, token = paged(turn, command.page_token, command.page_size, within)
    return ok(Page([feed_view(turn.books, feed) for feed in found], token))


def feed_view(books: Books, feed: Feed) -> FeedView:
    """What is known of one stream."""
    source_id, stream_id = split_feed_key(feed.key)
    sequences = feed.sequences
    warehouses = []
    for warehouse_id in sorted({**feed.warehouses, **feed.stale}):
        part = feed.warehouses.get(warehouse_id) or FeedWarehouse()
        duplicates = part.duplicates + part.repeats
        warehouses.append(
            FeedWarehouseView(
                warehouse_id,
                part.last_received_ms,
                part.last_occur_ms,
                max(0, part.last_received_ms - part.last_occur_ms),
                part.applied,
                part.rejected,
                duplicates,
                part.waiting,
                (source_id, warehouse_id) in books.stale_feeds,
                expected_ms(books, source_id, warehouse_id),
                part.applied + part.rejected + duplicates + part.waiting,
                max(part.heard_ms, part.lively_ms),
            )
        )
    missing = sequences.missing(MISSING_SHOWN_MAX)
    return FeedView(source_id, stream_id, sequences.watermark, sequences.highest, missing, feed.waiting, warehouses)
