"""The same request again: twice, at once, after a restart, changed; and a release that meets its reserve anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest

from actors.domain.keys import stock_key
from actors.shard.placement import shard_of
from stockade import AsyncClient, StockadeError, new_request_id
from stockade.client import facts
from stockade.client.results import Reservation
from tests.integration.withstand_world import FULFILLED_BY_ORDER_MANAGEMENT, granted, refused, service, wanted

pytestmark = pytest.mark.timeout(120)


async def fails(answer: Awaitable[Any], reason: str, code: grpc.StatusCode) -> StockadeError:
    with pytest.raises(StockadeError) as caught:
        await answer
    assert (caught.value.reason, caught.value.code) == (reason, code), caught.value
    assert caught.value.outcome == "not_done"
    return caught.value


async def test_one_id_sent_50_times_at_once_is_decided_once(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 10)
        clients = [AsyncClient(shop.target, channel_id="web") for _ in range(5)]
        once = new_request_id()
        answers = await asyncio.gather(
            *(client.reserve([("A", "main", 2)], request_id=once) for client in clients for _ in range(10))
        )
        for client in clients:
            await client.close()
        assert len({granted(answer).reservation_id for answer in answers}) == 1
        assert sum(not answer.replayed for answer in answers) == 1
        assert await shop.available("A") == 8


async def test_a_refused_hold_may_be_asked_again_and_a_refused_order_stays_refused(tmp_path: Path) -> None:
    """A refused hold spent nothing. Where a delayed copy would not lapse by itself, the refusal is the id's answer."""
    async with service(tmp_path) as shop:
        await shop.receive("A", 1)
        hold, order = new_request_id(), new_request_id()
        refused(await shop.reserve("A", 2, request_id=hold), "INSUFFICIENT_STOCK")
        first = refused(await shop.reserve("A", 2, request_id=order, confirm=True), "INSUFFICIENT_STOCK")
        await shop.receive("A", 10)
        await shop.restart_host()
        await shop.held("A", 2, request_id=hold)
        again = refused(await shop.reserve("A", 2, request_id=order, confirm=True), "INSUFFICIENT_STOCK")
        assert (again.replayed, again.shortages) == (True, first.shortages)


async def test_every_verb_repeats_its_answer_after_the_host_was_replaced(tmp_path: Path) -> None:
    async with service(tmp_path, warehouses=FULFILLED_BY_ORDER_MANAGEMENT) as shop:
        await shop.receive("A", 20)
        ids = {name: new_request_id() for name in ("reserve", "confirm", "amend", "fulfill", "release")}
        first = await shop.held("A", 6, request_id=ids["reserve"])
        one = first.reservation_id

        async def all_of_them() -> list[Reservation]:
            return [
                granted(await shop.client.confirm(one, request_id=ids["confirm"])),
                granted(await shop.client.amend(one, [wanted("A", 5, "0")], request_id=ids["amend"])),
                granted(await shop.client.fulfill(one, "ship-1", lines=[("0", 2)], request_id=ids["fulfill"])),
                granted(await shop.client.release(one, reason="CUSTOMER_CANCELLED", request_id=ids["release"])),
            ]

        before = await all_of_them()
        stock = await shop.stock("A")
        await shop.restart_host()
        assert (await shop.reserve("A", 6, request_id=ids["reserve"])).replayed
        after = await all_of_them()
        assert all(answer.replayed for answer in after)
        assert [(answer.state, answer.version) for answer in after] == [
            (answer.state, answer.version) for answer in before
        ]
        now = await shop.stock("A")
        assert (now.on_hand, now.held_quantity, now.confirmed_quantity) == (
            stock.on_hand, stock.held_quantity, stock.confirmed_quantity,
        )  # fmt: skip


