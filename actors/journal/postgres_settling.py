"""An append whose outcome nobody told us: was it committed or not? Asked once, on a new connection, under the shards' locks.

The old transaction may still be under way in the server. It holds the shards' rows until it ended, so whoever has locked
them knows that it has. What is found is made durable by our own commit before it is believed: it is behind the other one
in the server's log, and waits for the same standbys.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.journal.codec import record_checksum
from actors.journal.port import Fenced, JournalError, JournalWentBack, Record, ShardHead
from actors.journal.postgres_link import Link, LinkOptions, connect
from actors.journal.postgres_schema import SCHEMA


def settle(options: LinkOptions, records: Sequence[Record]) -> Link:
    """The new connection when all of it is durable. Otherwise an error: the owner ends, and appends nothing again.

    ``JournalError``: nothing of it was written (or it could not be found out). ``Fenced``: another owner came.
    ``JournalWentBack``: records acknowledged earlier are gone.
    """
    link = connect(options)
    try:
        stored, rows = _look(link, [record.shard for record in records], [record.number for record in records])
        for record in records:
            _judge(record, stored.get(record.shard), options.shown_url)
        written = [record for record in records if stored[record.shard].record_number == record.number]
        if not written:
            raise JournalError(f"{options.shown_url}: the append was not written")
        if len(written) != len(records) or any(rows.get(one[:2]) != (one, record_checksum(one)) for one in records):
            raise JournalWentBack(f"{options.shown_url} holds an append in part, or another in its place")
    except BaseException:
        link.close()
        raise
    return link


def _look(
    link: Link, shards: list[int], numbers: list[int]
) -> tuple[dict[int, ShardHead], dict[tuple[int, int], tuple[Record, int]]]:
    """Heads and records, locked, and durable when this returns."""
    columns = "shard, epoch, record_number, sequence, time_ms"
    with link.transaction():
        heads = link.rows(
            f"SELECT {columns} FROM {SCHEMA}.shards WHERE shard = ANY(%s) ORDER BY shard FOR UPDATE", (shards,)
        )
        found = link.rows(
            "SELECT r.shard, r.number, r.epoch, r.first_sequence, r.event_count, r.time_ms, r.payload, r.checksum "
            f"FROM {SCHEMA}.records AS r JOIN unnest(%s::integer[], %s::bigint[]) AS one (shard, number) "
            "USING (shard, number)",
            (shards, numbers),
        )
        link.rows(f"UPDATE {SCHEMA}.shards SET time_ms = time_ms WHERE shard = ANY(%s)", (shards,))
    rows = {(row[0], row[1]): (Record(*row[:-1]), row[-1]) for row in found}
    return {row[0]: ShardHead(*row) for row in heads}, rows


def _judge(record: Record, head: ShardHead | None, where: str) -> None:
    if head is None or head.record_number < record.number - 1:
        raise JournalWentBack(
            f"{where} went back: shard {record.shard} stood at record {record.number - 1} and stands at {head}"
        )
    if head.epoch != record.epoch or head.record_number > record.number:
        raise Fenced(f"{where}: shard {record.shard} was taken over: {head}, ours was epoch {record.epoch}")
