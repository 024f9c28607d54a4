"""What must be true of a history once it is over, whatever struck it; each broken promise is a sentence.

Every answer is judged by the independent model (``checker``), the journal by ``actors.journal.verify`` (whole, and as
compaction left it), the state by replaying it in three ways, and the answers against the journal once more without the
model: an acknowledged command is where its answer said, and an id got one answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from actors.domain.answers import ERROR, OK
from actors.domain.apply import rebuild_indices
from actors.domain.commands import Verb
from actors.domain.outcomes import Door, ErrorReason, ReservationState
from actors.domain.rules import Rules
from actors.domain.state import Books
from actors.journal.memory import MemoryJournal, MemoryStore
from actors.journal.verify import verify
from actors.shard.encoding import canonical_state
from actors.shard.placement import shard_of
from actors.shard.recovery import load_shard
from tests.simulation.checker import check
from tests.simulation.cluster import Cluster
from tests.simulation.history import NOT_DONE, REFUSED, UNKNOWN, History, JournalFacts, Operation
from tests.simulation.journal_facts import journal_facts
from tests.simulation.linearize import unexplained
from tests.simulation.model_state import Settings
from tests.simulation.trace import Recording
from tests.simulation.witness import id_of, position_of, spent_by

HELD = int(ReservationState.HELD)
DUE_SLACK_MS = 2_000
SEARCHED_MAX = 20  # operations of one search for an order
FIRST_AGAIN = frozenset(map(int, (Verb.RESERVE, Verb.CONFIRM, Verb.RELEASE, Verb.EXTEND, Verb.AMEND, Verb.FULFILL)))


def judge(cluster: Cluster, recording: Recording) -> Iterator[str]:
    """Every broken promise."""
    yield from (f"an invariant broke: {bug}" for bug in cluster.bugs)
    yield from (f"nobody caught: {failure}" for failure in cluster.loop.failures)
    whole = cluster.disk.whole()
    for name, store in (("the whole journal", whole), ("the compacted journal", cluster.disk.store)):
        report = verify(MemoryJournal(store))
        yield from (f"{name}: {violation}" for violation in report.violations)
    if cluster.current.host.state == "serving":
        try:
            yield from _replayed(cluster, whole)
        except Exception as failed:  # whatever a journal that is no history may raise
            yield f"the journal cannot be replayed: {failed!r}"
        yield from _due(cluster)
    facts = journal_facts(MemoryJournal(whole))
    history = History(recording.operations() + cluster.witness.lost_answers(recording, facts), facts)
    settings = settings_of(cluster.plan.rules)
    yield from map(str, check(history, settings))
    yield from map(str, unexplained(with_copies(recording, facts), settings, SEARCHED_MAX))
    yield from _answers(recording, whole)
    yield from _denied(cluster, recording, facts)


def with_copies(recording: Recording, facts: JournalFacts) -> list[Operation]:
    """The operations, and a copy of each whose answer tells of one: told the first time that anybody asked that it had been
    done before, or refused and then done. A frame was doubled, or sent again by the gateway, and one copy's answer was lost.
    (That a late copy of a refused hold may be granted is known: what it holds lapses by itself.)"""
    done = {
        effect.identity[2] for effect in facts.effects if effect.identity[:1] == ("request",) and not effect.refused
    }
    operations = []
    asked: set[tuple[int, str, str, bytes]] = set()
    for attempt in recording.attempts:
        operation = attempt.operation
        if operation is None:
            continue
        request = (attempt.item[0], _scope_of(attempt.item), id_of(attempt.item), operation.digest)
        before = operation.replayed and request not in asked
        later = operation.status == REFUSED and not operation.replayed and request[2] in done
        if before or later:
            operations.append(
                replace(operation, returned=math.inf, status=UNKNOWN, replayed=False, answer={}, positions={})
            )
        if not operation.replayed and operation.status != NOT_DONE:
            asked.add(request)
        operations.append(operation)
    return operations


def _scope_of(item: Sequence[Any]) -> str:
    """Within what an id is one: a source's events, a channel's reserves, a reservation's verbs."""
    body = item[5]
    if len(body) <= 2:  # a question: it has no id
        return ""
    return str(body[0] if item[0] == Verb.INGEST else body[2])


