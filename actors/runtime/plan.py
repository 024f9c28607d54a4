"""What a node's processes are told when they start, and the names they share. Plain and picklable; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from actors.runtime.settings import Settings

__all__ = ["DIRECTORY", "GATEWAY", "HOST", "NODE", "WEBHOOKS", "EntryPoints", "NodePlan"]

NODE = "node"  # the Ray driver
DIRECTORY = "directory"
HOST = "host"
GATEWAY = "gateway"  # gateway-0, gateway-1, …
WEBHOOKS = "webhooks"  # only when there are any


@dataclass(frozen=True, slots=True)
class EntryPoints:
    """Where the roles' services are found, as "module:name": the runtime imports no gateway. See
    ``actor_process.Service``.
    """

    host: str = "actors.runtime.shard_host:start_service"
    gateway: str = "actors.runtime.gateway_actor:start_service"
    webhooks: str = "actors.runtime.webhooks_actor:start_service"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """Everything the node of one generation needs. ``data_dir`` is resolved; ``grpc_port`` is never 0.

    ``link_port``: where the supervisor listens on loopback; ``link_token``: what it asks of whoever connects.
    """

    settings: Settings
    data_dir: Path
    generation: int
    serve_pid: int
    link_port: int
    link_token: str = field(repr=False)
    cluster_token: str = field(repr=False)
    grpc_port: int
    entry_points: EntryPoints = EntryPoints()
