"""The callers of a run over several nodes: the chaos run's shoppers and warehouses, and pulses that tell who is served.

A pulse is one small reserve after the other for one warehouse over one connection; from its answers it is measured how long
nobody could sell from a warehouse. Judges nothing.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise

from actors.runtime.settings import Settings
from actors.shard.placement import SHARDS_PER_WAREHOUSE, feed_shard_of, placement_hash
from stockade import AsyncClient, StockadeError
from tests.chaos.asking import ANSWERED_WITHIN_S, Connection, GivenUp, Memory
from tests.chaos.shoppers import SKUS, Market, Shopper
from tests.chaos.warehouses import Warehouse

PULSE_PAUSE_S = 0.25
CLIENT_TIMEOUT_S = 10.0
ASKED_AGAIN = 200  # of the last reserves, when all is over
SHARD_COUNT = Settings.model_fields["shard_count"].default


def first_shard_of(warehouse: str) -> int:
    """Where a warehouse's shards begin."""
    return placement_hash("", warehouse) % SHARD_COUNT


def shards_of(warehouse: str) -> set[int]:
    """Every shard that has stock of it."""
    return {(first_shard_of(warehouse) + spread) % SHARD_COUNT for spread in range(SHARDS_PER_WAREHOUSE)}


def warehouses_apart(count: int) -> tuple[str, ...]:
    """Names of warehouses that share no shard and whose shards begin where runs of shards do, evenly spread."""
    wanted = [number * SHARD_COUNT // count // SHARDS_PER_WAREHOUSE * SHARDS_PER_WAREHOUSE for number in range(count)]
    found: dict[int, str] = {}
    number = 0
    while len(found) < count:
        name = f"w{number}"
        if (shard := first_shard_of(name)) in wanted:
            found.setdefault(shard, name)
        number += 1
    return tuple(found[shard] for shard in wanted)


def source_beside(warehouse: str) -> str:
    """A name for its warehouse system whose feeds lie in one of its own shards."""
    near = shards_of(warehouse)
    return next(name for n in range(10_000) if feed_shard_of(name := f"wms-{warehouse}-{n}", SHARD_COUNT) in near)


@dataclass
class Pulses:
    """When reserves of each warehouse were answered: (answered at, sent at, connection), monotonic seconds, in order."""

    answered: dict[str, list[tuple[float, float, int]]] = field(default_factory=lambda: defaultdict(list))

    def longest_silence(self, warehouse: str, since: float, until: float) -> float:
        """The longest time without an answer for a warehouse, over all connections."""
        moments = [at for at, _, _ in self._between(warehouse, since, until)]
        return max(after - before for before, after in pairwise([since, *moments, until]))

    def connections_since(self, warehouse: str, moment: float) -> set[int]:
        """On which connections a reserve that was sent after ``moment`` has been answered."""
        return {number for _, sent_at, number in self._between(warehouse, moment, float("inf")) if sent_at >= moment}

    def _between(self, warehouse: str, since: float, until: float) -> list[tuple[float, float, int]]:
        moments = self.answered[warehouse]
        return moments[bisect_left(moments, (since,)) : bisect_left(moments, (until,))]


class Pulse(Shopper):
    """See the module's docstring."""

    async def beat(self, stop: asyncio.Event, pulses: Pulses, warehouse: str) -> None:
        """Until ``stop``."""
        while not stop.is_set():
            call = self.calls.reserve(
                [(self.draw.choice(SKUS), warehouse, 1)], request_id=self.id(), ttl_s=2.0, channel_id="web"
            )
            sent_at = time.monotonic()
            with suppress(GivenUp, StockadeError):
                await self.ask(call)
                pulses.answered[warehouse].append((time.monotonic(), sent_at, self.connection.number))
            await asyncio.sleep(PULSE_PAUSE_S * self.draw.uniform(0.5, 1.5))


@asynccontextmanager
async def loaded(
    targets: Sequence[str], market: Market, memory: Memory, pulses: Pulses, *, shoppers: int, pause_s: float, seed: int
) -> AsyncIterator[list[Connection]]:
    """Callers at work for as long as the block lasts; then each finishes what it is at, and all is asked once more."""
    stop = asyncio.Event()
    async with AsyncExitStack() as held:
        clients = [await held.enter_async_context(AsyncClient(one, timeout_s=CLIENT_TIMEOUT_S)) for one in targets]
        connections = [Connection(number, client) for number, client in enumerate(clients)]
        some = iter(connections * (shoppers + len(market.warehouses)))
        tellers = [Warehouse(name, next(some), memory, market, seed, source_beside(name)) for name in market.warehouses]
        await asyncio.gather(*(teller.open_doors() for teller in tellers))
        callers = [Shopper(f"shopper{number}", next(some), memory, market, seed) for number in range(shoppers)]
        beating = [
            Pulse(f"pulse-{name}-{one.number}", one, memory, market, seed).beat(stop, pulses, name)
            for one in connections
            for name in market.warehouses
        ]
        tasks = [
            asyncio.create_task(work)
            for work in (
                *beating,
                *(caller.shop(stop, pause_s) for caller in callers),
                *(teller.work(stop, pause_s) for teller in tellers),
            )
        ]
        try:
            yield connections
            stop.set()
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                await asyncio.gather(*tasks)
            await ask_everything(callers[0])
        finally:
            for task in tasks:
                task.cancel()


async def ask_everything(caller: Shopper) -> None:
    """Every stock key, and the last reserves again."""
    market = caller.market
    for key in market.keys:
        await caller.ask(caller.calls.get_stock(key))
    for message in list(market.reserves)[-ASKED_AGAIN:]:
        await caller.ask(caller.reserve_call(message))
