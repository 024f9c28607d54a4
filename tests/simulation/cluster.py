"""The service in simulation: shard hosts, gateways and the directory as processes on one virtual loop.

Everything that decides or carries is the product's own: ``ShardHost`` with its links, ``HostLinks`` with the core, the
directory's table. Owned here: who is started when, what a process's clocks show, and how processes end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from actors.journal.memory import memory_store
from actors.runtime.directory import InProcessDirectory
from actors.shard.clock import ShardClock
from actors.shard.directory import HostRoute, Routes
from actors.shard.frames import packed_bytes
from actors.shard.host import ShardHost
from actors.shard.host_config import EXIT_BUG
from actors.shard.placement import PLACEMENT_VERSION
from gateway.config import ChannelConfig, GatewayConfig, WarehouseConfig
from gateway.core import Core
from gateway.links import HostLinks
from tests.simulation.journal import Disk, SimulatedJournal, SimulatedJournalThread
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import Network
from tests.simulation.plan import HOUR_MS, TOKEN, Plan
from tests.simulation.witness import Witness

CLUSTER = "simulated"
TIMELINE = "t1"
START_MS = 1_700_000_000_000
REGISTER_INTERVAL_S = 1.0
LATE_MAP_S_MAX = 4.0
RPC_DELAY_S = (0.0001, 0.003)

Note = Callable[..., None]


class SimulatedHost:
    """One process of a shard host. ``wall_offset_ms``: how wrong its wall clock is."""

    def __init__(self, cluster: Cluster, number: int, host_id: str) -> None:
        self.cluster = cluster
        self.process = Process(cluster.loop, f"host {number}")
        self.wall_offset_ms = cluster.draw.randint(-cluster.skew_ms, cluster.skew_ms)
        self.thread: SimulatedJournalThread
        loop, disk = cluster.loop, cluster.disk
        self.host = ShardHost(
            replace(cluster.plan.host, host_id=host_id),
            lambda: SimulatedJournal(disk),
            cluster.plan.rules,
            clock=ShardClock(
                lambda: cluster.wall_ms() + self.wall_offset_ms, lambda: int(loop.time() * 1000) + number * 1_000_000
            ),
            end_process=lambda code, reason: cluster.ended(self, code, reason),
            thread_factory=self._thread,
            own_process=False,
        )
        self.process.spawn(self._live())

    def _thread(self, _loop: asyncio.AbstractEventLoop) -> SimulatedJournalThread:
        self.thread = SimulatedJournalThread(
            self.cluster.loop,
            self.cluster.disk,
            die=lambda: self.cluster.crash(self),
            stop=lambda: self.cluster.stopped_at_work(self),
        )
        return self.thread

    @property
    def serves(self) -> bool:
        return self.process.alive and not self.process.stopped and self.host.state == "serving"

    @property
    def starts(self) -> bool:
        return self.process.alive and self.host.state in ("starting", "recovering")

    @property
    def epoch(self) -> int:
        """In which it owns its shards; 0 before it has taken them."""
        return self.host.engine.books.shards[0].epoch if hasattr(self.host, "_engine") else 0

    async def _live(self) -> None:
        cluster = self.cluster
        try:
            route = await self.host.start()
        except Exception as failed:
            cluster.ended(self, 1, f"it did not start: {failed!r}")
            return
        cluster.witness.watch(self.host.engine)
        cluster.note("serves", self.process.name, route.endpoint)
        cluster.mind()  # a successor may have come and gone while it started
        while self.host.state == "serving":
            await cluster.directory.register(route)
            await cluster.loop.pass_time(REGISTER_INTERVAL_S)

    def shard_time_ms(self) -> int:
        """What the host's clock shows, for who wants to hit a deadline."""
        return self.cluster.wall_ms() + self.wall_offset_ms

    async def stop_gently(self) -> None:
        await self.host.stop(2.0)
        self.cluster.ended(self, 0, "stopped")


