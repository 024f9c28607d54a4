"""What a node's processes are told when they start, and the names they share. Plain and picklable; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from actors.runtime.settings import Settings

__all__ = [
    "DIRECTORY",
    "GATEWAY",
    "HOST",
    "NODE",
    "WEBHOOKS",
    "EntryPoints",
    "NodePlace",
    "NodePlan",
    "NodeShape",
    "is_host",
    "shape_of",
]

NODE = "node"  # the Ray driver
DIRECTORY = "directory"
HOST = "host"  # in a cluster host-0, host-1, …
GATEWAY = "gateway"  # gateway-0, gateway-1, …
WEBHOOKS = "webhooks"  # only when there are any


def is_host(role: str) -> bool:
    """Whether it runs shards."""
    return role == HOST or role.startswith(f"{HOST}-")


@dataclass(frozen=True, slots=True)
class NodeShape:
    """Which processes a node has beside its Ray driver."""

    gateways: int
    hosts: tuple[str, ...] = (HOST,)
    directory: bool = True

    @property
    def is_of_a_cluster(self) -> bool:
        """Whether its hosts share their journal with other nodes'."""
        return self.hosts != (HOST,)

    @property
    def roles(self) -> frozenset[str]:
        """All that must serve."""
        gateways = (f"{GATEWAY}-{number}" for number in range(self.gateways))
        return frozenset((NODE, *((DIRECTORY,) if self.directory else ()), *self.hosts, *gateways))


def shape_of(settings: Settings) -> NodeShape:
    """By the settings: a node of its own has one host with every shard; the directory of a cluster is on its head."""
    if not settings.journal.is_shared:
        return NodeShape(settings.gateways)
    hosts = tuple(f"{HOST}-{number}" for number in range(settings.cluster.hosts_per_node))
    return NodeShape(settings.gateways, hosts, directory=not settings.cluster.head_address)


@dataclass(frozen=True, slots=True)
class NodePlace:
    """A node's place in its cluster. ``node_id``: its name, the same after every restart. ``address``: where the others
    reach it. ``directory``: "host:port" of the head's."""

    node_id: str
    address: str
    directory: str

    @property
    def directory_port(self) -> int:
        return int(self.directory.rpartition(":")[2])

    def host_id(self, role: str) -> str:
        """The name of a host of this node: host-<node>-<number>."""
        return f"{HOST}-{self.node_id}-{role.removeprefix(f'{HOST}-')}"


@dataclass(frozen=True, slots=True)
class EntryPoints:
    """Where the roles' services are found, as "module:name": the runtime imports no gateway. See
    ``actor_process.Service``.
    """

    host: str = "actors.runtime.shard_host:start_service"
    gateway: str = "actors.runtime.gateway_actor:start_service"
    webhooks: str = "actors.runtime.webhooks_actor:start_service"
    directory: str = "actors.runtime.directory_service:start_service"  # a cluster's; a node of its own needs no service


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
    cluster: NodePlace | None = None  # None: a node of its own

    @property
    def is_head(self) -> bool:
        """Whether the directory, the webhooks and the head of Ray are here."""
        return not self.settings.cluster.head_address
