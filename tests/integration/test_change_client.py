"""The client's side of the change feed: iterators that go on over whatever breaks, and say when they cannot."""

from __future__ import annotations

import asyncio

import pytest

from gateway.changes.cursors import cursor_text, read_cursor
from stockade import Client, ResyncNeeded
from stockade.client import AvailabilityChanged, ReservationChanged
from stockade.client.change_results import Changed
from tests.integration.change_world import PATIENCE_S, change_world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def test_changes_come_typed_and_go_on_over_a_new_gateway_and_a_new_host() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        got: list[Changed] = []
        seen = asyncio.Event()

        async def read() -> None:
            async for batch in world.client.changes(start="oldest", heartbeat_s=0.2):
                got.extend(batch)
                seen.set()

        reading = asyncio.create_task(read())

        async def until_opened(count: int) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while sum(isinstance(one, ReservationChanged) for one in got) < count:
                    seen.clear()
                    await seen.wait()

        await world.reserve("A", order_reference="o-1")
        await until_opened(1)
        await world.restart_gateway()
        await world.reserve("A")
        await until_opened(2)
        await world.node.stop_host()
        await world.node.start_host()
        await world.reserve("A")
        await until_opened(3)
        reading.cancel()

        ids = [one.change_id for one in got]
        assert len(set(ids)) == len(ids)
        opened = [one for one in got if isinstance(one, ReservationChanged)]
        assert (opened[0].what, opened[0].state, opened[0].order_reference) == ("OPENED", "HELD", "o-1")
        assert opened[0].lines[0][1].sku == "A"
        values = [one for one in got if isinstance(one, AvailabilityChanged)]
        assert max(values, key=lambda one: one.seen_sequence).available_quantity == 6


async def test_a_reader_that_must_begin_anew_is_told_or_does_so_by_itself() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        batch = await anext(world.client.changes(start="oldest"))
        known = read_cursor(batch.cursor)
        assert known is not None
        lost = cursor_text("before-the-restore", known.time_ms, known.sequences)

        with pytest.raises(ResyncNeeded, match="OTHER_TIMELINE"):
            await anext(world.client.changes(cursor=lost))
        anew = await anext(world.client.changes(cursor=lost, on_resync="snapshot"))

        assert (anew.resynced, anew.snapshot) == ("OTHER_TIMELINE", True)
        assert [one.available_quantity for one in anew if isinstance(one, AvailabilityChanged)] == [9]


async def test_a_consumer_says_how_far_it_is_and_what_keeps_it() -> None:
    async with change_world(consumers={"shop": {"lag_events_max": 5}}) as world:
        await world.receive("A", 9)
        batch = await anext(world.client.changes(consumer_id="shop"))
        told = await world.client.acknowledge_changes(
            "shop", batch.cursor, rejections=[(batch.messages[0].change_id, "no such article")], error="slow today"
        )
        (listed,) = await world.client.list_consumers()

        assert (listed.consumer_id, listed.last_error, listed.rejected_count) == ("shop", "slow today", 1)
        stands, read = read_cursor(told.consumer.cursor), read_cursor(batch.cursor)
        assert stands is not None and read is not None
        assert (stands.sequences, len(told.exception_ids)) == (read.sequences, 1)


async def test_the_blocking_client_reads_the_same() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        await world.reserve("A")
        target = world.node.target

        def read() -> list[str]:
            with Client(target, channel_id="web") as client:
                ids: list[str] = []
                for batch in client.changes(start="oldest", heartbeat_s=0.1):
                    ids += [one.change_id for one in batch]
                    if batch.as_of_ms:
                        return ids
            raise AssertionError("it ended")

        reader = await world.read(from_oldest=True).caught_up()
        assert sorted(await asyncio.to_thread(read)) == sorted(reader.ids)


async def test_what_cannot_succeed_is_raised_at_once() -> None:
    async with change_world() as world:
        with pytest.raises(Exception, match="'nowhere'"):
            await anext(world.client.changes(channel_ids=["nowhere"], start="oldest"))
        with pytest.raises(ValueError, match="start"):
            world.client.changes(start="yesterday")


async def test_a_consumers_place_comes_before_the_start_that_is_for_a_new_one() -> None:
    async with change_world(consumers={"shop": {}}) as world:
        await world.receive("A", 9)
        new = await anext(world.client.changes(consumer_id="shop", start="snapshot"))
        assert new.snapshot
        async for batch in world.client.changes(consumer_id="shop", start="snapshot", heartbeat_s=0.2):
            if batch.cursor:
                await world.client.acknowledge_changes("shop", batch.cursor)
                break
        await world.reserve("A")
        known = await anext(world.client.changes(consumer_id="shop", start="snapshot"))

        assert not known.snapshot
        assert "OPENED" in [one.what for one in known if isinstance(one, ReservationChanged)]
