"""A node's place in its cluster, as its supervisor knows it: the node's name, the addresses, the word of a dead host.

Asks nobody for permission and waits for nobody: that there is a head is the node process's concern.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import socket
from pathlib import Path

from actors.runtime.directory_server import DirectoryLink, DirectoryRefused, DirectoryUnreachable
from actors.runtime.plan import NodePlace
from actors.runtime.ports import ReservedPort, bind_problem
from actors.runtime.settings import Settings

__all__ = ["CannotJoin", "ClusterPlace", "join_cluster", "ray_token"]

NODE_ID_FILE = "node-id"
LOOPBACK = "127.0.0.1"
NODE_NAME_LENGTH_MAX = 40


class CannotJoin(Exception):
    """Why this node can be no part of a cluster; names the setting that would help."""


class ClusterPlace:
    """See the module's docstring. ``close`` lets go of the directory's port."""

    def __init__(self, place: NodePlace, token: str, port: ReservedPort | None) -> None:
        self.place = place
        self._link = DirectoryLink(place.directory, token, f"supervisor of {place.node_id}")
        self._port = port

    async def host_ended(self, role: str, pid: int) -> None:
        """Tell the directory that a host's process has ended, so that nobody waits for its silence."""
        with contextlib.suppress(DirectoryUnreachable, DirectoryRefused):
            await self._link.host_died(self.place.host_id(role), pid)

    def close(self) -> None:
        self._link.close()
        if self._port is not None:
            self._port.close()


def join_cluster(settings: Settings, data_dir: Path, token: str) -> ClusterPlace:
    """Where this node stands. The head keeps the directory's port for its directories to come."""
    cluster = settings.cluster
    if cluster.head_address:
        address = cluster.advertise_address or address_towards(cluster.head_address)
        return ClusterPlace(NodePlace(node_id_of(data_dir), address, cluster.head_address), token, None)
    address = cluster.advertise_address or LOOPBACK
    try:
        port = ReservedPort(address, cluster.directory_port)
    except OSError as error:
        raise bind_problem(error, address, cluster.directory_port, "cluster.directory") from error
    return ClusterPlace(NodePlace(node_id_of(data_dir), address, f"{address}:{port.port}"), token, port)


def address_towards(head: str) -> str:
    """The address of this machine that reaches the head. Sends nothing."""
    host, _, port = head.rpartition(":")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise CannotJoin(
            f"there is no way to the head {head}: {error}; set cluster.head_address, or cluster.advertise_address to an "
            "address of this machine that the others reach"
        ) from error


def node_id_of(data_dir: Path) -> str:
    """This node's name for good: made at its first start, from the machine's name and chance."""
    path = data_dir / NODE_ID_FILE
    if not path.exists():
        name = socket.gethostname().partition(".")[0][:NODE_NAME_LENGTH_MAX] or "node"
        path.write_text(f"{name}-{secrets.token_hex(2)}\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def ray_token(cluster_token: str) -> str:
    """What Ray's processes of one cluster show each other: from the cluster's own token, so that there is one secret."""
    return hashlib.blake2b(cluster_token.encode(), digest_size=32, person=b"stockade-ray").hexdigest()
