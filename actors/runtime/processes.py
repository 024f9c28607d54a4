"""Processes of this machine as the supervisor sees them: who they are, when they end, how they are ended.

Owns pids with their start times (a pid alone may belong to a stranger by now), pidfds, parent-death signals and the
mark by which the processes of a data directory are found again. Knows nothing of Ray or of what the processes do.
Linux only.

A killed child that nobody has waited for is a zombie: ``kill(pid, 0)`` calls it alive, a pidfd tells the truth. Ray's
workers ask ``kill(pid, 0)`` about their raylet, so they live on exactly as long as a dead raylet is not waited for.
The supervisor uses that: it waits for a dead raylet only after the shards and gateways of the lost Ray have been
handed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "MARK_VARIABLE",
    "ProcessId",
    "become_subreaper",
    "die_with_parent",
    "end_processes",
    "find_marked",
    "is_running",
    "process_id",
    "reap_orphans",
    "stop_with_parent",
    "wait_for_exit",
]

MARK_VARIABLE = "STOCKADE_NODE_OF"  # in the environment of every process of a node: its resolved data directory
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
START_TIME_FIELD = 19  # of /proc/<pid>/stat, counted after the command's closing parenthesis
STATE_FIELD = 0
PARENT_FIELD = 1


class ProcessId(NamedTuple):
    """A process for good: ``start_time`` in clock ticks since boot tells a reused pid from the one that was meant."""

    pid: int
    start_time: int


def process_id(pid: int) -> ProcessId | None:
    """Who ``pid`` is now; None when there is no such process."""
    fields = stat_fields(pid)
    return None if fields is None else ProcessId(pid, int(fields[START_TIME_FIELD]))


def is_running(process: ProcessId) -> bool:
    """Whether it still runs. A zombie does not."""
    fields = stat_fields(process.pid)
    return (
        fields is not None and int(fields[START_TIME_FIELD]) == process.start_time and fields[STATE_FIELD] not in "ZX"
    )


def stat_fields(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


async def wait_for_exit(pid: int) -> None:
    """Return as soon as the process has ended, child or not, waited for or not. At once when there is none."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(descriptor, settle, ended)
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children instead of init's: none is lost from sight."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """For a child between fork and exec: the kernel sends it SIGKILL when the thread that started it ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def stop_with_parent() -> None:
    """As ``die_with_parent``, with SIGTERM: for a child that has something to finish."""
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def reap_orphans(spared: Iterable[int]) -> None:
    """Wait for every zombie child that is not ``spared`` (those have somebody else who waits for them)."""
    mine, keep = os.getpid(), set(spared)
    for pid in running_pids():
        fields = stat_fields(pid)
        if fields and fields[STATE_FIELD] == "Z" and int(fields[PARENT_FIELD]) == mine and pid not in keep:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def find_marked(mark: str) -> list[ProcessId]:
    """Running processes of this user, except this one, that carry ``MARK_VARIABLE=mark`` in their environment."""
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    found = []
    for pid in running_pids():
        process = process_id(pid)
        if pid == os.getpid() or process is None or not is_running(process):
            continue
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0"):
            found.append(process)
    return found


def running_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def end_processes(processes: Iterable[ProcessId], *, within_s: float) -> None:
    """SIGKILL each one that still is who it was, and wait (bounded) until they are gone."""
    descriptors = []
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(process.pid)
            descriptors.append(descriptor)
            if process_id(process.pid) == process:  # checked while the pidfd holds the pid: no reuse in between
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    deadline = time.monotonic() + within_s
    try:
        for descriptor in descriptors:
            select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
