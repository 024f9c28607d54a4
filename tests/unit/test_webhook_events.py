"""Changes as CloudEvents: the contract with receivers, field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.webhooks.cloud_events import change_event, ping_event, restarted_event
from stockade.v1 import change_feed_service_pb2 as pb
from stockade.v1 import stock_key_pb2

TIME_MS = 1_700_000_000_123
KEY = stock_key_pb2.StockKey(sku="Ä-1", warehouse_id="main")


def change(**body: Any) -> pb.Change:
    return pb.Change(change_id="t1-7-42", shard=7, sequence=42, time_ms=TIME_MS, **body)


def available(sku: str = "Ä-1") -> pb.Change:
    said = pb.AvailabilityChange(
        stock_key=stock_key_pb2.StockKey(sku=sku, warehouse_id="main"),
        available_quantity=5,
        stale=True,
        seen_sequence=44,
    )
    return change(availability=said)


def event_of(given: pb.Change, **options: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(change_event(given, **options).event)
    return made


def test_an_availability():
    assert event_of(available()) == {
        "specversion": "1.0",
        "id": "t1-7-42",
        "source": "/stockade/t1",
        "type": "stockade.availability.changed.v1",
        "subject": "stock/main/Ä-1",
        "datacontenttype": "application/json",
        "time": "2023-11-14T22:13:20.123Z",
        "shard": 7,
        "sequence": "00000000000000000042",
        "data": {
            "sku": "Ä-1",
            "warehouse_id": "main",
            "available_quantity": 5,
            "stale": True,
            "seen_sequence": 44,
        },
    }


def test_a_value_of_a_snapshot_is_told_as_the_current_one():
    event = event_of(available(), snapshot=True)
    assert (event["type"], event["id"]) == ("stockade.availability.current.v1", "t1-7-42")


def test_a_reservation_says_what_this_change_says():
    line = pb.ChangedLine(line_id="1", stock_key=KEY, requested_quantity=3, granted_quantity=2)
    opened = pb.ReservationChange(
        kind=pb.RESERVATION_CHANGE_KIND_OPENED,
        reservation_id="r-1",
        channel_id="web",
        order_reference="o-1",
        state=stock_key_pb2.RESERVATION_STATE_HELD,
        expire_time_ms=TIME_MS,
        lines=[line],
        request_id="q-1",
    )
    event = event_of(change(reservation=opened))
    assert (event["type"], event["subject"]) == ("stockade.reservation.opened.v1", "reservations/r-1")
    assert event["data"] == {
        "reservation_id": "r-1",
        "channel_id": "web",
        "order_reference": "o-1",
        "state": "HELD",
        "expire_time": "2023-11-14T22:13:20.123Z",
        "lines": [
            {"line_id": "1", "sku": "Ä-1", "warehouse_id": "main", "requested_quantity": 3, "granted_quantity": 2}
        ],
        "request_id": "q-1",
    }

    ended = pb.ReservationChange(
        kind=pb.RESERVATION_CHANGE_KIND_UNITS_ENDED, reservation_id="r-1", channel_id="web", fulfilled_quantity=2
    )
    event = event_of(change(reservation=ended))
    assert event["type"] == "stockade.reservation.units_ended.v1"
    assert event["data"] == {"reservation_id": "r-1", "channel_id": "web", "fulfilled_quantity": 2}


@pytest.mark.parametrize("kind", [number for _, number in pb.ReservationChangeKind.items() if number])
def test_every_kind_of_reservation_change_has_a_type(kind: int):
    said = pb.ReservationChange(kind=kind, reservation_id="r-1")  # type: ignore[arg-type]
    assert event_of(change(reservation=said))["type"] != "stockade.reservation.changed.v1"


def test_a_warehouse():
    event = event_of(change(warehouse=pb.WarehouseChange(warehouse_id="main", stale=True)))
    assert (event["type"], event["subject"]) == ("stockade.warehouse.changed.v1", "warehouses/main")
    assert event["data"] == {"warehouse_id": "main", "stale": True}


def test_order_is_kept_for_a_stock_key_a_reservation_and_a_warehouse():
    keys = [
        change_event(one).order_key
        for one in (
            available("A"),
            available("A"),
            available("B"),
            change(reservation=pb.ReservationChange(reservation_id="A")),
            change(warehouse=pb.WarehouseChange(warehouse_id="A")),
        )
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_notices_are_events_but_no_changes():
    for notice, kind in (
        (restarted_event("TOO_OLD", "n-1", 0.0), "stockade.feed.restarted.v1"),
        (ping_event("n-1", 0.0), "stockade.ping.v1"),
    ):
        event = json.loads(notice.event)
        assert (event["id"], event["type"], event["source"]) == ("n-1", kind, "/stockade")
        assert notice.change_id == "", "its rejection would be none of a change"
