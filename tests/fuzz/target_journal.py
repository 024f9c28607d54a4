"""What is stored: whole journals with spoiled records, slices, entry rows and heads, checksums made right again.

An input is ``[heads, records, slices, snapshots, entries]``, each a list of rows as the port has them. Recovery says
``JournalError`` and where, or gives a state that can be encoded, read and stepped; ``verify`` always gives a report. Amounts
that do not agree, with right checksums, may end the host by its invariants later: then ``verify`` has found them.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from actors.domain.commands import Verb
from actors.journal.codec import decode_groups, entry_checksum, record_checksum, slice_checksum, snapshot_checksum
from actors.journal.memory import MemoryJournal, MemoryStore, memory_store
from actors.journal.port import EntryRow, JournalDamaged, JournalError, Record, ShardHead, Snapshot, SnapshotSlice
from actors.journal.verify import verify
from actors.shard.encoding import canonical_state, read_entry_row, read_reservation_row
from actors.shard.placement import PLACEMENT_VERSION
from actors.shard.recovery import recover
from tests.fuzz import nasty, requests
from tests.fuzz.registry import Random, target
from tests.fuzz.service import CLUSTER, RULES, SHARDS, TIMELINE, Service
from tests.fuzz.target_rpc import OFTEN, first_stock

HEADS, RECORDS, SLICES, SNAPSHOTS, ENTRIES = range(5)
ROWS: tuple[Any, ...] = (ShardHead, Record, SnapshotSlice, Snapshot, EntryRow)
PAYLOAD_AT = {RECORDS: 6, SLICES: 5, ENTRIES: 3}


@lru_cache(maxsize=4)
def _sound(variant: int) -> bytes:
    """A journal as a service leaves it."""
    random = Random(variant)
    service = Service()
    service.call("IngestEvents", first_stock())
    for number in range(60):
        service.call(random.choice(OFTEN), requests.request(random, random.choice(OFTEN), 0.0).SerializeToString())
        method = random.choice((*OFTEN, "ConfirmReservation", "ReleaseReservation", "SetStockPolicy"))
        service.call(method, requests.request(random, method, 0.0).SerializeToString())
        service.pass_ms(random.choice((0, 100, 1_000)))
        if number == 30 and variant % 2:
            service.snapshot()
    service.pass_ms(10_000)
    service.call("IngestEvents", first_stock())
    store = service.store
    return nasty.pack(
        [
            list(store.heads.values()),
            [record for rows in store.records.values() for record, _ in rows],
            [part for part, _ in store.slices.values()],
            [snapshot for snapshot, _ in store.snapshots.values()],
            [entry for entry, _ in store.entries.values()],
        ]
    )


def make(random: Random) -> bytes:
    """A sound journal with one or two things spoiled."""
    data = _sound(random.randrange(4))
    for _ in range(random.choice((0, 1, 1, 1, 2))):
        data = change(random, data)
    return data


def change(random: Random, data: bytes) -> bytes:
    """Spoil a payload from within, a column, or the order and number of rows."""
    tables = nasty.unpack(data)
    if not _is_journal(tables):
        return nasty.spoiled(random, data)
    kind = random.choice((RECORDS, RECORDS, RECORDS, SLICES, SLICES, ENTRIES, HEADS, SNAPSHOTS))
    rows = tables[kind]
    if not rows:
        return data
    row = random.choice(rows)
    how = random.random()
    if kind in PAYLOAD_AT and how < 0.8:
        at = PAYLOAD_AT[kind]
        inner = nasty.unpack(row[at])
        spoil = inner is not None and random.random() < 0.85
        row[at] = nasty.pack(nasty.spoiled_value(random, inner)) if spoil else nasty.spoiled(random, row[at])
    elif how < 0.9:
        at = random.randrange(len(row))
        if isinstance(row[at], int):
            row[at] = random.choice((row[at] + 1, row[at] - 1, 0, nasty.number(random)))
    elif how < 0.95:
        rows.remove(row)
    else:
        rows.insert(random.randrange(len(rows) + 1), list(row))
    return nasty.pack(tables)


def _is_journal(tables: Any) -> bool:
    return (
        isinstance(tables, list)
        and len(tables) == 5
        and all(
            isinstance(rows, list)
            and all(isinstance(row, list) and len(row) == len(ROWS[kind]._fields) for row in rows)
            for kind, rows in enumerate(tables)
        )
    )


def _store(tables: list[list[list[Any]]]) -> MemoryStore | None:
    """The store of these rows; None when a column could not be stored in a database's."""
    store = memory_store(CLUSTER, TIMELINE, SHARDS, PLACEMENT_VERSION, requests.START_MS)
    try:
        for head in tables[HEADS]:
            if head[0] in store.heads:
                store.heads[head[0]] = ShardHead(*head)
                struct.pack("<IQQQq", *head)
        for row in tables[RECORDS]:
            record = Record(*row)
            store.records[record.shard].append((record, record_checksum(record)))
        for row in tables[SLICES]:
            part = SnapshotSlice(*row)
            store.slices[part[:3]] = (part, slice_checksum(part))
        for row in tables[SNAPSHOTS]:
            snapshot = Snapshot(*row)
            store.snapshots[snapshot.shard, snapshot.snapshot_id] = (snapshot, snapshot_checksum(snapshot))
        for row in tables[ENTRIES]:
            entry = EntryRow(*row)
            store.entries[entry.key] = (entry, entry_checksum(entry))
    except (struct.error, TypeError, KeyError, AttributeError):
        return None
    for rows in store.records.values():
        rows.sort(key=lambda kept: kept[0].number)
        numbers = [record.number for record, _ in rows]
        if len(set(numbers)) != len(numbers):
            return None  # a primary key
    return store


