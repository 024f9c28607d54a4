"""Columns of a turn as PostgreSQL's arrays in binary: what an append sends. Owns the spelling, nothing else.

The format is that of ``array_send``: dimensions, whether there are NULLs (never), the element's type; then length and
lower bound of the one dimension; then each element with its length.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from actors.journal.codec import entry_checksum, record_checksum
from actors.journal.port import EntryRow, Record, ShardHead

INT4, INT8, TEXT, BYTEA = 23, 20, 25, 17

_HEAD = struct.Struct(">iiIii")
_EMPTY = struct.Struct(">iiI")
_LENGTH = struct.Struct(">i").pack


def turn_arrays(
    records: Sequence[Record], entries: Sequence[EntryRow], read_heads: Sequence[ShardHead]
) -> tuple[bytes, ...]:
    """A turn as the arrays that the database's ``append`` takes."""
    shards, numbers, epochs, firsts, counts, times, payloads = zip(*records, strict=True) if records else ((),) * 7
    read = _NONE_READ
    if read_heads:
        read_shards, read_epochs, read_numbers, _, _ = zip(*read_heads, strict=True)
        read = (int4s(read_shards), int8s(read_epochs), int8s(read_numbers))
    kept = _NO_ENTRIES
    if entries:
        last = {entry.key: entry for entry in entries}  # of a key twice in one turn the last one counts
        keys, key_shards, ids, entry_payloads, ends = zip(*last.values(), strict=True)
        checksums = [entry_checksum(entry) for entry in last.values()]
        kept = (texts(keys), int4s(key_shards), texts(ids), int8s(ends), int8s(checksums), byteas(entry_payloads))
    return (
        int4s(shards),
        int8s(numbers),
        int8s(epochs),
        int8s(firsts),
        int8s(counts),
        int8s(times),
        int8s([record_checksum(record) for record in records]),
        byteas(payloads),
        *read,
        *kept,
    )


def int4s(values: Sequence[int]) -> bytes:
    """``integer[]``."""
    return _numbers(values, INT4, 4, "i")


def int8s(values: Sequence[int]) -> bytes:
    """``bigint[]``."""
    return _numbers(values, INT8, 8, "q")


def texts(values: Sequence[str]) -> bytes:
    """``text[]``; the connection's encoding is UTF-8."""
    return _strings([value.encode() for value in values], TEXT)


def byteas(values: Sequence[bytes]) -> bytes:
    """``bytea[]``."""
    return _strings(values, BYTEA)


def _numbers(values: Sequence[int], element: int, size: int, letter: str) -> bytes:
    count = len(values)
    if not count:
        return _EMPTY.pack(0, 0, element)
    if count == 1:
        return _HEAD.pack(1, 0, element, 1, 1) + struct.pack(f">i{letter}", size, values[0])
    flat = [size] * (2 * count)
    flat[1::2] = values
    return _HEAD.pack(1, 0, element, count, 1) + struct.pack(">" + f"i{letter}" * count, *flat)


def _strings(values: Sequence[bytes], element: int) -> bytes:
    if not values:
        return _EMPTY.pack(0, 0, element)
    parts = [_HEAD.pack(1, 0, element, len(values), 1)]
    for value in values:
        parts.append(_LENGTH(len(value)))
        parts.append(value)
    return b"".join(parts)


_NONE_READ = (int4s(()), int8s(()), int8s(()))
_NO_ENTRIES = (texts(()), int4s(()), texts(()), int8s(()), int8s(()), byteas(()))
