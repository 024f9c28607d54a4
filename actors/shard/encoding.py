"""The canonical encoding of a shard's entities: for snapshots, for rows of the entries table, and to compare states.

Two states are equal when ``canonical_state`` gives the same bytes. Sums over claims and indices are not encoded: they are made
anew on loading. Field order is snapshot format: append only, and only with a default on reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from operator import attrgetter
from sys import intern
from typing import Any

import msgpack

from actors.domain.claims import ReservationRest
from actors.domain.exception_state import StockException
from actors.domain.history import decode_history, encode_history
from actors.domain.identity import request_key, reservation_row_key
from actors.domain.state import (
    Books,
    Claim,
    Entry,
    Reservation,
    ShardState,
    Spent,
    StockActor,
)
from actors.domain.stock_parts import DEFAULT_GATE, SaleGate, Transfer
from actors.journal.port import EntryRow, JournalDamaged
from actors.shard.encoding_consumers import encode_consumer
from actors.shard.encoding_errands import encode_inbound, encode_outbound
from actors.shard.encoding_feeds import encode_deferred, encode_feed
from actors.shard.encoding_operations import encode_operation
from actors.shard.encoding_reconciliation import encode_finding, encode_reconciliation
from actors.shard.stored_types import UNREADABLE, check_entity


class Tag(IntEnum):
    """What kind of entity an encoded one is; an entity's identity is (tag, key)."""

    SHARD = 0
    STOCK = 1
    CLAIMS = 2  # key: (stock key, reservation id)
    RESERVATION = 3
    ENTRY = 4
    EXCEPTION = 5
    FEED = 6
    DEFERRED = 7
    CONSUMER = 9
    RECONCILIATION = 10
    FINDING = 11
    OUTBOUND = 12  # key: the other shard
    INBOUND = 13
    OPERATION = 14


def pack(value: Any) -> bytes:
    """msgpack; tuples and lists are the same bytes."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


_pack_row: Callable[[Any], bytes] = msgpack.Packer(
    use_bin_type=True
).pack  # of one thread: as many rows leave as events come


_make: Callable[[type[EntryRow], tuple[Any, ...]], EntryRow] = tuple.__new__  # without its own slow constructor


def unpack(payload: bytes) -> Any:
    """The inverse of ``pack``; sequences come back as lists."""
    return msgpack.unpackb(payload, raw=False, strict_map_key=False)


def encode_shard(shard: ShardState) -> tuple[Any, ...]:
    """What belongs to the shard itself."""
    return (
        shard.epoch,
        shard.timeline,
        shard.owned_time_ms,
        shard.grace_until_ms,
        shard.next_reservation_number,
        shard.next_exception_number,
    )


def decode_shard(shard: ShardState, fields: Sequence[Any]) -> None:
    """Put back what ``encode_shard`` took."""
    epoch, timeline, owned_time_ms, grace_until_ms, next_reservation, next_exception = fields
    shard.epoch = epoch
    shard.timeline = timeline
    shard.owned_time_ms = owned_time_ms
    shard.grace_until_ms = grace_until_ms
    shard.next_reservation_number = next_reservation
    shard.next_exception_number = next_exception
    shard.id_prefix = f"1-{timeline}-{shard.id}-"


def encode_stock(actor: StockActor) -> tuple[Any, ...]:
    """A stock actor without its claims."""
    return (
        actor.key,
        actor.sellable,
        sorted((actor.on_hand or {}).items()),
        actor.safety_stock,
        actor.selling_state,
        actor.max_quantity_per_order,
        actor.base_unit,
        actor.policy_version,
        sorted((actor.adrift or {}).items()),
        encode_history(actor.history),
        actor.gate or (),
        [(name, *transfer) for name, transfer in (actor.transfers or {}).items()],
    )


def decode_stock(shard: ShardState, fields: Sequence[Any]) -> StockActor:
    """A stock actor from ``encode_stock``."""
    actor = StockActor(fields[0], shard)
    actor.sellable = fields[1]
    actor.on_hand = dict(fields[2]) or None
    actor.safety_stock = fields[3]
    actor.selling_state = fields[4]
    actor.max_quantity_per_order = fields[5]
    actor.base_unit = fields[6]
    actor.policy_version = fields[7]
    actor.adrift = dict(fields[8]) or None
    actor.history = decode_history(fields[9]) if len(fields) > 9 else None  # noqa: PLR2004  an older snapshot has none
    if len(fields) > 11:  # noqa: PLR2004  nor these
        item_state, receipt_disposition, lots = fields[10] or DEFAULT_GATE
        actor.gate = SaleGate(item_state, receipt_disposition, tuple(lots)) if fields[10] else None
        actor.transfers = {name: Transfer(*transfer) for name, *transfer in fields[11]} or None
    return actor


def encode_claims(key: str, first: Claim) -> tuple[Any, ...]:
    """One reservation's claims on one stock key."""
    lines = [_claim_fields(first)] if first.next is None else [_claim_fields(claim) for claim in first.chain()]
    return (key, first.reservation_id, first.channel_id, first.order_reference, first.confirmed, lines)


