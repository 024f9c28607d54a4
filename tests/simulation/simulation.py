"""One seed → one history: a service is started, used and broken, then healed, and must be whole again.

``simulate(seed)`` runs on one thread and virtual time and is the same each time. Phases: opening (stock comes in), safety
(traffic while everything fails), healing (nothing fails any more; what was open is settled), liveness (the service does all that it
must), judgement.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.domain.answers import OK
from actors.domain.outcomes import Disposition, Fact, ReservationState
from actors.domain.quantities import available_to_sell
from tests.simulation.change_reader import ChangeReader
from tests.simulation.cluster import Cluster
from tests.simulation.feed_traffic import WarehouseSystems
from tests.simulation.judging import judge
from tests.simulation.loop import SimulatedLoop, Stuck, run
from tests.simulation.nemesis import Nemesis
from tests.simulation.network import Network
from tests.simulation.orders import Item, Orders
from tests.simulation.plan import HOUR_MS, Plan, plan_of
from tests.simulation.trace import Recording
from tests.simulation.traffic import Outside

SAFETY_S_MAX = 60.0
HEALING_S_MAX = 120.0
SERVE_S_MAX = 40.0
EXPIRY_SLACK_S = 3.0
PROBE_TTL_MS = 1_000


@dataclass(slots=True)
class Outcome:
    """What became of a seed. ``problems``: broken promises, none when all is well."""

    seed: int
    problems: list[str] = field(default_factory=list)
    digest: str = ""
    turns: int = 0
    attempts: int = 0
    cpu_s: float = 0.0
    virtual_s: float = 0.0
    recording: Recording | None = None


def simulate(seed: int, plan: Plan | None = None) -> Outcome:
    """Run a seed. Never raises for what the service does wrong: that is in ``problems``."""
    outcome = Outcome(seed)
    collecting = gc.isenabled()
    gc.disable()  # nothing may depend on when it strikes
    logging.disable(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")  # its process died before
    started_s = time.process_time()
    try:
        _simulate(plan or plan_of(seed), outcome)
    finally:
        logging.disable(logging.NOTSET)
        outcome.cpu_s = time.process_time() - started_s
        if collecting:
            gc.enable()
    return outcome


def _simulate(plan: Plan, outcome: Outcome) -> None:
    loop = SimulatedLoop()
    recording = outcome.recording = Recording(loop.time)
    recording.doubles = plan.faults.network.double > 0
    network = Network(loop, random.Random(f"{plan.seed}/network"), recording.note)
    history = History(loop, plan, network, recording)
    try:
        outcome.problems += run(loop, history.live())
    except Stuck as stuck:
        outcome.problems.append(f"stuck: {stuck}")
    outcome.digest = recording.digest()
    outcome.turns = sum(host.host.statistics.turns for host in history.hosts)
    outcome.attempts = len(recording.attempts)
    outcome.virtual_s = loop.time()


class History:
    """The phases."""

    def __init__(self, loop: SimulatedLoop, plan: Plan, network: Network, recording: Recording) -> None:
        self._loop = loop
        self._plan = plan
        self._network = network
        self._recording = recording
        self._draw = random.Random(f"{plan.seed}/history")
        self._cluster: Cluster
        self._outside: Outside
        self._orders: Orders

    @property
    def hosts(self) -> list[Any]:
        return self._cluster.hosts

    async def live(self) -> list[str]:
        """The whole history; the problems found."""
        plan, recording = self._plan, self._recording
        self._cluster = cluster = Cluster(
            self._loop, plan, random.Random(f"{plan.seed}/cluster"), self._network, recording.note
        )
        self._outside = Outside(cluster, recording)
        self._orders = Orders(plan, self._draw, self._outside.memory, "opening", cluster.wall_ms)
        problems: list[str] = []
        await self._open()
        systems = WarehouseSystems(self._outside, plan.seed, plan.work.floor_steps) if plan.work.floor_steps else None
        if systems is not None:
            await systems.open()
        nemesis = Nemesis(cluster, random.Random(f"{plan.seed}/nemesis"))
        nemesis.begin()
        clients = [cluster.world.spawn(client.run()) for client in self._outside.clients]
        if systems is not None:
            clients.append(cluster.world.spawn(systems.run()))
        reader = ChangeReader(cluster) if plan.work.reads_changes else None
        reading = cluster.world.spawn(reader.run()) if reader is not None else None
        await self._loop.until(lambda: all(task.done() for task in clients), SAFETY_S_MAX)
        nemesis.end()
        if reader is not None and reading is not None:
            reader.stop()
            await self._loop.until(reading.done, HEALING_S_MAX)
        if not await self._loop.until(lambda: all(task.done() for task in clients), HEALING_S_MAX):
            problems.append("a client got no answer, though nothing fails any more")
        problems += [f"a client failed: {task.exception()!r}" for task in clients if task.done() and task.exception()]
        problems += await self._heal()
        if not problems:
            problems += await self._liveness()
        if not problems and systems is not None and plan.rules.history_ms > HOUR_MS:
            problems += await systems.compare()
        host = cluster.current.host
        if not await self._loop.until(lambda: cluster.current.serves and cluster.current.host.quiet, 10.0, 0.001):
            problems.append(f"the host does not come to rest: {host.state}")
        if reader is not None and not problems:
            problems += await self._changes_told(reader)
        return problems + list(judge(cluster, recording))

    async def _changes_told(self, reader: ChangeReader) -> list[str]:
        """Every change, and of each stock key what stands there."""
        problems = await reader.catch_up()
        stock = self._cluster.current.host.engine.books.stock
        available = {key: available_to_sell(actor) for key, actor in stock.items()}
        return problems + list(reader.judge(self._cluster.disk.whole(), available))

    async def _open(self) -> None:
        """Every stock key gets its first units."""
        await self._loop.until(lambda: self._cluster.current.serves, SERVE_S_MAX)
        for key in self._orders.keys:
            if not self._plan.rules.catalog_open or self._draw.random() < 0.3:
                await self._outside.settle("opening", self._orders.register(key), self._draw)
            quantity = self._draw.randint(1, self._plan.work.receipt_max)
            receipt = self._orders.ingest(int(Fact.RECEIPT), [quantity, int(Disposition.SELLABLE), "", ""], key)
            await self._outside.settle("opening", receipt, self._draw)

    async def _heal(self) -> list[str]:
        """A host serves, and every request that was left open is settled now."""
        if not await self._loop.until(lambda: self._cluster.current.serves, SERVE_S_MAX):
            return [f"no host serves {SERVE_S_MAX} s after everything healed: {self._cluster.current.host.state}"]
        unsettled = self._outside.unsettled
        tasks = [
            self._cluster.world.spawn(self._outside.settle(client, item, self._draw)) for client, item in unsettled
        ]
        await self._loop.until(lambda: all(task.done() for task in tasks), HEALING_S_MAX)
        return [
            f"never answered: {item}"
            for task, (_, item) in zip(tasks, unsettled, strict=True)
            if not task.done() or task.result() is None
        ]

    # --- liveness -----------------------------------------------------------------------------------------------------

    async def _liveness(self) -> list[str]:
        """Each gateway answers; what is available is granted; what is held expires."""
        problems = []
        for gateway in self._cluster.gateways:
            for _ in range(20):  # one that was just started needs a moment to find the host
                replies = await gateway.call([self._orders.get_availability()], 5_000, mutating=False)
                if replies is not None and replies[0][0] == OK:
                    break
                await self._loop.pass_time(0.5)
            else:
                problems.append(f"{gateway.process.name} does not answer: {replies}")
        probes = await asyncio.gather(*(self._probe(key) for key in self._orders.keys))
        held = [reply for reply, problem in probes if reply is not None]
        problems += [problem for _, problem in probes if problem]
        await self._loop.pass_time(PROBE_TTL_MS / 1000 + EXPIRY_SLACK_S)
        for reply in held:
            known = reply[2][0]
            view = await self._ask(self._orders.reservation_of(known))
            if view is None or view[0] != OK or view[2][4] != ReservationState.EXPIRED:
                problems.append(f"the hold {known} did not expire: {view}")
        return problems

    async def _probe(self, key: str) -> tuple[Sequence[Any] | None, str]:
        """Reserve one unit where one is available."""
        stock = await self._ask(self._orders.availability_of(key))
        if stock is None or stock[0] != OK:
            return None, f"no answer about {key!r}: {stock}"
        available = stock[2][0][0][0]
        if not available:
            return None, ""
        reply = await self._ask(self._orders.plain_reserve(key, PROBE_TTL_MS))
        if reply is None or reply[0] != OK:
            return None, f"{available} units of {key!r} are available, and one is not granted: {reply}"
        return reply, ""

    async def _ask(self, item: Item) -> Sequence[Any] | None:
        return await self._outside.settle("probe", item, self._draw)
