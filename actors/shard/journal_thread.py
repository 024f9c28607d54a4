"""The journal's own thread: every blocking call of the port runs there, one after the other, in the order given."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

Done = Callable[[Any, BaseException | None], None]
_Job = tuple[Callable[[], Any], Done]


class JournalThread:
    """``submit`` from the loop's thread; ``done(result, error)`` is called back on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="stockade-journal", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Any], done: Done) -> None:
        """Run ``work`` after everything submitted before it."""
        self._jobs.put((work, done))

    async def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` there and wait for its result; raises what it raised."""
        future: asyncio.Future[T] = self._loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(work, done)
        return await future

    def stop(self) -> None:
        """End after everything submitted before."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as caught:  # the loop decides what it means
                error = caught
            if self._loop.is_closed():
                return
            self._loop.call_soon_threadsafe(done, result, error)
