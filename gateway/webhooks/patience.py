"""How long to wait: pauses between tries of a batch, and the circuit breaker of an endpoint. Pure: time and chance are
arguments.
"""

from __future__ import annotations

from collections.abc import Callable

Draw = Callable[[], float]
"""A number in [0, 1)."""


def backoff_ms(attempts: int, ms_min: int, ms_max: int, draw: Draw) -> int:
    """Full jitter: anything up to ``ms_min`` doubled with every attempt, ``ms_max`` at most; never 0."""
    ceiling = min(ms_max, ms_min << min(attempts - 1, 40))
    return max(1, round(ceiling * draw()))


class Circuit:
    """Counts failures in a row of one endpoint. Open: nobody asks; after a pause one request tries (half open): its
    success closes the circuit, its failure makes the next pause longer.
    """

    def __init__(self, failures_max: int, pause_ms_min: int, pause_ms_max: int, draw: Draw) -> None:
        self._failures_max = failures_max
        self._pause_ms_min = pause_ms_min
        self._pause_ms_max = pause_ms_max
        self._draw = draw
        self.failures = 0
        self.try_at_ms = 0  # while open
        self._pauses = 0

    @property
    def closed(self) -> bool:
        return self._pauses == 0

    def allows(self, now_ms: int, in_flight: int) -> bool:
        """Whether one more request may go out."""
        return self.closed or (now_ms >= self.try_at_ms and in_flight == 0)

    def succeeded(self) -> None:
        self.failures = self._pauses = self.try_at_ms = 0

    def failed(self, now_ms: int) -> None:
        """One more failure. Those of requests that were under way when it opened do not make the pause longer."""
        self.failures += 1
        if self.failures < self._failures_max or (not self.closed and now_ms < self.try_at_ms):
            return
        pause_ms = min(self._pause_ms_max, self._pause_ms_min << min(self._pauses, 40))
        self._pauses += 1
        self.try_at_ms = now_ms + max(1, round(pause_ms * (1 + self._draw()) / 2))
