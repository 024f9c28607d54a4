"""Recovery: a shard's state from its journal: the newest usable snapshot plus the records after it, or all records.

A snapshot is taken in slices while the shard goes on, so its entities stand at different sequences. An early event is applied
only to entities of slices older than it; sums over several entities are made when the highest sequence is reached, and from
there on every event is applied whole and asserted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from sys import intern
from typing import Any, NamedTuple

from actors.domain.apply import apply_event, rebuild_indices, rebuild_sums
from actors.domain.events import EVENT_KINDS
from actors.domain.rules import Rules
from actors.domain.state import Books, ShardState
from actors.journal.codec import decode_groups
from actors.journal.port import Journal, JournalDamaged, ShardHead, Snapshot
from actors.shard.change_recovery import find_last_changes
from actors.shard.encoding import (
    Tag,
    decode_claims,
    decode_entry,
    decode_exception,
    decode_reservation,
    decode_shard,
    decode_stock,
    unpack,
)
from actors.shard.encoding_consumers import decode_consumer
from actors.shard.encoding_errands import decode_inbound, decode_outbound
from actors.shard.encoding_feeds import decode_deferred, decode_feed
from actors.shard.encoding_operations import decode_operation
from actors.shard.encoding_reconciliation import decode_finding, decode_reconciliation
from actors.shard.engine import Engine, TurnResult
from actors.shard.stored_types import TAG_OF_KIND, UNREADABLE, check_entity, check_event

log = logging.getLogger(__name__)

RECORDS_PER_READ = 1_000
CREATING_KINDS = frozenset(
    (10, 20, 30, 40, 50, 60, 61, 63, 67, 80, 90, 92, 95, 100, 101, 110, 121)
)  # that may make their entity
SHARED_KINDS = frozenset((20, 30))  # of millions that are kept

Progress = Callable[[int, int, int], None]  # shards done, shards in all, events applied


class Recovered(NamedTuple):
    """``ownership`` must be durable before anything is served."""

    engine: Engine
    ownership: TurnResult
    events: int


def recover(
    journal: Journal, shards: Sequence[int], rules: Rules, now_ms: int, progress: Progress | None = None
) -> Recovered:
    """Take the shards over: bump their epochs, only then read their tails. Raises ``JournalDamaged`` and says where."""
    header = journal.header
    heads = journal.take_over(shards)
    engine = Engine(header.cluster_id, header.timeline, header.shard_count, rules, now_ms)
    events = 0
    for done, shard_id in enumerate(shards):
        events += load_shard(journal, engine.books, shard_id)
        check_reached(engine.books.shards[shard_id], heads[shard_id])
        if progress is not None:
            progress(done + 1, len(shards), events)
    find_last_changes(journal, engine.books)
    rebuild_indices(engine.books)
    return Recovered(engine, engine.own(heads, now_ms), events)


def check_reached(shard: ShardState, head: ShardHead) -> None:
    """Raises ``JournalDamaged`` unless the records led to where the head says that they end."""
    if (shard.record_number, shard.sequence) != (head.record_number, head.sequence):
        raise JournalDamaged(
            f"shard {shard.id} ends at record {shard.record_number}, sequence {shard.sequence}; "
            f"its head says record {head.record_number}, sequence {head.sequence}"
        )


def load_shard(journal: Journal, books: Books, shard_id: int, *, use_snapshots: bool = True) -> int:
    """Load one shard into the books; how many events were applied. Call ``rebuild_indices`` after the last one."""
    shard = books.shards[shard_id] = ShardState(shard_id)
    for snapshot in journal.snapshots(shard_id) if use_snapshots else ():
        try:
            placed = _load_slices(journal, books, shard, snapshot)
        except JournalDamaged as damage:
            log.warning(
                "snapshot %d of shard %d is not usable, taking an older one: %s", snapshot.snapshot_id, shard_id, damage
            )
            _forget(books, shard)
            shard = books.shards[shard_id] = ShardState(shard_id)
            continue
        return _replay(journal, books, shard, snapshot, placed)
    if journal.first_number(shard_id) > 1:
        raise JournalDamaged(f"shard {shard_id}: its first records are gone and no snapshot of it is usable")
    return _replay(journal, books, shard, None, {})


def _forget(books: Books, shard: ShardState) -> None:
    for key in shard.stock:
        books.stock.pop(key, None)
    for reservation_id in shard.reservations:
        books.reservations.pop(reservation_id, None)


def _load_slices(journal: Journal, books: Books, shard: ShardState, snapshot: Snapshot) -> dict[tuple[int, Any], int]:
    """Load a snapshot; the sequence at which each entity stands, ended ones included."""
    placed: dict[tuple[int, Any], int] = {}
    ids: dict[str, str] = {}
    for part in journal.read_slices(snapshot):
        try:
            for tag, key, fields in unpack(part.payload):
                identity = (tag, tuple(key) if isinstance(key, list) else key)
                placed[identity] = part.sequence
                if fields is not None:
                    check_entity(tag, fields)
                    _share_entity(shard, tag, fields, ids)
                    _place(books, shard, tag, fields)
        except UNREADABLE as fault:
            where = f"shard {shard.id}: slice {part.slice_number} of snapshot {snapshot.snapshot_id}"
            raise JournalDamaged(f"{where} cannot be understood: {fault!r}") from fault
    shard.sequence = snapshot.lowest_sequence
    shard.record_number = snapshot.lowest_record_number
    reservations = sorted(shard.reservations.values(), key=lambda reservation: reservation.number)
    shard.reservations = {reservation.id: reservation for reservation in reservations}
    return placed


def _share_entity(shard: ShardState, tag: int, fields: list[Any], ids: dict[str, str]) -> None:
    """Texts that several entities hold are one object, as they were where the entities were made."""
    if tag == Tag.CLAIMS:
        fields[1] = ids.setdefault(fields[1], fields[1])
    elif tag == Tag.RESERVATION:
        fields[0] = ids.setdefault(fields[0], fields[0])
        fields[11] = _share_lines(shard, fields[11])


def _share_lines(shard: ShardState, lines: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """A reservation's lines with the stock actors' own names."""
    stock, shared = shard.stock, []
    for line_id, key, requested, granted in lines:
        actor = stock.get(key)
        shared.append((line_id, key if actor is None else actor.key, requested, granted))
    return shared


def _share_event(shard: ShardState, kind: int, fields: list[Any]) -> None:
    """The same for the events of an order."""
    if kind == 20:  # noqa: PLR2004  ClaimGranted
        fields[9] = intern(fields[9])
    elif kind == 30:  # noqa: PLR2004  ReservationOpened
        fields[2] = intern(fields[2])
        fields[7] = lines = _share_lines(shard, fields[7])
        actor = shard.stock.get(lines[0][1]) if lines else None
        first = actor.claims.get(fields[0]) if actor is not None else None
        if first is not None:
            fields[0] = first.reservation_id


def _place(books: Books, shard: ShardState, tag: int, fields: Any) -> None:
    if tag == Tag.SHARD:
        decode_shard(shard, fields)
    elif tag == Tag.STOCK:
        actor = decode_stock(shard, fields)
        shard.stock[actor.key] = books.stock[actor.key] = actor
    elif tag == Tag.CLAIMS:
        first = decode_claims(fields)
        shard.stock[fields[0]].put_claim(first)
    elif tag == Tag.RESERVATION:
        reservation = decode_reservation(fields)
        shard.reservations[reservation.id] = books.reservations[reservation.id] = reservation
    elif tag == Tag.ENTRY:
        entry = decode_entry(fields)
        shard.entries[entry.key] = entry
    elif tag == Tag.EXCEPTION:
        exception = decode_exception(fields)
        shard.exceptions[exception.id] = exception
    elif tag == Tag.FEED:
        feed = decode_feed(fields)
        shard.feeds[feed.key] = feed
    elif tag == Tag.DEFERRED:
        waiting = decode_deferred(fields)
        shard.deferred[waiting.event_key] = waiting
    elif tag == Tag.CONSUMER:
        consumer = decode_consumer(fields)
        shard.consumers[consumer.id] = consumer
    elif tag == Tag.RECONCILIATION:
        run = decode_reconciliation(fields)
        shard.reconciliations[run.id] = run
    elif tag == Tag.FINDING:
        finding = decode_finding(fields)
        shard.findings[finding.key] = finding
    elif tag == Tag.OUTBOUND:
        shard.outbound[fields[0]] = decode_outbound(fields)
    elif tag == Tag.INBOUND:
        shard.inbound[fields[0]] = decode_inbound(fields)
    elif tag == Tag.OPERATION:
        operation = decode_operation(fields)
        shard.operations[operation.id] = operation
    else:
        raise JournalDamaged(f"shard {shard.id}: a snapshot holds an entity of unknown tag {tag}")


def _replay(
    journal: Journal, books: Books, shard: ShardState, snapshot: Snapshot | None, placed: dict[tuple[int, Any], int]
) -> int:
    highest = snapshot.highest_sequence if snapshot is not None else 0
    shard.strict = shard.sequence >= highest
    if snapshot is not None and shard.strict:
        _make_whole(shard)
    applied = replay(journal, books, shard, placed, highest)
    if not shard.strict:
        raise JournalDamaged(f"shard {shard.id}: its records end before its snapshot's highest sequence {highest}")
    return applied


def replay(
    journal: Journal,
    books: Books,
    shard: ShardState,
    placed: dict[tuple[int, Any], int] | None = None,
    highest: int = 0,
    on_event: Callable[[Any], None] | None = None,
) -> int:
    """Apply every record that follows where the shard stands; how many events. ``placed`` and ``highest``: of a sliced snapshot
    that it still catches up with. ``on_event`` is told of each event before it is applied."""
    placed = {} if placed is None else placed
    applied = 0
    while records := journal.read(shard.id, shard.record_number, RECORDS_PER_READ):
        for record in records:
            if record.number != shard.record_number + 1 or record.first_sequence != shard.sequence + 1:
                raise JournalDamaged(
                    f"shard {shard.id}: record {record.number} with first sequence {record.first_sequence} follows "
                    f"record {shard.record_number} with last sequence {shard.sequence}"
                )
            try:
                for _, events in decode_groups(record.payload):
                    for kind, *fields in events:
                        check_event(kind, fields)
                        if kind in SHARED_KINDS:
                            _share_event(shard, kind, fields)
                        event = EVENT_KINDS[kind](*fields)
                        if on_event is not None:
                            on_event(event)
                        if shard.strict:
                            apply_event(books, shard, event, record.time_ms)
                        else:
                            _apply_part(books, shard, kind, event, record.time_ms, placed)
                            if shard.sequence == highest:
                                _make_whole(shard)
                        applied += 1
            except UNREADABLE as fault:
                where = f"shard {shard.id}: record {record.number}"
                raise JournalDamaged(
                    f"{where} cannot be replayed after sequence {shard.sequence}: {fault!r}"
                ) from fault
            if shard.sequence != record.first_sequence + record.event_count - 1:
                raise JournalDamaged(f"shard {shard.id}: record {record.number} does not hold the events it counts")
            shard.record_number = record.number
            shard.time_ms = record.time_ms
    return applied


def _apply_part(
    books: Books, shard: ShardState, kind: int, event: Any, time_ms: int, placed: dict[tuple[int, Any], int]
) -> None:
    """Apply an early event unless its entity's slice already saw it, or the entity was gone by then."""
    sequence = shard.sequence + 1
    tag = TAG_OF_KIND[kind]
    identity = (tag, (event[0], event[1]) if tag == Tag.CLAIMS else (event[0] if tag else ""))
    stands_at = placed.get(identity)
    if stands_at is None:
        wanted = kind in CREATING_KINDS
        placed[identity] = sequence if wanted else 0
    else:
        wanted = sequence > stands_at > 0
    if not wanted:
        if kind == 30:  # noqa: PLR2004  ReservationOpened: the number it took stays taken
            shard.next_reservation_number = max(shard.next_reservation_number, event[1] + 1)
        elif kind == 110:  # noqa: PLR2004  OperationBegun
            number = int(event.reservation_id.rpartition("-")[2])
            shard.next_reservation_number = max(shard.next_reservation_number, number + 1)
        elif kind == 50:  # noqa: PLR2004  ExceptionOpened
            shard.next_exception_number = max(shard.next_exception_number, event[1] + 1)
        shard.sequence = sequence
        return
    apply_event(books, shard, event, time_ms)


def _make_whole(shard: ShardState) -> None:
    """Every entity stands at the same sequence now: make the sums, and assert from here on."""
    for actor in shard.stock.values():
        rebuild_sums(actor)
    for exception in shard.exceptions.values():
        if exception.fields[0] == 1 and exception.state == 1 and exception.fields[1] in shard.stock:
            shard.stock[exception.fields[1]].shortage_exception_id = exception.id
    shard.strict = True
