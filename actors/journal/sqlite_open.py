"""Opening a SQLite journal: making it, and refusing one that is not the right one.

Layout of the directory: ``journal.sqlite3`` (and SQLite's ``-wal`` and ``-shm``), ``journal.lock``, ``witness.json``,
``ballast``. Nobody opens the file for writing without the lock.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import apsw

from actors.journal.codec import FORMAT_VERSION
from actors.journal.disk import BALLAST_BYTES, OPENING_BYTES, Ballast, free_bytes
from actors.journal.lock import JournalLock
from actors.journal.port import Header, JournalDamaged, JournalError, JournalMismatch
from actors.journal.settling import settle
from actors.journal.sqlite import SqliteJournal
from actors.journal.sqlite_schema import (
    DATABASE_FILE,
    connect_reader,
    connect_writer,
    create_file,
    raise_reader,
    translated,
)
from actors.journal.versions import MINIMUM_READER_VERSION
from actors.journal.wal_tail import check_tail
from actors.journal.witness import WitnessFile, compare

ID_BYTES = 8


class Wanted(NamedTuple):
    """The journal that is asked for. Empty ``cluster_id``: whichever is there, and a random one for a new journal."""

    shard_count: int
    placement_version: int
    cluster_id: str = ""


def random_id() -> str:
    """A random id of a cluster or a timeline: 16 hexadecimal digits."""
    return secrets.token_hex(ID_BYTES)


def open_journal(
    lock: JournalLock,
    wanted: Wanted,
    *,
    now_ms: int,
    new_id: Callable[[], str] = random_id,
    ballast_bytes: int = BALLAST_BYTES,
    vfs: str | None = None,
) -> SqliteJournal:
    """Open the journal in the locked directory for writing; make it when there is none and never was one.

    The journal owns the lock from here on, and releases it in ``close``; when opening fails the lock is still the
    caller's. Raises ``JournalMismatch`` (another cluster, shard count, placement or version), ``JournalDamaged`` (says
    where), ``JournalFull``. ``vfs``: the name of an apsw VFS, for tests.
    """
    directory = lock.directory
    path = directory / DATABASE_FILE
    witness = WitnessFile(directory)
    ballast = Ballast(directory, ballast_bytes)
    known = witness.read()
    if not path.exists():
        if known is not None:
            raise JournalDamaged(
                f"the journal {path} is gone, but its witness knows of it (cluster {known.cluster_id}): put the file "
                f"back, or use "
                "`stockade restore` with a backup"
            )
        _create(path, wanted, now_ms, new_id, vfs)
    if free_bytes(directory) < OPENING_BYTES:
        ballast.release()
    settle(path)
    connection = connect_writer(path, vfs)
    journal = SqliteJournal(connection, path, lock, witness, ballast)
    try:
        check_tail(path.with_name(f"{path.name}-wal"), _wal_frames(connection))
        check_wanted(journal.header, wanted, path)
        heads = journal.all_heads()
        check_shards(journal, path)
        if known is not None:
            compare(known, journal.header, heads, str(path))
        else:
            witness.write(journal.header, heads)
        for head in heads:
            journal.check_head(head)
        ballast.restore()
        raise_reader(connection)
        journal.read_header_again()
    except BaseException:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # what is refused stays as it was found
        journal.detach()
        raise
    lock.name_cluster(journal.header.cluster_id)
    return journal


def _wal_frames(connection: apsw.Connection) -> int:
    """How many frames of the WAL SQLite reads: up to the last commit that is whole."""
    noop = getattr(apsw, "SQLITE_CHECKPOINT_NOOP", apsw.SQLITE_CHECKPOINT_PASSIVE)  # the former since SQLite 3.51
    try:
        frames, _ = connection.wal_checkpoint(mode=noop)
    except apsw.Error as error:
        raise translated(error, f"the WAL of {connection.filename} could not be read") from error
    return int(frames)


def open_read_only(directory: Path) -> SqliteJournal:
    """Open a journal to look at it, while a server may be running. Every write raises ``JournalError``."""
    path = directory / DATABASE_FILE
    journal = SqliteJournal(connect_reader(path), path)
    try:
        check_shards(journal, path)
    except BaseException:
        journal.close()
        raise
    return journal


def _create(path: Path, wanted: Wanted, now_ms: int, new_id: Callable[[], str], vfs: str | None) -> None:
    """Make the whole file under another name first: there is never half a journal. ``settle`` makes its name durable."""
    header = Header(
        cluster_id=wanted.cluster_id or new_id(),
        timeline=new_id(),
        format_version=FORMAT_VERSION,
        minimum_reader_version=MINIMUM_READER_VERSION,
        shard_count=wanted.shard_count,
        placement_version=wanted.placement_version,
        create_time_ms=now_ms,
    )
    temporary = path.with_name(f"{path.name}.new")
    remove_database(temporary)
    create_file(temporary, header, vfs)
    try:
        temporary.rename(path)
    except OSError as error:
        raise JournalError(f"the journal {path} could not be made: {error.strerror}") from error


def remove_database(path: Path) -> None:
    """Remove an SQLite file and what SQLite keeps beside it. Nobody may have it open."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")


def check_wanted(header: Header, wanted: Wanted, path: Path | str) -> None:
    """Raise ``JournalMismatch`` when the journal is not the one asked for; says which part and both values."""
    asked = (
        (
            "cluster id",
            header.cluster_id,
            wanted.cluster_id or header.cluster_id,
            "look at journal.url, data_dir and cluster.cluster_id",
        ),
        ("shard count", header.shard_count, wanted.shard_count, f"set shard_count = {header.shard_count}"),
        (
            "placement version",
            header.placement_version,
            wanted.placement_version,
            "install the release that made it, or a later one",
        ),
    )
    for what, found, value, fix in asked:
        if found != value:
            raise JournalMismatch(
                f"{path} has {what} {found}, asked for was {value}; it is fixed for the life of a cluster: {fix}"
            )


def check_shards(journal: SqliteJournal, path: Path) -> None:
    """Raise ``JournalDamaged`` unless the table of shards is whole."""
    try:
        shards = [head.shard for head in journal.all_heads()]
    except apsw.Error as error:
        raise JournalDamaged(f"{path}: its table of shards cannot be read: {error}") from error
    if shards != list(range(journal.header.shard_count)):
        raise JournalDamaged(f"{path} has rows for {len(shards)} shards; its header says {journal.header.shard_count}")
