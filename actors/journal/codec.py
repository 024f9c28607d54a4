"""How a record's events are spelled as bytes, and how its checksum is made. Golden bytes are kept by a test for ever.

A payload is msgpack of groups ``[[cause, [[kind, *fields], …]], …]``; kinds are those of ``actors.domain.events.EVENT_KINDS``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import google_crc32c
import msgpack

FORMAT_VERSION = 1
MINIMUM_READER_VERSION = 1
PAYLOAD_BYTES_MAX = 64 * 1024 * 1024  # a turn has at most 4,000 lines; anything larger is damage

_COLUMNS = struct.Struct("<BIQQQIq")  # format, shard, number, epoch, first sequence, event count, time


def encode_groups(groups: Sequence[Any]) -> bytes:
    """Groups of (cause, events) as a payload. Tuples and lists are the same bytes."""
    payload: bytes = msgpack.packb(groups, use_bin_type=True)
    return payload


def decode_groups(payload: bytes) -> list[Any]:
    """The groups of a payload, as lists. Raises ValueError when the bytes are not msgpack or absurdly large."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a record's payload of {len(payload)} bytes: more than any turn writes")
    groups: list[Any] = msgpack.unpackb(payload, raw=False, strict_map_key=False)
    return groups


def record_checksum(record: Sequence[Any]) -> int:
    """CRC32C over all columns of a record, in a fixed layout, and its payload."""
    shard, number, epoch, first_sequence, event_count, time_ms, payload = record
    head = _COLUMNS.pack(FORMAT_VERSION, shard, number, epoch, first_sequence, event_count, time_ms)
    checksum: int = google_crc32c.extend(google_crc32c.value(head), payload)
    return checksum
