"""What one shard has under way with another: errands it sent and are not settled, and those it took. Data, no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Errand(NamedTuple):
    """One errand that is open at the shard that sent it; fields as in ``errand_events.ErrandSent``."""

    to_shard: int
    number: int
    verb: int
    body: Sequence[Any]
    purpose: Sequence[Any]
    cause: Sequence[Any]
    sent_time_ms: int


class Outbound:
    """To one other shard. ``open``: by number, in order; they are settled in order, so the numbers have no gap."""

    __slots__ = ("next_number", "open", "to_shard")

    def __init__(self, to_shard: int) -> None:
        self.to_shard = to_shard
        self.next_number = 1
        self.open: dict[int, Errand] = {}

    @property
    def settled_below(self) -> int:
        """Every errand with a lower number is settled."""
        return self.next_number - len(self.open)


class Inbound:
    """From one other shard. ``replies``: by number, those that may be asked for again."""

    __slots__ = ("from_shard", "last", "replies", "settled_below")

    def __init__(self, from_shard: int) -> None:
        self.from_shard = from_shard
        self.last = 0
        self.settled_below = 1
        self.replies: dict[int, Sequence[Any]] = {}
