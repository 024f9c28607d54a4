"""What retention allows to go from a PostgreSQL journal, a bounded piece at a time within the caller's transaction, and how
a reader keeps it from going.

Owns which rows those are, not when, and not that two sound snapshots are there. A reader holds a shared advisory lock a
shard; whoever would drop something of a shard tries for it alone, and leaves the shard for another time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import takewhile

from actors.journal.postgres_link import Link
from actors.journal.postgres_schema import LOCK_KEY, SCHEMA


def covered_numbers(link: Link, shards: list[int], snapshots_kept: int) -> dict[int, int]:
    """Shard → the last record that all of its snapshots cover, of shards that have as many as are kept."""
    rows = link.rows(
        f"SELECT shard, min(lowest_record_number) FROM {SCHEMA}.snapshots WHERE shard = ANY(%s) GROUP BY shard "
        "HAVING count(*) >= %s",
        (shards, snapshots_kept),
    )
    return dict(rows)


@contextlib.contextmanager
def holding(link: Link, shard_count: int) -> Iterator[None]:
    """Nothing of any shard is dropped within it, or as long as the connection lives."""
    shards = "generate_series(0, %s - 1) AS shard"
    link.rows(f"SELECT pg_advisory_lock_shared(%s, shard) FROM {shards}", (LOCK_KEY, shard_count))
    try:
        yield
    finally:
        link.rows(f"SELECT pg_advisory_unlock_shared(%s, shard) FROM {shards}", (LOCK_KEY, shard_count))


def droppable(link: Link, shards: list[int]) -> list[int]:
    """Shards of which something may be dropped until the transaction ends."""
    rows = link.rows(
        "SELECT shard FROM unnest(%s::integer[]) AS shard WHERE pg_try_advisory_xact_lock(%s, shard)",
        (shards, LOCK_KEY),
    )
    return [shard for (shard,) in rows]


def drop_records(link: Link, covered: dict[int, int], shards: list[int], before_ms: int, most: int) -> int:
    """Drop the oldest records of these shards; how many."""
    wanted = [shard for shard in shards if shard in covered]
    oldest = link.rows(
        "SELECT one.shard, one.number, first.time_ms FROM unnest(%s::integer[], %s::bigint[]) AS one (shard, number) "
        f"CROSS JOIN LATERAL (SELECT time_ms FROM {SCHEMA}.records AS r WHERE r.shard = one.shard "
        "AND r.number <= one.number ORDER BY r.number LIMIT 1) AS first",
        (wanted, [covered[shard] for shard in wanted]),
    )
    dropped = 0
    for shard, last_covered, time_ms in oldest:
        if time_ms >= before_ms or dropped >= most:
            continue
        rows = link.rows(
            f"SELECT number, time_ms FROM {SCHEMA}.records WHERE shard = %s AND number <= %s ORDER BY number LIMIT %s",
            (shard, last_covered, most - dropped),
        )
        old = [number for number, _ in takewhile(lambda row: row[1] < before_ms, rows)]
        link.rows(f"DELETE FROM {SCHEMA}.records WHERE shard = %s AND number <= %s", (shard, old[-1]))
        dropped += len(old)
    return dropped


def drop_entries(link: Link, shards: list[int], before_ms: int, most: int) -> int:
    """Drop the entries whose window ended first; how many. Another host may do the same: each leaves the other's alone."""
    rows = link.rows(
        f"WITH old AS (SELECT key FROM {SCHEMA}.entries WHERE end_time_ms < %s AND shard = ANY(%s) "
        f"ORDER BY end_time_ms LIMIT %s FOR UPDATE SKIP LOCKED) "
        f"DELETE FROM {SCHEMA}.entries AS stored USING old WHERE stored.key = old.key RETURNING 1",
        (before_ms, shards, most),
    )
    return len(rows)
