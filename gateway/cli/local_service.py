"""A service of one's own for the demo and the replay: started in a fresh data directory, stopped at the end."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.cli.endings import Exit, fail

START_WITHIN_S = 90.0
STOP_WITHIN_S = 30.0


def write_settings(
    data_dir: Path, channels: Sequence[str], imposing: Sequence[str], warehouses: Sequence[str], gateways: int
) -> Path:
    """A settings file beside the journal; the demo's own, to be looked at and used again with ``--config``."""
    lines = [
        'data_dir = "."',
        "grpc_port = 0",
        "http_port = 0",
        f"gateways = {gateways}",
        "ended_in_memory_max = 20000",
        "",
        "[channels]",
        *(f"{json.dumps(name)} = {{ may_impose = {'true' if name in imposing else 'false'} }}" for name in channels),
        "",
        "[warehouses]",
        *(f"{json.dumps(name)} = {{}}" for name in warehouses),
    ]
    path = data_dir / "stockade.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@contextlib.contextmanager
def local_service(settings: Path, data_dir: Path) -> Iterator[str]:
    """Start ``stockade serve`` with these settings; its gRPC endpoint. Stopped cleanly at the end."""
    log_path = data_dir / "serve.out"
    from actors.runtime.processes import stop_with_parent  # a killed demo must not leave a service behind

    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(settings)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=stop_with_parent,  # noqa: PLW1509  one system call, no lock
        )
    try:
        yield _wait_until_ready(process, data_dir, log_path)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], data_dir: Path, log_path: Path) -> str:  # noqa: RET503  fail() never returns
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            ready = json.loads((data_dir / "ready.json").read_text(encoding="utf-8"))
            if ready.get("state") == "serving" and ready.get("serve_pid") == process.pid:
                return str(ready["grpc"])
        if process.poll() is not None:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    fail(
        f"the service did not start; it said:\n{log_path.read_text(encoding='utf-8', errors='replace')}",
        Exit.UNAVAILABLE,
    )
