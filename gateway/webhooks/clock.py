"""Time as the deliverer takes it: one door, so that tests turn the clock themselves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds that never go back; for pauses."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970; for signatures."""
        ...

    async def wait(self, event: asyncio.Event, until_ms: int | None) -> None:
        """Until the event is set or the time has come (None: only the event)."""
        ...


class SystemClock:
    """The machine's."""

    def now_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall_s(self) -> float:
        return time.time()

    async def wait(self, event: asyncio.Event, until_ms: int | None) -> None:
        timeout_s = None if until_ms is None else max(0.0, (until_ms - self.now_ms()) / 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):  # not wait_for: in 3.11 it may swallow a cancellation
                await event.wait()
