"""Rows of a PostgreSQL journal as the port's records, their checksums compared; and whether a shard ends where its head says."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from actors.journal.codec import record_checksum
from actors.journal.port import Fenced, JournalDamaged, Record, ShardHead
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


def owned_heads(link: Link, epochs: dict[int, int]) -> dict[int, ShardHead]:
    """Where shards end that were just taken over in these epochs, heads and last records of one moment.

    ``JournalDamaged`` unless each one's last record is the one that its head names. ``Fenced`` when somebody else took one
    over since: its epoch must not be taken for ours.
    """
    rows = link.rows(
        f"SELECT head.shard, head.epoch, head.record_number, head.sequence, head.time_ms, last.* FROM {SCHEMA}.shards "
        f"AS head LEFT JOIN LATERAL (SELECT {RECORD} FROM {SCHEMA}.records AS r WHERE r.shard = head.shard "
        "ORDER BY number DESC LIMIT 1) AS last ON true WHERE head.shard = ANY(%s)",
        (list(epochs),),
    )
    heads = {row[0]: ShardHead(*row[:5]) for row in rows}
    for shard, epoch in epochs.items():
        if heads[shard].epoch != epoch:
            raise Fenced(f"shard {shard} was taken over in epoch {epoch}, and again in {heads[shard].epoch}")
    for row in rows:
        if row[5] is None:
            continue  # none yet, or all of them dropped
        last = checked(row[5:])
        head = heads[last.shard]
        sequence = last.first_sequence + last.event_count - 1
        if (last.number, sequence) != (head.record_number, head.sequence) or last.epoch > head.epoch:
            raise JournalDamaged(
                f"{link.options.shown_url}: shard {head.shard} ends with record {last.number}, sequence {sequence}, epoch "
                f"{last.epoch}; its head says record {head.record_number}, sequence {head.sequence}, epoch {head.epoch}"
            )
    return heads
