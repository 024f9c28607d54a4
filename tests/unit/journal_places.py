"""Places where a journal lives, for the conformance suite: each can open it as a successor would, and damage what is
stored.

Owns no test. A new adapter joins the suite by adding its place to ``PLACES``.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import apsw
import pytest

from actors.journal.codec import encode_groups
from actors.journal.lock import JournalLock, take_lock
from actors.journal.memory import MemoryJournal, MemoryStore, memory_store
from actors.journal.port import EntryRow, Journal, JournalFull, Record, ShardHead, Snapshot, SnapshotSlice
from actors.journal.postgres import PostgresJournal
from actors.journal.postgres_link import LinkOptions
from actors.journal.postgres_open import open_postgres
from actors.journal.postgres_schema import SCHEMA
from actors.journal.sqlite import SqliteJournal
from actors.journal.sqlite_open import Wanted, open_journal
from actors.journal.sqlite_schema import DATABASE_FILE, connect_writer
from tests.postgres_server import PostgresServer

SHARD_COUNT = 8
NOW_MS = 1_700_000_000_000
WANTED = Wanted(SHARD_COUNT, placement_version=1, cluster_id="c0ffee")


class Place(Protocol):
    """One stored journal."""

    def open(self) -> Journal:
        """Open it, also while others have it open: what a second owner would do who does not know of the first."""
        ...

    def damage(self, what: str, shard: int, number: int) -> None:
        """Flip a bit of a record's or slice's payload, or remove the slice; ``what``: record, slice, missing slice."""
        ...

    def fill(self) -> None:
        """From now on there is no space."""
        ...


class MemoryPlace:
    """The verified fake's store."""

    def __init__(self, _directory: Path) -> None:
        self.store: MemoryStore = memory_store(WANTED.cluster_id, "t1", SHARD_COUNT, WANTED.placement_version, NOW_MS)

    def open(self) -> Journal:
        return MemoryJournal(self.store)

    def damage(self, what: str, shard: int, number: int) -> None:
        store = self.store
        if what == "record":
            at = next(at for at, (record, _) in enumerate(store.records[shard]) if record.number == number)
            record, checksum = store.records[shard][at]
            store.records[shard][at] = (record._replace(payload=flipped(record.payload)), checksum)
            return
        key = next(key for key in sorted(store.slices, reverse=True) if key[0] == shard and key[2] == number)
        part, checksum = store.slices[key]
        if what == "slice":
            store.slices[key] = (part._replace(payload=flipped(part.payload)), checksum)
        else:
            del store.slices[key]

    def fill(self) -> None:
        self.store.faults.full = True


class SqlitePlace:
    """An SQLite file. Openings after the first do without the lock, so that the fence alone is tested."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "journal"
        self.journals: list[SqliteJournal] = []

    def open(self) -> Journal:
        path = self.directory / DATABASE_FILE
        if path.exists():
            journal = SqliteJournal(connect_writer(path), path)
        else:
            journal = open_journal(locked(self.directory), WANTED, now_ms=NOW_MS, ballast_bytes=0)
        self.journals.append(journal)
        return journal

    def damage(self, what: str, shard: int, number: int) -> None:
        connection = apsw.Connection(str(self.directory / DATABASE_FILE))
        table, column = ("records", "number") if what == "record" else ("slices", "slice_number")
        [(row, payload)] = connection.execute(
            f"SELECT rowid, payload FROM {table} WHERE shard = ? AND {column} = ? ORDER BY rowid DESC LIMIT 1",
            (shard, number),
        )
        if what == "missing slice":
            connection.execute("DELETE FROM slices WHERE rowid = ?", (row,))
        else:
            connection.execute(f"UPDATE {table} SET payload = ? WHERE rowid = ?", (flipped(payload), row))
        connection.close()

    def fill(self) -> None:
        """SQLite's own bound on a file's pages: an append that needs a page more gets SQLITE_FULL."""
        for journal in self.journals:
            connection = journal._connection  # the fault is put where no caller can reach
            connection.pragma("max_page_count", connection.pragma("page_count"))

    def close(self) -> None:
        for journal in self.journals:
            journal.close()


class PostgresPlace:
    """A database of its own on the run's server. Any number of hosts open it at once."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.database = f"journal_{secrets.token_hex(6)}"
        self.options = LinkOptions(server.create_database(self.database))
        self.journals: list[PostgresJournal] = []

    def open(self) -> Journal:
        journal = open_postgres(self.options, WANTED, now_ms=NOW_MS)
        self.journals.append(journal)
        return journal

    def damage(self, what: str, shard: int, number: int) -> None:
        table, column = ("records", "number") if what == "record" else ("slices", "slice_number")
        last = f"shard = {shard} AND {column} = {number}"
        if what != "record":
            last += f" AND snapshot_id = (SELECT max(snapshot_id) FROM {SCHEMA}.slices WHERE shard = {shard})"
        [(payload,)] = self.execute(f"SELECT payload FROM {SCHEMA}.{table} WHERE {last}")
        if what == "missing slice":
            self.execute(f"DELETE FROM {SCHEMA}.slices WHERE {last}")
        else:
            self.execute(f"UPDATE {SCHEMA}.{table} SET payload = '\\x{flipped(payload).hex()}' WHERE {last}")

    def fill(self) -> None:
        """The server says that its disk is full, as it would: a larger disk for everybody's other databases stays."""
        self.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
        )
        self.execute(f"CREATE TRIGGER full_disk BEFORE INSERT ON {SCHEMA}.records EXECUTE FUNCTION full_disk()")

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        return self.server.execute(statement, self.database)

    def close(self) -> None:
        for journal in self.journals:
            journal.close()
        self.server.execute(f'DROP DATABASE "{self.database}" WITH (FORCE)')


