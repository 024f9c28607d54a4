"""Consumers of the change feed, and the feed itself, as Prometheus metrics. A consumer's id is a label: they are declared."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from actors.domain.consumers import lag_events, lag_ms
from actors.domain.state import Books


def consumer_metrics(books: Books, now_ms: int) -> Iterator[Metric]:
    """``now_ms``: shard time."""
    by_consumer = ["consumer"]
    events = GaugeMetricFamily(
        "stockade_consumer_lag_events",
        "Events up to the last change that the consumer has not acknowledged",
        labels=by_consumer,
    )
    seconds = GaugeMetricFamily(
        "stockade_consumer_lag_seconds",
        "Since when something waits for the consumer's acknowledgement",
        labels=by_consumer,
    )
    lagging = GaugeMetricFamily(
        "stockade_consumer_lagging", "1 while the consumer is past its limits", labels=by_consumer
    )
    rejected = CounterMetricFamily(
        "stockade_consumer_rejected_changes", "Changes that the consumer did not take", labels=by_consumer
    )
    for consumer in sorted(books.consumers.values(), key=lambda one: one.id):
        waiting = lag_events(books, consumer)
        events.add_metric([consumer.id], waiting)
        seconds.add_metric([consumer.id], lag_ms(consumer, now_ms) / 1000 if waiting else 0)
        lagging.add_metric([consumer.id], int(bool(consumer.exception_id)))
        rejected.add_metric([consumer.id], consumer.rejected)
    yield from (events, seconds, lagging, rejected)
