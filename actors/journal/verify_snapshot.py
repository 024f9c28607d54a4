"""``verify`` and snapshots: beginning a walk from one, and comparing one with what the records say.

A snapshot's slices hold entities ``[tag, key, fields]``; the order of the fields is the snapshot format, known here by
itself. A snapshot is the shard's state written down by another way than the records, so a fact that was changed in a
record afterwards, with its checksum made anew, shows here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgpack

from actors.journal.codec import ARRAY_LENGTH_MAX, no_map
from actors.journal.port import JournalDamaged, SnapshotSlice
from actors.journal.verify_consumers import describe_reader, read_reader
from actors.journal.verify_errands import describe_sent, describe_taken, read_sent, read_taken
from actors.journal.verify_feeds import Feed, Waiting
from actors.journal.verify_home import EXCEPTION_OPEN
from actors.journal.verify_ledger import violation_at
from actors.journal.verify_operations import describe_operation, read_operation
from actors.journal.verify_reconciliation import describe_finding, describe_run, read_finding, read_run
from actors.journal.verify_report import Where
from actors.journal.verify_shard import ShardWalk
from actors.journal.verify_state import SELLABLE, Claim, Reservation, Stock, Transfer

SHARD, STOCK, CLAIMS, RESERVATION, ENTRY, EXCEPTION, FEED, DEFERRED = range(8)
CONSUMER, RECONCILIATION, FINDING, OUTBOUND, INBOUND, OPERATION = 9, 10, 11, 12, 13, 14
TRANSFERS_AT = 11  # of a stock key's fields; a snapshot of an older version has none

Entity = tuple[int, Any, Any]  # tag, key, fields or None when it was gone


NOT_UNDERSTOOD = (ValueError, TypeError, IndexError, msgpack.UnpackException, msgpack.StackError)


def check(slices: Sequence[SnapshotSlice]) -> None:
    """``JournalDamaged`` unless all entities can be understood: before a walk begins from them."""
    for part in slices:
        with _damage(part):
            for tag, key, fields in _entities(part):
                if tag == CLAIMS and len(key) != 2:
                    raise ValueError(f"claims with an odd key {key!r}")
                if fields is not None:
                    READERS[tag](fields)


def load(walk: ShardWalk, slices: Sequence[SnapshotSlice]) -> None:
    """Put a checked snapshot's entities into a fresh walk; sums are made when all of them stand at one sequence."""
    for part in slices:
        for tag, key, fields in _entities(part):
            identity = (tag, key[0], key[1]) if tag == CLAIMS else (tag, key, "")
            walk.placed[identity] = part.sequence
            if fields is not None:
                _place(walk, tag, key, fields)


def compare(walk: ShardWalk, part: SnapshotSlice) -> None:
    """Compare the walk, which stands where a slice was taken, with the slice. ``JournalDamaged`` when it cannot be
    understood.
    """
    with _damage(part):
        entities = _entities(part)
        for tag, key, fields in entities:
            same = SAME.get(tag)
            if same is None or fields is None or not same(walk, key, fields):
                _compare_one(walk, tag, key, fields)
    walk.report.snapshots_compared += 1
    walk.report.entities_compared += len(entities)


@contextlib.contextmanager
def _damage(part: SnapshotSlice) -> Iterator[None]:
    try:
        yield
    except NOT_UNDERSTOOD as error:
        raise JournalDamaged(
            f"shard {part.shard}: slice {part.slice_number} of snapshot {part.snapshot_id} cannot be understood: "
            f"{error!r}"
        ) from error


def _entities(part: SnapshotSlice) -> list[Entity]:
    entities = msgpack.unpackb(
        part.payload,
        raw=False,
        use_list=False,
        max_array_len=min(len(part.payload), ARRAY_LENGTH_MAX),
        max_map_len=0,
        max_ext_len=0,
        object_pairs_hook=no_map,
    )
    found = [(tag, key, fields) for tag, key, fields in entities]
    for tag, _, _ in found:
        if tag not in READERS:
            raise ValueError(f"an entity of unknown tag {tag}")
    return found


def _place(walk: ShardWalk, tag: int, key: Any, fields: Sequence[Any]) -> None:
    if tag == SHARD:
        walk.epoch, walk.timeline, walk.owned_ms, walk.grace_until_ms = fields[:4]
        walk.reservation_number, walk.exception_number = fields[4] - 1, fields[5] - 1
    elif tag == STOCK:
        walk.stocks[key] = _stock(fields, walk.stocks.get(key))
    elif tag == CLAIMS:
        walk.stocks.setdefault(key[0], Stock()).claims[key[1]] = _claims(fields)
    elif tag == RESERVATION:
        walk.reservations[key] = _reservation(fields)
    elif tag == ENTRY:
        walk.entries.add(key)
    elif tag == EXCEPTION:
        walk.exceptions[key] = _exception(fields)
    elif tag == FEED:
        feed = walk.feeds[key] = _feed(fields)
        feed.waiting = {name: one.place for name, one in walk.waiting.items() if one.feed_key == key}
    elif tag == DEFERRED:
        waiting = walk.waiting[key] = Waiting(*fields[1:4])
        if waiting.feed_key in walk.feeds:
            walk.feeds[waiting.feed_key].waiting[key] = waiting.place
    elif tag == CONSUMER:
        walk.readers[key] = read_reader(fields)
    elif tag == RECONCILIATION:
        walk.runs[key] = read_run(fields)
    elif tag == FINDING:
        walk.findings[key] = read_finding(fields)
    elif tag == OUTBOUND:
        walk.sent[key] = read_sent(fields)
    elif tag == INBOUND:
        walk.taken[key] = read_taken(fields)
    elif tag == OPERATION:
        walk.enter(key, read_operation(fields))


