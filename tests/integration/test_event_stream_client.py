"""The clients' event streams over the whole service: every event ends once, whatever happens to connections and hosts."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stockade import AsyncClient, Client, StockadeError
from stockade.client import facts
from stockade.client.results import Ingested
from tests.chaos.proxy import LinkProxy
from tests.integration.gateway_world import until
from tests.integration.withstand_world import Service, service


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Service]:
    async with service(tmp_path) as running:
        yield running


def receipts(count: int, first: int = 1, stream_id: str = "") -> list[Any]:
    """One unit each, numbered."""
    now_ms = time.time_ns() // 1_000_000
    made = []
    for number in range(first, first + count):
        told = facts.Told("wms", f"e{number}", ("A", "main"), now_ms, stream_id=stream_id, source_sequence=number)
        made.append(facts.receipt(told, 1))
    return made


class Results:
    """What a stream told."""

    def __init__(self) -> None:
        self.by_event: dict[str, list[str]] = {}

    def __call__(self, event: Any, result: Ingested) -> None:
        assert event.event_id == result.event_id
        self.by_event.setdefault(result.event_id, []).append(result.outcome)


async def test_the_asyncio_stream_ends_each_event_once(shop: Service):
    results = Results()
    async with shop.client.event_stream("wms", "", results) as events:
        assert events.watermark == 0
        for event in receipts(2_500):
            await events.send(event)
        await events.flush()
        assert events.unsettled == 0
        assert events.outcomes == {"APPLIED": 2_500}
    assert set(map(tuple, results.by_event.values())) == {("APPLIED",)}
    async with shop.client.event_stream("wms") as again:
        assert (again.watermark, again.highest_sequence) == (2_500, 2_500)
    assert (await shop.stock("A")).on_hand == {"SELLABLE": 2_500}


async def test_the_blocking_stream_ends_each_event_once(shop: Service):
    def push() -> Results:
        results = Results()
        with Client(shop.target) as client, client.event_stream("wms", "", results) as events:
            for event in receipts(2_500):
                events.send(event)
        assert events.outcomes == {"APPLIED": 2_500}
        return results

    results = await asyncio.to_thread(push)
    assert set(map(tuple, results.by_event.values())) == {("APPLIED",)}
    assert (await shop.stock("A")).on_hand == {"SELLABLE": 2_500}


async def test_a_host_that_restarts_loses_and_doubles_nothing(shop: Service):
    results = Results()
    async with shop.client.event_stream("wms", "", results) as events:
        for number, event in enumerate(receipts(3_000)):
            await events.send(event)
            if number == 1_000:
                await until(lambda: len(results.by_event) > 100)
                await shop.restart_host()
    assert sum(events.outcomes.values()) == 3_000
    assert set(events.outcomes) <= {"APPLIED", "DUPLICATE"}
    assert (await shop.stock("A")).on_hand == {"SELLABLE": 3_000}


async def test_connections_that_break_again_and_again_lose_and_double_nothing(shop: Service, seed: int):
    draw = random.Random(seed)
    port = int(shop.target.rpartition(":")[2])
    proxy = LinkProxy(lambda: port, random.Random(seed))
    await proxy.start()

    async def cut() -> None:
        for _ in range(20):
            await asyncio.sleep(draw.uniform(0.02, 0.2))
            proxy.cut()

    cutting = asyncio.create_task(cut())
    results = Results()
    try:
        async with (
            AsyncClient(f"127.0.0.1:{proxy.port}") as client,
            client.event_stream("wms", "", results) as events,
        ):
            for event in receipts(3_000):
                await events.send(event)
                if draw.random() < 0.01:
                    await asyncio.sleep(0.01)
    finally:
        cutting.cancel()
        proxy.close()
    assert proxy.connections > 1
    assert set(map(len, results.by_event.values())) == {1}
    assert len(results.by_event) == 3_000
    assert (await shop.stock("A")).on_hand == {"SELLABLE": 3_000}


async def test_an_event_of_another_stream_is_refused_before_it_is_sent(shop: Service):
    async with shop.client.event_stream("wms", "day") as events:
        (other,) = receipts(1, stream_id="night")
        with pytest.raises(ValueError, match="stream 'night'"):
            await events.send(other)
        (lacking,) = receipts(1)
        await events.send(lacking)
    assert lacking.stream_id == "day"


async def test_a_bad_event_ends_as_failed_and_the_rest_goes_on(shop: Service):
    results = Results()
    async with shop.client.event_stream("wms", "", results) as events:
        first, bad, last = receipts(3)
        bad.receipt.quantity = 0
        for event in (first, bad, last):
            await events.send(event)
    assert results.by_event == {"e1": ["APPLIED"], "e2": ["FAILED"], "e3": ["APPLIED"]}


@pytest.mark.parametrize("kind", ["asyncio", "blocking"])
async def test_where_nobody_listens_the_stream_gives_up_when_its_patience_ends(kind: str):
    def block() -> None:
        with Client("127.0.0.1:1") as client, client.event_stream("wms", patience_s=0.3):
            pass

    async def wait() -> None:
        async with AsyncClient("127.0.0.1:1") as client, client.event_stream("wms", patience_s=0.3):
            pass

    with pytest.raises(StockadeError, match="UNAVAILABLE"):
        await (wait() if kind == "asyncio" else asyncio.to_thread(block))


@pytest.mark.parametrize("kind", ["asyncio", "blocking"])
async def test_where_something_listens_that_never_answers_patience_ends_as_well(kind: str):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"

        def block() -> None:
            with Client(target) as client, client.event_stream("wms", patience_s=0.5):
                pass

        async def wait() -> None:
            async with AsyncClient(target) as client, client.event_stream("wms", patience_s=0.5):
                pass

        with pytest.raises(StockadeError, match=r"no answer for 0\.5 seconds"):
            async with asyncio.timeout(15):
                await (wait() if kind == "asyncio" else asyncio.to_thread(block))


@pytest.mark.parametrize("kind", ["asyncio", "blocking"])
async def test_what_the_callback_raises_reaches_the_caller(shop: Service, kind: str):
    def refuse(event: Any, result: Ingested) -> None:
        raise LookupError(event.event_id)

    def block() -> None:
        with Client(shop.target) as client, client.event_stream("wms", "", refuse) as events:
            events.send(receipts(1)[0])
            events.send(receipts(1, first=2)[0])

    async def wait() -> None:
        async with shop.client.event_stream("wms", "", refuse) as events:
            for event in receipts(2):
                await events.send(event)

    with pytest.raises(LookupError):
        await (wait() if kind == "asyncio" else asyncio.to_thread(block))
