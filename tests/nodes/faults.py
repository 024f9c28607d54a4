"""The faults of a cluster, one after the other: each strikes, lasts, is healed, and is measured by who was served when.

What a fault must not do (oversell, lose, do twice) is for the judges at the end; here is only how long nobody could sell.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.faults import passing
from tests.nodes.load import Pulses
from tests.nodes.member import DIRECTORY
from tests.nodes.nodes import POSTGRES, Nodes, NotServing, Say

LOOK_INTERVAL_S = 0.05
HEALED_WITHIN_S = 120.0
MOVES_WITHIN_S = 300.0
GOAL_PROCESS_S = 3.0  # a host process died
GOAL_CUT_S = 15.0  # a node was cut off, paused, or lost


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long what lasts lasts, seconds."""

    cut_s: float = 8.0
    pause_s: float = 8.0
    away_s: float = 6.0


LONG = Lengths(cut_s=30.0, pause_s=90.0, away_s=20.0)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a fault cost. ``silence_s``: the longest time in which nobody could sell from some warehouse, from the strike to
    the healing. ``goal_s``: at most so long; 0: none was set. ``healed_s``: from the end of the fault until every gateway
    served every warehouse and every shard had an owner."""

    fault: str
    silence_s: float
    worst: str
    goal_s: float
    lasted_s: float
    healed_s: float
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def within_goal(self) -> bool:
        return not self.goal_s or self.silence_s <= self.goal_s


@dataclass(frozen=True, slots=True)
class Fault:
    """``strike`` does it and undoes it. ``goal_s`` counts from when it struck."""

    name: str
    strike: Callable[[Strikes], Awaitable[dict[str, Any] | None]]
    goal_s: float = 0.0


class Strikes:
    """What faults may do to the nodes."""

    def __init__(self, nodes: Nodes, lengths: Lengths) -> None:
        self.nodes = nodes
        self.lengths = lengths

    async def kill_host(self) -> dict[str, Any]:
        """``kill -9`` of one host process; it is started again by itself and gets its share back."""
        return await self._kill(await self._busiest())

    async def kill_gateway(self) -> dict[str, Any]:
        return await self._kill("gateway-1")

    async def kill_node(self) -> dict[str, Any]:
        """A machine that is gone, and comes back after a while: nobody reports it dead."""
        return await self._lose(self.nodes.of_node(1))

    async def kill_head(self) -> dict[str, Any]:
        """The head's machine with all that is on it."""
        return await self._lose(self.nodes.of_node(0))

    async def kill_directory(self) -> dict[str, Any]:
        """Only the directory: nothing that serves needs it."""
        return await self._lose([DIRECTORY])

    async def cut_from_postgres(self) -> dict[str, Any]:
        return await self._cut(["host-1"], [POSTGRES])

    async def cut_from_directory(self) -> dict[str, Any]:
        """Node 1 does not reach the head any more; everything else does."""
        return await self._cut(["host-1", "gateway-1"], [DIRECTORY])

    async def cut_from_gateways(self) -> dict[str, Any]:
        """No gateway reaches host 1."""
        return await self._cut(["host-1"], self.nodes.gateways)

    async def cut_off(self) -> dict[str, Any]:
        """Node 1 reaches nobody, and nobody reaches it."""
        mine = ["host-1", "gateway-1"]
        everybody = [*self.nodes.hosts, *self.nodes.gateways, DIRECTORY, POSTGRES]
        return await self._cut(mine, [name for name in everybody if name not in mine])

    async def pause_host(self) -> dict[str, Any]:
        """SIGSTOP, long after others have taken its shards SIGCONT."""
        victim = await self._busiest()
        member = self.nodes.members[victim]
        pid = member.pid
        member.send(signal.SIGSTOP)
        await passing(self.lengths.pause_s)
        owned = [shard for shard, owner in (await self.nodes.owners()).items() if owner == victim]
        member.send(signal.SIGCONT)
        await until(30.0, lambda: member.pid != pid or not member.running)
        return {"victim": victim, "owned_at_the_end_of_the_pause": len(owned), "exit": member.last_code}

    async def restart_postgres(self) -> dict[str, Any]:
        """It crashes, and is started again: every host's connection breaks."""
        await asyncio.to_thread(self.nodes.postgres.crash)
        await asyncio.to_thread(self.nodes.postgres.start)
        return {}

    async def move_everything(self) -> dict[str, Any]:
        """Every shard goes to the next host, one after the other, under traffic."""
        nodes = self.nodes
        begun = await nodes.owners()
        hosts = nodes.hosts
        deadline = time.monotonic() + MOVES_WITHIN_S
        for shard, owner in sorted(begun.items()):
            target = hosts[(hosts.index(owner) + 1) % len(hosts)]
            while (await nodes.owners()).get(shard) != target:
                if time.monotonic() > deadline:
                    raise NotServing(f"shard {shard} did not get from {owner} to {target}: {await nodes.overview()}")
                await nodes.directory.move_to(shard, target)
                await asyncio.sleep(LOOK_INTERVAL_S)
        return {"moved": len(begun)}

    async def _kill(self, victim: str) -> dict[str, Any]:
        """Until it is started again."""
        member = self.nodes.members[victim]
        starts = member.starts
        member.kill()
        await until(HEALED_WITHIN_S, lambda: member.starts > starts and member.port is not None)
        return {"victim": victim}

    async def _lose(self, names: list[str]) -> dict[str, Any]:
        members = [self.nodes.members[name] for name in names]
        for member in members:
            member.down = True
            member.kill()
        await passing(self.lengths.away_s)
        for member in members:
            await member.start()
        return {"victim": ", ".join(names)}

    async def _cut(self, names: list[str], others: list[str]) -> dict[str, Any]:
        pids = {name: self.nodes.members[name].pid for name in names}
        self.nodes.cut(names, others)
        await passing(self.lengths.cut_s)
        self.nodes.heal(names, others)
        again = [name for name, pid in pids.items() if self.nodes.members[name].pid != pid]
        return {"victim": ", ".join(names), "ended_by_themselves": again}

    async def _busiest(self) -> str:
        """The host with most shards."""
        owners = list((await self.nodes.owners()).values())
        return max(self.nodes.hosts, key=lambda host: (owners.count(host), host))


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("kill a host process", Strikes.kill_host, GOAL_PROCESS_S),
        Fault("kill a gateway", Strikes.kill_gateway, GOAL_PROCESS_S),
        Fault("kill a node", Strikes.kill_node, GOAL_CUT_S),
        Fault("cut a node from PostgreSQL", Strikes.cut_from_postgres, GOAL_CUT_S),
        Fault("cut a node from the head", Strikes.cut_from_directory, GOAL_CUT_S),
        Fault("cut a host from all gateways", Strikes.cut_from_gateways),
        Fault("cut a node off", Strikes.cut_off, GOAL_CUT_S),
        Fault("pause a host", Strikes.pause_host, GOAL_CUT_S),
        Fault("kill the directory", Strikes.kill_directory, GOAL_PROCESS_S),
        Fault("kill the head", Strikes.kill_head),
        Fault("restart PostgreSQL", Strikes.restart_postgres),
        Fault("move every shard once", Strikes.move_everything, GOAL_PROCESS_S),
    )
}


