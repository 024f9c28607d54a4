"""The canonical encoding of feeds and of waiting events, as ``actors.shard.encoding`` does it for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from actors.domain.feed_state import Deferred, Feed, FeedWarehouse
from actors.domain.sequences import decode_sequences, encode_sequences

_PART = (
    "last_received_ms", "last_occur_ms", "heard_ms", "applied", "rejected", "duplicates", "waiting",
)  # fmt: skip
_part_fields = attrgetter(*_PART)
encode_deferred = attrgetter(
    "event_key", "feed_key", "place", "until_ms", "body", "principal", "correlation_id", "traceparent"
)


def encode_feed(feed: Feed) -> tuple[Any, ...]:
    """One stream of a source, without what is counted by the process only."""
    return (
        feed.key,
        *encode_sequences(feed.sequences),
        feed.gap_exception_id,
        sorted(feed.stale.items()),
        [(warehouse_id, *_part_fields(part)) for warehouse_id, part in sorted(feed.warehouses.items())],
    )


def decode_feed(fields: Sequence[Any]) -> Feed:
    """A feed from ``encode_feed``."""
    feed = Feed(fields[0])
    feed.sequences = decode_sequences(*fields[1:5])
    feed.gap_exception_id = fields[5]
    feed.stale = dict(fields[6])
    for warehouse_id, *values in fields[7]:
        part = feed.warehouses[warehouse_id] = FeedWarehouse()
        for name, value in zip(_PART, values, strict=True):
            setattr(part, name, value)
    return feed


def decode_deferred(fields: Sequence[Any]) -> Deferred:
    """A waiting event from ``encode_deferred``."""
    return Deferred(*fields)
