"""``verify``: reads a whole journal and judges it by rules of its own, apart from the code that wrote it.

It says whether anything was granted without cover, any unit ended twice or came from nowhere, any id was spent twice,
any record is missing, damaged or out of order; and names shard, record, sequence and key each time. It uses the
journal's port and the codec, and none of the domain's deciding or applying code: event kinds and fields are known from
the format alone.

A journal whose first records were dropped is judged from its oldest usable snapshot on. A journal that is being written
is judged up to where it stood when verifying began.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.journal.codec import decode_groups
from actors.journal.port import Journal, JournalDamaged, Record, ShardHead, Snapshot
from actors.journal.verify_ledger import Ledger
from actors.journal.verify_report import VerifyReport, Violation, Where
from actors.journal.verify_shard import LIVE, ShardWalk
from actors.journal.verify_snapshot import Entity, compare, entities_of, load

__all__ = ["DAY_MS", "Progress", "VerifyReport", "Violation", "verify"]

DAY_MS = 24 * 3600 * 1000
RECORDS_PER_READ = 1_000

Progress = Callable[[int, int, int], None]  # shards done, shards in all, events judged


def verify(journal: Journal, progress: Progress | None = None, *, dedupe_window_ms: int = DAY_MS) -> VerifyReport:
    """Judge all shards. Reads every record once; what is wrong in the journal does not raise, it is in the report.

    ``dedupe_window_ms``: the cluster's setting; within it no id may be spent twice. Raises ``JournalError`` only when
    the journal cannot be read at all.
    """
    started = time.monotonic()
    heads = journal.info().heads
    report = VerifyReport(journal.header.cluster_id, journal.header.timeline, shards=len(heads))
    ledger = Ledger(report, dedupe_window_ms)
    walks: list[ShardWalk] = []
    for head in heads:
        walk = ShardWalk(head.shard, report, ledger)
        walks.append(walk)
        _walk_shard(journal, walk, head, report)
        if progress is not None:
            progress(len(walks), len(heads), report.events)
    ledger.settle(max((walk.strict_from_ms for walk in walks), default=0))
    _compare_homes(walks, report)
    _sum_up(walks, report)
    report.tell_the_first()
    report.seconds = time.monotonic() - started
    return report


def _walk_shard(journal: Journal, walk: ShardWalk, head: ShardHead, report: VerifyReport) -> None:
    """Walk one shard up to its head."""
    snapshots = _usable(journal, walk, report)
    first = journal.first_number(walk.shard)
    if first > 1:
        begin = next((found for found in reversed(snapshots) if found[0].lowest_record_number >= first - 1), None)
        if begin is None:
            walk.missing(1, f"records 1 to {first - 1} are gone, and no usable snapshot covers them")
        else:
            report.from_snapshot_shards += 1
            snapshot = begin[0]
            load(walk, journal.read_slices(snapshot))
            lowest = (snapshot.lowest_sequence, snapshot.lowest_record_number)
            walk.begin_from_snapshot(lowest, snapshot.highest_sequence, snapshot.time_ms)
    pending = [moment for _, slices in snapshots for moment in slices if moment[0] > walk.sequence]
    pending.sort(key=lambda moment: moment[0], reverse=True)
    while walk.number < head.record_number:
        records = _read(journal, walk, head)
        for record in records:
            _walk_record(walk, record)
            while pending and pending[-1][0] <= walk.sequence:
                sequence, entities = pending.pop()
                if walk.strict and sequence == walk.sequence:
                    compare(walk, entities, report)
    if walk.trusted and (walk.sequence, walk.number) != (head.sequence, head.record_number):
        text = f"ends at sequence {walk.sequence}; its head says record {head.record_number}, sequence {head.sequence}"
        report.add("head", Where(walk.shard, walk.number, 0, walk.time_ms), "", text)
    if walk.trusted and walk.epoch > head.epoch:
        text = f"ends in epoch {walk.epoch}; its head says {head.epoch}"
        report.add("head", Where(walk.shard, walk.number, 0, walk.time_ms), "", text)


Moment = tuple[int, list[Entity]]  # a slice: the sequence it was taken at, and what it holds


def _usable(journal: Journal, walk: ShardWalk, report: VerifyReport) -> list[tuple[Snapshot, list[Moment]]]:
    """The shard's snapshots that can be read, newest first, with their slices; the others are violations."""
    usable = []
    for snapshot in journal.snapshots(walk.shard):
        try:
            slices = [(part.sequence, entities_of(part)) for part in journal.read_slices(snapshot)]
        except JournalDamaged as damage:
            report.add("snapshot", Where(walk.shard, snapshot.lowest_record_number, 0, 0), "", str(damage))
            continue
        usable.append((snapshot, slices))
    return usable


