"""The directory of a cluster: the shards of the dead go to the living, those of the living move one at a time, and nobody
is told two things at once. Hosts here are only what they say; time is an input."""

from __future__ import annotations

from typing import Any

import pytest

from actors.runtime.cluster_directory import ClusterDirectory, DirectoryTimes, HostReport, HostWishes

SHARDS = 48
TIMES = DirectoryTimes(heartbeat_s=0.0, dead_after_s=2.5, placement_interval_s=1.0)


class Host:
    """What a host says; it does at once what it is asked to adopt, when told to ``obey``."""

    def __init__(self, world: World, name: str, pid: int = 1) -> None:
        self.world = world
        self.name = name
        self.pid = pid
        self.state = "serving"
        self.started_ms = pid
        self.shards: dict[int, int] = {}
        self.moving: tuple[int, ...] = ()
        self.wishes = HostWishes()

    async def beat(self, *, obey: bool = True) -> HostWishes:
        self.wishes = await self.world.directory.beat(self.report())
        if obey and self.wishes.adopt:
            for shard in self.wishes.adopt:
                self.world.own(self, shard)
            self.wishes = await self.world.directory.beat(self.report())
        return self.wishes

    def report(self) -> HostReport:
        shards = tuple(sorted(self.shards))
        return HostReport(
            self.name, f"node of {self.name}", f"{self.name}:1", self.pid, self.started_ms, self.state, shards,
            tuple(self.shards[shard] for shard in shards), {}, self.world.wall_ms, "cluster", "timeline", SHARDS, self.moving,
        )  # fmt: skip


class World:
    """A directory, its hosts, the time, and the journal's epochs."""

    def __init__(self) -> None:
        self.now = 100.0
        self.wall_ms = 1_000_000
        self.epochs = dict.fromkeys(range(SHARDS), 0)
        self.directory = self.new_directory()

    def new_directory(self) -> ClusterDirectory:
        return ClusterDirectory(TIMES, now=lambda: self.now, wall_ms=lambda: self.wall_ms)

    def own(self, host: Host, shard: int) -> None:
        """The journal's bump: the host has the shard from here on."""
        self.epochs[shard] += 1
        host.shards[shard] = self.epochs[shard]

    async def pass_by(self, seconds: float, *hosts: Host) -> None:
        """Time passes; only these hosts beat."""
        for _ in range(round(seconds / 0.5)):
            self.now += 0.5
            for host in hosts:
                await host.beat()
            await self.directory.look()

    async def settled(self, *names: str) -> list[Host]:
        """Hosts that share all shards."""
        hosts = [Host(self, name) for name in names]
        await self.pass_by(4.0, *hosts)
        assert sorted(shard for host in hosts for shard in host.shards) == list(range(SHARDS))
        return hosts

    def named(self) -> dict[str, Any]:
        return {host["host_id"]: host for host in self.directory.overview()["hosts"]}


@pytest.fixture
def world() -> World:
    return World()


