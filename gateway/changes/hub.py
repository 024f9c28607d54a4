"""Follows the change feed of every shard host while somebody here wants it, and tells those who do.

One poll a host is under way at any time, however many read: what comes goes to the tails (readers take from them at their own
pace), to listeners of single stock keys, and nowhere else. Nothing is asked of a host while nobody is interested. A reader that
is older than the tails asks the host for itself, through the same connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from actors.domain.answers import OK
from actors.shard import frames
from actors.shard.directory import HostRoute, Routes
from gateway.changes.poll_link import PollLink
from gateway.changes.tails import Chunk, Tails

FROM_OLDEST, FROM_NOW = -1, -2  # instead of a sequence, in a poll's places
WHOLE, RESYNC_TIMELINE, RESYNC_TOO_OLD, RESYNC_AHEAD = 0, 1, 2, 3  # a poll's result

FOLLOW_WAIT_MS = 250  # how stale the picture gets while nothing changes
FOLLOW_WEIGHT_MAX = 8_000
ANSWER_MS_MAX = 4_000  # beyond what a poll waits: then its link counts as dead
RECONNECT_PAUSE_S = 0.1
LINGER_S = 10.0  # after the last one left: a client that reconnects finds everything as it was
TAIL_BYTES_MAX = 64 * 1024 * 1024  # some 300,000 changes

log = logging.getLogger(__name__)

# (result, [(shard, up to, chunks), …], whether any host answered)
Asked = tuple[int, list[tuple[int, int, list[Chunk]]], bool]


class Listener(Protocol):
    """Hears of every change as it comes."""

    def heard(self, chunk: Chunk) -> None:
        """The changes of one record."""
        ...

    def fresh(self) -> None:
        """How fresh the picture is has changed (``ChangeHub.as_of``)."""
        ...

    def lost(self) -> None:
        """What was heard does not connect with what comes: ask anew."""
        ...


class AsOf:
    """How fresh what came from a host is. ``mono_ms``: by the gateway's clock; everything that was durable by then is here."""

    __slots__ = ("mono_ms", "shard_ms")

    def __init__(self) -> None:
        self.mono_ms = 0
        self.shard_ms = 0


