"""What the gateway holds of each shard's recent changes: bounded, encoded once, read by any number of readers.

Sans-IO. ``hub`` fills it from the hosts; ``reader`` takes from it by its own cursor, so a slow reader costs nothing here: what is
dropped before it came is read from the host again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence

import msgpack

from gateway.changes.rows import Row, RowFilter, encoded

BYTES_KEPT_A_BYTE = 3  # a chunk as it came, and as it goes out


class Chunk:
    """The changes of one record, as they came from the host; encoded once, for all who read all of it.

    Rows are many small objects: they are made when the chunk comes, let go when it was passed on (``settle``), and made again
    for the few who want only some of them.
    """

    __slots__ = ("_encoded", "_packed", "_rows", "first_sequence", "last_sequence", "shard", "size", "timeline")

    def __init__(self, timeline: str, shard: int, packed: bytes) -> None:
        self.timeline = timeline
        self.shard = shard
        self._packed = packed
        self._rows: Sequence[Row] | None = msgpack.unpackb(packed, raw=False)
        self.first_sequence: int = self.rows[0][1]
        self.last_sequence: int = self.rows[-1][1]
        self.size = len(packed) * BYTES_KEPT_A_BYTE
        self._encoded: tuple[bytes, int] | None = None

    @property
    def rows(self) -> Sequence[Row]:
        """Its changes."""
        rows = self._rows
        return msgpack.unpackb(self._packed, raw=False) if rows is None else rows

    def settle(self, *, encode: bool) -> None:
        """It was passed on to all who hear each change. ``encode``: somebody will read it soon."""
        if encode:
            self.encoded()
        self._rows = None

    def encoded(self) -> tuple[bytes, int]:
        """All of it as a part of a response, and how many changes that is."""
        if self._encoded is None:
            rows = self.rows
            self._encoded = (encoded(self.timeline, self.shard, rows), len(rows))
        return self._encoded

    def chosen(self, after: int, row_filter: RowFilter) -> tuple[bytes, int]:
        """What a reader wants of it as a part of a response, and how many changes that is."""
        if row_filter.everything and self.first_sequence > after:
            return self.encoded()
        wanted = [row for row in self.rows if row[1] > after and row_filter.lets(row)]
        return encoded(self.timeline, self.shard, wanted), len(wanted)


class Tail:
    """One shard's. Everything after ``floor`` and up to ``upto`` is in ``chunks`` (or was no change)."""

    __slots__ = ("chunks", "floor", "upto")

    def __init__(self, sequence: int) -> None:
        self.floor = sequence
        self.upto = sequence
        self.chunks: deque[Chunk] = deque()

    def after(self, sequence: int) -> int:
        """The index of the first chunk with something newer than a sequence (≥ ``floor``)."""
        chunks = self.chunks
        if not chunks or chunks[-1].last_sequence <= sequence:
            return len(chunks)
        return bisect_right(chunks, sequence, key=_last_sequence)


def _last_sequence(chunk: Chunk) -> int:
    return chunk.last_sequence


class Tails:
    """All shards of the cluster."""

    def __init__(self, bytes_max: int) -> None:
        self.by_shard: dict[int, Tail] = {}
        self.bytes = 0
        self._bytes_max = bytes_max
        self._order: deque[int] = deque()

    def clear(self) -> None:
        """Forget everything: what comes next does not follow on it."""
        self.by_shard = {}
        self._order.clear()
        self.bytes = 0

    def begin(self, shard: int, sequence: int) -> None:
        """A shard is followed from here on."""
        self.drop(shard)
        self.by_shard[shard] = Tail(sequence)

    def drop(self, shard: int) -> None:
        """Forget a shard."""
        gone = self.by_shard.pop(shard, None)
        if gone is not None and gone.chunks:
            self.bytes -= sum(chunk.size for chunk in gone.chunks)
            self._order = deque(each for each in self._order if each != shard)

    def extend(self, shard: int, upto: int, chunks: Sequence[Chunk]) -> list[Chunk]:
        """The next changes of a shard; those that are news."""
        tail = self.by_shard[shard]
        fresh = [chunk for chunk in chunks if chunk.last_sequence > tail.upto]
        for chunk in fresh:
            tail.chunks.append(chunk)
            self._order.append(shard)
            self.bytes += chunk.size
        tail.upto = max(tail.upto, upto)
        while self.bytes > self._bytes_max and len(self._order) > 1:
            oldest = self.by_shard[self._order.popleft()]
            dropped = oldest.chunks.popleft()
            oldest.floor = dropped.last_sequence
            self.bytes -= dropped.size
        return fresh

    def covers(self, places: Mapping[int, int]) -> bool:
        """Whether all that follows these places is here."""
        by_shard = self.by_shard
        for shard, sequence in places.items():
            tail = by_shard.get(shard)
            if tail is None or sequence < tail.floor:
                return False
        return True
