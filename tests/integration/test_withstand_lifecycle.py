"""A reservation's ends: confirm against expiry, release twice, ship in part, ship what is not there to ship."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from stockade.client import facts
from stockade.client.results import Refused, Reservation
from tests.integration.withstand_world import (
    FULFILLED_BY_ORDER_MANAGEMENT,
    Service,
    granted,
    refused,
    service,
    wanted,
)

pytestmark = pytest.mark.timeout(120)


async def until_expired(shop: Service, reservation_id: str) -> Reservation:
    """The reservation once its hold has ended by itself."""
    async with asyncio.timeout(10):
        while (found := await shop.client.get_reservation(reservation_id)).state == "HELD":
            await asyncio.sleep(0.02)
    return found


async def test_confirming_at_the_very_instant_of_expiry_ends_one_way_or_the_other(tmp_path: Path) -> None:
    """Forty holds of one second, each confirmed around its deadline: the answer, the state and the units agree."""
    async with service(tmp_path) as shop:
        await shop.receive("A", 40)
        holds = [await shop.held("A", ttl_s=1.0) for _ in range(40)]

        async def at_the_last_moment(hold: Reservation, early_ms: int) -> Reservation | Refused:
            while (left_s := (hold.expire_time_ms - early_ms) / 1000 - time.time()) > 0:
                await asyncio.sleep(left_s)
            return await shop.client.confirm(hold.reservation_id)

        answers = await asyncio.gather(*(at_the_last_moment(hold, 20 - at) for at, hold in enumerate(holds)))
        confirmed = sum(isinstance(answer, Reservation) for answer in answers)
        for hold, answer in zip(holds, answers, strict=True):
            final = await shop.client.get_reservation(hold.reservation_id)
            assert final.state == ("CONFIRMED" if isinstance(answer, Reservation) else "EXPIRED")
            if isinstance(answer, Reservation):
                assert answer.confirm_time_ms < hold.expire_time_ms, "confirmed after its deadline"
            else:
                assert answer.reason == "RESERVATION_EXPIRED"
        stock = await shop.stock("A")
        assert (stock.confirmed_quantity, stock.held_quantity) == (confirmed, 0)
        assert stock.available_quantity == 40 - confirmed


async def test_a_claim_that_needs_what_has_just_expired_gets_it(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 1)
        hold = await shop.held("A", ttl_s=1.0)
        while time.time() * 1000 < hold.expire_time_ms + 5:
            await asyncio.sleep(0.005)
        assert isinstance(await shop.reserve("A"), Reservation)


async def test_a_release_is_repeated_and_what_follows_it_refused(tmp_path: Path) -> None:
    async with service(tmp_path, warehouses=FULFILLED_BY_ORDER_MANAGEMENT) as shop:
        await shop.receive("A", 3)
        one = (await shop.held("A", 3)).reservation_id
        assert granted(await shop.client.release(one, reason="CART_ABANDONED")).state == "RELEASED"
        again = await shop.client.release(one, reason="CART_ABANDONED")
        assert refused(again, "RESERVATION_RELEASED").state == "RELEASED"
        for late in (
            shop.client.confirm(one),
            shop.client.extend(one, 60),
            shop.client.amend(one, [wanted("A", 1, "0")]),
            shop.client.fulfill(one, "ship-1"),
        ):
            assert refused(await late, "RESERVATION_RELEASED").state == "RELEASED"
        stock = await shop.stock("A")
        assert (stock.held_quantity, stock.confirmed_quantity, stock.available_quantity) == (0, 0, 3)


async def test_an_order_shipped_in_part_and_then_released_ends_each_unit_once(tmp_path: Path) -> None:
    async with service(tmp_path, warehouses=FULFILLED_BY_ORDER_MANAGEMENT) as shop:
        await shop.receive("A", 10)
        order = await shop.held("A", 6, confirm=True)
        granted(await shop.client.fulfill(order.reservation_id, "ship-1", lines=[("0", 4)]))
        rest = granted(await shop.client.release(order.reservation_id, reason="SHIPPED_SHORT"))
        (line,) = rest.lines
        assert (line.fulfilled_quantity, line.released_quantity, line.open_quantity) == (4, 2, 0)
        assert rest.state == "FULFILLED"
        stock = await shop.stock("A")
        assert (stock.on_hand, stock.confirmed_quantity, stock.available_quantity) == ({"SELLABLE": 6}, 0, 6)


async def test_releases_in_part_never_give_back_more_than_is_open(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 5)
        one = (await shop.held("A", 5)).reservation_id
        answers = await asyncio.gather(
            *(shop.client.release(one, reason="CUSTOMER_CANCELLED", lines=[("0", 2)]) for _ in range(5))
        )
        assert sum(isinstance(answer, Reservation) for answer in answers) == 2
        stock = await shop.stock("A")
        assert (stock.held_quantity, stock.available_quantity) == (1, 4)


async def test_shipping_what_is_only_held_expired_released_or_more_than_open(tmp_path: Path) -> None:
    async with service(tmp_path, warehouses=FULFILLED_BY_ORDER_MANAGEMENT) as shop:
        await shop.receive("A", 20)
        held = await shop.held("A", 2)
        refused(await shop.client.fulfill(held.reservation_id, "s-held"), "RESERVATION_NOT_CONFIRMED")

        brief = await shop.held("A", 2, ttl_s=1.0)
        assert (await until_expired(shop, brief.reservation_id)).state == "EXPIRED"
        refused(await shop.client.fulfill(brief.reservation_id, "s-expired"), "RESERVATION_EXPIRED")

        order = await shop.held("A", 3, confirm=True)
        more = refused(
            await shop.client.fulfill(order.reservation_id, "s-more", lines=[("0", 4)]), "QUANTITY_EXCEEDS_OPEN"
        )
        assert [(one.requested_quantity, one.available_quantity) for one in more.shortages] == [(4, 3)]
        stock = await shop.stock("A")
        assert (stock.on_hand, stock.confirmed_quantity) == ({"SELLABLE": 20}, 3)


async def test_a_held_cart_that_was_shipped_is_fulfilled(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 10)
        cart = await shop.held("A", 4)
        promised = facts.promise(cart.reservation_id, line_id="0")
        (told,) = await shop.ingest(facts.shipment(shop.told("A"), 4, "ship-1", promised))
        assert told.outcome == "APPLIED"
        assert (await shop.client.get_reservation(cart.reservation_id)).state == "FULFILLED"
        stock = await shop.stock("A")
        assert (stock.on_hand, stock.held_quantity, stock.available_quantity) == ({"SELLABLE": 6}, 0, 6)


@pytest.mark.parametrize(("ended", "shipped"), [("released", 4), ("expired", 4), ("open", 5)])
async def test_what_the_warehouse_has_shipped_is_gone_whatever_was_promised(
    tmp_path: Path, ended: str, shipped: int
) -> None:
    """A shipment is a fact: the books follow it, and what contradicts the promise is an exception that names it."""
    async with service(tmp_path) as shop:
        await shop.receive("A", 10)
        order = await shop.held("A", 4, confirm=True) if ended == "open" else await shop.held("A", 4, ttl_s=1.0)
        if ended == "released":
            granted(await shop.client.release(order.reservation_id, reason="CUSTOMER_CANCELLED"))
        if ended == "expired":
            await until_expired(shop, order.reservation_id)
        promised = facts.promise(order.reservation_id, line_id="0")
        (told,) = await shop.ingest(facts.shipment(shop.told("A"), shipped, "ship-1", promised))
        assert told.outcome == "APPLIED", told
        stock = await shop.stock("A")
        assert (stock.on_hand, stock.confirmed_quantity) == ({"SELLABLE": 10 - shipped}, 0)
        (problem,), _ = await shop.client.list_exceptions(stock_key=("A", "main"))
        assert order.reservation_id in problem.reservation_ids