@target(
    "journal",
    "stored records, slices, entry rows: recovery says JournalError or is whole; verify never raises",
    make,
    change,
)
def run(data: bytes) -> None:
    """Judge, recover, and go on."""
    tables = nasty.unpack(data)
    store = _store(tables) if _is_journal(tables) else None
    if store is None:
        return
    report = verify(MemoryJournal(store))
    report.plain()
    for entry, _ in store.entries.values():
        _read_row(entry)
    journal = MemoryJournal(store)
    try:
        recovered = recover(journal, range(SHARDS), RULES, requests.START_MS)
    except JournalError:
        return
    engine = recovered.engine
    for shard in range(SHARDS):
        canonical_state(engine.books, shard)
    questions: list[list[Any]] = [
        [int(Verb.LIST_STOCK), -1, 0, 1, [], ["", False, 1000, ""]],
        [int(Verb.LIST_RESERVATIONS), -1, 0, 1, [], ["", "", "", [], 1000, ""]],
        [int(Verb.LIST_EXCEPTIONS), -1, 0, 1, [], [[], "", "", [], 1000, ""]],
    ]
    try:
        replies = engine.step(questions, {}, engine.now_ms).replies
    except AssertionError:  # amounts that do not agree end a host at the latest where they are used
        assert not report.ok, "the host ended by its own invariant, and verify found nothing"
        return
    assert [reply[0] for reply in replies] == [0, 0, 0], replies


def _read_row(entry: EntryRow) -> None:
    try:
        if entry.key.startswith("r"):
            read_reservation_row(entry)
        elif entry.payload:
            read_entry_row(entry)
    except JournalDamaged:
        return


def make_payload(random: Random) -> bytes:
    """A record's payload, whole or spoiled."""
    tables = nasty.unpack(_sound(random.randrange(4)))
    payload: bytes = random.choice(tables[RECORDS])[6]
    return payload if random.random() < 0.5 else nasty.pack(nasty.spoiled_value(random, nasty.unpack(payload)))


@target("codec", "a record's payload: groups, or ValueError", make_payload, nasty.spoiled)
def decode(data: bytes) -> None:
    """Decode, and nothing else."""
    try:
        groups = decode_groups(data)
    except ValueError:
        return
    assert isinstance(groups, list)
