"""``verify`` and snapshots: beginning a walk from one, and comparing one with what the records say.

A snapshot's slices hold entities ``[tag, key, fields]``; the order of the fields is the snapshot format, known here by
itself. A snapshot is the shard's state written down by another way than the records, so a fact that was changed in a
record afterwards, with its checksum made anew, shows here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from actors.journal.codec import ARRAY_LENGTH_MAX
from actors.journal.port import JournalDamaged, SnapshotSlice
from actors.journal.verify_report import VerifyReport, Where
from actors.journal.verify_shard import EXCEPTION_OPEN, Reservation, ShardWalk
from actors.journal.verify_stock import SELLABLE, Claims, Line, Stock

SHARD, STOCK, CLAIMS, RESERVATION, ENTRY, EXCEPTION = range(6)

Entity = tuple[int, Any, Any]  # tag, key, fields or None when it was gone


def entities_of(part: SnapshotSlice) -> list[Entity]:
    """The entities of a slice. ``JournalDamaged`` when it cannot be understood."""
    try:
        entities = msgpack.unpackb(
            part.payload,
            raw=False,
            max_array_len=min(len(part.payload), ARRAY_LENGTH_MAX),
            max_map_len=0,
            max_ext_len=0,
        )
        return [(tag, tuple(key) if isinstance(key, list) else key, fields) for tag, key, fields in entities]
    except (ValueError, TypeError, msgpack.UnpackException, msgpack.StackError) as error:
        raise JournalDamaged(
            f"shard {part.shard}: slice {part.slice_number} of snapshot {part.snapshot_id} cannot be understood: "
            f"{error!r}"
        ) from error


def load(walk: ShardWalk, slices: Sequence[SnapshotSlice]) -> None:
    """Put a snapshot's entities into a fresh walk; sums are made when all of them stand at one sequence."""
    for part in slices:
        for tag, key, fields in entities_of(part):
            identity = (tag, key[0], key[1]) if tag == CLAIMS else (tag, key, "")
            walk.placed[identity] = part.sequence
            if fields is not None:
                _place(walk, tag, key, fields)


def _place(walk: ShardWalk, tag: int, key: Any, fields: Sequence[Any]) -> None:
    if tag == SHARD:
        walk.epoch, walk.timeline, walk.owned_ms, walk.grace_until_ms = fields[:4]
        walk.reservation_number, walk.exception_number = fields[4] - 1, fields[5] - 1
    elif tag == STOCK:
        walk.stock.stock[key] = _stock(fields, walk.stock.stock.get(key))
    elif tag == CLAIMS:
        walk.stock.stock.setdefault(key[0], Stock()).claims[key[1]] = _claims(fields)
    elif tag == RESERVATION:
        walk.reservations[key] = _reservation(fields)
    elif tag == ENTRY:
        walk.entries.add(key)
    elif tag == EXCEPTION:
        kind, stock_key = fields[1][:2]
        walk.exceptions[key] = [kind, stock_key, fields[2], fields[4]]
    else:
        raise JournalDamaged(f"shard {walk.shard}: a snapshot holds an entity of unknown tag {tag}")


def compare(walk: ShardWalk, entities: Sequence[Entity], report: VerifyReport) -> None:
    """Compare the walk, which stands where a slice was taken, with the slice."""
    where = Where(walk.shard, walk.number, walk.sequence, walk.time_ms)
    for tag, key, fields in entities:
        if tag == STOCK:
            stock = walk.stock.stock.get(key)
            own = _of_stock(stock) if stock is not None else None
            other = _of_stock(_stock(fields, None)) if fields is not None else None
        elif tag == CLAIMS:
            stock = walk.stock.stock.get(key[0])
            claims = stock.claims.get(key[1]) if stock is not None else None
            own = _of_claims(claims) if claims is not None else None
            other = _of_claims(_claims(fields)) if fields is not None else None
        elif tag == RESERVATION:
            reservation = walk.reservations.get(key)
            own = _of_reservation(reservation) if reservation is not None else None
            other = _of_reservation(_reservation(fields)) if fields is not None else None
        elif tag == EXCEPTION:
            exception = walk.exceptions.get(key)
            own = {"quantity": exception[2], "open": exception[3] == EXCEPTION_OPEN} if exception is not None else None
            other = {"quantity": fields[2], "open": fields[4] == EXCEPTION_OPEN} if fields is not None else None
        else:
            continue
        if own != other:
            name = "\x1f".join(key) if isinstance(key, tuple) else str(key)
            report.add("snapshot", where, name, f"a record up to here was changed: {_difference(own, other)}")


def _difference(own: dict[str, Any] | None, other: dict[str, Any] | None) -> str:
    if own is None or other is None:
        return "the records " + ("do not know it" if own is None else "know it, the snapshot taken here does not")
    parts = [
        f"{name} is {own[name]} by the records and {other[name]} in the snapshot"
        for name in own
        if own[name] != other[name]
    ]
    return "; ".join(parts)


def _stock(fields: Sequence[Any], known: Stock | None) -> Stock:
    stock = known or Stock()
    _, sellable, on_hand, stock.safety, stock.selling, _, _, stock.version, adrift = fields[:9]
    stock.on_hand = dict(on_hand) | {SELLABLE: sellable}
    stock.adrift = dict(adrift)
    return stock


def _claims(fields: Sequence[Any]) -> Claims:
    claims = Claims(fields[4])
    for line_id, granted, fulfilled, released, expired, picked, imposed, uncovered, *_ in fields[5]:
        line = claims.lines[line_id] = Line()
        line.granted, line.fulfilled, line.released, line.expired = granted, fulfilled, released, expired
        line.picked, line.imposed, line.uncovered = picked, imposed, uncovered
    return claims


def _reservation(fields: Sequence[Any]) -> Reservation:
    reservation = Reservation(fields[9], fields[2], fields[15], fields[11])
    reservation.open, reservation.fulfilled = fields[12], fields[13]
    return reservation


def _of_stock(stock: Stock) -> dict[str, Any]:
    return {
        "on hand": {disposition: units for disposition, units in sorted(stock.on_hand.items()) if units},
        "safety stock": stock.safety,
        "selling state": stock.selling,
        "picked adrift": dict(sorted(stock.adrift.items())),
    }


def _of_claims(claims: Claims) -> dict[str, Any]:
    return {
        "confirmed": claims.confirmed,
        "lines": {
            line_id: (
                line.granted,
                line.fulfilled,
                line.released,
                line.expired,
                line.picked,
                line.imposed,
                line.uncovered,
            )
            for line_id, line in claims.lines.items()
        },
    }


def _of_reservation(reservation: Reservation) -> dict[str, Any]:
    return {
        "state": reservation.state,
        "deadline": reservation.expire_ms,
        "open units": reservation.open,
        "fulfilled units": reservation.fulfilled,
        "lines": [list(line) for line in reservation.lines],
    }
