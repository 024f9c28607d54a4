"""Who looks at what ``serve`` says learns that claims are refused for want of space, and when that is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.runtime.disk_floor import DiskFloor

MEBIBYTE = 1024 * 1024
HERE = Path("/data")


@pytest.mark.parametrize(
    ("free_mebibytes", "told"),
    [
        ([1000, 500, 257, 256], ["", "", "", ""]),
        ([1000, 255, 100], ["", "refused", ""]),
        ([60], ["refused"]),
        ([255, 300, 319, 320, 300], ["refused", "", "", "accepted again", ""]),
        ([255, 400, 200], ["refused", "accepted again", "refused"]),
    ],
)
def test_each_crossing_is_told_once_and_back_only_well_above(free_mebibytes: list[int], told: list[str]) -> None:
    free = iter(free_mebibytes)
    floor = DiskFloor(HERE, 256 * MEBIBYTE, lambda _directory: next(free) * MEBIBYTE)
    for expected in told:
        message = floor.crossed()
        assert expected in message
        assert bool(message) == bool(expected)


def test_a_directory_that_cannot_be_asked_is_nothing_to_tell() -> None:
    def fails(_directory: Path) -> int:
        raise OSError("gone")

    assert DiskFloor(HERE, MEBIBYTE, fails).crossed() == ""


def test_the_real_directory_has_space(tmp_path: Path) -> None:
    assert DiskFloor(tmp_path, 0).crossed() == ""
    assert "new claims are refused" in DiskFloor(tmp_path, 2**62).crossed()
