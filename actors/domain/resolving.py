"""Resolving exceptions: retry, correct and retry, discard, acknowledge; each with who and why, once by its request id.

An event that was rejected is kept with its exception. Retry decides it again under its own event id, as the person's word:
what only looked suspicious (its age, its sender, an id or a place used twice, a wait that was too long) is set aside; what
contradicts the books or the settings is looked at again. What a kind means and may be answered with is
``actors.domain.exception_kinds``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from actors.domain.answers import Reply, ResolutionView, error, ok
from actors.domain.commands import Cause, GetException, Ingest, ResolveException
from actors.domain.drifts import accept_count, discard_count
from actors.domain.events import EntrySpent
from actors.domain.exception_events import ExceptionHandled, ExceptionResolved, FeedCorrected
from actors.domain.exception_kinds import EVENT_KINDS, kind_name, meaning_of
from actors.domain.exception_state import StockException
from actors.domain.feed_watch import close_gap
from actors.domain.feeds import entry_answer, warehouse_counted
from actors.domain.fulfilling import booked_before
from actors.domain.identity import ANSWER_RESOLUTION, event_key, feed_key, operator_key
from actors.domain.outcomes import (
    ErrorReason,
    ExceptionKind,
    ExceptionState,
    Fact,
    IngestOutcome,
    RejectReason,
    ResolveAction,
)
from actors.domain.state import ShardState
from actors.domain.transfers import dispatched, may_go_to
from actors.domain.turn import Turn
from actors.domain.views import exception_view
from actors.domain.warehouse import Decided, cannot_be_understood, decide, rejected, shipment_of

OPEN = int(ExceptionState.OPEN)
REJECTED = int(IngestOutcome.REJECTED)
RETRY, CORRECT, DISCARD, ACKNOWLEDGE = map(int, ResolveAction)
APART_RETRY_MS = 1_000
NOTHING_DECIDED = Decided(0, (), 0, "", 0)


def get_exception(turn: Turn, shard: ShardState, command: GetException) -> Reply:
    """One exception now. OK payload: ``ExceptionView``."""
    exception = shard.exceptions.get(command.exception_id)
    return _unknown(command.exception_id) if exception is None else ok(exception_view(turn.books.rules, exception))


def resolve_exception(turn: Turn, shard: ShardState, command: ResolveException) -> Reply:
    """Somebody does something about an exception. OK payload: ``ResolutionView``."""
    key = operator_key(command.request_id, command.exception_id)
    exception = shard.exceptions.get(command.exception_id)
    entry = turn.entry(shard, key)
    if entry is not None and entry.digest != command.digest:
        detail = f"request_id {command.request_id!r} was already used for other content"
        return error(ErrorReason.REQUEST_ID_REUSED, detail)
    if exception is None:
        return _unknown(command.exception_id)
    if entry is not None:
        return ok(ResolutionView(exception_view(turn.books.rules, exception), *entry.answer[1:]), True)
    if exception.state != OPEN:
        detail = (
            f"exception {exception.id!r} is not open any more: it is {ExceptionState(exception.state).name.lower()}"
        )
        return error(ErrorReason.EXCEPTION_ENDED, detail)
    problem = _not_allowed(turn, exception, command)
    if problem:
        return error(ErrorReason.INVALID_FIELD, problem)
    if _is_decided_elsewhere(turn, exception, command):
        detail = "the event's stock key or its feed is on another host: it cannot be decided again while they are apart"
        return error(ErrorReason.SHARD_UNAVAILABLE, detail, APART_RETRY_MS)
    return _resolve(turn, shard, exception, command, key)


def _is_decided_elsewhere(turn: Turn, exception: StockException, command: ResolveException) -> bool:
    """Whether an event's two shards are not both here: then nothing may be begun."""
    if command.action not in (RETRY, CORRECT) or exception.fields[0] not in EVENT_KINDS:
        return False
    event, books = Ingest(*(command.corrected or exception.payload)), turn.books
    return books.feed_shard(event.source_id) is None or books.shard_of(event.stock_key) not in books.shards


def _resolve(turn: Turn, shard: ShardState, exception: StockException, command: ResolveException, key: str) -> Reply:
    resolver, note, action = command.resolver or turn.cause.principal, command.note, command.action
    effect = EFFECTS.get((exception.fields[0], action))
    decided = NOTHING_DECIDED
    if effect is not None:
        problem = effect(turn, shard, exception)
        if problem:
            return error(ErrorReason.INVALID_FIELD, f"action: {problem}")
    elif action in (RETRY, CORRECT):
        decided = _decide_again(turn, exception, command)
    if action == ACKNOWLEDGE or decided.outcome == REJECTED:
        turn.emit(shard, ExceptionHandled(exception.id, action, resolver, note, decided.reject_reason))
    else:
        turn.emit(shard, ExceptionResolved(exception.id, action, resolver, note))
    outcome, place, short, opened, reason, booked, gate_reasons = decided
    kept = (outcome, place or turn.position(shard), short, opened, reason, booked, gate_reasons)
    turn.emit(shard, EntrySpent(key, command.digest, (ANSWER_RESOLUTION, *kept)))
    return ok(ResolutionView(exception_view(turn.books.rules, exception), *kept))


