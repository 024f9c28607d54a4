"""Nodes of real processes: started, killed, paused, started again; every link between them led through a proxy of its own.

Stands in for what a node has beside its services: a supervisor that starts what ended and tells the directory of a dead
host. It inflicts nothing by itself and judges nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.runtime.directory_server import DirectoryLink, DirectoryRefused, DirectoryUnreachable
from tests.chaos.proxy import LinkProxy
from tests.nodes.member import DIRECTORY, GATEWAY, HOST, Spec
from tests.postgres_server import PostgresServer, free_port

ROOT = Path(__file__).resolve().parents[2]
STARTED_WITHIN_S = 40.0
SERVING_WITHIN_S = 60.0
STOPPED_WITHIN_S = 20.0
RESTARTED_AFTER_S = 1.0  # what Ray takes at best
LOOK_INTERVAL_S = 0.05
POSTGRES = "postgres"

Say = Callable[[str], None]


class NotServing(AssertionError):
    """What should serve does not; says what is missing."""


class MemberProcess:
    """One process of a node, over its restarts. ``down``: it is meant to be dead."""

    def __init__(self, spec: Spec, log: Path, ended: Callable[[MemberProcess, int], Awaitable[None]]) -> None:
        self.spec = spec
        self.facts: dict[str, Any] = {}
        self.down = True
        self.starts = 0
        self.last_code: int | None = None
        self._log = log
        self._ended = ended
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs now or ran last."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def port(self) -> int | None:
        """Where it listens; None while nobody does."""
        return int(self.facts["port"]) if self.running and "port" in self.facts else None

    async def start(self) -> None:
        """Start it; it listens when this returns."""
        self.down = False
        self.starts += 1
        self.facts = {}
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.nodes.member",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=ROOT,
            )  # fmt: skip
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(self.spec.line())
        await process.stdin.drain()
        self._watching = asyncio.get_running_loop().create_task(self._watch(process))
        try:
            line = await asyncio.wait_for(process.stdout.readline(), STARTED_WITHIN_S)
        except TimeoutError:
            line = b""
        if not line:
            raise NotServing(f"{self.spec.name} did not start:\n{self.said()[-3000:]}")
        self.facts = json.loads(line)
        if self.spec.port == 0:
            self.spec = replace(self.spec, port=int(self.facts["port"]))  # kept over its restarts

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self.last_code = code
        if not self.down:
            await self._ended(self, code)

    def kill(self) -> None:
        """SIGKILL. Whether it comes back is its supervisor's business."""
        self.send(signal.SIGKILL)

    def send(self, number: int) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def end(self, number: int = signal.SIGTERM) -> int | None:
        """End it for good; its exit code."""
        self.down = True
        process = self._process
        if process is None or process.returncode is not None:
            return self.last_code
        self.send(number)
        self.send(signal.SIGCONT)
        try:
            return await asyncio.wait_for(process.wait(), STOPPED_WITHIN_S)
        except TimeoutError:
            process.kill()
            return await process.wait()

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""


