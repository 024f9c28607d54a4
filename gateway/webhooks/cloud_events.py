"""A change as a CloudEvent 1.0 in JSON: which attributes it gets, and what its data says.

The names in here are a contract with receivers (docs/webhooks.md): a field is added, never renamed. Numbers are JSON
numbers, times RFC 3339 in UTC; of a reservation's change only what this kind of change says.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from gateway.webhooks.outbox import Change
from stockade.v1 import change_feed_service_pb2 as pb
from stockade.v1 import stock_key_pb2

AVAILABILITY_CHANGED = "stockade.availability.changed.v1"
AVAILABILITY_CURRENT = "stockade.availability.current.v1"  # the value of now, in a snapshot, rather than a change
WAREHOUSE_CHANGED = "stockade.warehouse.changed.v1"
RESERVATION = "stockade.reservation.{}.v1"
FEED_RESTARTED = "stockade.feed.restarted.v1"
PING = "stockade.ping.v1"

_RESERVATION_KINDS = {
    number: name.removeprefix("RESERVATION_CHANGE_KIND_").lower()
    for name, number in pb.ReservationChangeKind.items()
    if number
}


def change_event(change: pb.Change, *, snapshot: bool = False) -> Change:
    """The change as it goes out."""
    timeline = change.change_id.partition("-")[0]
    attributes: dict[str, Any] = {"specversion": "1.0", "id": change.change_id, "source": f"/stockade/{timeline}"}
    body = change.WhichOneof("change")
    if body == "availability":
        key = change.availability.stock_key
        subject, order_key = _path("stock", key), f"s/{key.warehouse_id}\x1f{key.sku}"
        attributes["type"] = AVAILABILITY_CURRENT if snapshot else AVAILABILITY_CHANGED
        data = availability_data(change.availability)
    elif body == "reservation":
        subject, order_key = (
            f"reservations/{change.reservation.reservation_id}",
            f"r/{change.reservation.reservation_id}",
        )
        attributes["type"] = RESERVATION.format(_RESERVATION_KINDS.get(change.reservation.kind, "changed"))
        data = reservation_data(change.reservation)
    else:
        subject, order_key = f"warehouses/{change.warehouse.warehouse_id}", f"w/{change.warehouse.warehouse_id}"
        attributes["type"] = WAREHOUSE_CHANGED
        data = {"warehouse_id": change.warehouse.warehouse_id, "stale": change.warehouse.stale}
        if change.warehouse.requested_reconciliation_id:
            data["requested_reconciliation_id"] = change.warehouse.requested_reconciliation_id
    attributes |= {"subject": subject, "datacontenttype": "application/json"}
    if change.time_ms:
        attributes["time"] = rfc3339(change.time_ms)
    attributes |= {"shard": change.shard, "sequence": f"{change.sequence:020d}", "data": data}
    return Change(change.change_id, order_key, encoded(attributes))


def availability_data(availability: pb.AvailabilityChange) -> dict[str, Any]:
    return {
        "sku": availability.stock_key.sku,
        "warehouse_id": availability.stock_key.warehouse_id,
        "available_quantity": availability.available_quantity,
        "stale": availability.stale,
        "seen_sequence": availability.seen_sequence,
    }


def reservation_data(change: pb.ReservationChange) -> dict[str, Any]:
    """Its id and channel, and what else was said."""
    data: dict[str, Any] = {"reservation_id": change.reservation_id, "channel_id": change.channel_id}
    if change.order_reference:
        data["order_reference"] = change.order_reference
    if change.state:
        data["state"] = stock_key_pb2.ReservationState.Name(change.state).removeprefix("RESERVATION_STATE_")
    if change.expire_time_ms:
        data["expire_time"] = rfc3339(change.expire_time_ms)
    if change.lines:
        data["lines"] = [line_data(line) for line in change.lines]
    for name in ("fulfilled_quantity", "released_quantity", "expired_quantity"):
        if quantity := getattr(change, name):
            data[name] = quantity
    if change.request_id:
        data["request_id"] = change.request_id
    return data


def line_data(line: pb.ChangedLine) -> dict[str, Any]:
    return {
        "line_id": line.line_id,
        "sku": line.stock_key.sku,
        "warehouse_id": line.stock_key.warehouse_id,
        "requested_quantity": line.requested_quantity,
        "granted_quantity": line.granted_quantity,
    }


def restarted_event(reason: str, event_id: str, now_s: float) -> Change:
    """The notice that changes were missed and current values follow."""
    return _notice(FEED_RESTARTED, event_id, now_s, {"reason": reason})


def ping_event(event_id: str, now_s: float) -> Change:
    """What ``stockade webhooks test`` sends."""
    return _notice(PING, event_id, now_s, {})


def _notice(kind: str, event_id: str, now_s: float, data: dict[str, Any]) -> Change:
    attributes = {
        "specversion": "1.0",
        "id": event_id,
        "source": "/stockade",
        "type": kind,
        "datacontenttype": "application/json",
        "time": rfc3339(int(now_s * 1000)),
        "data": data,
    }
    return Change("", "", encoded(attributes))


def _path(what: str, key: stock_key_pb2.StockKey) -> str:
    return f"{what}/{key.warehouse_id}/{key.sku}"


def rfc3339(unix_ms: int) -> str:
    """A time in UTC with milliseconds."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encoded(attributes: dict[str, Any]) -> bytes:
    return json.dumps(attributes, ensure_ascii=False, separators=(",", ":")).encode()
