"""The supervision link and the life of an actor process on it, without Ray and in one loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.runtime.actor_process import EXIT_ORPHANED, EXIT_SERVICE_FAILED, FatalFault, Start, live_as
from actors.runtime.plan import NodePlan
from actors.runtime.settings import load_settings
from actors.runtime.supervision_link import LinkServer, MemberLink, MemberState

TOKEN = "the link's token"


class Supervisor:
    """Remembers what the link told it, and waits for more."""

    def __init__(self) -> None:
        self.members: list[MemberLink] = []
        self.states: list[MemberState] = []
        self.gone = 0
        self._news = asyncio.Event()
        self.server = LinkServer(TOKEN, self._joined, self._changed, self._left)

    def _joined(self, member: MemberLink) -> None:
        self.members.append(member)
        self._news.set()

    def _changed(self, member: MemberLink) -> None:
        self.states.append(member.state)
        self._news.set()

    def _left(self, member: MemberLink) -> None:
        self.gone += 1
        self._news.set()

    async def until(self, state: MemberState) -> None:
        async with asyncio.timeout(5):
            while state not in self.states:
                await self._news.wait()
                self._news.clear()

    async def until_gone(self) -> None:
        async with asyncio.timeout(5):
            while not self.gone:
                await self._news.wait()
                self._news.clear()


class StandIn:
    """A service that does what the test says."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.drained_ms = -1

    def facts(self) -> Mapping[str, Any]:
        return {"endpoint": "127.0.0.1:1", "got": self.start.activation["frame_port"]}

    async def wait_failed(self) -> BaseException:
        return await self.failure

    async def close(self, drain_ms: int) -> None:
        self.drained_ms = drain_ms


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    supervisor.server.close()


async def live(supervisor: Supervisor, started: list[StandIn], fault: Exception | None = None) -> asyncio.Task[int]:
    async def start(start: Start) -> StandIn:
        if fault is not None:
            raise fault
        started.append(StandIn(start))
        return started[0]

    port = await supervisor.server.start()
    settings = load_settings(environment={}).settings
    plan = NodePlan(settings, Path("/nowhere"), 1, 1, port, TOKEN, "cluster token", 1)
    task = asyncio.create_task(live_as(plan, "host", start, None))
    await supervisor.until(MemberState.PREPARED)
    return task


async def test_a_service_starts_when_it_is_activated_and_closes_when_it_is_told(supervisor: Supervisor) -> None:
    started: list[StandIn] = []
    task = await live(supervisor, started)
    assert started == []
    (member,) = supervisor.members
    member.activate(frame_port=7)
    await supervisor.until(MemberState.SERVING)
    assert member.facts == {"endpoint": "127.0.0.1:1", "got": 7}
    member.stop(250)
    await supervisor.until(MemberState.STOPPED)
    assert started[0].drained_ms == 250
    assert not task.done()  # a process that ends by itself would be restarted
    task.cancel()


async def test_a_process_that_was_never_activated_stops_at_once(supervisor: Supervisor) -> None:
    task = await live(supervisor, [])
    supervisor.members[0].stop(250)
    await supervisor.until(MemberState.STOPPED)
    task.cancel()


@pytest.mark.parametrize(
    ("fault", "fatal"), [(FatalFault("record 7 is damaged"), True), (OSError("record 7 is damaged"), False)]
)
async def test_a_service_that_cannot_start_says_why(supervisor: Supervisor, fault: Exception, fatal: bool) -> None:
    task = await live(supervisor, [], fault)
    supervisor.members[0].activate(frame_port=0)
    await supervisor.until(MemberState.FAILED)
    assert supervisor.members[0].facts == {"error": "record 7 is damaged", "kind": type(fault).__name__, "fatal": fatal}
    assert await asyncio.wait_for(task, 5) == EXIT_SERVICE_FAILED


async def test_a_service_that_fails_while_it_serves_ends_its_process(supervisor: Supervisor) -> None:
    started: list[StandIn] = []
    task = await live(supervisor, started)
    supervisor.members[0].activate(frame_port=0)
    await supervisor.until(MemberState.SERVING)
    started[0].failure.set_result(RuntimeError("it broke"))
    await supervisor.until(MemberState.FAILED)
    assert await asyncio.wait_for(task, 5) == EXIT_SERVICE_FAILED


async def test_a_process_without_its_supervisor_ends(supervisor: Supervisor) -> None:
    started: list[StandIn] = []
    task = await live(supervisor, started)
    member = supervisor.members[0]
    member.activate(frame_port=0)
    await supervisor.until(MemberState.SERVING)
    member.hang_up()
    assert await asyncio.wait_for(task, 5) == EXIT_ORPHANED
    await supervisor.until_gone()


async def test_a_process_that_finds_no_supervisor_ends() -> None:
    plan = NodePlan(load_settings(environment={}).settings, Path("/nowhere"), 1, 1, 1, TOKEN, "", 1)

    async def start(start: Start) -> StandIn:
        raise AssertionError("nobody asked for it")

    assert await live_as(plan, "host", start, None) == EXIT_ORPHANED


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"\x00" * 70_000,
        b'{"token": "wrong", "role": "host", "pid": 1, "generation": 1}\n',
        b'{"role": "host"}\n',
        b"[]\n",
        b"",
    ],
)
async def test_strangers_on_the_link_port_are_hung_up_on(supervisor: Supervisor, line: bytes) -> None:
    port = await supervisor.server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line)
    writer.write_eof()
    try:
        async with asyncio.timeout(5):
            assert await reader.read(-1) == b""
    except ConnectionResetError:
        pass
    writer.close()
    assert supervisor.members == []
