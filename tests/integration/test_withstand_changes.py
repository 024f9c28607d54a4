"""What the change feed must withstand: consumers that come back late, hosts that die, readers that do not read.

Judged by what callers were answered and by strong reads, not by the code that tells changes.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from actors.runtime.wiring import open_data_journal, start_in_process
from stockade.client import AvailabilityChanged, Granted, ReservationChanged
from stockade.client.change_results import Changed
from stockade.v1 import change_feed_service_pb2 as pb
from tests.integration.change_world import PATIENCE_S, ChangeWorld, change_world, settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SKUS = [f"S{number}" for number in range(40)]


class Picture:
    """What a consumer knows: every change once, and the latest value of each stock key."""

    def __init__(self) -> None:
        self.changes: dict[str, Changed] = {}
        self.doubled: list[str] = []
        self.values: dict[str, tuple[int, int]] = {}  # SKU → (seen, quantity)
        self.last: dict[int, int] = {}  # shard → sequence
        self.cursor = ""

    def take(self, batch: Any) -> None:
        for change in batch:
            if change.change_id in self.changes:
                self.doubled.append(change.change_id)
            self.changes[change.change_id] = change
            assert change.sequence > self.last.get(change.shard, 0), "out of order within its shard"
            self.last[change.shard] = change.sequence
            if isinstance(change, AvailabilityChanged):
                sku = change.stock_key.sku
                self.values[sku] = max(self.values.get(sku, (-1, 0)), (change.seen_sequence, change.available_quantity))
        self.cursor = batch.cursor or self.cursor

    def opened(self) -> set[str]:
        return {
            one.reservation_id
            for one in self.changes.values()
            if isinstance(one, ReservationChanged) and one.what == "OPENED"
        }

    async def agrees(self, world: ChangeWorld) -> None:
        """The values are those that the stock actors give now."""
        answers = await world.client.batch_availability([(sku, "main") for sku in SKUS])
        assert {sku: quantity for sku, (_, quantity) in self.values.items()} == {
            one.stock_key.sku: one.available_quantity for one in answers
        }


async def reserve_many(world: ChangeWorld, random: Random, orders: int) -> set[str]:
    """Batches of single lines; the ids that were granted."""
    granted: set[str] = set()
    for _ in range(0, orders, 1_000):
        requests = [world.client.reserve_message([(random.choice(SKUS), "main", 1)]) for _ in range(1_000)]
        results = await world.client.batch_reserve(requests)
        granted |= {one.reservation_id for one in results if isinstance(one, Granted)}
    return granted


async def read_until_now(world: ChangeWorld, picture: Picture, **wanted: Any) -> None:
    """Take in all that is durable when this is called, and more."""
    async with asyncio.timeout(120):
        begun_ms = world.node.host.engine.now_ms
        async for batch in world.client.changes(heartbeat_s=0.2, changes_per_message_max=5_000, **wanted):
            picture.take(batch)
            if batch.as_of_ms >= begun_ms:
                return


async def test_a_consumer_that_returns_after_100_000_changes_misses_none(tmp_path: Path, seed: int) -> None:
    """Through SQLite, over a new host, with a log and tails that hold a fraction of it, while more is reserved."""
    random = Random(seed)
    chosen = settings(data_dir=tmp_path, consumers={"shop": {}}, gateways=2)
    node = await start_in_process(chosen, lambda: open_data_journal(chosen, tmp_path, print))
    world = ChangeWorld(node)
    try:
        for sku in SKUS:
            await world.receive(sku, 10**6)
        picture = Picture()
        await read_until_now(world, picture, consumer_id="shop")
        granted = await reserve_many(world, random, 2_000)
        await read_until_now(world, picture, cursor=picture.cursor)
        await world.client.acknowledge_changes("shop", picture.cursor)
        known = len(picture.changes)

        granted |= await reserve_many(world, random, 30_000)
        await node.stop_host()
        await node.start_host()
        granted |= await reserve_many(world, random, 30_000)
        (lagging,) = await world.client.list_consumers()
        assert lagging.lag_events >= 100_000

        world.remember_little(200_000)
        more = asyncio.create_task(reserve_many(world, random, 5_000))
        await read_until_now(world, picture, consumer_id="shop")
        granted |= await more
        await read_until_now(world, picture, cursor=picture.cursor)

        assert picture.opened() == granted
        assert picture.doubled == []
        assert len(picture.changes) - known >= 65_000, "and a change of each stock key in each record"
        await picture.agrees(world)
        told = await world.client.acknowledge_changes("shop", picture.cursor)
        assert told.consumer.lag_events == 0
    finally:
        await world.close()
        await node.stop()


async def test_readers_that_come_and_go_over_a_log_that_forgets_at_once_miss_nothing(seed: int) -> None:
    random = Random(seed)
    async with change_world(gateways=2) as world:
        for sku in SKUS:
            await world.receive(sku, 10**6)
        pictures = [Picture() for _ in range(4)]
        await read_until_now(world, pictures[0], start="oldest")
        world.remember_little(random.choice([500, 5_000, 50_000]))
        granted: set[str] = set()
        for turn in range(12):
            if turn == 6:
                await world.node.stop_host()
                await world.node.start_host()
                world.remember_little(random.choice([500, 5_000, 50_000]))
            making = asyncio.create_task(reserve_many(world, random, 1_000))
            reading = [
                read_until_now(world, one, **({"cursor": one.cursor} if one.cursor else {"start": "oldest"}))
                for one in pictures
                if random.random() < 0.5
            ]
            await asyncio.gather(*reading)
            granted |= await making
        for one in pictures:
            await read_until_now(world, one, **({"cursor": one.cursor} if one.cursor else {"start": "oldest"}))
            assert one.opened() == granted
            assert one.doubled == []
            await one.agrees(world)
        assert len({frozenset(one.changes) for one in pictures}) == 1, "all of them saw the same changes"


async def test_readers_that_do_not_read_slow_nobody_and_keep_nothing(seed: int) -> None:
    """Their streams stand still; memory stays bounded; one that reads on later has missed nothing."""
    random = Random(seed)
    async with change_world() as world:
        for sku in SKUS:
            await world.receive(sku, 10**6)
        still = [world.read(from_now=True) for _ in range(20)]
        for reader in still:
            await reader.message()
        world.remember_little(300_000)
        granted = await reserve_many(world, random, 30_000)
        picture = Picture()
        await read_until_now(world, picture, start="oldest")

        assert picture.opened() == granted, "a reader beside them is not held up"
        hub = world.node.gateways[0]._changes
        assert hub.tails.bytes <= 400_000
        assert world.node.host._changes.log.bytes <= 400_000
        late = still[7]
        await late.until(lambda reader: opened_in(reader.changes) == granted)
        assert len(set(late.ids)) == len(late.ids)


def opened_in(changes: list[pb.Change]) -> set[str]:
    return {one.reservation.reservation_id for one in changes if one.HasField("reservation")}


async def test_what_retention_dropped_is_told_and_the_reader_begins_anew() -> None:
    async with change_world() as world:
        await world.receive("A", 100)
        early = (await world.read(from_oldest=True).caught_up()).stop()
        await world.reserve("A")
        await until_later(world)
        await world.reserve("A")
        dropped_ms = world.node.host.engine.now_ms
        await until_later(world)
        await world.reserve("A")
        world.remember_little(1)
        await world.reserve("A")
        world.drop_records(dropped_ms + 1)
        told = world.read(cursor=early.cursor)
        while not told.resync:
            await told.message()
        kept = await world.read(from_oldest=True).caught_up()
        anew = await world.read(from_snapshot=True).caught_up()

        assert told.resync == pb.RESYNC_REASON_TOO_OLD
        assert told.changes == []
        assert kept.reservations() == ["OPENED", "OPENED"]
        assert anew.latest() == {("A", "main"): 96}


async def until_later(world: ChangeWorld) -> None:
    """Until shard time has moved on."""
    before_ms = world.node.host.engine.now_ms
    async with asyncio.timeout(PATIENCE_S):
        while world.node.host._now() <= before_ms + 2:
            await asyncio.sleep(0.002)


async def test_nothing_is_recorded_while_nobody_reads() -> None:
    async with change_world() as world:
        await world.receive("A", 100)
        changes: Any = world.node.host._changes
        assert not changes.log.recording

        reader = await world.read(from_now=True).caught_up()
        assert changes.log.recording
        reader.stop()
        await world.node.gateways[0]._changes.stop()
        changes._asked_ms -= 20_000  # as if the last of them had asked long ago
        async with asyncio.timeout(PATIENCE_S):
            while changes.log.recording:
                await world.reserve("A")
                changes._asked_ms -= 20_000

        assert (changes.log.bytes, changes.log.rings) == (0, {})


@pytest.mark.parametrize("start", ["from_now", "from_oldest"])
async def test_a_change_is_told_only_when_it_is_durable(seed: int, start: str) -> None:
    """A journal that takes its time: whatever a reader sees is in it already, be it told from memory or read back with the
    values of now."""
    random = Random(seed)
    async with change_world() as world:
        journal: Any = world.node.host._journal
        append = journal.append
        durable: set[tuple[int, int]] = set()

        def slowly(records: Any, entries: Any, heads: Any) -> None:
            end_s = time.monotonic() + random.random() * 0.02
            while time.monotonic() < end_s:
                pass
            append(records, entries, heads)
            durable.update(
                (record.shard, record.first_sequence + number)
                for record in records
                for number in range(record.event_count)
            )

        await world.receive("A", 10_000)
        durable |= {(shard.id, number) for shard in world.node.host.engine.books.shards.values() for number in range(9)}
        world.remember_little(1)
        reader = await world.read(from_now=True).caught_up()
        journal.append = slowly
        calls = [asyncio.create_task(world.reserve("A")) for _ in range(300)]
        looked_at = 0
        while not all(call.done() for call in calls):
            if start == "from_oldest":
                reader.stop()
                reader = world.read(from_oldest=True)
            for change in (await reader.message()).changes:
                looked_at += 1
                assert (change.shard, change.sequence) in durable, "it was told before it was durable"
                if change.HasField("availability"):
                    assert (change.shard, change.availability.seen_sequence) in durable
        assert looked_at > 100
        await asyncio.gather(*calls)
