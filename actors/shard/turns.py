"""Queues per shard and the choice of the next turn's items: bounded, fair, without IO.

Round robin over shards, so that a flooded one costs the others a share and no more; one stock key may fill a quarter of its
shard's queue, so that a flooded SKU leaves its neighbours room. Events of a source have a queue of their own beside their feed
shard's: a warehouse's rush hour is not to stand before the orders of whatever lives in that shard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from actors.shard.host_config import HostConfig
from actors.shard.messages import Verb

FED = frozenset((int(Verb.INGEST), int(Verb.HEARTBEAT)))
FEED_LANES = 1 << 20  # above every shard's number
LINES_PER_SHARD_AND_ROUND = 250  # how many lines one shard gives before the next one's turn


class Waiting:
    """One item in a queue, and where its reply belongs."""

    __slots__ = ("batch", "index", "item", "key")

    def __init__(self, item: Sequence[Any], batch: Any, index: int, key: str) -> None:
        self.item = item
        self.batch = batch
        self.index = index
        self.key = key


def stock_key_of(item: Sequence[Any]) -> str:
    """The stock key that an item presses on, where it is one; else empty."""
    verb, body = item[0], item[5]
    if verb == Verb.RESERVE:
        lines = body[3]
        return str(lines[0][1]) if len(lines) == 1 else ""
    if verb == Verb.INGEST:
        return str(body[5])
    return ""


class TurnQueue:
    """All queues of a host."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._queues: dict[int, deque[Waiting]] = {}
        self._lines: dict[int, int] = {}
        self._key_lines: dict[str, int] = {}
        self._order: deque[int] = deque()
        self.lines = 0

    def depth(self, shard: int) -> int:
        """Lines waiting for a shard."""
        return self._lines.get(shard, 0) + self._lines.get(shard + FEED_LANES, 0)

    def offer(self, waiting: Waiting) -> bool:
        """Queue an item; False when its shard's queue, or its stock key's share of it, is full."""
        item = waiting.item
        shard, weight = item[1], item[3]
        if item[0] in FED:
            shard += FEED_LANES
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

    def take(self) -> list[Waiting]:
        """The next turn's items: at most ``turn_lines_max`` lines (but at least one item), in order within each shard."""
        taken: list[Waiting] = []
        room = self._config.turn_lines_max
        order = self._order
        while order and (room > 0 or not taken):
            shard = order.popleft()
            queue = self._queues[shard]
            share = min(LINES_PER_SHARD_AND_ROUND, room) if len(order) else room
            spent = 0
            while queue and (spent < share or not taken):
                waiting = queue.popleft()
                weight = waiting.item[3]
                spent += weight
                taken.append(waiting)
                if waiting.key:
                    left = self._key_lines[waiting.key] - weight
                    if left > 0:
                        self._key_lines[waiting.key] = left
                    else:
                        del self._key_lines[waiting.key]
            room -= spent
            self.lines -= spent
            self._lines[shard] -= spent
            if queue:
                order.append(shard)
        return taken
