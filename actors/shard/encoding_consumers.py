"""The canonical encoding of consumers, as ``actors.shard.encoding`` does it for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.consumer_state import Consumer


def encode_consumer(consumer: Consumer) -> tuple[Any, ...]:
    """A consumer without what is derived."""
    return (
        consumer.id,
        consumer.timeline,
        sorted(consumer.positions.items()),
        consumer.cursor_time_ms,
        consumer.start_time_ms,
        consumer.acknowledge_time_ms,
        consumer.last_error,
        consumer.rejected,
        consumer.exception_id,
    )


def decode_consumer(fields: Sequence[Any]) -> Consumer:
    """A consumer from ``encode_consumer``."""
    consumer = Consumer(fields[0])
    consumer.timeline = fields[1]
    consumer.positions = dict(fields[2])
    consumer.cursor_time_ms = fields[3]
    consumer.start_time_ms = fields[4]
    consumer.acknowledge_time_ms = fields[5]
    consumer.last_error = fields[6]
    consumer.rejected = fields[7]
    consumer.exception_id = fields[8]
    return consumer
