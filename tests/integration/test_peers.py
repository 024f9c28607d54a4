"""Two shard hosts on real sockets, each with half of the shards: errands, replies that come later, asks, beats."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from actors.domain.answers import ERROR, OK, PENDING, ok
from actors.domain.errand_registry import ASKS
from actors.domain.outcomes import ErrorReason
from actors.journal.codec import decode_groups
from actors.shard import frames
from actors.shard.handlers import HANDLERS
from actors.shard.placement import shard_of
from tests.integration.host_world import CLUSTER, TIMELINE, TOKEN, availability, key_of, now_ms, until
from tests.integration.peer_world import FIRST, SECOND, peers
from tests.unit.errand_world import SEND, teach

HERE, THERE = FIRST[3], SECOND[5]
SKU_HERE = next(f"S{number}" for number in range(999) if shard_of(key_of(f"S{number}", "main")) in FIRST)


@pytest.fixture(autouse=True)
def _verbs(monkeypatch):
    teach(monkeypatch)


def send(name, shard=HERE, to_shard=THERE, more=0, deadline_ms=0):
    return [SEND, shard, deadline_ms, 1, [], [name, to_shard, more]]


def done(world):
    """How often each name was done, by the journal."""
    keys = (
        event[1]
        for records in world.store.records.values()
        for record, _ in records
        for _, events in decode_groups(record.payload)
        for event in events
        if event[0] == 40
    )
    return Counter(key[2:] for key in keys if key.startswith("d\x1f"))


async def test_an_errand_goes_to_the_other_host_and_its_answer_comes_back_to_the_caller():
    async with peers() as world:
        gateway = await world.gateway("a")
        frame = gateway.send(send("one", more=2))
        assert (await gateway.end_of(frame))[0] == OK
        await world.at_rest()
        assert done(world) == {"one": 1, "one.": 1, "one..": 1}
        world.judge()


async def test_what_waits_for_another_host_holds_up_nothing_else_of_its_frame():
    async with peers() as world:
        gateway = await world.gateway("a")
        world.holds["b"].hold()
        frame = gateway.send(send("one"), availability(SKU_HERE), send("two"))
        first, read, third = await gateway.answer(frame)
        assert (first[0], read[0], third[0]) == (PENDING, OK, PENDING)
        world.holds["b"].let_go()
        assert (await gateway.end_of(frame, 0))[0] == OK
        assert (await gateway.end_of(frame, 2))[0] == OK


async def test_to_a_gateway_that_knows_of_no_late_replies_the_whole_frame_comes_later():
    async with peers() as world:
        older = frames.encode([1, 1, 1, CLUSTER, TIMELINE, TOKEN, "older"])
        gateway = await world.gateway("a", older)
        assert gateway.welcome is not None
        assert gateway.welcome.protocol == 1
        world.holds["b"].hold()
        frame = gateway.send(send("one"), availability(SKU_HERE))
        await until(lambda: world.holds["b"].begun > 1)
        assert frame not in gateway.answers
        world.holds["b"].let_go()
        replies = await gateway.answer(frame)
        assert [reply[0] for reply in replies] == [OK, OK]


async def test_a_caller_whose_deadline_passes_hears_that_nobody_knows_and_the_same_id_settles_it():
    async with peers() as world:
        gateway = await world.gateway("a")
        world.holds["b"].hold()
        frame = gateway.send(send("one", deadline_ms=now_ms() + 300))
        status, reason, *_ = await gateway.end_of(frame)
        assert (status, reason) == (ERROR, ErrorReason.DEADLINE_EXCEEDED)
        assert world.hosts["a"].status()["deferred_replies"] == 0
        world.holds["b"].let_go()
        assert (await gateway.end_of(gateway.send(send("one"))))[0] == OK
        assert done(world) == {"one": 1}


async def test_the_other_host_may_die_before_it_took_the_errand_and_after():
    async with peers() as world:
        gateway = await world.gateway("a")
        for round_number in range(3):
            world.holds["b"].hold()
            names = [f"n{round_number}-{at}" for at in range(5)]
            sent = [gateway.send(send(name)) for name in names]
            for frame in sent:
                await gateway.answer(frame)
            await world.kill("b")
            await world.start("b", SECOND)
            for frame in sent:
                assert (await gateway.end_of(frame))[0] == OK
        await world.at_rest()
        assert set(done(world).values()) == {1}
        world.judge()


async def test_the_sending_host_may_die_and_its_successor_goes_on():
    async with peers() as world:
        gateway = await world.gateway("a")
        world.holds["b"].hold()
        for at in range(5):
            await gateway.answer(gateway.send(send(f"n{at}")))
        await world.kill("a")
        world.holds["b"].let_go()
        await world.start("a", FIRST)
        again = await world.gateway("a")
        for at in range(5):
            assert (await again.end_of(again.send(send(f"n{at}"))))[0] == OK
        await world.at_rest()
        assert done(world) == {f"n{at}": 1 for at in range(5)}
        world.judge()


async def test_shards_that_change_their_host_take_their_errands_along():
    async with peers() as world:
        gateway = await world.gateway("a")
        world.holds["b"].hold()
        for at in range(3):
            await gateway.answer(gateway.send(send(f"n{at}")))
        await world.kill("b")
        await world.kill("a")
        await world.start("c", (*FIRST, *SECOND))
        again = await world.gateway("c")
        for at in range(3):
            assert (await again.end_of(again.send(send(f"n{at}"))))[0] == OK
        await world.at_rest()
        assert set(done(world).values()) == {1}
        world.judge()


async def test_many_errands_both_ways_while_hosts_die(seed):
    draw = Random(seed)
    async with peers() as world:
        asked = {}
        for at in range(60):
            here, there = draw.choice(FIRST), draw.choice(SECOND)
            asked[f"n{at}"] = (here, there) if draw.random() < 0.5 else (there, here)
        for begin in range(0, 60, 15):
            for name in list(asked)[begin : begin + 15]:
                shard, to_shard = asked[name]
                gateway = await world.gateway("a" if shard in FIRST else "b")
                gateway.send(send(name, shard, to_shard, more=draw.randrange(3)))
                await gateway.settled()
            name = draw.choice(("a", "b"))
            await world.kill(name)
            await world.start(name, FIRST if name == "a" else SECOND)
        for name, (shard, to_shard) in asked.items():
            gateway = await world.gateway("a" if shard in FIRST else "b")
            assert (await gateway.end_of(gateway.send(send(name, shard, to_shard))))[0] == OK
        await world.at_rest()
        assert set(done(world)) >= set(asked)
        assert set(done(world).values()) == {1}
        world.judge()


# --- asks -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def _asking(monkeypatch):
    """SEND asks the other shard for its stock first, and says what it was told."""
    monkeypatch.setitem(ASKS, SEND, lambda _books, _shard, body: [(body[1], 20, ["web", [key_of("Z")]])])
    monkeypatch.setitem(HANDLERS, SEND, lambda turn, _shard, _command: ok((list(turn.told),)))


@pytest.mark.usefixtures("_asking")
async def test_an_item_is_decided_when_another_host_has_said_what_it_must_know():
    async with peers() as world:
        gateway = await world.gateway("a")
        status, _, [told] = await gateway.end_of(gateway.send(send("one")))
        assert status == OK
        assert [len(payload[0]) for payload in told] == [1]  # the payload of an answer, not the reply around it


@pytest.mark.usefixtures("_asking")
async def test_a_dead_host_delays_only_the_item_that_asks_it_and_only_until_its_deadline():
    async with peers() as world:
        gateway = await world.gateway("a")
        await world.kill("b")
        asking = gateway.send(send("one", deadline_ms=now_ms() + 400))
        [read] = await gateway.ask(availability(SKU_HERE))
        assert read[0] == OK
        assert asking not in gateway.answers
        [reply] = await gateway.answer(asking)
        assert reply[:2] == [ERROR, ErrorReason.SHARD_UNAVAILABLE]


@pytest.mark.usefixtures("_asking")
async def test_an_ask_outlives_the_death_of_the_host_that_it_asks():
    async with peers() as world:
        gateway = await world.gateway("a")
        await world.kill("b")
        asking = gateway.send(send("one", deadline_ms=now_ms() + 8_000))
        await gateway.settled()
        await world.start("b", SECOND)
        [reply] = await gateway.answer(asking)
        assert reply[0] == OK


# --- beats ----------------------------------------------------------------------------------------------------------------


async def test_hosts_tell_each_other_where_they_stand_and_what_their_clocks_say():
    async with peers() as world:
        first = world.hosts["a"]
        await until(lambda: "b" in first.peers.peers)
        heard = first.peers.peers["b"]
        assert set(heard.shards) == set(SECOND)
        assert {epoch for epoch, _ in heard.shards.values()} == {1}
        assert abs(heard.skew_ms) < 500
        (peer,) = first.status()["peers"]
        assert (peer["host_id"], peer["linked"]) == ("b", True)


async def test_only_a_host_itself_says_that_an_errand_was_answered():
    async with peers() as world:
        gateway = await world.gateway("a")
        [reply] = await gateway.ask([81, HERE, 0, 1, [], [THERE, 1, []]])
        assert reply[:2] == [ERROR, ErrorReason.INVALID_FIELD]


async def test_a_host_that_has_every_shard_asks_nobody_and_sends_nothing():
    async with peers() as world:
        await world.kill("b")
        await world.kill("a")
        host = await world.start("c", (*FIRST, *SECOND))
        await asyncio.sleep(0)
        assert host.engine.whole
        assert host.peers.links is not None
        assert host.peers.links.up() == []
        assert host.peers.courier.shards_waited_for() == []
