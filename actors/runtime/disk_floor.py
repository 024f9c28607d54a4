"""Says when free space falls below the floor, where the shard host refuses new claims, and when it is above it again.

Owns only the telling: the host looks for itself, and decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from actors.shard.host_config import DISK_FLOOR_HYSTERESIS_BYTES

__all__ = ["DiskFloor"]

MEBIBYTE = 1024 * 1024


class DiskFloor:
    """Looked at now and then."""

    def __init__(self, directory: Path, floor_bytes: int, free_in: Callable[[Path], int] | None = None) -> None:
        self._directory = directory
        self._free_in = free_in or free_bytes_in
        self._floor_bytes = floor_bytes
        self._enough_bytes = floor_bytes + DISK_FLOOR_HYSTERESIS_BYTES
        self._low = False

    def crossed(self) -> str:
        """What to tell people when the floor was crossed since the last look; empty otherwise."""
        try:
            free_bytes = self._free_in(self._directory)
        except OSError:
            return ""  # whoever writes there finds out
        low = free_bytes < (self._enough_bytes if self._low else self._floor_bytes)
        if low == self._low:
            return ""
        self._low = low
        free = f"{free_bytes // MEBIBYTE:,} MiB free in {self._directory}"
        if low:
            return (
                f"{free}, less than disk_floor_bytes ({self._floor_bytes // MEBIBYTE:,} MiB): new claims are refused "
                f"(JOURNAL_FULL) until {self._enough_bytes // MEBIBYTE:,} MiB are free; facts and releases go on"
            )
        return f"{free}: new claims are accepted again"


def free_bytes_in(directory: Path) -> int:
    """What an ordinary process may still write there. Raises OSError."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
