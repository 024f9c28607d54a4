"""Connections shared by more callers than there are: handed over in the order of asking, so that no caller waits for ever."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

Held = TypeVar("Held")


class Shared(Generic[Held]):
    """``take`` and ``give`` back. The connection given back last is taken next: its statements are warm."""

    def __init__(self) -> None:
        self._idle: list[Held] = []
        self._waiting: deque[asyncio.Future[Held]] = deque()

    async def take(self) -> Held:
        """One of them, after those who asked before."""
        if self._idle:
            return self._idle.pop()
        waiting: asyncio.Future[Held] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        return await waiting

    def give(self, held: Held) -> None:
        """Hand it to whoever has waited longest."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(held)
                return
        self._idle.append(held)
