"""A rolling upgrade: hosts and gateways of the former version and of this one serve together, under traffic.

Gateways first, then the host, or the other way round: whichever way, callers see retries and nothing else. What this version
writes is refused by the former one by name; there is no way back but a backup.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.runtime.settings import load_settings
from actors.runtime.wiring import read_journal
from stockade import AsyncClient, Reservation
from stockade.client import facts
from tests.rolling import former, side

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not former.is_known(), reason="the clone has no history: the former version cannot be built"),
]

TOKEN = "rolling"
PATIENCE_S = 40.0
SKUS = ("A", "B", "C", "D")


@pytest.fixture(scope="module")
def former_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return former.install(tmp_path_factory.mktemp("former"))


class Side:
    """A process of one version."""

    def __init__(self, process: asyncio.subprocess.Process, told: dict[str, Any]) -> None:
        self.process = process
        self.told = told

    def tell(self, route: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(route).encode() + b"\n")

    async def stop(self) -> None:
        if self.process.returncode is None and "refused" not in self.told:  # else it ends by itself
            self.process.terminate()
        assert await asyncio.wait_for(self.process.wait(), PATIENCE_S) in (0, side.REFUSED)


class Rollout:
    """A data directory and the processes on it."""

    def __init__(self, directory: Path, former_version: Path) -> None:
        self.data_dir = directory / "data"
        self.data_dir.mkdir()
        self._paths = {"former": str(former_version), "this": os.pathsep.join(sys.path)}
        self._frame_port = 0
        self.gateways: list[Side] = []
        self.route: dict[str, Any] = {}

    async def start(self, version: str, role: str, port: int = 0, first_line: dict[str, Any] | None = None) -> Side:
        process = await asyncio.create_subprocess_exec(
            sys.executable, side.__file__, role, str(self.data_dir), TOKEN, str(port),
            env={**os.environ, "PYTHONPATH": self._paths[version]}, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        started = Side(process, {})
        if first_line is not None:
            started.tell(first_line)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        assert line, f"the {role} of {version} ended with {await process.wait()}"
        started.told = json.loads(line)
        return started

    async def start_host(self, version: str) -> Side:
        host = await self.start(version, "host", self._frame_port)
        if "port" in host.told:
            self._frame_port = host.told["port"]
            self.route = host.told
            for gateway in self.gateways:
                gateway.tell(self.route)
        return host

    async def start_gateway(self, version: str) -> Side:
        gateway = await self.start(version, "gateway", first_line=self.route)
        self.gateways.append(gateway)
        return gateway


class Traffic:
    """Orders and receipts through every gateway there is, all the time; what was answered is kept."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.clients: list[AsyncClient] = []
        self.received: Counter[str] = Counter()
        self.granted: Counter[str] = Counter()
        self.reservations: list[tuple[str, Reservation]] = []
        self._number = 0
        self.rounds = 0
        self.enough = False

    async def go_on(self) -> None:
        """Until it shall end; an error that a caller would see ends it too."""
        while not self.enough:
            await self.one_round()
            self.rounds += 1

    async def one_round(self) -> None:
        client = self._draw.choice(self.clients)
        sku = self._draw.choice(SKUS)
        quantity = self._draw.randint(1, 3)
        self._number += 1
        if self._draw.random() < 0.5:
            told = [
                facts.Told("wms", f"e{self._number}-{index}", (each, "main"), time.time_ns() // 1_000_000)
                for index, each in enumerate(SKUS)
            ]
            for result in await client.ingest([facts.receipt(one, quantity) for one in told]):
                assert result.outcome in ("APPLIED", "DUPLICATE"), result
            self.received.update(dict.fromkeys(SKUS, quantity))
            return
        request_id = f"r{self._number}"
        made = await client.reserve([(sku, "main", quantity)], request_id=request_id)
        if not isinstance(made, Reservation):
            return
        self.granted[sku] += quantity
        self.reservations.append((request_id, made))
        again = await self._draw.choice(self.clients).reserve([(sku, "main", quantity)], request_id=request_id)
        assert isinstance(again, Reservation) and again.reservation_id == made.reservation_id  # whoever is asked

    async def until(self, rounds: int) -> None:
        """So many more rounds have gone by."""
        wanted = self.rounds + rounds
        async with asyncio.timeout(PATIENCE_S):
            while self.rounds < wanted:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def rollout(directory: Path, former_version: Path, seed: int) -> AsyncIterator[tuple[Rollout, Traffic]]:
    running = Rollout(directory, former_version)
    traffic = Traffic(seed)
    async with AsyncExitStack() as held:
        yield running, traffic
        for client in traffic.clients:
            held.push_async_callback(client.close)
        for gateway in running.gateways:
            held.push_async_callback(gateway.stop)


async def through(traffic: Traffic, gateway: Side) -> None:
    traffic.clients.append(AsyncClient(f"127.0.0.1:{gateway.told['port']}", channel_id="web", timeout_s=30.0))


@pytest.mark.parametrize("first", ["gateways first", "the host first"])
async def test_both_versions_serve_together_and_nothing_is_lost(
    first: str, tmp_path: Path, former_version: Path, seed: int
) -> None:
    async with rollout(tmp_path, former_version, seed) as (running, traffic):
        host = await running.start_host("former")
        await through(traffic, await running.start_gateway("former"))
        going = asyncio.create_task(traffic.go_on())
        await traffic.until(20)
        if first == "gateways first":
            await through(traffic, await running.start_gateway("this"))  # a frame version that the host does not know
            await traffic.until(20)
        await host.stop()
        host = await running.start_host("this")
        await traffic.until(20)
        if first != "gateways first":
            await through(traffic, await running.start_gateway("this"))
            await traffic.until(20)
        traffic.enough = True  # the round under way is finished: what was answered is counted
        await asyncio.wait_for(going, PATIENCE_S)
        for client in traffic.clients:
            for sku in SKUS:
                available = (await client.availability((sku, "main"))).available_quantity
                assert available == traffic.received[sku] - traffic.granted[sku], sku
            for request_id, made in traffic.reservations:
                line = made.lines[0]
                wanted = [(line.stock_key.sku, "main", line.granted_quantity)]
                again = await client.reserve(wanted, request_id=request_id)
                assert isinstance(again, Reservation) and again.reservation_id == made.reservation_id
        await host.stop()
        report = verified(running.data_dir)
        assert report.ok, report.violations[:3]

        refused = await running.start_host("former")
        assert "needs a reader of format 2; this version reads up to 1" in refused.told["refused"]
        await refused.stop()
        host = await running.start_host("this")  # it was left as it was
        assert (await traffic.clients[0].availability(("A", "main"))).known
        await host.stop()


def verified(data_dir: Path) -> Any:
    from actors.journal.verify import verify

    settings = load_settings(overrides={"data_dir": str(data_dir)}, environment={}).settings
    journal = read_journal(settings)
    try:
        return verify(journal)
    finally:
        journal.close()
