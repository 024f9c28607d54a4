"""One round of ``verify``: walks shards from their first records, or a snapshot, to their heads. Runs in any process.

It reads through ``Source``, the part of the journal's port that it needs; what it finds is a report and a ledger, which
can be merged with those of other shards.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from actors.journal.codec import decode_groups_as_tuples
from actors.journal.port import JournalDamaged, Record, ShardHead, Snapshot, SnapshotSlice
from actors.journal.verify_home import LIVE
from actors.journal.verify_ledger import SUM_MASK, Ledger, violation_at
from actors.journal.verify_report import VerifyReport, Violation, Where
from actors.journal.verify_shard import ShardWalk
from actors.journal.verify_snapshot import check, compare, load
from actors.journal.verify_state import SELLABLE, Stock

RECORDS_PER_READ_MAX = 500
BYTES_PER_READ = 4 * 1024 * 1024  # about; a record may have up to 64 MiB, so they are counted in their last size


class Source(Protocol):
    """What a round reads of a journal, as the port has it."""

    def first_number(self, shard: int) -> int: ...

    def snapshots(self, shard: int) -> list[Snapshot]: ...

    def read_slices(self, snapshot: Snapshot) -> list[SnapshotSlice]: ...

    def read(self, shard: int, after_number: int, limit: int) -> list[Record]: ...


def judge_shards(
    source: Source, heads: Iterator[ShardHead], report: VerifyReport, ledger: Ledger, whole_from_ms: int
) -> None:
    """Walk shards up to their heads, one after the other. ``whole_from_ms``: after it all shards are judged wholly, so
    that what concerns several can be balanced.
    """
    started = time.process_time()
    with garbage_collector_off():
        for head in heads:
            shard_report = VerifyReport()  # its first violations are kept, so that those of all shards are among them
            walk = ShardWalk(head.shard, shard_report, ledger, whole_from_ms)
            _walk_shard(source, walk, head)
            _sum_up(walk)
            walk.end()
            report.merge(shard_report)
            ledger.ids_bounded()
    report.cpu_seconds += time.process_time() - started


@contextlib.contextmanager
def garbage_collector_off() -> Iterator[None]:
    """A walk makes millions of tuples and no cycles: looking for some would cost a third of its time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def whole_from(source: Source, head: ShardHead) -> int:
    """Time after which a shard can be judged wholly: 0 from its first record on, else when a snapshot was complete."""
    first = source.first_number(head.shard)
    if first == 1:
        return 0
    begin = _begin(source.snapshots(head.shard), first)
    if begin is None or begin.lowest_sequence >= begin.highest_sequence:
        return begin.time_ms if begin is not None else 0
    number = begin.lowest_record_number
    with contextlib.suppress(JournalDamaged):  # the walk says so and is not trusted, then nothing is balanced
        while records := source.read(head.shard, number, RECORDS_PER_READ_MAX):
            for record in records:
                if record.first_sequence + record.event_count > begin.highest_sequence:
                    return record.time_ms
            number = records[-1].number
    return head.time_ms


def _begin(snapshots: list[Snapshot], first: int) -> Snapshot | None:
    """The oldest snapshot that covers what is gone."""
    return next((one for one in reversed(snapshots) if one.lowest_record_number >= first - 1), None)


def _walk_shard(source: Source, walk: ShardWalk, head: ShardHead) -> None:
    first = source.first_number(walk.shard)
    snapshots = _usable(source, walk, first)
    if first > 1:
        begin = _begin(list(snapshots), first)
        if begin is None:
            walk.missing(1, f"records 1 to {first - 1} are gone, and no usable snapshot covers them")
        else:
            walk.report.from_snapshot_shards += 1
            load(walk, snapshots[begin])
            walk.begin_from_snapshot((begin.lowest_sequence, begin.lowest_record_number), begin.highest_sequence)
    pending = [part for parts in snapshots.values() for part in parts if part.sequence > walk.sequence]
    pending.sort(key=lambda part: part.sequence, reverse=True)
    for record in _records(source, walk, head):
        _walk_record(walk, record)
        while pending and pending[-1].sequence <= walk.sequence:
            part = pending.pop()
            if walk.strict and part.sequence == walk.sequence:
                _compare(walk, part)
    if walk.trusted:
        _judge_head(walk, head)


def _compare(walk: ShardWalk, part: SnapshotSlice) -> None:
    try:
        compare(walk, part)
    except JournalDamaged as damage:
        where = Where(walk.shard, part.record_number, 0, walk.time_ms)
        walk.report.add(violation_at(where, "snapshot", "", str(damage)))


def _judge_head(walk: ShardWalk, head: ShardHead) -> None:
    where = Where(walk.shard, walk.number, 0, walk.time_ms)
    if (walk.sequence, walk.number) != (head.sequence, head.record_number):
        expected = f"record {head.record_number}, sequence {head.sequence}"
        text = f"ends at sequence {walk.sequence}; its head says {expected}"
        found = f"record {walk.number}, sequence {walk.sequence}"
        walk.report.add(violation_at(where, "head", "", text, expected=expected, found=found))
    if walk.epoch > head.epoch:
        text = f"ends in epoch {walk.epoch}; its head says {head.epoch}"
        walk.report.add(
            violation_at(where, "head", "", text, expected=f"epoch {head.epoch}", found=f"epoch {walk.epoch}")
        )


