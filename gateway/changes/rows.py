"""Rows of the hosts' change feed → messages, and which of them a filter lets through.

A row is read by place, in the order of the tuples in ``actors.domain.change_rows``. A change is encoded once, as the bytes that it
takes in any ``ReadChangesResponse``, whoever reads it: messages in protobuf are joined by joining their bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from actors.domain.change_rows import ChangeKind
from gateway.translate.answers import stock_key
from stockade.v1 import change_feed_service_pb2 as pb

AVAILABILITY = int(ChangeKind.AVAILABILITY)
RESERVATION = int(ChangeKind.RESERVATION)
WAREHOUSE = int(ChangeKind.WAREHOUSE)

Row = Sequence[Any]


def add_change(changes: Any, id_prefix: str, shard: int, row: Row) -> None:
    """Append a row to a repeated field of Change. ``id_prefix``: "timeline-shard-"."""
    kind, sequence, time_ms = row[:3]
    change = changes.add(change_id=f"{id_prefix}{sequence}", shard=shard, sequence=sequence, time_ms=time_ms)
    if kind == AVAILABILITY:
        _, _, _, key, available, stale, seen = row[:7]
        availability = change.availability
        availability.stock_key.CopyFrom(stock_key(key))
        availability.available_quantity = available
        if stale:
            availability.stale = True
        availability.seen_sequence = seen
    elif kind == RESERVATION:
        _reservation(change.reservation, row)
    elif kind == WAREHOUSE:
        change.warehouse.warehouse_id = row[3]
        change.warehouse.stale = row[4]
        if len(row) > 5:  # noqa: PLR2004
            change.warehouse.requested_reconciliation_id = row[5]


def _reservation(message: pb.ReservationChange, row: Row) -> None:
    message.kind = row[3]
    message.reservation_id = row[4]
    message.channel_id = row[5]
    rest = row[6:14]
    if not any(rest):
        return
    count = len(rest)
    message.order_reference = rest[0]
    if count > 1:
        message.state = rest[1]
    if count > 2:
        message.expire_time_ms = rest[2]
    if count > 3:
        for line_id, key, requested, granted in rest[3]:
            message.lines.add(
                line_id=line_id, stock_key=stock_key(key), requested_quantity=requested, granted_quantity=granted
            )
    if count > 4:
        message.fulfilled_quantity = rest[4]
    if count > 5:
        message.released_quantity = rest[5]
    if count > 6:
        message.expired_quantity = rest[6]
    if count > 7:
        message.request_id = rest[7]


def encoded(timeline: str, shard: int, rows: Iterable[Row]) -> bytes:
    """The rows as a part of a serialized ``ReadChangesResponse``."""
    response = pb.ReadChangesResponse()
    changes = response.changes
    prefix = f"{timeline}-{shard}-"
    for row in rows:
        add_change(changes, prefix, shard, row)
    return response.SerializeToString()


def encoded_snapshot(timeline: str, shard: int, rows: Iterable[Row], first: int) -> bytes:
    """Rows of a snapshot, which is no event: their ids are those of the place and, in it, of the row (from ``first``)."""
    response = pb.ReadChangesResponse()
    for number, row in enumerate(rows, first):
        add_change(response.changes, f"{timeline}-{shard}-", shard, row)
        response.changes[-1].change_id += f".{number}"
    return response.SerializeToString()


class RowFilter:
    """Which rows somebody wants; empty sets let everything through."""

    __slots__ = ("channel_ids", "everything", "kinds", "skus", "warehouse_ids")

    def __init__(
        self,
        kinds: Iterable[int] = (),
        channel_ids: Iterable[str] = (),
        warehouse_ids: Iterable[str] = (),
        skus: Iterable[str] = (),
    ) -> None:
        self.kinds = frozenset(kinds)
        self.channel_ids = frozenset(channel_ids)
        self.warehouse_ids = frozenset(warehouse_ids)
        self.skus = frozenset(skus)
        self.everything = not (self.kinds or self.channel_ids or self.warehouse_ids or self.skus)

    def lets(self, row: Row) -> bool:
        """Whether the row is wanted."""
        kind = row[0]
        if self.kinds and kind not in self.kinds:
            return False
        if kind == RESERVATION:
            return not self.channel_ids or row[5] in self.channel_ids
        if kind == WAREHOUSE:
            return not self.warehouse_ids or row[3] in self.warehouse_ids
        if self.warehouse_ids or self.skus:
            _, warehouse_id, sku = row[3].split("\x1f")
            return (not self.warehouse_ids or warehouse_id in self.warehouse_ids) and (
                not self.skus or sku in self.skus
            )
        return True
