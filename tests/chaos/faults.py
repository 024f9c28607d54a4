"""Does a fault to a node of real processes, and measures how it serves again. What comes when is ``schedule``'s."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from actors.runtime.processes import ProcessId, is_running, process_id
from tests.chaos.asking import Memory
from tests.chaos.proxy import LinkProxy
from tests.chaos.schedule import CUT, DELAY, HOLD, KILL, LINK, PAUSE, REFUSED, STOP, STRAND, Fault
from tests.e2e.serving import Serve

LOOK_INTERVAL_S = 0.02
STRUCK_WITHIN_S = 3.0  # a spoiler waits for bytes to spoil; reserves come many times a second
# After the end of a fault everything serves and every connection is answered. A Ray that does not come up is given up by
# the supervisor after 90 s, and the next one needs its time.
HEALED_WITHIN_S = 150.0


class NotHealed(AssertionError):
    """The service did not come back."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a fault cost. Seconds from its beginning, so what lasts counts from its first moment.

    ``first_reserve_s``: a reserve that was sent after it began was answered. ``serving_s``: all processes serve again (0:
    they never stopped). ``healed_s``: they do and every connection has had an answer since the end of the fault.
    """

    fault: Fault
    at_s: float  # since the run began
    first_reserve_s: float
    silence_s: float
    serving_s: float
    healed_s: float
    generation: int


class Injector:
    """The node, its link, and what its callers have been told."""

    def __init__(self, serve: Serve, proxy: LinkProxy, memory: Memory, connections: int, started_at: float) -> None:
        self._serve = serve
        self._proxy = proxy
        self._memory = memory
        self._connections = set(range(connections))
        self._started_at = started_at

    async def inflict(self, fault: Fault) -> Measured:
        """Strike, wait until everything serves again, measure. NotHealed when it does not."""
        state = self._serve.ready()
        assert state is not None, "nothing is inflicted on a node that does not serve"
        victims = {} if fault.kind == LINK else victims_of(state, self._serve.pid, fault.targets)
        looking = Looking(self._serve)
        watching = asyncio.create_task(looking.look())
        began_at = time.monotonic()
        try:
            await self._strike(fault, victims)
            ended_at = time.monotonic()
            replaced = victims if fault.kind in (KILL, STOP) else {}
            state = await self._healed(fault, ended_at, replaced)
        finally:
            watching.cancel()
        healed_at = time.monotonic()
        first_at = self._memory.first_reserve_after(began_at)
        assert first_at is not None
        return Measured(
            fault,
            at_s=began_at - self._started_at,
            first_reserve_s=first_at - began_at,
            silence_s=self._memory.longest_silence(began_at, healed_at),
            serving_s=max(0.0, looking.not_serving_at - began_at),
            healed_s=healed_at - began_at,
            generation=state["generation"],
        )

    async def _strike(self, fault: Fault, victims: Mapping[str, ProcessId]) -> None:
        if fault.kind == LINK:
            await self._strike_link(fault)
        elif fault.kind == PAUSE:
            await pause(victims[fault.targets[0]], fault.seconds)
        else:
            for process in victims.values():
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM if fault.kind == STOP else signal.SIGKILL)
        if fault.restarts_serve:
            code = await asyncio.to_thread(self._serve.wait_exit)
            if fault.kind == STOP and code != 0:
                raise NotHealed(f"a clean stop under load ended with {code}:\n{self._serve.said()[-2000:]}")
            self._serve.set("SILENCE_MS_MAX", str(fault.silence_ms_max))
            self._serve.start()

    async def _strike_link(self, fault: Fault) -> None:
        proxy, direction = self._proxy, fault.targets[0]
        if fault.how == CUT:
            proxy.cut()
        elif fault.how == REFUSED:
            proxy.refusing = True
            proxy.cut()
        elif fault.how == DELAY:
            proxy.delay_ms = fault.delay_ms
        elif fault.how == HOLD:
            proxy.hold(direction)
        elif fault.how == STRAND:
            proxy.strand(direction)
        else:
            spoilt = proxy.spoilt
            proxy.spoil(direction, fault.how)
            await passing(STRUCK_WITHIN_S, lambda: proxy.spoilt > spoilt)
        await passing(fault.seconds)
        proxy.calm()

    async def _healed(self, fault: Fault, since: float, replaced: Mapping[str, ProcessId]) -> dict[str, Any]:
        """The state once all processes serve, no killed one among them, and each connection was answered."""
        deadline = time.monotonic() + HEALED_WITHIN_S
        while time.monotonic() < deadline:
            state = self._serve.ready()
            if (
                state is not None
                and state["state"] == "serving"
                and not any(is_running(process) for process in replaced.values())
                and all(pid_in(state, self._serve.pid, role) != old.pid for role, old in replaced.items())
                and self._memory.connections_served_since(since) >= self._connections
            ):
                return state
            if self._serve.ended:
                raise NotHealed(f"serve ended after {fault}:\n{self._serve.said()[-4000:]}")
            await asyncio.sleep(LOOK_INTERVAL_S)
        served = sorted(self._memory.connections_served_since(since))
        raise NotHealed(
            f"not healed {HEALED_WITHIN_S:.0f} s after {fault}; connections served: {served}; state: {self._serve.ready()}\n"
            f"{self._serve.said()[-4000:]}"
        )


class Looking:
    """Looks at ``ready.json`` all the time: when did not everything serve?"""

    def __init__(self, serve: Serve) -> None:
        self.not_serving_at = 0.0
        self._serve = serve

    async def look(self) -> None:
        while True:
            state = self._serve.ready()
            if state is None or state["state"] != "serving":
                self.not_serving_at = time.monotonic()
            await asyncio.sleep(LOOK_INTERVAL_S)


async def pause(process: ProcessId, seconds: float) -> None:
    """SIGSTOP, and SIGCONT later if it is still there; a process that is ended meanwhile is paused no longer."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGSTOP)
    await passing(seconds, lambda: not is_running(process))
    with suppress(ProcessLookupError):
        if process_id(process.pid) == process:
            os.kill(process.pid, signal.SIGCONT)


async def passing(seconds: float, done: Callable[[], bool] = lambda: False) -> None:
    """Until so much time is over, or it is done."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not done():
        await asyncio.sleep(LOOK_INTERVAL_S)


def victims_of(state: Mapping[str, Any], serve_pid: int, roles: tuple[str, ...]) -> dict[str, ProcessId]:
    """Who the processes of these roles are now; those that are just being replaced are left out."""
    found = {role: pid_in(state, serve_pid, role) for role in roles}
    return {role: process for role, pid in found.items() if pid and (process := process_id(pid)) is not None}


def pid_in(state: Mapping[str, Any], serve_pid: int, role: str) -> int:
    """The pid of a role; 0 while it has none."""
    if role == "serve":
        return serve_pid
    if role in ("raylet", "gcs"):
        return int(state[f"{role}_pid"] or 0)
    process = state["processes"].get(role)
    return int(process["pid"]) if process is not None else 0
