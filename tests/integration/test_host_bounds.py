"""A host under too much, too late, or for the wrong one: refused at once and undone, and the others are served."""

from __future__ import annotations

from actors.domain.answers import ERROR, OK, IngestView
from actors.domain.commands import Verb
from actors.domain.keys import stock_key
from actors.domain.outcomes import ErrorReason, Fact, IngestOutcome
from actors.domain.rules import Rules
from actors.shard.messages import ANY_SHARD
from actors.shard.placement import shard_of
from tests.integration.host_world import (
    NOWHERE,
    SHARDS,
    availability,
    item,
    key_of,
    keys_of_shard,
    now_ms,
    receipt,
    release,
    reserve,
    status,
    until,
    world,
)


def failure(reply: list) -> ErrorReason:
    assert reply[0] == ERROR, reply
    return ErrorReason(reply[1])


def failed(reply: list) -> bool:
    """A failure of that item alone, or an event that is on record as not understood."""
    if reply[0] == OK:
        return len(reply[2]) == len(IngestView._fields) and IngestView(*reply[2]).outcome == IngestOutcome.REJECTED
    return failure(reply) in (
        ErrorReason.INVALID_FIELD,
        ErrorReason.INTERNAL,
        ErrorReason.WRONG_OWNER,
        ErrorReason.RESERVATION_NOT_FOUND,
    )


async def test_an_item_past_its_deadline_is_dropped_undone():
    async with world() as here:
        gateway = await here.gateway()
        late, soon = reserve("A", 2, deadline_ms=now_ms() - 1), reserve("A", 3, deadline_ms=now_ms() + 60_000)
        _, dropped, granted = await gateway.ask(receipt("A", 5), late, soon)
        assert failure(dropped) == ErrorReason.DEADLINE_EXCEEDED
        assert granted[0] == OK
        [view] = await gateway.ask(availability("A"))
        assert view[2][0][0][0] == 2


async def test_an_item_whose_deadline_passes_in_the_queue_is_dropped_undone():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 5))
        here.hold.hold()
        gateway.send(reserve("A"))
        await until(lambda: here.hold.begun > here.hold.done)
        gateway.send(reserve("A"))  # applied, waiting for the commit: the next one waits in the queue
        await gateway.settled()
        deadline_ms = now_ms() + 20
        asked = gateway.send(reserve("A", deadline_ms=deadline_ms))
        await gateway.settled()
        await until(lambda: now_ms() > deadline_ms + 5)
        here.hold.let_go()
        [reply] = await gateway.answer(asked)
        assert failure(reply) == ErrorReason.DEADLINE_EXCEEDED
        [view] = await gateway.ask(availability("A"))
        assert view[2][0][0][0] == 3


async def test_a_shard_that_is_not_here_is_said_so():
    async with world() as here:
        gateway = await here.gateway()
        [reply] = await gateway.ask([int(Verb.GET_STOCK), NOWHERE, 0, 1, [], [key_of("A")]])
        assert failure(reply) == ErrorReason.WRONG_OWNER


async def test_a_full_queue_refuses_at_once_with_a_hint_and_another_shard_is_served():
    async with world(queue_lines_per_shard_max=40, overloaded_retry_ms=70) as here:
        gateway = await here.gateway()
        full = shard_of(key_of("A"), SHARDS)
        other = next(key for key in keys_of_shard((full + 1) % SHARDS))
        keys = [key for key, _ in zip(keys_of_shard(full), range(60), strict=False)]
        here.hold.hold()
        gateway.send(receipt("A", 5))
        await until(lambda: here.hold.begun > here.hold.done)
        gateway.send(receipt("A", 5))
        await gateway.settled()
        asked = [gateway.send(item(Verb.GET_STOCK, key, [key])) for key in keys]
        elsewhere = gateway.send(item(Verb.GET_STOCK, other, [other]))
        await gateway.settled()
        refused = [gateway.answers[frame_id][0] for frame_id in asked if frame_id in gateway.answers]
        assert len(refused) == 20
        assert {failure(reply) for reply in refused} == {ErrorReason.OVERLOADED}
        assert {reply[3] for reply in refused} == {70}
        assert elsewhere not in gateway.answers
        here.hold.let_go()
        for frame_id in [*asked, elsewhere]:
            await gateway.answer(frame_id)
        assert failure(gateway.answers[elsewhere][0]) == ErrorReason.STOCK_KEY_NOT_FOUND
        assert here.host.statistics.overloaded == 20


async def test_one_flooded_stock_key_leaves_its_neighbours_three_quarters():
    async with world(queue_lines_per_shard_max=40) as here:
        gateway = await here.gateway()
        shard = shard_of(key_of("A"), SHARDS)
        neighbour = next(key.split("\x1f")[2] for key in keys_of_shard(shard) if key != key_of("A"))
        await gateway.ask(receipt("A", 100), receipt(neighbour, 100))
        here.hold.hold()
        gateway.send(reserve("A"))
        await until(lambda: here.hold.begun > here.hold.done)
        gateway.send(reserve("A"))
        await gateway.settled()
        flood = [gateway.send(reserve("A")) for _ in range(30)]
        calm = [gateway.send(reserve(neighbour)) for _ in range(5)]
        await gateway.settled()
        assert sum(frame_id in gateway.answers for frame_id in flood) == 20
        assert not set(calm) & set(gateway.answers)
        here.hold.let_go()
        replies = [(await gateway.answer(frame_id))[0] for frame_id in flood + calm]
        assert [reply[0] for reply in replies] == [OK] * 10 + [ERROR] * 20 + [OK] * 5


