"""A host's life: it recovers, serves, expires while idle, takes snapshots, looks back into its tables, and drains."""

from __future__ import annotations

import asyncio
import random

import pytest

from actors.domain.answers import ERROR, OK, ExplanationView
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason, RefusalReason, ReservationState
from actors.domain.rules import Rules
from actors.journal.memory import MemoryJournal, copy_store
from actors.journal.port import JournalDamaged
from actors.shard.encoding import canonical_state
from actors.shard.recovery import load_shard, recover
from tests.integration.host_world import (
    SHARDS,
    World,
    availability,
    item,
    key_of,
    now_ms,
    receipt,
    release,
    reserve,
    status,
    until,
    world,
)


def live_states(here: World) -> list[bytes]:
    return [canonical_state(here.host.engine.books, shard) for shard in range(SHARDS)]


def replayed_states(here: World, *, use_snapshots: bool) -> list[bytes]:
    """Every shard's state as its journal alone gives it, without a takeover."""
    journal = MemoryJournal(copy_store(here.store))
    books = recover(journal, [], Rules(), now_ms()).engine.books
    states = []
    for shard in range(SHARDS):
        load_shard(journal, books, shard, use_snapshots=use_snapshots)
        states.append(canonical_state(books, shard))
    return states


async def test_a_hold_expires_while_nobody_asks_and_its_units_come_back():
    async with world() as here:
        gateway = await here.gateway()
        _, held = await gateway.ask(receipt("A", 1), reserve("A", ttl_ms=40))
        begun = here.hold.begun
        await until(lambda: here.hold.done > begun)
        assert here.host.statistics.expired == 1
        [view], [found] = (
            await gateway.ask(availability("A")),
            await gateway.ask(item(Verb.GET_RESERVATION, key_of("A"), [held[2][0]])),
        )
        assert view[2][0][0][0] == 1
        assert found[2][4] == ReservationState.EXPIRED


async def test_an_idle_host_does_nothing():
    async with world(housekeeping_interval_ms=3_600_000) as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 1))
        await gateway.ask(reserve("A"))
        turns = here.host.statistics.turns
        deadline_ms = now_ms() + 100
        await until(lambda: now_ms() > deadline_ms)
        assert here.host.statistics.turns == turns


async def test_the_next_host_has_everything_the_last_one_acknowledged():
    async with world() as here:
        gateway = await here.gateway()
        held = [await gateway.ask(receipt(f"SKU-{n}", 5), reserve(f"SKU-{n}", 2)) for n in range(30)]
        await here.host.stop()
        await here.start_host()
        again = await here.gateway()
        assert again.welcome is not None
        assert set(again.welcome.epochs) == {2}
        for number, (_, reply) in enumerate(held):
            [view, found] = await again.ask(
                availability(f"SKU-{number}"),
                item(Verb.GET_RESERVATION, key_of(f"SKU-{number}"), [reply[2][0]]),
            )
            assert view[2][0][0][0] == 3
            assert found[2][4] == ReservationState.HELD


async def test_what_left_memory_is_found_in_the_table_before_it_is_decided_again():
    async with world(Rules(dedupe_memory_ms=1)) as here:
        gateway = await here.gateway()
        order, fact = reserve("A", 2, request_id="mine"), receipt("A", 5, event_id="e-1")
        _, first = await gateway.ask(fact, order)
        await gateway.ask(release("A", first[2][0]))
        engine = here.host.engine
        await until(lambda: not engine.books.reservations and not any(s.entries for s in engine.books.shards.values()))
        await until(lambda: len(here.store.entries) >= 4)
        looked_up = here.hold.looked_up
        [again], [twice] = await gateway.ask(order), await gateway.ask(fact)
        assert here.hold.looked_up > looked_up
        assert (again[0], again[1], again[2][0]) == (OK, True, first[2][0])
        assert twice[1] is True
        other = reserve("A", 3, request_id="mine")
        other[5][1] = b"another digest"
        [reused] = await gateway.ask(other)
        assert (reused[0], reused[1]) == (ERROR, ErrorReason.REQUEST_ID_REUSED)
        [view] = await gateway.ask(availability("A"))
        assert view[2][0][0][0] == 5


async def test_the_filter_is_built_again_from_the_table_at_start():
    async with world(Rules(dedupe_memory_ms=1)) as here:
        gateway = await here.gateway()
        order = reserve("A", 2, request_id="mine")
        _, first = await gateway.ask(receipt("A", 5), order)
        await gateway.ask(release("A", first[2][0]))
        await until(lambda: not here.host.engine.books.reservations and len(here.store.entries) >= 3)
        await here.host.stop()
        await here.start_host()
        [again] = await (await here.gateway()).ask(order)
        assert (again[0], again[1], again[2][0]) == (OK, True, first[2][0])