def _compare_one(walk: ShardWalk, tag: int, key: Any, fields: Any) -> None:
    own = OWN[tag](walk, key)
    other = READERS[tag](fields) if fields is not None else None
    described, taken = (DESCRIBED[tag](one) if one is not None else None for one in (own, other))
    if described != taken:
        where = Where(walk.shard, walk.number, walk.sequence, walk.time_ms)
        name = "\x1f".join(key) if isinstance(key, tuple) else str(key)
        text = f"a record up to here was changed: {_difference(described, taken)}"
        expected, found = f"{described or 'nothing'} by the records", str(taken or "nothing")
        walk.report.add(violation_at(where, "snapshot", name, text, expected=expected, found=found))


def _same_claims(walk: ShardWalk, key: Any, fields: Sequence[Any]) -> bool:
    """Whether a reservation's claims are plainly the same; what is not plain is compared in full."""
    own = _own_claims(walk, key)
    if own is None or own.also is not None or len(fields[5]) != 1:
        return False
    claimed = (
        own.line_id,
        own.granted,
        own.fulfilled,
        own.released,
        own.expired,
        own.picked,
        own.imposed,
        own.uncovered,
    )
    return bool(claimed == fields[5][0][:8] and own.confirmed == fields[4])


def _same_reservation(walk: ShardWalk, key: Any, fields: Sequence[Any]) -> bool:
    own = walk.reservations.get(key)
    if own is None:
        return False
    kept = (own.channel_id, own.state, own.lines, own.open, own.fulfilled, own.expire_ms)
    return kept == (fields[2], fields[9], fields[11], fields[12], fields[13], fields[15])


def _same_entry(walk: ShardWalk, key: Any, fields: Sequence[Any]) -> bool:
    return key in walk.entries and fields[0] == key


# by tag: the entities that are many, compared without making anything
SAME: dict[int, Callable[[ShardWalk, Any, Any], bool]] = {
    CLAIMS: _same_claims,
    RESERVATION: _same_reservation,
    ENTRY: _same_entry,
}


def _difference(own: dict[str, Any] | None, other: dict[str, Any] | None) -> str:
    if own is None or other is None:
        return "the records " + ("do not know it" if own is None else "know it, the snapshot taken here does not")
    parts = [
        f"{name} is {own[name]} by the records and {other[name]} in the snapshot"
        for name in own
        if own[name] != other[name]
    ]
    return "; ".join(parts)


def _stock(fields: Sequence[Any], known: Stock | None = None) -> Stock:
    stock = known or Stock()
    _, stock.sellable, on_hand, stock.safety, stock.selling, _, _, stock.version, adrift = fields[:9]
    stock.others = {disposition: units for disposition, units in on_hand if disposition != SELLABLE}
    stock.adrift = dict(adrift)
    if len(fields) > TRANSFERS_AT:
        stock.transfers = {name: Transfer(*line[:4]) for name, _, *line in fields[TRANSFERS_AT]}
    return stock


def _claims(fields: Sequence[Any]) -> Claim:
    first: Claim | None = None
    for line_id, granted, fulfilled, released, expired, picked, imposed, uncovered, *_ in reversed(fields[5]):
        claim = Claim(line_id, granted, imposed, uncovered, fields[4])
        claim.fulfilled, claim.released, claim.expired, claim.picked = fulfilled, released, expired, picked
        claim.open = granted - fulfilled - released - expired
        first, claim.also = claim, first
    if first is None:
        raise ValueError("claims without a line")
    return first


def _reservation(fields: Sequence[Any]) -> Reservation:
    reservation = Reservation(fields[9], fields[2], fields[15], fields[11], fields[12])
    reservation.fulfilled = fields[13]
    return reservation


def _of_stock(stock: Stock) -> dict[str, Any]:
    on_hand = {SELLABLE: stock.sellable, **stock.others}
    return {
        "on hand": {disposition: units for disposition, units in sorted(on_hand.items()) if units},
        "safety stock": stock.safety,
        "selling state": stock.selling,
        "policy version": stock.version,
        "picked adrift": dict(sorted(stock.adrift.items())),
        "transfers": {
            name: (one.dispatched, one.received, one.final, one.exception_id)
            for name, one in sorted(stock.transfers.items())
        },
    }


