"""Lists beside claims: no oversell, a host that is replaced meanwhile, two senders of one list. The journal is judged afterwards."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from stockade.client import facts
from stockade.client.reconciling import stock_line
from stockade.client.results import Reservation
from tests.integration.withstand_world import Service, service

pytestmark = pytest.mark.timeout(180)

KEYS = [f"S{number}" for number in range(300)]
UNITS = 10


async def stocked(shop: Service) -> None:
    await shop.ingest(*(facts.receipt(shop.told(sku), UNITS) for sku in KEYS))


def counted(draw: random.Random) -> dict[str, int]:
    """What somebody counted: mostly what is there, sometimes a unit less, now and then almost nothing."""
    return {sku: draw.choices((UNITS, UNITS - 1, UNITS - 2, 1), (80, 10, 6, 4))[0] for sku in KEYS}


async def test_claims_and_bookings_race_and_nothing_oversells(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    async with service(tmp_path) as shop:
        await stocked(shop)
        found = counted(draw)
        bought: dict[str, int] = {}

        async def shop_for(sku: str) -> None:
            answer = await shop.reserve(sku, draw.randint(1, 6))
            if isinstance(answer, Reservation):
                bought[sku] = bought.get(sku, 0) + answer.lines[0].granted_quantity

        lines = [stock_line(sku, quantity, includes_picked=True) for sku, quantity in found.items()]
        night = asyncio.create_task(shop.client.reconcile("main", lines, tolerance_units=2, request_id="night"))
        await asyncio.gather(*(shop_for(draw.choice(KEYS)) for _ in range(900)))
        done = await night
        counts = done.reconciliation.counts
        assert counts.lines == len(KEYS)
        assert counts.booked == sum(quantity in (UNITS - 1, UNITS - 2) for quantity in found.values())
        assert counts.quarantined == sum(quantity == 1 for quantity in found.values())
        for sku, quantity in found.items():
            stock = await shop.stock(sku)
            on_hand = sum(stock.on_hand.values())
            assert on_hand == (UNITS if quantity == 1 else quantity), sku
            promised = bought.get(sku, 0)
            assert stock.shortage_quantity == max(0, promised - on_hand), sku
            if quantity != 1:
                assert await shop.available(sku) == max(0, on_hand - promised), sku
            else:
                assert await shop.available(sku) == 0, sku


async def test_a_list_survives_the_host_that_compares_it(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await stocked(shop)

        def lines() -> Any:
            for sku in KEYS:
                yield stock_line(sku, UNITS - 1)
            for number in range(3_000):
                yield stock_line(f"none-{number}", 0)

        running = asyncio.create_task(shop.client.reconcile("main", lines, tolerance_units=1, request_id="night"))
        async with asyncio.timeout(30):
            while await shop.available(KEYS[0]) != UNITS - 1:
                await asyncio.sleep(0.001)
        await shop.restart_host()
        done = await running
        assert done.reconciliation.state == "DONE"
        assert (done.reconciliation.counts.booked, done.reconciliation.counts.lines) == (len(KEYS), len(KEYS) + 3_000)
        assert [await shop.available(sku) for sku in (KEYS[0], KEYS[-1])] == [UNITS - 1, UNITS - 1]


async def test_two_senders_of_one_list_book_it_once(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await stocked(shop)
        lines = [stock_line(sku, UNITS - 1) for sku in KEYS]
        once: dict[str, Any] = {"tolerance_units": 1, "request_id": "night"}
        first, second = await asyncio.gather(
            shop.client.reconcile("main", lines, **once), shop.client.reconcile("main", lines, **once)
        )
        assert first.reconciliation.counts == second.reconciliation.counts
        assert sum([await shop.available(sku) for sku in KEYS]) == len(KEYS) * (UNITS - 1)