async def test_an_id_used_again_for_another_quantity_or_another_first_sku_is_an_error(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        for sku in ("A", "B", "K"):
            await shop.receive(sku, 10)
        once = new_request_id()
        first = await shop.held("B", 2, request_id=once)
        async with AsyncClient(
            shop.target, channel_id="web"
        ) as other:  # another process knows nothing of the first use
            again = other.reserve([("B", "main", 3)], request_id=once)
            await fails(again, "REQUEST_ID_REUSED", grpc.StatusCode.ALREADY_EXISTS)
        async with AsyncClient(shop.target, channel_id="web") as third:
            again = third.reserve([("B", "main", 2), ("K", "main", 1)], request_id=once)
            await fails(again, "REQUEST_ID_REUSED", grpc.StatusCode.ALREADY_EXISTS)
        assert (await shop.held("B", 2, request_id=once)).reservation_id == first.reservation_id
        assert await shop.available("B") == 8


async def test_an_id_with_another_first_sku_is_caught_whatever_its_home(tmp_path: Path) -> None:
    """The home of a reservation is the shard of its first SKU; on one host an id is known to all of its shards."""
    home = shard_of(stock_key("main", "S"))
    others = [f"S{at}" for at in range(1_000)]
    same_home = next(sku for sku in others if shard_of(stock_key("main", sku)) == home)
    other_home = next(sku for sku in others if shard_of(stock_key("main", sku)) != home)
    async with service(tmp_path) as shop:
        for sku in ("S", same_home, other_home):
            await shop.receive(sku, 1)
        once = new_request_id()
        await shop.held("S", request_id=once)
        for restarted in (False, True):
            if restarted:
                await shop.restart_host()
            for sku in (same_home, other_home):
                async with AsyncClient(shop.target, channel_id="web") as other:
                    again = other.reserve([(sku, "main", 1)], request_id=once)
                    await fails(again, "REQUEST_ID_REUSED", grpc.StatusCode.ALREADY_EXISTS)
        assert [await shop.available(sku) for sku in ("S", same_home, other_home)] == [0, 1, 1]


async def test_the_client_itself_refuses_an_id_for_other_content(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 10)
        once = new_request_id()
        await shop.held("A", 1, request_id=once)
        with pytest.raises(ValueError, match="request_id"):
            await shop.reserve("A", 2, request_id=once)


async def test_a_release_by_request_id_wins_before_during_and_after_its_reserve(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 100)

        def give_up(request_id: str) -> Awaitable[Any]:
            return shop.client.release(
                reason="CUSTOMER_CANCELLED", reserve_request_id=request_id, stock_key=("A", "main")
            )

        early = new_request_id()
        assert granted(await give_up(early)).state == "RELEASED"
        refused(await shop.reserve("A", 1, request_id=early), "RESERVATION_RELEASED")

        late = new_request_id()
        await shop.held("A", 1, request_id=late)
        assert granted(await give_up(late)).state == "RELEASED"

        async def change_of_mind() -> None:
            request_id = new_request_id()
            bought, gave_up = await asyncio.gather(shop.reserve("A", 1, request_id=request_id), give_up(request_id))
            assert granted(gave_up).state == "RELEASED"
            assert isinstance(bought, Reservation) or bought.reason == "RESERVATION_RELEASED"

        await asyncio.gather(*(change_of_mind() for _ in range(100)))
        stock = await shop.stock("A")
        assert (stock.held_quantity, stock.available_quantity) == (0, 100)


async def test_the_same_shipment_twice_and_by_both_doors_leaves_the_shelf_once(tmp_path: Path) -> None:
    async with service(tmp_path, warehouses=FULFILLED_BY_ORDER_MANAGEMENT) as shop:
        await shop.receive("A", 10)
        order = await shop.held("A", 4, confirm=True)
        first = granted(await shop.client.fulfill(order.reservation_id, "ship-1", lines=[("0", 2)]))
        assert first.lines[0].fulfilled_quantity == 2
        again = granted(await shop.client.fulfill(order.reservation_id, "ship-1", lines=[("0", 2)]))
        assert again.lines[0].fulfilled_quantity == 2
        from_the_floor = facts.shipment(shop.told("A"), 2, "ship-1", facts.promise(order.reservation_id, line_id="0"))
        (told,) = await shop.ingest(from_the_floor)
        assert (told.outcome, told.reason) == ("REJECTED", "FULFILLED_BY_ORDER_MANAGEMENT"), told
        stock = await shop.stock("A")
        assert (stock.on_hand, stock.confirmed_quantity) == ({"SELLABLE": 8}, 2)


async def test_an_event_sent_twice_counts_once_and_with_other_content_is_told(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        first = facts.receipt(shop.told("A", "receipt-1"), 5)
        assert (await shop.ingest(first))[0].outcome == "APPLIED"
        assert (await shop.ingest(first))[0].outcome == "DUPLICATE"
        await shop.restart_host()
        assert (await shop.ingest(first))[0].outcome == "DUPLICATE"
        (other,) = await shop.ingest(facts.receipt(shop.told("A", "receipt-1"), 50))
        assert other.outcome == "REJECTED", other
        assert await shop.available("A") == 5
        (problem,), _ = await shop.client.list_exceptions(stock_key=("A", "main"))
        assert problem.event_id == "receipt-1"