class Nodes:
    """``count`` nodes with a host and a gateway each; the directory is on the first, the head; PostgreSQL beside them."""

    def __init__(
        self, place: Path, count: int, environment: Mapping[str, str], postgres: PostgresServer, say: Say
    ) -> None:
        self.count = count
        self.postgres = postgres
        self.database = "stockade"
        self.links: dict[tuple[str, str], LinkProxy] = {}
        self.members: dict[str, MemberProcess] = {}
        self._place = place
        self._environment = dict(environment)
        self._say = say
        self._token = secrets.token_urlsafe(16)
        self._draw = random.Random(0)
        self._reviving: set[asyncio.Task[None]] = set()
        self._asking: DirectoryLink | None = None

    # --- names --------------------------------------------------------------------------------------------------------

    @property
    def hosts(self) -> list[str]:
        return [f"host-{number}" for number in range(self.count)]

    @property
    def gateways(self) -> list[str]:
        return [f"gateway-{number}" for number in range(self.count)]

    def of_node(self, number: int) -> list[str]:
        """Every process of a node; the head has the directory as well."""
        return [f"host-{number}", f"gateway-{number}", *([DIRECTORY] if number == 0 else [])]

    def target(self, first: int) -> str:
        """For a client: every gateway, beginning with this node's."""
        order = [*range(first, self.count), *range(first)]
        return "ipv4:" + ",".join(f"127.0.0.1:{self.members[f'gateway-{number}'].spec.port}" for number in order)

    # --- start and stop -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything; every shard has an owner when this returns."""
        self.postgres.create_database(self.database)
        await self._lay_links()
        await self._add(Spec(DIRECTORY, DIRECTORY, "node-0", self._token, self._settings_of(0), port=free_port()))
        self._asking = DirectoryLink(f"127.0.0.1:{self.members[DIRECTORY].port}", self._token, "tests")
        await asyncio.gather(*(self._add(self._host_spec(number)) for number in range(self.count)))
        await asyncio.gather(*(self._add(self._gateway_spec(number)) for number in range(self.count)))
        await self.wait_serving()

    async def stop(self) -> None:
        """End everything, gateways first."""
        for task in self._reviving:
            task.cancel()
        for names in (self.gateways, self.hosts, [DIRECTORY]):
            await asyncio.gather(*(self.members[name].end() for name in names if name in self.members))
        if self._asking is not None:
            self._asking.close()
        for link in self.links.values():
            link.close()

    async def kill_everything(self) -> None:
        """Whatever happened: nothing stays."""
        await asyncio.gather(*(member.end(signal.SIGKILL) for member in self.members.values()))

    async def revive(self, name: str) -> None:
        """Start a process that was killed for good."""
        await self.members[name].start()

    async def overview(self) -> dict[str, Any]:
        """The directory's own words; {} while it does not answer."""
        assert self._asking is not None
        try:
            return await self._asking.overview()
        except (DirectoryUnreachable, DirectoryRefused):
            return {}

    @property
    def directory(self) -> DirectoryLink:
        """The directory, past every proxy."""
        assert self._asking is not None
        return self._asking

    async def owners(self) -> dict[int, str]:
        """Shard → living host, as the directory knows."""
        found = await self.overview()
        living = {host["host_id"] for host in found.get("hosts", ()) if host["state"] != "dead"}
        try:
            routes = await self.directory.routes(0)
        except (DirectoryUnreachable, DirectoryRefused):
            return {}
        return {shard: host.host_id for host in routes.hosts if host.host_id in living for shard in host.shards}

    async def wait_serving(self, within_s: float = SERVING_WITHIN_S) -> None:
        """Until every process runs and every shard has a living owner."""
        deadline = time.monotonic() + within_s
        shards = int(self._environment.get("STOCKADE_SHARD_COUNT", "64"))
        while time.monotonic() < deadline:
            lacking = [name for name, member in self.members.items() if member.port is None]
            owned = len(await self.owners())
            if not lacking and owned == shards:
                return
            await asyncio.sleep(LOOK_INTERVAL_S)
        raise NotServing(f"after {within_s:g} s {owned} of {shards} shards have an owner, and {lacking} do not run")

    # --- links --------------------------------------------------------------------------------------------------------

    def links_of(self, names: list[str], others: list[str]) -> Iterator[LinkProxy]:
        """Every link between these and those, whoever dials."""
        for (one, other), link in self.links.items():
            if (one in names and other in others) or (one in others and other in names):
                yield link

    def cut(self, names: list[str], others: list[str]) -> None:
        """Nothing gets through any more, and nobody is told: as if a cable were pulled."""
        for link in self.links_of(names, others):
            link.hold("both ways")

    def heal(self, names: list[str], others: list[str]) -> None:
        """What was held goes on."""
        for link in self.links_of(names, others):
            link.calm()

    async def _lay_links(self) -> None:
        for host in self.hosts:
            await self._lay(host, POSTGRES)
            await self._lay(host, DIRECTORY)
            for other in self.hosts:
                if other != host:
                    await self._lay(host, other)
        for gateway in self.gateways:
            await self._lay(gateway, DIRECTORY)
            for host in self.hosts:
                await self._lay(gateway, host)

    async def _lay(self, dialler: str, listener: str) -> None:
        def upstream() -> int | None:
            if listener == POSTGRES:
                return self.postgres.port
            member = self.members.get(listener)
            return member.port if member is not None else None

        link = self.links[dialler, listener] = LinkProxy(upstream, self._draw)
        await link.start()

    def _through(self, dialler: str, listener: str) -> str:
        return f"127.0.0.1:{self.links[dialler, listener].port}"

    # --- processes ----------------------------------------------------------------------------------------------------

    def _settings_of(self, number: int, url: str = "") -> dict[str, str]:
        return {
            **self._environment,
            "STOCKADE_DATA_DIR": str(self._place / f"node-{number}"),
            **({"STOCKADE_JOURNAL_URL": url} if url else {}),
        }

    def _host_spec(self, number: int) -> Spec:
        name = f"host-{number}"
        url = self.postgres.url_of(self.database, port=self.links[name, POSTGRES].port)
        via = {other: self._through(name, other) for other in self.hosts if other != name}
        return Spec(
            HOST, name, f"node-{number}", self._token, self._settings_of(number, url),
            directory=self._through(name, DIRECTORY), via=via,
        )  # fmt: skip

    def _gateway_spec(self, number: int) -> Spec:
        name = f"gateway-{number}"
        via = {host: self._through(name, host) for host in self.hosts}
        return Spec(
            GATEWAY, name, f"node-{number}", self._token, self._settings_of(number),
            directory=self._through(name, DIRECTORY), via=via, port=free_port(),
        )  # fmt: skip

    async def _add(self, spec: Spec) -> None:
        member = self.members[spec.name] = MemberProcess(spec, self._place / f"{spec.name}.log", self._member_ended)
        await member.start()

    async def _member_ended(self, member: MemberProcess, code: int) -> None:
        """What a supervisor does: tell the directory of a dead host, start it again."""
        pid = member.pid
        self._say(f"     {member.spec.name} (pid {pid}) ended with {code}")
        if member.spec.role == HOST:
            self._in_background(self._report_dead(member, pid))
        self._in_background(self._start_again(member))

    async def _report_dead(self, member: MemberProcess, pid: int) -> None:
        """Over the node's own way to the directory, which may be cut."""
        link = DirectoryLink(self._through(member.spec.name, DIRECTORY), self._token, f"{member.spec.name} supervisor")
        with contextlib.suppress(DirectoryUnreachable, DirectoryRefused):
            await link.host_died(member.spec.name, pid)
        link.close()

    async def _start_again(self, member: MemberProcess) -> None:
        while not member.down and not member.running:
            await asyncio.sleep(RESTARTED_AFTER_S)
            with contextlib.suppress(NotServing):  # its database is away, say: the next try
                await member.start()

    def _in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._reviving.add(task)
        task.add_done_callback(self._reviving.discard)