async def test_a_flooded_shard_does_not_starve_another():
    async with world(turn_lines_max=1_000) as here:
        gateway = await here.gateway()
        flooded = key_of("A")
        other = next(key for key in keys_of_shard((shard_of(flooded, SHARDS) + 1) % SHARDS))
        here.hold.hold()
        gateway.send(receipt("A", 5))
        await until(lambda: here.hold.begun > here.hold.done)
        gateway.send(receipt("A", 5))
        await gateway.settled()
        read = item(Verb.GET_STOCK, flooded, [flooded])
        flood = [gateway.send(*[read] * 500) for _ in range(20)]
        calm = gateway.send(item(Verb.GET_STOCK, other, [other]))
        await gateway.settled()
        here.hold.let_go()
        for frame_id in [*flood, calm]:
            await gateway.answer(frame_id)
        order = [frame_id for frame_id in gateway.answers if frame_id in {*flood, calm}]
        assert order.index(calm) <= 2


async def test_a_body_that_does_not_fit_fails_alone_whether_or_not_the_entries_table_is_asked():
    key = key_of("A")
    bad = [
        item(Verb.RESERVE, key, []),
        item(Verb.RESERVE, key, ["r", b"d", "web", 7]),
        item(Verb.RESERVE, key, ["r", b"d", "web", [[]]]),
        item(Verb.RESERVE, key, ["r", b"d", "web", [{"a": 1}], 1, False, 1, 1]),
        item(Verb.CONFIRM, key, ["r", b"d", ["list"]]),
        item(Verb.CONFIRM, key, []),
        item(Verb.INGEST, key, ["wms", "", "e", 0, 0, key, None]),
        item(Verb.INGEST, key, ["wms", "", "e", 0, 0, key, b"d", int(Fact.SHIPMENT), {"a": 1}]),
        item(Verb.INGEST, key, ["wms", "", "e", 0, 0, key, b"d", int(Fact.SHIPMENT), [1, "s", 5]]),
        item(Verb.GET_AVAILABILITY, key, ["web", 5]),
        item(Verb.FULFILL, key, ["r", b"d", "id", "s", [[]]]),
        item(Verb(Verb.LIST_STOCK), key, []),
        [99, shard_of(key, SHARDS), 0, 1, [], []],
        [int(Verb.GET_STOCK), shard_of(key, SHARDS), 0, 1, ["one"], [key]],
        [int(Verb.RESERVE), ANY_SHARD, 0, 1, [], ["r", b"d", "web", [["0", key, 1, 0]], 60_000, False, 1, 1]],
    ]
    async with world(Rules(dedupe_memory_ms=1)) as here:
        gateway = await here.gateway()
        for _ in range(2):  # the second time some ids are in the table, so that the filter says maybe
            replies = await gateway.ask(receipt("A", 5), *bad, reserve("A"))
            assert (replies[0][0], replies[-1][0]) == (OK, OK)
            assert [reply for reply in replies[1:-1] if not failed(reply)] == []
            await gateway.ask(release("A", replies[-1][2][0]))
            await until(lambda: bool(here.store.entries))
            for one in bad:
                [alone] = await gateway.ask(one)
                assert failed(alone)
        assert here.ends == []


async def test_below_the_floor_of_free_space_claims_are_refused_and_facts_and_releases_go_on():
    async with world(disk_floor_bytes=1_000, disk_floor_hysteresis_bytes=500, housekeeping_interval_ms=5) as here:
        gateway = await here.gateway()

        async def accepts(wanted: bool) -> None:
            await until(lambda: here.host.status()["accepts_claims"] is wanted)

        _, held = await gateway.ask(receipt("A", 5), reserve("A"))
        here.store.faults.free_bytes = 999
        await accepts(False)
        claim, fact, freed = await gateway.ask(reserve("A"), receipt("A", 1), release("A", held[2][0]))
        [read] = await gateway.ask(availability("A"))  # after the fact: its feed shard's order is not the stock key's
        assert failure(claim) == ErrorReason.JOURNAL_FULL
        assert (fact[0], freed[0], read[2][0][0][0]) == (OK, OK, 6)
        here.store.faults.free_bytes = 1_499
        seen = here.host.statistics.turns
        await until(lambda: here.host.statistics.free_bytes == 1_499)
        assert here.host.status()["accepts_claims"] is False
        here.store.faults.free_bytes = 1_500
        await accepts(True)
        [claim] = await gateway.ask(reserve("A"))
        assert claim[0] == OK
        assert here.host.statistics.turns > seen


async def test_a_status_asked_too_often_is_refused_beyond_a_bound():
    async with world(status_waiting_max=3) as here:
        gateway = await here.gateway()
        replies = await gateway.ask(*[status()] * 5)
        assert [reply[0] for reply in replies] == [OK] * 3 + [ERROR] * 2
        assert failure(replies[4]) == ErrorReason.OVERLOADED


async def test_a_thousand_line_order_is_one_decision():
    async with world() as here:
        gateway = await here.gateway()
        skus = [f"SKU-{number}" for number in range(1_114)]
        assert {reply[0] for reply in await gateway.ask(*[receipt(sku, 3) for sku in skus])} == {OK}
        keys = sorted(str(stock_key("main", sku)) for sku in skus)
        body = ["big", b"digest", "web", [[str(at), key, 2, 0] for at, key in enumerate(keys)], 60_000, False, 1, 1]
        order = item(Verb.RESERVE, keys[0], body, weight=len(keys))
        before = here.hold.begun
        [reply] = await gateway.ask(order)
        assert reply[0] == OK
        assert here.hold.begun == before + 1
        assert {view[2][0][0][0] for view in await gateway.ask(*[availability(sku) for sku in skus[:50]])} == {1}
