"""Reports that a manager understands, and the same as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.trading.traffic import percentile


def latency_table(latencies_ms: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """verb → calls and milliseconds at the median, 90 %, 99 % and the slowest."""
    return {
        verb: {
            "calls": len(values),
            "p50": round(percentile(values, 0.50), 2),
            "p90": round(percentile(values, 0.90), 2),
            "p99": round(percentile(values, 0.99), 2),
            "max": round(max(values), 2),
        }
        for verb, values in sorted(latencies_ms.items())
        if values
    }


def latency_rows(table: Mapping[str, Mapping[str, float]]) -> list[Sequence[Any]]:
    """Rows for people: verb, calls, p50, p90, p99, slowest."""
    return [
        (verb, int(row["calls"]), *(f"{row[name]:.1f}" for name in ("p50", "p90", "p99", "max")))
        for verb, row in table.items()
    ]


LATENCY_COLUMNS = ("call", "calls", "p50 ms", "p90 ms", "p99 ms", "slowest ms")
