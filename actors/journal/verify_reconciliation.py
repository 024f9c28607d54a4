"""``verify``'s own rules about reconciliations: the life of a run, and that a finding did what it says, no more and no less.

Handlers as in ``verify_stock``, of the events of kinds 90–97. What a finding says was booked must be what counts of its run
booked beside it; what is quarantined must not be sold, and somebody must be asked.
"""

from __future__ import annotations

from typing import Any

from actors.journal.verify_feeds import FeedRules
from actors.journal.verify_home import EXCEPTION_OPEN
from actors.journal.verify_ledger import Ledger
from actors.journal.verify_report import VerifyReport
from actors.journal.verify_stock import STOCK_COUNT, Event

REQUESTED, RUNNING, DONE, FAILED = 1, 2, 3, 4
REPORTED, BOOKED, QUARANTINED, ACCEPTED, DISCARDED, SUPERSEDED = 1, 2, 3, 4, 5, 8
SELLING_SUSPENDED = 2
DRIFT, ASKED_FOR = 20, 21  # kinds of exceptions
ON_HAND_CHANGED = 12
STOCK_KIND = 1


class Run:
    """One reconciliation."""

    __slots__ = ("counts", "exception_id", "kind", "request_id", "state", "warehouse_id")

    def __init__(self, warehouse_id: str, state: int) -> None:
        self.warehouse_id = warehouse_id
        self.state = state
        self.kind = 0
        self.request_id = ""
        self.exception_id = ""
        self.counts: tuple[int, ...] = ()


