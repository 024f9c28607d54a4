"""One reader's way through the changes, by its own cursor: from the gateway's tails where they reach back far enough, else from
the hosts. It pulls, so nothing is kept for it: a reader that does not come is not waited for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from gateway.changes.cursors import cursor_text
from gateway.changes.hub import FOLLOW_WEIGHT_MAX, FROM_OLDEST, RESYNC_TIMELINE, WHOLE, Asked, ChangeHub
from gateway.changes.rows import Row, RowFilter
from gateway.changes.tails import Chunk

MESSAGE_BYTES_MAX = 1024 * 1024  # clients in other languages take 4 MiB
HOST_AWAY_PAUSE_S = 0.05


class Batch:
    """Some changes. ``parts``: of a serialized response. ``as_of_ms``: all that was durable by then is taken; 0: not known."""

    __slots__ = ("as_of_ms", "bytes", "count", "parts", "resync")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.count = 0
        self.bytes = 0
        self.as_of_ms = 0
        self.resync = 0

    @property
    def full(self) -> bool:
        """Whether it is large enough, whatever was asked."""
        return self.bytes >= MESSAGE_BYTES_MAX

    def take(self, chunk: Chunk, after: int, row_filter: RowFilter) -> None:
        """What is wanted of a chunk."""
        self.add(*chunk.chosen(after, row_filter))

    def add(self, part: bytes, count: int) -> None:
        """Some more."""
        if count:
            self.parts.append(part)
            self.count += count
            self.bytes += len(part)


class RowBatch(Batch):
    """Rows as they are, for one who does not send them on: [(shard, row), …]."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, Row]] = []

    def take(self, chunk: Chunk, after: int, row_filter: RowFilter) -> None:
        """See ``Batch``."""
        wanted = [(chunk.shard, row) for row in chunk.rows if row[1] > after and row_filter.lets(row)]
        self.rows += wanted
        self.count += len(wanted)


class ChangeReader:
    """``places``: shard → taken in up to there. ``time_ms``: every change from before that time is taken in."""

    def __init__(
        self, hub: ChangeHub, timeline: str, places: Mapping[int, int], row_filter: RowFilter, time_ms: int = 0
    ) -> None:
        self.timeline = timeline
        self.places = dict(places)
        self.time_ms = time_ms
        self._hub = hub
        self._filter = row_filter
        self._times: dict[int, int] = {}  # of the last change taken, by shards that lag
        self._order = deque(self.places)
        self._ahead: tuple[dict[int, int], asyncio.Task[Asked]] | None = None
        self._believed = False  # a host knows places as new as these: another gateway was ahead of this one
        self._loop = asyncio.get_running_loop()

    def cursor(self) -> str:
        """Where it stands."""
        return cursor_text(self.timeline, self.time_ms, self.places)

    async def next(self, count_max: int, wait_s: float, make: Callable[[], Batch] = Batch) -> Batch:
        """The next changes: about ``count_max`` of them, or none when none came in time. ``resync``: it cannot go on."""
        hub = self._hub
        end_s = self._loop.time() + wait_s
        while True:
            batch = make()
            if self.timeline != hub.timeline:
                batch.resync = RESYNC_TIMELINE
                return batch
            lagging = self._from_tails(batch, count_max)
            if lagging and batch.count < count_max and not batch.full:
                result, found, answered = await self._ask(lagging, count_max)
                if result != WHOLE:
                    batch.resync = result
                    return batch
                self._believed = self._believed or answered
                for shard, upto, chunks in found:
                    self._take(batch, shard, chunks)
                    self.places[shard] = upto
                    if chunks:
                        self._times[shard] = chunks[-1].rows[-1][2]
                self._note_time(lagging)
                if found:
                    self._ask_ahead(count_max)
                if not answered and not batch.count:
                    await asyncio.sleep(HOST_AWAY_PAUSE_S)
            left_s = end_s - self._loop.time()
            if batch.count or left_s <= 0 or hub.closed:
                return batch
            if not lagging:
                await hub.wait(left_s)

    def _from_tails(self, batch: Batch, count_max: int) -> dict[int, int]:
        """Take what the tails have; the places of shards whose tails do not reach back so far."""
        tails = self._hub.tails.by_shard
        lagging: dict[int, int] = {}
        whole = True
        for shard in list(self._order):
            sequence = self.places[shard]
            tail = tails.get(shard)
            if tail is None or sequence < tail.floor or (sequence > tail.upto and not self._believed):
                lagging[shard] = sequence
                continue
            if tail.upto <= sequence:
                continue
            if batch.count >= count_max or batch.full:
                whole = False
                self._order.rotate(-self._order.index(shard))  # it is the first of the next round: none waits for ever
                break
            chunks = tail.chunks
            upto = tail.upto
            for index in range(tail.after(sequence), len(chunks)):
                if batch.count >= count_max or batch.full:
                    upto = chunks[index - 1].last_sequence
                    whole = False
                    break
                batch.take(chunks[index], sequence, self._filter)
            self.places[shard] = upto
        if whole and not lagging:
            batch.as_of_ms = self._hub.as_of()[1]
            self.time_ms = max(self.time_ms, batch.as_of_ms)
        return lagging

    async def _ask(self, lagging: Mapping[int, int], count_max: int) -> Asked:
        """What follows these places; asked already while the last batch was on its way out, where it was foreseen."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            if ahead[0] == lagging:
                return await ahead[1]
            ahead[1].cancel()
        return await self._hub.ask(lagging, min(count_max, FOLLOW_WEIGHT_MAX))

    def _ask_ahead(self, count_max: int) -> None:
        """While a batch is encoded and sent the host reads the next."""
        tails = self._hub.tails.by_shard
        lagging = {
            shard: self.places[shard]
            for shard in self._order
            if shard not in tails or self.places[shard] < tails[shard].floor
        }
        if lagging:
            asked = self._hub.ask(lagging, min(count_max, FOLLOW_WEIGHT_MAX))
            self._ahead = (lagging, self._loop.create_task(asked))

    def close(self) -> None:
        """It reads no more."""
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None

    def _note_time(self, lagging: Iterable[int]) -> None:
        """While catching up: what happened before the oldest of the last changes that came of each shard is taken in."""
        tails = self._hub.tails.by_shard
        behind = [shard for shard in lagging if shard not in tails or self.places[shard] < tails[shard].floor]
        times = [self._times.get(shard, 0) for shard in behind]
        if times:
            self.time_ms = max(self.time_ms, min(times))

    def _take(self, batch: Batch, shard: int, chunks: list[Chunk]) -> None:
        after = self.places[shard]
        for chunk in chunks:
            batch.take(chunk, after, self._filter)


def from_oldest(shards: list[int]) -> dict[int, int]:
    """The places of one who wants all that is kept."""
    return dict.fromkeys(shards, FROM_OLDEST)
