"""The data directory as the supervisor uses it: serve's own lock, ``ready.json``, secrets that live beside the journal.

Owns these files and nothing of the journal's. Layout: ``serve.lock``, ``ready.json``, ``cluster-token``, ``journal/``,
``logs/``, ``ray/``.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import Any

from actors.runtime.processes import ProcessId, is_running, process_id

__all__ = [
    "DataDirectoryUnusable",
    "ServeLock",
    "ServeLocked",
    "prepare_data_dir",
    "read_cluster_token",
    "read_ready",
    "remove_ready",
    "write_ready",
]

READY_FILE = "ready.json"
LOCK_FILE = "serve.lock"
CLUSTER_TOKEN_FILE = "cluster-token"
FREE_BYTES_MIN = 16 * 1024 * 1024  # Ray's sessions and our logs need this much before the journal asks for any
TOKEN_BYTES = 32


class DataDirectoryUnusable(Exception):
    """The data directory cannot be made, written or locked; says why and what would help."""


class ServeLocked(DataDirectoryUnusable):
    """Another ``stockade serve`` runs on the same data directory; names its pid."""


def prepare_data_dir(path: Path) -> Path:
    """Make it if need be, check that it can be written, return it resolved. DataDirectoryUnusable otherwise."""
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        resolved = path.resolve(strict=True)
        probe = resolved / f".writable-{os.getpid()}"
        probe.write_bytes(b"\0")
        probe.unlink()
        (resolved / "logs").mkdir(exist_ok=True)
        free = os.statvfs(resolved)
    except OSError as error:
        raise DataDirectoryUnusable(f"the data directory {path} cannot be written: {error.strerror}") from error
    free_bytes = free.f_bavail * free.f_frsize
    if free_bytes < FREE_BYTES_MIN:
        raise DataDirectoryUnusable(
            f"the data directory {path} has {free_bytes // 1024**2} MiB free, at least {FREE_BYTES_MIN // 1024**2} MiB "
            "are needed to start; make room, then start again: nothing was changed"
        )
    return resolved


class ServeLock:
    """Held for the life of ``serve``: a second one is refused. The kernel lets go of it when the process ends."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / LOCK_FILE
        self._descriptor = -1

    def acquire(self) -> None:
        """Take it, or raise ServeLocked naming the holder."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 64).decode(errors="replace").split()
            os.close(self._descriptor)
            who = f"pid {holder[0]}" if holder else "another process"
            raise ServeLocked(
                f"{who} already serves {self._path.parent}; stop it first, or use another data directory"
            ) from None
        me = process_id(os.getpid())
        assert me is not None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{me.pid} {me.start_time}\n".encode(), 0)

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_cluster_token(data_dir: Path) -> str:
    """The token gateways show to hosts; made at the first start, readable by its owner only."""
    path = data_dir / CLUSTER_TOKEN_FILE
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(TOKEN_BYTES))
    return path.read_text(encoding="utf-8").strip()


def write_ready(data_dir: Path, state: dict[str, Any]) -> None:
    """Replace ``ready.json`` in one step: a reader sees the old or the new one. A full disk is no reason to fail."""
    temporary = data_dir / f".{READY_FILE}.new"
    try:
        temporary.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        temporary.replace(data_dir / READY_FILE)
    except OSError:
        temporary.unlink(missing_ok=True)


def remove_ready(data_dir: Path) -> None:
    """Nobody serves here any more."""
    (data_dir / READY_FILE).unlink(missing_ok=True)


def read_ready(data_dir: Path) -> dict[str, Any] | None:
    """What the running ``serve`` of this data directory says of itself; None when none runs."""
    try:
        state: dict[str, Any] = json.loads((data_dir / READY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    serve = ProcessId(int(state["serve_pid"]), int(state["serve_start_time"]))
    return state if is_running(serve) else None
