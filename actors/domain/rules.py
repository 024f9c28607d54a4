"""Settings that decide: what the rules may depend on, handed in once. Reading them from files is ``actors.runtime.settings``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from actors.domain.consumer_state import ConsumerLimits
from actors.domain.outcomes import Door

QUANTITY_PER_LINE_MAX = 10**9
ON_HAND_MAX = 10**15
LINES_PER_ORDER_MAX = 2000
RECALLED_LOTS_MAX = 100  # of one stock key


@dataclass(frozen=True, slots=True)
class Rules:
    """Durations in milliseconds. ``doors``: warehouse id → who tells of its shipments (absent: the warehouse)."""

    catalog_open: bool = True  # the first fact or registration creates a key; else only registration does
    doors: Mapping[str, Door] = field(default_factory=dict)
    warehouses: Collection[str] = frozenset()  # all that are declared; empty: any may be
    warehouses_not_selling: Collection[str] = frozenset()  # units that come in there do not start sellable
    quality_hold_suppliers: Collection[str] = frozenset()  # nor do units of these
    lifetime_ms_max: int = 24 * 3600 * 1000  # of a hold, from its creation, extensions included
    dedupe_window_ms: int = 24 * 3600 * 1000  # ids are remembered this long after their reservation's end
    dedupe_memory_ms: int = 15 * 60 * 1000  # … and this long of it in memory
    ended_in_memory_max: int = 200_000  # per host: beyond it the oldest ended ones leave memory earlier
    expiries_per_turn_max: int = 2_000
    takeover_grace_ms: int = 2_000  # deadlines that passed while nobody owned the shard end this long after takeover
    feeds: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # warehouse → source → expected interval ms
    deferral_ms_max: int = 15 * 60 * 1000  # how long an event may wait for those before it
    gap_patience_ms: int = 5 * 60 * 1000  # how long a hole in a stream may stay before somebody is told
    history_ms: int = 72 * 3600 * 1000  # how far back a count may be taken
    consumers: Mapping[str, ConsumerLimits] = field(default_factory=dict)  # of changes, by id
    # warehouse → how often a reconciliation of it is asked for
    reconciliation_intervals_ms: Mapping[str, int] = field(default_factory=dict)
    reconciliation_answer_ms_max: int = 4 * 3600 * 1000  # beyond it somebody is told that nobody answered
    reconciliation_memory_ms: int = 7 * 24 * 3600 * 1000  # runs and findings are listed so long; the journal keeps them
    healed_memory_ms: int = 24 * 3600 * 1000  # how long a healed exception is listed; the journal keeps it
    healed_in_memory_max: int = 20_000  # per host: beyond it the oldest healed ones leave earlier
    exceptions_open_max: int = 10_000  # per shard; beyond it an event that would be rejected stays with its sender
    exception_teams: Mapping[str, str] = field(default_factory=dict)  # kind of exception → the team that looks after it
