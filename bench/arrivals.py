"""When an open loop's calls are due, and whether the generator kept to it. No clock, no IO.

Latency counts from the moment a call was due, so a late generator makes the service look slower, never faster; a run whose
generator was too late is invalid all the same, because it did not offer the load it names.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

SENT_SHARE_MIN = 0.99  # of what was planned


def due_times(rate_per_second: float, seconds: float, arrivals: str, draw: random.Random) -> Iterator[float]:
    """Seconds from the start at which a call is due: evenly, or at random with the same mean (Poisson)."""
    at = 0.0
    number = 0
    while True:
        if arrivals == "even":
            at = number / rate_per_second
            number += 1
        else:
            at += draw.expovariate(rate_per_second)
        if at >= seconds:
            return
        yield at


def lag_findings(*, lag_ms_p99: float, lag_ms_p99_max: float, planned: int, sent: int) -> list[str]:
    """Why a run of the open loop does not count; empty when it does."""
    found = []
    if lag_ms_p99 > lag_ms_p99_max:
        found.append(
            f"the generator lagged: one call in a hundred left {lag_ms_p99:.1f} ms late or more (bound {lag_ms_p99_max:g} ms)"
        )
    if planned and sent < planned * SENT_SHARE_MIN:
        found.append(f"the generator sent only {sent:,} of {planned:,} calls that were due")
    return found