class SimulatedDirectory:
    """The directory's process, reached over the network; it may die and come back empty."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lives = 0
        self.restart()

    def restart(self) -> None:
        self._lives += 1
        self.process = Process(self._cluster.loop, f"directory {self._lives}")
        self._table = self.process.context.run(InProcessDirectory, self._lives * 1_000_000)

    def lose(self) -> None:
        self.process.kill()
        self.restart()

    async def register(self, route: HostRoute) -> None:
        cluster = self._cluster
        await cluster.loop.pass_time(cluster.draw.uniform(*RPC_DELAY_S))
        self.process.spawn(self._table.register(route, CLUSTER, TIMELINE, cluster.plan.shards))

    async def routes(self, after_version: int) -> Routes:
        """As the gateways' ``Directory`` port."""
        loop = self._cluster.loop
        answer: asyncio.Future[Routes] = loop.create_future()
        process, table = self.process, self._table

        async def look() -> None:
            try:
                found = await table.routes(after_version)
            except TimeoutError as late:
                answer.done() or answer.set_exception(late)  # type: ignore[func-returns-value]
            else:
                answer.done() or answer.set_result(found)  # type: ignore[func-returns-value]

        process.spawn(look())
        while not answer.done():
            if not process.alive:
                raise ConnectionError("the directory died")
            await asyncio.wait((answer,), timeout=1.0)
        if not self._cluster.calm and self._cluster.draw.random() < self._cluster.plan.faults.late_map:
            await loop.pass_time(self._cluster.draw.uniform(0.01, LATE_MAP_S_MAX))
        return answer.result()


