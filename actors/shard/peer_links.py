"""Links from this host to the others: found through the directory port, made anew for ever, frames as gateways send them.

Carries items to another host and their replies back, and tells when a link broke. What is sent, and again, is
``host_peers``'; a link here is this host's own, so two hosts have one in each direction. A host without others has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

from actors.domain.answers import Reply
from actors.shard import frames
from actors.shard.directory import Directory, HostRoute, Routes
from actors.shard.messages import FrameKind

log = logging.getLogger(__name__)

REPLY, WELCOME, GOODBYE = int(FrameKind.REPLY), int(FrameKind.WELCOME), int(FrameKind.GOODBYE)
CONNECT_WITHIN_S = 2.0
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.05, 1.0
DIRECTORY_PAUSE_S = 0.2
DIRECTORY_POLL_S_MAX = 30.0
SILENCE_S_MAX = 3.0  # a link with unanswered frames on which nothing comes for so long is dead
PEER_NAME_PREFIX = "host:"

Replied = Callable[[Sequence[Reply] | None], None]  # None: the link broke, nobody knows


class PeerLinks:
    """All other hosts of the map. ``changed``: called when a link came up or the map changed."""

    def __init__(
        self,
        *,
        host_id: str,
        cluster_id: str,
        timeline: str,
        token: str,
        directory: Directory,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
    ) -> None:
        self.host_id = host_id
        self.hosts: dict[str, HostRoute] = {}  # the others, as the directory says
        self.routes: Routes | None = None
        self._hello = (cluster_id, timeline, token)
        self._directory = directory
        self._loop = loop
        self._changed = changed
        self._links: dict[str, _PeerLink] = {}
        self._keepers: dict[str, tuple[HostRoute, asyncio.Task[None]]] = {}
        self._follower: asyncio.Task[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin to follow the directory."""
        self._follower = self._loop.create_task(self._follow())

    async def stop(self) -> None:
        """Close every link."""
        self._stopped = True
        tasks = [task for _, task in self._keepers.values()]
        if self._follower is not None:
            tasks.append(self._follower)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keepers.clear()

    # --- asking -----------------------------------------------------------------------------------------------------------

    def up(self) -> list[str]:
        """Hosts that are linked now."""
        return list(self._links)

    def host_of(self, shard: int) -> str:
        """Which other host has a shard, as far as is known; empty: none."""
        return next((host.host_id for host in self.hosts.values() if shard in host.shards), "")

    def unanswered(self, host_id: str) -> int:
        """Frames under way to a host."""
        link = self._links.get(host_id)
        return len(link.waiting) if link is not None else 0

    def ask(self, host_id: str, items: Sequence[Any], replied: Replied) -> bool:
        """Send a frame of items; ``replied`` is called once. False: there is no link, and it is not called."""
        link = self._links.get(host_id)
        return link is not None and link.ask(items, replied)

    def watch(self) -> None:
        """Cut links off that are silent; called with every beat, which leaves one frame unanswered."""
        now_s = self._loop.time()
        for link in list(self._links.values()):
            if link.waiting and now_s - link.heard_s > SILENCE_S_MAX:
                log.warning("host %s is silent: its link is cut", link.host.host_id)
                link.abort()

    # --- directory --------------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Keep the map. A directory that is away changes nothing: hosts are reached as before."""
        complained = False
        version = 0
        while not self._stopped:  # ``wait_for`` may swallow a cancellation that comes with an answer
            try:
                routes = await asyncio.wait_for(self._directory.routes(version), DIRECTORY_POLL_S_MAX)
            except TimeoutError:
                continue
            except Exception as away:
                if not complained:
                    log.warning("the directory does not answer: %r", away)
                complained = True
                await asyncio.sleep(DIRECTORY_PAUSE_S)
                continue
            complained = False
            version = routes.version
            if routes != self.routes and not self._stopped:
                self._take(routes)

    def _take(self, routes: Routes) -> None:
        self.routes = routes
        self.hosts = {host.host_id: host for host in routes.hosts if host.host_id != self.host_id}
        for host_id, (host, task) in list(self._keepers.items()):
            known = self.hosts.get(host_id)
            if known is None or (known.endpoint, known.pid) != (host.endpoint, host.pid):
                task.cancel()
                del self._keepers[host_id]
                self._lost(host_id)
        for host_id, host in self.hosts.items():
            if host_id not in self._keepers:
                self._keepers[host_id] = (host, self._loop.create_task(self._keep(host)))
        self._changed()

    # --- links ------------------------------------------------------------------------------------------------------------

    async def _keep(self, host: HostRoute) -> None:
        """One host's link, made again whenever it breaks, with a growing pause between failures."""
        backoff_s = BACKOFF_S_MIN
        while self._is_wanted(host):
            link = _PeerLink(host, self._loop)
            try:
                await asyncio.wait_for(self._connect(link), CONNECT_WITHIN_S)
                backoff_s = BACKOFF_S_MIN
                if self._is_wanted(host):
                    await link.lost
            except (OSError, TimeoutError, frames.FrameError) as failed:
                log.info("no link to host %s at %s: %r", host.host_id, host.endpoint, failed)
            finally:
                link.abort()
                if self._links.get(host.host_id) is link:
                    self._lost(host.host_id)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)

    def _is_wanted(self, host: HostRoute) -> bool:
        known = self._keepers.get(host.host_id)
        return not self._stopped and known is not None and known[0] is host

    async def _connect(self, link: _PeerLink) -> None:
        host = link.host
        address, _, port = host.endpoint.rpartition(":")
        await self._loop.create_connection(lambda: link, address.strip("[]"), int(port))
        cluster_id, timeline, token = self._hello
        link.write(
            frames.hello(
                cluster_id=cluster_id, timeline=timeline, token=token, peer_name=f"{PEER_NAME_PREFIX}{self.host_id}"
            )
        )
        welcome = frames.read_welcome(await link.welcome)
        if (welcome.cluster_id, welcome.host_id) != (cluster_id, host.host_id):
            raise frames.FrameError(f"{host.endpoint} is host {welcome.host_id} of cluster {welcome.cluster_id}")
        if welcome.timeline != timeline:
            raise frames.FrameError(f"{host.endpoint} is in timeline {welcome.timeline}, this host in {timeline}")
        self._links[host.host_id] = link
        log.info("linked to host %s at %s", host.host_id, host.endpoint)
        self._changed()

    def _lost(self, host_id: str) -> None:
        link = self._links.pop(host_id, None)
        if link is not None:
            link.abort()
            link.give_up()


