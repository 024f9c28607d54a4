"""A disk as honest as a bad one: what was not synced may be there after a power cut, may not, or may be torn.

It is fed a log of operations (``disk_recording`` makes one) and answers which files may be found after a cut right behind any of
them. The rules are POSIX's, not those of one kind of file system:

* a file's bytes and size are certain once the file was synced after they were written; of every write since, each sector of
  512 bytes is old, new or, seldom, garbage; a truncation happened or not;
* a name (made, renamed, removed) is certain once its directory was synced; until then each change of a name happened or not,
  mostly in their order as journaling file systems have it, sometimes in none;
* a failed sync may have written some of what was pending, and forget the rest: later syncs succeed without it, while every
  reader of the same boot still sees it (what Linux does).

It opens no file and knows nothing of SQLite.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

SECTOR_BYTES = 512
DIRECTORY = -1

Operation = tuple[Any, ...]
"""("write", inode, offset, bytes) · ("truncate", inode, size) · ("sync", inode) · ("failed sync", inode, seed) ·
("name", {path: inode, DIRECTORY or None}) · ("sync directory", path) · ("mark", anything)"""

Files = dict[str, bytes | None]  # path → content; None: a directory


@dataclass(slots=True)
class Inode:
    """A file's certain bytes and what is still on its way to them."""

    content: bytearray = field(default_factory=bytearray)
    pending: list[Operation] = field(default_factory=list)


class Disk:
    """The disk after some operations. ``advance`` it, and ask what a power cut would leave."""

    def __init__(self, files: Files) -> None:
        """``files``: what is there for certain at the beginning; inodes are numbered from 0 in this order."""
        self.inodes: dict[int, Inode] = {}
        self.names: dict[str, int] = {}
        self.pending_names: list[dict[str, int | None]] = []
        for path, content in files.items():
            if content is None:
                self.names[path] = DIRECTORY
            else:
                self.names[path] = len(self.inodes)
                self.inodes[len(self.inodes)] = Inode(bytearray(content))

    def advance(self, operation: Operation) -> None:
        """One operation more has happened."""
        kind = operation[0]
        if kind in ("write", "truncate"):
            self._inode(operation[1]).pending.append(operation)
        elif kind == "sync":
            inode = self._inode(operation[1])
            for one in inode.pending:
                apply(inode.content, one)
            inode.pending.clear()
        elif kind == "failed sync":
            self._half_synced(self._inode(operation[1]), random.Random(operation[2]))
        elif kind == "name":
            self.pending_names.append(operation[1])
        elif kind == "sync directory":
            self._sync_names(operation[1])

    def _inode(self, number: int) -> Inode:
        return self.inodes.setdefault(number, Inode())

    def _half_synced(self, inode: Inode, draw: random.Random) -> None:
        """Some of what was pending is certain now, some still pending, some forgotten for good."""
        left = []
        chance = draw.random()
        for one in inode.pending:
            fate = draw.random()
            if fate < chance * 0.7:
                apply(inode.content, one)
            elif fate < 0.7:
                left.append(one)
        inode.pending = left

    def _sync_names(self, directory: str) -> None:
        left = []
        for change in self.pending_names:
            if any(parent_of(path) == directory for path in change):
                _rename(self.names, change)
            else:
                left.append(change)
        self.pending_names = left

    def after_power_cut(self, draw: random.Random) -> Files:
        """The files as they may be found when the power goes now; the disk itself goes on unchanged."""
        names = dict(self.names)
        changes = self.pending_names
        if draw.random() < 0.7:
            changes = changes[: draw.randint(0, len(changes))]
        else:
            changes = [change for change in changes if draw.random() < 0.5]
        for change in changes:
            _rename(names, change)
        taste = draw.choice(("none", "all", "begin", "some", "torn", "torn"))
        found: Files = {}
        for path, number in sorted(names.items()):
            if number == DIRECTORY:
                found[path] = None
            else:
                found[path] = _survived(self._inode(number), taste, draw)
        return {path: content for path, content in found.items() if _reachable(path, found)}


def _survived(inode: Inode, taste: str, draw: random.Random) -> bytes:
    pending = inode.pending
    if taste == "none" or not pending:
        return bytes(inode.content)
    content = bytearray(inode.content)
    if taste == "begin":
        pending = pending[: draw.randint(0, len(pending))]
    chance = draw.random()
    for one in pending:
        if taste in ("all", "begin") or draw.random() < chance:
            if taste == "torn" and one[0] == "write" and draw.random() < 0.5:
                _apply_torn(content, one, draw)
            else:
                apply(content, one)
    return bytes(content)


def apply(content: bytearray, operation: Operation) -> None:
    """Write or truncate; a write behind the end leaves zeros between."""
    if operation[0] == "truncate":
        size = operation[2]
        del content[size:]
        content.extend(bytes(size - len(content)))
        return
    _, _, offset, data = operation
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


def _apply_torn(content: bytearray, operation: Operation, draw: random.Random) -> None:
    """Some sectors of a write, in the file's grid of sectors; the bytes beside it stay as they are."""
    _, inode, offset, data = operation
    at = 0
    while at < len(data):
        length = min(SECTOR_BYTES - (offset + at) % SECTOR_BYTES, len(data) - at)
        fate = draw.random()
        if fate < 0.5:
            apply(content, ("write", inode, offset + at, data[at : at + length]))
        elif fate < 0.52:
            apply(content, ("write", inode, offset + at, draw.randbytes(length)))
        at += length


def _rename(names: dict[str, int], change: dict[str, int | None]) -> None:
    for path, number in change.items():
        if number is None:
            names.pop(path, None)
        else:
            names[path] = number


def _reachable(path: str, found: Files) -> bool:
    parent = parent_of(path)
    return parent == "" or (parent in found and _reachable(parent, found))


def parent_of(path: str) -> str:
    """The directory a path lies in; "" is the top, which is always there."""
    return path.rpartition("/")[0]


def moments(log: Sequence[Operation], files: Files, wanted: Iterable[int]) -> Iterable[tuple[int, Disk]]:
    """(moment, the disk right after ``log[:moment]``) for each of the wanted moments, which ascend."""
    disk, done = Disk(files), 0
    for moment in wanted:
        for operation in log[done:moment]:
            disk.advance(operation)
        done = moment
        yield moment, disk
