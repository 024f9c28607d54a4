"""Watches of availability: of each watched stock key the latest value, never every one between, never an older one.

A watch holds at most one value a stock key that it has not sent yet, so a slow watcher costs no more than what it watches. One
board hears the feed for all of them and gives each change to those who watch its key. How a watch begins and what goes over the
wire is the servicer's (``gateway.servicers.watch``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from gateway.changes.hub import ChangeHub
from gateway.changes.rows import AVAILABILITY, WAREHOUSE, Row
from gateway.changes.tails import Chunk


class Watch:
    """One watcher's. ``again``: what is pending is not all: current values must be read anew."""

    def __init__(self, keys: Iterable[str], warehouse_id: str) -> None:
        self.keys = frozenset(keys)
        self.warehouse_id = warehouse_id
        self.warehouses = frozenset(key.split("\x1f")[1] for key in self.keys) or frozenset((warehouse_id,))
        self.pending: dict[str, tuple[int, Row]] = {}  # stock key → (shard, row)
        self.again = False
        self.woken = asyncio.Event()
        self._late: dict[str, tuple[int, int]] = {}  # stock key → (shard, seen) where a value ran ahead of its changes

    def take(self, shard: int, row: Row, known_upto: int) -> None:
        """A change of a watched key. ``known_upto``: up to which sequence the shard's changes have come."""
        key, seen = row[3], row[6]
        late = self._late.get(key)
        if late is not None and seen < late[1]:
            return
        if seen > known_upto:
            self._late[key] = (shard, seen)
        self.pending[key] = (shard, row)
        self.woken.set()

    def lose(self) -> None:
        """Read anew."""
        self.again = True
        self.woken.set()

    def taken(self, known: dict[int, int]) -> list[tuple[int, Row]]:
        """What is pending, and no longer is. ``known``: shard → up to where its changes have come."""
        pending, self.pending = self.pending, {}
        self.woken.clear()
        if self._late:
            self._late = {key: late for key, late in self._late.items() if late[1] > known.get(late[0], 0)}
        return list(pending.values())


class WatchBoard:
    """All watches of one gateway; hears the hub while there is any."""

    def __init__(self, hub: ChangeHub) -> None:
        self._hub = hub
        self._by_key: dict[str, dict[Watch, None]] = {}
        self._by_warehouse: dict[str, dict[Watch, None]] = {}  # those who watch all of it
        self._concerned: dict[str, dict[Watch, None]] = {}  # those who watch any of it
        self.count = 0

    def add(self, watch: Watch) -> None:
        """It hears every change from now on."""
        for key in watch.keys:
            self._by_key.setdefault(key, {})[watch] = None
        if not watch.keys:
            self._by_warehouse.setdefault(watch.warehouse_id, {})[watch] = None
        for warehouse_id in watch.warehouses:
            self._concerned.setdefault(warehouse_id, {})[watch] = None
        self.count += 1
        self._hub.listeners[self] = None

    def remove(self, watch: Watch) -> None:
        """It hears no more."""
        for index, places in (
            (self._by_key, watch.keys),
            (self._by_warehouse, () if watch.keys else (watch.warehouse_id,)),
            (self._concerned, watch.warehouses),
        ):
            for place in places:
                watching = index[place]
                del watching[watch]
                if not watching:
                    del index[place]
        self.count -= 1
        if not self.count:
            self._hub.listeners.pop(self, None)

    def heard(self, chunk: Chunk) -> None:
        """See ``hub.Listener``."""
        shard = chunk.shard
        known_upto = self._hub.tails.by_shard[shard].upto
        by_warehouse = self._by_warehouse
        for row in chunk.rows:
            if row[0] == AVAILABILITY:
                key = row[3]
                for watch in self._by_key.get(key, ()):
                    watch.take(shard, row, known_upto)
                if by_warehouse:
                    for watch in by_warehouse.get(key.split("\x1f")[1], ()):
                        watch.take(shard, row, known_upto)
            elif row[0] == WAREHOUSE:
                for watch in self._concerned.get(row[3], ()):
                    watch.lose()

    def fresh(self) -> None:
        """See ``hub.Listener``: watchers look by themselves, when their heartbeat is due."""

    def lost(self) -> None:
        """See ``hub.Listener``."""
        for watching in self._concerned.values():
            for watch in watching:
                watch.lose()
