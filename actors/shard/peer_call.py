"""A few questions to another host over a connection of their own, made for one purpose and closed after it.

For what happens now and then (a shard moves), where a link that is kept up for ever is not worth its keeping.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from actors.domain.answers import Reply
from actors.shard import frames
from actors.shard.messages import FrameKind

CONNECT_S_MAX = 2.0
READ_BYTES_MAX = 256 * 1024
WELCOME, REPLY = int(FrameKind.WELCOME), int(FrameKind.REPLY)


class PeerCall:
    """Make it with ``connect``; ``ask`` one thing at a time; ``close`` it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = frames.FrameDecoder()
        self._came: list[Sequence[Any]] = []
        self._frame_id = 0

    @classmethod
    async def connect(cls, endpoint: str, *, cluster_id: str, timeline: str, token: str, name: str) -> PeerCall:
        """Raises OSError, TimeoutError or FrameError, when there is no such host of this cluster."""
        address, _, port = endpoint.rpartition(":")
        async with asyncio.timeout(CONNECT_S_MAX):
            call = cls(*await asyncio.open_connection(address.strip("[]"), int(port)))
            try:
                call._writer.write(
                    frames.hello(cluster_id=cluster_id, timeline=timeline, token=token, peer_name=f"host:{name}")
                )
                message = await call._next()
                if message[0] != WELCOME or frames.read_welcome(message).cluster_id != cluster_id:
                    raise frames.FrameError(f"{endpoint} does not welcome us: {message!r}")
            except BaseException:
                call.close()
                raise
        return call

    async def ask(self, item: Sequence[Any], within_s: float) -> Reply:
        """The item's reply. Raises OSError, TimeoutError or FrameError: nobody knows then what became of it."""
        self._frame_id += 1
        self._writer.write(frames.encode_request(self._frame_id, [item]))
        async with asyncio.timeout(within_s):
            while True:
                message = await self._next()
                if message[0] != REPLY:
                    raise frames.FrameError(f"no reply but {message[:2]!r}")
                frames.check_reply(message)
                if message[1] == self._frame_id:
                    reply: Reply = message[3][0]
                    return reply

    async def _next(self) -> Sequence[Any]:
        while not self._came:
            data = await self._reader.read(READ_BYTES_MAX)
            if not data:
                raise ConnectionResetError("the host closed the connection")
            self._came += self._decoder.feed(data)
        return self._came.pop(0)

    def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()
