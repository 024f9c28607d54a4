"""A shard host's numbers as Prometheus metrics. What callers were answered is counted by gateways, not here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.domain.state import Books
from actors.runtime.consumer_metrics import consumer_metrics
from actors.runtime.exception_metrics import exception_metrics
from actors.runtime.feed_metrics import feed_metrics, feed_views
from actors.shard.statistics import COMMIT_BUCKETS_S

__all__ = ["host_metrics_text"]

GAUGES = {
    "shortage_units": ("stockade_shortage_units", "Units promised that are not there, over all stock keys"),
    "imposed_uncovered_units": ("stockade_imposed_uncovered_units", "Units of imposed claims without cover"),
    "live_reservations": ("stockade_live_reservations", "Reservations that are held or confirmed"),
    "dedupe_entries": ("stockade_dedupe_entries", "Request ids and ended reservations kept in memory"),
    "journal_bytes": ("stockade_journal_bytes", "Size of the journal"),
    "free_bytes": ("stockade_journal_free_bytes", "Free space where the journal grows"),
    "recovery_seconds": ("stockade_recovery_seconds", "How long the last recovery took"),
    "recovered_events": ("stockade_recovered_events", "Events that the last recovery applied"),
    "queue_lines": ("stockade_queue_lines", "Lines that wait for a turn"),
    "accepts_claims": ("stockade_accepts_claims", "1 while new claims are accepted; 0: the disk is below the floor"),
    "links": ("stockade_links", "Gateways connected to the host"),
    "change_log_bytes": ("stockade_change_log_bytes", "Recent changes in memory; 0 while nobody reads"),
    "change_polls": ("stockade_change_polls", "Gateways that wait for changes, and readers that catch up"),
    "clock_offset_ms": ("stockade_clock_offset_milliseconds", "Shard time minus wall time"),
}
COUNTERS = {
    "oversells": ("stockade_oversell", "Claims granted without cover: always 0"),
    "turns": ("stockade_turns", "Batches applied"),
    "turn_seconds": ("stockade_turn_seconds", "Time spent deciding and applying"),
    "items": ("stockade_items", "Commands decided"),
    "expired": ("stockade_expired", "Reservations that ended by their deadline"),
    "overloaded": ("stockade_overloaded", "Commands refused because too much was waiting"),
    "late": ("stockade_late", "Commands dropped undone because they came too late"),
    "records": ("stockade_journal_records", "Records made durable"),
    "snapshots": ("stockade_snapshots", "Snapshots published"),
    "changes_published": ("stockade_changes_published", "Changes told while somebody read, with their lines"),
    "change_pieces_read": ("stockade_change_pieces_read", "Times that older changes were read back from the journal"),
    "clock_jumps": ("stockade_clock_jumps", "Jumps of the wall clock that were ignored"),
}


def host_metrics_text(status: Callable[[], Mapping[str, Any]], books: Books | None = None, now_ms: int = 0) -> bytes:
    """The exposition text of a host whose ``status`` is as ``ShardHost.status`` gives it. ``books``: what feeds are told from,
    at shard time ``now_ms``.
    """
    registry = CollectorRegistry()
    registry.register(HostCollector(status, books, now_ms))
    return generate_latest(registry)


class HostCollector(Collector):
    """Asks the host once a scrape."""

    def __init__(self, status: Callable[[], Mapping[str, Any]], books: Books | None = None, now_ms: int = 0) -> None:
        self._status = status
        self._books = books
        self._now_ms = now_ms

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        for field, (name, what) in GAUGES.items():
            if status.get(field) is not None:
                yield GaugeMetricFamily(name, what, value=float(status[field]))
        for field, (name, what) in COUNTERS.items():
            if field in status:
                yield CounterMetricFamily(name, what, value=float(status[field]))
        yield from exception_metrics(status)
        yield skew_gauge(status)
        if "commit_buckets" in status:
            yield commit_histogram(status)
        depth = GaugeMetricFamily(
            "stockade_shard_queue_depth", "Lines that wait for a turn, by shard", labels=["shard"]
        )
        for shard in status.get("shards", ()):
            depth.add_metric([str(shard["shard"])], float(shard["queue_depth"]))
        yield depth
        if self._books is not None:
            yield from feed_metrics(feed_views(self._books), self._now_ms)
            yield from consumer_metrics(self._books, self._now_ms)


def skew_gauge(status: Mapping[str, Any]) -> GaugeMetricFamily:
    """This machine's clock against others."""
    family = GaugeMetricFamily(
        "stockade_clock_skew_seconds", "This machine's clock less another's; ahead: above 0", labels=["against"]
    )
    for against, skew_ms in status.get("clock_skews", ()):
        family.add_metric([against], skew_ms / 1000)
    return family


def commit_histogram(status: Mapping[str, Any]) -> HistogramMetricFamily:
    """Durations of group commits, cumulative by bucket."""
    total, buckets = 0, []
    for bound, count in zip((*COMMIT_BUCKETS_S, float("inf")), status["commit_buckets"], strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    family = HistogramMetricFamily("stockade_commit_duration_seconds", "Time from a turn's end until it is durable")
    family.add_metric([], buckets=buckets, sum_value=float(status["commit_seconds"]))
    return family
