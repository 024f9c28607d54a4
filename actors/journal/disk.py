"""Room on the journal's disk: how much is free, and a ballast file that is given up when there is none left.

A full disk ends the owner of the journal. Its successor must commit an epoch before it may even serve reads, so a
little room is kept aside in a file with real blocks. Whether new claims are still accepted (the floor) is the shard
host's to say.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

BALLAST_FILE = "ballast"
BALLAST_BYTES = 16 * 1024 * 1024  # several takeovers of all shards, their first records and a WAL's index
OPENING_BYTES = 4 * 1024 * 1024  # with less than this free, opening gives up the ballast beforehand


def free_bytes(directory: Path) -> int:
    """What an unprivileged process may still write there."""
    room = os.statvfs(directory)
    return room.f_bavail * room.f_frsize


class Ballast:
    """The ballast file of one journal directory. Failing to make it is no error: a full disk is what it is for."""

    def __init__(self, directory: Path, size_bytes: int = BALLAST_BYTES) -> None:
        """``size_bytes`` 0: no ballast is kept."""
        self._path = directory / BALLAST_FILE
        self._size_bytes = size_bytes
        self._whole = False

    def restore(self) -> None:
        """Make it when it is missing and there is room for twice its size. Cheap when it is there."""
        if self._whole or not self._size_bytes:
            return
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size >= self._size_bytes:
                self._whole = True
                return
        try:
            if free_bytes(self._path.parent) < 2 * self._size_bytes:
                return
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.posix_fallocate(descriptor, 0, self._size_bytes)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
                raise
            with contextlib.suppress(OSError):
                self._path.unlink()
            return
        self._whole = True

    def release(self) -> bool:
        """Give its blocks back to the disk; whether there was anything to give."""
        self._whole = False
        try:
            self._path.unlink()
        except OSError:
            return False
        sync_directory(self._path.parent)
        return True


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable (creations, renames, removals)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a small file in one step, durably: after a crash there is the old content or the new."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)
