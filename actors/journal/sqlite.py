"""The SQLite journal: the embedded default. One file, one read-write connection, one thread.

It owns the rows, the fence and the checkpoints. Who may open the file (the lock), whether it is the right one (header
and witness) and room on its disk (ballast) are ``sqlite_open``, ``lock``, ``witness`` and ``disk``. After an append
that failed for another reason than the fence or a full disk, nothing more can be written through it: SQLite may not
know what is on the disk.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

import apsw

from actors.journal.codec import entry_checksum, record_checksum, slice_checksum, snapshot_checksum
from actors.journal.disk import Ballast, free_bytes
from actors.journal.lock import JournalLock
from actors.journal.port import (
    CompactResult,
    EntryRow,
    Fenced,
    Header,
    JournalDamaged,
    JournalError,
    JournalFull,
    JournalInfo,
    Record,
    ShardHead,
    Snapshot,
    SnapshotSlice,
)
from actors.journal.sqlite_schema import FACTS_TABLE, PAGE_BYTES, read_header, translated
from actors.journal.witness import WitnessFile

SNAPSHOTS_KEPT = 2
CHECKPOINT_WAL_PAGES = (
    1_024  # 4 MiB: some milliseconds of work at a time; larger ones stall longer and save nothing measurable
)
ROWS_PER_DELETE = 2_000  # one transaction of a compaction: some milliseconds
VACUUM_PAGES_MAX = 1_024  # 4 MiB given back to the disk per compaction …
VACUUM_FREE_SHARE = 4  # … when more than a quarter of the file is free
KEYS_PER_READ = 10_000

_HEADS = "SELECT shard, epoch, record_number, sequence, time_ms FROM shards"
_RECORDS = "SELECT shard, number, epoch, first_sequence, event_count, time_ms, payload, checksum FROM records"
_ADVANCE = (
    "UPDATE shards SET record_number = ?, sequence = ?, time_ms = ? "
    "WHERE shard = ? AND epoch = ? AND record_number = ? AND sequence = ?"
)
_INSERT_RECORD = (
    "INSERT INTO records (shard, number, epoch, first_sequence, event_count, time_ms, payload, checksum) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPSERT_ENTRY = (
    "INSERT OR REPLACE INTO entries (key, shard, reservation_id, payload, end_time_ms, checksum) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)


class SqliteJournal:
    """A ``Journal`` in one SQLite file. Make it with ``sqlite_open.open_journal`` or ``open_read_only``."""

    def __init__(
        self,
        connection: apsw.Connection,
        path: Path,
        lock: JournalLock | None = None,
        witness: WitnessFile | None = None,
        ballast: Ballast | None = None,
    ) -> None:
        """``lock`` is released by ``close``. Without ``witness`` and ``ballast`` nothing is kept beside the file."""
        self._connection = connection
        self._path = path
        self._lock = lock
        self._witness = witness
        self._ballast = ballast
        self._header = read_header(connection)
        self._failed = ""
        self._wal_pages = 0
        self._checkpoint_at = CHECKPOINT_WAL_PAGES
        connection.set_wal_hook(self._committed)

    @property
    def header(self) -> Header:
        return self._header

    def read_header_again(self) -> None:
        """It was changed by whoever opens the journal."""
        self._header = read_header(self._connection)

    # --- owning and appending -----------------------------------------------------------------------------------------

    def take_over(self, shards: Sequence[int]) -> dict[int, ShardHead]:
        self._writable()
        try:
            self._bump_epochs(shards)
        except JournalFull:
            if self._ballast is None or not self._ballast.release():
                raise
            self._bump_epochs(shards)
        taken = {head.shard: head for head in self.all_heads() if head.shard in set(shards)}
        for head in taken.values():
            self.check_head(head)
        self._write_witness()
        return taken

    def _bump_epochs(self, shards: Sequence[int]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            before = connection.total_changes()
            connection.executemany(
                "UPDATE shards SET epoch = epoch + 1 WHERE shard = ?", ((shard,) for shard in shards)
            )
            if connection.total_changes() - before != len(shards):
                self._roll_back()
                raise JournalError(f"not all of the shards {list(shards)} are in {self._path}")
            connection.execute("COMMIT")
        except apsw.Error as error:
            self._fail(error, "the shards could not be taken over")

    def append(self, records: Sequence[Record], entries: Sequence[EntryRow], read_heads: Sequence[ShardHead]) -> None:
        if len({record.shard for record in records}) != len(records):
            raise ValueError("several records of one shard in one append")
        self._writable()
        if self._wal_pages >= self._checkpoint_at:
            self._checkpoint_wal()  # here and not only in housekeeping: some milliseconds often, not many now and then
        connection = self._connection
        execute = connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            before = connection.total_changes()
            connection.executemany(
                _ADVANCE,
                [
                    (number, first + count - 1, time_ms, shard, epoch, number - 1, first - 1)
                    for shard, number, epoch, first, count, time_ms, _ in records
                ],
            )
            if connection.total_changes() - before != len(records) or not self._unchanged(read_heads):
                self._roll_back()
                raise Fenced(self._why_fenced(records, read_heads))
            connection.executemany(_INSERT_RECORD, [(*record, record_checksum(record)) for record in records])
            if entries:
                connection.executemany(_UPSERT_ENTRY, [(*entry, entry_checksum(entry)) for entry in entries])
            execute("COMMIT")
        except apsw.Error as error:
            self._fail(error, "the append failed")

    def _unchanged(self, read_heads: Sequence[ShardHead]) -> bool:
        if not read_heads:
            return True
        stored = {shard: (epoch, number) for shard, epoch, number, _, _ in self._connection.execute(_HEADS)}
        return all(stored.get(head.shard) == (head.epoch, head.record_number) for head in read_heads)

    def _why_fenced(self, records: Sequence[Record], read_heads: Sequence[ShardHead]) -> str:
        stored = {head.shard: head for head in self.all_heads()}
        for shard, number, epoch, first, *_ in records:
            head = stored.get(shard)
            if head is None or (head.epoch, head.record_number, head.sequence) != (epoch, number - 1, first - 1):
                return (
                    f"record {number} of shard {shard}, epoch {epoch}, first sequence {first}, does not follow {head}"
                )
        for read in read_heads:
            head = stored.get(read.shard)
            if head is None or (head.epoch, head.record_number) != (read.epoch, read.record_number):
                return f"shard {read.shard} was read at {read} and stands at {head}"
        return "another owner wrote meanwhile"

    def check(self, heads: Sequence[ShardHead]) -> None:
        try:
            stored = dict(self._connection.execute("SELECT shard, epoch FROM shards"))
        except apsw.Error as error:
            raise translated(error, "the epochs could not be read") from error
        for head in heads:
            if stored.get(head.shard) != head.epoch:
                raise Fenced(f"shard {head.shard} was owned in epoch {head.epoch}; it is {stored.get(head.shard)} now")

    def _check_epoch(self, shard: int, epoch: int) -> None:
        self.check([ShardHead(shard, epoch, 0, 0, 0)])

    # --- records ------------------------------------------------------------------------------------------------------

    def heads(self, shards: Sequence[int]) -> dict[int, ShardHead]:
        wanted = set(shards)
        return {head.shard: head for head in self.all_heads() if head.shard in wanted}

    def all_heads(self) -> list[ShardHead]:
        """All shards' heads, by shard."""
        return [ShardHead(*row) for row in self._rows(f"{_HEADS} ORDER BY shard", ())]

    def read(self, shard: int, after_number: int, limit: int) -> list[Record]:
        rows = self._rows(
            f"{_RECORDS} WHERE shard = ? AND number > ? ORDER BY number LIMIT ?", (shard, after_number, limit)
        )
        return [_checked(row) for row in rows]

    def read_latest(self, shard: int, limit: int) -> list[Record]:
        rows = self._rows(f"{_RECORDS} WHERE shard = ? ORDER BY number DESC LIMIT ?", (shard, limit))
        return [_checked(row) for row in rows]

    def first_number(self, shard: int) -> int:
        [(first,)] = self._rows("SELECT min(number) FROM records WHERE shard = ?", (shard,))
        if first is None:
            [(head,)] = self._rows("SELECT record_number FROM shards WHERE shard = ?", (shard,))
            first = head + 1
        return int(first)

    def check_head(self, head: ShardHead) -> None:
        """Raise ``JournalDamaged`` unless the shard's last record is the one its head names."""
        latest = self.read_latest(head.shard, 1)
        if not latest:
            return  # none yet, or all of them dropped
        last = latest[0]
        found = (last.number, last.first_sequence + last.event_count - 1)
        if found != (head.record_number, head.sequence) or last.epoch > head.epoch:
            raise JournalDamaged(
                f"{self._path}: shard {head.shard} ends with record {last.number}, sequence {found[1]}, epoch "
                f"{last.epoch}; its "
                f"head says record {head.record_number}, sequence {head.sequence}, epoch {head.epoch}"
            )

    # --- entries ------------------------------------------------------------------------------------------------------

    def find_entries(self, keys: Sequence[str]) -> dict[str, EntryRow]:
        found: dict[str, EntryRow] = {}
        for key in keys:
            entry = found.get(key) or self._find_entry(key, found)
            if entry is not None and entry.reservation_id and f"r\x1f{entry.reservation_id}" not in found:
                self._find_entry(f"r\x1f{entry.reservation_id}", found)
        return found

    def _find_entry(self, key: str, found: dict[str, EntryRow]) -> EntryRow | None:
        rows = self._rows(
            "SELECT shard, reservation_id, payload, end_time_ms, checksum FROM entries WHERE key = ?", (key,)
        )
        if not rows:
            return None
        *columns, checksum = rows[0]
        entry = EntryRow(key, *columns)
        if not _sound(entry_checksum, entry, checksum):
            raise JournalDamaged(f"{self._path}: the entry {key!r} has a wrong CRC")
        found[key] = entry
        return entry

    def entry_keys(self, shards: Sequence[int] | None = None) -> Iterator[str]:
        last = ""
        wanted = range(self._header.shard_count) if shards is None else set(shards)
        statement = "SELECT key, shard FROM entries WHERE key > ? ORDER BY key LIMIT ?"
        while rows := self._rows(statement, (last, KEYS_PER_READ)):
            yield from (key for key, shard in rows if shard in wanted)
            last = rows[-1][0]

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def write_slice(self, part: SnapshotSlice, epoch: int) -> None:
        self._writable()
        self._write(
            "INSERT OR REPLACE INTO slices (shard, snapshot_id, slice_number, sequence, record_number, payload, "
            "checksum) "
            "SELECT ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM shards WHERE shard = ?1 AND epoch = ?8) "
            "AND NOT EXISTS (SELECT 1 FROM snapshots WHERE shard = ?1 AND snapshot_id = ?2)",
            (*part, slice_checksum(part), epoch),
            "a snapshot's slice could not be written",
        )
        if self._connection.changes() != 1:
            self._check_epoch(part.shard, epoch)  # else the snapshot is published already, and stays as it is

    def publish_snapshot(self, snapshot: Snapshot) -> None:
        self._writable()
        shard, snapshot_id = snapshot.shard, snapshot.snapshot_id
        connection = self._connection
        try:
            with connection:
                self._check_epoch(shard, snapshot.epoch)
                [(slices,)] = connection.execute(
                    "SELECT count(*) FROM slices WHERE shard = ? AND snapshot_id = ? AND slice_number < ?",
                    (shard, snapshot_id, snapshot.slice_count),
                )
                if slices != snapshot.slice_count:
                    raise JournalError(
                        f"snapshot {snapshot_id} of shard {shard} has {slices} of {snapshot.slice_count} slices"
                    )
                connection.execute(
                    "INSERT OR IGNORE INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*snapshot, snapshot_checksum(snapshot)),
                )
                kept = connection.execute(
                    "SELECT snapshot_id FROM snapshots WHERE shard = ? ORDER BY snapshot_id DESC LIMIT ?",
                    (shard, SNAPSHOTS_KEPT),
                ).fetchall()
                newest, oldest = kept[0][0], kept[-1][0]
                connection.execute("DELETE FROM snapshots WHERE shard = ? AND snapshot_id < ?", (shard, oldest))
                connection.execute(
                    "DELETE FROM slices WHERE shard = ? AND snapshot_id < ? AND snapshot_id NOT IN (?, ?)",
                    (shard, newest, newest, oldest),
                )
        except apsw.Error as error:
            self._fail(error, f"snapshot {snapshot_id} of shard {shard} could not be published")

    def snapshots(self, shard: int) -> list[Snapshot]:
        rows = self._rows(
            "SELECT shard, snapshot_id, slice_count, lowest_sequence, highest_sequence, lowest_record_number, time_ms, "
            "epoch, "
            "checksum FROM snapshots WHERE shard = ? ORDER BY snapshot_id DESC",
            (shard,),
        )
        return [Snapshot(*row[:-1]) for row in rows if _sound(snapshot_checksum, row[:-1], row[-1])]

    def read_slices(self, snapshot: Snapshot) -> list[SnapshotSlice]:
        where = f"{self._path}: snapshot {snapshot.snapshot_id} of shard {snapshot.shard}"
        rows = self._rows(
            "SELECT shard, snapshot_id, slice_number, sequence, record_number, payload, checksum FROM slices "
            "WHERE shard = ? AND snapshot_id = ? ORDER BY slice_number",
            (snapshot.shard, snapshot.snapshot_id),
        )
        parts = []
        for number, row in enumerate(rows):
            part = SnapshotSlice(*row[:-1])
            if part.slice_number != number:
                raise JournalDamaged(f"{where}: slice {number} is missing")
            if not _sound(slice_checksum, part, row[-1]):
                raise JournalDamaged(f"{where}: slice {number} has a wrong CRC")
            parts.append(part)
        if len(parts) != snapshot.slice_count:
            raise JournalDamaged(f"{where}: {len(parts)} of {snapshot.slice_count} slices are there")
        return parts

    # --- facts --------------------------------------------------------------------------------------------------------

    def get_fact(self, name: str) -> bytes | None:
        if not self._rows("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'facts'", ()):
            return None  # made by a version that knew of none, and only looked at since
        rows = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def put_fact(self, name: str, value: bytes) -> None:
        self._writable()
        what = f"the fact {name!r} could not be put"
        self._write(FACTS_TABLE, (), what)
        self._write("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value), what)

    # --- housekeeping -------------------------------------------------------------------------------------------------

    def compact(
        self,
        records_before_ms: int,
        entries_before_ms: int,
        rows_max: int | None = None,
        shards: Sequence[int] | None = None,
    ) -> CompactResult:
        self._writable()
        before = self.size_bytes()
        covered: dict[int, int] = {}
        scope = range(self._header.shard_count) if shards is None else sorted(set(shards))
        for shard in scope:
            kept = self.snapshots(shard)
            if len(kept) >= SNAPSHOTS_KEPT:
                covered[shard] = min(snapshot.lowest_record_number for snapshot in kept)
        records = entries = 0
        more = True
        while more:
            room = min(ROWS_PER_DELETE, rows_max - records - entries if rows_max is not None else ROWS_PER_DELETE)
            old_records, old_entries = self._drop(covered, scope, records_before_ms, entries_before_ms, room)
            records += old_records
            entries += old_entries
            more = old_records + old_entries == room > 0
        self._give_back_pages()
        return CompactResult(records, entries, 0, before, self.size_bytes())

    def _drop(
        self,
        covered: dict[int, int],
        scope: Sequence[int],
        records_before_ms: int,
        entries_before_ms: int,
        most: int,
    ) -> tuple[int, int]:
        """Drop the oldest records of each shard and the oldest entries, ``most`` rows in one transaction; how many."""
        connection = self._connection
        records = 0
        try:
            with connection:
                for shard, last_covered in covered.items():
                    oldest = connection.execute(
                        "SELECT number, time_ms FROM records WHERE shard = ? AND number <= ? ORDER BY number LIMIT ?",
                        (shard, last_covered, most - records),
                    )
                    old = [number for number, _ in takewhile(lambda row: row[1] < records_before_ms, oldest)]
                    if old:
                        connection.execute("DELETE FROM records WHERE shard = ? AND number <= ?", (shard, old[-1]))
                        records += len(old)
                connection.execute(
                    "DELETE FROM entries WHERE key IN "
                    "(SELECT key FROM entries WHERE end_time_ms < ? AND shard IN (SELECT value FROM json_each(?)) "
                    "ORDER BY end_time_ms LIMIT ?)",
                    (entries_before_ms, json.dumps(list(scope)), most - records),
                )
                entries = connection.changes()
        except apsw.Error as error:
            self._fail(error, "the journal could not be compacted")
        return records, entries

    def _give_back_pages(self) -> None:
        """Give free pages back to the disk when they are many; a few are used again soon."""
        [(free,)] = self._rows("PRAGMA freelist_count", ())
        [(pages,)] = self._rows("PRAGMA page_count", ())
        if free * VACUUM_FREE_SHARE > pages:
            try:
                self._connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES_MAX})").fetchall()
            except apsw.Error as error:
                self._fail(error, "free pages could not be given back")

    def checkpoint(self) -> None:
        self._writable()
        if self._wal_pages >= self._checkpoint_at:
            self._checkpoint_wal()
        if self._witness is not None and self._witness.is_due():
            self._write_witness()
        if self._ballast is not None:
            self._ballast.restore()

    def _checkpoint_wal(self) -> None:
        """Move the WAL's pages to the file. The next commit starts it anew, unless somebody still reads from it."""
        self._checkpoint_at = self._wal_pages + CHECKPOINT_WAL_PAGES  # not again at once when it cannot be done now
        try:
            total, done = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.BusyError, apsw.FullError):
            return  # the WAL grows on; whether there is room for that, its next commit finds out
        except apsw.Error as error:
            self._fail(error, "the WAL could not be checkpointed")
        if total == done:
            self._wal_pages = 0
            self._checkpoint_at = CHECKPOINT_WAL_PAGES

    def free_bytes(self) -> int | None:
        return free_bytes(self._path.parent)

    def wall_ms(self) -> int | None:
        return None

    def size_bytes(self) -> int:
        wal = self._path.with_name(self._path.name + "-wal")
        return sum(path.stat().st_size for path in (self._path, wal) if path.exists())

    def info(self) -> JournalInfo:
        [(records,)] = self._rows("SELECT count(*) FROM records INDEXED BY records_by_shard", ())
        [(entries,)] = self._rows("SELECT count(*) FROM entries INDEXED BY entries_by_end", ())
        [(snapshots,)] = self._rows("SELECT count(*) FROM snapshots", ())
        pragmas = {name: self._connection.pragma(name) for name in ("journal_mode", "synchronous")}
        synchronous = ("off", "normal", "full", "extra")[pragmas["synchronous"]]
        return JournalInfo(
            kind="sqlite",
            location=str(self._path),
            header=self._header,
            heads=tuple(self.all_heads()),
            record_count=records,
            entry_count=entries,
            snapshot_count=snapshots,
            size_bytes=self.size_bytes(),
            free_bytes=self.free_bytes(),
            durability=f"journal_mode={pragmas['journal_mode']} synchronous={synchronous}",
        )

    def file_problems(self, problems_max: int = 100) -> list[str]:
        """What SQLite itself finds wrong with the file (PRAGMA integrity_check); empty when it is sound. Reads all of
        it.
        """
        rows = self._rows(f"PRAGMA integrity_check({problems_max})", ())
        return [text for (text,) in rows if text != "ok"]

    @contextlib.contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """The connection within one read transaction: everything read through it is of one moment."""
        self._rows("BEGIN", ())
        try:
            self._rows("SELECT count(*) FROM header", ())
            yield self._connection
        finally:
            self._roll_back()

    def close(self) -> None:
        """Checkpoint, write the witness, close the file, release the lock. Never raises: what was acknowledged is
        durable.
        """
        if not self._failed:
            with contextlib.suppress(JournalError):
                self._write_witness()
        lock = self._lock
        self.detach()
        if lock is not None:
            lock.release()

    def detach(self) -> None:
        """Close the file only: the lock stays with the caller, the witness as it is."""
        with contextlib.suppress(apsw.Error):
            if self._failed:
                self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        try:
            self._connection.close()
        except apsw.Error:
            self._connection.close(True)  # noqa: FBT003  apsw's own signature
        self._failed = self._failed or "the journal is closed"
        self._lock = None

    # --- plumbing -----------------------------------------------------------------------------------------------------

    def _committed(self, _connection: apsw.Connection, _database: str, wal_pages: int) -> int:
        self._wal_pages = wal_pages
        return apsw.SQLITE_OK

    def _rows(self, statement: str, bindings: tuple[Any, ...]) -> list[Any]:
        try:
            return self._connection.execute(statement, bindings).fetchall()
        except apsw.Error as error:
            raise translated(error, f"{self._path} could not be read") from error
        except UnicodeDecodeError as error:
            raise JournalDamaged(f"{self._path} holds a text that is none: {error}") from error

    def _write(self, statement: str, bindings: tuple[Any, ...], what: str) -> None:
        try:
            self._connection.execute(statement, bindings)
        except apsw.Error as error:
            self._fail(error, what)

    def _write_witness(self) -> None:
        if self._witness is not None:
            self._witness.write(self._header, self.all_heads())

    def _writable(self) -> None:
        if self._failed:
            raise JournalError(f"{self._failed}: nothing may be written any more")

    def _fail(self, error: apsw.Error, what: str) -> NoReturn:
        """Roll back and raise the port's error. Anything but a full disk ends this journal's writing."""
        self._roll_back()
        failure = translated(error, f"{self._path}: {what}")
        if isinstance(error, apsw.IOError) and (self.free_bytes() or 0) < PAGE_BYTES:
            failure = JournalFull(str(failure))  # the WAL's index could not grow
        if not isinstance(failure, JournalFull):
            self._failed = what
        raise failure from error

    def _roll_back(self) -> None:
        if not self._connection.get_autocommit():
            try:
                self._connection.execute("ROLLBACK")
            except apsw.Error:
                self._failed = "a rollback failed"


def _checked(row: tuple[Any, ...]) -> Record:
    record = Record(*row[:-1])
    if not _sound(record_checksum, record, row[-1]):
        raise JournalDamaged(f"shard {record.shard}: record {record.number} has a wrong CRC")
    return record


def _sound(checksum_of: Callable[[Sequence[Any]], int], columns: Sequence[Any], checksum: int) -> bool:
    """Whether a row has the checksum it was written with. One that cannot even be summed was never written so."""
    try:
        return checksum_of(columns) == checksum
    except (struct.error, TypeError, AttributeError):
        return False
