"""The directory port: which host runs which shard, at which endpoint and epoch.

A gateway long-polls it and keeps the last answer; nothing in the path of a request waits for it. The directory holds nothing
that is not in the journal's own table of shards, so it may die and come back empty: hosts register again.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable


class HostRoute(NamedTuple):
    """One shard host as gateways reach it. ``endpoint``: "host:port" of its frame listener."""

    host_id: str
    endpoint: str
    pid: int
    shards: tuple[int, ...]
    epochs: tuple[int, ...]  # beside ``shards``


class Routes(NamedTuple):
    """A version of the whole map; ``version`` grows with every change, within one life of the directory."""

    version: int
    cluster_id: str
    timeline: str
    shard_count: int
    hosts: tuple[HostRoute, ...]


class Directory(Protocol):
    """What gateways ask."""

    async def routes(self, after_version: int) -> Routes:
        """The map as soon as its version is not ``after_version`` (0: at once), at the latest after some seconds."""
        ...


@runtime_checkable
class Overseer(Protocol):
    """What operators ask of the directory of several hosts."""

    async def overview(self) -> dict[str, Any]:
        """ "hosts": every host as it was last heard; "adopting", "move": what is under way."""
        ...

    async def drain(self, host_id: str, *, drain: bool = True) -> bool:
        """Let a host give its shards away, or take some again. False: there is no such host."""
        ...
