"""What answers show of reconciliations. Part of ``actors.domain.answers``: the same rules hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from actors.domain.reconciliation_state import Finding, Reconciliation, what_of_finding


class ReconciliationView(NamedTuple):
    """BEGIN_, FINISH_, GET_, LIST_RECONCILIATIONS. Times 0: not (yet)."""

    reconciliation_id: str
    warehouse_id: str
    state: int
    kind: int
    reason: int
    source_id: str
    stream_id: str
    request_id: str
    header: Sequence[Any]
    counts: Sequence[int]
    note: str
    exception_id: str
    request_time_ms: int
    begin_time_ms: int
    end_time_ms: int


class LineView(NamedTuple):
    """RECONCILE_LINES: one line that differs, or with a ``problem``: that could not be compared. One that matches is 0."""

    problem: int
    kind: int
    state: int
    found: int
    expected: int
    booked: int
    exception_id: str
    suspects: Sequence[str]


class LinesView(NamedTuple):
    """RECONCILE_LINES: for each line 0 (it matches) or a ``LineView``."""

    results: Sequence[Any]
    position: Sequence[int]


class FindingView(NamedTuple):
    """LIST_FINDINGS. ``what``: [disposition], [channel id, order reference] or nothing."""

    reconciliation_id: str
    stock_key: str
    what: Sequence[str]
    kind: int
    state: int
    found: int
    expected: int
    booked: int
    includes_picked: bool
    suspends: bool
    exception_id: str
    suspects: Sequence[str]
    time_ms: int


class ComparableView(NamedTuple):
    """LIST_COMPARABLE. ``rows`` by kind: STOCK [stock_key, [disposition, …]], OPEN_ORDERS [stock_key, channel id, order
    reference], CHANNEL_AVAILABILITY [stock_key]. ``next_place`` 0: that was all."""

    rows: Sequence[Sequence[Any]]
    next_place: int


def reconciliation_view(run: Reconciliation) -> ReconciliationView:
    """A run now."""
    return ReconciliationView(
        run.id,
        run.warehouse_id,
        run.state,
        run.kind,
        run.reason,
        run.source_id,
        run.stream_id,
        run.request_id,
        run.header,
        run.counts,
        run.note,
        run.exception_id,
        run.request_time_ms,
        run.begin_time_ms,
        run.end_time_ms,
    )


def line_view(finding: Finding) -> LineView:
    """A finding as a line's answer."""
    return LineView(
        0,
        finding.kind,
        finding.state,
        finding.found,
        finding.expected,
        finding.booked,
        finding.exception_id,
        finding.suspects,
    )


def finding_view(finding: Finding) -> FindingView:
    """A finding now."""
    return FindingView(
        finding.reconciliation_id,
        finding.stock_key,
        what_of_finding(finding.key),
        finding.kind,
        finding.state,
        finding.found,
        finding.expected,
        finding.booked,
        finding.includes_picked,
        finding.suspends,
        finding.exception_id,
        finding.suspects,
        finding.time_ms,
    )
