"""The directory of a cluster: which host runs which shard, who is silent, and who should run what.

Holds nothing that hosts do not tell it again with their next heartbeat, so it may die at any time and come back empty.
It dials nobody: what a host should do is the answer to its heartbeat, said again until it is done. It is a hint, never
the guard: that two hosts cannot own one shard is the journal's business. Which host is the best for a shard is
``actors.shard.placing``'s; how questions travel is ``directory_server``'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from actors.runtime.directory import InProcessDirectory
from actors.runtime.placing_now import adoptions, next_move
from actors.shard.directory import HostRoute, Routes

__all__ = ["ClusterDirectory", "DirectoryTimes", "HostReport", "HostWishes"]

MOVE_S_MAX = 30.0  # a move that takes longer is no longer waited for: another may begin
LOOK_INTERVAL_S_MAX = 0.25
OWNERLESS_BEATS_MAX = 2


class HostReport(NamedTuple):
    """What a host says of itself with each heartbeat. Plain data, append only.

    ``started_ms``: when its process began: a former process of the same name is not heard. ``state``: serving, draining
    (it takes nothing and gives its shards away), leaving (it has closed: whatever it had is free). ``loads``: shard →
    what it has to do, any unit. ``wall_ms``: its clock.
    """

    host_id: str
    node_id: str
    endpoint: str
    pid: int
    started_ms: int
    state: str
    shards: tuple[int, ...]
    epochs: tuple[int, ...]
    loads: Mapping[int, int]
    wall_ms: int
    cluster_id: str
    timeline: str
    shard_count: int
    moving: tuple[int, ...] = ()  # shards that it is taking over from a living host just now


class HostWishes(NamedTuple):
    """What a host should do now; what it does already it goes on with.

    ``adopt``: shards whose owner is dead. ``take``: [shard, owner's id, owner's endpoint], to be moved here. ``drain``:
    it should give everything away. ``others``: how many hosts could take its shards.
    """

    adopt: tuple[int, ...] = ()
    take: tuple[tuple[int, str, str], ...] = ()
    drain: bool = False
    others: int = 0


@dataclass(frozen=True, slots=True)
class DirectoryTimes:
    """``heartbeat_s``: how long an answer is kept back when there is nothing to do. ``dead_after_s``: of silence.
    ``placement_interval_s``: between two looks at who should run what."""

    heartbeat_s: float = 0.5
    dead_after_s: float = 2.5
    placement_interval_s: float = 1.0


@dataclass(slots=True)
class Known:
    """A host as it was last heard."""

    report: HostReport
    heard_at: float
    dead: bool = False
    drain: bool = False  # somebody asked for it
    skew_ms: int = 0  # its clock less ours, low by the time a heartbeat travels
    beats: int = 0


@dataclass(slots=True)
class Move:
    """A shard on its way."""

    shard: int
    source: str
    target: str
    began_at: float
    ownerless_beats: int = 0  # of the target, since the source gave the shard up, without a word of the move


class ClusterDirectory:
    """See the module's docstring. All methods are for one loop."""

    def __init__(
        self,
        times: DirectoryTimes,
        *,
        now: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._times = times
        self._now = now
        self._wall_ms = wall_ms
        self._hosts: dict[str, Known] = {}
        self._adopting: dict[int, str] = {}  # shard → who was asked to
        self._move: Move | None = None
        self._moved = 0
        self._adopted = 0
        self._routes = InProcessDirectory(first_version=wall_ms(), keep_idle=True)
        self._news = asyncio.Condition()
        self._began_at = now()
        self._wished: dict[str, HostWishes] = {}
        self._looked_at = 0.0
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look at the clock."""
        self._looking = asyncio.get_running_loop().create_task(self._look_for_ever())

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    # --- what hosts and gateways ask ----------------------------------------------------------------------------------

    async def beat(self, report: HostReport) -> HostWishes:
        """Note a heartbeat. The answer comes when there is something new to do, at the latest after a heartbeat's time.
        ValueError: it does not belong here."""
        refusal = self._refusal(report)
        if refusal:
            raise ValueError(refusal)
        host_id = report.host_id
        known = self._hosts.get(host_id)
        if known is None or known.report.pid != report.pid:
            if known is not None and known.report.started_ms > report.started_ms:
                return HostWishes()
            known = self._hosts[host_id] = Known(report, self._now())
        elif known.report.state == "leaving":
            return HostWishes()
        known.report, known.heard_at, known.dead = report, self._now(), report.state == "leaving"
        known.skew_ms = report.wall_ms - self._wall_ms()
        known.beats += 1
        self._note_move(report)
        route = HostRoute(host_id, report.endpoint, report.pid, report.shards, report.epochs)
        await self._routes.register(route, report.cluster_id, report.timeline, report.shard_count)
        answered = self._wished.get(host_id, HostWishes())
        await self.look()
        if report.state == "leaving":
            return HostWishes()
        async with self._news:
            try:
                async with asyncio.timeout(self._times.heartbeat_s):
                    await self._news.wait_for(lambda: self._wished.get(host_id, HostWishes()) != answered)
            except TimeoutError:
                pass
        return self._wished.get(host_id, HostWishes())

    async def host_died(self, host_id: str, pid: int) -> None:
        """Somebody who must know says that this process has ended."""
        known = self._hosts.get(host_id)
        if known is not None and known.report.pid == pid and not known.dead:
            known.dead = True
            await self.look()

    async def routes(self, after_version: int) -> Routes:
        """See ``actors.shard.directory.Directory``."""
        return await self._routes.routes(after_version)

    async def drain(self, host_id: str, *, drain: bool = True) -> bool:
        """Ask that a host gives its shards away (or takes some again). False: there is no such host."""
        known = self._hosts.get(host_id)
        if known is None:
            return False
        known.drain = drain
        await self.look()
        return True

    async def move_to(self, shard: int, host_id: str) -> bool:
        """Move one shard now. False when it cannot begin: unknown host, another move, nobody owns it."""
        owner = self._owner_of(shard)
        if self._move is not None or owner is None or owner == host_id or host_id not in self._living():
            return False
        self._move = Move(shard, owner, host_id, self._now())
        await self.look()
        return True

    def overview(self) -> dict[str, Any]:
        """For people: every host as it was last heard, and what is under way."""
        now = self._now()
        return {
            "hosts": [
                {
                    "host_id": host_id,
                    "node_id": known.report.node_id,
                    "endpoint": known.report.endpoint,
                    "pid": known.report.pid,
                    "state": "dead" if self._is_dead(known) else known.report.state,
                    "draining": known.drain,
                    "shards": len(self._shards_of(host_id)),
                    "silent_ms": int((now - known.heard_at) * 1000),
                    "clock_skew_ms": known.skew_ms,
                }
                for host_id, known in sorted(self._hosts.items())
            ],
            "adopting": {str(shard): host_id for shard, host_id in sorted(self._adopting.items())},
            "move": [self._move.shard, self._move.source, self._move.target] if self._move else [],
            "moved": self._moved,
            "adopted": self._adopted,
        }

    # --- who should do what -------------------------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        interval_s = min(LOOK_INTERVAL_S_MAX, self._times.dead_after_s / 10)
        while True:
            await asyncio.sleep(interval_s)
            await self.look()

    async def look(self) -> None:
        """Bring everybody's wishes up to date, and wake those who have new ones."""
        self._settle()
        self._adopt_orphans()
        self._balance()
        wished = {host_id: self._wishes_of(host_id) for host_id in self._hosts}
        if wished != self._wished:
            async with self._news:
                self._wished = wished
                self._news.notify_all()

    def _settle(self) -> None:
        """Strike what is done, and what cannot be done any more."""
        living = self._living()
        for shard, host_id in list(self._adopting.items()):
            owner = self._owner_of(shard)
            if owner is not None and owner in living:
                self._adopted += owner == host_id
                del self._adopting[shard]
            elif host_id not in living:
                del self._adopting[shard]
        move = self._move
        if move is None:
            return
        owner = self._owner_of(move.shard)
        if owner == move.target:
            self._moved += 1
            self._move = None
        elif move.target not in living or (owner is not None and owner != move.source):
            self._move = None
        elif owner is None and move.ownerless_beats > OWNERLESS_BEATS_MAX:
            self._move = None  # neither has it: whoever adopts it replays
        elif owner == move.source and (move.source not in living or self._now() - move.began_at > MOVE_S_MAX):
            self._move = None

    def _note_move(self, report: HostReport) -> None:
        """A move's target goes on with what it began, even when the source is gone: the journal decides."""
        move = self._move
        if move is not None and move.target == report.host_id and self._owner_of(move.shard) is None:
            move.ownerless_beats = 0 if move.shard in report.moving else move.ownerless_beats + 1

    def _adopt_orphans(self) -> None:
        """Shards without a living owner go to the living, all of a dead host at once. A directory that has just come up
        first hears everybody out."""
        if self._now() - self._began_at < self._times.dead_after_s or not self._shard_count:
            return
        living = self._living()
        willing = {host_id: known for host_id, known in living.items() if not self._drains(known)} or living
        if not willing:
            return
        under_way = {shard for known in living.values() for shard in known.report.moving}
        if self._move is not None:
            under_way.add(self._move.shard)
        orphans = [
            shard
            for shard in range(self._shard_count)
            if shard not in self._adopting and shard not in under_way and self._owner_of(shard) not in living
        ]
        if orphans:
            self._adopting.update(adoptions(orphans, self._loads(willing)))

    def _balance(self) -> None:
        """At most one move at a time, and none while shards lie idle."""
        now = self._now()
        if self._move is not None or self._adopting:
            return
        if now - self._looked_at < self._times.placement_interval_s and not self._anybody_drains():
            return
        self._looked_at = now
        living = self._living()
        draining = frozenset(host_id for host_id, known in living.items() if self._drains(known))
        found = next_move(self._loads(living), draining)
        if found is not None:
            shard, source, target = found
            self._move = Move(shard, source, target, now)

    def _wishes_of(self, host_id: str) -> HostWishes:
        known = self._hosts[host_id]
        if self._is_dead(known):
            return HostWishes()
        move = self._move
        take: tuple[tuple[int, str, str], ...] = ()
        if move is not None and move.target == host_id:
            take = ((move.shard, move.source, self._hosts[move.source].report.endpoint),)
        others = sum(1 for other, one in self._living().items() if other != host_id and not self._drains(one))
        adopt = tuple(sorted(shard for shard, target in self._adopting.items() if target == host_id))
        return HostWishes(adopt, take, known.drain, others)

    def _refusal(self, report: HostReport) -> str:
        """Why a host may not be in this cluster; empty when it may. Its shards would be somebody else's."""
        routes = self._routes.table.routes
        if not routes.cluster_id:
            return ""
        who = f"host {report.host_id} of node {report.node_id}"
        if report.cluster_id != routes.cluster_id:
            return f"{who} is of cluster {report.cluster_id}, this is {routes.cluster_id}: its journal.url names another database"
        if report.shard_count != routes.shard_count:
            return f"{who} has {report.shard_count} shards, this cluster has {routes.shard_count} for its life"
        others = [known for host_id, known in self._living().items() if host_id != report.host_id]
        if report.timeline != routes.timeline and any(one.report.timeline == routes.timeline for one in others):
            return (
                f"{who} is of timeline {report.timeline}, the cluster's hosts are of {routes.timeline}: one of them reads a "
                "journal from before a restore; look at journal.url, and restart what has the older one"
            )
        return ""

    # --- what is known ------------------------------------------------------------------------------------------------

    @property
    def _shard_count(self) -> int:
        return self._routes.table.routes.shard_count

    def _is_dead(self, known: Known) -> bool:
        return known.dead or self._now() - known.heard_at > self._times.dead_after_s

    def _living(self) -> dict[str, Known]:
        return {host_id: known for host_id, known in self._hosts.items() if not self._is_dead(known)}

    @staticmethod
    def _drains(known: Known) -> bool:
        return known.drain or known.report.state == "draining"

    def _anybody_drains(self) -> bool:
        return any(self._drains(known) for known in self._living().values())

    def _owner_of(self, shard: int) -> str | None:
        return self._routes.table.owners.get(shard)

    def _shards_of(self, host_id: str) -> list[int]:
        return [shard for shard, owner in self._routes.table.owners.items() if owner == host_id]

    def _loads(self, hosts: Mapping[str, Known]) -> dict[str, dict[int, int]]:
        """Host → shard → load, with what it was asked to adopt."""
        loads: dict[str, dict[int, int]] = {
            host_id: {shard: known.report.loads.get(shard, 0) for shard in self._shards_of(host_id)}
            for host_id, known in hosts.items()
        }
        for shard, host_id in self._adopting.items():
            if host_id in loads:
                loads[host_id].setdefault(shard, 0)
        return loads
