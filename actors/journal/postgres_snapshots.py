"""Writing and publishing snapshots in PostgreSQL, within the caller's transaction, fenced by the shard's epoch.

Owns that a former owner neither writes a slice nor publishes: the shard's row is locked until the transaction ends, so
nobody takes the shard over in between.
"""

from __future__ import annotations

from actors.journal.codec import slice_checksum, snapshot_checksum
from actors.journal.port import Fenced, JournalError, Snapshot, SnapshotSlice
from actors.journal.postgres_compaction import droppable
from actors.journal.postgres_link import Link
from actors.journal.postgres_schema import SCHEMA


def write_slice(link: Link, part: SnapshotSlice, epoch: int) -> None:
    """Store a slice, unless its snapshot is published already. ``Fenced``."""
    _hold_epoch(link, part.shard, epoch)
    shard, snapshot_id, number, sequence, record_number, payload = part
    link.rows(
        f"INSERT INTO {SCHEMA}.slices AS stored (shard, snapshot_id, slice_number, epoch, sequence, record_number, "
        "checksum, payload) SELECT %s, %s, %s, %s, %s, %s, %s, %s WHERE NOT EXISTS "
        f"(SELECT 1 FROM {SCHEMA}.snapshots WHERE shard = %s AND snapshot_id = %s) "
        "ON CONFLICT (shard, snapshot_id, slice_number) DO UPDATE SET epoch = excluded.epoch, "
        "sequence = excluded.sequence, record_number = excluded.record_number, checksum = excluded.checksum, "
        "payload = excluded.payload",
        (
            *(shard, snapshot_id, number, epoch, sequence, record_number),
            *(slice_checksum(part), payload, shard, snapshot_id),
        ),
    )


def publish(link: Link, snapshot: Snapshot, kept: int) -> None:
    """Make it usable, and drop what is older than the newest ``kept``. ``Fenced``; ``JournalError`` when slices lack."""
    shard, snapshot_id = snapshot.shard, snapshot.snapshot_id
    _hold_epoch(link, shard, snapshot.epoch)
    if link.rows(f"SELECT 1 FROM {SCHEMA}.snapshots WHERE shard = %s AND snapshot_id = %s", (shard, snapshot_id)):
        return
    [(slices,)] = link.rows(
        f"SELECT count(*) FROM {SCHEMA}.slices WHERE shard = %s AND snapshot_id = %s AND slice_number < %s "
        "AND epoch = %s",
        (shard, snapshot_id, snapshot.slice_count, snapshot.epoch),
    )
    if slices != snapshot.slice_count:
        raise JournalError(f"snapshot {snapshot_id} of shard {shard} has {slices} of {snapshot.slice_count} slices")
    link.rows(
        f"INSERT INTO {SCHEMA}.snapshots VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (*snapshot, snapshot_checksum(snapshot)),
    )
    _drop_older(link, shard, kept)


def _drop_older(link: Link, shard: int, kept: int) -> None:
    if not droppable(link, [shard]):
        return  # somebody reads; the next one drops them
    rows = link.rows(
        f"SELECT snapshot_id FROM {SCHEMA}.snapshots WHERE shard = %s ORDER BY snapshot_id DESC LIMIT %s", (shard, kept)
    )
    newest = [snapshot_id for (snapshot_id,) in rows]
    link.rows(f"DELETE FROM {SCHEMA}.snapshots WHERE shard = %s AND snapshot_id < %s", (shard, newest[-1]))
    link.rows(
        f"DELETE FROM {SCHEMA}.slices WHERE shard = %s AND snapshot_id < %s AND snapshot_id <> ALL(%s)",
        (shard, newest[0], newest),
    )


def _hold_epoch(link: Link, shard: int, epoch: int) -> None:
    rows = link.rows(f"SELECT epoch FROM {SCHEMA}.shards WHERE shard = %s FOR SHARE", (shard,))
    if rows != [(epoch,)]:
        raise Fenced(f"shard {shard} was owned in epoch {epoch}; it is {rows[0][0] if rows else None} now")
