"""Which sequence numbers of a stream were received: a contiguous watermark from 1, and the intervals above it.

Pure arithmetic over whole numbers and times. It decides nothing: what a hole means is ``actors.domain.feeds``'s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

INTERVALS_MAX = 65_536  # of one stream: a source that leaves more holes than this must fill some first


class Sequences:
    """``watermark``: everything up to it was received. ``starts``, ``ends``: what was received above, sorted, never touching.

    ``since``: since when the hole just below the interval beside it is known, never falling from one to the next.
    ``told``: the last sequence that the source says it gave out, and since when what is missing at the end is known.
    """

    __slots__ = ("ends", "since", "starts", "told", "told_since_ms", "watermark")

    def __init__(self) -> None:
        self.watermark = 0
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.since: list[int] = []
        self.told = 0
        self.told_since_ms = 0

    def has(self, sequence: int) -> bool:
        """Whether it was received."""
        if sequence <= self.watermark:
            return True
        if not self.starts:
            return False
        at = bisect_right(self.starts, sequence) - 1
        return at >= 0 and sequence <= self.ends[at]

    def fits(self, sequence: int) -> bool:
        """Whether it may be added without making more intervals than are kept."""
        if len(self.starts) < INTERVALS_MAX or sequence <= self.watermark + 1:
            return True
        at = bisect_right(self.starts, sequence)
        return (at > 0 and self.ends[at - 1] + 1 >= sequence) or (
            at < len(self.starts) and self.starts[at] == sequence + 1
        )

    def watermark_with(self, sequence: int) -> int:
        """Where the watermark would stand, had that one been received as well."""
        if sequence != self.watermark + 1:
            return self.watermark
        return self.ends[0] if self.starts and self.starts[0] == sequence + 1 else sequence

    def add(self, sequence: int, time_ms: int) -> bool:
        """It was received at ``time_ms``; whether the watermark moved. Adding one again changes nothing."""
        if sequence == self.watermark + 1:
            self.watermark = sequence
            if self.starts and self.starts[0] == sequence + 1:
                self.watermark = self.ends[0]
                del self.starts[0], self.ends[0], self.since[0]
            return True
        if not self.has(sequence):
            self._add_above(sequence, time_ms)
        return False

    def _add_above(self, sequence: int, time_ms: int) -> None:
        starts, ends, since = self.starts, self.ends, self.since
        at = bisect_right(starts, sequence)
        joins_below = at > 0 and ends[at - 1] + 1 == sequence
        joins_above = at < len(starts) and starts[at] == sequence + 1
        if joins_below and joins_above:
            ends[at - 1] = ends[at]
            del starts[at], ends[at], since[at]
        elif joins_below:
            ends[at - 1] = sequence
        elif joins_above:
            starts[at] = sequence
        else:
            if at < len(since):
                known_ms = since[at]  # what is missing below was missing below the next interval already
            elif self.told > self.received:
                known_ms = max(self.told_since_ms, since[-1] if since else 0)  # the source said that there is more
            else:
                known_ms = time_ms
            starts.insert(at, sequence)
            ends.insert(at, sequence)
            since.insert(at, known_ms)

    def close(self, up_to: int) -> None:
        """What is missing up to that sequence never comes: the watermark moves on."""
        self.watermark = max(self.watermark, up_to)
        while self.starts and self.starts[0] <= self.watermark + 1:
            self.watermark = max(self.watermark, self.ends[0])
            del self.starts[0], self.ends[0], self.since[0]

    def tell(self, last: int, time_ms: int) -> None:
        """The source says that it gave out ``last``."""
        if last > self.told:
            if not self.told_since_ms or self.received >= self.told:
                self.told_since_ms = time_ms
            self.told = last

    @property
    def received(self) -> int:
        """The highest one received."""
        return self.ends[-1] if self.ends else self.watermark

    @property
    def highest(self) -> int:
        """The highest one that is known to exist."""
        return max(self.received, self.told)

    def missing(self, most: int) -> list[tuple[int, int]]:
        """The first holes as (first, last), at most so many."""
        holes = []
        after = self.watermark
        for start, end in zip(self.starts[:most], self.ends[:most], strict=True):
            holes.append((after + 1, start - 1))
            after = end
        if len(self.starts) < most and self.told > after:
            holes.append((after + 1, self.told))
        return holes

    def missing_up_to(self, since_ms: int) -> int:
        """The end of the last hole that is known since then or longer."""
        at = bisect_right(self.since, since_ms)
        if at < len(self.since):
            return self.starts[at - 1] - 1 if at else self.watermark
        trails = self.told > self.received and self.told_since_ms <= since_ms
        return self.told if trails else self.starts[-1] - 1 if self.starts else self.watermark

    def missing_since_ms(self) -> int:
        """Since when the oldest hole is known; 0: nothing is missing."""
        if self.since:
            return self.since[0]
        return self.told_since_ms if self.told > self.watermark else 0


def encode_sequences(sequences: Sequences) -> tuple[int, list[list[int]], int, int]:
    """Plain values, canonical."""
    intervals = zip(sequences.starts, sequences.ends, sequences.since, strict=True)
    return (sequences.watermark, [list(one) for one in intervals], sequences.told, sequences.told_since_ms)


def decode_sequences(watermark: int, intervals: Sequence[Sequence[int]], told: int, told_since_ms: int) -> Sequences:
    """From ``encode_sequences``."""
    made = Sequences()
    made.watermark, made.told, made.told_since_ms = watermark, told, told_since_ms
    made.starts = [one[0] for one in intervals]
    made.ends = [one[1] for one in intervals]
    made.since = [one[2] for one in intervals]
    return made