class ChangeHub:
    """The change feed as one gateway knows it. ``now``: milliseconds of the gateway's monotonic clock."""

    def __init__(self, *, token: str, name: str, now: Callable[[], int], tail_bytes_max: int = TAIL_BYTES_MAX) -> None:
        self.tails = Tails(tail_bytes_max)
        self.timeline = ""
        self.listeners: dict[Listener, None] = {}
        self.epochs: dict[int, int] = {}  # of each shard's owner, as told with its changes
        self.polls = 0
        self.closed = False
        self.readers = 0  # streams of changes: what comes is encoded at once
        self._token = token
        self._name = name
        self._now = now
        self._routes: Routes | None = None
        self._users = 0
        self._followers: dict[str, tuple[HostRoute, asyncio.Task[None]]] = {}
        self._links: dict[str, PollLink] = {}
        self._as_of: dict[str, AsOf] = {}
        self._host_of_shard: dict[int, str] = {}
        self._news = asyncio.Event()
        self._linger: asyncio.TimerHandle | None = None

    # --- who wants it ----------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Somebody is interested from now on; ``leave`` when no longer."""
        self._users += 1
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._follow_all()

    @contextmanager
    def used(self) -> Iterator[None]:
        """``enter`` and ``leave`` around something."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """One less; the last one lets the hosts rest after a while."""
        self._users -= 1
        if self._users == 0:
            self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._rest)

    def _rest(self) -> None:
        self._linger = None
        if self._users == 0:
            self._stop_followers()
            self.tails.clear()
            self._as_of.clear()

    def close(self) -> None:
        """The gateway stops: whoever waits for news hears that there will be none."""
        self.closed = True
        for listener in self.listeners:
            listener.lost()
        self._tell()

    async def stop(self) -> None:
        """End everything."""
        if self._linger is not None:
            self._linger.cancel()
        tasks = [task for _, task in self._followers.values()]
        self._stop_followers()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop_followers(self) -> None:
        for _, task in self._followers.values():
            task.cancel()
        self._followers.clear()

    # --- the map ---------------------------------------------------------------------------------------------------------

    def set_routes(self, routes: Routes) -> None:
        """A new map of hosts."""
        if self._routes is not None and self._routes.timeline != routes.timeline:
            self._lose()
        self._routes = routes
        self.timeline = routes.timeline
        self._host_of_shard = {shard: host.host_id for host in routes.hosts for shard in host.shards}
        if self._users or self._linger is not None:
            self._follow_all()

    def _follow_all(self) -> None:
        routes = self._routes
        if routes is None:
            return
        wanted = {host.host_id: host for host in routes.hosts}
        for host_id, (host, task) in list(self._followers.items()):
            if wanted.get(host_id) != host:
                task.cancel()
                del self._followers[host_id]
        for host_id, host in wanted.items():
            if host_id not in self._followers:
                task = asyncio.get_running_loop().create_task(self._follow(host, routes))
                self._followers[host_id] = (host, task)

    @property
    def shards(self) -> list[int]:
        """Every shard of the map."""
        return sorted(self._host_of_shard)

    @property
    def ready(self) -> bool:
        """Whether every shard is followed."""
        tails = self.tails.by_shard
        return bool(self._host_of_shard) and all(shard in tails for shard in self._host_of_shard)

    def places(self) -> dict[int, int]:
        """How far every shard is known here."""
        return {shard: tail.upto for shard, tail in self.tails.by_shard.items()}

    def as_of(self) -> tuple[int, int]:
        """(by the gateway's clock, in shard time): everything that was durable by then is in the tails. 0: not known."""
        known = [self._as_of.get(host_id) for host_id in set(self._host_of_shard.values())]
        if not known or any(one is None for one in known):
            return (0, 0)
        return (
            min(one.mono_ms for one in known if one is not None),
            min(one.shard_ms for one in known if one is not None),
        )

    async def wait(self, timeout_s: float) -> bool:
        """Wait for news (changes, or how fresh it is); False when none came."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    # --- asking a host ---------------------------------------------------------------------------------------------------

    async def ask(self, places: Mapping[int, int], weight_max: int) -> Asked:
        """What follows the places, straight from the hosts, for one reader: (result, [(shard, up to, chunks), …], whether any
        host answered). A host that is away tells nothing now."""
        by_host: dict[str, list[tuple[int, int]]] = {}
        for place in places.items():
            by_host.setdefault(self._host_of_shard.get(place[0], ""), []).append(place)
        found: list[tuple[int, int, list[Chunk]]] = []
        answered = False
        for host_id, asked in by_host.items():
            link = self._links.get(host_id)
            if link is None:
                continue
            try:
                async with asyncio.timeout(ANSWER_MS_MAX / 1000):
                    reply = await link.poll(self.timeline, asked, weight_max, 0)
            except (TimeoutError, OSError, frames.FrameError):
                continue
            if reply[0] != OK:
                continue
            answered = True
            result, timeline, _, _, _, told, resync = reply[2][:7]
            if result != WHOLE:
                return (result, [], True)
            assert not resync
            found += [(shard, upto, self._chunks(timeline, shard, packed)) for shard, upto, packed, *_ in told]
        return (WHOLE, found, answered)

    @staticmethod
    def _chunks(timeline: str, shard: int, packed: Sequence[bytes]) -> list[Chunk]:
        return [Chunk(timeline, shard, one) for one in packed]

    # --- following a host ------------------------------------------------------------------------------------------------

    async def _follow(self, host: HostRoute, routes: Routes) -> None:
        """One host's feed, for ever; a broken connection is made anew and goes on where it was."""
        while True:
            link = None
            try:
                link = await PollLink.connect(host, routes, token=self._token, name=self._name)
                self._links[host.host_id] = link
                await self._poll_on(host, link)
            except (OSError, TimeoutError, frames.FrameError) as failed:
                log.info("the change feed of %s broke: %r", host.host_id, failed)
            except (
                Exception
            ):  # a host of another version may say what we do not understand: readers must not wait in silence
                log.exception("the change feed of %s cannot be followed", host.host_id)
            finally:
                if link is not None:
                    link.abort()
                    if self._links.get(host.host_id) is link:
                        del self._links[host.host_id]
            await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _poll_on(self, host: HostRoute, link: PollLink) -> None:
        tails = self.tails.by_shard
        while True:
            places = [(shard, tails[shard].upto if shard in tails else FROM_NOW) for shard in host.shards]
            sent_ms = self._now()
            async with asyncio.timeout((FOLLOW_WAIT_MS + ANSWER_MS_MAX) / 1000):
                wait_ms = FOLLOW_WAIT_MS if all(place[1] >= 0 for place in places) else 0
                reply = await link.poll(self.timeline, places, FOLLOW_WEIGHT_MAX, wait_ms)
            self.polls += 1
            if reply[0] != OK:
                await asyncio.sleep(max(RECONNECT_PAUSE_S, reply[3] / 1000))
                continue
            result, timeline, as_of_ms, offset_ms, whole, told, _ = reply[2][:7]
            if result != WHOLE:
                log.warning("the change feed of %s does not go on from here: beginning anew", host.host_id)
                self._lose(host.shards)
                if result == RESYNC_TIMELINE:
                    self.timeline = timeline
                continue
            self._take(host, timeline, told)
            if whole:
                as_of = self._as_of.setdefault(host.host_id, AsOf())
                as_of.mono_ms = sent_ms + offset_ms
                as_of.shard_ms = as_of_ms
                for listener in self.listeners:
                    listener.fresh()
            self._tell()

    def _take(self, host: HostRoute, timeline: str, told: Sequence[Any]) -> None:
        tails = self.tails
        for shard, upto, packed, *epoch in told:
            if epoch:
                self.epochs[shard] = epoch[0]
            if shard not in tails.by_shard:
                tails.begin(shard, upto)
                continue
            fresh = tails.extend(shard, upto, self._chunks(timeline, shard, packed))
            for chunk in fresh:
                for listener in self.listeners:
                    listener.heard(chunk)
                chunk.settle(encode=self.readers > 0)

    def _lose(self, shards: Sequence[int] | None = None) -> None:
        """What comes next does not follow on what is here."""
        if shards is None:
            self.tails.clear()
        else:
            for shard in shards:
                self.tails.drop(shard)
        self._as_of.clear()
        for listener in self.listeners:
            listener.lost()
        self._tell()
