"""What every actor process of a node does beside Ray: one thread with one uvloop that the service has for itself, and
the link.

Ray keeps the main thread (blocked outside Python) and never runs code in the service's loop, so Ray's concurrency
cannot disturb a turn. The life of a process: connect, report PREPARED, wait to be activated, start the service,
report SERVING, on request close it and report STOPPED. When the supervisor is gone the process ends at once; when the
service fails it says why and ends, and Ray starts another. Knows no service: each is a ``StartService`` found by its
entry point.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, cast

import uvloop

from actors.runtime.announcements import log_to_file
from actors.runtime.plan import NodePlan
from actors.runtime.supervision_link import BEAT_INTERVAL_S, MemberState, ProcessLink

__all__ = [
    "EXIT_ORPHANED",
    "EXIT_SERVICE_FAILED",
    "FatalFault",
    "Service",
    "Start",
    "StartService",
    "load_entry_point",
    "run_in_thread",
]

EXIT_SERVICE_FAILED = 20
EXIT_ORPHANED = 21
COMMANDS_WAITING_MAX = 8  # there are two commands, each said once

log = logging.getLogger(__name__)


class FatalFault(Exception):
    """The service cannot start and another try would end the same: a damaged journal, another cluster."""


class Service(Protocol):
    """A running service."""

    def facts(self) -> Mapping[str, Any]:
        """What ``ready.json`` shows of it: endpoints, numbers; plain JSON data."""
        ...

    async def wait_failed(self) -> BaseException:
        """Return when it can no longer serve; the process then ends."""
        ...

    async def close(self, drain_ms: int) -> None:
        """Stop taking work, finish what is under way within the time, make it durable, let go of everything."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """What a service is started with. ``activation``: what the supervisor sent along. ``directory``: its Ray handle.

    ``end_process(code, reason)``: tell the supervisor why, then end without another turn of the loop.
    """

    plan: NodePlan
    role: str
    activation: Mapping[str, Any]
    directory: Any
    end_process: Callable[[int, str], NoReturn]


StartService = Callable[[Start], Awaitable[Service]]
"""How entry points look: returns a service that serves."""


def load_entry_point(name: str) -> Any:
    """The object behind "module:name"."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def run_in_thread(plan: NodePlan, role: str, entry_point: str, directory: Any) -> threading.Thread:
    """Run the whole life of this process's service in a thread of its own."""
    log_to_file(plan.data_dir / "logs" / f"{role}.log", plan.settings.log_level)
    start = cast(
        StartService, load_entry_point(entry_point)
    )  # in the caller's thread: imports are done before PREPARED

    def live() -> NoReturn:
        code = EXIT_SERVICE_FAILED
        try:
            code = uvloop.run(live_as(plan, role, start, directory))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)  # Ray's own exit may hang on a dead raylet

    thread = threading.Thread(target=live, name=f"stockade-{role}", daemon=True)
    thread.start()
    return thread


async def live_as(plan: NodePlan, role: str, start: StartService, directory: Any) -> int:
    """The life described above; its exit code."""
    try:
        link = await ProcessLink.connect(plan.link_port, plan.link_token, role, plan.generation)
    except OSError:
        return EXIT_ORPHANED
    link.report(MemberState.PREPARED)

    def end_process(code: int, reason: str) -> NoReturn:
        log.critical("ends: %s", reason)
        link.last_words(error=reason, kind="EndProcess", fatal=False)
        os._exit(code)

    def start_now(activation: Mapping[str, Any]) -> Awaitable[Service]:
        return start(Start(plan, role, activation, directory, end_process))

    commands: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=COMMANDS_WAITING_MAX)
    tasks = [
        asyncio.create_task(listen_until_orphaned(link, commands)),
        asyncio.create_task(beat_for_ever(link)),
        asyncio.create_task(serve_on_request(start_now, link, commands)),
    ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done.pop().result()


async def listen_until_orphaned(link: ProcessLink, commands: asyncio.Queue[dict[str, Any]]) -> int:
    async for command in link.commands():
        await commands.put(command)
    return EXIT_ORPHANED


async def serve_on_request(
    start: Callable[[Mapping[str, Any]], Awaitable[Service]],
    link: ProcessLink,
    commands: asyncio.Queue[dict[str, Any]],
) -> int:
    """Follow the supervisor's commands until the service fails."""
    activation = await commands.get()
    if activation["do"] == "stop":
        link.report(MemberState.STOPPED)
        return await asyncio.Future()
    link.report(MemberState.STARTING)
    await link.flush()
    try:
        service = await start(activation)
    except Exception as error:
        return await report_failure(link, error)
    link.report(MemberState.SERVING, **service.facts())
    failure = asyncio.create_task(service.wait_failed())
    stop = asyncio.create_task(commands.get())
    await asyncio.wait({failure, stop}, return_when=asyncio.FIRST_COMPLETED)
    if failure.done():
        return await report_failure(link, failure.result())
    failure.cancel()
    link.report(MemberState.STOPPING, **service.facts())
    await service.close(int(stop.result()["drain_ms"]))
    link.report(MemberState.STOPPED)
    return await asyncio.Future()  # Ray would restart a process that ends by itself


async def report_failure(link: ProcessLink, error: BaseException) -> int:
    log.error("service failed", exc_info=error)
    traceback.print_exception(error)
    text = str(error) or type(error).__name__
    link.report(MemberState.FAILED, error=text, kind=type(error).__name__, fatal=isinstance(error, FatalFault))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(link.flush(), 1.0)
    await asyncio.sleep(0.05)  # let the line leave before the process does
    return EXIT_SERVICE_FAILED


async def beat_for_ever(link: ProcessLink) -> int:
    """A sign of life of this loop each second."""
    number = 0
    while True:
        number += 1
        link.beat(number)
        await asyncio.sleep(BEAT_INTERVAL_S)
