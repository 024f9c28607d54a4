"""The directory: hosts tell it, gateways poll it, forgetting costs nothing."""

from __future__ import annotations

import asyncio

import pytest

from actors.runtime.directory import InProcessDirectory, RouteTable
from actors.shard.directory import HostRoute


def route(host_id: str, shards: tuple[int, ...], epoch: int, pid: int = 1) -> HostRoute:
    return HostRoute(host_id, "127.0.0.1:1", pid, shards, tuple(epoch for _ in shards))


def test_every_change_makes_a_new_version_and_repetition_none() -> None:
    table = RouteTable(first_version=100)
    assert table.register(route("a", (0, 1), 1), "c", "t", 64)
    assert table.routes.version == 101
    assert not table.register(route("a", (0, 1), 1), "c", "t", 64)
    assert table.register(route("a", (0, 1), 2, pid=2), "c", "t", 64)
    assert table.routes.version == 102


def test_a_new_owner_takes_its_shards_from_the_former_one() -> None:
    table = RouteTable(first_version=0)
    table.register(route("a", (0, 1, 2), 1), "c", "t", 64)
    table.register(route("b", (1,), 2), "c", "t", 64)
    assert {host.host_id: host.shards for host in table.routes.hosts} == {"a": (0, 2), "b": (1,)}


def test_a_former_owner_is_not_heard() -> None:
    table = RouteTable(first_version=0)
    table.register(route("a", (0,), 5), "c", "t", 64)
    assert not table.register(route("b", (0,), 4), "c", "t", 64)
    assert [host.host_id for host in table.routes.hosts] == ["a"]


def test_a_host_of_another_cluster_is_refused() -> None:
    table = RouteTable(first_version=0)
    table.register(route("a", (0,), 1), "c", "t", 64)
    with pytest.raises(ValueError, match="cluster"):
        table.register(route("b", (0,), 2), "other", "t", 64)


async def test_who_asks_before_any_host_spoke_waits_for_the_first() -> None:
    directory = InProcessDirectory(first_version=0)
    asked = asyncio.create_task(directory.routes(0))
    await asyncio.sleep(0)
    assert not asked.done()
    await directory.register(route("a", (0,), 1), "c", "t", 64)
    assert [host.host_id for host in (await asked).hosts] == ["a"]


async def test_who_knows_a_version_hears_of_the_next_one() -> None:
    directory = InProcessDirectory(first_version=0)
    await directory.register(route("a", (0,), 1), "c", "t", 64)
    known = await directory.routes(0)
    asked = asyncio.create_task(directory.routes(known.version))
    await asyncio.sleep(0)
    assert not asked.done()
    await directory.register(route("a", (0,), 2), "c", "t", 64)
    assert (await asked).hosts[0].epochs == (2,)
