"""What retention allows to go from a PostgreSQL journal, a bounded piece at a time within the caller's transaction.

Owns which rows those are, not when, and not that two sound snapshots are there.
"""

from __future__ import annotations

from itertools import takewhile

from actors.journal.postgres_link import Link
from actors.journal.postgres_schema import SCHEMA


def covered_numbers(link: Link, shards: list[int], snapshots_kept: int) -> dict[int, int]:
    """Shard → the last record that all of its snapshots cover, of shards that have as many as are kept."""
    rows = link.rows(
        f"SELECT shard, min(lowest_record_number) FROM {SCHEMA}.snapshots WHERE shard = ANY(%s) GROUP BY shard "
        "HAVING count(*) >= %s",
        (shards, snapshots_kept),
    )
    return dict(rows)


def drop_records(link: Link, covered: dict[int, int], before_ms: int, most: int) -> int:
    """Drop each shard's oldest records; how many."""
    oldest = link.rows(
        "SELECT one.shard, one.number, first.time_ms FROM unnest(%s::integer[], %s::bigint[]) AS one (shard, number) "
        f"CROSS JOIN LATERAL (SELECT time_ms FROM {SCHEMA}.records AS r WHERE r.shard = one.shard "
        "AND r.number <= one.number ORDER BY r.number LIMIT 1) AS first",
        (list(covered), list(covered.values())),
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
