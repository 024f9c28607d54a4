"""A shard host that is a member of a cluster: it starts with no shard, gets them from the living or the dead, gives them
away before it stops.

Puts together the host (``actors.shard.host``), its membership and its view of the other hosts; decides nothing itself.
Knows no Ray: the actor (``shard_host``) and tests with plain processes start it alike.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from actors.runtime.cluster_directory import HostReport, HostWishes
from actors.runtime.membership import Membership, MovingHost
from actors.shard.directory import HostRoute, Routes

__all__ = ["ClusterHost", "MemberHost"]

ROUTES_PAUSE_S = 0.2  # after a question that had no answer

log = logging.getLogger(__name__)


class Directory(Protocol):
    """What a host asks of a directory."""

    def beat(self, report: HostReport) -> Awaitable[HostWishes]: ...

    def routes(self, after_version: int) -> Awaitable[Routes]: ...


class MemberHost(MovingHost, Protocol):
    """A shard host that can come and go (``actors.shard.host.ShardHost``). ``on_route_changed``: called when its shards
    change."""

    on_route_changed: Callable[[], None]

    def set_routes(self, routes: Routes) -> None: ...

    def start(self) -> Awaitable[HostRoute]: ...

    def stop(self, drain_s: float = 10.0) -> Awaitable[None]: ...


class ClusterHost:
    """See the module's docstring. ``host`` is configured to start with no shard."""

    def __init__(self, host: MemberHost, directory: Directory, node_id: str, heartbeat_s: float) -> None:
        self.host = host
        self._directory = directory
        self._membership = Membership(host, directory, node_id, heartbeat_s)
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> HostRoute:
        """Open the journal, listen, join. Raises ``JournalError`` and says why."""
        route = await self.host.start()
        self.host.on_route_changed = self._membership.tell
        self._following = asyncio.get_running_loop().create_task(self._follow_routes())
        self._membership.start()
        return route

    async def close(self, drain_s: float) -> None:
        """Give the shards away while others can take them, then close; what is left is adopted from the journal."""
        emptied = await self._membership.drain(drain_s)
        if not emptied and self.host.route.shards:
            log.warning("closing with shards %s: others adopt them", self.host.route.shards)
        if self._following is not None:
            self._following.cancel()
        await self.host.stop(drain_s)
        await self._membership.leave()

    async def _follow_routes(self) -> None:
        """Keep the host's view of the others. A directory that is away changes nothing."""
        version = 0
        while True:
            try:
                routes = await self._directory.routes(version)
            except Exception:  # whatever it is, membership complains of it
                await asyncio.sleep(ROUTES_PAUSE_S)
                continue
            if routes.version != version:
                version = routes.version
                self.host.set_routes(routes)
