"""Queues per shard and the choice of the next turn's items: bounded, fair, without IO.

Round robin over shards, so that a flooded one costs the others a share and no more; one stock key may fill a quarter of its
shard's queue, so that a flooded SKU leaves its neighbours room. Events of a source have a queue of their own beside their feed
shard's: a warehouse's rush hour is not to stand before the orders of whatever lives in that shard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from actors.shard.host_config import HostConfig
from actors.shard.messages import Verb

FED = frozenset((int(Verb.INGEST), int(Verb.HEARTBEAT)))
FEED_LANES = 1 << 20  # above every shard's number
ERRAND_LANES = 2 << 20  # of other shards: they must not stand behind a flood of callers
_LANES = dict.fromkeys(FED, FEED_LANES) | dict.fromkeys(
    (int(Verb.TAKE_ERRAND), int(Verb.ERRAND_ANSWERED)), ERRAND_LANES
)
LINES_PER_SHARD_AND_ROUND = 250  # how many lines one shard gives before the next one's turn


class Waiting:
    """One item in a queue, and where its reply belongs."""

    __slots__ = ("batch", "index", "item", "key")

    def __init__(self, item: Sequence[Any], batch: Any, index: int, key: str) -> None:
        self.item = item
        self.batch = batch
        self.index = index
        self.key = key


class WaitingRun:
    """Events of one frame, one behind the other and of one feed shard and deadline, each of weight 1: one entry in a queue."""

    __slots__ = ("batch", "index", "items")

    def __init__(self, items: list[Sequence[Any]], batch: Any, index: int) -> None:
        self.items = items
        self.batch = batch
        self.index = index  # of the first of them

    def split(self, count: int) -> WaitingRun:
        """The first so many as a run of their own; the rest stays."""
        first = WaitingRun(self.items[:count], self.batch, self.index)
        self.items = self.items[count:]
        self.index += count
        return first


Queued = Waiting | WaitingRun


def items_of(taken: Iterable[Queued]) -> list[Sequence[Any]]:
    """The items of what was taken, in order."""
    items: list[Sequence[Any]] = []
    for waiting in taken:
        items += waiting.items if type(waiting) is WaitingRun else (waiting.item,)  # type: ignore[union-attr]
    return items


def one_by_one(taken: Iterable[Queued]) -> Iterator[Waiting]:
    """The same as items that wait alone."""
    for waiting in taken:
        if isinstance(waiting, WaitingRun):
            for at, item in enumerate(waiting.items):
                yield Waiting(item, waiting.batch, waiting.index + at, "")
        else:
            yield waiting


def stock_key_of(item: Sequence[Any]) -> str:
    """The stock key that an item presses on, where it is one; else empty."""
    verb, body = item[0], item[5]
    if verb == Verb.RESERVE:
        lines = body[3]
        return str(lines[0][1]) if len(lines) == 1 else ""
    return ""


class TurnQueue:
    """All queues of a host."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._queues: dict[int, deque[Queued]] = {}
        self._lines: dict[int, int] = {}
        self._key_lines: dict[str, int] = {}
        self._order: deque[int] = deque()
        self.lines = 0

    def depth(self, shard: int) -> int:
        """Lines waiting for a shard."""
        lines = self._lines
        return lines.get(shard, 0) + lines.get(shard + FEED_LANES, 0) + lines.get(shard + ERRAND_LANES, 0)

    def offer(self, waiting: Waiting) -> bool:
        """Queue an item; False when its shard's queue, or its stock key's share of it, is full."""
        item = waiting.item
        shard, weight = item[1], item[3]
        if item[0] in _LANES:
            shard += _LANES[item[0]]
        queued = self._lines.get(shard, 0)
        limit = self._config.queue_lines_per_shard_max
        if queued and queued + weight > limit:
            return False
        key = waiting.key
        if key:
            pressing = self._key_lines.get(key, 0)
            if pressing and pressing + weight > limit // self._config.stock_key_share_divisor:
                return False
            self._key_lines[key] = pressing + weight
        queue = self._queues.get(shard)
        if queue is None:
            queue = self._queues[shard] = deque()
        if not queue:
            self._order.append(shard)
        queue.append(waiting)
        self._lines[shard] = queued + weight
        self.lines += weight
        return True

    def offer_run(self, run: WaitingRun) -> int:
        """Queue a run of events, or as much of it as there is room for; how many."""
        lane = run.items[0][1] + FEED_LANES
        queued = self._lines.get(lane, 0)
        room = max(self._config.queue_lines_per_shard_max - queued, 0 if queued else 1)
        count = len(run.items)
        if count > room:
            if not room:
                return 0
            run, count = run.split(room), room
        queue = self._queues.get(lane)
        if queue is None:
            queue = self._queues[lane] = deque()
        if not queue:
            self._order.append(lane)
        queue.append(run)
        self._lines[lane] = queued + count
        self.lines += count
        return count

    def take(self) -> list[Queued]:
        """The next turn's items: at most ``turn_lines_max`` lines (but at least one item), in order within each shard."""
        taken: list[Queued] = []
        room = self._config.turn_lines_max
        order = self._order
        while order and (room > 0 or not taken):
            shard = order.popleft()
            queue = self._queues[shard]
            share = min(LINES_PER_SHARD_AND_ROUND, room) if len(order) else room
            spent = 0
            while queue and (spent < share or not taken):
                waiting = queue[0]
                if type(waiting) is WaitingRun:
                    most = max(1, share - spent)
                    if len(waiting.items) > most:
                        waiting = waiting.split(most)
                    else:
                        queue.popleft()
                    spent += len(waiting.items)
                    taken.append(waiting)
                    continue
                alone: Any = queue.popleft()
                weight, key = alone.item[3], alone.key
                spent += weight
                taken.append(alone)
                if key:
                    left = self._key_lines[key] - weight
                    if left > 0:
                        self._key_lines[key] = left
                    else:
                        del self._key_lines[key]
            room -= spent
            self.lines -= spent
            self._lines[shard] -= spent
            if queue:
                order.append(shard)
        return taken

    def evict(self, shard: int) -> list[Queued]:
        """Take everything out that waits for a shard."""
        taken: list[Queued] = []
        for lane in (shard, shard + FEED_LANES):
            queue = self._queues.pop(lane, None)
            if queue:
                self._order.remove(lane)
                taken += queue
            self.lines -= self._lines.pop(lane, 0)
        for waiting in taken:
            if isinstance(waiting, Waiting) and waiting.key:
                left = self._key_lines[waiting.key] - waiting.item[3]
                if left > 0:
                    self._key_lines[waiting.key] = left
                else:
                    del self._key_lines[waiting.key]
        return taken