async def test_who_joins_first_waits_for_the_others_and_then_all_share(world: World) -> None:
    first, second = Host(world, "a"), Host(world, "b")
    assert (await first.beat()).adopt == ()
    await world.pass_by(2.0, first, second)
    assert not first.shards
    await world.pass_by(2.0, first, second)
    assert {len(first.shards), len(second.shards)} == {SHARDS // 2}
    routes = await world.directory.routes(0)
    assert sorted(shard for host in routes.hosts for shard in host.shards) == list(range(SHARDS))


async def test_a_silent_hosts_shards_are_adopted_by_the_living_after_its_time(world: World) -> None:
    silent, living = await world.settled("a", "b")
    await world.pass_by(2.5, living)
    assert len(living.shards) == SHARDS // 2
    await world.pass_by(1.0, living)
    assert sorted(living.shards) == list(range(SHARDS))
    assert world.named()["a"]["state"] == "dead"
    assert silent.shards


async def test_a_host_that_is_reported_dead_is_not_waited_for(world: World) -> None:
    dead, living = await world.settled("a", "b")
    await world.directory.host_died("a", dead.pid + 1)  # not that process
    assert (await living.beat(obey=False)).adopt == ()
    await world.directory.host_died("a", dead.pid)
    assert set((await living.beat(obey=False)).adopt) == set(dead.shards)


async def test_a_host_that_was_paused_is_not_heard_for_the_shards_it_lost(world: World) -> None:
    paused, living = await world.settled("a", "b")
    await world.pass_by(4.0, living)
    await paused.beat(obey=False)
    owners = {shard: host.host_id for host in (await world.directory.routes(0)).hosts for shard in host.shards}
    assert set(owners.values()) == {"b"}


async def test_a_former_process_of_the_same_name_is_not_heard(world: World) -> None:
    old, _ = await world.settled("a", "b")
    new = Host(world, "a", pid=2)
    await new.beat(obey=False)
    assert (await old.beat(obey=False)) == HostWishes()
    assert world.named()["a"]["pid"] == 2


async def test_who_joins_gets_its_share_one_shard_at_a_time(world: World) -> None:
    hosts = await world.settled("a", "b")
    joined = Host(world, "c")
    moves = 0
    for _ in range(120):
        world.now += 0.5
        for host in (*hosts, joined):
            wishes = await host.beat()
            assert len(wishes.take) <= 1
            for shard, owner, endpoint in wishes.take:
                assert host is joined
                assert endpoint == f"{owner}:1"
                source = next(one for one in hosts if one.name == owner)
                world.own(joined, shard)
                del source.shards[shard]
                moves += 1
    assert moves == 16
    assert sorted(len(host.shards) for host in (*hosts, joined)) == [16, 16, 16]
    assert world.directory.overview()["moved"] == 16


async def test_a_shard_on_its_way_is_not_adopted_while_its_new_host_goes_on_with_it(world: World) -> None:
    source, target, third = await world.settled("a", "b", "c")
    shard = min(source.shards)
    assert await world.directory.move_to(shard, "b")
    assert (await target.beat()).take == ((shard, "a", "a:1"),)
    target.moving = (shard,)
    del source.shards[shard]  # given up, and the new host has not said that it has it
    for _ in range(10):
        world.now += 0.5
        for host in (source, target, third):
            assert (await host.beat()).adopt == ()
    world.own(target, shard)
    target.moving = ()
    await target.beat()
    assert world.directory.overview()["moved"] == 1


async def test_a_shard_that_neither_has_after_a_move_is_adopted(world: World) -> None:
    source, target, third = await world.settled("a", "b", "c")
    shard = min(source.shards)
    await world.directory.move_to(shard, "b")
    await target.beat()
    del source.shards[shard]
    await world.pass_by(4.0, source, target, third)
    assert sum(shard in host.shards for host in (source, target, third)) == 1


async def test_the_target_of_a_move_dies_and_the_shard_stays_where_it_is(world: World) -> None:
    source, target, third = await world.settled("a", "b", "c")
    shard = min(source.shards)
    await world.directory.move_to(shard, "b")
    await world.directory.host_died("b", target.pid)
    await source.beat()
    await third.beat()
    assert world.directory.overview()["move"] == []
    assert shard in source.shards


async def test_a_draining_host_gives_everything_away_and_gets_nothing(world: World) -> None:
    hosts = await world.settled("a", "b", "c")
    drained = hosts[0]
    assert await world.directory.drain("a")
    assert not await world.directory.drain("nobody")
    for _ in range(40):
        world.now += 0.1
        for host in hosts:
            wishes = await host.beat()
            assert wishes.drain == (host is drained)
            assert not (host is drained and (wishes.adopt or wishes.take))
            for shard, owner, _ in wishes.take:
                world.own(host, shard)
                del next(one for one in hosts if one.name == owner).shards[shard]
    assert not drained.shards
    assert drained.wishes.others == 2


async def test_a_host_that_leaves_is_not_waited_for(world: World) -> None:
    leaving, living = await world.settled("a", "b")
    leaving.state = "leaving"
    assert await leaving.beat() == HostWishes()
    await living.beat()
    assert sorted(living.shards) == list(range(SHARDS))


async def test_a_directory_that_comes_back_empty_hears_everybody_out_and_moves_nothing(world: World) -> None:
    hosts = await world.settled("a", "b", "c")
    before = [dict(host.shards) for host in hosts]
    world.directory = world.new_directory()
    await world.pass_by(6.0, *hosts)
    assert [host.shards for host in hosts] == before
    assert world.directory.overview()["adopted"] == 0


async def test_a_host_that_died_with_the_directory_is_missed_by_the_next_one(world: World) -> None:
    dead, living = await world.settled("a", "b")
    world.directory = world.new_directory()
    await world.pass_by(4.0, living)
    assert sorted(living.shards) == list(range(SHARDS))
    assert dead.shards


async def test_two_hosts_are_never_asked_for_one_shard(world: World) -> None:
    dead, slow, other = await world.settled("a", "b", "c")
    await world.directory.host_died("a", dead.pid)
    asked = set((await slow.beat(obey=False)).adopt)
    for _ in range(10):
        world.now += 0.5
        assert not asked & set((await other.beat()).adopt)
        await slow.beat(obey=False)
    await world.directory.host_died("b", slow.pid)
    await other.beat()
    assert sorted(other.shards) == list(range(SHARDS))


async def test_clock_skew_is_measured_against_the_directory(world: World) -> None:
    ahead = Host(world, "a")
    world.wall_ms += 700
    report = ahead.report()
    world.wall_ms -= 700
    await world.directory.beat(report)
    assert world.named()["a"]["clock_skew_ms"] == 700


async def test_a_host_of_another_cluster_is_refused_by_name(world: World) -> None:
    await world.settled("a", "b")
    stranger = Host(world, "x")
    report = stranger.report()._replace(cluster_id="another")
    with pytest.raises(ValueError, match="cluster another"):
        await world.directory.beat(report)
