"""What a feed shard knows of each stream of its sources, and of events that wait. Data, no rules.

Repeats change nothing and are not journaled: they are counted since the process began, and are no part of a snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.sequences import Sequences


class FeedWarehouse:
    """A stream's events about one warehouse. ``heard_ms``: also by heartbeats."""

    __slots__ = (
        "applied",
        "duplicates",
        "heard_ms",
        "last_occur_ms",
        "last_received_ms",
        "lively_ms",
        "rejected",
        "repeats",
        "waiting",
    )

    def __init__(self) -> None:
        self.last_received_ms = 0
        self.last_occur_ms = 0
        self.heard_ms = 0
        self.applied = 0
        self.rejected = 0
        self.duplicates = 0  # told before in other words: journaled once
        self.waiting = 0
        self.repeats = 0  # since the process began
        self.lively_ms = 0  # the last heartbeat, journaled or not


class Feed:
    """One stream of one source. ``stale``: warehouse id → exception id (on the source's stream "" only)."""

    __slots__ = ("gap_exception_id", "key", "sequences", "stale", "warehouses")

    def __init__(self, key: str) -> None:
        self.key = key
        self.sequences = Sequences()
        self.warehouses: dict[str, FeedWarehouse] = {}
        self.stale: dict[str, str] = {}
        self.gap_exception_id = ""

    def warehouse(self, warehouse_id: str) -> FeedWarehouse:
        """Its part about that warehouse, made if absent."""
        part = self.warehouses.get(warehouse_id)
        if part is None:
            part = self.warehouses[warehouse_id] = FeedWarehouse()
        return part

    @property
    def waiting(self) -> int:
        """How many of its events wait."""
        return sum(part.waiting for part in self.warehouses.values())


class Deferred:
    """One event that waits until its stream's watermark reaches ``place``. ``body``: the fields of its ``Ingest``."""

    __slots__ = ("body", "correlation_id", "event_key", "feed_key", "place", "principal", "traceparent", "until_ms")

    def __init__(  # noqa: PLR0913  as many as its event has
        self,
        event_key: str,
        feed_key: str,
        place: int,
        until_ms: int,
        body: Sequence[Any],
        principal: str,
        correlation_id: str,
        traceparent: str,
    ) -> None:
        self.event_key = event_key
        self.feed_key = feed_key
        self.place = place
        self.until_ms = until_ms
        self.body = body
        self.principal = principal
        self.correlation_id = correlation_id
        self.traceparent = traceparent
