"""Remembers everything a process does to the files below a directory, and lets operations of it fail.

SQLite goes through a VFS, which is made the default while recording, so that backups go through it as well. What the journal does
by itself (witness, ballast, lock, renames, backups' manifests) is heard at the functions of ``os``: they do what they always do,
and what they did is written down. Nothing is really synced: whether a sync counts is the modelled disk's to say (``disk``).

The shared memory of a WAL (``-shm``) is made behind the VFS's back; it never survives a power cut here, and SQLite makes it anew.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import apsw

from tests.power_loss.disk import DIRECTORY, Files, Operation, parent_of

BASE_VFS = "unix"
BLOCK_BYTES = 4096
DIRECTORY_SYNCED_WITH = (  # the unix VFS syncs the directory at the first sync of such a file that it was asked to create
    apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
)
HEARD = ("open", "fsync", "rename", "replace", "unlink", "mkdir", "pwrite", "ftruncate", "posix_fallocate", "statvfs")


@dataclass(slots=True)
class Fault:
    """The operation number ``countdown`` of a kind fails: "read", "write" or "sync"; or the process dies there: "kill"."""

    kind: str
    countdown: int
    struck: bool = False
    where: str = ""  # the file, when it was one of SQLite's

    @property
    def of_journal(self) -> bool:
        """Whether it struck the journal's own file or its WAL."""
        return self.where.endswith(("/journal.sqlite3", "/journal.sqlite3-wal"))


