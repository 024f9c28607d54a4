"""Processes that a dead ``serve`` left on a data directory: waited for, then ended. The serve lock must be held."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from actors.runtime.announcements import Announcer
from actors.runtime.local_ray import is_one_of_ours
from actors.runtime.processes import ProcessId, end_processes, find_marked, is_running

__all__ = ["LeftoversRemain", "clear_leftovers"]

LOOK_INTERVAL_S = 0.1
GONE_WITHIN_S = 10.0  # after SIGKILL


class LeftoversRemain(Exception):
    """Something of a former serve does not even end when killed; says which pids."""


async def clear_leftovers(data_dir: Path, patience_ms: int, announcer: Announcer) -> None:
    """Return when no process of a former serve is left.

    They end by themselves within moments of its death, so they get ``patience_ms``; then they are killed. They are
    known by the mark in their environment, which is the data directory itself, and by their start time.
    """
    mark = str(data_dir)
    if not (leftovers := find_marked(mark)):
        return
    announcer.say(
        "waiting",
        f"waiting up to {patience_ms / 1000:g} s for what a former serve left behind (pids {spell(leftovers)})",
    )
    deadline = time.monotonic() + patience_ms / 1000
    while any(is_one_of_ours(process) for process in find_marked(mark)) and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_INTERVAL_S)
    if not (leftovers := find_marked(mark)):
        return
    announcer.say("killing", f"ending leftovers of a former serve on this data directory (pids {spell(leftovers)})")
    await asyncio.to_thread(end_processes, leftovers, within_s=GONE_WITHIN_S)
    if alive := [process for process in leftovers if is_running(process)]:
        raise LeftoversRemain(f"processes of a former serve do not end (pids {spell(alive)})")


def spell(processes: list[ProcessId]) -> str:
    return ", ".join(str(process.pid) for process in processes)
