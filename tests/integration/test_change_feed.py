"""What a reader of changes gets: everything, once, in order, however often it comes back and whoever died meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from stockade.v1 import change_feed_service_pb2 as pb
from tests.integration.change_world import change_world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def test_a_reader_from_the_oldest_sees_stock_and_reservations_in_the_order_of_their_shards() -> None:
    async with change_world() as world:
        await world.receive("A", 5)
        reservation = await world.reserve("A", 2)
        await world.client.confirm(reservation.reservation_id)
        reader = await world.read(from_oldest=True).caught_up()

        assert reader.latest() == {("A", "main"): 3}
        assert reader.reservations() == ["OPENED", "CONFIRMED"]
        for shard in {change.shard for change in reader.changes}:
            sequences = [change.sequence for change in reader.changes if change.shard == shard]
            assert sequences == sorted(set(sequences))
        assert {change.change_id.partition("-")[0] for change in reader.changes} == {world.node.host.engine.timeline}


async def test_a_cursor_goes_on_where_it_stands_and_ids_stay_the_same() -> None:
    async with change_world() as world:
        await world.receive("A", 50)
        first = (await world.read(from_oldest=True).caught_up()).stop()
        await world.reserve("A")
        await world.reserve("A")
        second = (await world.read(cursor=first.cursor).caught_up()).stop()
        again = (await world.read(from_oldest=True).caught_up()).stop()

        assert second.reservations() == ["OPENED", "OPENED"]
        assert sorted(first.ids + second.ids) == sorted(again.ids)
        assert len(set(again.ids)) == len(again.ids)


async def test_a_snapshot_comes_before_the_changes() -> None:
    async with change_world() as world:
        for sku in "ABC":
            await world.receive(sku, 4)
        await world.reserve("A")
        reader = world.read(from_snapshot=True)
        await reader.caught_up()
        assert reader.snapshot_size == 3
        assert reader.latest() == {("A", "main"): 3, ("B", "main"): 4, ("C", "main"): 4}
        assert reader.reservations() == []

        await world.reserve("B")
        await reader.until(lambda reader: reader.reservations() == ["OPENED"])

        assert (await reader.caught_up()).latest()["B", "main"] == 3


async def test_from_now_says_nothing_of_before() -> None:
    async with change_world() as world:
        await world.receive("A", 4)
        reader = await world.read(from_now=True).caught_up()
        await world.reserve("A")
        await reader.until(lambda reader: bool(reader.reservations()))

        assert (await reader.caught_up()).latest() == {("A", "main"): 3}
        assert len(reader.changes) == 2


async def test_a_filter_lets_through_only_what_is_wanted() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        await world.receive("B", 9)
        await world.receive("A", 9, "overflow")
        web = await world.reserve("A")
        await world.reserve("B", channel_id="b2b")
        await world.client.release(web.reservation_id, reason="CUSTOMER_CANCELLED")

        async def seen(**wanted: Any) -> tuple[list[str], list[tuple[str, str]]]:
            reader = await world.read(from_oldest=True, filter=pb.ChangeFilter(**wanted)).caught_up()
            return reader.stop().reservations(), sorted(reader.latest())

        assert await seen(channel_ids=["web"], kinds=[2]) == (["OPENED", "UNITS_ENDED", "ENDED"], [])
        assert await seen(channel_ids=["b2b"], kinds=[2]) == (["OPENED"], [])
        assert await seen(kinds=[1], warehouse_ids=["overflow"]) == ([], [("A", "overflow")])
        assert await seen(kinds=[1], skus=["A"]) == ([], [("A", "main"), ("A", "overflow")])


async def test_readers_go_on_by_themselves_over_the_death_of_the_host() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        reader = await world.read(from_oldest=True).caught_up()
        await world.reserve("A")
        await world.node.stop_host()
        await world.node.start_host()
        await world.reserve("A")
        await reader.until(lambda reader: reader.reservations() == ["OPENED", "OPENED"])

        assert (await reader.caught_up()).latest() == {("A", "main"): 7}
        assert len(set(reader.ids)) == len(reader.ids)
        assert sorted(reader.ids) == sorted((await world.read(from_oldest=True).caught_up()).ids)
