"""Replies that come later: who waits for what began on this host and ends when other hosts have answered.

A command that was begun says a token; whoever asked, and whoever asks the same again, waits here for it, until the turn in
which it ends is durable. Bounded; who is gone or whose deadline passed is dropped. Nothing here is journaled: when this host
ends its links break, callers ask its successor again, and get the same token or the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from actors.domain.answers import PENDING, Reply, error
from actors.domain.outcomes import ErrorReason
from actors.shard.host_links import Batch
from actors.shard.turns import Waiting

LOOK_S = 0.1  # how late a caller may be told that his deadline passed
WAITS_MS_MAX = 60_000  # of an item without a deadline


class _Slot(NamedTuple):
    batch: Batch
    place: int
    shard: int
    until_ms: int


class DeferredReplies:
    """By token, the slots of frames that wait for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now_ms: Callable[[], int], slots_max: int) -> None:
        self._loop = loop
        self._now_ms = now_ms
        self._slots_max = slots_max
        self._timer: asyncio.TimerHandle | None = None
        self._slots: dict[str, list[_Slot]] = {}
        self.waiting = 0
        self.dropped = 0

    def answer(self, items: Iterable[Waiting], replies: Sequence[Reply]) -> None:
        """Answer what is decided; what goes on over several hosts waits until that ends."""
        for one, reply in zip(items, replies, strict=True):
            if reply[0] == PENDING:
                self.wait(reply[1], one.batch, one.index, one.item[1], one.item[2])
            else:
                one.batch.answer(one.index, reply)

    def wait(self, token: str, batch: Batch, index: int, shard: int, deadline_ms: int) -> None:
        """The slot is answered when the token ends. When too many wait: at once, that nobody knows yet."""
        now_ms = self._now_ms()
        if self.waiting >= self._slots_max:
            self._drop_late(now_ms)
        if self.waiting >= self._slots_max:
            self.dropped += 1
            batch.answer(index, _unknown("too many wait for other hosts"))
            return
        batch.defer(index)
        slot = _Slot(batch, index, shard, deadline_ms or now_ms + WAITS_MS_MAX)
        self._slots.setdefault(token, []).append(slot)
        self.waiting += 1
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def stop(self) -> None:
        """Nobody is answered any more: their links are closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._slots.clear()

    def _look(self) -> None:
        """While somebody waits: drop those whose deadline passed."""
        self._timer = None
        self._drop_late(self._now_ms())
        if self._slots:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def finish(self, finished: Sequence[tuple[str, Reply]]) -> None:
        """Tokens that ended in a turn that is durable now."""
        for token, reply in finished:
            slots = self._slots.pop(token, ())
            self.waiting -= len(slots)
            for slot in slots:
                slot.batch.answer_deferred(slot.place, reply)

    def leave(self, shard: int) -> None:
        """A shard left this host: what is under way there ends elsewhere, and who waits for it asks there."""
        elsewhere = error(ErrorReason.WRONG_OWNER, f"shard {shard} is not here any more")
        self._drop(lambda slot: slot.shard == shard, elsewhere)

    def _drop_late(self, now_ms: int) -> None:
        """Forget those who wait no longer."""
        late = _unknown("other hosts have not answered yet")
        self._drop(lambda slot: slot.until_ms <= now_ms or slot.batch.gone, late)

    def _drop(self, unwanted: Callable[[_Slot], bool], reply: Reply) -> None:
        for token, slots in list(self._slots.items()):
            kept = []
            for slot in slots:
                if unwanted(slot):
                    slot.batch.answer_deferred(slot.place, reply)
                else:
                    kept.append(slot)
            self.waiting -= len(slots) - len(kept)
            self.dropped += len(slots) - len(kept)
            if kept:
                self._slots[token] = kept
            else:
                del self._slots[token]


def _unknown(detail: str) -> Reply:
    return error(ErrorReason.DEADLINE_EXCEEDED, detail)
