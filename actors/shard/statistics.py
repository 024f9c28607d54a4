"""What a shard host counts, as plain numbers: cheap to keep in a turn, read when somebody scrapes or asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any

from actors.domain.answers import ERROR, OK, PENDING, REFUSED
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason, IngestOutcome, RefusalReason
from actors.shard.clock_skew import ClockSkew
from actors.shard.engine import TurnResult

COMMIT_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
SOURCES_COUNTED_MAX = 100  # sources are few; a flood of made-up ones must not grow the metrics

INGEST = int(Verb.INGEST)
_VERB_NAMES = {int(verb): verb.name.lower() for verb in Verb}
_REFUSALS = {int(reason): reason.name for reason in RefusalReason}
_ENDS = {OK: "ok", PENDING: "pending"}
_ERRORS = {int(reason): reason.name for reason in ErrorReason}
_INGEST = {int(outcome): outcome.name.lower() for outcome in IngestOutcome}


class HostStatistics:
    """Counters since the process started; gauges as last seen."""

    def __init__(self) -> None:
        self.turns = 0
        self.turn_seconds = 0.0
        self.items = 0
        self.expired = 0
        self.overloaded = 0
        self.late = 0
        self.commits = 0
        self.commit_seconds = 0.0
        self.commit_buckets = [0] * (len(COMMIT_BUCKETS_S) + 1)
        self.records = 0
        self.snapshots = 0
        self.recovery_seconds = 0.0
        self.recovered_events = 0
        self.journal_bytes = 0
        self.free_bytes: int | None = None
        self.clock_skew = ClockSkew()
        self._replies: Counter[tuple[int, int, int]] = Counter()  # (verb, status, refusal or error reason)
        self.events: Counter[tuple[str, str]] = Counter()  # (source, outcome)

    def count_turn(self, items: Sequence[Sequence[Any]], result: TurnResult, seconds: float) -> None:
        """One turn was applied."""
        self.turns += 1
        self.turn_seconds += seconds
        self.items += len(items)
        self.expired += result.expired
        replies = self._replies
        fed: dict[tuple[str, int], int] = {}
        source, outcome, alike = "", 0, 0  # of the events before the one at hand: most are like the one before
        for item, reply in zip(items, result.replies, strict=True):
            verb, status = item[0], reply[0]
            if verb == INGEST and status == 0:
                if reply[2][1] == outcome and item[5][0] == source:
                    alike += 1
                    continue
                fed[source, outcome] = fed.get((source, outcome), 0) + alike
                source, outcome, alike = item[5][0], reply[2][1], 1
            else:
                reason = reply[2][0] if status == REFUSED else reply[1] if status == ERROR else 0
                replies[(verb, status, reason)] += 1
        fed[source, outcome] = fed.get((source, outcome), 0) + alike
        for (source, outcome), count in fed.items():
            if count:
                replies[(INGEST, 0, 0)] += count
                self._count_events(source, _INGEST[outcome], count)

    def _count_events(self, source: str, outcome: str, count: int) -> None:
        key = (source, outcome)
        if key not in self.events and len(self.events) >= SOURCES_COUNTED_MAX:
            key = ("other", outcome)
        self.events[key] += count

    def commit(self, seconds: float, records: int) -> None:
        """One append became durable."""
        self.commits += 1
        self.commit_seconds += seconds
        self.records += records
        self.commit_buckets[bisect_left(COMMIT_BUCKETS_S, seconds)] += 1

    def decisions(self) -> dict[tuple[str, str], int]:
        """(verb, outcome) → how many; the outcome is ``ok``, ``pending``, a refusal's or an error's reason."""
        counts: dict[tuple[str, str], int] = {}
        for (verb, status, reason), count in self._replies.items():
            outcome = _ENDS.get(status) or (_REFUSALS[reason] if status == REFUSED else _ERRORS[reason])
            key = (_VERB_NAMES.get(verb, "unknown"), outcome)
            counts[key] = counts.get(key, 0) + count
        return counts

    def plain(self) -> dict[str, Any]:
        """All of it as plain values, for a status answer."""
        return {
            "turns": self.turns,
            "turn_seconds": self.turn_seconds,
            "items": self.items,
            "expired": self.expired,
            "overloaded": self.overloaded,
            "late": self.late,
            "commits": self.commits,
            "commit_seconds": self.commit_seconds,
            "commit_buckets": list(self.commit_buckets),
            "records": self.records,
            "snapshots": self.snapshots,
            "recovery_seconds": self.recovery_seconds,
            "recovered_events": self.recovered_events,
            "journal_bytes": self.journal_bytes,
            "free_bytes": self.free_bytes,
            "clock_skews": sorted([name, skew_ms] for name, skew_ms in self.clock_skew.known.items()),
            "decisions": [[verb, outcome, count] for (verb, outcome), count in sorted(self.decisions().items())],
            "events": [[source, outcome, count] for (source, outcome), count in sorted(self.events.items())],
        }
