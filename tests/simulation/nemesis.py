"""What goes wrong and when: crashes, pauses, second owners, partitions, full disks, clocks that jump. Rates are the plan's."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any

from tests.simulation.cluster import Cluster, SimulatedHost
from tests.simulation.journal import DiskFaults

Strike = Callable[[], Coroutine[Any, Any, None]]


class Nemesis:
    """Strikes during the safety phase; ``end`` undoes everything that heals."""

    def __init__(self, cluster: Cluster, draw: random.Random) -> None:
        self._cluster = cluster
        self._draw = draw
        faults = cluster.plan.faults
        strikes: list[tuple[float, Strike]] = [
            (faults.crash, self._crash),
            (faults.pause, self._pause),
            (faults.usurp, self._usurp),
            (faults.gateway_crash, self._crash_gateway),
            (faults.directory_loss, self._lose_directory),
            (faults.partition, self._partition),
            (faults.cut_all, self._cut),
            (faults.wall_jump, self._jump),
            (faults.disk_full, self._fill),
            (faults.stop_gently, self._stop_gently),
        ]
        self._strikes = [strike for rate, strike in strikes if rate]
        self._rates = [rate for rate, _ in strikes if rate]

    def begin(self) -> None:
        cluster = self._cluster
        cluster.network.faults = cluster.plan.faults.network
        cluster.disk.faults = cluster.plan.faults.disk
        cluster.on_stop = self._stopped
        if self._strikes:
            cluster.world.spawn(self._run())

    def _stopped(self, host: SimulatedHost) -> None:
        self._cluster.world.spawn(self._pass_pause(host))

    async def _run(self) -> None:
        total = sum(self._rates)
        while True:
            await self._cluster.loop.pass_time(self._draw.expovariate(total))
            if self._cluster.calm:
                return
            [strike] = self._draw.choices(self._strikes, self._rates)
            self._cluster.world.spawn(strike())

    def end(self) -> None:
        """Everything heals: networks, disks, clocks; what is stopped goes on, and former owners with it."""
        cluster = self._cluster
        cluster.calm = True
        cluster.note("everything heals")
        cluster.disk.faults = DiskFaults()
        cluster.disk.store.faults.full = False
        cluster.disk.store.faults.free_bytes = None
        cluster.network.heal()
        for host in cluster.hosts:
            host.wall_offset_ms = 0
            self._go_on(host)

    # --- strikes ------------------------------------------------------------------------------------------------------

    async def _crash(self) -> None:
        host = self._cluster.current
        if host.process.alive:
            self._cluster.crash(host)

    async def _pause(self) -> None:
        """The host stops running; often a successor takes over meanwhile."""
        host = self._cluster.current
        if not host.process.alive or host.process.stopped:
            return
        host.process.stop()
        await self._pass_pause(host)

    async def _pass_pause(self, host: SimulatedHost) -> None:
        cluster = self._cluster
        cluster.note("pauses", host.process.name)
        length_s = self._draw.uniform(0.01, cluster.plan.faults.pause_ms / 1000)
        if self._draw.random() < 0.5:
            await cluster.loop.pass_time(length_s / 2)
            if not cluster.calm and host is cluster.current and host.process.alive:
                cluster.usurp()
        await cluster.loop.pass_time(length_s)
        self._go_on(host)

    def _go_on(self, host: SimulatedHost) -> None:
        if host.process.alive and host.process.stopped:
            self._cluster.note("goes on", host.process.name)
            host.process.proceed()

    async def _usurp(self) -> None:
        self._cluster.usurp()

    async def _crash_gateway(self) -> None:
        self._cluster.crash_gateway(self._draw.choice(self._cluster.gateways))

    async def _lose_directory(self) -> None:
        self._cluster.note("the directory is lost")
        self._cluster.directory.lose()

    async def _partition(self) -> None:
        """One way, between a gateway and a host; both ways now and then."""
        cluster, draw = self._cluster, self._draw
        names = [draw.choice(cluster.gateways).process.name, cluster.current.process.name]
        draw.shuffle(names)
        pairs = {(names[0], names[1])} | ({(names[1], names[0])} if draw.random() < 0.3 else set())
        cluster.note("partition", *names)
        cluster.network.blocked |= pairs
        await cluster.loop.pass_time(draw.uniform(0.05, 8.0))
        cluster.network.blocked -= pairs
        cluster.network.unblock()

    async def _cut(self) -> None:
        self._cluster.note("connections are cut")
        self._cluster.network.cut_some(0.7)

    async def _jump(self) -> None:
        cluster = self._cluster
        by_ms = self._draw.choice((-600_000, -6_000, -3_000, 3_000, 6_000, 600_000))
        cluster.current.wall_offset_ms += by_ms
        cluster.note("the wall jumps", cluster.current.process.name, by_ms)

    async def _fill(self) -> None:
        """The disk fills up: below the floor first, wholly now and then."""
        cluster, faults = self._cluster, self._cluster.disk.store.faults
        faults.free_bytes = 1_000
        faults.full = self._draw.random() < 0.4
        cluster.note("the disk is", "full" if faults.full else "nearly full")
        await cluster.loop.pass_time(self._draw.uniform(0.5, 4.0))
        faults.free_bytes, faults.full = None, False

    async def _stop_gently(self) -> None:
        host = self._cluster.current
        if host.serves:
            self._cluster.note("stops", host.process.name)
            host.process.spawn(host.stop_gently())
