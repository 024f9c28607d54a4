"""Frames between gateway and host: ``u32 length | u8 version | u32 CRC32C | msgpack array``, big-endian.

The length counts what follows it and is bounded before anything is allocated. A frame that does not hold together raises
``FrameError``, and the connection is closed with a reason: nothing can be believed after it. The first frame is a hello with
cluster id, protocol range and token, answered by a welcome. What the arrays mean is ``actors.shard.messages``.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import google_crc32c
import msgpack

from actors.domain.answers import ERROR, PENDING, ReplyStatus
from actors.shard.messages import FrameKind

FRAME_BYTES_MAX = 1024 * 1024  # a turn's worth of items; larger batches are several frames
HELLO_BYTES_MAX = 4096  # before its hello a peer is a stranger, and gets no more room than a hello needs
REPLY_BYTES_MAX = 16 * 1024 * 1024  # a list's page of long orders is one reply
FRAME_VERSION = 1
PROTOCOL_MIN = 1
PROTOCOL_MAX = 2  # 2: replies may come later, see ``messages.FrameKind.LATE``

_STATUSES = frozenset(map(int, ReplyStatus))
_LENGTH = struct.Struct(">I")
_HEAD = struct.Struct(">BI")
_OVERHEAD = _HEAD.size


class FrameError(Exception):
    """The peer sent what is no frame, or not the one that had to come. The connection must be closed."""


class Hello(NamedTuple):
    """The first frame of a connection."""

    kind: int
    protocol_min: int
    protocol_max: int
    cluster_id: str
    timeline: str
    token: str
    peer_name: str


class Welcome(NamedTuple):
    """The answer to a hello that was believed."""

    kind: int
    protocol: int
    cluster_id: str
    timeline: str
    host_id: str
    host_time_ms: int
    shards: list[int]
    epochs: list[int]


def encode(message: Sequence[Any], bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """A message as one frame. Raises FrameError when it is too large: splitting is the sender's work."""
    payload: bytes = msgpack.packb(message, use_bin_type=True)
    length = len(payload) + _OVERHEAD
    if length > bytes_max:
        raise FrameError(f"a frame of {length} bytes is over the bound of {bytes_max}")
    return _LENGTH.pack(length) + _HEAD.pack(FRAME_VERSION, google_crc32c.value(payload)) + payload


def packed_bytes(value: Any) -> int:
    """How many bytes a part of a message takes in its frame."""
    return len(msgpack.packb(value, use_bin_type=True))


def encode_request(frame_id: int, items: Sequence[Any]) -> bytes:
    """A request frame of items."""
    return encode((int(FrameKind.REQUEST), frame_id, items))


def encode_reply(frame_id: int, host_time_ms: int, replies: Sequence[Any]) -> bytes:
    """A reply frame, its replies in the order of the request's items."""
    return encode((int(FrameKind.REPLY), frame_id, host_time_ms, replies), REPLY_BYTES_MAX)


def encode_late(frame_id: int, host_time_ms: int, index: int, reply: Any) -> bytes:
    """One reply of a frame that was answered before, PENDING in this place."""
    return encode((int(FrameKind.LATE), frame_id, host_time_ms, index, reply), REPLY_BYTES_MAX)


def hello(*, cluster_id: str, timeline: str, token: str, peer_name: str) -> bytes:
    """The first frame that a gateway sends."""
    return encode((int(FrameKind.HELLO), PROTOCOL_MIN, PROTOCOL_MAX, cluster_id, timeline, token, peer_name))


def goodbye(reason: str) -> bytes:
    """Why the connection is closed, for the other side's log."""
    return encode((int(FrameKind.GOODBYE), reason))


def read_hello(message: Sequence[Any], *, cluster_id: str, token: str, timeline: str = "") -> Hello:
    """Check a hello. Raises FrameError with the reason: a wrong token, another cluster or timeline, no common protocol.

    A peer that does not know the timeline yet says none, and learns it from the welcome.
    """
    if message[0] != FrameKind.HELLO or len(message) < len(Hello._fields):
        raise FrameError("the first frame must be a hello")
    said = Hello(*message[: len(Hello._fields)])
    if not isinstance(said.token, str) or not hmac.compare_digest(said.token.encode(), token.encode()):
        raise FrameError("the token is not this cluster's")
    if said.cluster_id != cluster_id:
        raise FrameError(f"this is cluster {cluster_id}, not {said.cluster_id!r}")
    if timeline and said.timeline and said.timeline != timeline:
        raise FrameError(
            f"this is timeline {timeline} of the cluster, not {said.timeline!r}: it was restored in between"
        )
    if not (isinstance(said.protocol_min, int) and isinstance(said.protocol_max, int)):
        raise FrameError("the protocol range must be two numbers")
    if said.protocol_max < PROTOCOL_MIN or said.protocol_min > PROTOCOL_MAX:
        raise FrameError(
            f"protocols {PROTOCOL_MIN} to {PROTOCOL_MAX} are spoken here, not {said.protocol_min} to {said.protocol_max}: "
            "upgrade the older side, one release at a time"
        )
    return said


