"""The gateway actor: Ray's grip on a process that runs one gateway, found by its entry point (the runtime imports
none).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from actors.runtime import wiring
from actors.runtime.actor_process import Start, run_in_thread
from actors.runtime.directory_client import RemoteDirectory
from actors.runtime.directory_server import DirectoryLink
from actors.runtime.plan import NodePlan
from actors.shard.directory import HostRoute, Routes

__all__ = ["GatewayActor", "directory_of", "start_service"]

SUPERVISOR_VERSION = 1  # below every version of the directory: its first answer is news


class GatewayActor:
    """Detached, named, restarted for ever. Does nothing in Ray's thread but answer ``ping``."""

    def __init__(self, plan: NodePlan, role: str, directory: Any) -> None:
        run_in_thread(plan, role, plan.entry_points.gateway, directory)

    def ping(self) -> int:
        """The pid, for whoever asks Ray whether the actor is there."""
        return os.getpid()


class GatewayService:
    """A running gateway and its own way to the directory."""

    def __init__(self, gateway: Any, directory: RemoteDirectory | DirectoryLink) -> None:
        self._gateway = gateway
        self._directory = directory

    def facts(self) -> Mapping[str, Any]:
        return {
            "endpoint": f"{self._gateway.config.bind_host}:{self._gateway.port}",
            "metrics": f"127.0.0.1:{self._gateway.http_port}",
        }

    async def wait_failed(self) -> BaseException:
        """Never: a gateway without a host answers UNAVAILABLE and goes on looking for one."""
        return await asyncio.Future()

    async def close(self, drain_ms: int) -> None:
        await self._gateway.stop(drain_ms / 1000)
        self._directory.close()


async def start_service(start: Start) -> GatewayService:
    """Open the gRPC port, shared with the node's other gateways. It serves as soon as it knows a host."""
    plan = start.plan
    config = wiring.gateway_config(plan.settings, plan.cluster_token, name=start.role, grpc_port=plan.grpc_port)
    directory = directory_of(start)
    return GatewayService(await wiring.start_gateway(config, directory), directory)


def directory_of(start: Start) -> RemoteDirectory | DirectoryLink:
    """How this process reaches its directory: in a cluster by the head's port, else by a Ray call."""
    place = start.plan.cluster
    if place is not None:
        return DirectoryLink(place.directory, start.plan.cluster_token, f"{start.role} of {place.node_id}")
    return RemoteDirectory(start.directory, known_routes(start.activation["host"]))


def known_routes(host: Mapping[str, Any] | None) -> Routes | None:
    """The map of one host out of its own words to the supervisor (``ShardHostService.facts``); None without one."""
    if host is None:
        return None
    host_id, endpoint, pid, shards, epochs = host["route"]
    route = HostRoute(host_id, endpoint, pid, tuple(shards), tuple(epochs))
    return Routes(SUPERVISOR_VERSION, host["cluster_id"], host["timeline"], host["shard_count"], (route,))
