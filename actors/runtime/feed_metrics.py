"""Warehouse feeds as Prometheus metrics: how far each has come, what is missing, how late it is, and that nothing is dropped.

received = applied + duplicate + waiting + rejected, by stream. Labels stay few: the sources that the settings expect come first,
and of more streams than the bound the rest is told together as ``other``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from actors.domain.answers import FeedView, FeedWarehouseView
from actors.domain.feed_watch import feed_view
from actors.domain.state import Books

STREAMS_MAX = 256  # told one by one: eight series each and three a warehouse
OTHER = "other"


def feed_views(books: Books) -> list[FeedView]:
    """Every stream of the host: those of expected sources first, then by name."""
    expected = {source_id for feeds in books.rules.feeds.values() for source_id in feeds}
    found = [feed_view(books, feed) for shard in books.shards.values() for feed in shard.feeds.values()]
    return sorted(found, key=lambda view: (view.source_id not in expected, view.source_id, view.stream_id))


def feed_metrics(views: Iterable[FeedView], now_ms: int) -> Iterator[Metric]:
    """``now_ms``: shard time."""
    by_stream, by_warehouse = ["source", "stream"], ["source", "stream", "warehouse"]
    events = CounterMetricFamily(
        "stockade_feed_events", "Events of a stream: received, and what became of them", labels=[*by_stream, "outcome"]
    )
    waiting = GaugeMetricFamily("stockade_feed_waiting_events", "Events that wait for their place", labels=by_stream)
    missing = GaugeMetricFamily(
        "stockade_feed_missing_sequences", "Sequences below the highest that were not received", labels=by_stream
    )
    watermark = GaugeMetricFamily("stockade_feed_watermark", "All up to this sequence was received", labels=by_stream)
    stale = GaugeMetricFamily("stockade_feed_stale", "1 while silent beyond the expected interval", labels=by_warehouse)
    lag = GaugeMetricFamily(
        "stockade_feed_lag_seconds", "From occurrence to application, of the last event", labels=by_warehouse
    )
    silence = GaugeMetricFamily(
        "stockade_feed_silence_seconds", "Since the last event or heartbeat", labels=by_warehouse
    )
    for labels, parts in _bounded(views):
        for outcome, count in _counts(parts).items():
            events.add_metric([*labels, outcome], count)
        waiting.add_metric(labels, sum(part.waiting for view in parts for part in _warehouses(view)))
        missing.add_metric(labels, sum(last - first + 1 for view in parts for first, last in view.missing))
        if labels == [OTHER, ""]:
            continue
        watermark.add_metric(labels, parts[0].watermark)
        for part in _warehouses(parts[0]):
            of = [*labels, part.warehouse_id]
            stale.add_metric(of, int(part.stale))
            lag.add_metric(of, part.lag_ms / 1000)
            if part.last_heard_ms:
                silence.add_metric(of, max(0, now_ms - part.last_heard_ms) / 1000)
    yield from (events, waiting, missing, watermark, stale, lag, silence)


def _bounded(views: Iterable[FeedView]) -> Iterator[tuple[list[str], list[FeedView]]]:
    rest = []
    for index, view in enumerate(views):
        if index < STREAMS_MAX:
            yield [view.source_id, view.stream_id], [view]
        else:
            rest.append(view)
    if rest:
        yield [OTHER, ""], rest


def _warehouses(view: FeedView) -> list[FeedWarehouseView]:
    return [FeedWarehouseView(*part) for part in view.warehouses]


def _counts(views: Iterable[FeedView]) -> dict[str, int]:
    counts = dict.fromkeys(("received", "applied", "duplicate", "rejected", "waiting"), 0)
    for view in views:
        for part in _warehouses(view):
            counts["received"] += part.received
            counts["applied"] += part.applied
            counts["duplicate"] += part.duplicates
            counts["rejected"] += part.rejected
            counts["waiting"] += part.waiting
    return counts
