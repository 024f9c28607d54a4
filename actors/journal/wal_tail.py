"""Telling a torn tail of the WAL from damage before it.

SQLite reads a WAL up to the first frame whose checksum is wrong and takes the rest for a tail that was never synced. That is right
after a power cut: the last commit was under way and nobody was told of it. But when a later commit lies behind that frame, the one
before it had been synced, and acknowledged: then a disk lost or damaged what it had confirmed, and going on without it would sell
its stock again.

A frame's checksum continues that of the frame before, so frames behind a bad one can still be told by their neighbours. A writer
goes on behind a commit only once that commit is durable; so a commit and a frame that continues it, both beyond where SQLite
stopped, are the proof. Whether a frame is a commit stands in its first bytes, which a power cut may have left as they were while
the sector behind them was written: of a frame whose checksum is wrong they are believed only where they share a sector with the salts.
What it cannot tell: damage to the very last commit, and to the WAL's header. (Format:
https://www.sqlite.org/fileformat2.html#walformat)
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from actors.journal.port import JournalDamaged

_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint number, two salts, two checksums
_FRAME = struct.Struct(">6I")  # page number, pages after a commit (else 0), two salts, two checksums
_SALTS_END = 16  # bytes into a frame: page number, pages after a commit, two salts
_SECTOR_BYTES = 512  # the least that a disk writes as one
_MAGIC = 0x377F0682  # its last bit: checksums over big-endian words

Checksum = tuple[int, int]


class _Frame(NamedTuple):
    number: int
    is_commit: bool
    is_of_this_wal: bool  # not what an earlier use of the file left behind
    checksum: Checksum  # as it is written there
    summed: bytes  # what it is made over


def check_tail(wal: Path, frames_read: int) -> None:
    """Raise ``JournalDamaged`` when commits lie behind the frames that SQLite could read. Reads only what is behind them."""
    try:
        with wal.open("rb") as file:
            found = _commit_behind(file, frames_read)
    except FileNotFoundError:
        return
    if found:
        begin = frames_read + 1
        raise JournalDamaged(
            f"{wal}: the commit from frame {begin} on (byte {_offset(begin, found.page_bytes)}) is damaged, and a later one lies "
            f"behind it, at frame {found.frame}: acknowledged records are lost. Use `stockade restore` with a backup, or put the "
            "undamaged file back"
        )


def has_broken_header(wal: Path) -> bool:
    """Whether there is something behind a header with a wrong checksum: SQLite ignores all of such a WAL."""
    with wal.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not file.read(1):
            return False
    magic = _HEADER.unpack(header)[0]
    return magic & ~1 != _MAGIC or not _sound(header, magic)


class _Found(NamedTuple):
    frame: int
    page_bytes: int


def _commit_behind(file: BinaryIO, frames_read: int) -> _Found | None:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, _, page_bytes, _, *rest = _HEADER.unpack(header)
    if magic & ~1 != _MAGIC or (frames_read == 0 and not _sound(header, magic)):
        return None
    salts = (rest[0], rest[1])
    words = f"{'>' if magic & 1 else '<'}{(8 + page_bytes) // 4}I"
    at = _read(file, frames_read, page_bytes, salts) if frames_read else None
    before, recomputed = None, at.checksum if at is not None else (rest[2], rest[3])
    ends_a_commit = False  # the frame before
    number = frames_read + 1
    while (frame := _read(file, number, page_bytes, salts)) is not None:
        if not frame.is_of_this_wal:
            before = None
        else:
            continues = before is not None and _sum(words, before.checksum, frame.summed) == frame.checksum
            first_bad = number == frames_read + 1
            if first_bad or (
                before is not None and before.number == frames_read + 1
            ):  # a checksum may be what is damaged
                continues = continues or _sum(words, recomputed, frame.summed) == frame.checksum
            if before is not None and ends_a_commit and continues:
                return _Found(before.number, page_bytes)
            ends_a_commit = frame.is_commit and (continues or _begins_in_one_sector(number, page_bytes))
            before = frame
            if first_bad:
                recomputed = _sum(words, recomputed, frame.summed)
        number += 1
    return None


def _sound(header: bytes, magic: int) -> bool:
    words = f"{'>' if magic & 1 else '<'}6I"
    return _sum(words, (0, 0), header[:24]) == _HEADER.unpack(header)[6:]


def _read(file: BinaryIO, number: int, page_bytes: int, salts: tuple[int, int]) -> _Frame | None:
    file.seek(_offset(number, page_bytes))
    content = file.read(_FRAME.size + page_bytes)
    if len(content) < _FRAME.size + page_bytes:
        return None
    _, pages, salt, other, first, second = _FRAME.unpack_from(content)
    summed = content[:8] + content[_FRAME.size :]
    return _Frame(number, pages > 0, (salt, other) == salts, (first, second), summed)


def _begins_in_one_sector(number: int, page_bytes: int) -> bool:
    offset = _offset(number, page_bytes)
    return offset // _SECTOR_BYTES == (offset + _SALTS_END - 1) // _SECTOR_BYTES


def _offset(number: int, page_bytes: int) -> int:
    return _HEADER.size + (number - 1) * (_FRAME.size + page_bytes)


def _sum(words: str, begin: Checksum, content: bytes) -> Checksum:
    """SQLite's checksum of a WAL, continued from ``begin``."""
    first, second = begin
    values = iter(struct.unpack(words, content))
    for one, other in zip(values, values, strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second
