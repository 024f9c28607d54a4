"""The peers that need a server: they keep their promises under concurrent callers, repeats, the last unit and a crash.

Skipped without the optional packages of ``bench/peers-constraints.txt``; ``make bench-peers`` installs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.peers import batch_function, tables, valkey_script
from bench.peers.batch_function import BatchFunction
from bench.peers.catalog import PEERS
from bench.peers.company import Company
from bench.peers.conditional_update import ConditionalUpdate
from bench.peers.orders import Order, OtherContent, Store
from bench.peers.postgres import postgres
from bench.peers.tables import Recorded
from bench.peers.valkey_script import ValkeyScript
from bench.peers.valkey_server import valkey_server
from bench.scenario import Scenario
from stockade.client.ids import new_request_id

KEYS = ["\x1fmain\x1fa", "\x1fmain\x1fb", "\x1fmain\x1fc"]
UNITS = 200
EXPIRE_MS = 1_900_000_000_000

Crash = Callable[[], Recorded]


@contextlib.asynccontextmanager
async def postgres_store(directory: Path, make: Callable[[str], Store], functions: str) -> AsyncIterator[Any]:
    with postgres(directory) as server:
        tables.stock_up(server, KEYS, UNITS, functions)

        def crash() -> Recorded:
            server.crash()
            return tables.audit(server, UNITS)

        yield make(server.uri), crash


@contextlib.asynccontextmanager
async def valkey_store(directory: Path) -> AsyncIterator[Any]:
    with valkey_server(directory) as server:
        with server.connected() as client:
            valkey_script.stock_up(client, KEYS, UNITS)

        def crash() -> Recorded:
            server.crash()
            with server.connected() as client:
                return valkey_script.audit(client, KEYS, UNITS)

        yield ValkeyScript(str(server.socket)), crash


STORES = {
    "asyncpg": lambda directory: postgres_store(directory, lambda uri: ConditionalUpdate(uri, 4), ""),
    "plpgsql": lambda directory: postgres_store(directory, lambda uri: BatchFunction(uri, 4), batch_function.FUNCTIONS),
    "valkey": valkey_store,
}


def needed(name: str) -> None:
    missing = PEERS[name].missing()
    if missing:
        pytest.skip(f"{name} {missing}")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not pytest's: PostgreSQL runs as another user when root starts it, and another pytest would close that folder to it."""
    with tempfile.TemporaryDirectory(prefix="stockade-peers-") as made:
        yield Path(made)


@pytest.fixture(params=STORES)
async def peer(request, directory):
    """A peer's open store with 200 units of three keys; and its audit after a crash."""
    needed(request.param)
    async with STORES[request.param](directory) as (store, crash):
        await store.open()
        yield store, crash


async def test_one_order_is_granted_once_however_often_it_comes(peer):
    store, crash = peer
    order = Order("once", KEYS[0], 3)

    first = await store.reserve([order], EXPIRE_MS)
    again = await asyncio.gather(*[store.reserve([order], EXPIRE_MS + 1 + n) for n in range(20)])

    assert (first[0].granted, first[0].replayed) == (True, False)
    assert {(d.granted, d.replayed, d.expire_time_ms) for (d,) in again} == {(True, True, EXPIRE_MS)}
    assert crash() == Recorded(claims=1, units=3, oversold=0)


async def test_the_same_id_at_once_is_granted_once(peer):
    store, crash = peer

    for number in range(20):
        order = Order(f"r{number}", KEYS[number % 3], 1)
        answers = await asyncio.gather(*[store.reserve([order], EXPIRE_MS) for _ in range(4)])
        assert sorted(decision.replayed for (decision,) in answers) == [False, True, True, True]

    assert crash() == Recorded(claims=20, units=20, oversold=0)


async def test_an_id_with_other_content_is_neither_granted_nor_refused(peer):
    store, crash = peer
    await store.reserve([Order("id", KEYS[0], 1)], EXPIRE_MS)

    for other in (Order("id", KEYS[0], 2), Order("id", KEYS[1], 1)):
        with pytest.raises(OtherContent):
            await store.reserve([other], EXPIRE_MS)
        with pytest.raises(OtherContent):
            await store.reserve([other, Order("alone", KEYS[2], 1)], EXPIRE_MS)

    assert crash().oversold == 0


async def test_a_refusal_spends_no_id(peer):
    store, crash = peer

    assert not (await store.reserve([Order("large", KEYS[0], UNITS + 1)], EXPIRE_MS))[0].granted
    assert (await store.reserve([Order("large", KEYS[0], UNITS)], EXPIRE_MS))[0].granted
    assert crash() == Recorded(claims=1, units=UNITS, oversold=0)


async def test_concurrent_singles_and_batches_grant_every_unit_and_no_more(peer, seed):
    store, crash = peer
    draw = random.Random(seed)
    orders = [Order(new_request_id(), draw.choice(KEYS), 1) for _ in range(900)]
    calls = [[order] for order in orders[:300]] + [orders[at : at + 20] for at in range(300, 900, 20)]
    calls += draw.choices(calls, k=30)  # retries
    draw.shuffle(calls)

    answers = await asyncio.gather(*[store.reserve(call, EXPIRE_MS) for call in calls])

    granted = {
        order.request_id
        for call, decisions in zip(calls, answers, strict=True)
        for order, decision in zip(call, decisions, strict=True)
        if decision.granted
    }
    assert crash() == Recorded(claims=len(granted), units=len(granted), oversold=0)
    wanted = {key: sum(order.key == key for order in orders) for key in KEYS}
    assert len(granted) == sum(min(UNITS, count) for count in wanted.values())


@pytest.mark.parametrize("name", ["neveroversell", "asyncpg", "plpgsql", "plpgsql-gateway", "valkey", "valkey-gateway"])
def test_a_peer_runs_a_scenario_and_its_records_bear_out_its_answers(name, directory):
    needed(name)
    one = Scenario.model_validate(
        {"title": "t", "about": "a", "work": "reserve", "keys": 5, "batch": 10, "units_per_key": 10**6}
        | {"load": {"in_flight": 4}}
    )
    with Company(one, [PEERS[name]], directory, print) as company:
        (rival,) = company.rivals
        made = rival.run(0.3, 1)
        (peer_result,) = company.results({rival.name: [made]})

    assert made.granted > 0
    assert not made.errors
    assert peer_result.proof is not None
    assert peer_result.proof.findings == []
    assert peer_result.proof.claims_recorded == rival.told.claims == made.granted
    assert peer_result.configuration
