"""Backups of a SQLite journal: online, consistent, with a manifest; and putting one back, which makes a new timeline.

A backup is one SQLite file with a JSON manifest beside it (``<name>.manifest.json``) that says what it is and its
checksum. It is taken through a read-only connection of its own, so any process may take one while a server writes; the
server's WAL grows meanwhile and shrinks afterwards. A restored journal is another history from its end on: its new
timeline tells every cache and cursor so, while ids made earlier stay valid, because they carry the timeline they were
made in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apsw

from actors.journal.disk import BALLAST_FILE, sync_directory, write_durably
from actors.journal.lock import JournalLock
from actors.journal.port import JournalDamaged, JournalError, JournalMismatch, ShardHead
from actors.journal.settling import COPY_SUFFIX, sync_upwards
from actors.journal.sqlite import SqliteJournal
from actors.journal.sqlite_open import check_shards, open_read_only, random_id, remove_database
from actors.journal.sqlite_schema import DATABASE_FILE, connect, connect_writer, pragma, read_header, translated
from actors.journal.witness import WITNESS_FILE, WitnessFile

PAGES_PER_STEP = 1_024  # 4 MiB between two calls of ``progress``
MANIFEST_VERSION = 1
HASH_CHUNK_BYTES = 1 << 20

Progress = Callable[[int, int], None]  # done, in all: pages when backing up, bytes when restoring


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. ``heads``: [shard, epoch, record number, sequence] of every shard."""

    version: int
    cluster_id: str
    timeline: str
    format_version: int
    minimum_reader_version: int
    shard_count: int
    placement_version: int
    backup_time_ms: int
    size_bytes: int
    sha256: str
    heads: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class SqliteRestored:
    """What a restore did. ``put_aside``: where the journal that was there before lies now."""

    manifest: Manifest
    timeline: str
    restore_time_ms: int
    put_aside: Path | None


def backup(directory: Path, destination: Path, *, now_ms: int, progress: Progress | None = None) -> Manifest:
    """Copy the journal in ``directory`` as it is now to the file ``destination``, which must not exist.

    The file appears under its name only when it is whole, its manifest before it. Raises ``JournalError``,
    ``JournalFull``.
    """
    if destination.exists():
        raise JournalError(f"{destination} exists already: a backup never overwrites one")
    if not destination.parent.is_dir():
        raise JournalError(f"there is no directory {destination.parent} to put the backup in")
    journal = open_read_only(directory)
    temporary = destination.with_name(f".{destination.name}.part")
    try:
        remove_database(temporary)
        _copy(journal, temporary, progress)
        manifest = _manifest(temporary, now_ms)
        write_durably(manifest_path(destination), json.dumps(asdict(manifest), indent=2).encode() + b"\n")
        temporary.rename(destination)
        sync_directory(destination.parent)
    except OSError as error:
        raise JournalError(f"the backup {destination} could not be written: {error.strerror}") from error
    finally:
        journal.close()
        remove_database(temporary)
    return manifest


def manifest_path(destination: Path) -> Path:
    """Where the manifest of a backup lies."""
    return destination.with_name(f"{destination.name}.manifest.json")


def restore(
    source: Path,
    lock: JournalLock,
    *,
    now_ms: int,
    replace_existing: str = "",
    new_id: Callable[[], str] = random_id,
    progress: Progress | None = None,
) -> SqliteRestored:
    """Put a backup back into the locked directory, with a new timeline; the lock stays the caller's.

    A journal that is there already is kept beside it under the name ``replaced-<timeline>``, and only when
    ``replace_existing`` names its cluster id; else ``JournalMismatch`` says so. Raises ``JournalDamaged`` when the
    backup is not what its manifest says.
    """
    manifest = read_manifest(source)
    directory = lock.directory
    path = directory / DATABASE_FILE
    replaced = _identity(directory)
    if replaced is not None and replace_existing != replaced[0]:
        raise JournalMismatch(
            f"{directory} holds a journal already (cluster {replaced[0]}, timeline {replaced[1]}); it would be put "
            f"aside, not "
            f"removed. To do so give `--replace {replaced[0]}`"
        )
    temporary = directory / f"{DATABASE_FILE}.restoring"
    try:
        remove_database(temporary)
        _copy_checked(source, temporary, manifest, progress)
        timeline = new_id()
        heads = _begin_timeline(temporary, timeline)
        kept = _put_aside(directory, *replaced) if replaced is not None else None
        temporary.rename(path)
        sync_upwards(directory)
    except OSError as error:
        raise JournalError(f"the journal could not be restored to {directory}: {error.strerror}") from error
    finally:
        remove_database(temporary)
    connection = connect_writer(path)
    try:
        WitnessFile(directory).write(read_header(connection), heads)
    finally:
        connection.close()
    return SqliteRestored(manifest, timeline, now_ms, kept)