def _of_claims(first: Claim) -> dict[str, Any]:
    return {
        "confirmed": first.confirmed,
        "lines": {
            one.line_id: (
                one.granted,
                one.fulfilled,
                one.released,
                one.expired,
                one.picked,
                one.imposed,
                one.uncovered,
            )
            for one in first.lines()
        },
    }


def _of_reservation(reservation: Reservation) -> dict[str, Any]:
    return {
        "state": reservation.state,
        "channel": reservation.channel_id,
        "deadline": reservation.expire_ms,
        "open units": reservation.open,
        "fulfilled units": reservation.fulfilled,
        "lines": reservation.lines,
    }


def _shard(fields: Sequence[Any]) -> tuple[Any, ...]:
    epoch, timeline, owned_ms, grace_until_ms, next_reservation, next_exception = fields[:6]
    return epoch, timeline, owned_ms, grace_until_ms, next_reservation - 1, next_exception - 1


def _of_shard(shard: tuple[Any, ...]) -> dict[str, Any]:
    names = ("epoch", "timeline", "owned since", "grace until", "last reservation number", "last exception number")
    return dict(zip(names, shard, strict=True))


def _own_shard(walk: ShardWalk, _key: str) -> tuple[Any, ...]:
    numbers = walk.reservation_number, walk.exception_number
    return (walk.epoch, walk.timeline, walk.owned_ms, walk.grace_until_ms, *numbers)


def _exception(fields: Sequence[Any]) -> list[Any]:
    kind, stock_key = fields[1][:2]
    return [kind, stock_key, fields[2], fields[4]]


def _of_exception(exception: Sequence[Any]) -> dict[str, Any]:
    kind, key, quantity, state = exception
    return {"kind": kind, "stock key": key, "quantity": quantity, "open": state == EXCEPTION_OPEN}


def _feed(fields: Sequence[Any]) -> Feed:
    feed = Feed()
    _, feed.watermark, intervals, feed.told = fields[:4]
    for start, end, _ in intervals:
        feed.above.update(range(start, end + 1))
    for warehouse_id, _, _, _, applied, rejected, duplicates, waiting, *_ in fields[7]:
        feed.counts[warehouse_id] = [applied, duplicates, waiting, rejected]
    return feed


def _of_feed(feed: Feed) -> dict[str, Any]:
    return {
        "whole up to": feed.watermark,
        "received above": sorted(feed.above),
        "told of": feed.told,
        "applied, duplicate, waiting, rejected": dict(sorted(feed.counts.items())),
    }


def _own_claims(walk: ShardWalk, key: tuple[str, str]) -> Claim | None:
    stock = walk.stocks.get(key[0])
    return stock.claims.get(key[1]) if stock is not None else None


# by tag: an entity from a snapshot's fields; the walk's own one; and what is compared of either
READERS: dict[int, Callable[[Any], Any]] = {
    SHARD: _shard,
    STOCK: _stock,
    CLAIMS: _claims,
    RESERVATION: _reservation,
    ENTRY: lambda fields: fields[0],
    EXCEPTION: _exception,
    FEED: _feed,
    DEFERRED: lambda fields: Waiting(*fields[1:4]),
    CONSUMER: read_reader,
    RECONCILIATION: read_run,
    FINDING: read_finding,
    OUTBOUND: read_sent,
    INBOUND: read_taken,
    OPERATION: read_operation,
}
OWN: dict[int, Callable[[ShardWalk, Any], Any]] = {
    SHARD: _own_shard,
    STOCK: lambda walk, key: walk.stocks.get(key),
    CLAIMS: _own_claims,
    RESERVATION: lambda walk, key: walk.reservations.get(key),
    ENTRY: lambda walk, key: key if key in walk.entries else None,
    EXCEPTION: lambda walk, key: walk.exceptions.get(key),
    FEED: lambda walk, key: walk.feeds.get(key),
    DEFERRED: lambda walk, key: walk.waiting.get(key),
    CONSUMER: lambda walk, key: walk.readers.get(key),
    RECONCILIATION: lambda walk, key: walk.runs.get(key),
    FINDING: lambda walk, key: walk.findings.get(key),
    OUTBOUND: lambda walk, key: walk.sent.get(key),
    INBOUND: lambda walk, key: walk.taken.get(key),
    OPERATION: lambda walk, key: walk.operations.get(key),
}
DESCRIBED: dict[int, Callable[[Any], dict[str, Any]]] = {
    SHARD: _of_shard,
    STOCK: _of_stock,
    CLAIMS: _of_claims,
    RESERVATION: _of_reservation,
    ENTRY: lambda key: {"id": key},
    EXCEPTION: _of_exception,
    FEED: _of_feed,
    CONSUMER: describe_reader,
    RECONCILIATION: describe_run,
    FINDING: describe_finding,
    OUTBOUND: describe_sent,
    INBOUND: describe_taken,
    OPERATION: describe_operation,
    DEFERRED: lambda one: {"stream": one.feed_key, "place": one.place, "until": one.until_ms},
}
