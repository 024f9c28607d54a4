"""A consumer of changes: how far it has taken them in. Data, no rules."""

from __future__ import annotations

from typing import NamedTuple


class ConsumerLimits(NamedTuple):
    """What is declared of a consumer; 0: no limit. ``retention_ms``: how long records are kept for it at most."""

    lag_events_max: int = 0
    lag_ms_max: int = 0
    retention_ms: int = 0


class Consumer:
    """``positions``: shard → taken in up to there (−1: nothing, from the oldest on), in ``timeline``.

    ``cursor_time_ms``: every change from before is taken in.
    """

    __slots__ = (
        "acknowledge_time_ms",
        "behind_since_ms",
        "cursor_time_ms",
        "exception_id",
        "id",
        "last_error",
        "positions",
        "rejected",
        "start_time_ms",
        "timeline",
    )

    def __init__(self, consumer_id: str) -> None:
        self.id = consumer_id
        self.timeline = ""
        self.positions: dict[int, int] = {}
        self.cursor_time_ms = 0
        self.start_time_ms = 0
        self.acknowledge_time_ms = 0  # 0: it never acknowledged; then ``positions`` are where it was first seen
        self.last_error = ""
        self.rejected = 0
        self.exception_id = ""  # of the open exception that it lags
        self.behind_since_ms = 0  # derived: since when something waits for it; 0: nothing does
