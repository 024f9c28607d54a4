"""Buyers who all want the same units at the same moment, over two gateways: never one unit too many, nobody stuck."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from stockade import AsyncClient
from stockade.client.results import Refused, Reservation
from tests.integration.withstand_world import granted, refused, service

pytestmark = pytest.mark.timeout(120)


async def test_the_last_unit_has_one_winner_among_200_buyers(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 1)
        answers = await asyncio.gather(*(shop.reserve("A") for _ in range(200)))
        assert sum(isinstance(answer, Reservation) for answer in answers) == 1
        assert {answer.reason for answer in answers if isinstance(answer, Refused)} == {"INSUFFICIENT_STOCK"}
        stock = await shop.stock("A")
        assert (stock.held_quantity, stock.available_quantity) == (1, 0)


async def test_ten_units_and_500_buyers_of_one_to_three_are_never_more_than_ten(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    async with service(tmp_path) as shop, AsyncClient(shop.target, channel_id="b2b", timeout_s=20.0) as portal:
        await shop.receive("A", 10)
        buyers = [(draw.choice((shop.client, portal)), draw.randint(1, 3)) for _ in range(500)]
        answers = await asyncio.gather(*(client.reserve([("A", "main", units)]) for client, units in buyers))
        sold = sum(sum(line.granted_quantity for line in one.lines) for one in answers if isinstance(one, Reservation))
        stock = await shop.stock("A")
        assert sold == stock.held_quantity
        assert sold == 10, "single units were wanted until the end, so nothing may be left"
        assert stock.available_quantity == 0


async def test_every_unit_that_comes_back_can_be_had_again_and_no_other(tmp_path: Path, seed: int) -> None:
    """Buyers take and give back for a while; what they hold at any time is never more than there is."""
    draw = random.Random(seed)
    units, holding, most = 5, 0, 0
    async with service(tmp_path) as shop:
        await shop.receive("A", units)

        async def shopper(moves: random.Random) -> None:
            nonlocal holding, most
            for _ in range(20):
                answer = await shop.reserve("A", moves.randint(1, 2))
                if isinstance(answer, Reservation):
                    taken = answer.lines[0].granted_quantity
                    holding += taken
                    most = max(most, holding)
                    holding -= taken  # before the release is sent: from then on others may have them
                    granted(await shop.client.release(answer.reservation_id, reason="CUSTOMER_CANCELLED"))

        await asyncio.gather(*(shopper(random.Random(draw.random())) for _ in range(30)))
        assert 1 <= most <= units
        assert await shop.available("A") == units


async def test_two_lines_of_one_sku_are_summed_before_they_are_promised(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 5)
        refusal = refused(await shop.client.reserve([("A", "main", 3), ("A", "main", 3)]), "INSUFFICIENT_STOCK")
        told = [(short.line_id, short.requested_quantity, short.available_quantity) for short in refusal.shortages]
        assert told == [("0", 3, 5), ("1", 3, 5)]
        both = granted(await shop.client.reserve([("A", "main", 3), ("A", "main", 2)]))
        assert [(line.line_id, line.granted_quantity) for line in both.lines] == [("0", 3), ("1", 2)]
        assert await shop.available("A") == 0


async def test_orders_over_the_same_two_skus_in_opposite_order_neither_block_nor_half_hold(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 100)
        await shop.receive("Z", 60)
        there, back = [("A", "main", 1), ("Z", "main", 1)], [("Z", "main", 1), ("A", "main", 1)]
        answers = await asyncio.gather(*(shop.client.reserve(there if at % 2 else back) for at in range(300)))
        won = [answer for answer in answers if isinstance(answer, Reservation)]
        assert len(won) == 60
        assert all(sorted(line.granted_quantity for line in one.lines) == [1, 1] for one in won)
        assert (await shop.available("A"), await shop.available("Z")) == (40, 0)


async def test_orders_over_two_warehouses_are_all_or_nothing_under_contention(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    keys = [("A", "main"), ("A", "overflow"), ("B", "main"), ("B", "overflow")]
    async with service(tmp_path) as shop:
        for sku, warehouse in keys:
            await shop.receive(sku, 20, warehouse)
        orders = [[(*key, draw.randint(1, 2)) for key in draw.sample(keys, draw.randint(2, 4))] for _ in range(150)]
        answers = await asyncio.gather(*(shop.client.reserve(order) for order in orders))
        claimed: dict[tuple[str, str], int] = dict.fromkeys(keys, 0)
        for order, answer in zip(orders, answers, strict=True):
            if isinstance(answer, Reservation):
                assert [line.granted_quantity for line in answer.lines] == [units for _, _, units in order]
                for sku, warehouse, units in order:
                    claimed[sku, warehouse] += units
        for key in keys:
            assert (await shop.client.get_stock(key)).held_quantity == claimed[key] <= 20


async def test_a_shoppers_own_last_unit_stays_his_when_his_cart_changes(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 1)
        await shop.receive("B", 1)
        cart = await shop.held("A")
        rivals = [shop.reserve("A") for _ in range(50)]
        changed, *others = await asyncio.gather(
            shop.client.reserve([("A", "main", 1), ("B", "main", 1)], replaces_reservation_id=cart.reservation_id),
            *rivals,
        )
        assert [line.granted_quantity for line in granted(changed).lines] == [1, 1]
        assert all(isinstance(other, Refused) for other in others)
        assert (await shop.client.get_reservation(cart.reservation_id)).state == "RELEASED"


async def test_a_cart_that_cannot_grow_is_kept_as_it_was(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 2)
        cart = await shop.held("A", 1)
        await shop.held("A", 1)
        answer = await shop.reserve("A", 2, replaces_reservation_id=cart.reservation_id)
        refused(answer, "INSUFFICIENT_STOCK")
        assert (await shop.client.get_reservation(cart.reservation_id)).state == "HELD"
        assert await shop.available("A") == 0
