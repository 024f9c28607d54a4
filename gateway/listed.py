"""What was listed so far: a set of hashes in one flat array, so that a million lines cost 16 MB and no objects.

Two different lines whose 64-bit hashes are the same would be taken for one: at a million lines, one chance in 40 million.
"""

from __future__ import annotations

from array import array
from typing import Any

SLOTS_AT_FIRST = 1 << 12
MASK = (1 << 64) - 1


class Listed:
    """Open addressing with linear steps, at most half full."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * SLOTS_AT_FIRST))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, what: tuple[Any, ...]) -> bool:
        """Remember it; False when it was there already."""
        if 2 * self._count >= len(self._slots):
            self._grow()
        if not _put(self._slots, _hash(what)):
            return False
        self._count += 1
        return True

    def __contains__(self, what: tuple[Any, ...]) -> bool:
        slots, wanted = self._slots, _hash(what)
        last = len(slots) - 1
        at = wanted & last
        while slots[at]:
            if slots[at] == wanted:
                return True
            at = (at + 1) & last
        return False

    def _grow(self) -> None:
        larger = array("Q", bytes(8 * 2 * len(self._slots)))
        for value in self._slots:
            if value:
                _put(larger, value)
        self._slots = larger


def _hash(what: tuple[Any, ...]) -> int:
    return hash(what) & MASK or 1  # 0 is an empty slot


def _put(slots: array[int], value: int) -> bool:
    last = len(slots) - 1
    at = value & last
    while slots[at]:
        if slots[at] == value:
            return False
        at = (at + 1) & last
    slots[at] = value
    return True
