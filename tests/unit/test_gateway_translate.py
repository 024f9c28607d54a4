# mypy: disable-error-code="arg-type, list-item"
# Enum fields get plain numbers on purpose: unknown ones must be possible.
"""Messages ↔ items and replies: every body fits its command, every view becomes its message, digests never change."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from actors.domain import answers as views
from actors.domain import outcomes
from actors.domain.commands import COMMANDS, Fulfill, Ingest, Release, Reserve
from actors.domain.keys import stock_key
from actors.domain.outcomes import Door, Fact, RejectReason, SellingState
from actors.shard.placement import shard_of
from gateway.access import ANYBODY
from gateway.config import BYTES_PER_FRAME_MAX, ChannelConfig, GatewayConfig, WarehouseConfig
from gateway.paging import read_token, write_token
from gateway.translate import answers, digests
from gateway.translate.events import FACTS, EventRequests, Results
from gateway.translate.exceptions import stock_exception
from gateway.translate.reservations import ReservationRequests, wire_size
from gateway.translate.stock import StockRequests
from gateway.validation import Findings, KnownNames
from stockade.v1 import exception_service_pb2, reservation_service_pb2, stock_key_pb2, stock_service_pb2
from stockade.v1 import reservation_service_pb2 as pb
from stockade.v1 import warehouse_event_service_pb2 as event_pb
from stockade.v1.stock_key_pb2 import StockKey

CONFIG = GatewayConfig(
    cluster_token="t",
    channels={"web": ChannelConfig(), "edi": ChannelConfig(may_impose=True)},
    warehouses={
        "main": WarehouseConfig(),
        "east": WarehouseConfig(Door.ORDER_MANAGEMENT, {Fact.STOCK_COUNT: frozenset({"auditor"})}),
    },
)
NAMES = KnownNames(CONFIG)
NAMES.set_shard_count(64)
RESERVATIONS = ReservationRequests(CONFIG, NAMES)
STOCK = StockRequests(NAMES)
EVENTS = EventRequests(CONFIG, NAMES)
KEY = StockKey(sku="A-1", warehouse_id="main")
PLACE = (5, 3, 99, 1_700_000_000_123)


def command(item: list[Any]) -> Any:
    """The item's body as the host takes it apart, after a trip through the wire's format."""
    verb, shard, _, weight, _, body = msgpack.unpackb(msgpack.packb(item))
    assert 0 <= shard < 64
    assert weight >= 1
    return COMMANDS[verb](*body)


def reserve(request: pb.ReserveStockRequest) -> tuple[int, Reserve]:
    found = Findings()
    item = RESERVATIONS.reserve(request, ANYBODY, [], found)
    assert not found
    return item[1], command(item)


def line(sku: str, warehouse_id: str = "main", **fields: Any) -> pb.LineRequest:
    return pb.LineRequest(stock_key=StockKey(sku=sku, warehouse_id=warehouse_id), quantity=1, **fields)


def test_a_reserve_carries_what_was_sent_and_defaults_for_the_rest() -> None:
    shard, body = reserve(pb.ReserveStockRequest(request_id="r", channel_id="web", lines=[line("A-1")]))
    key = stock_key("main", "A-1")
    assert shard == shard_of(key)
    assert body._replace(digest=b"") == Reserve("r", b"", "web", [["0", key, 1, 0]], 900_000, False, 1, 1, labels=[])
    assert len(body.digest) == digests.DIGEST_BYTES


def test_a_reserve_goes_to_the_shard_of_its_smallest_stock_key_by_warehouse_and_sku() -> None:
    lines = [line("A", "main"), line("Z", "east"), line("B", "east")]
    shard, body = reserve(pb.ReserveStockRequest(request_id="r", channel_id="web", lines=lines))
    assert shard == shard_of(stock_key("east", "B"))
    assert [each[0] for each in body.lines] == ["0", "1", "2"]


def test_a_replacement_goes_to_the_home_of_the_one_replaced() -> None:
    request = pb.ReserveStockRequest(
        request_id="r", channel_id="web", lines=[line("A")], replaces_reservation_id="1-tl-9-4"
    )
    assert reserve(request)[0] == 9


def test_labels_travel_sorted() -> None:
    request = pb.ReserveStockRequest(
        request_id="r", channel_id="web", lines=[line("A")], labels={"b": "2", "a": "1", "c": "3"}
    )
    assert reserve(request)[1].labels == [["a", "1"], ["b", "2"], ["c", "3"]]


def digest(**fields: Any) -> bytes:
    request = pb.ReserveStockRequest(**({"request_id": "r", "channel_id": "web", "lines": [line("A")]} | fields))
    return bytes(reserve(request)[1].digest)


def test_the_digest_depends_on_the_content_and_not_on_the_id() -> None:
    same = digest()
    assert digest(request_id="another") == same
    others = [
        digest(channel_id="edi"),
        digest(lines=[line("B")]),
        digest(lines=[line("A"), line("B")]),
        digest(lines=[line("B"), line("A")]),
        digest(lines=[line("A", line_id="0")]),
        digest(ttl=Duration(seconds=900)),
        digest(fill_policy=1),
        digest(confirm=True),
        digest(order_reference="x"),
        digest(customer_id="x"),
        digest(labels={"a": "b"}),
        digest(labels={"a": "c"}),
    ]
    assert len({same, *others}) == len(others) + 1


def test_the_order_of_labels_is_not_content() -> None:
    forth = {f"k{index}": "v" for index in range(16)}
    assert digest(labels=forth) == digest(labels=dict(reversed(forth.items())))


def test_digests_are_journaled_so_they_never_change() -> None:
    request = pb.ReserveStockRequest(
        request_id="r", channel_id="web", lines=[line("A-1")], labels={"b": "2", "a": "1"}, confirm=True
    )
    event = event_pb.WarehouseEvent(
        source_id="wms", event_id="e", stock_key=KEY, receipt=event_pb.Receipt(quantity=5), attributes={"x": "y"}
    )
    assert digests.RESERVE.of(request, has_map=True).hex() == "f4fc47d7d08d0b1d1741b2f7051c1137"
    assert digests.EVENT.of(event, has_map=True).hex() == "8bdf1bf8b2c5cdeee84bccf01527b1e9"


def test_the_same_fields_under_another_method_have_another_digest() -> None:
    request = {"request_id": "r", "stock_key": KEY}
    assert digests.SUSPEND.of(stock_service_pb2.SuspendSellingRequest(**request)) != digests.RESUME.of(
        stock_service_pb2.ResumeSellingRequest(**request)
    )


def test_a_release_by_its_reserve_goes_where_the_reserve_went() -> None:
    key = pb.ReserveKey(request_id="lost", channel_id="web", stock_key=KEY)
    found = Findings()
    item = RESERVATIONS.release(pb.ReleaseReservationRequest(request_id="r", reserve=key, reason=1), [], found)
    body = command(item)
    assert not found
    assert isinstance(body, Release)
    assert (item[1], body.channel_id, body.reserve_request_id) == (shard_of(stock_key("main", "A-1")), "web", "lost")
    key.replaces_reservation_id = "1-tl-9-4"
    item = RESERVATIONS.release(pb.ReleaseReservationRequest(request_id="r", reserve=key, reason=1), [], found)
    assert item[1] == 9


def test_a_fulfilment_carries_its_lines_and_time() -> None:
    request = pb.FulfillReservationRequest(
        request_id="r",
        reservation_id="1-tl-9-4",
        shipment_id="s",
        lines=[pb.FulfillLine(line_id="1", quantity=2, document_line="d")],
        close_remainder=True,
        occur_time=Timestamp(seconds=7, nanos=5_000_000),
    )
    body = command(RESERVATIONS.fulfill(request, [], Findings()))
    assert body == Fulfill("r", body.digest, "1-tl-9-4", "s", [["1", 2, "d"]], True, 7_005)


def event(**fields: Any) -> Ingest:
    given_fields = {"source_id": "wms", "event_id": "e", "occur_time": Timestamp(seconds=1), "stock_key": KEY}
    found = Findings()
    item = EVENTS.event(event_pb.WarehouseEvent(**(given_fields | fields)), [], found)
    assert not found, found
    body = command(item)
    assert isinstance(body, Ingest)
    return body


ORDER = stock_key_pb2.Promise(order=stock_key_pb2.OrderReference(channel_id="web", order_reference="SO-1"), line_id="1")
FACT_CASES: list[tuple[str, Any, list[Any]]] = [
    ("receipt", event_pb.Receipt(quantity=5, inbound_reference="PO", inbound_line="1"), [5, 1, "PO", "1"]),
    ("pick", event_pb.Pick(quantity=1), [1, []]),
    ("unpick", event_pb.Unpick(quantity=1, promise=ORDER), [1, ["", "web", "SO-1", "1"]]),
    ("shipment", event_pb.Shipment(quantity=2, shipment_id="s", promise=ORDER, close_remainder=True),
     [2, "s", ["", "web", "SO-1", "1"], True, 1]),
    ("adjustment", event_pb.Adjustment(delta=-3, disposition=3, reason="broken", note="n"), [-3, 3, "broken", "n"]),
    ("stock_count", event_pb.StockCount(quantity=0, take_as_now=True, includes_picked=True), [0, 1, 0, True, True]),
    ("disposition_change", event_pb.DispositionChange(quantity=1, from_disposition=1, to_disposition=2), [1, 1, 2]),
    ("transfer_dispatch", event_pb.TransferDispatch(quantity=1, transfer_id="t", to_warehouse_id="east"),
     [1, "t", "", "east", 1]),
    ("transfer_receipt", event_pb.TransferReceipt(quantity=1, transfer_id="t", from_warehouse_id="x", final=True),
     [1, "t", "", "x", True, 1]),
    ("customer_return", event_pb.CustomerReturn(quantity=1, return_id="rma"), [1, 2, [], "rma"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fact", "details"), FACT_CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_fact_carries_its_details(name: str, fact: Any, details: list[Any]) -> None:
    body = event(**{name: fact})
    assert (Fact(body.fact).name.lower(), body.details, body.reject_reason) == (name, details, 0)


def test_every_fact_of_the_contract_is_read() -> None:
    declared = [field.name for field in event_pb.WarehouseEvent.DESCRIPTOR.oneofs_by_name["fact"].fields]
    assert declared == list(FACTS) == [name for name, _, _ in FACT_CASES]
    assert [fact for fact, _ in FACTS.values()] == list(Fact)


def test_an_event_that_cannot_be_understood_goes_to_its_shard_with_the_reason() -> None:
    receipt = event_pb.Receipt(quantity=1)
    nowhere = StockKey(sku="A", warehouse_id="nowhere")
    east = StockKey(sku="A", warehouse_id="east")
    count = event_pb.StockCount(quantity=1, take_as_now=True)
    assert event().reject_reason == RejectReason.UNKNOWN_FACT
    assert event(receipt=receipt, stock_key=nowhere).reject_reason == RejectReason.UNKNOWN_WAREHOUSE
    assert event(stock_count=count, stock_key=east).reject_reason == RejectReason.SOURCE_NOT_ALLOWED
    assert event(stock_count=count, stock_key=east, source_id="auditor").reject_reason == 0
    assert event(receipt=receipt, stock_key=east).reject_reason == 0


def test_every_verb_of_a_caller_has_a_body_that_fits() -> None:
    found = Findings()
    requests = [
        RESERVATIONS.confirm(pb.ConfirmReservationRequest(request_id="r", reservation_id="1-t-1-1"), [], found),
        RESERVATIONS.get("1-t-1-1", [], found),
        RESERVATIONS.extend(
            pb.ExtendReservationRequest(request_id="r", reservation_id="1-t-1-1", ttl=Duration(seconds=5)), [], found
        ),
        RESERVATIONS.amend(
            pb.AmendReservationRequest(request_id="r", reservation_id="1-t-1-1", removed_line_ids=["1"]), [], found
        ),
        STOCK.get(stock_service_pb2.GetStockRequest(stock_key=KEY), [], found),
        STOCK.register(stock_service_pb2.StockRegistration(stock_key=KEY), "r", [], found),
        STOCK.set_policy(
            stock_service_pb2.SetStockPolicyRequest(
                request_id="r", stock_key=KEY, policy=stock_service_pb2.StockPolicy(max_quantity_per_order=0)
            ), [], found,
        ),
        STOCK.set_selling(
            stock_service_pb2.SuspendSellingRequest(request_id="r", stock_key=KEY), SellingState.SUSPENDED, [], found
        ),
        STOCK.availability_of_one(KEY, "web", [], found),
    ]  # fmt: skip
    assert not found
    for item in requests:
        command(item)
    policy = command(requests[6])
    assert (policy.safety_stock_quantity, policy.max_quantity_per_order, policy.selling_state) == (-1, 0, 0)


def test_availability_asks_each_shard_once_and_keeps_the_places() -> None:
    keys = [StockKey(sku=f"S{index}", warehouse_id=warehouse) for index in range(20) for warehouse in ("main", "east")]
    items, slots = STOCK.availability(keys, "web", [], Findings())
    assert len({item[1] for item in items}) == len(items) <= 16
    placed: dict[int, str] = {}
    for item, places in zip(items, slots, strict=True):
        placed.update(zip(places, item[5][1], strict=True))
    assert [placed[index] for index in range(40)] == [stock_key(key.warehouse_id, key.sku) for key in keys]


def test_the_largest_order_fits_into_a_frame() -> None:
    lines = [
        pb.LineRequest(
            line_id=f"{index:0128d}",
            stock_key=StockKey(sku=f"{index:0128d}", warehouse_id="main"),
            quantity=10**9,
            minimum_quantity=10**9,
        )
        for index in range(2_000)
    ]
    request = pb.ReserveStockRequest(
        request_id="r" * 128, channel_id="web", lines=lines, order_reference="o" * 128, customer_id="c" * 128,
        labels={f"{index:064d}": "v" * 256 for index in range(16)},
    )  # fmt: skip
    size = wire_size(request.ByteSize(), 1, 2_000, ["p" * 128] * 3)
    item = RESERVATIONS.reserve(request, ANYBODY, ["p" * 128] * 3, Findings())
    item[2] = 2**40
    assert len(msgpack.packb(item)) <= size
    assert len(msgpack.packb(item)) <= BYTES_PER_FRAME_MAX


@pytest.mark.parametrize("sku", ["A", "A" * 128])
def test_the_size_that_a_call_is_planned_with_is_an_upper_bound(sku: str) -> None:
    request = pb.ReserveStockRequest(request_id="r", channel_id="web", lines=[line(sku)])
    size = wire_size(request.ByteSize(), 1, 1, [])
    item = RESERVATIONS.reserve(request, ANYBODY, [], Findings())
    item[2] = 2**40
    assert len(msgpack.packb(item)) <= size


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_lean_grant_answers_the_lines_as_asked() -> None:
    request = pb.ReserveStockRequest(
        request_id="r", channel_id="web", lines=[line("A"), line("B", line_id="x")], order_reference="SO-1",
        customer_id="C", labels={"a": "b"},
    )  # fmt: skip
    item = RESERVATIONS.reserve(request, ANYBODY, [], Findings())
    granted = views.Granted("1-tl-5-1", 1, 1, 1_000, 901_500, PLACE, None, [(6, 1, 2, 3)])
    reservation = answers.granted_reservation("tl", granted, item[5], request).reservation
    assert [(each.line_id, each.stock_key.sku, each.granted_quantity) for each in reservation.lines] == [
        ("0", "A", 1),
        ("x", "B", 1),
    ]
    assert (reservation.channel_id, reservation.order_reference, reservation.customer_id) == ("web", "SO-1", "C")
    assert dict(reservation.labels) == {"a": "b"}
    assert reservation.expire_time.ToMilliseconds() == 901_500
    assert (reservation.position.sequence, reservation.position.time.ToMilliseconds()) == (99, PLACE[3])
    assert reservation.other_positions[0].shard == 6
    assert not reservation.HasField("confirm_time")


@pytest.mark.parametrize("others", [([(6, 1, 2, 3)],), ()], ids=["this version's host", "an older host"])
def test_a_refusal_tells_every_shard_that_it_saw(others: tuple[object, ...]) -> None:
    refusal = answers.refusal("tl", (14, [], 0, 0, PLACE, *others))
    assert refusal.position.sequence == 99
    assert [other.shard for other in refusal.other_positions] == ([6] if others else [])


def test_a_grant_that_differs_answers_its_own_lines() -> None:
    request = pb.ReserveStockRequest(request_id="r", channel_id="web", lines=[line("A")], confirm=True)
    item = RESERVATIONS.reserve(request, ANYBODY, [], Findings())
    own = views.LineView("0", stock_key("main", "A"), 5, 2, 0, 0, 0, 0, 1, True)
    granted = views.Granted("1-tl-5-1", 2, 1, 1_000, 0, PLACE, [own], [])
    reservation = answers.granted_reservation("tl", granted, item[5], request).reservation
    (shown,) = reservation.lines
    assert (shown.requested_quantity, shown.granted_quantity, shown.uncovered_quantity, shown.imposed) == (
        5,
        2,
        1,
        True,
    )
    assert not reservation.HasField("expire_time")
    assert reservation.confirm_time.ToMilliseconds() == 1_000


def test_a_reservation_shows_every_field_of_its_view() -> None:
    key = stock_key("main", "A")
    view = views.ReservationView(
        "1-tl-5-1", "web", "C", "SO-1", 3, 7, [views.LineView("0", key, 9, 8, 1, 2, 3, 4, 5, False)], [["a", "b"]],
        1_001, 1_002, 1_003, 1_004, PLACE, [],
    )  # fmt: skip
    shown = answers.reservation("tl", view)
    times = (shown.create_time, shown.expire_time, shown.confirm_time, shown.end_time)
    assert [time.ToMilliseconds() for time in times] == [1_001, 1_002, 1_003, 1_004]
    assert (shown.state, shown.version, dict(shown.labels)) == (3, 7, {"a": "b"})
    (one,) = shown.lines
    quantities = (
        one.requested_quantity, one.granted_quantity, one.fulfilled_quantity, one.released_quantity,
        one.expired_quantity, one.picked_quantity, one.uncovered_quantity,
    )  # fmt: skip
    assert quantities == (9, 8, 1, 2, 3, 4, 5)
    assert one.stock_key == StockKey(sku="A", warehouse_id="main")


def test_a_newer_host_may_append_to_a_view() -> None:
    key = stock_key("main", "A")
    view = (*views.StockView(key, [[1, 5]], 1, 2, 3, 4, 5, 6, 1, 7, "pcs", 8, 9, PLACE), "news")
    shown = answers.stock("tl", view)
    assert (shown.on_hand[0].quantity, shown.held_quantity, shown.available_quantity) == (5, 1, 9)
    assert (shown.policy.max_quantity_per_order, shown.policy.base_unit, shown.policy.version) == (7, "pcs", 8)


def test_a_refusal_shows_its_shortages() -> None:
    view = views.RefusalView(14, [["0", stock_key("main", "A"), 5, 2, 14]], 0, 0, PLACE)
    shown = answers.refusal("tl", view)
    (short,) = shown.shortages
    assert (shown.reason, short.requested_quantity, short.available_quantity, short.reason) == (14, 5, 2, 14)


def test_an_exception_and_an_explanation_show_every_field() -> None:
    key = stock_key("main", "A")
    shown = stock_exception(
        views.ExceptionView("x-tl-1-1", 1, 2, key, "m", 3, ["1-tl-1-1"], "s", "e", "r", "web", 1_000, 2_000, 4)
    )
    assert (shown.kind, shown.state, shown.quantity, shown.reject_reason) == (1, 2, 3, 4)
    assert shown.end_time.ToMilliseconds() == 2_000
    stock = views.StockView(key, [], 0, 0, 0, 0, 0, 0, 1, 0, "", 1, 0, PLACE)
    explained = answers.explanation(
        "tl", views.ExplanationView(stock, True, -1, 2, 0, 3, False, 14, 5_000, 6, [[9, 1_000, "Pick", -1, "wms e1"]])
    )
    assert (explained.cover_quantity, explained.largest_quantity_now, explained.refusal_reason) == (-1, 3, 14)
    assert explained.events[0].cause == "wms e1"


@pytest.mark.parametrize("outcome", list(outcomes.IngestOutcome))
def test_every_outcome_of_an_event_has_its_own_result(outcome: outcomes.IngestOutcome) -> None:
    result = event_pb.IngestResult()
    name = Results().fill(result, "tl", views.IngestView("e", int(outcome), PLACE, 3, "x", 6))
    assert result.WhichOneof("result") == name == outcome.name.lower()


ENUMS = [
    (outcomes.RefusalReason, stock_key_pb2.RefusalReason),
    (outcomes.ReservationState, stock_key_pb2.ReservationState),
    (outcomes.FillPolicy, reservation_service_pb2.FillPolicy),
    (outcomes.Admission, reservation_service_pb2.Admission),
    (outcomes.Disposition, stock_key_pb2.Disposition),
    (outcomes.SellingState, stock_key_pb2.SellingState),
    (outcomes.RejectReason, event_pb.RejectReason),
    (outcomes.ExceptionKind, exception_service_pb2.ExceptionKind),
    (outcomes.ExceptionState, exception_service_pb2.ExceptionState),
    (outcomes.ExceptionPriority, exception_service_pb2.ExceptionPriority),
    (outcomes.ResolveAction, exception_service_pb2.ResolveAction),
]


@pytest.mark.parametrize(("ours", "theirs"), ENUMS, ids=lambda enum: getattr(enum, "__name__", ""))
def test_the_enums_of_domain_and_contract_agree(ours: Any, theirs: Any) -> None:
    prefix = "".join("_" + c if c.isupper() else c.upper() for c in theirs.DESCRIPTOR.name).lstrip("_")
    declared = {name.removeprefix(f"{prefix}_"): number for name, number in theirs.items() if number}
    assert declared == {each.name: int(each) for each in ours}


def test_a_release_reason_that_only_the_service_writes_cannot_be_sent() -> None:
    declared = {number for number in reservation_service_pb2.ReleaseReason.values() if number}
    own = {int(outcomes.ReleaseReason.AMENDED), int(outcomes.ReleaseReason.ABORTED)}
    assert declared == {int(reason) for reason in outcomes.ReleaseReason} - own


# --- page tokens -----------------------------------------------------------------------------------------------------


def test_a_page_token_remembers_the_host_and_its_cursor() -> None:
    token = write_token("host-b", "cursor", ["web", "", "", [1]])
    assert read_token(token, ["web", "", "", [1]], Findings()) == ("host-b", "cursor")
    assert read_token("", [], Findings()) == ("", "")


@pytest.mark.parametrize("token", ["x", "%%%", "AAAA", "é", "A" * 3000, write_token("h", "c", ["other"])])
def test_a_foreign_page_token_is_a_bad_field(token: str) -> None:
    found = Findings()
    read_token(token, ["web"], found)
    assert [violation.field for violation in found] == ["page_token"]


def test_a_shortage_of_a_line_that_has_no_stock_key_is_told_without_one() -> None:
    """Found by fuzzing: releasing an unknown line, or amending a line below what was shipped, was INTERNAL."""
    view = views.RefusalView(int(outcomes.RefusalReason.BELOW_FULFILLED), [["7", "", 2, 0, 10]], 2, 3, PLACE)
    shortage = answers.refusal("t1", view).shortages[0]
    assert (shortage.line_id, shortage.HasField("stock_key"), shortage.requested_quantity) == ("7", False, 2)
