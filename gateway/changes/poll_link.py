"""A connection to one shard host that carries long polls for changes and nothing else.

The links of ``gateway.links`` carry calls: a few frames under way, each soon answered. A poll that waits would take the place of
one of them and look like a silent host; so polls have a connection of their own, which the host accepts like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import Any, cast

from actors.domain.commands import Verb
from actors.shard import frames
from actors.shard.directory import HostRoute, Routes
from actors.shard.messages import ANY_SHARD, FrameKind

CONNECT_S_MAX = 2.0
POLLS_ON_LINK_MAX = 12  # a host stops reading a link at 16 unanswered frames
_REPLY, _WELCOME = int(FrameKind.REPLY), int(FrameKind.WELCOME)
_POLL = int(Verb.READ_CHANGES)


class PollLink(asyncio.Protocol):
    """Make it with ``connect``. ``lost`` is done when it is over; every poll under way then raises ConnectionError."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.welcome: asyncio.Future[Sequence[Any]] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._decoder = frames.FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._next_frame_id = 1
        self._room = asyncio.Semaphore(POLLS_ON_LINK_MAX)

    @classmethod
    async def connect(cls, host: HostRoute, routes: Routes, *, token: str, name: str) -> PollLink:
        """A link that was welcomed. Raises OSError, TimeoutError or FrameError."""
        link = cls()
        address, _, port = host.endpoint.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await asyncio.get_running_loop().create_connection(lambda: link, address.strip("[]"), int(port))
                link._write(
                    frames.hello(
                        cluster_id=routes.cluster_id, timeline=routes.timeline, token=token, peer_name=f"{name} changes"
                    )
                )
                welcome = frames.read_welcome(await link.welcome)
        except BaseException:
            link.abort()
            raise
        if welcome.cluster_id != routes.cluster_id or welcome.host_id != host.host_id:
            link.abort()
            raise frames.FrameError(f"{host.endpoint} is host {welcome.host_id} of cluster {welcome.cluster_id}")
        return link

    async def poll(self, timeline: str, places: Sequence[tuple[int, int]], weight_max: int, wait_ms: int) -> Any:
        """One poll's reply (``actors.shard.messages``). Raises ConnectionError when the link breaks first."""
        async with self._room:
            if self._transport is None or self._transport.is_closing():
                raise ConnectionResetError("the link is closed")
            frame_id = self._next_frame_id
            self._next_frame_id += 1
            answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._asked[frame_id] = answered
            try:
                body = [timeline, places, weight_max, wait_ms]
                self._write(frames.encode_request(frame_id, [[_POLL, ANY_SHARD, 0, 1, [], body]]))
                return await answered
            finally:
                self._asked.pop(frame_id, None)

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
                self._receive(message)
        except frames.FrameError as bad:
            self._end(bad)
            self.abort()

    def _receive(self, message: Sequence[Any]) -> None:
        if not self.welcome.done():
            self.welcome.set_result(message)
        elif message[0] == _REPLY:
            frames.check_reply(message)
            answered = self._asked.get(message[1])
            if answered is not None and not answered.done() and len(message[3]) == 1:
                answered.set_result(message[3][0])
        else:
            raise frames.FrameError("the host says goodbye")

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionResetError("the shard host closed the connection"))

    def _end(self, error: Exception) -> None:
        self._transport = None if self._transport is None or self._transport.is_closing() else self._transport
        if not self.welcome.done():
            self.welcome.set_exception(error)
            self.welcome.exception()  # looked at: nobody may be waiting any more
        for answered in self._asked.values():
            if not answered.done():
                answered.set_exception(ConnectionResetError(str(error)))
        if not self.lost.done():
            self.lost.set_result(None)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