def _usable(source: Source, walk: ShardWalk, first: int) -> dict[Snapshot, list[SnapshotSlice]]:
    """The shard's snapshots that can be read, newest first, with their slices as bytes; the others are violations. That
    they can be understood is found when they are compared, but for those the walk may begin from.
    """
    usable = {}
    for snapshot in source.snapshots(walk.shard):
        try:
            parts = source.read_slices(snapshot)
            if first > 1:
                check(parts)
        except JournalDamaged as damage:
            where = Where(walk.shard, snapshot.lowest_record_number, 0, 0)
            walk.report.add(violation_at(where, "snapshot", "", str(damage)))
            continue
        usable[snapshot] = parts
    return usable


def _records(source: Source, walk: ShardWalk, head: ShardHead) -> Iterator[Record]:
    """The records up to the head; a damaged one is named and stepped over."""
    limit = 100
    while walk.number < head.record_number:
        wanted = min(limit, head.record_number - walk.number)
        try:
            records = source.read(walk.shard, walk.number, wanted)
        except JournalDamaged:
            records = _up_to_the_damage(source, walk, wanted)
            if not records:
                continue
        records = [record for record in records if record.number <= head.record_number]
        if not records:  # also when there are some, but all of them behind the head
            walk.missing(walk.number + 1, f"records {walk.number + 1} to {head.record_number} are missing at the end")
            walk.number = head.record_number
        yield from records
        size = sum(len(record.payload) for record in records) + 1
        limit = max(1, min(RECORDS_PER_READ_MAX, BYTES_PER_READ * len(records) // size))


def _up_to_the_damage(source: Source, walk: ShardWalk, limit: int) -> list[Record]:
    """Records one by one until the damaged one; when that is the next, it is named and stepped over."""
    records: list[Record] = []
    try:
        while len(records) < limit:
            number = records[-1].number if records else walk.number
            records += source.read(walk.shard, number, 1)
    except JournalDamaged as damage:
        if not records:
            walk.missing(walk.number + 1, str(damage))
            walk.number += 1
    return records


def _walk_record(walk: ShardWalk, record: Record) -> None:
    try:
        groups = decode_groups_as_tuples(record.payload)
    except ValueError as error:
        walk.missing(record.number, f"record {record.number} cannot be understood: {error}")
        groups = ()
    walk.record(record, groups)


def _sum_up(walk: ShardWalk) -> None:
    """At the end of a shard: its counts, and what must hold between homes and claims of all shards at the end."""
    report = walk.report
    report.facts += walk.facts
    report.claims_granted += walk.claims_granted
    report.units_granted, report.units_fulfilled, report.units_released, report.units_expired = walk.units
    report.stock_keys = len(walk.stocks)
    walk.sum_up_errands()
    walk.sum_up_operations()
    for key, stock in walk.stocks.items():
        for disposition, units in ((SELLABLE, stock.sellable), *stock.others.items()):
            report.on_hand[disposition] = report.on_hand.get(disposition, 0) + units
        report.units_open += stock.open_units
        report.units_short += stock.shortage
        if walk.trusted:
            _sum_up_claims(walk, key, stock)
    for reservation_id, reservation in walk.reservations.items():
        live = reservation.state in LIVE
        report.reservations_live += live
        if walk.trusted and live:
            _sum_up_home(walk, reservation_id, reservation.open, reservation.lines)
        elif hash((reservation_id,)) & SUM_MASK in walk.suspects.opens:
            walk.ledger.open_of(reservation_id).home_at = walk.where()


def _sum_up_claims(walk: ShardWalk, key: str, stock: Stock) -> None:
    ledger = walk.ledger
    for reservation_id, first in stock.claims.items():
        elsewhere = reservation_id not in walk.reservations
        units = 0
        for claim in first.lines():
            units += claim.open
            if elsewhere:
                ledger.claim_lines.append(hash((reservation_id, key, claim.line_id, claim.granted)))
                if claim.granted:
                    ledger.claim_lines_of_something.append(hash((reservation_id, key, claim.line_id)))
        if units:
            mark = hash((reservation_id,))
            ledger.opens[mark & SUM_MASK] += mark * units
            if mark & SUM_MASK in ledger.suspects.opens:
                told = ledger.open_of(reservation_id)
                told.by_claims += units
                if told.claim_at is None or (walk.shard, key) > (told.claim_at.shard, told.key):
                    told.key, told.claim_at = key, walk.where()


def _sum_up_home(walk: ShardWalk, reservation_id: str, units: int, lines: Sequence[Any]) -> None:
    ledger = walk.ledger
    mark = hash((reservation_id,))
    ledger.opens[mark & SUM_MASK] -= mark * units
    if mark & SUM_MASK in ledger.suspects.opens:
        told = ledger.open_of(reservation_id)
        told.by_home, told.home_at = units, walk.where()
    for line_id, key, _, granted in lines:
        stock = walk.stocks.get(key)
        if stock is not None:
            first = stock.claims.get(reservation_id)
            claim = first.line(line_id) if first is not None else None
            if (claim.granted if claim is not None else 0) != granted:
                walk.report.add(_line_fault(walk, reservation_id, line_id, granted))
        elif granted:
            mark = hash((reservation_id, key, line_id, granted))
            ledger.home_lines.append(mark)
            if mark in ledger.suspects.lines:
                ledger.line_faults.append(_line_fault(walk, reservation_id, line_id, granted))
        else:
            mark = hash((reservation_id, key, line_id))
            ledger.home_lines_of_nothing.append(mark)
            if mark in ledger.suspects.lines:
                ledger.line_faults.append(_line_fault(walk, reservation_id, line_id, granted))


def _line_fault(walk: ShardWalk, reservation_id: str, line_id: str, granted: int) -> Violation:
    text = f"line {line_id!r} has {granted} units by its home and others by its claim"
    return violation_at(walk.where(), "units match", reservation_id, text, expected=f"{granted} by its claim")
