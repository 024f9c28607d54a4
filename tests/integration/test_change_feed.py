"""What a reader of changes gets: everything, once, in order, however often it comes back and whoever died meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from gateway.changes.cursors import cursor_text, read_cursor
from stockade.v1 import change_feed_service_pb2 as pb
from tests.integration.change_world import PATIENCE_S, Reader, change_world

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


async def test_a_consumer_goes_on_where_it_acknowledged_and_what_it_refused_is_an_exception() -> None:
    async with change_world(consumers={"erp": {}}) as world:
        await world.receive("A", 9)
        reader = (await world.read(consumer_id="erp").caught_up()).stop()
        assert reader.latest() == {("A", "main"): 9}, "one that never acknowledged begins with the oldest"
        refused = pb.ChangeRejection(change_id=reader.ids[-1], reason="unknown SKU")
        answer = await world.feed.AcknowledgeChanges(
            pb.AcknowledgeChangesRequest(consumer_id="erp", cursor=reader.cursor, rejections=[refused])
        )
        await world.reserve("A")
        again = (await world.read(consumer_id="erp").caught_up()).stop()
        exceptions, _ = await world.client.list_exceptions(kinds=["CHANGE_REJECTED"])
        listed = (await world.feed.ListConsumers(pb.ListConsumersRequest())).consumers

        assert again.reservations() == ["OPENED"]
        assert not set(again.ids) & set(reader.ids)
        assert [one.exception_id for one in exceptions] == list(answer.exception_ids)
        assert [(one.consumer_id, one.rejected_count, one.lag_events > 0) for one in listed] == [("erp", 1, True)]
        assert listed[0].cursor == answer.consumer.cursor


async def test_a_consumer_nobody_declared_is_refused_by_name() -> None:
    async with change_world(consumers={"erp": {}}) as world:
        with pytest.raises(grpc.aio.AioRpcError, match="'epr' is not declared in the settings"):
            await world.feed.AcknowledgeChanges(pb.AcknowledgeChangesRequest(consumer_id="epr"))

        assert await world.read(consumer_id="epr").ended() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("cursor", ["", "nonsense", "lAGoMjYzYzkyYmMA3ABA"])
async def test_a_cursor_that_is_none_of_ours_is_refused(cursor: str) -> None:
    async with change_world() as world:
        assert await world.read(cursor=cursor).ended() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_cursor_of_another_history_or_from_ahead_is_told_to_begin_anew() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        reader = (await world.read(from_oldest=True).caught_up()).stop()
        known = read_cursor(reader.cursor)
        assert known is not None
        ahead = {shard: sequence + 5 for shard, sequence in known.sequences.items()}
        other = world.read(cursor=cursor_text("another1", known.time_ms, known.sequences))
        later = world.read(cursor=cursor_text(known.timeline, known.time_ms, ahead))
        await other.message()
        await later.message()

        assert other.resync == pb.RESYNC_REASON_OTHER_TIMELINE
        assert later.resync == pb.RESYNC_REASON_AHEAD_OF_JOURNAL
        assert await other.ended() == await later.ended() == grpc.StatusCode.OK


async def test_a_gateway_that_stops_lets_its_readers_go_at_once() -> None:
    """They need not wait for a heartbeat to hear of it."""
    async with change_world() as world:
        await world.receive("A", 9)
        slow = pb.ReadChangesRequest(from_now=True)
        slow.heartbeat_interval.FromSeconds(60)
        reader = Reader(world.feed.ReadChanges(slow))
        marker = await world.read(from_now=True).caught_up()
        (gateway,) = world.node.gateways
        began_s = time.monotonic()
        stopping = asyncio.create_task(gateway.stop(20.0))

        assert await reader.ended() == await marker.ended() == grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began_s < 5.0
        await stopping


async def test_streams_of_changes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.servicers.change_feed.CHANGE_STREAMS_MAX", 2)
    async with change_world() as world:
        first = await world.read(from_now=True).caught_up()
        await world.read(from_now=True).caught_up()
        assert await world.read(from_now=True).ended() == grpc.StatusCode.RESOURCE_EXHAUSTED

        first.stop()
        async with asyncio.timeout(PATIENCE_S):
            while await world.read(from_now=True).ended_soon() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                await asyncio.sleep(0.01)


async def test_a_consumer_that_dies_in_the_middle_of_its_first_reading_gets_the_rest() -> None:
    async with change_world(consumers={"erp": {}}) as world:
        skus = [f"S{number}" for number in range(40)]
        for sku in skus:
            await world.receive(sku, 9)
        reader = world.read(consumer_id="erp", changes_per_message_max=1)
        await reader.message()
        reader.stop()
        assert len(reader.changes) < len(skus)
        await world.feed.AcknowledgeChanges(pb.AcknowledgeChangesRequest(consumer_id="erp", cursor=reader.cursor))
        rest = (await world.read(consumer_id="erp").caught_up()).stop()

        assert not set(rest.ids) & set(reader.ids)
        assert {**reader.latest(), **rest.latest()} == {(sku, "main"): 9 for sku in skus}


async def test_reading_from_the_oldest_goes_on_after_a_break_also_where_the_oldest_is_not_the_first() -> None:
    async with change_world() as world:
        skus = [f"S{number}" for number in range(40)]
        for sku in skus:
            await world.receive(sku, 9)
        dropped_ms = world.node.host.engine.now_ms
        async with asyncio.timeout(PATIENCE_S):
            while world.node.host._now() <= dropped_ms:
                await asyncio.sleep(0.001)
        for sku in skus:
            await world.receive(sku, 1)
        world.drop_records(dropped_ms + 1)
        reader = world.read(from_oldest=True, changes_per_message_max=1)
        await reader.message()
        reader.stop()
        rest = (await world.read(cursor=reader.cursor).caught_up()).stop()

        assert rest.resync == pb.RESYNC_REASON_UNSPECIFIED
        assert {**reader.latest(), **rest.latest()} == {(sku, "main"): 10 for sku in skus}
