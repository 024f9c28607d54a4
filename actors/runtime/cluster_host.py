"""A shard host that is a member of a cluster: it starts with no shard, gets them from the living or the dead, gives them
away before it stops.

Puts together the host (``actors.shard.host``) and its membership; decides nothing itself.
Knows no Ray: the actor (``shard_host``) and tests with plain processes start it alike.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from actors.runtime.membership import Beating, Membership, MovingHost
from actors.shard.directory import HostRoute

__all__ = ["ClusterHost", "MemberHost"]

log = logging.getLogger(__name__)


class MemberHost(MovingHost, Protocol):
    """A shard host that can come and go (``actors.shard.host.ShardHost``). ``on_route_changed``: called when its shards
    change."""

    on_route_changed: Callable[[], None]

    def start(self) -> Awaitable[HostRoute]: ...

    def stop(self, drain_s: float = 10.0) -> Awaitable[None]: ...


class ClusterHost:
    """See the module's docstring. ``host`` is configured to start with no shard."""

    def __init__(self, host: MemberHost, directory: Beating, node_id: str, heartbeat_s: float) -> None:
        self.host = host
        self._membership = Membership(host, directory, node_id, heartbeat_s)

    async def start(self) -> HostRoute:
        """Open the journal, listen, join. Raises ``JournalError`` and says why."""
        route = await self.host.start()
        self.host.on_route_changed = self._membership.tell
        self._membership.start()
        return route

    async def close(self, drain_s: float) -> None:
        """Give the shards away while others can take them, then close; what is left is adopted from the journal."""
        emptied = await self._membership.drain(drain_s)
        if not emptied and self.host.route.shards:
            log.warning("closing with shards %s: others adopt them", self.host.route.shards)
        await self.host.stop(drain_s)
        await self._membership.leave()
