"""The directory actor: which host runs which shard, at which endpoint and epoch, for gateways that poll it long.

Holds nothing that hosts do not tell it again every few seconds, so it may die at any time and come back empty; no
request waits for it. A route whose host stays silent is kept: only another host that names the same shards at higher
epochs takes them over, because a wrong route costs a retry and no route costs an outage. For the same reason it never
answers with an empty map: who asks before any host has spoken waits, and keeps what it knew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from actors.runtime.actor_process import Start, run_in_thread
from actors.runtime.plan import DIRECTORY, NodePlan
from actors.shard.directory import HostRoute, Routes

__all__ = ["DirectoryActor", "InProcessDirectory", "RouteTable"]

POLL_S_MAX = 10.0  # a long poll is answered after this long at the latest
IDLE_ENTRY_POINT = "actors.runtime.directory:start_idle"


class RouteTable:
    """The map itself. Synchronous; ``version`` grows with every change."""

    def __init__(self, first_version: int, *, keep_idle: bool = False) -> None:
        """``first_version``: above any that an earlier life gave out, or a caller would take the new map for the old
        one. ``keep_idle``: hosts without shards stay in the map until they are forgotten, so that gateways know them
        when they get some.
        """
        self._routes = Routes(version=first_version, cluster_id="", timeline="", shard_count=0, hosts=())
        self._keep_idle = keep_idle

    @property
    def routes(self) -> Routes:
        return self._routes

    @property
    def owners(self) -> dict[int, str]:
        """Shard → host."""
        return {shard: host.host_id for host in self._routes.hosts for shard in host.shards}

    def register(self, host: HostRoute, cluster_id: str, timeline: str, shard_count: int) -> bool:
        """Take a host's word for its shards; True when the map changed. A host of another cluster or shard count is
        refused (ValueError); a former owner's word for a shard is not heard."""
        routes = self._routes
        if routes.cluster_id and routes.cluster_id != cluster_id:
            raise ValueError(
                f"host {host.host_id} is of cluster {cluster_id}, this directory serves {routes.cluster_id}"
            )
        if routes.shard_count and routes.shard_count != shard_count:
            raise ValueError(
                f"host {host.host_id} has {shard_count} shards, this directory's cluster {routes.shard_count}"
            )
        known = {
            shard: epoch
            for other in routes.hosts
            if other.host_id != host.host_id or not self._keep_idle
            for shard, epoch in zip(other.shards, other.epochs, strict=True)
        }
        outrun = {shard for shard, epoch in zip(host.shards, host.epochs, strict=True) if known.get(shard, 0) > epoch}
        if outrun:
            if not self._keep_idle:
                return False
            host = without(host, outrun)
        others = [without(other, set(host.shards)) for other in routes.hosts if other.host_id != host.host_id]
        hosts = tuple(sorted((*(other for other in others if other.shards or self._keep_idle), host)))
        if (hosts, timeline, shard_count) == (routes.hosts, routes.timeline, routes.shard_count):
            return False
        self._routes = Routes(routes.version + 1, cluster_id, timeline, shard_count, hosts)
        return True

    def forget(self, host_id: str) -> bool:
        """Strike a host that will not come back; True when it was known."""
        routes = self._routes
        kept = tuple(host for host in routes.hosts if host.host_id != host_id)
        if len(kept) == len(routes.hosts):
            return False
        self._routes = routes._replace(version=routes.version + 1, hosts=kept)
        return True


def without(route: HostRoute, taken: set[int]) -> HostRoute:
    """``route`` without the shards that another host runs now."""
    kept = [pair for pair in zip(route.shards, route.epochs, strict=True) if pair[0] not in taken]
    return route._replace(shards=tuple(shard for shard, _ in kept), epochs=tuple(epoch for _, epoch in kept))


class InProcessDirectory:
    """The directory without Ray: the same table behind the same port, for nodes in one process and inside the actor."""

    def __init__(self, first_version: int, *, keep_idle: bool = False) -> None:
        self._table = RouteTable(first_version, keep_idle=keep_idle)
        self._changed = asyncio.Condition()

    @property
    def table(self) -> RouteTable:
        """What is known now."""
        return self._table

    async def register(self, host: HostRoute, cluster_id: str, timeline: str, shard_count: int) -> None:
        async with self._changed:
            if self._table.register(host, cluster_id, timeline, shard_count):
                self._changed.notify_all()

    async def forget(self, host_id: str) -> None:
        async with self._changed:
            if self._table.forget(host_id):
                self._changed.notify_all()

    async def routes(self, after_version: int) -> Routes:
        """The map as soon as it has a host and another version, at the latest after 10 s. TimeoutError while it has no
        host.
        """
        async with self._changed:
            try:
                async with asyncio.timeout(POLL_S_MAX):
                    await self._changed.wait_for(lambda: self._is_news(after_version))
            except TimeoutError:
                if not self._table.routes.hosts:
                    raise
            return self._table.routes

    def _is_news(self, after_version: int) -> bool:
        routes = self._table.routes
        return bool(routes.hosts) and routes.version != after_version


class DirectoryActor:
    """The Ray actor. Its methods run in Ray's own loop; the link has its thread like every process of the node."""

    def __init__(self, plan: NodePlan) -> None:
        self._directory = InProcessDirectory(first_version=time.time_ns() // 1_000_000)
        if plan.cluster is None:
            run_in_thread(plan, DIRECTORY, IDLE_ENTRY_POINT, None)
        else:  # reached by its port, not by calls to this actor
            import ray

            run_in_thread(plan, DIRECTORY, plan.entry_points.directory, ray.get_runtime_context().gcs_address)

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


async def start_idle(start: Start) -> Idle:
    return Idle()
