"""The directory actor: which host runs which shard, at which endpoint and epoch, for gateways that poll it long.

Holds nothing that hosts do not tell it again every few seconds, so it may die at any time and come back empty; no request
waits for it. A route whose host stays silent is kept: only another host that names the same shards at higher epochs takes
them over, because a wrong route costs a retry and no route costs an outage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from actors.runtime.actor_process import run_in_thread
from actors.runtime.plan import DIRECTORY, NodePlan
from actors.shard.directory import HostRoute, Routes

__all__ = ["DirectoryActor", "InProcessDirectory", "RouteTable"]

POLL_S_MAX = 10.0  # a long poll is answered after this long at the latest
IDLE_ENTRY_POINT = "actors.runtime.directory:start_idle"


class RouteTable:
    """The map itself. Synchronous; ``version`` grows with every change."""

    def __init__(self) -> None:
        self._routes = Routes(version=0, cluster_id="", timeline="", shard_count=0, hosts=())

    @property
    def routes(self) -> Routes:
        return self._routes

    def register(self, host: HostRoute, cluster_id: str, timeline: str, shard_count: int) -> bool:
        """Take a host's word for its shards; True when the map changed. Another cluster's host is refused (ValueError)."""
        routes = self._routes
        if routes.cluster_id and routes.cluster_id != cluster_id:
            raise ValueError(f"host {host.host_id} is of cluster {cluster_id}, this directory serves {routes.cluster_id}")
        others = tuple(
            kept for kept in (without_taken(other, host) for other in routes.hosts if other.host_id != host.host_id) if kept.shards
        )
        hosts = tuple(sorted((*others, host)))
        if (hosts, timeline, shard_count) == (routes.hosts, routes.timeline, routes.shard_count):
            return False
        self._routes = Routes(routes.version + 1, cluster_id, timeline, shard_count, hosts)
        return True


def without_taken(other: HostRoute, taker: HostRoute) -> HostRoute:
    """``other`` without the shards that ``taker`` runs at the same or a higher epoch."""
    taken = dict(zip(taker.shards, taker.epochs, strict=True))
    kept = [(shard, epoch) for shard, epoch in zip(other.shards, other.epochs, strict=True) if taken.get(shard, -1) < epoch]
    return other._replace(shards=tuple(shard for shard, _ in kept), epochs=tuple(epoch for _, epoch in kept))


class InProcessDirectory:
    """The directory without Ray: the same table behind the same port, for nodes in one process and inside the actor."""

    def __init__(self) -> None:
        self._table = RouteTable()
        self._changed = asyncio.Condition()

    async def register(self, host: HostRoute, cluster_id: str, timeline: str, shard_count: int) -> None:
        async with self._changed:
            if self._table.register(host, cluster_id, timeline, shard_count):
                self._changed.notify_all()

    async def routes(self, after_version: int) -> Routes:
        """The map as soon as its version is not ``after_version`` (0: at once), at the latest after 10 s."""
        async with self._changed:
            if after_version:
                try:
                    async with asyncio.timeout(POLL_S_MAX):
                        await self._changed.wait_for(lambda: self._table.routes.version != after_version)
                except TimeoutError:
                    pass
            return self._table.routes


class DirectoryActor:
    """The Ray actor. Its methods run in Ray's own loop; the link has its thread like every process of the node."""

    def __init__(self, plan: NodePlan) -> None:
        self._directory = InProcessDirectory()
        run_in_thread(plan, DIRECTORY, IDLE_ENTRY_POINT, None)

    async def register(self, host: Sequence[Any], cluster_id: str, timeline: str, shard_count: int) -> None:
        await self._directory.register(HostRoute(*host), cluster_id, timeline, shard_count)

    async def routes(self, after_version: int) -> Routes:
        return await self._directory.routes(after_version)


class Idle:
    """The directory's service in its link's eyes: there, with nothing to close."""

    def facts(self) -> dict[str, Any]:
        return {}

    async def wait_failed(self) -> BaseException:
        return await asyncio.Future()

    async def close(self, drain_ms: int) -> None:
        return None


async def start_idle(plan: NodePlan, role: str, activation: Any, directory: Any) -> Idle:
    return Idle()
