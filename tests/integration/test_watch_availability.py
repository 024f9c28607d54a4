"""Watches and the gateway's view: the latest value, never an older one, and how fresh it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from gateway.changes.cursors import cursor_text, read_cursor
from stockade.v1 import availability_service_pb2 as pb
from stockade.v1 import availability_service_pb2_grpc
from stockade.v1.stock_key_pb2 import StockKey
from tests.integration.change_world import PATIENCE_S, ChangeWorld, Reader, change_world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


class Watcher:
    """One watch: keeps the latest value of each key, and that none was ever older than the one before."""

    def __init__(self, world: ChangeWorld, *skus: str, **request: Any) -> None:
        message = pb.WatchAvailabilityRequest(
            stock_keys=[StockKey(sku=sku, warehouse_id="main") for sku in skus], channel_id="web", **request
        )
        message.heartbeat_interval.FromMilliseconds(200)
        stub = availability_service_pb2_grpc.AvailabilityServiceStub(world.channel)
        self._call: Any = stub.WatchAvailability(message)
        self.values: dict[str, int] = {}
        self.stale: dict[str, bool] = {}
        self.positions: dict[str, int] = {}
        self.snapshots = 0
        self.sent = 0
        self.cursor = ""
        self.as_of_ms = 0

    async def message(self) -> pb.WatchAvailabilityResponse:
        async with asyncio.timeout(PATIENCE_S):
            message = await self._call.read()
        assert isinstance(message, pb.WatchAvailabilityResponse), "the stream ended"
        for one in message.availabilities:
            sku = one.stock_key.sku
            assert one.position.sequence >= self.positions.get(sku, 0), "an older value"
            self.values[sku], self.positions[sku] = one.available_quantity, one.position.sequence
            self.stale[sku] = one.stale
        self.snapshots += message.snapshot
        self.sent += len(message.availabilities)
        self.cursor = message.cursor or self.cursor
        self.as_of_ms = message.as_of_time.ToMilliseconds() or self.as_of_ms
        return message

    async def until(self, condition: Callable[[], bool]) -> Watcher:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self.message()
        return self

    async def fresh(self) -> Watcher:
        """Until two heartbeats after now have come."""
        for _ in range(2):
            before = self.as_of_ms
            while self.as_of_ms <= before:
                await self.message()
        return self

    async def ended(self) -> grpc.StatusCode:
        async with asyncio.timeout(PATIENCE_S):
            try:
                while await self._call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                return error.code()
            return await self._call.code()

    def stop(self) -> None:
        self._call.cancel()


async def test_a_watcher_gets_current_values_then_what_changes_and_nothing_of_others() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        await world.receive("B", 9)
        watcher = await Watcher(world, "A", "C").fresh()
        assert watcher.values == {"A": 9, "C": 0}
        began = watcher.snapshots

        await world.reserve("A", 2)
        await world.reserve("B", 3)
        await world.receive("C", 4)
        await watcher.until(lambda: watcher.values == {"A": 7, "C": 4})
        assert watcher.snapshots == began


async def test_a_whole_warehouse_can_be_watched() -> None:
    async with change_world() as world:
        for number in range(30):
            await world.receive(f"S{number}", number) if number else None
        await world.receive("elsewhere", 5, "overflow")
        watcher = await Watcher(world, warehouse_id="main").fresh()
        assert watcher.values == {f"S{number}": number for number in range(1, 30)}

        await world.receive("new", 3)
        await world.reserve("S9", 9)
        await watcher.until(lambda: watcher.values.get("new") == 3 and watcher.values["S9"] == 0)
        assert "elsewhere" not in watcher.values


async def test_a_watcher_that_comes_back_hears_only_what_changed() -> None:
    async with change_world() as world:
        for sku in "ABCDE":
            await world.receive(sku, 9)
        first = await Watcher(world, warehouse_id="main").fresh()
        first.stop()
        await world.reserve("C", 2)
        again = await Watcher(world, warehouse_id="main", cursor=first.cursor).fresh()

        assert (again.values, again.snapshots) == ({"C": 7}, 0)


async def test_a_watcher_whose_cursor_leads_nowhere_gets_current_values() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        known = read_cursor((await Watcher(world, "A").fresh()).cursor)
        assert known is not None
        other = cursor_text("before", known.time_ms, known.sequences)
        watcher = await Watcher(world, "A", cursor=other).fresh()

        assert (watcher.values, watcher.snapshots) == ({"A": 9}, 1)


async def test_a_watcher_goes_on_over_the_death_of_the_host() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        watcher = await Watcher(world, "A").fresh()
        await world.reserve("A")
        await world.node.stop_host()
        await world.node.start_host()
        await world.reserve("A")
        await watcher.until(lambda: watcher.values == {"A": 7})


async def test_many_changes_between_two_looks_are_one() -> None:
    async with change_world() as world:
        await world.receive("A", 500)
        watcher = await Watcher(world, "A").fresh()
        sent = watcher.sent
        requests = [world.client.reserve_message([("A", "main", 1)]) for _ in range(200)]
        await world.client.batch_reserve(requests)
        await watcher.until(lambda: watcher.values == {"A": 300})
        assert watcher.sent - sent < 50


@pytest.mark.parametrize(
    "wrong",
    [{}, {"stock_keys": [StockKey(sku="A", warehouse_id="main")], "warehouse_id": "main"}, {"warehouse_id": "nowhere"}],
)
async def test_what_to_watch_must_be_said(wrong: dict[str, Any]) -> None:
    async with change_world() as world:
        stub = availability_service_pb2_grpc.AvailabilityServiceStub(world.channel)
        call = stub.WatchAvailability(pb.WatchAvailabilityRequest(channel_id="web", **wrong))
        with pytest.raises(grpc.aio.AioRpcError, match=r"stock_keys|nowhere"):
            await call.read()


async def test_a_silent_feed_makes_every_availability_of_its_warehouse_stale_until_it_is_heard() -> None:
    async with change_world(warehouses={"main": {"feeds": {"wms": "1s"}}, "overflow": {}}) as world:
        await world.receive("A", 9)
        reader = world.read(from_now=True)
        watcher = await Watcher(world, "A").fresh()
        await watcher.until(lambda: watcher.stale == {"A": True})
        assert watcher.values == {"A": 9}

        await world.receive("B", 1)
        await watcher.until(lambda: watcher.stale == {"A": False})
        await reader.until(lambda reader: len(warehouse_changes(reader)) >= 2)
        assert warehouse_changes(reader)[:2] == [("main", True), ("main", False)]


def warehouse_changes(reader: Reader) -> list[tuple[str, bool]]:
    return [
        (one.warehouse.warehouse_id, one.warehouse.stale)
        for one in reader.changes
        if one.WhichOneof("change") == "warehouse" and not one.warehouse.requested_reconciliation_id
    ]


# --- the gateway's view -----------------------------------------------------------------------------------------------------


async def test_the_view_answers_when_it_is_fresh_enough_and_says_so() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        strong = await world.client.availability(("A", "main"))
        assert (strong.answered_by, strong.available_quantity) == ("STOCK_ACTOR", 9)
        (batched,) = await world.client.batch_availability([("A", "main")])
        assert (batched.answered_by, batched.as_of_ms) == ("STOCK_ACTOR", batched.position.time_ms)

        async def from_view() -> Any:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    answer = await world.client.availability(("A", "main"), max_staleness_s=5)
                    if answer.answered_by == "GATEWAY_VIEW":
                        return answer
                    await asyncio.sleep(0.01)

        first = await from_view()
        assert first.available_quantity == 9
        await world.reserve("A", 4)
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await from_view()).available_quantity != 5:
                await asyncio.sleep(0.01)
        assert answer.position.sequence > first.position.sequence
        assert answer.as_of_ms >= first.as_of_ms


async def test_what_may_not_be_stale_at_all_is_asked_of_the_actor() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        answers = [await world.client.availability(("A", "main"), max_staleness_s=0) for _ in range(5)]

        assert {one.answered_by for one in answers} == {"STOCK_ACTOR"}


async def test_a_view_that_hears_nothing_any_more_does_not_answer() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        (gateway,) = world.node.gateways

        async def who(staleness_s: float) -> str:
            return (await world.client.availability(("A", "main"), max_staleness_s=staleness_s)).answered_by

        async with asyncio.timeout(PATIENCE_S):
            while await who(5) != "GATEWAY_VIEW":
                await asyncio.sleep(0.01)
        await gateway._changes.stop()
        async with asyncio.timeout(PATIENCE_S):
            while await who(0.2) != "STOCK_ACTOR":
                await asyncio.sleep(0.01)