def _read(journal: Journal, walk: ShardWalk, head: ShardHead) -> list[Record]:
    """The next records; a damaged one is named and stepped over."""
    limit = min(RECORDS_PER_READ, head.record_number - walk.number)
    try:
        records = journal.read(walk.shard, walk.number, limit)
    except JournalDamaged:
        records = []
        try:
            while len(records) < limit:
                number = records[-1].number if records else walk.number
                records += journal.read(walk.shard, number, 1)
        except JournalDamaged as damage:
            if not records:
                walk.missing(walk.number + 1, str(damage))
                walk.number += 1
        return records
    if not records:
        walk.missing(walk.number + 1, f"records {walk.number + 1} to {head.record_number} are missing at the end")
        walk.number = head.record_number
    return [record for record in records if record.number <= head.record_number]


def _walk_record(walk: ShardWalk, record: Record) -> None:
    try:
        groups = decode_groups(record.payload)
        shaped = all(isinstance(group, list) and len(group) == 2 and isinstance(group[1], list) for group in groups)
        if not shaped:
            raise ValueError("its groups are not [cause, events]")
    except ValueError as error:
        walk.missing(record.number, f"record {record.number} cannot be understood: {error}")
        groups = []
    walk.record(record, groups)


def _compare_homes(walks: list[ShardWalk], report: VerifyReport) -> None:
    """At the end a live reservation has, line by line, what its claims have, and no open claim is without a home."""
    if not all(walk.trusted for walk in walks):
        return
    stocks = {key: (walk, stock) for walk in walks for key, stock in walk.stock.stock.items()}
    open_units: dict[str, int] = {}
    held_at: dict[str, str] = {}
    for key, (_, stock) in stocks.items():
        for reservation_id, claims in stock.claims.items():
            if claims.open:
                open_units[reservation_id] = open_units.get(reservation_id, 0) + claims.open
                held_at[reservation_id] = key
    for walk in walks:
        where = Where(walk.shard, walk.number, 0, walk.time_ms)
        for reservation_id, reservation in walk.reservations.items():
            units = open_units.pop(reservation_id, 0)
            live = reservation.state in LIVE
            expected = reservation.open if live else 0
            if units != expected:
                text = f"{expected} units are open by its home and {units} by its claims"
                report.add("units match", where, reservation_id, text)
            for line_id, key, _, granted in reservation.lines if live else ():
                claims_there = stocks[key][1].claims.get(reservation_id) if key in stocks else None
                line = claims_there.lines.get(line_id) if claims_there is not None else None
                if (line.granted if line is not None else 0) != granted:
                    text = f"line {line_id!r} has {granted} units by its home and others by its claim"
                    report.add("units match", where, reservation_id, text)
    for reservation_id, units in open_units.items():
        key = held_at[reservation_id]
        walk = stocks[key][0]
        where = Where(walk.shard, walk.number, 0, walk.time_ms)
        report.add("units match", where, key, f"{units} units are claimed by {reservation_id}, which no home knows")


def _sum_up(walks: list[ShardWalk], report: VerifyReport) -> None:
    stocks = [stock for walk in walks for stock in walk.stock.stock.values()]
    for stock in stocks:
        for disposition, units in stock.on_hand.items():
            report.on_hand[disposition] = report.on_hand.get(disposition, 0) + units
    report.stock_keys = len(stocks)
    report.reservations_live = sum(one.state in LIVE for walk in walks for one in walk.reservations.values())
    report.units_open = sum(stock.open_units for stock in stocks)
    report.units_short = sum(stock.shortage for stock in stocks)
