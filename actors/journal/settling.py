"""Settling: what an earlier owner left behind is made durable before a new one reads it and builds upon it.

That owner may have been killed between a write and its sync, or have ended because a sync failed: then the kernel shows bytes that
are not on the disk, may take them for clean, and no later sync writes them. An owner that serves what it sees would lose it, and
all that it appended behind it, to the next power cut. Whatever may not be in the database file yet is in the WAL, and is moved from
there again; so it is the WAL whose bytes are written once more, and the names in the directories.

The bytes are written over themselves. A power cut in that moment may leave a sector that is neither old nor new, so a copy with a
checksum lies beside them meanwhile. It knows nothing of what is in a WAL but whether its header is whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from pathlib import Path

import google_crc32c

from actors.journal.disk import sync_directory
from actors.journal.port import JournalError, JournalFull
from actors.journal.wal_tail import has_broken_header

COPY_SUFFIX = ".settling"
UNREADABLE_SUFFIX = ".unreadable"
CHUNK_BYTES = 1 << 20

_TRAILER = struct.Struct("<QI8s")  # length, CRC32C, and what it is
_MAGIC = b"settling"


def settle(path: Path) -> None:
    """Make the journal at ``path`` durable as it is seen now. Nobody may write it meanwhile; reading is harmless.

    Nothing but the directories is left to do when it was closed in order. Raises ``JournalError``, ``JournalFull``.
    """
    wal = path.with_name(f"{path.name}-wal")
    copy = path.with_name(f"{path.name}-wal{COPY_SUFFIX}")
    try:
        if _is_whole(copy):
            _write_over(copy, wal, copy.stat().st_size - _TRAILER.size)
        elif wal.exists():
            _copy(wal, copy)
            _write_over(wal, wal, wal.stat().st_size)
        if copy.exists() and has_broken_header(wal):
            _empty(wal, copy)
        with contextlib.suppress(FileNotFoundError):
            copy.unlink()
        sync_upwards(path.parent)
    except OSError as error:
        kind = JournalFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else JournalError
        raise kind(f"the journal {path} could not be made durable as it is: {error.strerror}") from error


def sync_upwards(directory: Path) -> None:
    """Make a directory durable, and all above it on the same file system: who made them may not have done so.

    Directories above that this user may not open were there before.
    """
    device = directory.stat().st_dev
    for one in (directory, *directory.resolve().parents):
        if one.stat().st_dev != device:
            return
        with contextlib.suppress(PermissionError):
            sync_directory(one)


def _copy(wal: Path, copy: Path) -> None:
    """A durable copy with its checksum; none when there is no room: then the disk's sectors had better be atomic."""
    checksum, length = 0, 0
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        with os.fdopen(descriptor, "wb") as writer, wal.open("rb") as reader:
            while chunk := reader.read(CHUNK_BYTES):
                writer.write(chunk)
                checksum, length = google_crc32c.extend(checksum, chunk), length + len(chunk)
            writer.write(_TRAILER.pack(length, checksum, _MAGIC))
            writer.flush()
            os.fsync(writer.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        copy.unlink()
        return
    sync_directory(copy.parent)


def _empty(wal: Path, copy: Path) -> None:
    """Empty a WAL that SQLite ignores because its header is broken, and keep the copy for whoever wants to look.

    Such a header is left by a restart of the WAL that was cut short, when all of it was in the file already. Were it damaged with
    commits behind it, the journal would be behind its witness. It must not stay: SQLite would begin the WAL anew with the old
    salts, and ``wal_tail`` could not tell old frames from present ones.
    """
    copy.replace(wal.with_name(f"{wal.name}{UNREADABLE_SUFFIX}"))
    sync_directory(wal.parent)
    descriptor = os.open(wal, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole(copy: Path) -> bool:
    """Whether there is a copy, and all of it. The WAL is as old as it then: the copy goes before anything is appended."""
    try:
        with copy.open("rb") as reader:
            left = os.fstat(reader.fileno()).st_size - _TRAILER.size
            if left < 0:
                return False
            length, checksum = left, 0
            while left > 0 and (chunk := reader.read(min(CHUNK_BYTES, left))):
                checksum, left = google_crc32c.extend(checksum, chunk), left - len(chunk)
            return reader.read() == _TRAILER.pack(length, checksum, _MAGIC)
    except FileNotFoundError:
        return False


def _write_over(source: Path, wal: Path, length: int) -> None:
    """Write the first ``length`` bytes of ``source`` over the WAL's, and sync it."""
    descriptor = os.open(wal, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        with source.open("rb") as reader:
            at = 0
            while chunk := reader.read(min(CHUNK_BYTES, length - at)):
                at += os.pwrite(descriptor, chunk, at)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
