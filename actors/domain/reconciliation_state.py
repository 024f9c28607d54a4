"""What a shard knows of reconciliations: the runs whose ids lead to it, and the findings about its stock keys. Data, no rules."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from actors.domain.keys import UNIT_SEPARATOR
from actors.domain.reconciliation_words import ReconciliationKind, ReconciliationState

FAR_MS = 2**62  # nothing is due


class Counts(NamedTuple):
    """How many lines there were, and what became of them. ``quarantined`` and ``booked`` are among the differing ones."""

    lines: int = 0
    matches: int = 0
    timing: int = 0
    missed_event_suspected: int = 0
    genuine_drift: int = 0
    other: int = 0  # differences of orders and channels
    booked: int = 0
    quarantined: int = 0
    failed: int = 0

    @property
    def sound(self) -> bool:
        """Whether every line ended as exactly one thing."""
        ended = self.matches + self.timing + self.missed_event_suspected + self.genuine_drift + self.other + self.failed
        return self.lines == ended


class Reconciliation:
    """One run, from being asked for to its end."""

    __slots__ = (
        "begin_time_ms",
        "counts",
        "digest",
        "end_time_ms",
        "exception_id",
        "header",
        "id",
        "kind",
        "note",
        "reason",
        "request_id",
        "request_time_ms",
        "source_id",
        "state",
        "stream_id",
        "warehouse_id",
    )

    def __init__(self, reconciliation_id: str, warehouse_id: str) -> None:
        self.id = reconciliation_id
        self.warehouse_id = warehouse_id
        self.state = 0
        self.kind = 0
        self.reason = 0  # why the service asked for it; 0: somebody began it
        self.source_id = ""  # of the broken feed
        self.stream_id = ""
        self.request_id = ""
        self.digest = b""
        self.header: Sequence[Any] = ()
        self.counts: Sequence[int] = ()
        self.note = ""
        self.exception_id = ""  # open because nobody answered
        self.request_time_ms = 0
        self.begin_time_ms = 0
        self.end_time_ms = 0


class Finding:
    """A line that differs. ``number``: the sequence of the event that made it; findings are listed in this order."""

    __slots__ = (
        "booked",
        "exception_id",
        "expected",
        "found",
        "includes_picked",
        "key",
        "kind",
        "number",
        "place",
        "state",
        "suspects",
        "suspends",
        "time_ms",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.kind = 0
        self.state = 0
        self.found = 0
        self.expected = 0
        self.booked = 0
        self.includes_picked = False
        self.suspends = False
        self.exception_id = ""
        self.place: Sequence[Any] = ()
        self.suspects: Sequence[str] = ()
        self.number = 0
        self.time_ms = 0

    @property
    def reconciliation_id(self) -> str:
        """Which run found it."""
        return self.key.partition(UNIT_SEPARATOR)[0]

    @property
    def stock_key(self) -> str:
        """Where."""
        return stock_key_of_finding(self.key)


def finding_key(reconciliation_id: str, stock_key: str, *what: str) -> str:
    """One finding for a run, a stock key, and what of it was compared: a disposition, or an order."""
    return UNIT_SEPARATOR.join((reconciliation_id, stock_key, *what))


def stock_key_of_finding(key: str) -> str:
    """The stock key that a finding is about."""
    return UNIT_SEPARATOR.join(key.split(UNIT_SEPARATOR, 4)[1:4])


def what_of_finding(key: str) -> list[str]:
    """What of the stock key was compared: [disposition], [channel id, order reference] or nothing."""
    return key.split(UNIT_SEPARATOR)[4:]


class ReconciliationIndex:
    """What a host derives from its runs and findings; never journaled, made anew by recovery."""

    __slots__ = ("done_ms", "ended", "findings", "look_ms", "quarantined", "requested")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all of it."""
        self.requested: dict[str, tuple[int, str]] = {}  # warehouse id → (shard, id) of the one that was asked for
        self.done_ms: dict[str, int] = {}  # warehouse id → when its stock was last compared to the end
        self.ended: deque[tuple[int, int, str]] = deque()  # (end time ms, or the begin of one that goes on, shard, id)
        self.findings: deque[tuple[int, int, str]] = deque()  # (time ms, shard, finding key)
        self.quarantined: dict[str, set[str]] = {}  # stock key → keys of its findings that nobody decided
        self.look_ms = FAR_MS  # when there may be something to ask for, to alert or to forget; 0: look now

    def asked(self, run: Reconciliation, shard_id: int) -> None:
        """The service asks for it."""
        self.requested[run.warehouse_id] = (shard_id, run.id)
        self.look_ms = 0

    def answered(self, run: Reconciliation, shard_id: int) -> None:
        """Somebody began it."""
        self.ended.append((run.begin_time_ms, shard_id, run.id))
        if self.requested.get(run.warehouse_id, (0, ""))[1] == run.id:
            del self.requested[run.warehouse_id]
        self.look_ms = 0

    def ended_at(self, run: Reconciliation, shard_id: int) -> None:
        """It is over."""
        self.ended.append((run.end_time_ms, shard_id, run.id))
        self.note_done(run)
        self.look_ms = 0

    def note_done(self, run: Reconciliation) -> None:
        """If it compared stock to the end, its warehouse was compared then."""
        if run.state == ReconciliationState.DONE and run.kind == ReconciliationKind.STOCK:
            self.done_ms[run.warehouse_id] = max(run.end_time_ms, self.done_ms.get(run.warehouse_id, 0))

    def quarantine(self, finding: Finding) -> None:
        """Somebody must decide about it."""
        self.quarantined.setdefault(finding.stock_key, set()).add(finding.key)

    def release(self, finding: Finding) -> None:
        """Somebody decided about it."""
        keys = self.quarantined.get(finding.stock_key)
        if keys is not None:
            keys.discard(finding.key)
            if not keys:
                del self.quarantined[finding.stock_key]
