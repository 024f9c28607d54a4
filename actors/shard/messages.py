"""What travels between gateway and shard host inside a frame: items, replies and their payloads, as msgpack arrays.

Owns the shapes (append only; versions N and N+1 talk to each other). The framing itself (length, version, CRC, hello,
token) is ``actors.shard.frames``; what the commands mean is ``actors.domain``.

Request frame   [REQUEST, frame_id, [item, …]]                      gateway → host
Reply frame     [REPLY, frame_id, host_time_ms, [reply, …]]          host → gateway, replies in the order of the items
Late frame      [LATE, frame_id, host_time_ms, index, reply]         host → gateway, instead of a reply that was PENDING
What an OK reply's payload is, by verb, and the refusal: ``actors.domain.answers``.

An item         [verb, shard, deadline_ms, weight, cause, body]      see ``Item``
A reply         [OK, replayed, payload] | [REFUSED, replayed, refusal] | [ERROR, reason, detail, retry_after_ms] | [PENDING, 0, ""]
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from actors.domain.answers import (
    AvailabilityView,
    ExceptionView,
    ExplanationView,
    Granted,
    IngestView,
    LineView,
    Page,
    RefusalView,
    ReplyStatus,
    ReservationView,
    StockView,
)
from actors.domain.commands import COMMANDS, Verb
from actors.domain.outcomes import ErrorReason

__all__ = [
    "ANY_SHARD",
    "COMMANDS",
    "AvailabilityView",
    "ErrorReason",
    "ExceptionView",
    "ExplanationView",
    "FrameKind",
    "Granted",
    "IngestView",
    "Item",
    "LineView",
    "Page",
    "RefusalView",
    "ReplyStatus",
    "ReservationView",
    "StockView",
    "Verb",
]

ANY_SHARD = -1  # an item for the whole host (lists)
HOST_ITEMS_MAX = 4000


class FrameKind(IntEnum):
    """First element of a frame."""

    HELLO = 1  # [HELLO, protocol_min, protocol_max, cluster_id, timeline, token, peer_name]
    WELCOME = 2  # [WELCOME, protocol, cluster_id, timeline, host_id, host_time_ms, [shard, …], [epoch, …]]
    GOODBYE = 3  # [GOODBYE, reason]
    REQUEST = 4
    REPLY = 5
    LATE = 6  # [LATE, frame_id, host_time_ms, index, reply], after a REPLY that said PENDING there (protocol 2)


class Item(NamedTuple):
    """One command on its way to a shard.

    ``shard``: the shard that decides it (home, or the stock key's), or ANY_SHARD. ``deadline_ms``: absolute, in the host's
    shard time; the host drops a late one undone (0: none). ``weight``: lines it costs (≥ 1). ``cause``:
    [principal, correlation_id, traceparent] or []. ``body``: the fields of ``COMMANDS[verb]``.
    """

    verb: int
    shard: int
    deadline_ms: int
    weight: int
    cause: Sequence[str]
    body: Sequence[Any]