def decode_claims(fields: Sequence[Any]) -> Claim:
    """The first of the claims from ``encode_claims``, the others hanging on it."""
    _, reservation_id, channel_id, order_reference, confirmed, lines = fields
    channel_id = intern(channel_id)
    first: Claim | None = None
    last: Claim | None = None
    for line_id, granted, fulfilled, released, expired, picked, imposed, uncovered, sequence in lines:
        claim = Claim(reservation_id, line_id, channel_id, order_reference, sequence)
        claim.granted = granted
        claim.confirmed = confirmed
        if fulfilled or released or expired or picked or imposed or uncovered:
            claim.fulfilled = fulfilled
            claim.released = released
            claim.expired = expired
            claim.picked = picked
            claim.imposed = imposed
            claim.uncovered = uncovered
        if last is None:
            first = claim
        else:
            last.next = claim
        last = claim
    assert first is not None, "claims without a line"
    return first


def _encode_spent(spent: Spent) -> tuple[Any, ...]:
    return (
        spent.request_id,
        spent.digest,
        spent.verb,
        spent.refusal,
        spent.state,
        spent.version,
        spent.expire_time_ms,
        spent.epoch,
        spent.sequence,
        spent.time_ms,
        spent.lines,
    )


def _decode_spent(fields: Sequence[Any]) -> Spent:
    spent = Spent(fields[0], fields[1], fields[2], fields[3])
    spent.state, spent.version, spent.expire_time_ms = fields[4:7]
    spent.epoch, spent.sequence, spent.time_ms, spent.lines = fields[7:11]
    return spent


_NO_REST = ReservationRest()


def _claim_fields(claim: Claim) -> tuple[Any, ...]:
    rest = claim.rest
    if rest is None:
        return (claim.line_id, claim.granted, 0, 0, 0, 0, 0, 0, claim.sequence)
    return (
        claim.line_id,
        claim.granted,
        rest.fulfilled,
        rest.released,
        rest.expired,
        rest.picked,
        rest.imposed,
        rest.uncovered,
        claim.sequence,
    )


def encode_reservation(reservation: Reservation) -> tuple[Any, ...]:
    """The home's record of a reservation."""
    rest = reservation.rest or _NO_REST
    expire_time_ms, first = reservation.expire_time_ms, rest.first_expire_time_ms
    spent = rest.spent
    return (
        reservation.id,
        reservation.number,
        reservation.channel_id,
        reservation.request_id,
        reservation.digest,
        rest.customer_id,
        reservation.order_reference,
        rest.replaces_reservation_id,
        rest.labels,
        reservation.state,
        reservation.version,
        reservation.lines,
        reservation.open_units,
        rest.fulfilled_units,
        reservation.create_time_ms,
        expire_time_ms,
        reservation.confirm_time_ms,
        rest.end_time_ms,
        (
            reservation.open_epoch,
            reservation.open_sequence,
            expire_time_ms if first is None else first,
            rest.first_lines,
        ),
        [_encode_spent(one) for one in spent] if spent else (),
    )


def decode_reservation(fields: Sequence[Any]) -> Reservation:
    """A reservation from ``encode_reservation``."""
    (
        reservation_id,
        _,
        channel_id,
        request_id,
        digest,
        customer_id,
        order_reference,
        replaces_reservation_id,
        labels,
        state,
        version,
        lines,
        open_units,
        fulfilled_units,
        create_time_ms,
        expire_time_ms,
        confirm_time_ms,
        end_time_ms,
        (open_epoch, open_sequence, first_expire_time_ms, first_lines),
        spent,
    ) = fields
    channel_id = intern(channel_id)
    key = f"c\x1f{channel_id}\x1f{request_id}"  # identity.request_key
    reservation = Reservation(reservation_id, channel_id, key, digest, state, expire_time_ms, order_reference)
    reservation.version = version
    reservation.kept_lines = tuple(lines[0]) if len(lines) == 1 else lines
    reservation.open_units = open_units
    reservation.create_time_ms = create_time_ms
    reservation.confirm_time_ms = confirm_time_ms
    reservation.open_epoch = open_epoch
    reservation.open_sequence = open_sequence
    if first_expire_time_ms != expire_time_ms:
        reservation.keep_first_deadline(first_expire_time_ms)
    if customer_id or replaces_reservation_id or labels or fulfilled_units or end_time_ms or spent or first_lines:
        reservation.customer_id = customer_id
        reservation.replaces_reservation_id = replaces_reservation_id
        reservation.labels = labels or ()
        reservation.fulfilled_units = fulfilled_units
        reservation.end_time_ms = end_time_ms
        reservation.first_lines = first_lines
        reservation.spent = [_decode_spent(one) for one in spent] or None
    return reservation


encode_entry = attrgetter("key", "digest", "answer", "shard", "time_ms", "epoch", "sequence")  # a dedupe entry


def decode_entry(fields: Sequence[Any]) -> Entry:
    """A dedupe entry from ``encode_entry``."""
    entry = Entry(fields[0], fields[1], fields[2], fields[3])
    entry.time_ms, entry.epoch, entry.sequence = fields[4:7]
    return entry


