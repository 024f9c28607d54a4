"""The directory of a cluster as a service of the directory actor's process, on the head: a port, and nothing on disk."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.runtime.actor_process import FatalFault, Start
from actors.runtime.cluster_directory import ClusterDirectory, DirectoryTimes
from actors.runtime.directory_server import DirectoryServer

__all__ = ["DirectoryService", "directory_times", "start_service"]


def directory_times(settings: Any) -> DirectoryTimes:
    """By ``settings.cluster``."""
    cluster = settings.cluster
    return DirectoryTimes(
        cluster.node_heartbeat_ms / 1000, cluster.host_dead_after_ms / 1000, cluster.placement_interval_ms / 1000
    )


class DirectoryService:
    """A directory that answers."""

    def __init__(self, directory: ClusterDirectory, server: DirectoryServer, endpoint: str) -> None:
        self._directory = directory
        self._server = server
        self._endpoint = endpoint

    def facts(self) -> dict[str, Any]:
        return {"endpoint": self._endpoint}

    async def wait_failed(self) -> BaseException:
        """Never: whoever cannot reach it goes on with what he knows."""
        return await asyncio.Future()

    async def close(self, drain_ms: int) -> None:
        self._directory.close()
        self._server.close()


async def start_service(start: Start) -> DirectoryService:
    """Listen where the supervisor keeps the port. ``start.directory``: "host:port" of the head's Ray."""
    plan = start.plan
    if plan.cluster is None:
        raise FatalFault("a directory with a port belongs to a cluster")
    directory = ClusterDirectory(directory_times(plan.settings))
    server = DirectoryServer(directory, plan.cluster_token, {"ray": str(start.directory or "")})
    await server.start(plan.cluster.address, plan.cluster.directory_port)
    directory.start()
    return DirectoryService(directory, server, plan.cluster.directory)
