"""What ``stockade journal info`` and the metrics show of a PostgreSQL journal. It counts what is cheap to count."""

from __future__ import annotations

from collections.abc import Sequence

from actors.journal.port import Header, JournalInfo, ShardHead
from actors.journal.postgres_link import Link, read_settings
from actors.journal.postgres_schema import SCHEMA

COUNTED_ROWS_MAX = 1_000_000  # of entries; beyond it: what the planner believes


def size_bytes(link: Link) -> int:
    """Of our tables with their indices."""
    [(size,)] = link.rows(
        "SELECT COALESCE(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class "
        "WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r'",
        (SCHEMA,),
    )
    return int(size)


def wall_ms(link: Link) -> int:
    """The server's clock now: not the start of a transaction."""
    [(now_ms,)] = link.rows("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
    return int(now_ms)


def info(link: Link, header: Header, heads: Sequence[ShardHead]) -> JournalInfo:
    """Records are counted by their numbers, which have no gaps."""
    firsts = dict(link.rows(f"SELECT shard, min(number) FROM {SCHEMA}.records GROUP BY shard"))
    [(snapshots,)] = link.rows(f"SELECT count(*) FROM {SCHEMA}.snapshots")
    return JournalInfo(
        kind="postgresql",
        location=link.options.shown_url,
        header=header,
        heads=tuple(heads),
        record_count=sum(head.record_number - firsts[head.shard] + 1 for head in heads if head.shard in firsts),
        entry_count=_count_entries(link),
        snapshot_count=snapshots,
        size_bytes=size_bytes(link),
        free_bytes=None,
        durability=" ".join(f"{name}={value or 'none'}" for name, value in read_settings(link).items()),
    )


def _count_entries(link: Link) -> int:
    [(believed,)] = link.rows(
        "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)", (f"{SCHEMA}.entries",)
    )
    if believed > COUNTED_ROWS_MAX:
        return int(believed)
    [(entries,)] = link.rows(f"SELECT count(*) FROM {SCHEMA}.entries")
    return int(entries)
