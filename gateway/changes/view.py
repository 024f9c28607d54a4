"""The gateway's own view of availability, for callers who can do with an answer that is a little old. Never for reserving.

A stock key enters it when somebody asked for it and the stock actor answered; from then on the change feed keeps it up to date.
How old the view may be is known exactly (``ChangeHub.as_of``): an answer from it was true then, and includes every change that was
durable by then. It is bounded, and given up when nobody asks any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.changes.hub import ChangeHub
from gateway.changes.rows import AVAILABILITY, WAREHOUSE
from gateway.changes.tails import Chunk

KEYS_MAX = 200_000  # about 300 bytes each: 60 MiB
IDLE_S_MAX = 60.0  # nobody asked for so long: it is given up


class Entry:
    """One stock key. ``answered``: the stock actor's own answer is in it; before, changes are only gathered."""

    __slots__ = ("answered", "available", "known", "seen", "shard", "stale")

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.available = 0
        self.known = False
        self.stale = False
        self.seen = -1
        self.answered = False


class AvailabilityView:
    """One gateway's. ``now``: milliseconds of its monotonic clock."""

    def __init__(self, hub: ChangeHub, now: Callable[[], int], keys_max: int = KEYS_MAX) -> None:
        self.hits = 0
        self.misses = 0
        self._hub = hub
        self._now = now
        self._keys_max = keys_max
        self._entries: dict[str, Entry] = {}
        self._active = False
        self._asked_ms = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: str, staleness_ms_max: int) -> tuple[Entry, int] | None:
        """The key's entry and the shard time as of which it is true, if that is not too old; else None."""
        self._touch()
        entry = self._entries.get(key)
        mono_ms, shard_ms = self._hub.as_of()
        if entry is None or not entry.answered or not mono_ms or self._now() - mono_ms > staleness_ms_max:
            self.misses += 1
            return None
        self.hits += 1
        return entry, shard_ms

    def expect(self, key: str, shard: int) -> Entry | None:
        """The stock actor is about to be asked: from now on the key's changes are heard. None: they are not, yet."""
        if shard not in self._hub.tails.by_shard:
            return None
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= self._keys_max:
                del self._entries[next(iter(self._entries))]  # the first that came; its next reader pays one question
            entry = self._entries[key] = Entry(shard)
        return entry

    def answered(self, key: str, entry: Entry | None, *, available: int, known: bool, stale: bool, seen: int) -> None:
        """What the stock actor said, unless a change that it had not seen came meanwhile."""
        if entry is None or self._entries.get(key) is not entry:
            return
        if seen >= entry.seen:
            entry.available, entry.known, entry.stale, entry.seen = available, known, stale, seen
        entry.answered = True

    # --- hub.Listener ------------------------------------------------------------------------------------------------

    def heard(self, chunk: Chunk) -> None:
        """See ``hub.Listener``."""
        entries = self._entries
        for row in chunk.rows:
            if row[0] == AVAILABILITY:
                entry = entries.get(row[3])
                if entry is not None and row[6] >= entry.seen:
                    entry.available, entry.stale, entry.seen = row[4], row[5], row[6]
                    entry.known = True
            elif row[0] == WAREHOUSE:
                for key, entry in entries.items():
                    if key.split("\x1f")[1] == row[3]:
                        entry.stale = row[4]

    def fresh(self) -> None:
        """See ``hub.Listener``: asked for when a caller comes."""

    def lost(self) -> None:
        """See ``hub.Listener``."""
        self._entries.clear()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _touch(self) -> None:
        self._asked_ms = self._now()
        if not self._active:
            self._active = True
            self._hub.enter()
            self._hub.listeners[self] = None
            self._look_later()

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(IDLE_S_MAX / 2, self._look)

    def _look(self) -> None:
        if self._now() - self._asked_ms < IDLE_S_MAX * 1000:
            self._look_later()
            return
        self._active = False
        self._entries.clear()
        self._hub.listeners.pop(self, None)
        self._hub.leave()
