"""The SQLite journal's file: its tables, its pragmas, its header, and how a connection to it is opened.

It knows nothing of locks, witnesses or of what the rows mean (``sqlite_open``, ``sqlite``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from actors.journal.codec import FORMAT_VERSION
from actors.journal.port import Header, JournalDamaged, JournalError, JournalFull, JournalMissing
from actors.journal.versions import MINIMUM_READER_VERSION, check_reader

DATABASE_FILE = "journal.sqlite3"
APPLICATION_ID = 0x53544B44  # "STKD": `file` and we ourselves can tell a journal from any other SQLite file
PAGE_BYTES = 4096
CACHE_KIB = 64 * 1024
BUSY_TIMEOUT_MS = 5_000  # somebody reads or backs up; nobody else writes while we hold the lock
WAL_KEPT_BYTES = 64 * 1024 * 1024  # a WAL that grew beyond it under a long reader is cut back

TABLES = """
CREATE TABLE header (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    cluster_id TEXT NOT NULL, timeline TEXT NOT NULL, format_version INTEGER NOT NULL,
    minimum_reader_version INTEGER NOT NULL, shard_count INTEGER NOT NULL, placement_version INTEGER NOT NULL,
    create_time_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE shards (
    shard INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, record_number INTEGER NOT NULL, sequence INTEGER NOT NULL,
    time_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE records (
    id INTEGER PRIMARY KEY, shard INTEGER NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL, event_count INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL, payload BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX records_by_shard ON records (shard, number);
CREATE TABLE entries (
    key TEXT PRIMARY KEY, shard INTEGER NOT NULL, reservation_id TEXT NOT NULL, end_time_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL, payload BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_by_end ON entries (end_time_ms);
CREATE TABLE snapshots (
    shard INTEGER NOT NULL, snapshot_id INTEGER NOT NULL, slice_count INTEGER NOT NULL, lowest_sequence INTEGER NOT
    NULL, highest_sequence INTEGER NOT NULL, lowest_record_number INTEGER NOT NULL, time_ms INTEGER NOT NULL, epoch
    INTEGER NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (shard, snapshot_id) ) STRICT, WITHOUT ROWID; CREATE TABLE
    slices ( shard INTEGER NOT NULL, snapshot_id INTEGER NOT NULL, slice_number INTEGER NOT NULL, sequence INTEGER NOT
    NULL, record_number INTEGER NOT NULL, checksum INTEGER NOT NULL, payload BLOB NOT NULL ) STRICT; CREATE UNIQUE INDEX
    slices_by_snapshot ON slices (shard, snapshot_id, slice_number);
"""

# Made when the first fact is put: a journal that has none is the same for a version that knows of none.
FACTS_TABLE = "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID"

# What durability and recovery rest on: set, read back, and refused when SQLite says otherwise.
WRITER_PRAGMAS: tuple[tuple[str, str, str | int], ...] = (
    ("journal_mode", "wal", "wal"),
    ("synchronous", "full", 2),
    ("wal_autocheckpoint", "0", 0),
    ("journal_size_limit", str(WAL_KEPT_BYTES), WAL_KEPT_BYTES),
    ("busy_timeout", str(BUSY_TIMEOUT_MS), BUSY_TIMEOUT_MS),
    ("cache_size", str(-CACHE_KIB), -CACHE_KIB),
    ("mmap_size", "0", 0),  # an IO error shall be an error, not a SIGBUS
    ("cell_size_check", "1", 1),
    ("trusted_schema", "0", 0),
)
READER_PRAGMAS: tuple[tuple[str, str, str | int], ...] = (
    ("query_only", "1", 1),
    ("busy_timeout", str(BUSY_TIMEOUT_MS), BUSY_TIMEOUT_MS),
    ("mmap_size", "0", 0),
    ("cell_size_check", "1", 1),
    ("trusted_schema", "0", 0),
)


def create_file(path: Path, header: Header, vfs: str | None = None) -> None:
    """Make a complete journal at ``path`` (which must not exist), closed again, its bytes on stable storage."""
    connection = connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, vfs)
    try:
        pragma(connection, "page_size", str(PAGE_BYTES), PAGE_BYTES)
        pragma(connection, "auto_vacuum", "incremental", 2)
        pragma(connection, "synchronous", "full", 2)
        with connection:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            connection.execute(TABLES)
            connection.execute("INSERT INTO header VALUES (1, ?, ?, ?, ?, ?, ?, ?)", header)
            connection.executemany(
                "INSERT INTO shards VALUES (?, 0, 0, 0, 0)", ((n,) for n in range(header.shard_count))
            )
        pragma(connection, "journal_mode", "wal", "wal")
    except apsw.Error as error:
        raise translated(error, f"the journal {path} could not be made") from error
    finally:
        connection.close()


def connect_writer(path: Path, vfs: str | None = None) -> apsw.Connection:
    """The one read-write connection to an existing journal, its pragmas set and read back."""
    connection = connect(path, apsw.SQLITE_OPEN_READWRITE, vfs)
    try:
        _check_file(connection, path)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        for name, value, expected in WRITER_PRAGMAS:
            pragma(connection, name, value, expected)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> apsw.Connection:
    """A read-only connection; a server may be writing meanwhile. Raises ``JournalMissing``."""
    if not path.exists():
        raise JournalMissing(f"there is no journal at {path}")
    connection = connect(path, apsw.SQLITE_OPEN_READONLY, None)
    try:
        _check_file(connection, path)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        for name, value, expected in READER_PRAGMAS:
            pragma(connection, name, value, expected)
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: Path, flags: int, vfs: str | None) -> apsw.Connection:
    """A plain connection. Raises ``JournalError`` that names the file."""
    try:
        return apsw.Connection(str(path), flags=flags, vfs=vfs)
    except apsw.Error as error:
        raise translated(error, f"the journal {path} cannot be opened") from error


def pragma(connection: apsw.Connection, name: str, value: str, expected: str | int) -> None:
    """Set a pragma and read it back. Raises ``JournalDamaged`` when SQLite does not do as told."""
    try:
        connection.execute(f"PRAGMA {name} = {value}").fetchall()
        got = connection.pragma(name)
    except apsw.Error as error:
        raise translated(error, f"PRAGMA {name} of {connection.filename} could not be set") from error
    if got != expected:
        raise JournalDamaged(
            f"{connection.filename}: PRAGMA {name} was set to {value} and reads back {got!r}: refusing it"
        )


def _check_file(connection: apsw.Connection, path: Path) -> None:
    try:
        application_id = connection.pragma("application_id")
        page_bytes = connection.pragma("page_size")
    except apsw.Error as error:
        raise translated(error, f"the journal {path} cannot be read") from error
    if application_id != APPLICATION_ID:
        raise JournalDamaged(f"{path} is no Stockade journal (application id {application_id:#x})")
    if page_bytes != PAGE_BYTES:
        raise JournalDamaged(f"{path} has pages of {page_bytes} bytes; a journal's have {PAGE_BYTES}")


def read_header(connection: apsw.Connection) -> Header:
    """The header; ``JournalMismatch`` when this version must not read the file."""
    where = connection.filename
    try:
        rows = connection.execute(
            "SELECT cluster_id, timeline, format_version, minimum_reader_version, shard_count, placement_version, "
            "create_time_ms FROM header"
        ).fetchall()
    except apsw.Error as error:
        raise translated(error, f"the header of {where} cannot be read") from error
    except UnicodeDecodeError as error:
        raise JournalDamaged(f"the header of {where} holds a text that is none: {error}") from error
    if len(rows) != 1:
        raise JournalDamaged(f"{where} has {len(rows)} headers")
    columns: tuple[Any, ...] = rows[0]
    if [type(column) for column in columns] != [str, str, int, int, int, int, int]:
        raise JournalDamaged(f"the header of {where} is damaged: {columns}")
    header = Header(*columns)
    check_reader(header, where)
    return header


def raise_reader(connection: apsw.Connection) -> None:
    """Before this version writes anything: from now on the file needs a reader that understands it. Durable on return."""
    try:
        connection.execute(
            "UPDATE header SET minimum_reader_version = ? WHERE minimum_reader_version < ?",
            (MINIMUM_READER_VERSION, MINIMUM_READER_VERSION),
        )
    except apsw.Error as error:
        raise translated(error, f"the header of {connection.filename} could not be written") from error


def translated(error: apsw.Error, what: str) -> JournalError:
    """The port's error for one of SQLite's; its message keeps SQLite's words."""
    text = f"{what}: {error}"
    if isinstance(error, apsw.FullError):
        return JournalFull(text)
    if isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.FormatError):
        return JournalDamaged(text)
    if isinstance(error, apsw.ReadOnlyError | apsw.CantOpenError):
        return JournalError(f"{text} (on a read-only file system? SQLite needs to write beside it: copy the directory)")
    return JournalError(text)
