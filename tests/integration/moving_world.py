"""Several shard hosts on one journal in memory, and callers that speak frames to them.

Whoever asks finds the host that has a shard, as a gateway would by the map, and tries again where it has moved.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from actors.domain.answers import ERROR
from actors.domain.outcomes import ErrorReason
from actors.domain.rules import Rules
from actors.journal.memory import MemoryStore, memory_store
from actors.journal.verify import verify
from actors.shard.host import ShardHost
from actors.shard.host_config import HostConfig
from actors.shard.placement import PLACEMENT_VERSION
from tests.integration.host_world import CLUSTER, SHARDS, TIMELINE, TOKEN, Gateway, HeldJournal, Hold, now_ms

MOVED = {int(ErrorReason.WRONG_OWNER), int(ErrorReason.SHARD_UNAVAILABLE)}
PATIENCE_S = 10.0


class Member:
    """One host, its journal's hold, and how its process would have ended."""

    def __init__(self, host_id: str, store: MemoryStore, shards: Sequence[int], rules: Rules, settings: Any) -> None:
        self.host_id = host_id
        self.hold = Hold()
        self.ends: list[tuple[int, str]] = []
        self.host = ShardHost(
            HostConfig(host_id, TOKEN, shards=tuple(shards), **({"link_frames_max": 10_000} | settings)),
            lambda: HeldJournal(store, self.hold),
            rules,
            end_process=lambda code, reason: self.ends.append((code, reason)),
            own_process=False,
        )
        self.gateway: Gateway

    async def start(self) -> Member:
        route = await self.host.start()
        self.gateway = await Gateway().connect(route.endpoint)
        await self.gateway.until(lambda: self.gateway.welcome is not None)
        return self

    @property
    def shards(self) -> list[int]:
        return sorted(self.host.engine.books.shards)

    async def ask(self, item: list[Any]) -> Any:
        [reply] = await self.gateway.ask(item)
        return reply

    async def close(self) -> None:
        self.hold.let_go()
        await self.gateway.close()
        await self.host.stop(1.0)


class Cluster:
    """Hosts by name."""

    def __init__(self, rules: Rules) -> None:
        self.store = memory_store(CLUSTER, TIMELINE, SHARDS, PLACEMENT_VERSION, now_ms())
        self.rules = rules
        self.members: dict[str, Member] = {}

    async def start(self, host_id: str, shards: Sequence[int] = (), **settings: Any) -> Member:
        member = self.members[host_id] = Member(host_id, self.store, shards, self.rules, settings)
        return await member.start()

    def __getitem__(self, host_id: str) -> Member:
        return self.members[host_id]

    async def ask(self, item: list[Any]) -> Any:
        """The item's reply, from whichever host has its shard by the time it is asked."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for member in list(self.members.values()):
                    if item[1] in member.host.engine.books.shards and not member.ends:
                        reply = await member.ask(item)
                        if reply[0] != ERROR or reply[1] not in MOVED:
                            return reply
                await asyncio.sleep(0.002)

    def owners(self) -> dict[int, str]:
        """Shard → host, as the hosts see it; a shard that two have is an error."""
        found: dict[int, str] = {}
        for member in self.members.values():
            if not member.ends:
                for shard in member.shards:
                    assert shard not in found, f"shard {shard} is at {found[shard]} and {member.host_id}"
                    found[shard] = member.host_id
        return found

    def check(self) -> None:
        """The journal holds together, and nothing was sold twice."""
        report = verify(HeldJournal(self.store, Hold()))
        assert report.ok, report.violations
        assert report.oversells == 0


@contextlib.asynccontextmanager
async def cluster(*host_ids: str, rules: Rules | None = None, **settings: Any) -> AsyncIterator[Cluster]:
    """Hosts with equal shares of the shards, warehouse's worth by warehouse's worth; checked and stopped at the end."""
    here = Cluster(rules or Rules())
    try:
        for number, host_id in enumerate(host_ids):
            shards = [shard for shard in range(SHARDS) if shard // 8 % len(host_ids) == number]
            await here.start(host_id, shards, **settings)
        yield here
        here.check()
    finally:
        for member in here.members.values():
            await member.close()