class SimulatedGateway:
    """One process of a gateway, and the way of its callers to it."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster = cluster
        self.process = Process(cluster.loop, f"gateway {number}")
        work = cluster.plan.work
        self.config = GatewayConfig(
            TOKEN,
            {channel: ChannelConfig(may_impose=True) for channel in work.channels},
            {warehouse: WarehouseConfig() for warehouse in work.warehouses},
            name=self.process.name,
            frames_in_flight_per_host=work.frames_in_flight,
        )
        self.links: HostLinks | None = None
        self._callers: dict[asyncio.Future[Any], None] = {}
        self.process.spawn(self._live())

    async def _live(self) -> None:
        self.links = HostLinks(Core(self.config), self.cluster.directory, self.config)
        self.links.start()

    async def call(self, items: list[Any], timeout_ms: int, *, mutating: bool, walks_off: bool = False) -> Any:
        """Replies, or None when none came: lost, too late, or the gateway died. ``walks_off``: the caller hangs up when
        it has waited long enough; else the gateway ends the call at its own deadline."""
        cluster, loop, work = self.cluster, self.cluster.loop, self.cluster.plan.work
        future: asyncio.Future[Any] = loop.create_future()
        self._callers[future] = None
        loop.call_later(timeout_ms / 1000, _resolve, future, None)
        lost = cluster.calm is False and cluster.draw.random() < work.request_lost
        if not lost:
            delay_s = cluster.draw.uniform(*RPC_DELAY_S)
            loop.call_later(delay_s, self._serve, items, timeout_ms, mutating, walks_off, future)
        try:
            return await future
        finally:
            self._callers.pop(future, None)

    def _serve(
        self, items: list[Any], timeout_ms: int, mutating: bool, walks_off: bool, future: asyncio.Future[Any]
    ) -> None:
        if not self.process.alive or self.links is None or not self.links.cluster_id:
            self.cluster.loop.call_later(0.001, _resolve, future, None)
            return
        ask = self.process.spawn(self._ask(self.links, items, timeout_ms, mutating, future))
        if walks_off:
            self.cluster.loop.call_later(timeout_ms / 1000, ask.cancel)

    async def _ask(
        self, links: HostLinks, items: list[Any], timeout_ms: int, mutating: bool, future: asyncio.Future[Any]
    ) -> None:
        anywhere = items[0][1] == -1
        replies = await links.ask(
            items,
            deadline=links.now() + timeout_ms,
            size=packed_bytes(items) + 16 * len(items),
            weight=sum(item[3] for item in items),
            mutating=mutating,
            host_id=links.host_ids()[0] if anywhere else "",
        )
        cluster = self.cluster
        if cluster.calm is False and cluster.draw.random() < cluster.plan.work.answer_lost:
            return
        cluster.loop.call_later(cluster.draw.uniform(*RPC_DELAY_S), _resolve, future, list(replies))

    def kill(self) -> None:
        self.process.kill()
        for future in list(self._callers):
            self.cluster.loop.call_later(0.001, _resolve, future, None)


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


class Cluster:
    """All processes. Former owners may live on without knowing that they are."""

    def __init__(self, loop: SimulatedLoop, plan: Plan, draw: random.Random, network: Network, note: Note) -> None:
        self.loop = loop
        self.plan = plan
        self.draw = draw
        self.network = network
        self.note = note
        self.calm = False  # no more faults
        self.skew_ms = plan.faults.skew_ms
        self.later_ms = 0  # hours that passed while nobody was there
        store = memory_store(CLUSTER, TIMELINE, plan.shards, PLACEMENT_VERSION, START_MS)
        self.disk = Disk(store, random.Random(f"{plan.seed}/disk"), note, loop.time)
        self.directory = SimulatedDirectory(self)
        self.world = Process(loop, "world")
        self.hosts: list[SimulatedHost] = []
        self.gateways: list[SimulatedGateway] = []
        self.bugs: list[str] = []
        self.ends = 0
        self.witness = Witness()
        self.on_stop: Callable[[SimulatedHost], None] = lambda _host: None
        self._gateways_made = 0
        self._starting = False
        self.start_host()
        for _ in range(plan.work.gateways):
            self.start_gateway()

    def wall_ms(self) -> int:
        """The true wall clock."""
        return START_MS + int(self.loop.time() * 1000) + self.later_ms

    @property
    def owner(self) -> SimulatedHost | None:
        """The living host that owns the shards by the journal's word; later ones may have been slower to take them."""
        epoch = self.disk.store.heads[0].epoch
        for host in reversed(self.hosts):
            if host.process.alive and host.epoch == epoch:
                return host
        return None

    @property
    def current(self) -> SimulatedHost:
        """The owner, or else the host that was started last."""
        return self.owner or self.hosts[-1]

    def start_host(self, host_id: str = "host-a") -> None:
        self._starting = False
        self.hosts.append(SimulatedHost(self, len(self.hosts) + 1, host_id))
        self.note("starts", self.hosts[-1].process.name, host_id)

    def ended(self, host: SimulatedHost, code: int, reason: str) -> None:
        """A process of a host ended by itself."""
        self.note("ends", host.process.name, code, reason)
        self.ends += 1
        if code == EXIT_BUG:
            self.bugs.append(f"{host.process.name}: {reason}")
        self._bury(host, told=True)

    def crash(self, host: SimulatedHost) -> None:
        """kill -9, or the machine is gone and nobody is told."""
        told = self.draw.random() >= self.plan.faults.machine_lost
        self.note("crashes", host.process.name, "told" if told else "machine lost")
        self._bury(host, told=told)

    def _bury(self, host: SimulatedHost, *, told: bool) -> None:
        if not host.process.alive:
            return
        host.process.kill()
        if hasattr(host, "thread"):
            host.thread.crash()
        self.network.process_died(host.process, told=told)
        self.mind()

    def mind(self) -> None:
        """Start a successor when nobody owns the shards, nor is about to."""
        if self.owner is None and not self._starting and not any(one.starts for one in self.hosts):
            self._starting = True
            least, most = (50, 200) if self.calm else self.plan.faults.restart_ms
            if not self.calm and self.draw.random() < self.plan.faults.long_down:
                self.later_ms = min(self.later_ms + self.draw.choice((HOUR_MS, 5 * HOUR_MS)), 20 * HOUR_MS)
                self.note("hours pass", self.later_ms)
            self.loop.call_later(self.draw.uniform(least, most) / 1000, self.start_host, context=self.world.context)

    def stopped_at_work(self, host: SimulatedHost) -> None:
        """It is not run any more for a while; whoever watches it must decide what to do."""
        host.process.stop()
        self.on_stop(host)

    def usurp(self) -> None:
        """A second owner takes every shard while the first lives."""
        if not self._starting:
            self.start_host(self.draw.choice(("host-a", "host-b")))

    def start_gateway(self) -> None:
        self._gateways_made += 1
        self.gateways.append(SimulatedGateway(self, self._gateways_made))

    def crash_gateway(self, gateway: SimulatedGateway) -> None:
        self.note("crashes", gateway.process.name)
        gateway.kill()
        self.network.process_died(gateway.process, told=True)
        self.gateways.remove(gateway)
        self.start_gateway()
