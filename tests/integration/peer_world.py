"""Several shard hosts on real sockets over one journal in memory, each with some of the shards, and a directory between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from actors.domain.rules import Rules
from actors.journal.memory import MemoryJournal, memory_store
from actors.journal.verify import verify
from actors.shard.directory import HostRoute
from actors.shard.host import ShardHost
from actors.shard.host_config import HostConfig
from actors.shard.placement import PLACEMENT_VERSION
from tests.integration.gateway_world import FakeDirectory
from tests.integration.host_world import CLUSTER, SHARDS, TIMELINE, TOKEN, Gateway, HeldJournal, Hold, now_ms, until

FIRST, SECOND = tuple(range(SHARDS // 2)), tuple(range(SHARDS // 2, SHARDS))


class Peers:
    """Hosts by name. ``ends``: how processes would have ended."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.store = memory_store(CLUSTER, TIMELINE, SHARDS, PLACEMENT_VERSION, now_ms())
        self.directory = FakeDirectory()
        self.hosts: dict[str, ShardHost] = {}
        self.holds: dict[str, Hold] = {}
        self.ends: list[tuple[int, str]] = []
        self._rules = rules or Rules()
        self._gateways: list[Gateway] = []

    async def start(self, name: str, shards: Sequence[int], **settings: Any) -> ShardHost:
        """A host takes these shards over, whoever had them."""
        config = HostConfig(name, TOKEN, shards=tuple(shards), peer_beat_ms=20, **settings)
        hold = self.holds[name] = Hold()
        host = ShardHost(
            config,
            lambda: HeldJournal(self.store, hold),
            self._rules,
            end_process=lambda code, reason: self.ends.append((code, reason)),
            own_process=False,
            directory=self.directory,
        )
        await host.start()
        self.hosts[name] = host
        self._publish()
        return host

    def _publish(self) -> None:
        routes = [host.route for host in self.hosts.values()]
        self.directory.set(*(HostRoute(*route) for route in routes))

    async def kill(self, name: str) -> None:
        """The process is gone: nothing of it leaves any more, and its links break."""
        host = self.hosts.pop(name)
        self.holds[name].let_go()
        host.ended = True
        host._server.close()
        for link in list(host._links):
            if link._transport is not None:
                link._transport.abort()
        await host.peers.stop()
        host._thread.stop()

    async def linked(self) -> None:
        """Wait until every host has a link to every other."""
        others = len(self.hosts) - 1
        await until(lambda: all(len(host.peers.links.up()) == others for host in self.hosts.values()))  # type: ignore[union-attr]

    async def gateway(self, name: str, hello: bytes | None = None) -> Gateway:
        gateway = await Gateway().connect(self.hosts[name].route.endpoint, hello)
        self._gateways.append(gateway)
        await gateway.until(lambda: gateway.welcome is not None)
        return gateway

    async def at_rest(self) -> None:
        """Wait until no errand is open anywhere."""
        await until(lambda: all(host.peers.courier.open == 0 and host.quiet for host in self.hosts.values()))

    def judge(self) -> None:
        """What the journal says, apart from the code that wrote it."""
        report = verify(MemoryJournal(self.store))
        assert not report.violations, report.violations[:3]
        assert report.errands_open == 0
        assert self.ends == []

    async def close(self) -> None:
        for hold in self.holds.values():
            hold.let_go()
        for gateway in self._gateways:
            await gateway.close()
        for host in self.hosts.values():
            await host.stop(1.0)


@contextlib.asynccontextmanager
async def peers(rules: Rules | None = None) -> AsyncIterator[Peers]:
    """Two hosts, ``a`` with the first half of the shards and ``b`` with the other, linked; everything is stopped at the end."""
    world = Peers(rules)
    try:
        await world.start("a", FIRST)
        await world.start("b", SECOND)
        await world.linked()
        yield world
    finally:
        await asyncio.shield(world.close())