PLACES = ("memory", "postgres", "sqlite")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty journal's place, once for every adapter."""
    if request.param == "memory":
        yield MemoryPlace(tmp_path)
        return
    made = SqlitePlace(tmp_path) if request.param == "sqlite" else PostgresPlace(request.getfixturevalue("postgres"))
    yield made
    made.close()


def locked(directory: Path, role: str = "test") -> JournalLock:
    """The lock on a directory, at once or not at all."""
    return take_lock(directory, role=role, wait_s=0, kill_holder_after_s=None, say=print)


def flipped(payload: bytes) -> bytes:
    """The payload with its last bit flipped."""
    return payload[:-1] + bytes([payload[-1] ^ 1])


def next_record(head: ShardHead, events: int = 1, time_ms: int = NOW_MS, text: str = "") -> Record:
    """A record that directly follows a head."""
    groups = [[[0, "request", "web"], [[10, f"{text or head.record_number + 1}-{one}"] for one in range(events)]]]
    payload = encode_groups(groups)
    return Record(head.shard, head.record_number + 1, head.epoch, head.sequence + 1, events, time_ms, payload)


def after(record: Record) -> ShardHead:
    """The head that a record leaves."""
    last = record.first_sequence + record.event_count - 1
    return ShardHead(record.shard, record.epoch, record.number, last, record.time_ms)


class Owner:
    """An owner of shards: appends records that follow its heads."""

    def __init__(self, journal: Journal, shards: range | list[int] = range(SHARD_COUNT)) -> None:
        self.journal = journal
        self.heads = journal.take_over(list(shards))

    def append(self, *shards: int, events: int = 1, time_ms: int = NOW_MS, entries: tuple[EntryRow, ...] = ()) -> None:
        records = [next_record(self.heads[shard], events, time_ms) for shard in shards]
        self.journal.append(records, entries, [])
        for record in records:
            self.heads[record.shard] = after(record)

    def snapshot(self, shard: int, slices: int = 2) -> Snapshot:
        """Write and publish a snapshot of a shard as it stands."""
        head = self.heads[shard]
        for number in range(slices):
            payload = f"slice {number} at {head.sequence}".encode()
            part = SnapshotSlice(shard, head.sequence, number, head.sequence, head.record_number, payload)
            self.journal.write_slice(part, head.epoch)
        published = Snapshot(
            shard, head.sequence, slices, head.sequence, head.sequence, head.record_number, NOW_MS, head.epoch
        )
        self.journal.publish_snapshot(published)
        return published


def contents(journal: Journal) -> dict[str, object]:
    """Everything a journal holds, in plain values: equal journals, equal contents."""
    shards = range(journal.header.shard_count)
    snapshots = {shard: journal.snapshots(shard) for shard in shards}
    return {
        "header": journal.header,
        "heads": journal.info().heads,
        "records": {shard: journal.read(shard, 0, 10_000) for shard in shards},
        "entries": journal.find_entries(list(journal.entry_keys())),
        "snapshots": snapshots,
        "slices": {shard: [journal.read_slices(one) for one in found] for shard, found in snapshots.items()},
    }


__all__ = ["JournalFull", "Owner", "Place", "after", "contents", "flipped", "locked", "next_record", "place"]
