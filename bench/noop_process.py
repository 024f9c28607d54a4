"""Starts the no-op gateways as processes of their own and ends them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def noop_gateways(count: int) -> Iterator[tuple[str, list[int]]]:
    """So many no-op gateways behind one port; the target and their pids."""
    processes: list[subprocess.Popen[str]] = []
    port = 0
    try:
        for _ in range(count):
            command = [sys.executable, "-m", "bench.noop", str(port)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            processes.append(process)
            assert process.stdout is not None
            port = next(int(line) for line in process.stdout if line.strip().isdigit())
        yield f"127.0.0.1:{port}", [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
