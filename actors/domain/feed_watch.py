"""Feeds that fall silent, and what is missing in them: noticed, raised, healed; and what a feed's status shows.

``feed_broken`` is the one place that is told when a feed cannot be relied on any more.
"""

from __future__ import annotations

from collections.abc import Iterator

from actors.domain.answers import FeedView, FeedWarehouseView, HeartbeatView, Page, Reply, error, ok
from actors.domain.commands import GetFeedStatus, Heartbeat
from actors.domain.feed_events import FeedHeard
from actors.domain.feed_state import Feed
from actors.domain.identity import feed_key, split_feed_key
from actors.domain.outcomes import ErrorReason
from actors.domain.reading import paged
from actors.domain.state import Books, ShardState
from actors.domain.turn import Turn

FEEDS_PER_SHARD_MAX = 10_000  # streams: they are never forgotten, so nobody may make them at will
OVERLOADED_RETRY_MS = 1_000
MISSING_SHOWN_MAX = 100  # holes of one stream
HEARD_JOURNALED_MS = 60_000  # how often a heartbeat is journaled where no interval is expected


def heard(turn: Turn, shard: ShardState, source_id: str, warehouse_id: str) -> None:
    """The source is heard about a warehouse: a silence ends."""


def heartbeat(turn: Turn, shard: ShardState, command: Heartbeat) -> Reply:
    """The feed lives. OK payload: ``HeartbeatView``."""
    key = feed_key(command.source_id, command.stream_id)
    feed = shard.feeds.get(key)
    if feed is None and len(shard.feeds) >= FEEDS_PER_SHARD_MAX:
        return error(ErrorReason.OVERLOADED, "too many streams of events", OVERLOADED_RETRY_MS)
    part = feed.warehouses.get(command.warehouse_id) if feed is not None else None
    pause_ms = expected_ms(turn.books, command.source_id, command.warehouse_id) // 3 or HEARD_JOURNALED_MS
    told = command.last_source_sequence
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
        return not command.warehouse_id or command.warehouse_id in feed.warehouses

    found, token = paged(turn, command.page_token, command.page_size, within)
    return ok(Page([feed_view(turn.books, feed) for feed in found], token))


def feed_view(books: Books, feed: Feed) -> FeedView:
    """What is known of one stream."""
    source_id, stream_id = split_feed_key(feed.key)
    sequences = feed.sequences
    warehouses = []
    for warehouse_id, part in sorted(feed.warehouses.items()):
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
                part.heard_ms,
            )
        )
    missing = sequences.missing(MISSING_SHOWN_MAX)
    return FeedView(source_id, stream_id, sequences.watermark, sequences.highest, missing, feed.waiting, warehouses)
