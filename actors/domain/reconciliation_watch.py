"""Reconciliations that the service asks for: by schedule and when a feed was broken; alerted when nobody answers; forgotten at last.

``request`` is for whoever finds a reason; ``watch`` runs with every turn and costs one comparison while nothing is due.
"""

from __future__ import annotations

from actors.domain.alarms import raise_alarm
from actors.domain.commands import Cause
from actors.domain.keys import stock_key
from actors.domain.lifecycle import CAUSE_RETIRE
from actors.domain.outcomes import ExceptionKind
from actors.domain.reconciliation_events import (
    FindingForgotten,
    ReconciliationAlerted,
    ReconciliationEnded,
    ReconciliationForgotten,
    ReconciliationRequested,
)
from actors.domain.reconciliation_state import FAR_MS, Reconciliation
from actors.domain.reconciliation_words import FindingState, ReconciliationState, RequestReason
from actors.domain.state import ShardState
from actors.domain.turn import Turn

FORGOTTEN_PER_TURN_MAX = 500
REASONS = {
    RequestReason.SCHEDULE: "the schedule says so",
    RequestReason.FEED_STALE: "its feed fell silent",
    RequestReason.FEED_GAP: "events of its feed are missing",
}


def request(turn: Turn, warehouse_id: str, reason: RequestReason, source_id: str = "", stream_id: str = "") -> str:
    """Ask for a reconciliation of a warehouse, unless one is asked for already; its id, empty when its shard is not here."""
    books = turn.books
    asked = books.reconciliations.requested.get(warehouse_id)
    if asked is not None:
        return asked[1]
    shard = books.shards.get(books.shard_of(stock_key(warehouse_id, "")))
    if shard is None:
        return ""
    reconciliation_id = f"rq-{shard.timeline}-{shard.id}-{shard.sequence + 1}"
    turn.emit(shard, ReconciliationRequested(reconciliation_id, warehouse_id, int(reason), source_id, stream_id))
    return reconciliation_id


def watch(turn: Turn) -> None:
    """Ask by schedule, alert about what nobody answered, forget what is old. Call it with every turn."""
    index = turn.books.reconciliations
    if turn.now_ms < index.look_ms:
        return
    turn.begin(Cause(CAUSE_RETIRE, "", ""))
    next_ms = min(_schedule(turn), _alert(turn), _forget(turn))
    index.look_ms = max(next_ms, turn.now_ms + 1)


def _schedule(turn: Turn) -> int:
    """Ask where the last one is too long ago; when to look again."""
    books = turn.books
    next_ms = FAR_MS
    for warehouse_id, interval_ms in books.rules.reconciliation_intervals_ms.items():
        if warehouse_id in books.reconciliations.requested:
            continue
        due_ms = books.reconciliations.done_ms.get(warehouse_id, 0) + interval_ms
        if due_ms > turn.now_ms:
            next_ms = min(next_ms, due_ms)
        elif _runs(turn, warehouse_id):  # perhaps for ever: its sender may be dead
            next_ms = min(next_ms, turn.now_ms + books.rules.reconciliation_answer_ms_max)
        else:
            request(turn, warehouse_id, RequestReason.SCHEDULE)
    return next_ms


def _runs(turn: Turn, warehouse_id: str) -> bool:
    """Whether one of that warehouse began lately and goes on."""
    return any(
        run.state == ReconciliationState.RUNNING
        and run.warehouse_id == warehouse_id
        and turn.now_ms - run.begin_time_ms < turn.books.rules.reconciliation_answer_ms_max
        for shard in turn.books.shards.values()
        for run in shard.reconciliations.values()
    )


def _alert(turn: Turn) -> int:
    """Raise an exception about each that nobody answered in time; when the next one is due."""
    books = turn.books
    next_ms = FAR_MS
    for shard_id, reconciliation_id in list(books.reconciliations.requested.values()):
        shard = books.shards[shard_id]
        run = shard.reconciliations[reconciliation_id]
        due_ms = run.request_time_ms + books.rules.reconciliation_answer_ms_max
        if run.exception_id:
            continue
        if due_ms > turn.now_ms:
            next_ms = min(next_ms, due_ms)
        else:
            turn.emit(shard, ReconciliationAlerted(reconciliation_id, _raise(turn, shard, run)))
    return next_ms


def _raise(turn: Turn, shard: ShardState, run: Reconciliation) -> str:
    feed = f" {run.source_id}/{run.stream_id}".rstrip("/") if run.source_id else ""
    message = (
        f"warehouse {run.warehouse_id!r} should be reconciled because {REASONS[RequestReason(run.reason)]}{feed}, and nobody "
        f"has begun: send a count of it as reconciliation {run.id}"
    )
    key = stock_key(run.warehouse_id, "")
    return raise_alarm(turn, shard, ExceptionKind.RECONCILIATION_REQUESTED, key, message, 0, [])


def _forget(turn: Turn) -> int:
    """Let old runs and findings go, a bounded number a turn; when to look again. The last run of a warehouse stays."""
    books, index = turn.books, turn.books.reconciliations
    before_ms = turn.now_ms - books.rules.reconciliation_memory_ms
    for _ in range(min(FORGOTTEN_PER_TURN_MAX, len(index.findings))):
        time_ms, shard_id, key = index.findings[0]
        if time_ms > before_ms:
            break
        index.findings.popleft()
        shard = books.shards[shard_id]
        finding = shard.findings.get(key)
        if finding is None:
            continue
        if finding.state == FindingState.QUARANTINED:  # until somebody decides
            index.findings.append((turn.now_ms, shard_id, key))
        else:
            turn.emit(shard, FindingForgotten(key))
    for _ in range(min(FORGOTTEN_PER_TURN_MAX, len(index.ended))):
        time_ms, shard_id, reconciliation_id = index.ended[0]
        if time_ms > before_ms:
            break
        index.ended.popleft()
        shard = books.shards[shard_id]
        run = shard.reconciliations.get(reconciliation_id)
        if run is not None and run.state == ReconciliationState.RUNNING and run.begin_time_ms == time_ms:
            ended = ReconciliationEnded(run.id, int(ReconciliationState.FAILED), (), "its sender never came back")
            turn.emit(shard, ended)
            continue
        if run is None or run.end_time_ms != time_ms or run.state == ReconciliationState.RUNNING:  # begun again since
            continue
        if time_ms == index.done_ms.get(run.warehouse_id):
            index.ended.append((turn.now_ms, shard_id, reconciliation_id))
        else:
            turn.emit(shard, ReconciliationForgotten(reconciliation_id))
    oldest = [queue[0][0] + books.rules.reconciliation_memory_ms for queue in (index.findings, index.ended) if queue]
    return min(oldest, default=FAR_MS)