class ReconciliationRules(FeedRules):
    """Judges and applies the events of kinds 90–97 of one shard."""

    def __init__(self, shard: int, report: VerifyReport, ledger: Ledger) -> None:
        super().__init__(shard, report, ledger)
        self.runs: dict[str, Run] = {}
        self.findings: dict[str, tuple[int, int]] = {}  # finding key → state, booked

    def reconciliation_requested(self, event: Event) -> None:
        """[reconciliation_id, warehouse_id, reason, source_id, stream_id]"""
        _, reconciliation_id, warehouse_id, *_ = event
        if self.strict and reconciliation_id in self.runs:
            self._not_so(event, reconciliation_id, "is asked for, and was known already")
        self.runs[reconciliation_id] = Run(warehouse_id, REQUESTED)

    def reconciliation_alerted(self, event: Event) -> None:
        """[reconciliation_id, exception_id]"""
        _, reconciliation_id, exception_id = event
        run = self._run(event, reconciliation_id, (REQUESTED,))
        run.exception_id = exception_id
        if self.strict and not self._is_open(exception_id, ASKED_FOR):
            self._not_so(event, reconciliation_id, f"nobody answered, and {exception_id!r} does not say so")

    def reconciliation_begun(self, event: Event) -> None:
        """[reconciliation_id, request_id, digest, warehouse_id, kind, header]"""
        _, reconciliation_id, request_id, _, warehouse_id, kind, _ = event
        run = self.runs.get(reconciliation_id)
        if run is None:
            run = self.runs[reconciliation_id] = Run(warehouse_id, 0)
        elif self.strict and run.state not in (REQUESTED, FAILED):
            self._not_so(event, reconciliation_id, f"begins in state {run.state}")
        if self.strict and (run.warehouse_id != warehouse_id or run.request_id not in ("", request_id)):
            self._not_so(event, reconciliation_id, "is begun by another request, or of another warehouse")
        run.state, run.kind, run.request_id = RUNNING, kind, request_id

    def reconciliation_ended(self, event: Event) -> None:
        """[reconciliation_id, state, counts, note]"""
        _, reconciliation_id, state, counts, *_ = event
        run = self._run(event, reconciliation_id, (RUNNING,))
        if self.strict:
            if state not in (DONE, FAILED):
                self._not_so(event, reconciliation_id, f"ends in state {state}")
            if counts and counts[0] != sum(counts[1:6]) + counts[8]:
                self._not_so(
                    event, reconciliation_id, f"{counts[0]} lines are not the sum of what became of them: {counts}"
                )
        run.state, run.counts = state, tuple(counts)
        if state == DONE:
            run.exception_id = ""

    def reconciliation_forgotten(self, event: Event) -> None:
        """[reconciliation_id]"""
        _, reconciliation_id = event
        self._run(event, reconciliation_id, (DONE, FAILED))
        self.runs.pop(reconciliation_id, None)

    def finding_made(self, event: Event) -> None:
        """[finding_key, kind, state, found, expected, booked, includes_picked, suspends, exception_id, place, suspects]"""
        _, key, _, state, found, expected, booked, _, _, exception_id, *_ = event
        if self.strict:
            if key in self.findings:
                self._not_so(event, key, "is found a second time")
            if state not in (REPORTED, BOOKED, QUARANTINED) or found == expected:
                self._not_so(event, key, f"state {state}, {found} found, {expected} expected")
            counted = self._counted_for(key) if state != REPORTED else 0
            if booked != counted or (booked and state != BOOKED):
                self._not_so(event, key, f"{booked:+} said to be booked in state {state}, {counted:+} were")
            if state == QUARANTINED:
                self._judge_quarantine(event, key, exception_id)
        self.findings[key] = (state, booked)

    def finding_resolved(self, event: Event) -> None:
        """[finding_key, state, booked]"""
        _, key, state, booked = event
        if self.strict:
            before = self.findings.get(key, (0, 0))[0]
            if before != QUARANTINED or state not in (ACCEPTED, DISCARDED, SUPERSEDED):
                self._not_so(event, key, f"goes from state {before} to {state}")
            counted = self._counted_for(key) if state == ACCEPTED else 0
            if booked != counted:
                self._not_so(event, key, f"{booked:+} said to be booked, {counted:+} were")
        self.findings[key] = (state, booked)

    def finding_forgotten(self, event: Event) -> None:
        """[finding_key]"""
        _, key = event
        state, _ = self.findings.pop(key, (0, 0))
        if self.strict and state in (0, QUARANTINED):
            self._not_so(event, key, f"is forgotten in state {state}")

    def _judge_quarantine(self, event: Event, key: str, exception_id: str) -> None:
        stock = self.stocks.get(stock_key_of(key))
        if stock is None or stock.selling != SELLING_SUSPENDED:
            self._not_so(event, key, "is quarantined, and sold all the same")
        if not self._is_open(exception_id, DRIFT):
            self._not_so(event, key, f"is quarantined, and exception {exception_id!r} does not say so")

    def _is_open(self, exception_id: str, kind: int) -> bool:
        exception = self.exceptions.get(exception_id)
        return exception is not None and exception[0] == kind and exception[3] == EXCEPTION_OPEN

    def _counted_for(self, key: str) -> int:
        """What counts of the finding's run booked of its disposition in the group at hand."""
        run_id, stock_key, disposition = key.partition("\x1f")[0], stock_key_of(key), key.rpartition("\x1f")[2]
        events: Any = next((group[1] for group in self.groups if group[0] is self.cause), ())
        return sum(
            one[4]
            for one in events
            if one[0] == ON_HAND_CHANGED
            and one[1] == stock_key
            and one[2] == STOCK_COUNT
            and str(one[3]) == disposition
            and len(one) > 5
            and one[5] == run_id
        )

    def _run(self, event: Event, reconciliation_id: str, states: tuple[int, ...]) -> Run:
        run = self.runs.get(reconciliation_id)
        if run is None:
            run = self.runs[reconciliation_id] = Run("", 0)
        if self.strict and run.state not in states:
            self._not_so(event, reconciliation_id, f"is in state {run.state}, not in one of {states}")
        return run

    def _not_so(self, event: Event, key: str, text: str) -> None:
        self.fault(event, "reconciliation", key, text)


def stock_key_of(key: str) -> str:
    """The stock key that a finding is about."""
    return "\x1f".join(key.split("\x1f", 4)[1:4])


def read_run(fields: Any) -> Run:
    """A run from a snapshot."""
    run = Run(fields[1], fields[2])
    run.kind, run.request_id, run.counts, run.exception_id = fields[3], fields[7], tuple(fields[10]), fields[12]
    return run


def describe_run(run: Run) -> dict[str, Any]:
    """What of a run is compared with a snapshot."""
    return {
        "warehouse": run.warehouse_id,
        "state": run.state,
        "kind": run.kind,
        "request": run.request_id,
        "counts": run.counts,
        "exception": run.exception_id,
    }


def read_finding(fields: Any) -> tuple[int, int]:
    """A finding from a snapshot."""
    return fields[2], fields[5]


def describe_finding(finding: tuple[int, int]) -> dict[str, Any]:
    """What of a finding is compared with a snapshot."""
    return {"state": finding[0], "booked": finding[1]}
