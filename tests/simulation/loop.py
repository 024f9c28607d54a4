"""An event loop on virtual time, and the processes that live on it.

Owns the order in which things happen: callbacks that are ready run first in, first out; when none is, time jumps to the next
timer. Nothing waits for a real clock, a socket or a thread, so one seed makes one history. A process is a context that its
callbacks, timers and tasks inherit: when it is killed none of them runs any more, and when it is stopped they wait. What the
processes say to one another, and when, is ``network``'s.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heappop
from typing import Any, cast

PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")

RESOLUTION_S = 1e-7
PASS_S = 1e-6  # one pass of a loop takes time, or one that polls without a pause would never see any pass
STEPS_MAX = 500_000  # callbacks of one history; more is a loop that never ends


class Stuck(AssertionError):
    """Nothing is ready and no timer is set, but something is still waited for; or the callbacks never end."""


class Process:
    """What is killed, stopped and continued as one."""

    __slots__ = ("alive", "backlog", "context", "loop", "name", "stopped")

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = True
        self.stopped = False
        self.backlog: deque[asyncio.Handle] = deque()
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)
        loop.processes.append(self)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task of this process."""
        return self.loop.create_task(work, context=self.context)

    def kill(self) -> None:
        """None of its code runs after this."""
        self.alive = False
        self.backlog.clear()

    def stop(self) -> None:
        """As SIGSTOP: what comes meanwhile waits."""
        self.stopped = True

    def proceed(self) -> None:
        """As SIGCONT: everything that came meanwhile is there at once."""
        self.stopped = False
        self.loop.make_ready(self.backlog)
        self.backlog = deque()


class SimulatedLoop(asyncio.BaseEventLoop):
    """``time()`` starts at 0. ``failures``: exceptions that nobody caught in a living process."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._steps = 0
        self.processes: list[Process] = []
        self.failures: list[str] = []
        self.server_factory: Callable[..., Any]
        self.connection_factory: Callable[..., Coroutine[Any, Any, Any]]
        self._clock_resolution = RESOLUTION_S
        self.set_exception_handler(self._failed)
        self.set_task_factory(_quiet_task)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def make_ready(self, handles: deque[asyncio.Handle]) -> None:
        """Run these next, in order."""
        self._internals()._ready.extend(handles)

    async def pass_time(self, seconds: float) -> None:
        """Let virtual time pass."""
        future = self.create_future()
        self.call_later(seconds, _wake, future)
        await future

    async def until(self, condition: Callable[[], bool], bound_s: float, step_s: float = 0.05) -> bool:
        """Wait for a condition on virtual time, with a bound; whether it came true."""
        deadline = self._now + bound_s
        while not condition():
            if self._now >= deadline:
                return False
            await self.pass_time(step_s)
        return True

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """A listener in the simulated network."""
        return self.server_factory(protocol_factory, host, port)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """A connection in the simulated network."""
        return await self.connection_factory(protocol_factory, host, port)

    def _internals(self) -> Any:
        return cast(Any, self)

    def _failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        process = PROCESS.get(None)
        if process is None or process.alive:
            name = process.name if process is not None else "?"
            self.failures.append(f"{name}: {context.get('message')}: {context.get('exception')!r}")

    def _check_closed(self) -> None:
        """What is left of dead processes may still ask for something when it is collected: nothing comes of it."""

    def _write_to_self(self) -> None:
        """Nothing ever blocks, so nothing has to be woken."""

    def _process_events(self, _events: Any) -> None:
        """There are no file descriptors."""

    def _run_once(self) -> None:
        me = cast(Any, self)
        self._now += PASS_S
        ready, scheduled = me._ready, me._scheduled
        while scheduled and scheduled[0]._cancelled:
            me._timer_cancelled_count -= 1
            heappop(scheduled)._scheduled = False
        if not ready:
            if not scheduled:
                if me._stopping:
                    return
                raise Stuck(f"nothing will ever happen again at {self._now:.3f} s")
            self._now = max(self._now, scheduled[0]._when)
        horizon = self._now + RESOLUTION_S
        while scheduled and scheduled[0]._when <= horizon:
            handle = heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is not None:
                if not process.alive:
                    continue
                if process.stopped:
                    process.backlog.append(handle)
                    continue
            handle._run()
            self._steps += 1
        if self._steps > STEPS_MAX:
            raise Stuck(f"{STEPS_MAX} callbacks and no end, at {self._now:.3f} s")


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _quiet_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """A task that says nothing when its process died under it."""
    task = asyncio.Task(work, loop=loop, **options)
    cast(Any, task)._log_destroy_pending = False
    return task


def run(loop: SimulatedLoop, work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end of ``work`` and close the loop."""
    try:
        return loop.run_until_complete(work)
    finally:
        for process in loop.processes:
            process.kill()  # what is left of its tasks must not say anything when it is collected
        events.set_event_loop(None)
        loop.close()
