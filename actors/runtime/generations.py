"""Generations: one node process with its own Ray each. Starts and ends them; when to do so is the supervisor's
business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from actors.runtime.local_ray import node_environment
from actors.runtime.plan import NodePlan
from actors.runtime.processes import ProcessId, die_with_parent, end_processes, find_marked, process_id

__all__ = ["Generation", "end_generation", "put_ray_to_rest", "spawn_node"]

GENERATION_VARIABLE = "STOCKADE_NODE_GENERATION"  # beside the mark: which of a serve's generations a process belongs to
GONE_WITHIN_S = 10.0  # after SIGKILL


@dataclass(slots=True)
class Generation:
    """``ray``: gcs and raylet, once known. ``lost``: its Ray can restart nothing. Times are monotonic seconds."""

    number: int
    process: asyncio.subprocess.Process
    started_at: float
    ray: dict[str, ProcessId] = field(default_factory=dict)
    lost: bool = False
    complete: bool = False
    watchers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def ray_pids(self) -> list[int]:
        """Nobody may wait for these while an actor of this generation is still needed."""
        return [process.pid for process in self.ray.values()]


async def spawn_node(plan: NodePlan) -> Generation:
    """Start a node process; it reports by its link. Its output goes to ``logs/node.log``."""
    environment = node_environment(plan, dict(os.environ))
    with (plan.data_dir / "logs" / "node.log").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "actors.runtime.node",
            stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output,
            env={**environment, GENERATION_VARIABLE: str(plan.generation)},
            start_new_session=True,  # Ctrl-C is for serve alone
            preexec_fn=die_with_parent,
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(plan))
    process.stdin.close()
    return Generation(plan.generation, process, time.monotonic())


def put_ray_to_rest(generation: Generation) -> None:
    """Kill what is left of a Ray that has lost a part, so that it cannot take its workers with it when it notices.

    Nobody waits for its zombies before the generation ends, so the actors live on (see ``processes``).
    """
    for process in generation.ray.values():
        if process_id(process.pid) == process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


async def end_generation(generation: Generation, data_dir: Path) -> None:
    """End its node, its Ray and its actors, whatever state they are in."""
    with contextlib.suppress(ProcessLookupError):
        generation.process.kill()  # Ray's processes go with it: it asked the kernel for that
    await generation.process.wait()
    marked = [process for process in find_marked(str(data_dir)) if is_of(generation.number, process)]
    await asyncio.to_thread(end_processes, marked, within_s=GONE_WITHIN_S)
    for watcher in generation.watchers:
        watcher.cancel()


def is_of(number: int, process: ProcessId) -> bool:
    try:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{GENERATION_VARIABLE}={number}".encode() in environment.split(b"\0")