def settings_of(rules: Rules) -> Settings:
    """The same settings in the independent model's words."""
    return Settings(
        catalog_open=rules.catalog_open,
        order_management_ships=frozenset(one for one, door in rules.doors.items() if door == Door.ORDER_MANAGEMENT),
        lifetime_ms_max=rules.lifetime_ms_max,
        dedupe_window_ms=rules.dedupe_window_ms,
        takeover_grace_ms=rules.takeover_grace_ms,
        deferral_ms_max=rules.deferral_ms_max,
        history_ms=rules.history_ms,
        not_selling=frozenset(rules.warehouses_not_selling),
        quality_hold_suppliers=frozenset(rules.quality_hold_suppliers),
    )


def _replayed(cluster: Cluster, whole: MemoryStore) -> Iterator[str]:
    host = cluster.current.host
    live = host.engine.books
    from_snapshots = replay(cluster.disk.store, cluster.plan.rules, use_snapshots=True)
    from_start = replay(whole, cluster.plan.rules, use_snapshots=False)
    for shard in range(cluster.plan.shards):
        expected = canonical_state(live, shard)
        if canonical_state(from_start, shard) != expected:
            yield f"shard {shard}: a full replay is not the live state"
        if canonical_state(from_snapshots, shard) != expected:
            yield f"shard {shard}: snapshot and tail are not the live state"


def _due(cluster: Cluster) -> Iterator[str]:
    """Nobody had to ask for what is held to be given back at its deadline."""
    engine = cluster.current.host.engine
    latest_ms = engine.now_ms - cluster.plan.rules.takeover_grace_ms - DUE_SLACK_MS
    for reservation in engine.books.reservations.values():
        if reservation.state == HELD and reservation.expire_time_ms < latest_ms:
            yield f"{reservation.id} is held, and was due {engine.now_ms - reservation.expire_time_ms} ms ago"


def replay(store: MemoryStore, rules: Rules, *, use_snapshots: bool) -> Books:
    """State from a journal alone."""
    count = store.header.shard_count
    books = Books(rules, lambda key: shard_of(key, count))
    for shard in range(count):
        load_shard(MemoryJournal(store), books, shard, use_snapshots=use_snapshots)
    rebuild_indices(books)
    return books


def _answers(recording: Recording, whole: MemoryStore) -> Iterator[str]:
    firsts: dict[tuple[Any, ...], Any] = {}
    epochs = {shard: _epochs(rows) for shard, rows in whole.records.items()}
    for attempt in recording.attempts:
        reply, item = attempt.reply, attempt.item
        if reply is not None and reply[0] == ERROR and reply[1] == ErrorReason.INTERNAL:
            yield f"{attempt.client} was told of a fault inside: {reply} for {item}"
        position = position_of(item[0], reply)
        if position is None:
            continue
        shard, epoch, sequence, _ = position
        first, last = epochs[shard].get(epoch, (1, 0))
        if not first - 1 <= sequence <= last:
            seen = f"sequence {sequence} of shard {shard} in epoch {epoch}"
            yield f"{attempt.client} was answered from {seen}, which holds {first} to {last}: {item}"
        if item[0] in FIRST_AGAIN and reply is not None and reply[0] == OK:
            body = item[5]
            scope = body[2] if item[0] == Verb.RESERVE else body[2] or (body[3], body[4])
            told = firsts.setdefault((item[0], scope, body[0], body[1]), tuple(position))
            if told != tuple(position):
                yield f"request id {body[0]!r} was answered from {told} and from {tuple(position)}"


def _denied(cluster: Cluster, recording: Recording, facts: JournalFacts) -> Iterator[str]:
    """What everybody who had asked for it was told had not been done, was not done."""
    asked: dict[str, list[Operation]] = {}
    for attempt in recording.attempts:
        if attempt.operation is not None:
            asked.setdefault(id_of(attempt.item), []).append(attempt.operation)
    for effect in facts.effects:
        if effect.kind != "command":
            continue
        done_s = cluster.disk.appended_s(effect.home, effect.spans[effect.home].last)
        spent = spent_by(effect)
        before = [one for one in asked.get(spent, ()) if one.digest == effect.digest and one.invoked <= done_s]
        if before and all(one.status == NOT_DONE for one in before):
            yield f"it was done, and who asked was told that it was not: {before[0].about}"


def _epochs(rows: list[Any]) -> dict[int, tuple[int, int]]:
    """First and last sequence by epoch."""
    spans: dict[int, tuple[int, int]] = {}
    for record, _ in rows:
        first = spans[record.epoch][0] if record.epoch in spans else record.first_sequence
        spans[record.epoch] = (first, record.first_sequence + record.event_count - 1)
    return spans