def welcome(  # noqa: PLR0913  the parts of one message
    *,
    cluster_id: str,
    timeline: str,
    host_id: str,
    host_time_ms: int,
    shards: Sequence[int],
    epochs: Sequence[int],
    protocol: int = PROTOCOL_MAX,
) -> bytes:
    """The answer to a hello."""
    return encode(
        Welcome(
            int(FrameKind.WELCOME),
            protocol,
            cluster_id,
            timeline,
            host_id,
            host_time_ms,
            list(shards),
            list(epochs),
        )
    )


def read_welcome(message: Sequence[Any]) -> Welcome:
    """Check a welcome; FrameError with the host's reason when it said goodbye."""
    if message[0] == FrameKind.GOODBYE:
        raise FrameError(f"refused: {message[1]}")
    if message[0] != FrameKind.WELCOME or len(message) < len(Welcome._fields):
        raise FrameError("no welcome")
    said = Welcome(*message[: len(Welcome._fields)])
    texts = (said.cluster_id, said.timeline, said.host_id)
    numbers = (said.protocol, said.host_time_ms)
    if not (all(type(text) is str for text in texts) and all(type(number) is int for number in numbers)):
        raise FrameError("a welcome that does not say who and when")
    if not (_whole_numbers(said.shards) and _whole_numbers(said.epochs)):
        raise FrameError("a welcome's shards and epochs must be numbers")
    return said


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def check_reply(message: Sequence[Any]) -> None:
    """Raises FrameError unless it is a whole reply frame. What the payloads hold is their readers' business."""
    if len(message) < 4 or type(message[1]) is not int or type(message[2]) is not int:  # noqa: PLR2004
        raise FrameError("a reply frame is [REPLY, frame_id, host_time_ms, [reply, …]]")
    replies = message[3]
    if not isinstance(replies, list):
        raise FrameError("a reply frame holds a list of replies")
    for reply in replies:
        if not isinstance(reply, list) or len(reply) < 3 or type(reply[0]) is not int or reply[0] not in _STATUSES:  # noqa: PLR2004
            raise FrameError("a reply is [status, …]")
        if reply[0] == ERROR and not (len(reply) > 3 and type(reply[1]) is int and type(reply[3]) is int):  # noqa: PLR2004
            raise FrameError("an error is [ERROR, reason, detail, retry_after_ms]")


def check_late(message: Sequence[Any]) -> None:
    """Raises FrameError unless it is a whole late frame."""
    if len(message) < 5 or type(message[3]) is not int:  # noqa: PLR2004
        raise FrameError("a late frame is [LATE, frame_id, host_time_ms, index, reply]")
    check_reply((*message[:3], [message[4]]))
    if message[4][0] == PENDING:
        raise FrameError("a late reply that is to come later")


class FrameDecoder:
    """Bytes in, messages out, however the bytes are cut. Holds at most one frame that is not whole yet.

    ``bytes_max`` may be changed between messages.
    """

    def __init__(self, bytes_max: int = REPLY_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self.bytes_max = bytes_max

    def feed(self, data: bytes) -> Iterator[Sequence[Any]]:
        """The messages that are whole now. Raises FrameError at the first that cannot be one."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if not _OVERHEAD < length <= self.bytes_max:
                    raise FrameError(f"a frame of {length} bytes cannot be")
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    break
                message = _decode(buffer, start + _LENGTH.size, end)
                start = end
                yield message
        finally:
            if start:
                del buffer[:start]


def _decode(buffer: bytearray, start: int, end: int) -> Sequence[Any]:
    version, checksum = _HEAD.unpack_from(buffer, start)
    if version != FRAME_VERSION:
        raise FrameError(f"frame version {version} is not spoken here")
    payload = bytes(memoryview(buffer)[start + _OVERHEAD : end])
    if google_crc32c.value(payload) != checksum:
        raise FrameError("a frame's checksum is wrong")
    try:
        message = msgpack.unpackb(payload, raw=False, strict_map_key=False)
    except (ValueError, TypeError, OverflowError, MemoryError, RecursionError, msgpack.UnpackException) as error:
        raise FrameError(f"a frame is not msgpack: {error}") from error
    if not isinstance(message, list) or len(message) < 2 or not isinstance(message[0], int):  # noqa: PLR2004
        raise FrameError("a frame must be an array that starts with its kind")
    return message