async def test_a_fresh_id_is_not_looked_up():
    async with world(Rules(dedupe_memory_ms=1)) as here:
        gateway = await here.gateway()
        _, held = await gateway.ask(receipt("A", 500), reserve("A"))
        await gateway.ask(release("A", held[2][0]))
        await until(lambda: bool(here.store.entries))
        looked_up = here.hold.looked_up
        await gateway.ask(*[reserve("A") for _ in range(300)])
        assert here.hold.looked_up - looked_up < 30


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_snapshots_taken_under_traffic_and_the_tail_give_the_live_state(seed):
    chance = random.Random(seed)
    async with world(Rules(dedupe_memory_ms=20), snapshot_after_events=40, snapshot_pause_ms=0.1) as here:
        gateway = await here.gateway()
        skus = [f"SKU-{number}" for number in range(12)]
        await gateway.ask(*[receipt(sku, 10_000) for sku in skus])
        held: list[tuple[str, str]] = []
        for _ in range(80):
            items, reserved = [], []
            for _ in range(chance.randint(1, 30)):
                sku = chance.choice(skus)
                if held and chance.random() < 0.4:
                    items.append(release(*held.pop(chance.randrange(len(held)))))
                elif chance.random() < 0.1:
                    items.append(receipt(sku, 5))
                else:
                    reserved.append((len(items), sku))
                    items.append(reserve(sku, chance.randint(1, 3), ttl_ms=chance.choice([30, 900_000])))
            replies = await gateway.ask(*items)
            held += [(sku, replies[at][2][0]) for at, sku in reserved]
        await until(lambda: here.host.statistics.snapshots >= 5)
        await here.host.stop()
        live = live_states(here)
        snapshots = sum(len(MemoryJournal(here.store).snapshots(shard)) for shard in range(SHARDS))
        assert snapshots >= 5, f"seed {seed}"
        assert replayed_states(here, use_snapshots=True) == live, f"seed {seed}"
        assert replayed_states(here, use_snapshots=False) == live, f"seed {seed}"


async def test_snapshots_let_compaction_drop_records_and_recovery_starts_from_them():
    async with world(
        Rules(dedupe_memory_ms=1),
        snapshot_after_events=20,
        snapshot_pause_ms=0.1,
        records_retention_ms=0,
        compact_interval_ms=1,
        housekeeping_interval_ms=5,
    ) as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 1_000))
        while not any(MemoryJournal(here.store).first_number(shard) > 1 for shard in range(SHARDS)):
            [held] = await gateway.ask(reserve("A"))
            await gateway.ask(release("A", held[2][0]))
        [held] = await gateway.ask(reserve("A", 7))
        await here.host.stop()
        live = live_states(here)
        assert replayed_states(here, use_snapshots=True) == live
        with pytest.raises(JournalDamaged, match="first records are gone"):
            replayed_states(here, use_snapshots=False)
        await here.start_host()
        [view] = await (await here.gateway()).ask(availability("A"))
        assert view[2][0][0][0] == 993


async def test_an_explanation_has_the_events_behind_a_stock_key_newest_first():
    async with world(explain_events_max=3) as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 10), receipt("B", 10))
        await gateway.ask(reserve("A", 4, request_id="mine"))
        await gateway.ask(reserve("B", 2))
        [reply] = await gateway.ask(item(Verb.EXPLAIN_AVAILABILITY, key_of("A"), ["web", key_of("A"), 7]))
        view = ExplanationView(*reply[2])
        assert (view.available_quantity, view.would_succeed) == (6, False)
        assert view.refusal_reason == RefusalReason.INSUFFICIENT_STOCK
        assert ["ClaimGranted", 4, "reserve web/mine"] in [event[2:5] for event in view.events[:3]]
        assert [event[0] for event in view.events] == sorted((event[0] for event in view.events), reverse=True)
        assert any("source wms" in event[4] for event in view.events)
        [unknown] = await gateway.ask(item(Verb.EXPLAIN_AVAILABILITY, key_of("C"), ["web", key_of("C"), 1]))
        assert (unknown[0], unknown[1]) == (ERROR, ErrorReason.STOCK_KEY_NOT_FOUND)


async def test_a_status_tells_what_an_operator_asks():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 5), reserve("A", 2), reserve("A", 9))
        [[_, _, [told]]] = await gateway.ask(status())
        assert (told["state"], told["host_id"], told["endpoint"]) == ("serving", "host-a", here.host.route.endpoint)
        assert (told["journal_kind"], told["oversells"], told["live_reservations"]) == ("memory", 0, 1)
        assert ["reserve", "ok", 1] in told["decisions"]
        assert ["reserve", "INSUFFICIENT_STOCK", 1] in told["decisions"]
        assert ["wms", "applied", 1] in told["events"]
        assert len(told["shards"]) == SHARDS


async def test_stopping_finishes_what_is_queued_and_takes_nothing_new():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 100))
        here.hold.hold()
        first = gateway.send(reserve("A"))
        await until(lambda: here.hold.begun > here.hold.done)
        rest = [gateway.send(reserve("A")) for _ in range(20)]
        await gateway.settled()
        stopping = asyncio.create_task(here.host.stop(5))
        await until(lambda: here.host.state == "draining")
        [late] = await gateway.ask(reserve("A"))
        assert (late[0], late[1], late[3] > 0) == (ERROR, ErrorReason.SHARD_UNAVAILABLE, True)
        assert first not in gateway.answers
        here.hold.let_go()
        await stopping
        assert "stops" in await gateway.hung_up()
        assert [gateway.answers[frame_id][0][0] for frame_id in [first, *rest]] == [OK] * 21
        assert here.host.state == "stopped"
        assert replayed_states(here, use_snapshots=False) == live_states(here)


async def test_stopping_does_not_wait_longer_than_it_was_given_and_answers_nothing_it_cannot_keep():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 100))
        here.hold.hold()
        asked = gateway.send(reserve("A"))
        await until(lambda: here.hold.begun > here.hold.done)
        stopping = asyncio.create_task(here.host.stop(0.05))
        assert "stops" in await gateway.hung_up()
        here.hold.let_go()
        await stopping
        assert asked not in gateway.answers


async def test_a_host_that_cannot_recover_says_so_and_lets_the_journal_go():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 1))
        await here.host.stop()
        for rows in here.store.records.values():
            del rows[-1:]
        with pytest.raises(JournalDamaged, match="shard"):
            await here.start_host()
        assert here.host.state == "failed"
        await here.host.stop()