class Recorder:
    """``with Recorder(root, files, draw) as recorder``: ``recorder.log`` is what happened below ``root`` (see ``disk.Operation``)."""

    _serial = 0

    def __init__(self, root: Path, files: Files, draw: random.Random, size_bytes: int = 1 << 40) -> None:
        """``files``: what lies below ``root`` now."""
        self.root = str(root)
        self.log: list[Operation] = []
        self.fault: Fault | None = None
        self.dead = False
        self.lies_about: tuple[str, ...] = ()  # syncs of files whose names end so are acknowledged and do nothing
        self.size_bytes = size_bytes  # of the whole disk
        self._draw = draw
        self._names: dict[str, int] = {}
        self._contents: dict[int, bytes] = {}  # of files that are not SQLite's: as last seen
        self._sizes: dict[int, int] = {}
        self._inodes = 0
        self._heard_wholly: set[int] = set()  # every write of them is heard: nobody has to look
        self._real: dict[str, Callable[..., Any]] = {}
        Recorder._serial += 1
        self.vfs_name = f"stockade-recorded-{Recorder._serial}"
        self._vfs: _Vfs | None = None
        for name, content in files.items():  # numbered as ``disk.Disk`` does
            if content is None:
                self._names[name] = DIRECTORY
            else:
                self._names[name] = self._inodes
                self._sizes[self._inodes] = len(content)
                self._inodes += 1

    def __enter__(self) -> Recorder:
        self._vfs = _Vfs(self)
        for name in HEARD:
            self._real[name] = getattr(os, name)
            setattr(os, name, getattr(self, f"_os_{name}"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        if self._vfs is not None:
            self._vfs.unregister()
            self._vfs = None

    # --- what happened ------------------------------------------------------------------------------------------------

    def mark(self, *what: Any) -> None:
        """Put a note of the caller's between the operations."""
        self.log.append(("mark", *what))

    def name_of(self, path: Any) -> str:
        """A path relative to the root, with a slash before it; "?" when it lies elsewhere."""
        text = os.fspath(path)
        return text[len(self.root) :] if text.startswith(f"{self.root}/") or text == self.root else "?"

    def inode_of(self, name: str) -> int:
        """The inode of a file, made (and named in the log) when it is new."""
        if name not in self._names:
            self._names[name] = self._inodes
            self._sizes[self._inodes] = 0
            self._inodes += 1
            self.log.append(("name", {name: self._names[name]}))
        return self._names[name]

    def free_bytes(self) -> int:
        return max(0, self.size_bytes - self.used_bytes())

    def used_bytes(self) -> int:
        return sum(self._sizes[one] for one in set(self._names.values()) if one != DIRECTORY)

    def strikes(self, *kinds: str, where: str = "") -> bool:
        """Whether an operation of these kinds is to fail; it counts them."""
        fault = self.fault
        if fault is None or fault.struck or fault.kind not in kinds:
            return False
        fault.countdown -= 1
        fault.struck = fault.countdown <= 0
        if fault.struck:
            fault.where = where
            self.dead = fault.kind == "kill"
        return fault.struck

    def wrote(self, inode: int, offset: int, data: bytes) -> None:
        self._sizes[inode] = max(self._sizes.get(inode, 0), offset + len(data))
        self.log.append(("write", inode, offset, data))

    def truncated(self, inode: int, size: int) -> None:
        self._sizes[inode] = size
        self.log.append(("truncate", inode, size))

    def synced(self, name: str, inode: int) -> None:
        if not name.endswith(self.lies_about or ("\0",)):
            self.log.append(("sync", inode))

    def sync_failed(self, inode: int) -> None:
        self.log.append(("failed sync", inode, self._draw.randrange(2**32)))

    def growth_fits(self, inode: int, end: int) -> bool:
        growth = end - self._sizes.get(inode, 0)
        return growth <= 0 or growth <= self.free_bytes()

    def removed(self, name: str) -> None:
        if self._names.pop(name, None) is not None:
            self.log.append(("name", {name: None}))

    # --- the functions of os ------------------------------------------------------------------------------------------

    def _alive(self, *kinds: str) -> None:
        if self.dead or self.strikes("kill", *kinds):
            raise OSError(errno.EIO, "the disk or the process is gone")

    def _os_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = self.name_of(path)
        if name == "?" or not flags & os.O_CREAT:
            return int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        self._alive()
        descriptor = int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        inode = self.inode_of(name)
        if flags & os.O_TRUNC and self._sizes[inode]:
            self._contents[inode] = b""
            self.truncated(inode, 0)
        return descriptor

    def _os_fsync(self, descriptor: int) -> None:
        name = self.name_of(os.readlink(f"/proc/self/fd/{descriptor}"))
        if name == "?":
            self._real["fsync"](descriptor)
        elif os.path.isdir(self.root + name):
            self._alive("sync")
            self.log.append(("sync directory", name))
        else:
            self.inode_of(name)
            self._look_at(name)
            if not self.dead and self.strikes("sync"):
                self.sync_failed(self._names[name])
                raise OSError(errno.EIO, "fsync failed")
            self._alive()
            self.synced(name, self._names[name])

    def _look_at(self, name: str) -> None:
        """Note what was written through a file object since one last looked."""
        inode = self._names[name]
        if inode in self._heard_wholly or self.dead:
            return
        content = Path(self.root + name).read_bytes()
        if self._contents.get(inode) != content and (content or inode in self._contents):
            if not self.growth_fits(inode, len(content)):
                raise OSError(errno.ENOSPC, "the disk is full")
            self.wrote(inode, 0, content)
            if len(content) < len(self._contents.get(inode, b"")):
                self.truncated(inode, len(content))
            self._contents[inode] = content

    def _os_rename(self, source: Any, target: Any, **options: Any) -> None:
        self._move("rename", source, target, options)

    def _os_replace(self, source: Any, target: Any, **options: Any) -> None:
        self._move("replace", source, target, options)

    def _move(self, how: str, source: Any, target: Any, options: dict[str, Any]) -> None:
        from_name, to_name = self.name_of(source), self.name_of(target)
        if from_name in self._names and self._names[from_name] != DIRECTORY:
            self._look_at(from_name)
        self._alive("write")
        self._real[how](source, target, **options)
        if from_name in self._names:
            inode = self._names[to_name] = self._names.pop(from_name)
            self.log.append(("name", {from_name: None, to_name: inode}))

    def _os_unlink(self, path: Any, **options: Any) -> None:
        name = self.name_of(path)
        if name in self._names:
            self._alive()
        self._real["unlink"](path, **options)
        self.removed(name)

    def _os_mkdir(self, path: Any, mode: int = 0o777, **options: Any) -> None:
        self._real["mkdir"](path, mode, **options)
        name = self.name_of(path)
        if name != "?":
            self._names[name] = DIRECTORY
            self.log.append(("name", {name: DIRECTORY}))

    def _os_pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        name = self.name_of(os.readlink(f"/proc/self/fd/{descriptor}"))
        if name != "?":
            self._alive("write")
            if not self.growth_fits(self._names[name], offset + len(data)):
                raise OSError(errno.ENOSPC, "the disk is full")
            self._heard_wholly.add(self.inode_of(name))
            self.wrote(self._names[name], offset, bytes(data))
        return int(self._real["pwrite"](descriptor, data, offset))

    def _os_ftruncate(self, descriptor: int, length: int) -> None:
        name = self.name_of(os.readlink(f"/proc/self/fd/{descriptor}"))
        if name != "?":
            self._alive("write")
            self._heard_wholly.add(self.inode_of(name))
            self.truncated(self._names[name], length)
        self._real["ftruncate"](descriptor, length)

    def _os_posix_fallocate(self, descriptor: int, offset: int, length: int) -> None:
        name = self.name_of(os.readlink(f"/proc/self/fd/{descriptor}"))
        if name != "?":
            self._alive("write")
            if not self.growth_fits(self._names[name], offset + length):
                raise OSError(errno.ENOSPC, "the disk is full")
            self._contents[self._names[name]] = bytes(offset + length)
            self.truncated(self._names[name], offset + length)
        self._real["posix_fallocate"](descriptor, offset, length)

    def _os_statvfs(self, path: Any) -> Any:
        if self.name_of(path) == "?":
            return self._real["statvfs"](path)
        return SimpleNamespace(f_bavail=self.free_bytes() // BLOCK_BYTES, f_frsize=BLOCK_BYTES)


class _Vfs(apsw.VFS):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        super().__init__(recorder.vfs_name, BASE_VFS, True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else (name or "")
        if self._recorder.name_of(path) == "?":
            return apsw.VFSFile(BASE_VFS, name, flags)
        return _File(self._recorder, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        recorder = self._recorder
        if recorder.dead or recorder.strikes("kill"):
            raise apsw.IOError("the process is gone")
        super().xDelete(filename, syncdir)
        name = recorder.name_of(filename)
        recorder.removed(name)
        if syncdir:
            recorder.log.append(("sync directory", parent_of(name)))


class _File(apsw.VFSFile):
    def __init__(self, recorder: Recorder, path: str, name: Any, flags: list[int]) -> None:
        wanted = flags[0]
        if recorder.dead:
            raise apsw.CantOpenError("the process is gone")
        super().__init__(BASE_VFS, name, flags)
        self._recorder = recorder
        self._name = recorder.name_of(path)
        self._inode = recorder.inode_of(self._name)
        recorder._heard_wholly.add(self._inode)
        self._directory_due = bool(wanted & apsw.SQLITE_OPEN_CREATE and wanted & DIRECTORY_SYNCED_WITH)

    def xRead(self, amount: int, offset: int) -> bytes:
        recorder = self._recorder
        if recorder.dead or (recorder.fault is not None and recorder.strikes("read", where=self._name)):
            raise apsw.IOError("a read failed")
        read: bytes = super().xRead(amount, offset)
        return read

    def xWrite(self, data: bytes, offset: int) -> None:
        recorder, data = self._recorder, bytes(data)
        if recorder.dead:
            raise apsw.IOError("the process is gone")
        full = not recorder.growth_fits(self._inode, offset + len(data))
        failed = recorder.fault is not None and recorder.strikes("write", "kill", where=self._name)
        if full or failed:
            data = b"" if full else data[: recorder._draw.choice((0, len(data) // 2, len(data)))]
        if data:
            recorder.wrote(self._inode, offset, data)
            super().xWrite(data, offset)
        if full:
            raise apsw.FullError("the disk is full")
        if failed:
            raise apsw.IOError("a write failed")

    def xTruncate(self, newsize: int) -> None:
        recorder = self._recorder
        if recorder.dead or (recorder.fault is not None and recorder.strikes("write", "kill", where=self._name)):
            raise apsw.IOError("a truncation failed")
        recorder.truncated(self._inode, newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        recorder = self._recorder
        if recorder.dead or (recorder.fault is not None and recorder.strikes("kill")):
            raise apsw.IOError("the process is gone")
        if recorder.fault is not None and recorder.strikes("sync", where=self._name):
            recorder.sync_failed(self._inode)
            raise apsw.IOError("fsync failed")
        recorder.synced(self._name, self._inode)
        if self._directory_due:
            self._directory_due = False
            recorder.log.append(("sync directory", parent_of(self._name)))
