"""The host's side of its links: checks hellos, cuts frames into items, packs the replies of a frame into one.

A peer that sends what is no frame, or no hello, is told why and closed; the host is unharmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

from actors.domain.answers import PENDING, Reply, error
from actors.domain.outcomes import ErrorReason
from actors.shard import frames
from actors.shard.host_config import HostConfig
from actors.shard.messages import HOST_ITEMS_MAX, FrameKind

log = logging.getLogger(__name__)

REQUEST = int(FrameKind.REQUEST)
ITEM_FIELDS = 6
COMES_LATER: Reply = (PENDING, 0, "")
LATE_FROM_PROTOCOL = 2
HELLO_TIMEOUT_S = 5.0
REPLY_OVERHEAD_BYTES = 128  # a frame's head, and the error in the place of a reply
KEEPALIVE_S = 15  # a link whose gateway's machine is gone is dropped by the kernel after some of these


class Batch:
    """One request frame's items on their way through; it answers when the last reply is there."""

    __slots__ = ("frame_id", "left", "link", "replies")

    def __init__(self, link: HostLink, frame_id: int, size: int) -> None:
        self.link = link
        self.frame_id = frame_id
        self.left = size
        self.replies: list[Reply | None] = [None] * size

    def answer_run(self, index: int, replies: Sequence[Reply]) -> None:
        """Replies that follow each other, from ``index`` on."""
        self.replies[index : index + len(replies)] = replies
        self.left -= len(replies)
        if not self.left:
            self.link.send_replies(self.frame_id, self.replies)

    def answer(self, index: int, reply: Reply) -> None:
        """One reply is ready to go out; the frame goes when all are."""
        self.replies[index] = reply
        self.left -= 1
        if not self.left:
            self.link.send_replies(self.frame_id, self.replies)

    def defer(self, index: int) -> None:
        """This reply comes later: the frame goes without it, if its peer knows of such."""
        if self.link.speaks_late:
            self.answer(index, COMES_LATER)

    def answer_deferred(self, index: int, reply: Reply) -> None:
        """The reply of a slot that was deferred."""
        if not self.link.speaks_late:
            self.answer(index, reply)
        elif self.left:
            self.replies[index] = reply
        else:
            self.link.send_late(self.frame_id, index, reply)

    @property
    def gone(self) -> bool:
        """Whether nobody is there to be answered."""
        return self.link.closed


class LinkOwner:
    """What a link asks of its host; functions, so that no link holds the host."""

    __slots__ = ("accept", "closed", "config", "now_ms", "opened", "welcome")

    def __init__(
        self,
        config: HostConfig,
        *,
        welcome: Callable[[Sequence[Any]], bytes],
        accept: Callable[[Batch, Sequence[Sequence[Any]]], None],
        now_ms: Callable[[], int],
        opened: Callable[[HostLink], bool],
        closed: Callable[[HostLink], None],
    ) -> None:
        self.config = config
        self.welcome = welcome
        self.accept = accept
        self.now_ms = now_ms
        self.opened = opened
        self.closed = closed


class HostLink(asyncio.Protocol):
    """One connection of a gateway."""

    def __init__(self, owner: LinkOwner) -> None:
        self._owner = owner
        self._decoder = frames.FrameDecoder(frames.HELLO_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self.speaks_late = False
        self._unanswered = 0  # request frames
        self._paused = False
        self._hello_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not of asyncio's classes
        if not self._owner.opened(self):
            self.close("too many links")
            return
        with contextlib.suppress(OSError):
            connected = transport.get_extra_info("socket")
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
        self._hello_timer = asyncio.get_running_loop().call_later(HELLO_TIMEOUT_S, self.close, "no hello came")

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                self._receive(message)
        except frames.FrameError as bad:
            peer = self._transport.get_extra_info("peername") if self._transport is not None else None
            log.warning("closing a link: %s", bad, extra={"peer": str(peer)})
            self.close(str(bad))

    def _receive(self, message: Sequence[Any]) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if not self._greeted:
            answer = self._owner.welcome(message)  # raises FrameError when the hello is not to be believed
            self._greeted = True
            self.speaks_late = message[2] >= LATE_FROM_PROTOCOL
            self._decoder.bytes_max = frames.FRAME_BYTES_MAX
            if self._hello_timer is not None:
                self._hello_timer.cancel()
            self._transport.write(answer)
            return
        if message[0] != REQUEST or len(message) < 3 or not isinstance(message[2], list):  # noqa: PLR2004
            raise frames.FrameError("a request frame is [REQUEST, frame_id, [item, …]]")
        items = message[2]
        for item in items:
            if type(item) is not list or len(item) != ITEM_FIELDS:
                raise frames.FrameError("an item is [verb, shard, deadline_ms, weight, cause, body]")
            verb, shard, deadline_ms, weight, _, body = item
            if type(body) is not list:
                raise frames.FrameError("an item is [verb, shard, deadline_ms, weight, cause, body]")
            if not (type(verb) is int and type(shard) is int and type(deadline_ms) is int and type(weight) is int):
                raise frames.FrameError("an item's verb, shard, deadline and weight are integers")
            if not 1 <= weight <= HOST_ITEMS_MAX:
                raise frames.FrameError(f"an item weighs 1 to {HOST_ITEMS_MAX} lines")
        batch = Batch(self, message[1], len(items))
        self._unanswered += 1
        if items:
            if self._unanswered >= self._owner.config.link_frames_max and not self._paused:
                self._paused = True
                self._transport.pause_reading()
            self._owner.accept(batch, items)
        else:
            self.send_replies(batch.frame_id, ())

    def send_replies(self, frame_id: int, replies: Sequence[Reply | None]) -> None:
        """Send a frame of replies. A peer that does not read them for too long is cut off."""
        self._unanswered -= 1
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._paused:
            self._paused = False
            transport.resume_reading()
        try:
            frame = frames.encode_reply(frame_id, self._owner.now_ms(), replies)
        except frames.FrameError:
            frame = frames.encode_reply(frame_id, self._owner.now_ms(), _without_the_largest(replies))
        transport.write(frame)
        if transport.get_write_buffer_size() > self._owner.config.late_link_bytes_max:
            log.warning("cutting a link off: its replies are not read")
            transport.abort()

    def send_late(self, frame_id: int, index: int, reply: Reply) -> None:
        """Send one reply that was deferred."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            frame = frames.encode_late(frame_id, self._owner.now_ms(), index, reply)
        except frames.FrameError:
            frame = frames.encode_late(frame_id, self._owner.now_ms(), index, *_without_the_largest([reply]))
        transport.write(frame)
        if transport.get_write_buffer_size() > self._owner.config.late_link_bytes_max:
            log.warning("cutting a link off: its replies are not read")
            transport.abort()

    @property
    def closed(self) -> bool:
        """Whether nobody is there to be answered."""
        return self._transport is None or self._transport.is_closing()

    def close(self, reason: str) -> None:
        """Say goodbye and close."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(frames.goodbye(reason))
            transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        self._transport = None
        self._owner.closed(self)


def _without_the_largest(replies: Sequence[Reply | None]) -> list[Reply | None]:
    """What fits into one frame: only replies over an equal share of it are left out, so that a long page beside them
    does not hide what became of the others."""
    share = frames.REPLY_BYTES_MAX // len(replies) - REPLY_OVERHEAD_BYTES
    too_large = error(ErrorReason.INTERNAL, "the answer is too large for one frame: ask for smaller pages")
    return [too_large if frames.packed_bytes(reply) > share else reply for reply in replies]
