"""A source that gives one id to two events: what ``verify`` says of the journal is about the service, not about the source."""

from __future__ import annotations

from actors.domain.keys import stock_key
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from actors.shard.placement import shard_of
from tests.unit.world import SHARDS, World


def test_an_event_id_used_again_for_another_shard_is_rejected_and_no_violation():
    """Found by fuzzing: such an id was known at its stock key's shard only, while it was in memory."""
    world = World()
    skus = {shard_of(stock_key("main", sku), SHARDS): sku for sku in "ABCDEFGH"}.values()
    assert len(skus) > 1
    told = [world.receive(sku, 5, event="e1") for sku in skus]
    assert [one.outcome for one in told] == ["APPLIED"] + ["REJECTED"] * (len(skus) - 1)
    assert {one.reason for one in told[1:]} == {"EVENT_ID_REUSED"}
    report = verify(MemoryJournal(world.store))
    assert report.ok, report.violations
