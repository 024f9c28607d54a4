"""Rows of a PostgreSQL journal as the port's records, their checksums compared; and whether a shard ends where its head says."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from actors.journal.codec import record_checksum
from actors.journal.port import JournalDamaged, Record, ShardHead
from actors.journal.postgres_link import Link
from actors.journal.postgres_schema import SCHEMA

RECORD = "shard, number, epoch, first_sequence, event_count, time_ms, payload, checksum"


def checked(row: tuple[Any, ...]) -> Record:
    """A record; ``JournalDamaged`` when it is not as it was written."""
    record = Record(*row[:-1])
    if not sound(record_checksum, record, row[-1]):
        raise JournalDamaged(f"shard {record.shard}: record {record.number} has a wrong CRC")
    return record


def sound(checksum_of: Callable[[Sequence[Any]], int], columns: Sequence[Any], checksum: int) -> bool:
    """Whether a row has the checksum it was written with. One that cannot even be summed was never written so."""
    try:
        return checksum_of(columns) == checksum
    except (struct.error, TypeError, AttributeError):
        return False


def check_heads(link: Link, heads: dict[int, ShardHead]) -> None:
    """Raise ``JournalDamaged`` unless each shard's last record is the one its head names."""
    rows = link.rows(
        f"SELECT last.* FROM unnest(%s::integer[]) AS one (shard) CROSS JOIN LATERAL (SELECT {RECORD} FROM "
        f"{SCHEMA}.records AS r WHERE r.shard = one.shard ORDER BY number DESC LIMIT 1) AS last",
        (list(heads),),
    )
    for row in rows:
        last = checked(row)
        head = heads[last.shard]
        sequence = last.first_sequence + last.event_count - 1
        if (last.number, sequence) != (head.record_number, head.sequence) or last.epoch > head.epoch:
            raise JournalDamaged(
                f"{link.options.shown_url}: shard {head.shard} ends with record {last.number}, sequence {sequence}, epoch "
                f"{last.epoch}; its head says record {head.record_number}, sequence {head.sequence}, epoch {head.epoch}"
            )
