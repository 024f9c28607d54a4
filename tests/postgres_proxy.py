"""A TCP proxy in threads between a blocking client and PostgreSQL: cuts after so many bytes, holds back, refuses.

It knows bytes, not messages. (The one of ``tests.chaos`` lives on an event loop, which a blocking journal would stop.)
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

READ_BYTES_MAX = 64 * 1024
TO_SERVER, TO_CLIENT = "to server", "to client"


class TcpProxy:
    """Listens on ``port``. Faults are for the connections there are when they strike, and for new ones until ``calm``."""

    def __init__(self, upstream_port: int) -> None:
        self.connections = 0
        self.passed = {TO_SERVER: 0, TO_CLIENT: 0}
        self._upstream_port = upstream_port
        self._left: dict[str, int] = {}  # direction → bytes that still get through, then everything is cut
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection now."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for one in pair:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def cut_after(self, direction: str, count: int) -> None:
        """Let so many more bytes through in a direction, then cut every connection, once."""
        with self._lock:
            self._left[direction] = count

    def hold(self) -> None:
        """Nothing gets through in either direction, and nobody is told."""
        self._flowing.clear()

    def refuse(self) -> None:
        """New connections end at once."""
        self._refusing = True

    def calm(self) -> None:
        """Fair weather."""
        self._refusing = False
        with self._lock:
            self._left.clear()
        self._flowing.set()

    def close(self) -> None:
        """Stop listening, end everything."""
        self.calm()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream_port))
            except OSError:
                client.close()
                continue
            self.connections += 1
            with self._lock:
                self._pairs.add((client, server))
            for source, target, direction in ((client, server, TO_SERVER), (server, client, TO_CLIENT)):
                threading.Thread(target=self._pump, args=(source, target, direction), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(READ_BYTES_MAX):
                self._flowing.wait()
                allowed = self._allowed(direction, len(chunk))
                target.sendall(chunk[:allowed])
                self.passed[direction] += allowed
                if allowed < len(chunk):
                    self.cut()
                    return
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _allowed(self, direction: str, count: int) -> int:
        with self._lock:
            if direction not in self._left:
                return count
            allowed = min(count, self._left[direction])
            self._left[direction] -= allowed
            if allowed < count:
                del self._left[direction]
            return allowed


@contextlib.contextmanager
def proxied(upstream_port: int) -> Iterator[TcpProxy]:
    """A proxy for as long as the block runs."""
    proxy = TcpProxy(upstream_port)
    try:
        yield proxy
    finally:
        proxy.close()
