"""A host's membership in its cluster: it tells the directory how it is, and does what the answer says.

Owns the heartbeat and the tasks that adopt shards and take them over; how that is done is ``actors.shard.host``'s, and
who should own what the directory's. A directory that does not answer changes nothing: the host serves what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Sequence
from typing import Protocol

from actors.runtime.cluster_directory import HostReport, HostWishes
from actors.runtime.directory_server import DirectoryRefused, DirectoryUnreachable
from actors.shard.directory import HostRoute
from actors.shard.engine import Engine

__all__ = ["Beating", "Membership", "MovingHost"]

PAUSE_S_MIN = 0.1  # between two heartbeats that had no answer
LEAVE_WITHIN_S = 1.0
DRAIN_LOOK_S = 0.05

log = logging.getLogger(__name__)


class Beating(Protocol):
    """The part of a directory that a host talks to."""

    def beat(self, report: HostReport) -> Awaitable[HostWishes]: ...


class MovingHost(Protocol):
    """What a host can be asked for (``actors.shard.host.ShardHost``)."""

    @property
    def route(self) -> HostRoute: ...

    @property
    def engine(self) -> Engine: ...

    def adopt(self, shards: Sequence[int]) -> Awaitable[object]: ...

    def move_here(self, shard: int, owner_endpoint: str) -> Awaitable[object]: ...


class Membership:
    """One host's. ``start`` it when the host listens; ``leave`` before it closes."""

    def __init__(self, host: MovingHost, directory: Beating, node_id: str, heartbeat_s: float) -> None:
        self._host = host
        self._directory = directory
        self._node_id = node_id
        self._heartbeat_s = heartbeat_s
        self._started_ms = time.time_ns() // 1_000_000
        self._state = "serving"
        self._wishes = HostWishes()
        self._adopting: set[int] = set()
        self._moving: set[int] = set()
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None
        self._complained = ""
        self._state_heard = False  # whether the last answer was to a report of this state
        self._ending = False  # its process is about to end: it drains for good
        self._asked_to_drain = False  # by an operator, through the directory

    def start(self) -> None:
        """Begin to beat."""
        self._beating = asyncio.get_running_loop().create_task(self._beat_for_ever())

    def tell(self) -> None:
        """Shards came or went: the directory hears it at once."""
        self._news.set()

    async def drain(self, within_s: float) -> bool:
        """Give every shard away while others can take them; whether none is left."""
        self._state, self._ending, self._state_heard = "draining", True, False
        self.tell()
        deadline = time.monotonic() + within_s
        while self._host.route.shards and time.monotonic() < deadline:
            if not self._wishes.others and self._state_heard:
                return False
            await asyncio.sleep(DRAIN_LOOK_S)
        return not self._host.route.shards

    async def leave(self) -> None:
        """The host has closed: whatever it had is free."""
        if self._beating is not None:
            self._beating.cancel()
        for task in list(self._tasks):
            task.cancel()
        self._state = "leaving"
        with contextlib.suppress(DirectoryUnreachable, DirectoryRefused, TimeoutError):
            await asyncio.wait_for(self._directory.beat(self._report()), LEAVE_WITHIN_S)

    async def _beat_for_ever(self) -> None:
        while True:
            self._news.clear()
            state = self._state
            beat = asyncio.ensure_future(self._directory.beat(self._report()))
            news = asyncio.ensure_future(self._news.wait())
            try:
                await asyncio.wait({beat, news}, return_when=asyncio.FIRST_COMPLETED)
                if not beat.done():
                    continue
                self._wishes = beat.result()
                self._state_heard = state == self._state
                self._complain("")
                self._follow()
            except DirectoryUnreachable as error:
                self._complain(f"the directory is away, everything goes on as it is: {error}")
                await asyncio.sleep(PAUSE_S_MIN)
            except DirectoryRefused as error:
                self._complain(f"the directory refuses this host: {error}")
                await asyncio.sleep(self._heartbeat_s)
            finally:
                beat.cancel()
                news.cancel()

    def _complain(self, what: str) -> None:
        if what and what != self._complained:
            log.warning("%s", what)
        self._complained = what

    def _report(self) -> HostReport:
        route, engine = self._host.route, self._host.engine
        loads = {
            shard_id: len(shard.stock) + len(shard.reservations) for shard_id, shard in engine.books.shards.items()
        }
        return HostReport(
            route.host_id, self._node_id, route.endpoint, os.getpid(), self._started_ms, self._state,
            route.shards, route.epochs, loads, time.time_ns() // 1_000_000,
            engine.cluster_id, engine.timeline, engine.shard_count, tuple(sorted(self._moving)),
        )  # fmt: skip

    def _follow(self) -> None:
        wishes = self._wishes
        if wishes.drain != self._asked_to_drain and not self._ending:
            self._asked_to_drain = wishes.drain
            self._state = "draining" if wishes.drain else "serving"
        have = {*self._host.route.shards, *self._adopting, *self._moving}
        if fresh := [shard for shard in wishes.adopt if shard not in have]:
            self._adopting.update(fresh)
            self._do(self._adopt(fresh))
        for shard, owner_id, endpoint in wishes.take:
            if shard not in have:
                self._moving.add(shard)
                self._do(self._take(shard, owner_id, endpoint))

    def _do(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _adopt(self, shards: list[int]) -> None:
        began_at = time.monotonic()
        try:
            await self._host.adopt(shards)
            log.warning("adopted shards %s in %.2f s", shards, time.monotonic() - began_at)
        except Exception:
            log.exception("shards %s could not be adopted", shards)
        finally:
            self._adopting.difference_update(shards)
            self.tell()

    async def _take(self, shard: int, owner_id: str, endpoint: str) -> None:
        try:
            await self._host.move_here(shard, endpoint)
        except Exception:
            log.exception("shard %d could not be taken over from %s", shard, owner_id)
        finally:
            self._moving.discard(shard)
            self.tell()
