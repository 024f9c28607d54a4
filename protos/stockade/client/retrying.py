"""When a call is tried again, and when it is given up: exponential backoff with full jitter inside the caller's deadline."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from stockade.client.errors import StockadeError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Milliseconds. An attempt's own deadline is what is left of the call's, at most ``attempt_ms_max``."""

    first_pause_ms: float = 20.0
    pause_ms_max: float = 1_000.0
    attempt_ms_max: float = 5_000.0


class Attempts:
    """One call's attempts. Times are of any monotonic clock, in seconds."""

    def __init__(
        self, policy: RetryPolicy, timeout_s: float, now_s: float, draw: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy
        self._end_s = now_s + timeout_s
        self._draw = draw
        self._may_have_happened = False
        self.made = 0

    def timeout_s(self, now_s: float) -> float:
        """The deadline of the next attempt, from now."""
        self.made += 1
        return max(0.001, min(self._end_s - now_s, self._policy.attempt_ms_max / 1000))

    def pause_s(self, error: StockadeError, now_s: float) -> float | None:
        """How long to wait before the next attempt; None: give up, and raise the error.

        The error's outcome is that of the whole call: what an earlier attempt may have done, a later one that certainly did
        nothing has not undone.
        """
        self._may_have_happened = self._may_have_happened or error.outcome == "unknown"
        if self._may_have_happened:
            error.outcome = "unknown"
        if not error.retryable:
            return None
        ceiling = min(self._policy.pause_ms_max, self._policy.first_pause_ms * 2 ** (self.made - 1))
        pause_s = max(error.retry_after_ms, ceiling * self._draw()) / 1000
        return pause_s if now_s + pause_s < self._end_s else None
