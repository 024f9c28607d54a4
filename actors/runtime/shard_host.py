"""The shard host actor: Ray's grip on the process in which ``actors.shard.host`` runs the shards."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any

from actors.journal.port import Journal, JournalDamaged, JournalMismatch
from actors.runtime import wiring
from actors.runtime.actor_process import FatalFault, Start, run_in_thread
from actors.runtime.directory_client import Registrar
from actors.runtime.host_metrics import host_metrics_text
from actors.runtime.operations import METRICS_CONTENT_TYPE, Answer, OperationsServer
from actors.runtime.plan import HOST, NodePlan
from actors.shard.host import ShardHost

__all__ = ["ShardHostActor", "start_service"]

log = logging.getLogger(__name__)


class ShardHostActor:
    """Detached, named, restarted for ever. Does nothing in Ray's thread but answer ``ping``."""

    def __init__(self, plan: NodePlan, directory: Any) -> None:
        run_in_thread(plan, HOST, plan.entry_points.host, directory)

    def ping(self) -> int:
        """The pid, for whoever asks Ray whether the actor is there."""
        return os.getpid()


class ShardHostService:
    """A running host, its metrics and its word to the directory."""

    def __init__(self, host: ShardHost, metrics: OperationsServer, metrics_port: int, registrar: Registrar) -> None:
        self._host = host
        self._metrics = metrics
        self._metrics_port = metrics_port
        self._registrar = registrar

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
        self._registrar.close()
        await self._host.stop(drain_ms / 1000)
        self._metrics.close()


async def start_service(start: Start) -> ShardHostService:
    """Open the journal, recover, listen, register. FatalFault for what another try cannot mend."""
    plan = start.plan

    def open_journal() -> Journal:
        return wiring.open_data_journal(plan.settings, plan.data_dir, log.warning)

    frame_port = int(start.activation["frame_port"])
    host = wiring.make_host(plan.settings, open_journal, plan.cluster_token, frame_port, end_process=start.end_process)
    try:
        route = await host.start()
    except (JournalDamaged, JournalMismatch) as error:
        raise FatalFault(str(error)) from error

    async def metrics_page() -> Answer:
        return Answer(200, METRICS_CONTENT_TYPE, host_metrics_text(host.status, host.engine.books, host.engine.now_ms))

    metrics = OperationsServer({"/metrics": metrics_page})
    metrics_port = await metrics.start("127.0.0.1", 0)
    engine = host.engine
    registrar = Registrar(start.directory, route, engine.cluster_id, engine.timeline, engine.shard_count)
    return ShardHostService(host, metrics, metrics_port, registrar)
