"""What one run of a load came to: answers by what they said, latencies, what is still unknown, and how it went over time.

Only counts. ``granted`` and ``refused`` are units of work that were answered; ``failed`` is neither, and never adds to a
rate.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram

HISTOGRAM_US_MAX = 600_000_000
DIGITS = 3
BUCKET_S = 0.5  # of the series over time


def histogram() -> HdrHistogram:
    """Microseconds up to ten minutes, three digits."""
    return HdrHistogram(1, HISTOGRAM_US_MAX, DIGITS)


def record(into: HdrHistogram, seconds: float) -> None:
    """Add a duration; beyond the range it counts as the longest there is, rather than not at all."""
    into.record_value(min(HISTOGRAM_US_MAX, max(1, int(seconds * 1_000_000))))


@dataclass(slots=True)
class Outcome:
    """``claims``, ``facts``: what the journal must hold because of these answers. ``unknown``: calls to be asked for again.

    ``latency_us``: of calls that were answered; ``failed_us``: of those that failed. ``lag_us``: how late an open loop
    sent. Seconds count from the start of the run.
    """

    seconds: float = 0.0
    calls: int = 0
    granted: int = 0
    refused: int = 0
    failed: int = 0
    claims: int = 0
    facts: int = 0
    planned: int = 0
    sent: int = 0
    at_s: float = 0.0
    first_refusal_s: float | None = None
    last_grant_s: float = 0.0
    struck_s: float | None = None
    acknowledged_s: float | None = None  # from the strike to the first grant of a call that was sent after it
    errors: dict[str, int] = field(default_factory=dict)
    unknown: list[Any] = field(default_factory=list)
    series: list[list[int]] = field(default_factory=list)
    settling: bool = False  # asking again: an attempt that was not done says nothing about the first
    live: deque[str] | None = None
    latency_us: HdrHistogram = field(default_factory=histogram)
    failed_us: HdrHistogram = field(default_factory=histogram)
    lag_us: HdrHistogram = field(default_factory=histogram)

    def answered(self, due_s: float, sent_s: float, now_s: float) -> None:
        """A call that was due and sent then has its answer now; counting what it says comes next."""
        self.calls += 1
        self.at_s = now_s
        record(self.latency_us, now_s - due_s)
        if self.struck_s is not None and self.acknowledged_s is None and sent_s >= self.struck_s:
            self.acknowledged_s = now_s - self.struck_s

    def grant(self, units: int, *, claims: int) -> None:
        """So many units of work were answered yes."""
        if units:
            self.granted += units
            self.claims += claims
            self.last_grant_s = self.at_s
            self._bucket()[0] += units

    def refuse(self, units: int) -> None:
        """So many were answered no."""
        if units:
            self.refused += units
            if self.first_refusal_s is None:
                self.first_refusal_s = self.at_s
            self._bucket()[1] += units

    def fail(self, what: str, units: int) -> None:
        """So many were not answered by yes or no."""
        self.failed += units
        self.errors[what] = self.errors.get(what, 0) + units
        self._bucket()[2] += units

    def _bucket(self) -> list[int]:
        at = int(self.at_s / BUCKET_S)
        while len(self.series) <= at:
            self.series.append([0, 0, 0])
        return self.series[at]
