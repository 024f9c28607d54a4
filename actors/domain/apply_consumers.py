"""What the events of consumers do, live and in replay; deciding is ``actors.domain.consumers``'s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.domain.consumer_events import ChangesAcknowledged, ConsumerForgotten, ConsumerLagSet, ConsumerStarted
from actors.domain.consumer_state import Consumer
from actors.domain.state import Books, ShardState


def _started(books: Books, shard: ShardState, event: ConsumerStarted, time_ms: int) -> None:
    consumer = Consumer(event.consumer_id)
    consumer.timeline = event.timeline
    consumer.positions = dict(event.positions)  # type: ignore[arg-type]  # pairs
    consumer.cursor_time_ms = consumer.start_time_ms = time_ms
    shard.consumers[consumer.id] = books.consumers[consumer.id] = consumer


def _acknowledged(_books: Books, shard: ShardState, event: ChangesAcknowledged, time_ms: int) -> None:
    consumer = shard.consumers[event.consumer_id]
    if event.timeline and (event.timeline != consumer.timeline or not consumer.acknowledge_time_ms):
        consumer.timeline = event.timeline
        consumer.positions = {}
    for shard_id, sequence in event.positions:
        consumer.positions[shard_id] = sequence
    if event.timeline:
        consumer.cursor_time_ms = event.cursor_time_ms
        consumer.acknowledge_time_ms = time_ms
    consumer.last_error = event.error
    consumer.rejected += event.rejected


def _lag_set(_books: Books, shard: ShardState, event: ConsumerLagSet, _time_ms: int) -> None:
    shard.consumers[event.consumer_id].exception_id = event.exception_id


def _forgotten(books: Books, shard: ShardState, event: ConsumerForgotten, _time_ms: int) -> None:
    del shard.consumers[event.consumer_id]
    books.consumers.pop(event.consumer_id, None)


APPLY_CONSUMERS: dict[type[Any], Callable[[Books, ShardState, Any, int], None]] = {
    ConsumerStarted: _started,
    ChangesAcknowledged: _acknowledged,
    ConsumerLagSet: _lag_set,
    ConsumerForgotten: _forgotten,
}


def rebuild_consumers(books: Books) -> None:
    """Make what is derived anew, after recovery."""
    books.consumers = {
        consumer.id: consumer for shard in books.shards.values() for consumer in shard.consumers.values()
    }
