"""``verify``: reads a whole journal and judges it by rules of its own, apart from the code that wrote it.

It says whether anything was granted without cover, any unit ended twice or came from nowhere, any id was spent twice,
any record is missing, damaged or out of order; and names shard, record, sequence and key each time. It uses the
journal's port and the codec, and none of the domain's deciding or applying code: event kinds and fields are known from
the format alone.

A journal whose first records were dropped is judged from its oldest usable snapshot on. A journal that is being written
is judged up to where it stood when verifying began.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.journal.codec import decode_groups
from actors.journal.port import Journal, JournalDamaged, Record, ShardHead, Snapshot
from actors.journal.verify_ledger import Ledger
from actors.journal.verify_report import Counts, Findings, VerifyReport, Violation, Where
from actors.journal.verify_shard import LIVE, ShardWalk
from actors.journal.verify_snapshot import Entity, compare, entities_of, load

__all__ = ["VerifyReport", "Violation", "verify"]

DAY_MS = 24 * 3600 * 1000
VIOLATIONS_KEPT_MAX = 100
RECORDS_PER_READ = 1_000

Progress = Callable[[int, int, int], None]  # shards done, shards in all, events judged


def verify(
    journal: Journal,
    *,
    progress: Progress | None = None,
    dedupe_window_ms: int = DAY_MS,
    violations_max: int = VIOLATIONS_KEPT_MAX,
) -> VerifyReport:
    """Judge a journal. Blocks; reads every record once. Finding something is no error: the report says it.

    ``dedupe_window_ms``: the cluster's setting; within it no id may be spent twice. At most ``violations_max``
    violations are listed, all are counted. Raises ``JournalError`` only when the journal cannot be read at all.
    """
    findings = Findings(violations_max)
    counts = Counts()
    ledger = Ledger(findings, dedupe_window_ms)
    heads = journal.info().heads
    walks: list[ShardWalk] = []
    from_snapshot = 0
    for head in heads:
        walk = ShardWalk(head.shard, findings, counts, ledger)
        walks.append(walk)
        from_snapshot += _walk_shard(journal, walk, head, findings)
        if progress is not None:
            progress(len(walks), len(heads), counts.events)
    whole_from_ms = max((walk.strict_from_ms for walk in walks), default=0)
    ledger.settle(whole_from_ms)
    _compare_homes(walks, findings)
    if from_snapshot:
        findings.notes.append(f"{from_snapshot} shards were judged from a snapshot on; counts begin there")
    return _report(journal, walks, findings, counts, from_snapshot)


def _walk_shard(journal: Journal, walk: ShardWalk, head: ShardHead, findings: Findings) -> int:
    """Walk one shard up to its head; 1 when it began from a snapshot."""
    snapshots = _usable(journal, walk, findings)
    first = journal.first_number(walk.shard)
    begun = 0
    if first > 1:
        begin = next((found for found in reversed(snapshots) if found[0].lowest_record_number >= first - 1), None)
        if begin is None:
            walk.missing(1, f"records 1 to {first - 1} are gone, and no usable snapshot covers them")
        else:
            begun = 1
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
                    compare(walk, entities, findings)
    if walk.trusted and (walk.sequence, walk.number) != (head.sequence, head.record_number):
        text = f"ends at sequence {walk.sequence}; its head says record {head.record_number}, sequence {head.sequence}"
        findings.add("head", Where(walk.shard, walk.number, 0, walk.time_ms), "", text)
    if walk.trusted and walk.epoch > head.epoch:
        text = f"ends in epoch {walk.epoch}; its head says {head.epoch}"
        findings.add("head", Where(walk.shard, walk.number, 0, walk.time_ms), "", text)
    return begun


Moment = tuple[int, list[Entity]]  # a slice: the sequence it was taken at, and what it holds


def _usable(journal: Journal, walk: ShardWalk, findings: Findings) -> list[tuple[Snapshot, list[Moment]]]:
    """The shard's snapshots that can be read, newest first, with their slices; the others are violations."""
    usable = []
    for snapshot in journal.snapshots(walk.shard):
        try:
            slices = [(part.sequence, entities_of(part)) for part in journal.read_slices(snapshot)]
        except JournalDamaged as damage:
            findings.add("snapshot", Where(walk.shard, snapshot.lowest_record_number, 0, 0), "", str(damage))
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


def _compare_homes(walks: list[ShardWalk], findings: Findings) -> None:
    """At the end every live reservation has open what its claims have open, and no open claim is without one."""
    if not all(walk.trusted for walk in walks):
        return
    open_units: dict[str, int] = {}
    shown: dict[str, tuple[ShardWalk, str]] = {}
    for walk in walks:
        for key, stock in walk.stock.stock.items():
            for reservation_id, claims in stock.claims.items():
                if claims.open:
                    open_units[reservation_id] = open_units.get(reservation_id, 0) + claims.open
                    shown[reservation_id] = (walk, key)
    for walk in walks:
        for reservation_id, reservation in walk.reservations.items():
            units = open_units.pop(reservation_id, 0)
            expected = reservation.open if reservation.state in LIVE else 0
            if units != expected:
                where = Where(walk.shard, walk.number, 0, walk.time_ms)
                text = f"{expected} units are open by its home and {units} by its claims"
                findings.add("units match", where, reservation_id, text)
    for reservation_id, units in open_units.items():
        walk, key = shown[reservation_id]
        where = Where(walk.shard, walk.number, 0, walk.time_ms)
        findings.add("units match", where, key, f"{units} units are claimed by {reservation_id}, which no home knows")


def _report(
    journal: Journal, walks: list[ShardWalk], findings: Findings, counts: Counts, from_snapshot: int
) -> VerifyReport:
    stocks = [stock for walk in walks for stock in walk.stock.stock.values()]
    on_hand: dict[int, int] = {}
    for stock in stocks:
        for disposition, units in stock.on_hand.items():
            on_hand[disposition] = on_hand.get(disposition, 0) + units
    return VerifyReport(
        ok=findings.count == 0,
        cluster_id=journal.header.cluster_id,
        timeline=journal.header.timeline,
        shard_count=journal.header.shard_count,
        shards_from_snapshot=from_snapshot,
        counts=counts,
        stock_keys=len(stocks),
        live_reservations=sum(one.state in LIVE for walk in walks for one in walk.reservations.values()),
        units_open=sum(stock.open_units for stock in stocks),
        units_short=sum(stock.shortage for stock in stocks),
        on_hand=dict(sorted(on_hand.items())),
        violation_count=findings.count,
        violations=tuple(findings.kept),
        notes=tuple(findings.notes),
    )
