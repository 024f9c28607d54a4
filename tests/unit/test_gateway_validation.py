# mypy: disable-error-code="arg-type, list-item"
# Enum fields get plain numbers on purpose: unknown ones must be possible.
"""Each rule about a field, as a table: what is sent → which fields are named. And all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from actors.domain.outcomes import ErrorReason, SellingState
from gateway.access import ANYBODY, Principal
from gateway.config import ChannelConfig, GatewayConfig, WarehouseConfig
from gateway.errors import CallFailed
from gateway.translate.events import EventRequests
from gateway.translate.exceptions import ExceptionRequests
from gateway.translate.reservations import ReservationRequests
from gateway.translate.stock import StockRequests
from gateway.validation import Findings, KnownNames, id_problem, valid_id
from stockade.v1 import availability_service_pb2 as availability_pb
from stockade.v1 import exception_service_pb2 as exception_pb
from stockade.v1 import reservation_service_pb2 as pb
from stockade.v1 import stock_service_pb2 as stock_pb
from stockade.v1 import warehouse_event_service_pb2 as event_pb
from stockade.v1.stock_key_pb2 import OrderReference, Promise, StockKey

CONFIG = GatewayConfig(
    cluster_token="t",
    channels={"web": ChannelConfig(), "edi": ChannelConfig(may_impose=True)},
    warehouses={"main": WarehouseConfig(), "overflow": WarehouseConfig()},
)
NAMES = KnownNames(CONFIG)
NAMES.set_shard_count(64)
RESERVATIONS = ReservationRequests(CONFIG, NAMES)
STOCK = StockRequests(NAMES)
EVENTS = EventRequests(CONFIG, NAMES)
EXCEPTIONS = ExceptionRequests(NAMES, EVENTS)
RESERVATION_ID = "1-tl-5-17"
KEY = StockKey(sku="A-1", warehouse_id="main")


def line(**fields: Any) -> pb.LineRequest:
    return pb.LineRequest(**({"stock_key": KEY, "quantity": 1} | fields))


def reserve(**fields: Any) -> pb.ReserveStockRequest:
    return pb.ReserveStockRequest(**({"request_id": "r", "channel_id": "web", "lines": [line()]} | fields))


def confirm(**fields: Any) -> pb.ConfirmReservationRequest:
    return pb.ConfirmReservationRequest(**({"request_id": "r", "reservation_id": RESERVATION_ID} | fields))


def release(**fields: Any) -> pb.ReleaseReservationRequest:
    target = {} if "reserve" in fields else {"reservation_id": RESERVATION_ID}
    return pb.ReleaseReservationRequest(**({"request_id": "r", "reason": 1} | target | fields))


def extend(**fields: Any) -> pb.ExtendReservationRequest:
    given_fields = {"request_id": "r", "reservation_id": RESERVATION_ID, "ttl": Duration(seconds=60)} | fields
    return pb.ExtendReservationRequest(**given_fields)


def amend(**fields: Any) -> pb.AmendReservationRequest:
    given_fields = {"request_id": "r", "reservation_id": RESERVATION_ID, "target_lines": [line(line_id="1")]} | fields
    return pb.AmendReservationRequest(**given_fields)


def fulfill(**fields: Any) -> pb.FulfillReservationRequest:
    given_fields = {"request_id": "r", "reservation_id": RESERVATION_ID, "shipment_id": "s"} | fields
    return pb.FulfillReservationRequest(**given_fields)


def event(**fields: Any) -> event_pb.WarehouseEvent:
    fact = {} if any(name in fields for name in FACT_NAMES) else {"receipt": event_pb.Receipt(quantity=1)}
    given_fields = {"source_id": "wms", "event_id": "e", "occur_time": Timestamp(seconds=1), "stock_key": KEY}
    return event_pb.WarehouseEvent(**(given_fields | fact | fields))


FACT_NAMES = [field.name for field in event_pb.WarehouseEvent.DESCRIPTOR.oneofs_by_name["fact"].fields]

READERS: dict[type[Any], Callable[[Any, Findings], Any]] = {
    pb.ReserveStockRequest: lambda request, found: RESERVATIONS.reserve(request, ANYBODY, [], found),
    pb.ConfirmReservationRequest: lambda request, found: RESERVATIONS.confirm(request, [], found),
    pb.ReleaseReservationRequest: lambda request, found: RESERVATIONS.release(request, [], found),
    pb.ExtendReservationRequest: lambda request, found: RESERVATIONS.extend(request, [], found),
    pb.AmendReservationRequest: lambda request, found: RESERVATIONS.amend(request, [], found),
    pb.FulfillReservationRequest: lambda request, found: RESERVATIONS.fulfill(request, [], found),
    pb.ListReservationsRequest: lambda request, found: RESERVATIONS.list_filters(request, ANYBODY, found),
    event_pb.WarehouseEvent: lambda request, found: EVENTS.event(request, [], found),
    stock_pb.GetStockRequest: lambda request, found: STOCK.get(request, [], found),
    stock_pb.StockRegistration: lambda request, found: STOCK.register(request, "r", [], found),
    stock_pb.SetStockPolicyRequest: lambda request, found: STOCK.set_policy(request, [], found),
    stock_pb.SuspendSellingRequest: lambda request, found: STOCK.set_selling(
        request, SellingState.SUSPENDED, [], found
    ),
    stock_pb.ListStockRequest: lambda request, found: STOCK.list_filters(request, found),
    availability_pb.ExplainAvailabilityRequest: lambda request, found: STOCK.explain(request, [], found),
    exception_pb.ListExceptionsRequest: lambda request, found: EXCEPTIONS.filters(request, found),
    exception_pb.ResolveExceptionRequest: lambda request, found: EXCEPTIONS.resolve(request, ["", "", ""], found),
}


def bad_fields(request: Any) -> list[str]:
    found = Findings()
    READERS[type(request)](request, found)
    assert all(violation.description for violation in found)
    return [violation.field for violation in found]


LONG = "x" * 129
GOOD = [
    reserve(),
    reserve(channel_id="edi", admission=2, fill_policy=3, confirm=True),
    reserve(lines=[line(), line(), line(line_id="tenth", minimum_quantity=1)]),
    reserve(lines=[line() for _ in range(2_000)]),
    reserve(lines=[line(quantity=10**9)]),
    reserve(ttl=Duration(seconds=1)),
    reserve(ttl=Duration(seconds=86_400)),
    reserve(request_id="x" * 128),
    reserve(request_id="né 漢字"),
    reserve(labels={f"k{index}": "v" * 256 for index in range(16)}),
    reserve(replaces_reservation_id=RESERVATION_ID),
    confirm(order_reference="SO-1", expected_version=3),
    release(lines=[pb.ReleaseLine(line_id="1", quantity=1)], note="two\nlines"),
    release(reserve=pb.ReserveKey(request_id="lost", channel_id="web", stock_key=KEY)),
    extend(),
    amend(removed_line_ids=["2"]),
    amend(target_lines=[], removed_line_ids=["2"]),
    fulfill(lines=[pb.FulfillLine(line_id="1", quantity=1, document_line=f"d{index}") for index in range(2)]),
    pb.ListReservationsRequest(channel_id="web", order_reference="SO-1", states=[1, 5], page_size=1000),
    event(),
    event(stock_count=event_pb.StockCount(quantity=0, take_as_now=True)),
    event(adjustment=event_pb.Adjustment(delta=-5)),
    event(pick=event_pb.Pick(quantity=1, promise=Promise(reservation_id=RESERVATION_ID, line_id="1"))),
    event(stock_key=StockKey(sku="A", warehouse_id="nowhere")),
    stock_pb.StockRegistration(stock_key=KEY, policy=stock_pb.StockPolicy(safety_stock_quantity=0)),
]

BAD: list[tuple[Any, list[str]]] = [
    # ids
    (reserve(request_id=""), ["request_id"]),
    (reserve(request_id=LONG), ["request_id"]),
    (reserve(request_id="é" * 65), ["request_id"]),
    (reserve(request_id=" r"), ["request_id"]),
    (reserve(request_id="r\u00a0"), ["request_id"]),
    (reserve(request_id="r\n2"), ["request_id"]),
    (reserve(request_id="r\x1f2"), ["request_id"]),
    (reserve(request_id="r\x7f"), ["request_id"]),
    (reserve(request_id="é\x85"), ["request_id"]),
    (reserve(order_reference=" "), ["order_reference"]),
    (reserve(customer_id="a\0b"), ["customer_id"]),
    (reserve(replaces_reservation_id="x\t"), ["replaces_reservation_id"]),
    # names
    (reserve(channel_id=""), ["channel_id"]),
    (reserve(channel_id="wbe"), ["channel_id"]),
    (reserve(lines=[line(stock_key=StockKey(sku="A", warehouse_id="mian"))]), ["lines[0].stock_key.warehouse_id"]),
    (reserve(lines=[line(stock_key=StockKey())]), ["lines[0].stock_key.sku", "lines[0].stock_key.warehouse_id"]),
    (reserve(lines=[pb.LineRequest(quantity=1)]), ["lines[0].stock_key.sku", "lines[0].stock_key.warehouse_id"]),
    # quantities
    (reserve(lines=[line(quantity=0)]), ["lines[0].quantity"]),
    (reserve(lines=[line(quantity=-1)]), ["lines[0].quantity"]),
    (reserve(lines=[line(), line(quantity=10**9 + 1)]), ["lines[1].quantity"]),
    (reserve(lines=[line(quantity=2**63 - 1)]), ["lines[0].quantity"]),
    (reserve(lines=[line(minimum_quantity=2)]), ["lines[0].minimum_quantity"]),
    (reserve(lines=[line(minimum_quantity=-1)]), ["lines[0].minimum_quantity"]),
    # lines
    (reserve(lines=[]), ["lines"]),
    (reserve(lines=[line() for _ in range(2_001)]), ["lines"]),
    (reserve(lines=[line(line_id="a"), line(line_id="b"), line(line_id="a")]), ["lines[2].line_id"]),
    (reserve(lines=[line(), line(line_id="0")]), ["lines[1].line_id"]),
    # reserved for later
    (reserve(lines=[line(quantity_multiple=6)]), ["lines[0].quantity_multiple"]),
    (reserve(lines=[line(bundle_id="b")]), ["lines[0].bundle_id"]),
    (reserve(lines=[line(unit_code="kg")]), ["lines[0].unit_code"]),
    (reserve(lines=[line(lot_id="l")]), ["lines[0].lot_id"]),
    (reserve(lines=[line(stock_key=StockKey(sku="A-1", warehouse_id="main", owner_id="o"))]),
     ["lines[0].stock_key.owner_id"]),
    (event(unit_code="kg"), ["unit_code"]),
    # enums
    (reserve(fill_policy=4), ["fill_policy"]),
    (reserve(fill_policy=-1), ["fill_policy"]),
    (reserve(admission=9), ["admission"]),
    (release(reason=0), ["reason"]),
    (release(reason=9), ["reason"]),
    (pb.ListReservationsRequest(states=[1, 0, 6]), ["states[1]", "states[2]"]),
    (event(receipt=event_pb.Receipt(quantity=1, disposition=6)), ["receipt.disposition"]),
    # durations and times
    (reserve(ttl=Duration()), ["ttl"]),
    (reserve(ttl=Duration(seconds=-60)), ["ttl"]),
    (reserve(ttl=Duration(seconds=86_401)), ["ttl"]),
    (reserve(ttl=Duration(seconds=2**62)), ["ttl"]),
    (pb.ExtendReservationRequest(request_id="r", reservation_id=RESERVATION_ID), ["ttl"]),
    (fulfill(occur_time=Timestamp(seconds=-1)), ["occur_time"]),
    (event(occur_time=Timestamp(seconds=2**60)), ["occur_time"]),
    (event(occur_time=Timestamp(seconds=1, nanos=2**31 - 1)), ["occur_time"]),
    (event(occur_time=Timestamp(seconds=1, nanos=-1)), ["occur_time"]),
    # labels and texts
    (reserve(labels={f"k{index}": "" for index in range(17)}), ["labels"]),
    (reserve(labels={"k" * 65: "v"}), [f"labels[{'k' * 64!r}]"]),
    (reserve(labels={"k": "v" * 257}), ["labels['k']"]),
    (release(note="x" * 1025), ["note"]),
    # verbs on a reservation
    (confirm(request_id="", reservation_id=" "), ["request_id", "reservation_id"]),
    (confirm(expected_version=-1), ["expected_version"]),
    (pb.ReleaseReservationRequest(request_id="r", reason=1), ["reservation_id"]),
    (release(reserve=pb.ReserveKey()), ["reserve.channel_id", "reserve.request_id", "reserve.stock_key.sku",
                                        "reserve.stock_key.warehouse_id"]),
    (release(reserve=pb.ReserveKey(request_id="r", channel_id="web", stock_key=KEY)), ["request_id"]),
    (release(lines=[pb.ReleaseLine(line_id="1", quantity=1)] * 2), ["lines[1].line_id"]),
    (release(lines=[pb.ReleaseLine()]), ["lines[0].line_id", "lines[0].quantity"]),
    (amend(target_lines=[]), ["target_lines"]),
    (amend(target_lines=[line()]), ["target_lines[0].line_id"]),
    (amend(removed_line_ids=["1"]), ["removed_line_ids[0]"]),
    (
        amend(target_lines=[line(), line(line_id="a"), line(line_id="a")]),
        ["target_lines[0].line_id", "target_lines[2].line_id"],
    ),
    (amend(removed_line_ids=["2", "2"]), ["removed_line_ids[1]"]),
    (fulfill(shipment_id=""), ["shipment_id"]),
    (fulfill(lines=[pb.FulfillLine(line_id="1", quantity=1)] * 2), ["lines[1].document_line"]),
    # lists
    (pb.ListReservationsRequest(order_reference="SO-1"), ["channel_id"]),
    (pb.ListReservationsRequest(page_size=1001), ["page_size"]),
    (stock_pb.ListStockRequest(warehouse_id="mian", page_size=-1), ["warehouse_id", "page_size"]),
    (exception_pb.ListExceptionsRequest(kinds=[9], states=[9]), ["kinds[0]", "states[0]"]),
    (exception_pb.ResolveExceptionRequest(), ["request_id", "exception_id", "action", "note", "resolver"]),
    (
        exception_pb.ResolveExceptionRequest(
            request_id="r", exception_id="x-t-1-1", action=2, note="n", resolver="me",
            corrected_event=event_pb.WarehouseEvent(source_id="wms", event_id="e", stock_key=KEY),
        ),
        ["corrected_event.occur_time"],
    ),
    # stock
    (stock_pb.SetStockPolicyRequest(request_id="r", stock_key=KEY), ["policy"]),
    (stock_pb.StockRegistration(stock_key=KEY, policy=stock_pb.StockPolicy(safety_stock_quantity=-1)),
     ["policy.safety_stock_quantity"]),
    (stock_pb.SuspendSellingRequest(), ["request_id", "stock_key.sku", "stock_key.warehouse_id"]),
    (availability_pb.ExplainAvailabilityRequest(stock_key=KEY, channel_id="web", quantity=-1), ["quantity"]),
    # events
    (event_pb.WarehouseEvent(), ["source_id", "event_id", "occur_time", "stock_key.sku", "stock_key.warehouse_id"]),
    (event(receipt=event_pb.Receipt()), ["receipt.quantity"]),
    (event(receipt=event_pb.Receipt(quantity=10**15 + 1)), ["receipt.quantity"]),
    (event(shipment=event_pb.Shipment(quantity=1)), ["shipment.shipment_id"]),
    (event(shipment=event_pb.Shipment(quantity=1, shipment_id="s", promise=Promise())), ["shipment.promise"]),
    (event(pick=event_pb.Pick(quantity=1, promise=Promise(order=OrderReference()))),
     ["pick.promise.order.channel_id", "pick.promise.order.order_reference"]),
    (event(adjustment=event_pb.Adjustment()), ["adjustment.delta"]),
    (event(stock_count=event_pb.StockCount(quantity=-1)), ["stock_count.quantity"]),
    (event(disposition_change=event_pb.DispositionChange(quantity=1)),
     ["disposition_change.from_disposition", "disposition_change.to_disposition"]),
    (event(disposition_change=event_pb.DispositionChange(quantity=1, from_disposition=1, to_disposition=1)),
     ["disposition_change.to_disposition"]),
    (event(transfer_dispatch=event_pb.TransferDispatch(quantity=1)),
     ["transfer_dispatch.transfer_id", "transfer_dispatch.to_warehouse_id"]),
]  # fmt: skip


@pytest.mark.parametrize("request_", GOOD, ids=lambda request: type(request).__name__)
def test_a_good_request_has_no_bad_field(request_: Any) -> None:
    assert bad_fields(request_) == []


@pytest.mark.parametrize(
    ("request_", "fields"), BAD, ids=lambda value: ",".join(value) if isinstance(value, list) else ""
)
def test_a_bad_field_is_named(request_: Any, fields: list[str]) -> None:
    assert bad_fields(request_) == fields


def test_every_bad_field_is_named_at_once() -> None:
    request = reserve(
        request_id="",
        channel_id="wbe",
        lines=[line(quantity=0, lot_id="l"), line(stock_key=StockKey(sku=LONG, warehouse_id="mian"))],
        ttl=Duration(seconds=-1),
        fill_policy=7,
        admission=7,
        order_reference=LONG,
        customer_id=LONG,
        replaces_reservation_id=LONG,
        labels={"": "v"},
    )
    assert bad_fields(request) == [
        "request_id", "channel_id", "lines[0].quantity", "lines[0].lot_id", "lines[1].stock_key.sku",
        "lines[1].stock_key.warehouse_id", "ttl", "fill_policy", "admission", "order_reference", "customer_id",
        "replaces_reservation_id", "labels['']",
    ]  # fmt: skip


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    found = Findings()
    READERS[pb.ReserveStockRequest](reserve(channel_id="wbe"), found)
    assert found[0].description == "channel 'wbe' is not declared in the settings; known: edi, web"


def test_admission_always_needs_a_channel_that_may_impose() -> None:
    with pytest.raises(CallFailed) as failure:
        RESERVATIONS.reserve(reserve(admission=2), ANYBODY, [], Findings())
    assert failure.value.reason is ErrorReason.PERMISSION_DENIED


def test_a_seller_sells_in_his_own_channels_only() -> None:
    seller = Principal("shop", frozenset({"edi"}), frozenset(), operator=False)
    with pytest.raises(CallFailed) as failure:
        RESERVATIONS.reserve(reserve(), seller, [], Findings())
    assert failure.value.reason is ErrorReason.PERMISSION_DENIED
    assert RESERVATIONS.reserve(reserve(channel_id="edi"), seller, [], Findings())


@pytest.mark.parametrize("foreign", ["order-5", "2-tl-5-17", "1-tl-64-1", "1-tl-05-1", "1--5-1"])
def test_a_reservation_id_that_is_not_ours_is_not_found(foreign: str) -> None:
    with pytest.raises(CallFailed) as failure:
        RESERVATIONS.confirm(confirm(reservation_id=foreign), [], Findings())
    assert failure.value.reason is ErrorReason.RESERVATION_NOT_FOUND


@given(st.text(max_size=140))
def test_the_quick_check_of_an_id_and_the_explaining_one_agree(text: str) -> None:
    assert valid_id(text) == (id_problem(text) == "")


def test_a_full_cache_of_stock_keys_is_emptied_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.validation.STOCK_KEY_CACHE_MAX", 10)
    names = KnownNames(CONFIG)
    names.set_shard_count(64)
    keys = [StockKey(sku=f"S{index}", warehouse_id="main") for index in range(25)]
    placed = [names.place(key, "stock_key", Findings()) for key in keys]
    assert placed == [NAMES.place(key, "stock_key", Findings()) for key in keys]
    assert len(names.placed["main"]) <= 10
