"""The way to a cluster's directory: answers find their questions, long polls hold nobody up, a directory that comes back is
found again, a stranger gets nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.runtime.cluster_directory import ClusterDirectory, DirectoryTimes, HostReport, HostWishes
from actors.runtime.directory_server import DirectoryLink, DirectoryRefused, DirectoryServer, DirectoryUnreachable

TIMES = DirectoryTimes(heartbeat_s=0.05, dead_after_s=0.3, placement_interval_s=0.1)
REPORT = HostReport(
    "a", "node", "127.0.0.1:5", 7, 1, "serving", (0, 1), (3, 4), {0: 10}, 5, "cluster", "timeline", 2, (1,)
)


@asynccontextmanager
async def serving(port: int = 0) -> AsyncIterator[DirectoryServer]:
    directory = ClusterDirectory(TIMES)
    server = DirectoryServer(directory, "secret")
    await server.start("127.0.0.1", port)
    directory.start()
    try:
        yield server
    finally:
        directory.close()
        server.close()


async def test_what_a_host_tells_is_what_a_gateway_hears() -> None:
    async with serving() as server:
        host, gateway = (DirectoryLink(f"127.0.0.1:{server.port}", "secret", name) for name in ("host", "gateway"))
        asked = asyncio.create_task(gateway.routes(0))
        assert await host.beat(REPORT) == HostWishes()
        routes = await asked
        assert (routes.cluster_id, routes.timeline, routes.shard_count) == ("cluster", "timeline", 2)
        assert [tuple(one) for one in routes.hosts] == [("a", "127.0.0.1:5", 7, (0, 1), (3, 4))]
        later = asyncio.create_task(gateway.routes(routes.version))
        assert (await gateway.overview())["hosts"][0]["host_id"] == "a"  # a poll under way holds nobody up
        assert not later.done()
        await host.beat(REPORT._replace(shards=(0,), epochs=(3,)))
        assert (await later).hosts[0].shards == (0,)
        host.close()
        gateway.close()


async def test_wishes_travel_whole() -> None:
    async with serving() as server:
        link = DirectoryLink(f"127.0.0.1:{server.port}", "secret", "host")
        lonely = REPORT._replace(shards=(), epochs=(), moving=())
        async with asyncio.timeout(10):
            while not (wishes := await link.beat(lonely)).adopt:
                pass
        assert wishes == HostWishes((0, 1), (), False, 0)
        link.close()


async def test_a_directory_that_comes_back_at_its_address_is_found_again() -> None:
    async with serving() as server:
        port = server.port
        link = DirectoryLink(f"127.0.0.1:{port}", "secret", "host")
        await link.beat(REPORT)
    with pytest.raises(DirectoryUnreachable):
        await link.beat(REPORT)
    async with serving(port), asyncio.timeout(10):
        while True:
            try:
                await link.beat(REPORT)
                break
            except DirectoryUnreachable:
                continue
        assert (await link.routes(0)).hosts[0].host_id == "a"
    link.close()


async def test_a_stranger_gets_no_answer() -> None:
    async with serving() as server:
        stranger = DirectoryLink(f"127.0.0.1:{server.port}", "guessed", "stranger")
        with pytest.raises(DirectoryUnreachable):
            await stranger.overview()
        stranger.close()


async def test_a_no_is_told_apart_from_silence() -> None:
    async with serving() as server:
        link = DirectoryLink(f"127.0.0.1:{server.port}", "secret", "host")
        await link.beat(REPORT)
        with pytest.raises(DirectoryRefused, match="cluster another"):
            await link.beat(REPORT._replace(host_id="b", cluster_id="another"))
        link.close()
