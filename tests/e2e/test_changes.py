"""A consumer and a watcher over ``kill -9`` of hosts and gateways under load: nothing is missed, nothing comes twice."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from stockade import AsyncClient, Reservation
from stockade.client import AvailabilityChanged, ReservationChanged, facts
from tests.e2e.conftest import StartServe

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

VICTIMS = ("gateway", "host", "gateway", "host")
SKUS = [f"S{number}" for number in range(20)]
ORDERS_BETWEEN = 300
PATIENCE_S = 60.0


class Consumer:
    """Reads as "shop", acknowledges now and then, dies now and then, and begins where it had acknowledged."""

    def __init__(self, client: AsyncClient, random: Random) -> None:
        self._client = client
        self._random = random
        self.opened: set[str] = set()
        self.values: dict[str, tuple[int, int]] = {}
        self.since_start: set[str] = set()
        self.doubled = 0
        self.lives = 0

    async def live(self) -> None:
        """One life after the other, for ever."""
        while True:
            self.lives += 1
            self.since_start = set()
            batches = 0
            async for batch in self._client.changes(consumer_id="shop", heartbeat_s=0.2, patience_s=None):
                for change in batch:
                    self.doubled += change.change_id in self.since_start
                    self.since_start.add(change.change_id)
                    if isinstance(change, ReservationChanged) and change.what == "OPENED":
                        self.opened.add(change.reservation_id)
                    elif isinstance(change, AvailabilityChanged):
                        sku = change.stock_key.sku
                        known = self.values.get(sku, (-1, 0))
                        self.values[sku] = max(known, (change.seen_sequence, change.available_quantity))
                if len(batch) and self._random.random() < 0.3:
                    await self._client.acknowledge_changes("shop", batch.cursor, timeout_s=PATIENCE_S)
                batches += 1
                if batches > 10 and self._random.random() < 0.2:
                    break  # it dies here, and forgets everything but its acknowledgement


async def test_a_consumer_misses_nothing_whoever_dies(make_serve: StartServe, seed: int) -> None:
    random = Random(seed)
    serve = make_serve(environment={"STOCKADE_GATEWAYS": "2", "STOCKADE_CONSUMERS": '{"shop": {}}'})
    serve.start()
    state = await asyncio.to_thread(serve.wait_serving)
    granted: set[str] = set()
    watched: dict[str, tuple[int, int]] = {}
    async with AsyncClient(state["grpc"], channel_id="web", timeout_s=PATIENCE_S) as client:
        now_ms = time.time_ns() // 1_000_000
        told = [
            facts.receipt(facts.Told("wms", f"e{number}", (sku, "main"), now_ms), 10**6)
            for number, sku in enumerate(SKUS)
        ]
        assert {result.outcome for result in await client.ingest(told)} == {"APPLIED"}
        consumer = Consumer(client, random)

        async def watch() -> None:
            async for update in client.watch([(sku, "main") for sku in SKUS], heartbeat_s=0.2, patience_s=None):
                for one in update.availabilities:
                    sku = one.stock_key.sku
                    watched[sku] = max(watched.get(sku, (-1, 0)), (one.position.sequence, one.available_quantity))

        async def order() -> None:
            answer = await client.reserve([(random.choice(SKUS), "main", 1)])
            assert isinstance(answer, Reservation)
            granted.add(answer.reservation_id)

        running = [asyncio.create_task(consumer.live()), asyncio.create_task(watch())]
        for victim in VICTIMS:
            orders = [asyncio.create_task(order()) for _ in range(ORDERS_BETWEEN)]
            await orders[ORDERS_BETWEEN // 3]
            serve.kill(victim)
            await asyncio.gather(*orders)
            await asyncio.to_thread(serve.wait_serving)
        answers = await client.batch_availability([(sku, "main") for sku in SKUS])
        true = {one.stock_key.sku: one.available_quantity for one in answers}
        async with asyncio.timeout(PATIENCE_S):
            while not (
                consumer.opened == granted
                and {sku: value for sku, (_, value) in consumer.values.items()} == true
                and {sku: value for sku, (_, value) in watched.items()} == true
            ):
                assert not any(task.done() for task in running)
                await asyncio.sleep(0.05)
        for task in running:
            task.cancel()

    assert len(granted) == len(VICTIMS) * ORDERS_BETWEEN
    assert consumer.doubled == 0, "within one life nothing comes twice"
    print(f"{consumer.lives} lives of the consumer")
    assert serve.terminate() == 0
