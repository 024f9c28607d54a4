"""How what is journaled is spelled as bytes, and how its checksums are made. Golden bytes are kept by a test for ever.

A payload is msgpack of groups ``[[cause, [[kind, *fields], …]], …]``; kinds are those of
``actors.domain.events.EVENT_KINDS``. Plain warehouse events are spelled shorter, as runs: ``actors.journal.fact_runs``. What is
inside slices and entry rows belongs to ``actors.shard.encoding``: here they are plain bytes with a checksum.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import google_crc32c
import msgpack

from actors.journal.fact_runs import without_runs

FORMAT_VERSION = 1  # of columns and checksums; which payloads a version can read: ``actors.journal.versions``
PAYLOAD_BYTES_MAX = 64 * 1024 * 1024  # a turn has at most 4,000 lines; anything larger is damage
ARRAY_LENGTH_MAX = 1 << 20  # events of a group; hostile bytes cannot ask for a longer list than this

_COLUMNS = struct.Struct("<BIQQQIq")  # format, shard, number, epoch, first sequence, event count, time
_ENTRY = struct.Struct("<BBIqII")  # tag, format, shard, end of window, length of key, length of reservation id
_SLICE = struct.Struct("<BBIQIQQ")  # tag, format, shard, snapshot id, slice number, sequence, record number
_SNAPSHOT = struct.Struct("<BBIQIQQQqQ")  # tag, format, and the columns of ``port.Snapshot``


def encode_groups(groups: Sequence[Any]) -> bytes:
    """Groups of (cause, events) as a payload. Tuples and lists are the same bytes."""
    payload: bytes = msgpack.packb(groups, use_bin_type=True)
    return payload


def decode_groups(payload: bytes) -> list[Any]:
    """The groups of a payload, as lists. Raises ValueError when the bytes are not msgpack, hold a map, or are absurdly
    large.
    """
    groups: list[Any] = _decode(payload, list)
    return groups


def decode_groups_as_tuples(payload: bytes) -> tuple[Any, ...]:
    """As ``decode_groups``, but tuples all the way down: cheaper to make, can be hashed, cannot be changed."""
    groups: tuple[Any, ...] = _decode(payload, tuple)
    return groups


def no_map(_pairs: Any) -> Any:
    """msgpack's hook where nothing is stored as a map; a bound of no elements would let an empty one through."""
    raise ValueError("it holds a map")


def _decode(payload: bytes, sequence: type) -> Any:
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a record's payload of {len(payload)} bytes: more than any turn writes")
    try:
        groups = msgpack.unpackb(
            payload,
            raw=False,
            use_list=sequence is list,
            max_array_len=min(len(payload), ARRAY_LENGTH_MAX),
            max_map_len=0,
            max_ext_len=0,
            object_pairs_hook=no_map,
        )
    except (msgpack.UnpackException, msgpack.StackError) as error:  # some of them are no ValueError
        raise ValueError(f"a record's payload is not a journal's msgpack: {error!r}") from error
    if not isinstance(groups, sequence):
        raise ValueError(f"a record's payload is {type(groups).__name__}, not groups of events")
    return without_runs(groups, sequence)


def record_checksum(record: Sequence[Any]) -> int:
    """CRC32C over all columns of a record, in a fixed layout, and its payload."""
    shard, number, epoch, first_sequence, event_count, time_ms, payload = record
    head = _COLUMNS.pack(FORMAT_VERSION, shard, number, epoch, first_sequence, event_count, time_ms)
    checksum: int = google_crc32c.extend(google_crc32c.value(head), payload)
    return checksum


def entry_checksum(entry: Sequence[Any]) -> int:
    """CRC32C over all columns of a row of the entries table."""
    key, shard, reservation_id, payload, end_time_ms = entry
    key_bytes, id_bytes = key.encode(), reservation_id.encode()
    head = _ENTRY.pack(ord("E"), FORMAT_VERSION, shard, end_time_ms, len(key_bytes), len(id_bytes))
    checksum: int = google_crc32c.value(head + key_bytes + id_bytes + payload)
    return checksum


def slice_checksum(part: Sequence[Any]) -> int:
    """CRC32C over all columns of a snapshot's slice."""
    *columns, payload = part
    checksum: int = google_crc32c.extend(google_crc32c.value(_SLICE.pack(ord("S"), FORMAT_VERSION, *columns)), payload)
    return checksum


def snapshot_checksum(snapshot: Sequence[Any]) -> int:
    """CRC32C over all columns of a published snapshot's row."""
    checksum: int = google_crc32c.value(_SNAPSHOT.pack(ord("P"), FORMAT_VERSION, *snapshot))
    return checksum
