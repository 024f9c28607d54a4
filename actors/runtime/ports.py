"""A port held for the gateways: bound but not listening, so that it is ours while gateways come and go."""

from __future__ import annotations

import errno
import socket

__all__ = ["PortInUse", "ReservedPort", "bind_problem"]


class PortInUse(Exception):
    """The address cannot be had; says why and which setting to change."""


class ReservedPort:
    """``port`` stays reserved until ``close``. Gateways of this node share it by SO_REUSEPORT; nobody else gets it."""

    def __init__(self, host: str, port: int) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With SO_REUSEPORT two nodes of one user could share a port unnoticed: a bind without it tells.
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            taken = probe.getsockname()
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(taken)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # or another node's probe would get past it
        self.port: int = taken[1]

    def close(self) -> None:
        self._socket.close()


def bind_problem(error: OSError, host: str, port: int, setting: str) -> PortInUse:
    """What to tell a person about a failed bind."""
    if isinstance(error, socket.gaierror):
        return PortInUse(f"the address {host!r} is not known here; set {setting}_host to an address of this machine")
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"port {port} on {host} is in use; stop who holds it, or set {setting}_port to another (0: any free one)"
        )
    return PortInUse(f"cannot listen on {host}:{port}: {error.strerror}; set {setting}_host and {setting}_port")
