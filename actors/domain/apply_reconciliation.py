"""What the events about reconciliations do, live and in replay, and what is derived from them. Part of ``actors.domain.apply``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.domain.reconciliation_events import (
    FindingForgotten,
    FindingMade,
    FindingResolved,
    ReconciliationAlerted,
    ReconciliationBegun,
    ReconciliationEnded,
    ReconciliationForgotten,
    ReconciliationRequested,
)
from actors.domain.reconciliation_state import Finding, Reconciliation
from actors.domain.reconciliation_words import FindingState, ReconciliationKind, ReconciliationState

if TYPE_CHECKING:
    from actors.domain.state import Books, ShardState

REQUESTED = int(ReconciliationState.REQUESTED)
RUNNING = int(ReconciliationState.RUNNING)
DONE = int(ReconciliationState.DONE)
STOCK = int(ReconciliationKind.STOCK)
QUARANTINED = int(FindingState.QUARANTINED)


def _requested(books: Books, shard: ShardState, event: ReconciliationRequested, time_ms: int) -> None:
    run = Reconciliation(event.reconciliation_id, event.warehouse_id)
    run.state = REQUESTED
    run.reason = event.reason
    run.source_id = event.source_id
    run.stream_id = event.stream_id
    run.request_time_ms = time_ms
    shard.reconciliations[run.id] = run
    books.reconciliations.asked(run, shard.id)


def _alerted(books: Books, shard: ShardState, event: ReconciliationAlerted, _time_ms: int) -> None:
    shard.reconciliations[event.reconciliation_id].exception_id = event.exception_id
    books.reconciliations.look_ms = 0


def _begun(books: Books, shard: ShardState, event: ReconciliationBegun, time_ms: int) -> None:
    run = shard.reconciliations.get(event.reconciliation_id)
    if run is None:
        run = Reconciliation(event.reconciliation_id, event.warehouse_id)
        shard.reconciliations[run.id] = run
    run.state = RUNNING
    run.request_id = event.request_id
    run.digest = event.digest
    run.kind = event.kind
    run.header = event.header
    run.begin_time_ms = time_ms
    books.reconciliations.answered(run, shard.id)


def _ended(books: Books, shard: ShardState, event: ReconciliationEnded, time_ms: int) -> None:
    run = shard.reconciliations[event.reconciliation_id]
    assert run.state == RUNNING, "a reconciliation ends once"
    run.state = event.state
    run.counts = event.counts
    run.note = event.note
    run.end_time_ms = time_ms
    if event.state == DONE:
        run.exception_id = ""  # healed just before
    books.reconciliations.ended_at(run, shard.id)


def _forgotten(_books: Books, shard: ShardState, event: ReconciliationForgotten, _time_ms: int) -> None:
    del shard.reconciliations[event.reconciliation_id]


def _finding_made(books: Books, shard: ShardState, event: FindingMade, time_ms: int) -> None:
    finding = Finding(event.finding_key)
    finding.kind = event.kind
    finding.state = event.state
    finding.found = event.found
    finding.expected = event.expected
    finding.booked = event.booked
    finding.includes_picked = event.includes_picked
    finding.suspends = event.suspends
    finding.exception_id = event.exception_id
    finding.place = event.place
    finding.suspects = event.suspects
    finding.number = shard.sequence
    finding.time_ms = time_ms
    shard.findings[finding.key] = finding
    books.reconciliations.findings.append((time_ms, shard.id, finding.key))
    books.reconciliations.look_ms = 0
    if finding.state == QUARANTINED:
        books.reconciliations.quarantine(finding)


def _finding_resolved(books: Books, shard: ShardState, event: FindingResolved, _time_ms: int) -> None:
    finding = shard.findings[event.finding_key]
    assert finding.state == QUARANTINED, "a difference is decided once"
    finding.state = event.state
    finding.booked = event.booked
    books.reconciliations.release(finding)


def _finding_forgotten(_books: Books, shard: ShardState, event: FindingForgotten, _time_ms: int) -> None:
    assert shard.findings[event.finding_key].state != QUARANTINED, "forgot a difference that nobody decided"
    del shard.findings[event.finding_key]


def rebuild_reconciliations(books: Books) -> None:
    """Make what is derived anew, after recovery."""
    index = books.reconciliations
    index.clear()
    ended = []
    findings = []
    for shard in books.shards.values():
        for run in shard.reconciliations.values():
            if run.state == REQUESTED:
                index.asked(run, shard.id)
            else:
                ended.append((run.begin_time_ms if run.state == RUNNING else run.end_time_ms, shard.id, run))
        for finding in shard.findings.values():
            findings.append((finding.time_ms, shard.id, finding.number, finding.key))
            if finding.state == QUARANTINED:
                index.quarantine(finding)
    for _, shard_id, run in sorted(ended, key=lambda one: (one[0], one[1], one[2].id)):
        if run.state == RUNNING:
            index.answered(run, shard_id)
        else:
            index.ended_at(run, shard_id)
    index.findings.extend((time_ms, shard_id, key) for time_ms, shard_id, _, key in sorted(findings))
    if books.rules.reconciliation_intervals_ms or findings or ended:
        index.look_ms = 0


Apply = Callable[[Any, Any, Any, int], None]
APPLY_RECONCILIATION: dict[type[Any], Apply] = {
    ReconciliationRequested: _requested,
    ReconciliationAlerted: _alerted,
    ReconciliationBegun: _begun,
    ReconciliationEnded: _ended,
    ReconciliationForgotten: _forgotten,
    FindingMade: _finding_made,
    FindingResolved: _finding_resolved,
    FindingForgotten: _finding_forgotten,
}
