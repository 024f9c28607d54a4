"""A real ``serve`` in a process of its own, as tests drive it: start, wait, kill one of its processes, stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actors.runtime.run_directory import read_ready

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 60.0  # two busy cores
STOPPED_WITHIN_S = 30.0
LOOK_INTERVAL_S = 0.02

SMALL_DISK = {"STOCKADE_DISK_FLOOR_BYTES": "1 MiB", "STOCKADE_BALLAST_BYTES": "1 MiB"}


class Serve:
    """One data directory and the ``serve`` that runs on it, at free ports."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.output = data_dir.with_name(f"{data_dir.name}.out")
        self._environment = {**SMALL_DISK, "STOCKADE_GRPC_PORT": "0", "STOCKADE_HTTP_PORT": "0", **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is not ready yet."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STOCKADE_")}
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "actors.runtime"],
                cwd=ROOT,
                env={**inherited, **self._environment, "STOCKADE_DATA_DIR": str(self.data_dir)},
                stdout=output,
                stderr=output,
            )

    def keep_port(self, port: str) -> None:
        """Use this gRPC port at the next start, so that clients find it again."""
        self.set("GRPC_PORT", port)

    def set(self, setting: str, value: str) -> None:
        """A setting of the next start."""
        self._environment[f"STOCKADE_{setting}"] = value

    @property
    def ended(self) -> bool:
        """Whether its process has ended, by whatever cause."""
        return self._process is not None and self._process.poll() is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ready(self) -> dict[str, Any] | None:
        """What ``ready.json`` says now, if this very process wrote it."""
        state = read_ready(self.data_dir)
        return state if state is not None and state["serve_pid"] == self.pid else None

    def wait_serving(self, where: Callable[[dict[str, Any]], bool] = lambda state: True) -> dict[str, Any]:
        """Wait until everything serves and ``where`` holds; the state then."""
        assert self._process is not None
        deadline = time.monotonic() + READY_WITHIN_S
        state = None
        while time.monotonic() < deadline:
            state = self.ready()
            if state is not None and state["state"] == "serving" and where(state):
                return state
            if self._process.poll() is not None:
                raise AssertionError(f"serve ended with {self._process.returncode}:\n{self.said()}")
            time.sleep(LOOK_INTERVAL_S)
        raise AssertionError(f"not serving after {READY_WITHIN_S} s: {state}\n{self.said()}")

    def wait_exit(self, within_s: float = STOPPED_WITHIN_S) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(within_s)

    def terminate(self) -> int:
        """SIGTERM, then its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.wait_exit()

    def kill(self, role: str) -> int:
        """``kill -9`` of one process by role ("gateway" means the first); the pid it had."""
        if role == "serve":
            pid = self.pid
            os.kill(pid, signal.SIGKILL)
            self.wait_exit()
            return pid
        state = self.ready()
        assert state is not None
        pid = pid_of(state, role)
        os.kill(pid, signal.SIGKILL)
        return pid

    def restarts(self) -> dict[str, int]:
        """How often each role was started again in this ``serve``."""
        state = self.ready()
        assert state is not None
        return dict(state["restarts"])

    def pause(self, role: str) -> int:
        """``SIGSTOP`` to one process; the pid it has."""
        state = self.ready()
        assert state is not None
        os.kill(pid_of(state, role), signal.SIGSTOP)
        return pid_of(state, role)

    def said(self) -> str:
        """Everything it has printed so far, over all starts."""
        return self.output.read_text(encoding="utf-8", errors="replace") if self.output.exists() else ""

    def end(self) -> None:
        """Whatever happened in the test: nothing of it stays."""
        if self._process is not None and self._process.poll() is None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def pid_of(state: Mapping[str, Any], role: str) -> int:
    """The pid of a role in ``ready.json`` ("gateway" means the first)."""
    return int(state["gateway_pids"][0] if role == "gateway" else state[f"{role}_pid"])
