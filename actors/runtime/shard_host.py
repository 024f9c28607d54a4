"""The shard host actor: Ray's grip on the process in which ``actors.shard.host`` runs the shards."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from actors.journal.port import Journal, JournalDamaged, JournalMismatch
from actors.runtime import wiring
from actors.runtime.actor_process import FatalFault, Start, run_in_thread
from actors.runtime.cluster_host import ClusterHost
from actors.runtime.directory_client import Registrar
from actors.runtime.directory_server import DirectoryLink
from actors.runtime.host_metrics import host_metrics_text
from actors.runtime.operations import METRICS_CONTENT_TYPE, Answer, OperationsServer
from actors.runtime.plan import NodePlace, NodePlan
from actors.shard.host import ShardHost

__all__ = ["ShardHostActor", "start_service"]

log = logging.getLogger(__name__)

Leave = Callable[[float], Awaitable[None]]  # stop within seconds


class ShardHostActor:
    """Detached, named, restarted for ever. Does nothing in Ray's thread but answer ``ping``."""

    def __init__(self, plan: NodePlan, role: str, directory: Any) -> None:
        run_in_thread(plan, role, plan.entry_points.host, directory)

    def ping(self) -> int:
        """The pid, for whoever asks Ray whether the actor is there."""
        return os.getpid()


class ShardHostService:
    """A running host, its metrics and its word to the directory. ``leave``: stops the host, and that word."""

    def __init__(self, host: ShardHost, metrics: OperationsServer, metrics_port: int, leave: Leave) -> None:
        self._host = host
        self._metrics = metrics
        self._metrics_port = metrics_port
        self._leave = leave

    def facts(self) -> Mapping[str, Any]:
        engine, statistics = self._host.engine, self._host.statistics
        return {
            "route": self._host.route,
            "endpoint": self._host.route.endpoint,
            "frame_port": self._host.port,
            "metrics": f"127.0.0.1:{self._metrics_port}",
            "cluster_id": engine.cluster_id,
            "timeline": engine.timeline,
            "shard_count": engine.shard_count,
            "recovered_events": statistics.recovered_events,
            "recovery_seconds": round(statistics.recovery_seconds, 3),
        }

    async def wait_failed(self) -> BaseException:
        """Never: a host that fails ends its process at once (``end_this_process``), so that nothing of it leaves."""
        return await asyncio.Future()

    async def close(self, drain_ms: int) -> None:
        await self._leave(drain_ms / 1000)
        self._metrics.close()


async def start_service(start: Start) -> ShardHostService:
    """Open the journal, recover, listen, register. FatalFault for what another try cannot mend."""
    try:
        host, leave = await (
            start_alone(start) if start.plan.cluster is None else start_member(start, start.plan.cluster)
        )
    except (JournalDamaged, JournalMismatch) as error:
        raise FatalFault(str(error)) from error

    async def metrics_page() -> Answer:
        return Answer(200, METRICS_CONTENT_TYPE, host_metrics_text(host.status, host.engine.books, host.engine.now_ms))

    metrics = OperationsServer({"/metrics": metrics_page})
    metrics_port = await metrics.start("127.0.0.1", 0)
    return ShardHostService(host, metrics, metrics_port, leave)


async def start_alone(start: Start) -> tuple[ShardHost, Leave]:
    """The only host there is: it has every shard."""
    host = make_host(start)
    route = await host.start()
    engine = host.engine
    registrar = Registrar(start.directory, route, engine.cluster_id, engine.timeline, engine.shard_count)

    async def leave(drain_s: float) -> None:
        registrar.close()
        await host.stop(drain_s)

    return host, leave


async def start_member(start: Start, place: NodePlace) -> tuple[ShardHost, Leave]:
    """One of several: it gets its shards from the living or the dead."""
    plan = start.plan
    host_id = place.host_id(start.role)
    link = DirectoryLink(place.directory, plan.cluster_token, host_id)
    host: Any = make_host(start, host_id=host_id, address=place.address, shards=(), directory=link)
    member = ClusterHost(host, link, place.node_id, plan.settings.cluster.node_heartbeat_ms / 1000)
    await member.start()

    async def leave(drain_s: float) -> None:
        await member.close(drain_s)
        link.close()

    return host, leave


def make_host(start: Start, **options: Any) -> ShardHost:
    """By the plan, on the journal that it names."""
    plan = start.plan

    def open_journal() -> Journal:
        return wiring.open_data_journal(plan.settings, plan.data_dir, log.warning)

    frame_port = int(start.activation["frame_port"])
    return wiring.make_host(
        plan.settings, open_journal, plan.cluster_token, frame_port, end_process=start.end_process, **options
    )
