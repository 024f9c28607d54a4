"""A file system for SQLite whose writes and syncs fail when told to: full disks and failing fsyncs without a real bad
disk.
"""

from __future__ import annotations

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