def encode_exception(exception: StockException) -> tuple[Any, ...]:
    """A stock exception."""
    return (
        exception.id,
        exception.fields,
        exception.quantity,
        exception.reservation_ids,
        exception.state,
        exception.open_time_ms,
        exception.end_time_ms,
        exception.payload,
        exception.cause,
        exception.handlings,
    )


def decode_exception(fields: Sequence[Any]) -> StockException:
    """A stock exception from ``encode_exception``."""
    exception = StockException(fields[0], fields[1])
    exception.quantity, exception.reservation_ids, exception.state = fields[2:5]
    exception.open_time_ms, exception.end_time_ms = fields[5:7]
    if len(fields) > 7:  # noqa: PLR2004  an older snapshot has no more
        exception.payload, exception.cause, handlings = fields[7:10]
        exception.handlings = tuple(handlings)
    return exception


# --- rows of the entries table ----------------------------------------------------------------------------------------------


def reservation_rows(reservation: Reservation, shard: int, lines: Sequence[Sequence[Any]]) -> list[EntryRow]:
    """The rows of an ended reservation: itself, with its lines as they ended, and one for every id it spent."""
    end_ms = reservation.end_time_ms
    payload = pack((encode_reservation(reservation), lines))
    rows = [EntryRow(reservation_row_key(reservation.id), shard, "", payload, end_ms)]
    ids = [reservation.request_id, *(spent.request_id for spent in reservation.spent or ())]
    rows += [EntryRow(request_key(reservation.channel_id, spent), shard, reservation.id, b"", end_ms) for spent in ids]
    return rows


def read_reservation_row(row: EntryRow) -> Reservation:
    """An ended reservation from its row; ``final_lines`` says how its lines ended."""
    try:
        fields, lines = unpack(row.payload)
        check_entity(Tag.RESERVATION, fields)
        if not isinstance(lines, list):
            raise TypeError("its lines are none")
        reservation = decode_reservation(fields)
    except UNREADABLE as fault:
        raise JournalDamaged(f"the row {row.key!r} cannot be understood: {fault!r}") from fault
    reservation.final_lines = lines
    return reservation


def entry_row(entry: Entry) -> EntryRow:
    """The row of a dedupe entry."""
    return _make(EntryRow, (entry.key, entry.shard, "", _pack_row(encode_entry(entry)), entry.time_ms))


def read_entry_row(row: EntryRow) -> Entry:
    """A dedupe entry from its row."""
    try:
        fields = unpack(row.payload)
        check_entity(Tag.ENTRY, fields)
        return decode_entry(fields)
    except UNREADABLE as fault:
        raise JournalDamaged(f"the row {row.key!r} cannot be understood: {fault!r}") from fault


# --- whole shards -----------------------------------------------------------------------------------------------------------


def encoded_entities(shard: ShardState) -> Iterator[tuple[int, Any]]:
    """(tag, fields) of every entity of a shard, in a canonical order."""
    yield int(Tag.SHARD), encode_shard(shard)
    for key in sorted(shard.stock):
        yield int(Tag.STOCK), encode_stock(shard.stock[key])
    for key in sorted(shard.stock):
        claims = shard.stock[key].claims
        for reservation_id in sorted(claims):
            yield int(Tag.CLAIMS), encode_claims(key, claims[reservation_id])
    for reservation_id in sorted(shard.reservations):
        yield int(Tag.RESERVATION), encode_reservation(shard.reservations[reservation_id])
    for key in sorted(shard.entries):
        yield int(Tag.ENTRY), encode_entry(shard.entries[key])
    for exception_id in sorted(shard.exceptions):
        yield int(Tag.EXCEPTION), encode_exception(shard.exceptions[exception_id])
    for key in sorted(shard.feeds):
        yield int(Tag.FEED), encode_feed(shard.feeds[key])
    for key in sorted(shard.deferred):
        yield int(Tag.DEFERRED), encode_deferred(shard.deferred[key])
    for key in sorted(shard.consumers):
        yield int(Tag.CONSUMER), encode_consumer(shard.consumers[key])
    for key in sorted(shard.reconciliations):
        yield int(Tag.RECONCILIATION), encode_reconciliation(shard.reconciliations[key])
    for key in sorted(shard.findings):
        yield int(Tag.FINDING), encode_finding(shard.findings[key])
    for other in sorted(shard.outbound):
        yield int(Tag.OUTBOUND), encode_outbound(shard.outbound[other])
    for other in sorted(shard.inbound):
        yield int(Tag.INBOUND), encode_inbound(shard.inbound[other])
    for key in sorted(shard.operations):
        yield int(Tag.OPERATION), encode_operation(shard.operations[key])


def canonical_state(books: Books, shard_id: int) -> bytes:
    """A shard's whole state as bytes: equal states, equal bytes. The sums kept up beside it are appended, so that a sum
    that drifted from its claims shows as well."""
    shard = books.shards[shard_id]
    sums = [
        (key, actor.held, actor.confirmed, actor.picked, actor.picked_adrift)
        for key, actor in sorted(shard.stock.items())
    ]
    return pack((shard.sequence, shard.record_number, list(encoded_entities(shard)), sums))
