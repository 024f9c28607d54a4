"""Shards that are adopted from the dead, move between the living, and come back when a move fails."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from actors.domain.answers import OK, REFUSED
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason, RefusalReason
from actors.domain.rules import Rules
from actors.journal.port import Fenced, ShardHead
from actors.shard.host_config import EXIT_FENCED
from actors.shard.messages import ANY_SHARD
from actors.shard.moving import MoveFailed
from actors.shard.placement import feed_shard_of, shard_of
from tests.integration.host_world import (
    SHARDS,
    HeldJournal,
    availability,
    key_of,
    receipt,
    release,
    reserve,
    status,
    until,
)
from tests.integration.moving_world import Cluster, cluster

NEAR = "S1"
FEED = shard_of(key_of(NEAR), SHARDS)
SOURCE = next(
    f"s{number}" for number in itertools.count() if feed_shard_of(f"s{number}", SHARDS) == FEED
)  # one host knows both


async def receive(here: Cluster, quantity: int = 10) -> None:
    item = receipt(NEAR, quantity)
    item[1], item[5][0] = FEED, SOURCE
    reply = await here.ask(item)
    assert reply[0] == OK, reply


async def available(here: Cluster) -> int:
    reply = await here.ask(availability(NEAR))
    return int(reply[2][0][0][0])


def other(here: Cluster, shard: int) -> str:
    return next(host_id for host_id in here.members if host_id != here.owners()[shard])


async def test_hosts_with_their_own_shards_share_a_journal():
    async with cluster("a", "b", "c") as here:
        assert len(here.owners()) == SHARDS
        await receive(here)
        assert (await here.ask(reserve(NEAR)))[0] == OK
        assert await available(here) == 9
        stranger = here[other(here, FEED)]
        assert (await stranger.ask(reserve(NEAR)))[1] == ErrorReason.WRONG_OWNER


async def test_a_host_may_start_with_no_shard():
    async with cluster("a") as here:
        idle = await here.start("b")
        assert idle.shards == []
        [told] = (await idle.ask(status()))[2]
        assert told["shards"] == []


async def test_a_shard_moves_with_all_that_it_knows():
    async with cluster("a", "b") as here:
        await receive(here)
        once = reserve(NEAR, request_id="once")
        first = await here.ask(once)
        owner, to = here[here.owners()[FEED]], here[other(here, FEED)]
        told: list[str] = []
        owner.host.on_route_changed = lambda: told.append("left")
        to.host.on_route_changed = lambda: told.append("came")
        epoch = await to.host.move_here(FEED, owner.host.route.endpoint)
        assert here.owners()[FEED] == to.host_id
        assert told == ["left", "came"]
        assert dict(zip(to.host.route.shards, to.host.route.epochs, strict=True))[FEED] == epoch
        assert (await owner.ask(availability(NEAR)))[1] == ErrorReason.WRONG_OWNER
        again = await here.ask(once)
        assert (again[0], again[1], again[2][0]) == (OK, True, first[2][0])
        assert (await here.ask(release(NEAR, first[2][0])))[0] == OK
        assert await available(here) == 10
        assert not owner.ends
        assert not to.ends


async def test_a_shard_goes_there_and_back_many_times_under_traffic(seed):
    async with cluster("a", "b") as here:
        await receive(here, 100_000)
        granted = 0
        over = asyncio.Event()

        async def buy() -> None:
            nonlocal granted
            while not over.is_set():
                reply = await here.ask(reserve(NEAR))
                assert reply[0] == OK, reply
                granted += 1

        buyers = [asyncio.create_task(buy()) for _ in range(4)]
        for _ in range(20):
            owner, to = here[here.owners()[FEED]], here[other(here, FEED)]
            await to.host.move_here(FEED, owner.host.route.endpoint)
        over.set()
        await asyncio.gather(*buyers)
        assert granted > 20
        assert await available(here) == 100_000 - granted


async def test_holds_expire_at_the_new_owner():
    async with cluster("a", "b", rules=Rules(takeover_grace_ms=0)) as here:
        await receive(here)
        await here.ask(reserve(NEAR, ttl_ms=400))
        owner, to = here[here.owners()[FEED]], here[other(here, FEED)]
        await to.host.move_here(FEED, owner.host.route.endpoint)
        assert await available(here) == 9
        actor = to.host.engine.books.stock[key_of(NEAR)]
        await until(lambda: actor.held == 0)
        assert await available(here) == 10


async def test_what_waited_at_the_owner_is_answered_and_may_be_sent_again():
    async with cluster("a", "b") as here:
        await receive(here)
        owner, to = here[here.owners()[FEED]], here[other(here, FEED)]
        owner.hold.hold()
        begun = owner.hold.begun
        decided = owner.gateway.send(reserve(NEAR, request_id="decided"))
        await until(lambda: owner.hold.begun > begun)
        applied = owner.gateway.send(reserve(NEAR, request_id="applied"))
        await owner.gateway.settled()
        moving = asyncio.create_task(to.host.move_here(FEED, owner.host.route.endpoint))
        await until(lambda: to.host._moves.moving)
        queued = owner.gateway.send(reserve(NEAR, request_id="queued"))
        await owner.gateway.settled()
        owner.hold.let_go()
        await moving
        assert (await owner.gateway.answer(decided))[0][0] == OK
        assert (await owner.gateway.answer(applied))[0][0] == OK
        [reply] = await owner.gateway.answer(queued)
        assert reply[0] == OK or reply[1] == ErrorReason.WRONG_OWNER
        assert (await here.ask(reserve(NEAR, request_id="queued")))[0] == OK
        assert await available(here) == 7


async def test_a_dead_hosts_shards_are_adopted():
    async with cluster("a", "b", "c") as here:
        await receive(here)
        first = await here.ask(reserve(NEAR, request_id="once"))
        dead = here[here.owners()[FEED]]
        lost = dead.shards
        dead.ends.append((1, "killed"))
        heirs = [member for member in here.members.values() if member is not dead]
        half = len(lost) // 2
        got = await heirs[0].host.adopt(lost[:half])
        got |= await heirs[1].host.adopt(lost[half:])
        assert sorted(got) == sorted(lost)
        assert len(here.owners()) == SHARDS
        again = await here.ask(reserve(NEAR, request_id="once"))
        assert again[2][0] == first[2][0]
        assert await available(here) == 9


async def test_a_former_owner_that_still_lives_is_fenced_and_ends_unheard():
    async with cluster("a", "b") as here:
        await receive(here)
        former = here[here.owners()[FEED]]
        heir = here[other(here, FEED)]
        former.hold.hold()  # as a paused process: its answers are still to come
        begun = former.hold.begun
        claimed = former.gateway.send(reserve(NEAR, request_id="too late"))
        await until(lambda: former.hold.begun > begun)
        read = former.gateway.send(availability(NEAR))
        lost = former.shards
        await heir.host.adopt(lost)
        assert (await heir.ask(reserve(NEAR)))[0] == OK
        former.hold.let_go()
        await until(lambda: bool(former.ends))
        assert [code for code, _ in former.ends] == [EXIT_FENCED]
        assert claimed not in former.gateway.answers
        assert read not in former.gateway.answers
        assert await available(here) == 9


async def test_a_former_owner_answers_no_read():
    async with cluster("a", "b") as here:
        await receive(here)
        former, heir = here[here.owners()[FEED]], here[other(here, FEED)]
        await heir.host.adopt(former.shards)
        read = former.gateway.send(availability(NEAR))
        await until(lambda: bool(former.ends))
        assert read not in former.gateway.answers


async def test_a_shard_taken_by_another_since_is_not_adopted_again():
    async with cluster("a", "b", "c") as here:
        dead = here[here.owners()[FEED]]
        known = dict(zip(dead.host.route.shards, dead.host.route.epochs, strict=True))
        dead.ends.append((1, "killed"))
        first, second = (member for member in here.members.values() if member is not dead)
        assert (await first.host.adopt(known)).keys() == known.keys()
        assert await second.host.adopt(known) == {}
        assert (await first.ask(availability(NEAR)))[0] == OK
        assert not first.ends


async def test_a_shard_that_another_takes_over_at_the_very_same_time_is_left_to_it(monkeypatch):
    async with cluster("a", "b") as here:
        dead, heir = here[here.owners()[FEED]], here[other(here, FEED)]
        lost = dead.shards
        dead.ends.append((1, "killed"))
        take_over = HeldJournal.take_over

        def raced(journal: HeldJournal, shards: list[int]) -> dict[int, ShardHead]:
            if FEED in shards:
                raise Fenced(f"shard {FEED} was taken over by another host")
            return take_over(journal, shards)

        monkeypatch.setattr(HeldJournal, "take_over", raced)
        got = await heir.host.adopt(lost)
        assert sorted(got) == [shard for shard in lost if shard != FEED]
        assert not heir.ends


async def test_a_shard_that_nobody_takes_over_is_taken_back():
    async with cluster("a", "b", seal_ms_max=100) as here:
        await receive(here)
        owner = here[here.owners()[FEED]]
        before = owner.host.route.epochs[owner.host.route.shards.index(FEED)]
        reply = await owner.ask([103, -1, 0, 1, [], [FEED, "nobody"]])
        assert reply[0] == OK
        assert FEED not in owner.host.engine.books.shards
        await until(lambda: FEED in owner.host.engine.books.shards)
        assert owner.host.route.epochs[owner.host.route.shards.index(FEED)] == before + 1
        assert (await here.ask(reserve(NEAR)))[0] == OK
        assert await available(here) == 9


async def test_only_one_host_at_a_time_is_given_a_shard():
    async with cluster("a", "b") as here:
        owner = here[here.owners()[FEED]]
        assert (await owner.ask([103, -1, 0, 1, [], [FEED, "x"]]))[0] == OK
        assert (await owner.ask([103, -1, 0, 1, [], [FEED, "y"]]))[1] == ErrorReason.WRONG_OWNER
        assert (await owner.ask([103, -1, 0, 1, [], [FEED, "x"]]))[0] == OK
        assert (await owner.ask([103, -1, 0, 1, [], ["x"]]))[1] == ErrorReason.INVALID_FIELD
        assert (await owner.ask([104, -1, 0, 1, [], [FEED]]))[0] == OK
        assert FEED in owner.shards


async def test_a_move_that_finds_the_owner_silent_changes_nothing():
    async with cluster("a", "b") as here:
        await receive(here)
        to = here[other(here, FEED)]
        with pytest.raises(MoveFailed):
            await to.host.move_here(FEED, "127.0.0.1:9")
        assert await available(here) == 10


async def test_a_move_that_fails_after_the_owner_let_go_gives_the_shard_back():
    async with cluster("a", "b") as here:
        await receive(here)
        owner, to = here[here.owners()[FEED]], here[other(here, FEED)]
        here.store.faults.full = True
        moving = asyncio.create_task(to.host.move_here(FEED, owner.host.route.endpoint))
        with pytest.raises(MoveFailed):
            await moving
        here.store.faults.full = False
        await until(lambda: FEED in owner.host.engine.books.shards)
        assert await available(here) == 10


async def test_who_moved_a_shard_and_died_is_succeeded_from_the_journal():
    async with cluster("a", "b", "c") as here:
        await receive(here)
        owner, to = here[here.owners()[FEED]], here[other(here, FEED)]
        await to.host.move_here(FEED, owner.host.route.endpoint)
        to.ends.append((1, "killed"))
        await owner.host.adopt(to.shards)
        reply = await here.ask(reserve(NEAR, 20))
        assert reply[0] == REFUSED
        assert reply[2][0] == RefusalReason.INSUFFICIENT_STOCK
        assert await available(here) == 10


async def test_stock_of_other_shards_is_not_disturbed_by_a_move():
    async with cluster("a", "b") as here:
        owner, to = here[here.owners()[FEED]], here[other(here, FEED)]
        stays = [shard for shard in owner.shards if shard != FEED]
        before = dict(zip(owner.host.route.shards, owner.host.route.epochs, strict=True))
        await to.host.move_here(FEED, owner.host.route.endpoint)
        assert owner.shards == stays
        after = dict(zip(owner.host.route.shards, owner.host.route.epochs, strict=True))
        assert after == {shard: before[shard] for shard in stays}
        assert shard_of(key_of(NEAR), SHARDS) == FEED


async def test_who_asks_again_while_the_journal_is_slow_does_not_end_the_owner():
    """Two turns wait for the journal, so that the shard cannot leave yet when it is asked for again."""
    async with cluster("a", "b") as here:
        await receive(here)
        owner = here[here.owners()[FEED]]
        owner.hold.hold()
        begun = owner.hold.begun
        owner.gateway.send(reserve(NEAR, request_id="decided"))
        await until(lambda: owner.hold.begun > begun)
        owner.gateway.send(reserve(NEAR, request_id="applied"))
        await owner.gateway.settled()
        seal = [int(Verb.SEAL_SHARDS), ANY_SHARD, 0, 1, [], [FEED, other(here, FEED)]]
        asked = [owner.gateway.send(list(seal)) for _ in range(3)]
        await owner.gateway.settled()
        owner.hold.let_go()
        replies = [(await owner.gateway.answer(one))[0] for one in asked]
        assert owner.ends == []
        assert [reply[0] for reply in replies] == [OK, OK, OK]
        assert replies[0] == replies[1] == replies[2]
        await until(lambda: FEED in owner.shards)  # nobody took it over
