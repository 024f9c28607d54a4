"""What consumers of the change feed leave in the journal is understood by ``verify``: the service's journal is judged at the end."""

from __future__ import annotations

from pathlib import Path

from tests.integration.withstand_world import service


async def test_a_consumer_that_begins_acknowledges_and_lags_leaves_a_sound_journal(tmp_path: Path):
    consumers = {"shop": {"lag_events_max": 1}}
    async with service(tmp_path, consumers=consumers) as shop:
        await shop.receive("A", 10)
        async for batch in shop.client.changes(consumer_id="shop", start="oldest", heartbeat_s=0.1):
            await shop.client.acknowledge_changes("shop", batch.cursor)
            break
        for _ in range(5):
            await shop.receive("A", 10)
        assert (await shop.client.list_consumers())[0].lag_events > 1
