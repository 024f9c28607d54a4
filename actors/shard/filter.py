"""The compact filter before the entries table: says "certainly not stored" for nearly every fresh id, in a microsecond.

A Bloom filter (B. H. Bloom, 1970) in layers: when a layer holds as many keys as it was sized for, a layer twice as
large is begun. At ``BITS_PER_KEY`` bits and three probes a full layer answers a false "maybe" about 3 % of the time,
which costs one look-up in the table and never a wrong answer. A layer is forgotten a window after it was full: its rows
have left the table then. Rebuilt from the table at start; Python's own salted hash serves, since nothing of it outlives
the process.
"""

from __future__ import annotations

from collections.abc import Iterable

BITS_PER_KEY = 8
FIRST_LAYER_KEYS = 1 << 16


class EntryFilter:
    """``key in filter``: False is certain, True means maybe."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._layers: list[bytearray] = []
        self._full_ms: list[int] = []  # beside the full layers: when each was first seen full
        self._room = 0
        self.count = 0  # keys in the layers that are kept
        for key in keys:
            self.add(key)

    def add(self, key: str) -> None:
        """From now on the key may be stored."""
        if not self._room:
            keys = FIRST_LAYER_KEYS << len(self._layers)
            self._layers.append(bytearray(keys * BITS_PER_KEY // 8))
            self._room = keys
        layer = self._layers[-1]
        mask = len(layer) * 8 - 1
        first = hash(key)
        step = (first >> 32) | 1
        bit = first & mask  # three probes, written out: as many ids leave memory as come
        layer[bit >> 3] |= 1 << (bit & 7)
        bit = first + step & mask
        layer[bit >> 3] |= 1 << (bit & 7)
        bit = first + 2 * step & mask
        layer[bit >> 3] |= 1 << (bit & 7)
        self._room -= 1
        self.count += 1

    def forget(self, *, now_ms: int, window_ms: int) -> None:
        """Let go of layers that were full for longer than rows are kept. To be called now and then."""
        full = len(self._layers) - 1 if self._room else len(self._layers)
        self._full_ms += [now_ms] * (full - len(self._full_ms))
        while self._full_ms and self._full_ms[0] + window_ms < now_ms:
            self.count -= len(self._layers[0]) * 8 // BITS_PER_KEY
            del self._full_ms[0], self._layers[0]

    def __contains__(self, key: object) -> bool:
        if not self._layers:
            return False
        first = hash(key)
        step = (first >> 32) | 1
        for layer in self._layers:
            mask = len(layer) * 8 - 1
            bit = first & mask
            if layer[bit >> 3] & (1 << (bit & 7)):
                bit = first + step & mask
                if layer[bit >> 3] & (1 << (bit & 7)):
                    bit = first + 2 * step & mask
                    if layer[bit >> 3] & (1 << (bit & 7)):
                        return True
        return False

    @property
    def size_bytes(self) -> int:
        """Memory that the layers take."""
        return sum(len(layer) for layer in self._layers)
