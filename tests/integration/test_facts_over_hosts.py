"""Warehouse events whose source's feed shard is on one host and whose stock keys are on another."""

from __future__ import annotations

import pytest

from actors.domain.answers import OK, PENDING
from actors.domain.outcomes import IngestOutcome
from actors.shard.placement import feed_shard_of, shard_of
from tests.integration.host_world import availability, key_of, receipt
from tests.integration.peer_world import FIRST, SECOND, peers

FEED_HOST, FEED_SHARDS = ("a", FIRST) if feed_shard_of("wms") in FIRST else ("b", SECOND)
STOCK_HOST, STOCK_SHARDS = ("b", SECOND) if FEED_HOST == "a" else ("a", FIRST)
SKUS = [f"S{number}" for number in range(400)]
SKU = next((sku for sku in SKUS if shard_of(key_of(sku)) in STOCK_SHARDS), "")


@pytest.mark.skipif(not SKU, reason="the warehouse's shards are all on the feed's host")
async def test_a_receipt_is_booked_where_its_stock_key_is_and_its_repeat_is_a_duplicate():
    async with peers() as world:
        gateway = await world.gateway(FEED_HOST)
        event = receipt(SKU, 7, event_id="e1")
        status, _, view = await gateway.end_of(gateway.send(event))
        assert (status, view[1]) == (OK, IngestOutcome.APPLIED)
        status, _, view = await gateway.end_of(gateway.send(event))
        assert (status, view[1]) == (OK, IngestOutcome.DUPLICATE)
        there = await world.gateway(STOCK_HOST)
        [read] = await there.ask(availability(SKU))
        assert read[2][0][0][0] == 7
        await world.at_rest()
        world.judge()


@pytest.mark.skipif(not SKU, reason="the warehouse's shards are all on the feed's host")
@pytest.mark.parametrize("dies", ["a", "b"])
async def test_it_is_booked_once_whichever_host_dies_while_it_is_under_way(dies):
    async with peers() as world:
        gateway = await world.gateway(FEED_HOST)
        world.holds[STOCK_HOST].hold()
        events = [receipt(SKU, 1, event_id=f"e{at}") for at in range(5)]
        frame = gateway.send(*events)
        replies = await gateway.answer(frame)
        assert {reply[0] for reply in replies} == {PENDING}
        await world.kill(dies)
        world.holds[STOCK_HOST].let_go()
        await world.start(dies, FIRST if dies == "a" else SECOND)
        again = await world.gateway(FEED_HOST)
        for event in events:
            status, _, view = await again.end_of(again.send(event))
            assert status == OK
            assert view[1] in (IngestOutcome.APPLIED, IngestOutcome.DUPLICATE)
        there = await world.gateway(STOCK_HOST)
        [read] = await there.ask(availability(SKU))
        assert read[2][0][0][0] == 5
        await world.at_rest()
        world.judge()
