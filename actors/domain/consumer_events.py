"""What is journaled about consumers of changes. Field order is journal format, as in ``actors.domain.events``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ConsumerStarted(NamedTuple):
    """A declared consumer was seen for the first time. ``positions``: [[shard, sequence], …] where the journal stood."""

    consumer_id: str
    timeline: str
    positions: Sequence[Sequence[int]]


class ChangesAcknowledged(NamedTuple):
    """It has taken in everything up to ``positions`` (the shards that moved; the others stay), in ``timeline``.

    The first ones in a timeline replace what was there (−1: nothing of that shard yet); an empty timeline: only the rest is told.
    ``error``: what keeps it from going on. ``rejected``: changes that it refused with this.
    """

    consumer_id: str
    timeline: str
    cursor_time_ms: int
    positions: Sequence[Sequence[int]]
    error: str = ""
    rejected: int = 0


class ConsumerLagSet(NamedTuple):
    """An exception is open because it is too far behind; empty: no more."""

    consumer_id: str
    exception_id: str


class ConsumerForgotten(NamedTuple):
    """It is no longer declared: its place is gone."""

    consumer_id: str


Event = ConsumerStarted | ChangesAcknowledged | ConsumerLagSet | ConsumerForgotten

CONSUMER_KINDS: dict[int, type[Event]] = {
    80: ConsumerStarted,
    81: ChangesAcknowledged,
    82: ConsumerLagSet,
    83: ConsumerForgotten,
}