class Injector:
    """Strikes, waits for the healing, measures."""

    def __init__(self, nodes: Nodes, pulses: Pulses, warehouses: tuple[str, ...], lengths: Lengths, say: Say) -> None:
        self._nodes = nodes
        self._pulses = pulses
        self._warehouses = warehouses
        self._strikes = Strikes(nodes, lengths)
        self._say = say

    async def inflict(self, fault: Fault) -> Measured:
        """NotServing when something does not come back."""
        began_at = time.monotonic()
        notes = await fault.strike(self._strikes) or {}
        ended_at = time.monotonic()
        await self._nodes.wait_serving(HEALED_WITHIN_S)
        await self._everybody_served_since(ended_at)
        healed_at = time.monotonic()
        silences = {one: self._pulses.longest_silence(one, began_at, healed_at) for one in self._warehouses}
        worst = max(silences, key=lambda one: silences[one])
        return Measured(
            fault.name, silences[worst], worst, fault.goal_s, ended_at - began_at, healed_at - ended_at, notes
        )

    async def _everybody_served_since(self, moment: float) -> None:
        """Every warehouse over every connection."""
        connections = set(range(self._nodes.count))

        def lacking() -> list[str]:
            return [
                f"{warehouse} over {sorted(connections - served)}"
                for warehouse in self._warehouses
                if (served := self._pulses.connections_since(warehouse, moment)) < connections
            ]

        if not await until(HEALED_WITHIN_S, lambda: not lacking()):
            raise NotServing(f"not served after {HEALED_WITHIN_S:g} s: {', '.join(lacking())}")


async def until(within_s: float, holds: Callable[[], bool]) -> bool:
    """Wait until it holds, within bounds; whether it does."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_INTERVAL_S)
    return True
