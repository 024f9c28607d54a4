"""The life of a reconciliation: begun, gone on with, ended; and the questions about it. Its lines: ``comparing``.

A run lives in the shard that its id names: ``rc-<hash of the request id>-<shard>-1`` when somebody began it,
``rq-<timeline>-<shard>-<number>`` when the service asked for it. Begun again by the same request it goes on; nothing of it
needs an entry of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from actors.domain.answers import Page, Reply, error, ok
from actors.domain.commands import Verb
from actors.domain.comparing import reconcile_lines
from actors.domain.events import ExceptionHealed
from actors.domain.keys import split_stock_key
from actors.domain.outcomes import ErrorReason, ExceptionState
from actors.domain.quantities import available_to_sell
from actors.domain.reading import paged
from actors.domain.reconciliation_commands import (
    BeginReconciliation,
    FinishReconciliation,
    GetReconciliation,
    Header,
    ListComparable,
    ListFindings,
    ListReconciliations,
)
from actors.domain.reconciliation_events import ReconciliationBegun, ReconciliationEnded
from actors.domain.reconciliation_state import Counts, Finding, Reconciliation
from actors.domain.reconciliation_views import ComparableView, finding_view, reconciliation_view
from actors.domain.reconciliation_words import ReconciliationKind, ReconciliationState
from actors.domain.state import ShardState, StockActor
from actors.domain.turn import Turn

RECONCILIATIONS_PER_SHARD_MAX = 1_000  # in memory: runs of a week
KEYS_LOOKED_AT_MAX = 1_000  # stock actors for one page of what could have been listed: a millisecond
OVERLOADED_RETRY_MS = 60_000
CLOCKS_APART_MS_MAX = 60_000  # a list made "in the future" would swallow facts that come yet

REQUESTED = int(ReconciliationState.REQUESTED)
RUNNING = int(ReconciliationState.RUNNING)
DONE = int(ReconciliationState.DONE)
STOCK = int(ReconciliationKind.STOCK)
OPEN_ORDERS = int(ReconciliationKind.OPEN_ORDERS)
OPEN = int(ExceptionState.OPEN)


def begin_reconciliation(turn: Turn, shard: ShardState, command: BeginReconciliation) -> Reply:
    """Begin it, or go on with it. OK payload: ``ReconciliationView``; DONE when it was ended before."""
    run = shard.reconciliations.get(command.reconciliation_id)
    if run is None and command.reconciliation_id.startswith("rq-"):
        return _not_found(command.reconciliation_id)
    if run is not None and run.request_id:
        refusal = _not_the_same(run, command)
        if refusal is not None:
            return refusal
        if run.state in (RUNNING, DONE):
            return ok(reconciliation_view(run), True)
    elif run is not None and run.warehouse_id != command.warehouse_id:
        return error(ErrorReason.INVALID_FIELD, f"warehouse_id: it was asked for of warehouse {run.warehouse_id!r}")
    if Header(*command.header).as_of_time_ms > turn.now_ms + CLOCKS_APART_MS_MAX:
        return error(ErrorReason.INVALID_FIELD, "header.as_of_time: lies in the future")
    if run is None and len(shard.reconciliations) >= RECONCILIATIONS_PER_SHARD_MAX:
        return error(ErrorReason.OVERLOADED, "too many reconciliations within a week", OVERLOADED_RETRY_MS)
    event = ReconciliationBegun(
        command.reconciliation_id,
        command.request_id,
        command.digest,
        command.warehouse_id,
        command.kind,
        command.header,
    )
    turn.emit(shard, event)
    return ok(reconciliation_view(shard.reconciliations[command.reconciliation_id]))


def _not_the_same(run: Reconciliation, command: BeginReconciliation) -> Reply | None:
    if run.request_id != command.request_id:
        return error(ErrorReason.INVALID_FIELD, "reconciliation_id: another request answers it already")
    if run.digest != command.digest:
        reused = f"request_id {command.request_id!r} was already used for another reconciliation"
        return error(ErrorReason.REQUEST_ID_REUSED, reused)
    return None


def finish_reconciliation(turn: Turn, shard: ShardState, command: FinishReconciliation) -> Reply:
    """End it. Ended already: as it ended then. OK payload: ``ReconciliationView``."""
    run = shard.reconciliations.get(command.reconciliation_id)
    if run is None or run.request_id != command.request_id:
        return _not_found(command.reconciliation_id)
    if run.state != RUNNING:
        return ok(reconciliation_view(run), True)
    if len(command.counts) > len(Counts._fields) or not Counts(*command.counts).sound:
        return error(ErrorReason.INVALID_FIELD, "counts: the lines are not the sum of what became of them")
    if command.state == DONE:
        _heal(turn, shard, run)
    turn.emit(shard, ReconciliationEnded(run.id, command.state, command.counts, command.note))
    if command.state == DONE and run.kind == STOCK:
        _answer_request(turn, run)
    return ok(reconciliation_view(run))


def _heal(turn: Turn, shard: ShardState, run: Reconciliation) -> None:
    exception = shard.exceptions.get(run.exception_id)
    if exception is not None and exception.state == OPEN:
        turn.emit(shard, ExceptionHealed(exception.id))


def _answer_request(turn: Turn, run: Reconciliation) -> None:
    """A count of the warehouse that began after the service asked for one answers it, though it did not name it."""
    books = turn.books
    shard_id, requested_id = books.reconciliations.requested.get(run.warehouse_id, (-1, ""))
    if shard_id not in books.shards:
        return
    shard = books.shards[shard_id]
    asked = shard.reconciliations[requested_id]
    if run.begin_time_ms < asked.request_time_ms:
        return
    begun = ReconciliationBegun(asked.id, run.request_id, run.digest, run.warehouse_id, run.kind, run.header)
    turn.emit(shard, begun)
    _heal(turn, shard, asked)
    turn.emit(shard, ReconciliationEnded(asked.id, DONE, run.counts, f"answered by {run.id}"))


def get_reconciliation(_turn: Turn, shard: ShardState, command: GetReconciliation) -> Reply:
    """One now. OK payload: ``ReconciliationView``."""
    run = shard.reconciliations.get(command.reconciliation_id)
    return _not_found(command.reconciliation_id) if run is None else ok(reconciliation_view(run))


def _not_found(reconciliation_id: str) -> Reply:
    return error(ErrorReason.RECONCILIATION_NOT_FOUND, f"no reconciliation {reconciliation_id!r}")


def list_reconciliations(turn: Turn, command: ListReconciliations) -> Reply:
    """Runs by shard and id. OK payload: ``Page`` of ``ReconciliationView``."""

    def within(shard: ShardState, after: str) -> Iterator[tuple[str, Reconciliation | None]]:
        for reconciliation_id in sorted(shard.reconciliations):
            if reconciliation_id > after:
                run = shard.reconciliations[reconciliation_id]
                yield reconciliation_id, run if wanted(run) else None

    def wanted(run: Reconciliation) -> bool:
        if command.warehouse_id and run.warehouse_id != command.warehouse_id:
            return False
        return not command.states or run.state in command.states

    found, token = paged(turn, command.page_token, command.page_size, within)
    return ok(Page([reconciliation_view(run) for run in found], token))


def list_findings(turn: Turn, command: ListFindings) -> Reply:
    """Findings of one run by shard, in the order they were made. OK payload: ``Page`` of ``FindingView``."""

    def within(shard: ShardState, after: str) -> Iterator[tuple[str, Finding | None]]:
        number = int(after) if after.isascii() and after.isdigit() else 0
        for finding in shard.findings.values():
            if finding.number > number:
                yield str(finding.number), finding if wanted(finding) else None

    def wanted(finding: Finding) -> bool:
        if finding.reconciliation_id != command.reconciliation_id:
            return False
        return not command.kinds or finding.kind in command.kinds

    found, token = paged(turn, command.page_token, command.page_size, within)
    return ok(Page([finding_view(finding) for finding in found], token))


def list_comparable(turn: Turn, shard: ShardState, command: ListComparable) -> Reply:
    """What a line could have been about. OK payload: ``ComparableView``.

    Pages go by the order in which stock keys were made: they are never removed, so a place holds. The orders of one stock key
    come together, however many.
    """
    turn.reads.add(shard.id)
    rows: list[tuple[object, ...]] = []
    place = command.place
    for key in islice(shard.stock, place, place + KEYS_LOOKED_AT_MAX):
        place += 1
        if split_stock_key(key).warehouse_id == command.warehouse_id:
            rows += _comparable(shard.stock[key], command.kind)
        if len(rows) >= command.limit:
            break
    return ok(ComparableView(rows, place if place < len(shard.stock) else 0))


def _comparable(actor: StockActor, kind: int) -> list[tuple[object, ...]]:
    if kind == STOCK:
        dispositions = [1] if actor.sellable else []
        dispositions += sorted(actor.on_hand or ())
        return [(actor.key, dispositions)] if dispositions else []
    if kind == OPEN_ORDERS:
        orders = {
            (first.channel_id, first.order_reference): None
            for first in actor.claims.values()
            if first.confirmed and first.order_reference and any(claim.open for claim in first.chain())
        }
        return [(actor.key, channel_id, order) for channel_id, order in orders]
    return [(actor.key,)] if available_to_sell(actor) else []


RECONCILIATION_HANDLERS: dict[int, Callable[[Turn, ShardState, Any], Reply]] = {
    Verb.BEGIN_RECONCILIATION: begin_reconciliation,
    Verb.RECONCILE_LINES: reconcile_lines,
    Verb.FINISH_RECONCILIATION: finish_reconciliation,
    Verb.GET_RECONCILIATION: get_reconciliation,
    Verb.LIST_COMPARABLE: list_comparable,
}
RECONCILIATION_LISTS: dict[int, Callable[[Turn, Any], Reply]] = {
    Verb.LIST_RECONCILIATIONS: list_reconciliations,
    Verb.LIST_FINDINGS: list_findings,
}