def _not_allowed(turn: Turn, exception: StockException, command: ResolveException) -> str:
    """What is wrong with this action for this exception, as ``field: description``; empty: nothing."""
    kind, reject_reason, action = exception.fields[0], exception.fields[7], command.action
    if action != ACKNOWLEDGE and action not in meaning_of(turn.books.rules, kind, reject_reason).actions:
        return f"action: {kind_name(kind)} cannot be answered with it; it ends by itself or with another action"
    if action in (RETRY, CORRECT) and kind in EVENT_KINDS and not exception.payload:
        return "action: the event was not kept: its source must send it again, or it is discarded"
    if bool(command.corrected) != (action == CORRECT):
        return "corrected_event: is required with CORRECT_AND_RETRY, and with nothing else"
    if action == CORRECT:
        before, after = Ingest(*exception.payload), Ingest(*command.corrected)
        for name in ("source_id", "stream_id", "event_id", "source_sequence"):
            if getattr(after, name) != getattr(before, name):
                return f"corrected_event.{name}: must stay {getattr(before, name)!r}: it is the same event"
    return ""


# --- an event decided again --------------------------------------------------------------------------------------------------


class _Told(NamedTuple):
    """The event as it was sent, and as it is decided now."""

    before: Ingest
    now: Ingest


def _decide_again(turn: Turn, exception: StockException, command: ResolveException) -> Decided:
    before = Ingest(*exception.payload)
    told = _Told(before, Ingest(*command.corrected) if command.corrected else before)
    ours, emitted = turn.cause, turn.emitted
    turn.begin(
        Cause(
            ours.verb, "", before.event_id, ours.principal, ours.correlation_id, ours.traceparent,
            before.source_id, before.stream_id, before.source_sequence, told.now.occur_time_ms,
        )
    )  # fmt: skip
    decided = _decide(turn, told)
    if decided.outcome != REJECTED:
        _take_as_received(turn, exception, before, decided)
    emitted += turn.emitted
    turn.begin(ours)
    turn.emitted = emitted
    return decided


def _decide(turn: Turn, told: _Told) -> Decided:
    reason = still_rejected(turn, told.now)
    if reason is not None:
        return rejected(reason)
    books = turn.books
    actor = books.stock.get(told.now.stock_key)
    there = actor.shard if actor is not None else books.shards.get(books.shard_of(told.now.stock_key))
    if there is None:
        return rejected(RejectReason.UNKNOWN_STOCK_KEY)
    if told.now.fact == Fact.SHIPMENT and actor is not None:
        shipment = shipment_of(told.now)
        if booked_before(turn, actor, shipment) not in (None, shipment.quantity):
            return rejected(RejectReason.SHIPMENT_MISMATCH)  # its exception is the one at hand
    return decide(turn, there, actor, told.now)


def still_rejected(turn: Turn, command: Ingest) -> RejectReason | None:
    """Why an event is rejected although somebody wants it booked; None: it is not."""
    reason = RejectReason(command.reject_reason) if command.reject_reason else None
    if reason == RejectReason.UNKNOWN_WAREHOUSE:
        declared = turn.books.rules.warehouses
        if declared and command.stock_key.split("\x1f")[1] not in declared:
            return reason
    elif reason is not None and reason != RejectReason.SOURCE_NOT_ALLOWED:
        return reason
    return cannot_be_understood(turn, command._replace(reject_reason=0, occur_time_ms=turn.now_ms))


def _take_as_received(turn: Turn, exception: StockException, event: Ingest, decided: Decided) -> None:
    """A repeat of the event is a duplicate from now on, and its feed counts it as what it became."""
    books = turn.books
    key = event_key(event.source_id, event.event_id)
    if exception.fields[7] == RejectReason.EVENT_ID_REUSED:
        key = f"{key}\x1f{event.digest.hex()}"
    stream = feed_key(event.source_id, event.stream_id)
    shard = next((one for one in books.shards.values() if stream in one.feeds), None)
    assert shard is not None, "an event came by a feed"
    turn.emit(shard, EntrySpent(key, event.digest, entry_answer(*decided)))
    turn.emit(shard, FeedCorrected(stream, warehouse_counted(event), decided.outcome))


# --- what other kinds do -----------------------------------------------------------------------------------------------------

Effect = Callable[[Turn, ShardState, StockException], str]


def _lose_missing(turn: Turn, shard: ShardState, exception: StockException) -> str:
    """A gap is given up: what is missing is declared lost, and the feed goes on."""
    close_gap(turn, shard, exception.id)
    return ""


def _dispatch_again(turn: Turn, _shard: ShardState, exception: StockException) -> str:
    """The stock key that a transfer goes to is known by now: it is in transit there."""
    command = Ingest(*exception.payload) if exception.payload else None
    if command is None or command.fact != Fact.TRANSFER_DISPATCH:
        return "the transfer was not kept: discard it"
    to_warehouse_id = command.details[3]
    if not may_go_to(turn, command.stock_key, to_warehouse_id):
        return f"warehouse {to_warehouse_id!r} is still not declared, or the SKU not registered there"
    dispatched(turn, turn.books.stock[command.stock_key], command)
    return ""


# (kind, action) → what it does beside ending the exception; it emits nothing when it says why it cannot.
EFFECTS: dict[tuple[int, int], Effect] = {
    (int(ExceptionKind.FEED_GAP), DISCARD): _lose_missing,
    (int(ExceptionKind.TRANSFER_KEY_UNKNOWN), RETRY): _dispatch_again,
    (int(ExceptionKind.RECONCILIATION_DRIFT), RETRY): accept_count,
    (int(ExceptionKind.RECONCILIATION_DRIFT), DISCARD): discard_count,
}


def _unknown(exception_id: str) -> Reply:
    return error(ErrorReason.EXCEPTION_NOT_FOUND, f"no exception {exception_id!r}: it never was, or it ended long ago")
