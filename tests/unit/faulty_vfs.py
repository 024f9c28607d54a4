"""A file system for SQLite whose writes and syncs fail when told to: full disks and failing fsyncs without a real bad
disk.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw


class FaultyVfs(apsw.VFS):
    """Register it by making it; give its ``name`` as ``vfs``. Writes beyond what is left raise SQLITE_FULL."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.writes_left: int | None = None  # None: no bound
        self.syncs_left: int | None = None
        self.only = "-wal"  # which files, by the end of their name
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)

    def writes(self, path: str) -> None:
        """A page is about to be written to that file."""
        if self.writes_left is None or not path.endswith(self.only):
            return
        if self.writes_left <= 0:
            raise apsw.FullError("the disk is full")
        self.writes_left -= 1

    def syncs(self, path: str) -> None:
        """That file is about to be synced."""
        if self.syncs_left is None or not path.endswith(self.only):
            return
        if self.syncs_left <= 0:
            raise apsw.IOError("fsync failed")
        self.syncs_left -= 1


class _File(apsw.VFSFile):
    def __init__(self, vfs: FaultyVfs, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._vfs = vfs
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else (name or "")
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._vfs.writes(self._path)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._vfs.syncs(self._path)
        super().xSync(flags)


class RecordingVfs(apsw.VFS):
    """Remembers every write, truncation and sync, so that a power cut at any moment can be played afterwards.

    ``log``: (file name, "write", offset, bytes) · (file name, "truncate", size) · (file name, "sync") · whatever a test
    adds.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.log: list[tuple[Any, ...]] = []
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _RecordedFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.log.append((Path(filename).name, "truncate", 0))
        self.log.append((Path(filename).name, "sync"))
        super().xDelete(filename, syncdir)


class _RecordedFile(apsw.VFSFile):
    def __init__(self, vfs: RecordingVfs, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._log = vfs.log
        path = name.filename() if isinstance(name, apsw.URIFilename) else (name or "")
        self._name = Path(path).name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._log.append((self._name, "write", offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._log.append((self._name, "truncate", newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._log.append((self._name, "sync"))


SECTOR_BYTES = 512


def after_power_cut(log: Sequence[tuple[Any, ...]], moment: int, draw: random.Random) -> dict[str, bytes]:
    """The files as a disk may hold them when the power goes right after ``log[:moment]``.

    What a file's sync covered is there. Of what was written since, each write is there, is not, or is there in part:
    any of its sectors, in any order, as disks do.
    """
    files: dict[str, bytearray] = {}
    pending: dict[str, list[tuple[Any, ...]]] = {}
    for name, *entry in log[:moment]:
        if entry[0] == "sync":
            for one in pending.pop(name, []):
                _apply(files.setdefault(name, bytearray()), one)
        elif entry[0] in ("write", "truncate"):
            pending.setdefault(name, []).append(tuple(entry))
    for name, entries in pending.items():
        for one in entries:
            fate = draw.random()
            if fate < 0.4:
                _apply(files.setdefault(name, bytearray()), one)
            elif fate < 0.6 and one[0] == "write":
                _apply_in_part(files.setdefault(name, bytearray()), one, draw)
    return {name: bytes(content) for name, content in files.items()}


def _apply(content: bytearray, entry: tuple[Any, ...]) -> None:
    if entry[0] == "truncate":
        del content[entry[1] :]
        return
    _, offset, data = entry
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


def _apply_in_part(content: bytearray, entry: tuple[Any, ...], draw: random.Random) -> None:
    _, offset, data = entry
    for at in range(0, len(data), SECTOR_BYTES):
        if draw.random() < 0.5:
            _apply(content, ("write", offset + at, data[at : at + SECTOR_BYTES]))
