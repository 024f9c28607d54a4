"""Exceptions as Prometheus metrics: how many are open, by kind and priority, and how long those that ended had been open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from actors.domain.apply_exceptions import RESOLUTION_BUCKETS_S


def exception_metrics(status: Mapping[str, Any]) -> Iterator[Metric]:
    """From a host's status. The mean time to resolve is the histogram's sum by its count."""
    gauge = GaugeMetricFamily(
        "stockade_exceptions_open", "Exceptions that somebody must look at", labels=["kind", "priority"]
    )
    for kind, priority, count in status.get("exceptions_open", ()):
        gauge.add_metric([kind, priority], float(count))
    yield gauge
    oldest = GaugeMetricFamily(
        "stockade_exceptions_oldest_open_seconds",
        "How long the oldest open exception of a priority is open",
        labels=["priority"],
    )
    for priority, seconds in status.get("exceptions_oldest", ()):
        oldest.add_metric([priority], float(seconds))
    yield oldest
    histogram = HistogramMetricFamily(
        "stockade_exception_resolution_seconds", "How long exceptions that ended had been open", labels=["kind"]
    )
    for kind, seconds, *counts in status.get("resolution_times", ()):
        total, buckets = 0, []
        for bound, count in zip((*map(str, RESOLUTION_BUCKETS_S), "+Inf"), counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        histogram.add_metric([kind], buckets=buckets, sum_value=float(seconds))
    yield histogram