class _PeerLink(asyncio.Protocol):
    """One connection to another host."""

    def __init__(self, host: HostRoute, loop: asyncio.AbstractEventLoop) -> None:
        self.host = host
        self.waiting: dict[int, tuple[Replied, int]] = {}  # frame id → whom to tell, of how many items
        self.heard_s = loop.time()
        self.welcome: asyncio.Future[Sequence[Any]] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._decoder = frames.FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._next_frame_id = 1

    def ask(self, items: Sequence[Any], replied: Replied) -> bool:
        """Send a frame; False when it is too large for one."""
        if self._transport is None or self._transport.is_closing():
            return False
        frame_id = self._next_frame_id
        frame = frames.encode_request(frame_id, items)
        self._next_frame_id += 1
        if not self.waiting:
            self.heard_s = self._loop.time()  # silence is counted from the first frame that wants an answer
        self.waiting[frame_id] = (replied, len(items))
        self._transport.write(frame)
        return True

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def give_up(self) -> None:
        """Whoever waits for a reply hears that none will come."""
        waiting, self.waiting = self.waiting, {}
        for replied, _ in waiting.values():
            replied(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not of asyncio's classes
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.heard_s = self._loop.time()
        try:
            for message in self._decoder.feed(data):
                self._receive(message)
        except frames.FrameError as bad:
            log.error("bad frame from host %s: %s", self.host.host_id, bad)
            self._fail(bad)
            self.abort()

    def _receive(self, message: Sequence[Any]) -> None:
        if message[0] == GOODBYE:
            raise frames.FrameError(f"it said goodbye: {message[1]}")
        if not self.welcome.done():
            if message[0] != WELCOME:
                raise frames.FrameError(f"no welcome but {message[:2]!r}")
            self.welcome.set_result(message)
            return
        if message[0] != REPLY:
            raise frames.FrameError(f"no reply but {message[:2]!r}")
        frames.check_reply(message)
        replied, count = self.waiting.pop(message[1], (None, 0))
        if replied is None:
            return  # a doubled one
        if len(message[3]) != count:
            replied(None)
            raise frames.FrameError(f"{len(message[3])} replies to {count} items")
        replied(message[3])

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("the host closed the link"))

    def _fail(self, error: Exception) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(error)
        if not self.lost.done():
            self.lost.set_result(None)
