"""The asyncio shell around the core: connections to shard hosts, the directory's long poll, the clock, the wheel's
ticks.

Moves bytes and tells the core what happened. It decides nothing: which frame goes where, what is tried again and when a
call ends is ``gateway.core``; how a frame looks is ``actors.shard.frames``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

from actors.shard import frames
from actors.shard.directory import Directory, HostRoute, Routes
from actors.shard.messages import FrameKind
from gateway.config import (
    GATHER_QUIET_PASSES,
    LINK_BACKOFF_MS_MAX,
    LINK_BACKOFF_MS_MIN,
    LINK_CONNECT_MS_MAX,
    GatewayConfig,
)
from gateway.core import WHEEL_MS, Call, Core, Frame

DIRECTORY_POLL_SECONDS_MAX = 30.0  # a directory that says nothing for so long is asked again
DIRECTORY_PAUSE_SECONDS = 0.2  # after a failed or fruitless question
READ_BYTES_MAX = 256 * 1024

_REPLY = int(FrameKind.REPLY)
_LATE = int(FrameKind.LATE)
_WELCOME = int(FrameKind.WELCOME)
_GOODBYE = int(FrameKind.GOODBYE)

log = logging.getLogger(__name__)


class HostLinks:
    """All hosts of the map, each with one connection that is made anew for ever. ``ask`` is what servicers use."""

    def __init__(self, core: Core, directory: Directory, config: GatewayConfig) -> None:
        self.core = core
        self._directory = directory
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._said: Routes | None = None  # the directory's last word
        self._routes: Routes | None = None  # … with the hosts that it does not know again yet
        self._keepers: dict[str, tuple[HostRoute, asyncio.Task[None]]] = {}
        self._connections: dict[str, _Connection] = {}
        self._follower: asyncio.Task[None] | None = None
        self._gathering = False
        self._gathering_since = 0
        self._quiet_passes = 0  # passes of the loop since the last call came
        self._ticking = False
        self.changed = asyncio.Event()  # set whenever a link came up or went down, or the map changed
        self.on_routes: Callable[[Routes], None] = lambda _routes: None

    def now(self) -> int:
        """Milliseconds of the loop's monotonic clock: the clock of the core."""
        return int(self._loop.time() * 1000)

    def start(self) -> None:
        """Begin to follow the directory."""
        self._follower = self._loop.create_task(self._follow())

    async def stop(self) -> None:
        """Close every connection. Calls still under way end at their deadlines, so drain before."""
        tasks = [task for _, task in self._keepers.values()]
        if self._follower is not None:
            tasks.append(self._follower)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keepers.clear()

    @property
    def timeline(self) -> str:
        """The timeline of every position that hosts answer with; "" before the first welcome."""
        return self.core.timeline

    @property
    def cluster_id(self) -> str:
        """As the directory says; "" before the first map."""
        return self._routes.cluster_id if self._routes is not None else ""

    @property
    def saturated(self) -> bool:
        """See ``Core.saturated``."""
        return self.core.saturated

    def host_ids(self) -> list[str]:
        """See ``Core.host_ids``."""
        return self.core.host_ids()

    @property
    def host_count(self) -> int:
        """Hosts that are connected."""
        return len(self._connections)

    async def ask(
        self,
        items: list[list[Any]],
        *,
        deadline: int,
        size: int,
        weight: int,
        mutating: bool,
        host_id: str = "",
    ) -> Sequence[Any]:
        """Send items to their shards and wait for one reply each, in order. Never raises but when the caller has gone.

        ``deadline``: by this object's clock. A reply is ``actors.shard.messages``' or one of the core's own errors.
        """
        future: asyncio.Future[Sequence[Any]] = self._loop.create_future()

        def ended(call: Call) -> None:
            if not future.done():
                future.set_result(call.replies)

        now = int(self._loop.time() * 1000)
        # a little before the caller's own deadline, so that "no host" arrives as an answer
        patience = min(now + self._config.route_patience_ms, deadline - min(200, (deadline - now) // 10))
        call = Call(
            items,
            ended,
            deadline=deadline,
            size=size,
            weight=weight,
            mutating=mutating,
            patience=patience,
            host_id=host_id,
        )
        self.core.submit(call, now)
        if not call.done:
            self._quiet_passes = 0
            self._flush_soon(now)
            if not self._ticking:
                self._ticking = True
                self._loop.call_later(WHEEL_MS / 1000, self._tick)
        try:
            return await future
        except asyncio.CancelledError:
            self.core.cancel(call)
            raise

    # --- inside: from and to the core ---------------------------------------------------------------------------------

    def _flush_soon(self, now: int) -> None:
        if not self._gathering:
            self._gathering = True
            self._gathering_since = now
            self._loop.call_soon(self._gather)

    def _gather(self) -> None:
        """Pass after pass of the loop, until nothing more comes or the core says that it is enough: see
        ``Core.gathers``.
        """
        self._quiet_passes += 1
        if self._quiet_passes <= GATHER_QUIET_PASSES and self.core.gathers(self._gathering_since, self.now()):
            self._loop.call_soon(self._gather)
            return
        self._gathering = False
        self._flush()

    def _flush(self) -> None:
        for frame in self.core.take_frames(self.now()):
            connection = self._connections.get(frame.host_id)
            if connection is not None:
                connection.send(frame)

    def _tick(self) -> None:
        for host_id in self.core.tick(self.now()):
            log.warning("shard host %s is silent: reconnecting", host_id)
            connection = self._connections.get(host_id)
            if connection is not None:
                connection.abort()
        self._flush()
        if self.core.idle:
            self._ticking = False
        else:
            self._loop.call_later(WHEEL_MS / 1000, self._tick)

    def heard(self, host_id: str, message: Sequence[Any]) -> None:
        """A message from a welcomed host; the connection calls ``flush_after`` when it has passed all it read."""
        if message[0] == _REPLY:
            frames.check_reply(message)
            self.core.receive(host_id, message[1], message[2], message[3], self.now())
        elif message[0] == _LATE:
            frames.check_late(message)
            self.core.receive_late(host_id, message[1], message[2], message[3], message[4], self.now())
        elif message[0] == _GOODBYE:
            log.warning("shard host %s said goodbye: %s", host_id, message[1])

    def flush_after(self) -> None:
        """Send what gathered while frames were under way."""
        self._flush_soon(self.now())

    # --- inside: directory --------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Keep the map. A directory that is away changes nothing: hosts are reached as before."""
        complained = False
        while True:
            known = self._said.version if self._said is not None and not self.core.stale_routes else 0
            try:
                routes = await asyncio.wait_for(self._directory.routes(known), DIRECTORY_POLL_SECONDS_MAX)
            except TimeoutError:
                continue
            except Exception as error:  # noqa: BLE001  whatever its transport raises, it is away
                if not complained:
                    log.warning("the directory does not answer: %r", error)
                complained = True
                await asyncio.sleep(DIRECTORY_PAUSE_SECONDS)
                continue
            complained = False
            if routes != self._said:
                self._said = routes
                self._take(with_silent_hosts(routes, self._routes))
            elif known == 0:
                await asyncio.sleep(DIRECTORY_PAUSE_SECONDS)

    def _take(self, routes: Routes) -> None:
        self._routes = routes
        wanted = {host.host_id: host for host in routes.hosts}
        for host_id, (host, task) in list(self._keepers.items()):
            if host_id not in wanted or wanted[host_id].endpoint != host.endpoint or wanted[host_id].pid != host.pid:
                task.cancel()
                del self._keepers[host_id]
                self._down(host_id)
        self.on_routes(routes)
        self.core.set_routes(routes, self.now())
        self.changed.set()
        for host_id, host in wanted.items():
            if host_id not in self._keepers:
                self._keepers[host_id] = (host, self._loop.create_task(self._keep(host)))
        self._flush()

    # --- inside: connections ------------------------------------------------------------------------------------------

    async def _keep(self, host: HostRoute) -> None:
        """One host's connection, made again whenever it breaks, with a growing pause between failures."""
        backoff_ms = LINK_BACKOFF_MS_MIN
        while True:
            connection = None
            try:
                connection = await asyncio.wait_for(self._connect(host), LINK_CONNECT_MS_MAX / 1000)
                backoff_ms = LINK_BACKOFF_MS_MIN
                await connection.lost
            except frames.FrameError as error:
                log.warning("no link to shard host %s at %s: %s", host.host_id, host.endpoint, error)
            except (OSError, TimeoutError) as error:
                log.info("no link to shard host %s at %s: %r", host.host_id, host.endpoint, error)
            finally:
                if connection is not None:
                    connection.abort()
                    if self._connections.get(host.host_id) is connection:
                        self._down(host.host_id)
            await asyncio.sleep(backoff_ms / 1000)
            backoff_ms = min(backoff_ms * 2, LINK_BACKOFF_MS_MAX)

    async def _connect(self, host: HostRoute) -> _Connection:
        assert self._routes is not None
        address, _, port = host.endpoint.rpartition(":")
        connection = _Connection(self, host.host_id)
        await self._loop.create_connection(lambda: connection, address.strip("[]"), int(port))
        try:
            connection.say_hello(self._routes, self._config)
            welcome = frames.read_welcome(await connection.welcome)
            if welcome.cluster_id != self._routes.cluster_id or welcome.host_id != host.host_id:
                raise frames.FrameError(f"{host.endpoint} is host {welcome.host_id} of cluster {welcome.cluster_id}")
            if welcome.timeline != self._routes.timeline:
                raise frames.FrameError(
                    f"{host.endpoint} is of timeline {welcome.timeline}, the directory says {self._routes.timeline}"
                )
        except BaseException:
            connection.abort()
            raise
        self._connections[host.host_id] = connection
        self.core.link_up(
            host.host_id,
            timeline=welcome.timeline,
            host_time_ms=welcome.host_time_ms,
            shards=welcome.shards,
            now=self.now(),
        )
        self.changed.set()
        self._flush()
        log.info("linked to shard host %s at %s, %d shards", host.host_id, host.endpoint, len(welcome.shards))
        return connection

    def _down(self, host_id: str) -> None:
        connection = self._connections.pop(host_id, None)
        if connection is not None:
            connection.abort()
            self.core.link_down(host_id, self.now())
            self.changed.set()
            self._flush()


def with_silent_hosts(routes: Routes, before: Routes | None) -> Routes:
    """A new map and, of the one before, the hosts that it lacks, with the shards that nobody else has.

    A directory that came back empty hears of its hosts one by one. A route too many costs a retry, one too few an
    outage.
    """
    if before is None or before.cluster_id != routes.cluster_id or before.shard_count != routes.shard_count:
        return routes
    told = {host.host_id for host in routes.hosts}
    taken = {shard for host in routes.hosts for shard in host.shards}
    kept = []
    for host in before.hosts:
        left = [pair for pair in zip(host.shards, host.epochs, strict=True) if pair[0] not in taken]
        if host.host_id not in told and left:
            shards, epochs = zip(*left, strict=True)
            kept.append(host._replace(shards=shards, epochs=epochs))
    return routes._replace(hosts=(*routes.hosts, *kept))


class _Connection(asyncio.Protocol):
    """One TCP connection. Bytes in, messages to ``HostLinks``; a frame that does not hold together closes it."""

    def __init__(self, links: HostLinks, host_id: str) -> None:
        self._links = links
        self._host_id = host_id
        self._decoder = frames.FrameDecoder()
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self.welcome: asyncio.Future[Sequence[Any]] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def say_hello(self, routes: Routes, config: GatewayConfig) -> None:
        """The first message of a connection."""
        self._write(
            frames.hello(
                cluster_id=routes.cluster_id,
                timeline=routes.timeline,
                token=config.cluster_token,
                peer_name=config.name,
            )
        )

    def send(self, frame: Frame) -> None:
        """Send a request frame. At most two are in flight, so the transport's buffer is bounded."""
        self._write(frames.encode_request(frame.frame_id, frame.items))

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not of asyncio's classes
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                if self.welcome.done():
                    self._links.heard(self._host_id, message)
                elif message[0] in (_WELCOME, _GOODBYE):
                    self.welcome.set_result(message)
                else:
                    raise frames.FrameError(f"no welcome but {message[:2]!r}")
        except frames.FrameError as error:
            log.error("bad frame from shard host %s: %s", self._host_id, error)
            self._fail(error)
            return
        self._links.flush_after()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("the shard host closed the connection"))

    def _fail(self, error: Exception) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(error)
            self.welcome.exception()  # looked at: nobody may be waiting any more
        if not self.lost.done():
            self.lost.set_result(None)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
