"""How a cursor is spelled: a timeline, how fresh it is, and a sequence for every shard. Opaque to callers, checked by a CRC.

A cursor covers, of each shard, every change up to its sequence. ``time_ms``: every change that happened before that shard time
is covered, so the age of a cursor bounds how long its reader has been behind.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

import google_crc32c
import msgpack

CURSOR_VERSION = 1
CURSOR_BYTES_MAX = 64 * 1024  # 4,096 shards of 9 bytes, as text
_CRC_BYTES = 4


class Cursor(NamedTuple):
    """``sequences``: shard → covered up to there; 0 or absent: from its first change on; −1: from the oldest that is kept."""

    timeline: str
    time_ms: int
    sequences: Mapping[int, int]

    def text(self) -> str:
        """As callers keep it."""
        return cursor_text(self.timeline, self.time_ms, self.sequences)


def cursor_text(timeline: str, time_ms: int, sequences: Mapping[int, int]) -> str:
    """A cursor as callers keep it."""
    count = max(sequences, default=-1) + 1
    body: bytes = msgpack.packb(
        (CURSOR_VERSION, timeline, time_ms, [sequences.get(shard, 0) for shard in range(count)]), use_bin_type=True
    )
    return base64.urlsafe_b64encode(body + google_crc32c.value(body).to_bytes(_CRC_BYTES, "big")).decode().rstrip("=")


def read_cursor(text: str) -> Cursor | None:
    """A cursor from its text; None when it is not one of ours, whole and unchanged."""
    if not text or len(text) > CURSOR_BYTES_MAX or not text.isascii():
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    body, crc = raw[:-_CRC_BYTES], raw[-_CRC_BYTES:]
    if len(raw) <= _CRC_BYTES or google_crc32c.value(body).to_bytes(_CRC_BYTES, "big") != crc:
        return None
    try:
        fields: Any = msgpack.unpackb(body, raw=False)
    except (ValueError, msgpack.UnpackException):
        return None
    if not (isinstance(fields, list) and len(fields) >= 4 and fields[0] == CURSOR_VERSION):
        return None
    timeline, time_ms, sequences = fields[1:4]
    return Cursor(timeline, time_ms, dict(enumerate(sequences)))
