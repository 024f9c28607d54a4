"""Sliced snapshots: a shard's entities encoded a few at a time, between turns, each slice with the sequence it saw.

Deciding how much a slice holds is done by count, so that one takes about a millisecond. The shell writes the slices on the
journal's thread and publishes the snapshot once its highest sequence is durable.

Which entity is in which slice is fixed when the snapshot begins, by listing the keys of every entity there is then. Entities
made later are replayed from their creation; one that is gone when its turn comes is noted as gone. (A partition by a hash of
the key would need that hash on every event, or a pass over all entities a slice.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from typing import Any

from actors.domain.history import FACT_BYTES
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
from actors.shard.encoding_consumers import encode_consumer
from actors.shard.encoding_errands import encode_inbound, encode_outbound
from actors.shard.encoding_feeds import encode_deferred, encode_feed
from actors.shard.encoding_operations import encode_operation
from actors.shard.encoding_reconciliation import encode_finding, encode_reconciliation
from actors.shard.engine import Engine

ENTITIES_PER_SLICE = 250
BYTES_PER_SLICE_MAX = 1 << 20  # of histories, the only part of an entity that is long: a millisecond of copying
STOCK = int(Tag.STOCK)


class Snapshotter:
    """One snapshot of one shard under way."""

    def __init__(self, engine: Engine, shard_id: int, now_ms: int, entities_per_slice: int = 0) -> None:
        """``entities_per_slice`` 0: the module's own bound."""
        shard = engine.books.shards[shard_id]
        self._engine = engine
        self._shard = shard
        self._snapshot_id = shard.sequence
        self._time_ms = now_ms
        self._identities = _identities(shard)
        self._entities_per_slice = entities_per_slice or ENTITIES_PER_SLICE
        self._done = False
        self._slices = 0
        self._lowest = (shard.sequence, shard.record_number)
        self._highest = shard.sequence

    def next_slice(self) -> SnapshotSlice | None:
        """Encode the next entities as they are now; None when all are done. Call it between turns."""
        shard = self._shard
        part = []
        room = BYTES_PER_SLICE_MAX
        for tag, key in islice(self._identities, self._entities_per_slice):
            part.append((tag, key, _FIELDS[tag](shard, key)))
            if tag == STOCK:
                history = shard.stock[key].history
                room -= len(history) * FACT_BYTES if history is not None else 0
                if room < 0:
                    break
        if not part:
            self._done = True
            return None
        payload = pack(part)
        self._highest = shard.sequence
        self._slices += 1
        return SnapshotSlice(
            shard.id, self._snapshot_id, self._slices - 1, shard.sequence, shard.record_number, payload
        )

    @property
    def shard_id(self) -> int:
        """Whose it is."""
        return self._shard.id

    @property
    def epoch(self) -> int:
        """That of the shard's owner: what the journal compares."""
        return self._shard.epoch

    def snapshot(self) -> Snapshot:
        """What to publish after the last slice, once ``highest_sequence`` is durable."""
        assert self._done, "slices are missing"
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


def _identities(shard: ShardState) -> Iterator[tuple[int, Any]]:
    """(tag, key) of every entity there is now, listed now and spelled as they are asked for: copying the keys of a million
    entities takes milliseconds, making their tuples a tenth of a second in which no turn could run."""
    stock = list(shard.stock)
    claims = [(key, list(actor.claims)) for key, actor in shard.stock.items() if actor.claims]
    others = (
        (Tag.RESERVATION, list(shard.reservations)),
        (Tag.ENTRY, list(shard.entries)),
        (Tag.EXCEPTION, list(shard.exceptions)),
        (Tag.FEED, list(shard.feeds)),
        (Tag.DEFERRED, list(shard.deferred)),
        (Tag.CONSUMER, list(shard.consumers)),
        (Tag.RECONCILIATION, list(shard.reconciliations)),
        (Tag.FINDING, list(shard.findings)),
        (Tag.OUTBOUND, list(shard.outbound)),
        (Tag.INBOUND, list(shard.inbound)),
        (Tag.OPERATION, list(shard.operations)),
    )
    return chain(
        ((int(Tag.SHARD), ""),),
        ((int(Tag.STOCK), key) for key in stock),
        ((int(Tag.CLAIMS), (key, one)) for key, ids in claims for one in ids),
        *(zip(repeat(int(tag)), keys, strict=False) for tag, keys in others),
    )


def _stock(shard: ShardState, key: Any) -> Any:
    return encode_stock(shard.stock[key])


def _claims(shard: ShardState, key: Any) -> Any:
    first = shard.stock[key[0]].claims.get(key[1])
    return None if first is None else encode_claims(key[0], first)


def _reservation(shard: ShardState, key: Any) -> Any:
    reservation = shard.reservations.get(key)
    return None if reservation is None else encode_reservation(reservation)


def _entry(shard: ShardState, key: Any) -> Any:
    entry = shard.entries.get(key)
    return None if entry is None else encode_entry(entry)


def _exception(shard: ShardState, key: Any) -> Any:
    exception = shard.exceptions.get(key)
    return None if exception is None else encode_exception(exception)


def _feed(shard: ShardState, key: Any) -> Any:
    feed = shard.feeds.get(key)
    return None if feed is None else encode_feed(feed)


def _consumer(shard: ShardState, key: Any) -> Any:
    consumer = shard.consumers.get(key)
    return None if consumer is None else encode_consumer(consumer)


def _deferred(shard: ShardState, key: Any) -> Any:
    waiting = shard.deferred.get(key)
    return None if waiting is None else encode_deferred(waiting)


def _reconciliation(shard: ShardState, key: Any) -> Any:
    run = shard.reconciliations.get(key)
    return None if run is None else encode_reconciliation(run)


def _finding(shard: ShardState, key: Any) -> Any:
    finding = shard.findings.get(key)
    return None if finding is None else encode_finding(finding)


# tag → an entity's encoding, or None when it is gone
_FIELDS: dict[int, Callable[[ShardState, Any], Any]] = {
    Tag.SHARD: lambda shard, _key: encode_shard(shard),
    Tag.STOCK: _stock,
    Tag.CLAIMS: _claims,
    Tag.RESERVATION: _reservation,
    Tag.ENTRY: _entry,
    Tag.EXCEPTION: _exception,
    Tag.FEED: _feed,
    Tag.DEFERRED: _deferred,
    Tag.CONSUMER: _consumer,
    Tag.RECONCILIATION: _reconciliation,
    Tag.FINDING: _finding,
    Tag.OUTBOUND: lambda shard, other: encode_outbound(shard.outbound[other]),
    Tag.INBOUND: lambda shard, other: encode_inbound(shard.inbound[other]),
    Tag.OPERATION: lambda shard, key: encode_operation(shard.operations[key]),
}
