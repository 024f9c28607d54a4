"""What must be true of a history once it is over, whatever struck it; each broken promise is a sentence.

The journal is judged by ``actors.journal.verify`` (whole, and as compaction left it), the state by replaying it in three ways,
the answers against the journal: an acknowledged command is there, once, where its answer said, and an id got one answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from actors.domain.answers import ERROR, OK, REFUSED
from actors.domain.apply import rebuild_indices
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason, ReservationState
from actors.domain.rules import Rules
from actors.domain.state import Books
from actors.journal.memory import MemoryJournal, MemoryStore
from actors.journal.verify import verify
from actors.shard.encoding import canonical_state
from actors.shard.placement import shard_of
from actors.shard.recovery import load_shard
from tests.simulation.cluster import Cluster
from tests.simulation.trace import Attempt, Recording

HELD = int(ReservationState.HELD)
DUE_SLACK_MS = 2_000
POSITION_AT = {
    int(Verb.RESERVE): 5, int(Verb.INGEST): 2, int(Verb.GET_AVAILABILITY): 1, int(Verb.GET_STOCK): 13,
    int(Verb.REGISTER_STOCK): 13, int(Verb.SET_STOCK_POLICY): 13, int(Verb.SET_SELLING): 13,
} | dict.fromkeys(
    map(int, (Verb.CONFIRM, Verb.RELEASE, Verb.EXTEND, Verb.AMEND, Verb.FULFILL, Verb.GET_RESERVATION)), 12
)  # fmt: skip
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
        yield from _replayed(cluster, whole)
        yield from _due(cluster)
    yield from _answers(recording, whole)


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


def position_of(attempt: Attempt) -> Any:
    """[shard, epoch, sequence, time] of an answer, or None."""
    reply = attempt.reply
    if reply is None or reply[0] == ERROR:
        return None
    if reply[0] == REFUSED:
        return reply[2][4]
    at = POSITION_AT.get(attempt.item[0])
    return None if at is None else reply[2][at]


def _answers(recording: Recording, whole: MemoryStore) -> Iterator[str]:
    firsts: dict[tuple[Any, ...], Any] = {}
    epochs = {shard: _epochs(rows) for shard, rows in whole.records.items()}
    for attempt in recording.attempts:
        reply, item = attempt.reply, attempt.item
        if reply is not None and reply[0] == ERROR and reply[1] == ErrorReason.INTERNAL:
            yield f"{attempt.client} was told of a fault inside: {reply} for {item}"
        position = position_of(attempt)
        if position is None:
            continue
        shard, epoch, sequence, _ = position
        if sequence > whole.heads[shard].sequence:
            yield f"{attempt.client} was answered from sequence {sequence} of shard {shard}, which was lost: {item}"
        elif sequence and not any(first <= sequence and epoch == at for first, at in epochs[shard]):
            yield f"{attempt.client} was answered from epoch {epoch} of shard {shard}, which wrote nothing: {item}"
        if item[0] in FIRST_AGAIN and reply is not None and reply[0] == OK:
            body = item[5]
            scope = body[2] if item[0] == Verb.RESERVE else body[2] or (body[3], body[4])
            first = firsts.setdefault((item[0], scope, body[0], body[1]), tuple(position))
            if first != tuple(position):
                yield f"request id {body[0]!r} was answered from {first} and from {tuple(position)}"


def _epochs(rows: list[Any]) -> list[tuple[int, int]]:
    """(first sequence, epoch) of each epoch's first record."""
    starts = [(rows[0][0].first_sequence, rows[0][0].epoch)] if rows else []
    starts += [
        (after.first_sequence, after.epoch) for (before, _), (after, _) in pairwise(rows) if before.epoch != after.epoch
    ]
    return starts