def read_manifest(source: Path) -> Manifest:
    """The manifest beside a backup. ``JournalDamaged`` when it is missing or not one."""
    path = manifest_path(source)
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
        fields["heads"] = tuple(tuple(int(part) for part in head) for head in fields["heads"])
        manifest = Manifest(**fields)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise JournalDamaged(f"the backup's manifest {path} cannot be used: {error}") from error
    if manifest.version != MANIFEST_VERSION:
        raise JournalMismatch(f"{path} is of version {manifest.version}; this version reads {MANIFEST_VERSION}")
    return manifest


def _copy(journal: SqliteJournal, temporary: Path, progress: Progress | None) -> None:
    """Copy page by page within one read transaction, so that the copy is the journal at one moment."""
    copy = connect(temporary, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, None)
    try:
        with journal.reading() as source, copy.backup("main", source, "main") as pages:
            while not pages.done:
                pages.step(PAGES_PER_STEP)
                if progress is not None:
                    progress(pages.page_count - pages.remaining, pages.page_count)
        pragma(copy, "journal_mode", "delete", "delete")  # one file, readable without anything beside it
    except apsw.Error as error:
        raise translated(error, f"the backup {temporary} could not be made") from error
    finally:
        copy.close()
    with temporary.open("rb") as file:
        os.fsync(file.fileno())


def _manifest(copied: Path, now_ms: int) -> Manifest:
    connection = connect(copied, apsw.SQLITE_OPEN_READONLY, None)
    copy = SqliteJournal(connection, copied)
    try:
        check_shards(copy, copied)
        header = copy.header
        heads = copy.all_heads()
        for head in heads:
            copy.check_head(head)
    finally:
        copy.close()
    return Manifest(
        MANIFEST_VERSION,
        header.cluster_id,
        header.timeline,
        header.format_version,
        header.minimum_reader_version,
        header.shard_count,
        header.placement_version,
        now_ms,
        copied.stat().st_size,
        _sha256(copied),
        tuple((head.shard, head.epoch, head.record_number, head.sequence) for head in heads),
    )


def _copy_checked(source: Path, temporary: Path, manifest: Manifest, progress: Progress | None) -> None:
    """Copy the backup and compare what was copied with its manifest."""
    digest = hashlib.sha256()
    done = 0
    with source.open("rb") as reader, temporary.open("xb") as writer:
        while chunk := reader.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
            writer.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, manifest.size_bytes)
        writer.flush()
        os.fsync(writer.fileno())
    if (done, digest.hexdigest()) != (manifest.size_bytes, manifest.sha256):
        raise JournalDamaged(
            f"the backup {source} is not what its manifest says: {done} bytes, sha256 {digest.hexdigest()}"
        )


def _begin_timeline(restored: Path, timeline: str) -> list[ShardHead]:
    """Give the copy its new timeline and make it a journal's file again."""
    connection = connect_writer(restored)
    try:
        connection.execute("UPDATE header SET timeline = ?", (timeline,))
        rows = connection.execute("SELECT shard, epoch, record_number, sequence, time_ms FROM shards ORDER BY shard")
        heads = [ShardHead(*row) for row in rows]
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.Error as error:
        raise translated(error, f"{restored} could not be given its timeline") from error
    finally:
        connection.close()
    return heads


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _identity(directory: Path) -> tuple[str, str] | None:
    """(cluster id, timeline) of the journal that is or was in a directory; None when there never was one."""
    with contextlib.suppress(JournalDamaged):
        witness = WitnessFile(directory).read()
        if witness is not None:
            return witness.cluster_id, witness.timeline
    if not (directory / DATABASE_FILE).exists():
        return ("unreadable", "unknown") if (directory / WITNESS_FILE).exists() else None
    try:
        journal = open_read_only(directory)
    except JournalError:
        return "unreadable", "unknown"
    try:
        return journal.header.cluster_id, journal.header.timeline
    finally:
        journal.close()


def _put_aside(directory: Path, cluster_id: str, timeline: str) -> Path:
    """Move a journal's files into a directory of their own beside it; which one.

    The witness stays until the restored journal's takes its place: when this is cut short, opening finds a journal gone that the
    witness knows of, or another than it knows, and refuses, where it would otherwise begin an empty one.
    """
    aside = directory / f"replaced-{timeline}"
    number = 1
    while aside.exists():
        number += 1
        aside = directory / f"replaced-{timeline}-{number}"
    aside.mkdir(mode=0o750)
    witness = directory / WITNESS_FILE
    if not witness.exists():
        WitnessFile(directory).name(cluster_id, timeline)
    write_durably(aside / WITNESS_FILE, witness.read_bytes())
    sync_directory(directory)
    wal = f"{DATABASE_FILE}-wal"
    for name in (DATABASE_FILE, wal, f"{wal}{COPY_SUFFIX}", f"{DATABASE_FILE}-shm"):
        with contextlib.suppress(FileNotFoundError):
            shutil.move(directory / name, aside / name)
    sync_directory(aside)
    sync_directory(directory)  # before the restored file comes: a WAL that is still here would be taken for its own
    with contextlib.suppress(FileNotFoundError):
        (directory / BALLAST_FILE).unlink()
    return aside
