"""The host's recent changes, per shard, packed once for all who read them: a bounded ring in front of the journal.

It holds only what is durable. Nothing is kept, and nothing is spent, while nobody reads: recording begins with the first
reader, who finds what is older in the journal (``change_catchup``), and ends when no reader came for a while. Sans-IO: who waits
for changes and how they are answered is ``host_changes``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from actors.domain.changes import changes_of, with_values
from actors.domain.state import Books
from actors.journal.port import Record


class Chunk(NamedTuple):
    """The changes of one record: ``packed`` is a msgpack array of rows, ``weight`` what they count against limits.

    ``last_sequence``: of the last row, so whoever has taken that in has the whole chunk.
    """

    last_sequence: int
    weight: int
    packed: bytes


def chunk_of(rows: Sequence[Sequence[Any]]) -> Chunk:
    """Rows with values, at least one, as one chunk."""
    weight = len(rows) + sum([len(row[9]) for row in rows if len(row) > 9])
    return Chunk(rows[-1][1], weight, msgpack.packb(rows, use_bin_type=True))


class Recorded(NamedTuple):
    """What one turn changed, kept with the turn until it is durable: [shard, chunk or None, last sequence] a record."""

    shard: int
    chunk: Chunk | None
    last_sequence: int


class ShardRing:
    """One shard's part. Everything after ``floor`` and up to ``upto`` is in ``chunks`` (or was no change)."""

    __slots__ = ("chunks", "floor", "upto")

    def __init__(self, sequence: int) -> None:
        self.floor = sequence
        self.upto = sequence
        self.chunks: deque[Chunk] = deque()

    def after(self, sequence: int, weight_max: int) -> tuple[list[bytes], int, int]:
        """Chunks after a sequence (≥ ``floor``) as bytes, until ``weight_max`` is reached (at least one); up to which
        sequence that is all; and their weight."""
        chunks = self.chunks
        if not chunks or chunks[-1].last_sequence <= sequence:
            return [], self.upto, 0
        start = bisect_right(chunks, sequence, key=_last_sequence)
        packed: list[bytes] = []
        weight = 0
        upto = self.upto
        for index in range(start, len(chunks)):
            chunk = chunks[index]
            if packed and weight + chunk.weight > weight_max:
                upto = chunks[index - 1].last_sequence
                break
            packed.append(chunk.packed)
            weight += chunk.weight
        return packed, upto, weight


def _last_sequence(chunk: Chunk) -> int:
    return chunk.last_sequence


class ChangeLog:
    """All shards of one host."""

    def __init__(self, bytes_max: int) -> None:
        self.recording = False
        self.rings: dict[int, ShardRing] = {}
        self.bytes = 0
        self.published = 0  # changes since the process started, by weight
        self._bytes_max = bytes_max
        self._order: deque[int] = deque()  # shards in the order of their chunks

    def begin(self, sequences: Mapping[int, int]) -> None:
        """Record from here on. ``sequences``: of the last event applied, per shard: turns that are not durable yet are
        behind the floor, and found in the journal."""
        self.recording = True
        self.rings = {shard: ShardRing(sequence) for shard, sequence in sequences.items()}

    def attach(self, shard: int, sequence: int) -> None:
        """A shard is here from now on; what is older is in the journal."""
        if self.recording:
            self.rings[shard] = ShardRing(sequence)

    def detach(self, shard: int) -> None:
        """A shard is not here any more."""
        ring = self.rings.pop(shard, None)
        if ring is not None and ring.chunks:
            self.bytes -= sum(len(chunk.packed) for chunk in ring.chunks)
            self._order = deque(other for other in self._order if other != shard)

    def end(self) -> None:
        """Keep nothing any more."""
        self.recording = False
        self.rings = {}
        self._order.clear()
        self.bytes = 0

    def record(self, books: Books, records: Iterable[Record], groups: Mapping[int, Any]) -> list[Recorded]:
        """What a turn that was just applied changed, with the values of now. Call it before the next turn is applied."""
        recorded = []
        for record in records:
            shard_id, first = record.shard, record.first_sequence
            last = first + record.event_count - 1
            rows = changes_of(groups[shard_id], first, record.time_ms)
            chunk = None
            if rows:
                chunk = chunk_of(with_values(books, books.shards[shard_id], rows))
            recorded.append(Recorded(shard_id, chunk, last))
        return recorded

    def publish(self, recorded: Iterable[Recorded]) -> bool:
        """The turn is durable: its changes may be seen. Whether there were any."""
        if not self.recording:
            return False
        any_change = False
        for shard_id, chunk, last in recorded:
            ring = self.rings.get(shard_id)
            if ring is None or last <= ring.floor:
                continue  # its shard has left, or it is a turn from before recording began again
            if chunk is not None:
                ring.chunks.append(chunk)
                self._order.append(shard_id)
                self.bytes += len(chunk.packed)
                self.published += chunk.weight
                any_change = True
            ring.upto = last
        while self.bytes > self._bytes_max and len(self._order) > 1:
            ring = self.rings[self._order.popleft()]
            dropped = ring.chunks.popleft()
            ring.floor = dropped.last_sequence
            self.bytes -= len(dropped.packed)
        return any_change
