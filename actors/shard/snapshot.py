"""Sliced snapshots: a shard's entities encoded a few at a time, between turns, each slice with the sequence it saw.

Deciding how much a slice holds is done by count, so that one takes about a millisecond. The shell writes the slices on the
journal's thread and publishes the snapshot once its highest sequence is durable.

Which entity is in which slice is fixed when the snapshot begins, by listing the keys of every entity there is then. Entities
made later are replayed from their creation; one that is gone when its turn comes is noted as gone. (A partition by a hash of
the key would need that hash on every event, or a pass over all entities a slice.)
"""

from __future__ import annotations

from typing import Any

from actors.domain.state import ShardState
from actors.journal.port import Snapshot, SnapshotSlice
from actors.shard.encoding import (
    Tag,
    encode_claims,
    encode_entry,
    encode_exception,
    encode_reservation,
    encode_shard,
    encode_stock,
    pack,
)
from actors.shard.engine import Engine

ENTITIES_PER_SLICE = 250


class Snapshotter:
    """One snapshot of one shard under way."""

    def __init__(self, engine: Engine, shard_id: int, now_ms: int) -> None:
        shard = engine.books.shards[shard_id]
        self._engine = engine
        self._shard = shard
        self._snapshot_id = shard.sequence
        self._time_ms = now_ms
        self._keys: list[tuple[int, Any]] = [(int(Tag.SHARD), "")]
        self._keys += [(int(Tag.STOCK), key) for key in shard.stock]
        self._keys += [(int(Tag.CLAIMS), (key, one)) for key, actor in shard.stock.items() for one in actor.claims]
        self._keys += [(int(Tag.RESERVATION), one) for one in shard.reservations]
        self._keys += [(int(Tag.ENTRY), key) for key in shard.entries]
        self._keys += [(int(Tag.EXCEPTION), one) for one in shard.exceptions]
        self._at = 0
        self._slices = 0
        self._lowest = (shard.sequence, shard.record_number)
        self._highest = shard.sequence

    def next_slice(self) -> SnapshotSlice | None:
        """Encode the next entities as they are now; None when all are done. Call it between turns."""
        if self._at >= len(self._keys):
            return None
        shard = self._shard
        part = self._keys[self._at : self._at + ENTITIES_PER_SLICE]
        self._at += len(part)
        payload = pack([(tag, key, _fields(shard, tag, key)) for tag, key in part])
        self._highest = shard.sequence
        self._slices += 1
        return SnapshotSlice(
            shard.id, self._snapshot_id, self._slices - 1, shard.sequence, shard.record_number, payload
        )

    def snapshot(self) -> Snapshot:
        """What to publish after the last slice, once ``highest_sequence`` is durable."""
        assert self._at >= len(self._keys), "slices are missing"
        return Snapshot(
            self._shard.id,
            self._snapshot_id,
            self._slices,
            self._lowest[0],
            self._highest,
            self._lowest[1],
            self._time_ms,
            self._shard.epoch,
        )


def _fields(shard: ShardState, tag: int, key: Any) -> Any:  # noqa: PLR0911  one return a tag
    """An entity's encoding, or None when it is gone."""
    if tag == Tag.SHARD:
        return encode_shard(shard)
    if tag == Tag.STOCK:
        return encode_stock(shard.stock[key])
    if tag == Tag.CLAIMS:
        first = shard.stock[key[0]].claims.get(key[1])
        return None if first is None else encode_claims(key[0], first)
    if tag == Tag.RESERVATION:
        reservation = shard.reservations.get(key)
        return None if reservation is None else encode_reservation(reservation)
    if tag == Tag.ENTRY:
        entry = shard.entries.get(key)
        return None if entry is None else encode_entry(entry)
    exception = shard.exceptions.get(key)
    return None if exception is None else encode_exception(exception)
