"""Less there than was promised: visible at once, nothing new granted, named with the orders concerned, healed by goods."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stockade import AsyncClient, Granted
from stockade.client import facts
from stockade.client.results import StockException
from tests.integration.withstand_world import Service, refused, service

pytestmark = pytest.mark.timeout(180)


async def open_shortage(shop: Service, sku: str) -> StockException:
    (problem,), _ = await shop.client.list_exceptions(stock_key=(sku, "main"), states=["OPEN"], kinds=["SHORTAGE"])
    return problem


async def test_a_shipment_before_its_receipt_is_booked_and_healed_by_it(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 2)
        (told,) = await shop.ingest(facts.shipment(shop.told("A"), 5, "ship-1"))
        assert (told.outcome, told.shortage_quantity) == ("APPLIED", 3)
        stock = await shop.stock("A")
        assert (stock.on_hand, stock.available_quantity, stock.shortage_quantity) == ({"SELLABLE": -3}, 0, 3)
        refused(await shop.reserve("A"), "INSUFFICIENT_STOCK")
        assert (await open_shortage(shop, "A")).quantity == 3
        assert (await shop.receive("A", 10)).shortage_quantity == 0
        assert await shop.available("A") == 7
        assert (await shop.client.list_exceptions(stock_key=("A", "main"), states=["OPEN"]))[0] == []


async def test_a_count_below_what_is_promised_names_the_orders_and_heals_with_the_next_receipt(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 10)
        orders = [await shop.held("A", 2, confirm=at % 2 == 0) for at in range(4)]
        counted = await shop.count("A", 5)
        assert (counted.outcome, counted.shortage_quantity) == ("APPLIED", 3)
        problem = await open_shortage(shop, "A")
        assert (problem.quantity, problem.state) == (3, "OPEN")
        assert set(problem.reservation_ids) <= {order.reservation_id for order in orders}
        assert problem.reservation_ids
        stock = await shop.stock("A")
        assert (stock.shortage_quantity, stock.available_quantity) == (3, 0)
        short, _ = await shop.client.list_stock(only_shortage=True)
        assert [one.stock_key.sku for one in short] == ["A"]
        refused(await shop.reserve("A"), "INSUFFICIENT_STOCK")
        await shop.restart_host()
        assert (await open_shortage(shop, "A")).exception_id == problem.exception_id
        await shop.receive("A", 2)
        refused(await shop.reserve("A"), "INSUFFICIENT_STOCK")
        await shop.receive("A", 2)
        healed, _ = await shop.client.list_exceptions(stock_key=("A", "main"), kinds=["SHORTAGE"])
        assert [(one.exception_id, one.state == "OPEN") for one in healed] == [(problem.exception_id, False)]
        assert healed[0].end_time_ms >= healed[0].open_time_ms > 0
        await shop.held("A", 1)


async def test_20000_open_orders_are_imported_and_what_they_lack_is_shown(tmp_path: Path) -> None:
    """Go-live: a thousand SKUs whose open orders ask for 20 units; 30 of them have none at all, which is 3 %."""
    skus, orders_each, short_each = 1_000, 20, 30
    async with service(tmp_path) as shop, AsyncClient(shop.target, channel_id="edi", timeout_s=60.0) as edi:
        names = [f"SKU-{at:04d}" for at in range(skus)]
        for part in _parts(names, 500):
            receipts = [
                facts.receipt(shop.told(name), 1 if name in names[:short_each] else orders_each) for name in part
            ]
            assert all(one.outcome == "APPLIED" for one in await edi.ingest(receipts))
        requests = [
            edi.reserve_message(
                [(name, "main", 1)], confirm=True, admission="ALWAYS", order_reference=f"SO-{name}-{number}"
            )
            for number in range(orders_each)
            for name in names
        ]
        answers: list[Any] = []
        for part in _parts(requests, 1_000):
            answers += await edi.batch_reserve(part)
        assert len(answers) == skus * orders_each
        assert all(isinstance(answer, Granted) for answer in answers)

        uncovered = sum(line.uncovered_quantity for answer in answers for line in answer.lines or ())
        lacking = short_each * (orders_each - 1)
        assert uncovered == lacking
        shown: list[Any] = []
        token = ""
        while True:
            page, token = await edi.list_stock(only_shortage=True, page_size=10, page_token=token)
            shown += page
            if not token:
                break
        assert {one.stock_key.sku for one in shown} == set(names[:short_each])
        assert sum(one.shortage_quantity for one in shown) == lacking
        assert sum(one.confirmed_quantity for one in shown) == short_each * orders_each
        refused(await shop.reserve(names[0]), "INSUFFICIENT_STOCK")
        refused(await shop.reserve(names[-1]), "INSUFFICIENT_STOCK")


async def test_a_channel_that_may_not_impose_is_told_so(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 1)
        with pytest.raises(Exception, match="admission"):
            await shop.reserve("A", 5, admission="ALWAYS")


async def test_buyers_and_a_shrinking_count_meet_without_a_claim_on_what_is_gone(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 100)
        await asyncio.gather(*(shop.reserve("A") for _ in range(60)), *(shop.count("A", 90 - at) for at in range(20)))
        last = await shop.count("A", 40)
        stock = await shop.stock("A")
        assert last.shortage_quantity == stock.shortage_quantity == max(0, stock.held_quantity - 40)
        refused(await shop.reserve("A", 41), "INSUFFICIENT_STOCK")


def _parts(things: list[Any], size: int) -> list[list[Any]]:
    return [things[at : at + size] for at in range(0, len(things), size)]
