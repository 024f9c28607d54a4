"""Whether a WAL ends in a torn tail or in damage, on files made frame by frame."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest

from actors.journal.port import JournalDamaged
from actors.journal.wal_tail import _MAGIC, _begins_in_one_sector, _sum, check_tail

PAGE = 4096
SALTS = (11, 22)
WORDS = f"<{(8 + PAGE) // 4}I"
STRADDLING = next(number for number in itertools.count(3) if not _begins_in_one_sector(number, PAGE))
TOGETHER = next(number for number in itertools.count(3) if _begins_in_one_sector(number, PAGE))


def wal(path: Path, commits: list[int]) -> Path:
    """A WAL whose commits have so many frames."""
    head = struct.pack(">6I", _MAGIC, 3007000, PAGE, 1, *SALTS)
    checksum = _sum("<6I", (0, 0), head)
    content = head + struct.pack(">2I", *checksum)
    pages = itertools.count(2)
    for frames in commits:
        for left in reversed(range(frames)):
            begin = struct.pack(">2I", next(pages), 0 if left else 40)
            page = bytes([left + 1]) * PAGE
            checksum = _sum(WORDS, checksum, begin + page)
            content += begin + struct.pack(">4I", *SALTS, *checksum) + page
    path.write_bytes(content)
    return path


def overwrite(path: Path, frame: int, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(32 + (frame - 1) * (24 + PAGE) + at)
        file.write(content)


def test_a_stale_first_sector_makes_no_commit_of_a_torn_tail(tmp_path: Path) -> None:
    """Found by the long power-loss sweep, seed 500009, boot 1, moment 452: the check refused a sound journal. Of the append under
    way the first frame's first bytes were still those of an earlier use of the file, where a commit had ended; its salts were in
    the next sector, and written."""
    torn = wal(tmp_path / "wal", [STRADDLING - 1, 5])
    overwrite(torn, STRADDLING, 0, struct.pack(">2I", 9, 17))
    check_tail(torn, STRADDLING - 1)


@pytest.mark.parametrize("begin", [STRADDLING, TOGETHER])
@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_damaged_commit_of_three_frames_with_another_behind_it_is_damage(
    tmp_path: Path, begin: int, damaged: int
) -> None:
    path = wal(tmp_path / "wal", [begin - 1, 3, 3])
    overwrite(path, begin + damaged, 1000, b"\xff")
    assert _begins_in_one_sector(begin + 2, PAGE), "what tells a commit must be believable"
    with pytest.raises(JournalDamaged, match="a later one lies behind it"):
        check_tail(path, begin - 1)


def test_a_damaged_commit_of_one_frame_with_another_behind_it_is_damage(tmp_path: Path) -> None:
    path = wal(tmp_path / "wal", [TOGETHER - 1, 1, 3])
    overwrite(path, TOGETHER, 1000, b"\xff")
    with pytest.raises(JournalDamaged):
        check_tail(path, TOGETHER - 1)
