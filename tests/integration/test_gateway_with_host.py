"""Gateway and shard host together, over a journal in memory: every method, from the request to the shard and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.duration_pb2 import Duration
from prometheus_client.parser import text_string_to_metric_families

from actors.domain.outcomes import Door, Fact
from actors.domain.rules import Rules
from actors.runtime.host_metrics import host_metrics_text
from gateway.config import WarehouseConfig
from stockade.v1 import admin_service_pb2 as admin_pb
from stockade.v1 import availability_service_pb2 as availability_pb
from stockade.v1 import exception_service_pb2 as exception_pb
from stockade.v1 import reservation_service_pb2 as pb
from stockade.v1 import stock_key_pb2 as words
from stockade.v1 import stock_service_pb2 as stock_pb
from stockade.v1 import warehouse_event_service_pb2 as event_pb
from stockade.v1.stock_key_pb2 import StockKey
from tests.integration import host_world
from tests.integration.gateway_world import FakeDirectory, World, before, until


@contextlib.asynccontextmanager
async def node(rules: Rules | None = None, **settings: Any) -> AsyncIterator[tuple[World, host_world.World]]:
    async with host_world.world(rules) as there:
        directory = FakeDirectory(there.host.route)
        async with before(directory, **settings) as here:
            yield here, there


def key(sku: str = "A", warehouse_id: str = "main") -> StockKey:
    return StockKey(sku=sku, warehouse_id=warehouse_id)


def reserve(request_id: str, quantity: int = 1, sku: str = "A", **fields: Any) -> pb.ReserveStockRequest:
    given: dict[str, Any] = {"lines": [pb.LineRequest(stock_key=key(sku), quantity=quantity)]}
    return pb.ReserveStockRequest(request_id=request_id, channel_id=fields.pop("channel_id", "web"), **(given | fields))


def told(event_id: str, sku: str = "A", **fact: Any) -> event_pb.WarehouseEvent:
    named: Any = {"source_id": "wms"} | fact
    event = event_pb.WarehouseEvent(event_id=event_id, stock_key=key(sku), **named)
    event.occur_time.GetCurrentTime()
    return event


async def receive(here: World, quantity: int, sku: str = "A") -> None:
    event = told(f"receipt-{sku}-{quantity}", sku, receipt=event_pb.Receipt(quantity=quantity))
    response = await here.call(event_pb.IngestEventsRequest(events=[event]))
    assert response.results[0].WhichOneof("result") == "applied", response


async def available(here: World, sku: str = "A") -> int:
    response = await here.call(availability_pb.GetAvailabilityRequest(stock_key=key(sku), channel_id="web"))
    return int(response.availability.available_quantity)


async def test_the_life_of_a_reservation():
    async with node(Rules(doors={"main": Door.ORDER_MANAGEMENT})) as (here, _):
        await receive(here, 10)
        held = (await here.call(reserve("r1", 4, order_reference="SO-1"))).reservation
        assert (held.state, held.version, await available(here)) == (words.RESERVATION_STATE_HELD, 1, 6)
        own = {"reservation_id": held.reservation_id}
        extended = await here.call(pb.ExtendReservationRequest(request_id="r2", ttl=Duration(seconds=3_000), **own))
        assert extended.reservation.expire_time.seconds > held.expire_time.seconds
        target = pb.LineRequest(line_id="0", stock_key=key(), quantity=6)
        amended = await here.call(pb.AmendReservationRequest(request_id="r3", target_lines=[target], **own))
        assert (amended.reservation.lines[0].granted_quantity, await available(here)) == (6, 4)
        confirmed = await here.call(pb.ConfirmReservationRequest(request_id="r4", **own))
        assert confirmed.reservation.state == words.RESERVATION_STATE_CONFIRMED
        again = await here.call(pb.ConfirmReservationRequest(request_id="r4", **own))
        assert again.reservation.version == confirmed.reservation.version
        twice = await here.call(pb.ConfirmReservationRequest(request_id="r5", **own))
        assert twice.refusal.reason == words.REFUSAL_REASON_RESERVATION_ALREADY_CONFIRMED
        part = pb.FulfillLine(line_id="0", quantity=2)
        fulfilled = await here.call(
            pb.FulfillReservationRequest(request_id="r6", shipment_id="s1", lines=[part], **own)
        )
        assert fulfilled.reservation.lines[0].fulfilled_quantity == 2
        released = await here.call(
            pb.ReleaseReservationRequest(request_id="r7", reason=pb.RELEASE_REASON_CUSTOMER_CANCELLED, **own)
        )
        assert released.reservation.state == words.RESERVATION_STATE_FULFILLED
        assert await available(here) == 8
        shown = (await here.call(pb.GetReservationRequest(**own))).reservation
        assert (shown.order_reference, shown.lines[0].released_quantity) == ("SO-1", 4)


async def test_a_line_that_has_nothing_open_is_refused_by_its_id():
    async with node(Rules(doors={"main": Door.ORDER_MANAGEMENT})) as (here, _):
        await receive(here, 10)
        held = (await here.call(reserve("r1", 4))).reservation
        own = {"reservation_id": held.reservation_id}
        nowhere = pb.ReleaseLine(line_id="7", quantity=1)
        why = pb.RELEASE_REASON_CUSTOMER_CANCELLED
        refusal = (
            await here.call(pb.ReleaseReservationRequest(request_id="r2", lines=[nowhere], reason=why, **own))
        ).refusal
        assert refusal.reason == words.REFUSAL_REASON_QUANTITY_EXCEEDS_OPEN
        assert [(short.line_id, short.requested_quantity) for short in refusal.shortages] == [("7", 1)]
        await here.call(pb.ConfirmReservationRequest(request_id="r3", **own))
        shipped = pb.FulfillLine(line_id="0", quantity=3)
        await here.call(pb.FulfillReservationRequest(request_id="r4", shipment_id="s1", lines=[shipped], **own))
        fewer = pb.LineRequest(line_id="0", stock_key=key(), quantity=2)
        refusal = (await here.call(pb.AmendReservationRequest(request_id="r5", target_lines=[fewer], **own))).refusal
        assert refusal.reason == words.REFUSAL_REASON_BELOW_FULFILLED
        assert [(short.line_id, short.requested_quantity) for short in refusal.shortages] == [("0", 3)]


async def test_the_last_unit_is_sold_once_to_200_concurrent_buyers():
    async with node() as (here, _):
        await receive(here, 1)
        responses = await asyncio.gather(*(here.call(reserve(f"r{index}"), timeout=20) for index in range(200)))
        assert sum(response.WhichOneof("result") == "reservation" for response in responses) == 1
        refused = {response.refusal.reason for response in responses if response.HasField("refusal")}
        assert refused == {words.REFUSAL_REASON_INSUFFICIENT_STOCK}


async def test_the_same_id_repeats_the_decision_and_other_content_is_an_error():
    async with node() as (here, _):
        await receive(here, 10)
        first = (await here.call(reserve("r1", 3))).reservation
        again = (await here.call(reserve("r1", 3))).reservation
        assert (again.reservation_id, again.expire_time) == (first.reservation_id, first.expire_time)
        assert await available(here) == 7
        failure = await here.failure(reserve("r1", 4))
        assert failure.what == ("ALREADY_EXISTS", "REQUEST_ID_REUSED", "not_done")


async def test_an_unknown_reservation_is_not_found():
    async with node() as (here, _):
        for reservation_id in ("1-tl1-5-99", "somebody-elses"):
            failure = await here.failure(pb.GetReservationRequest(reservation_id=reservation_id))
            assert failure.what == ("NOT_FOUND", "RESERVATION_NOT_FOUND", "not_done")


async def test_a_release_by_request_id_before_its_reserve_wins():
    async with node() as (here, _):
        await receive(here, 10)
        lost = pb.ReserveKey(request_id="r1", channel_id="web", stock_key=key())
        released = await here.call(
            pb.ReleaseReservationRequest(request_id="r2", reserve=lost, reason=pb.RELEASE_REASON_CART_ABANDONED)
        )
        assert released.reservation.state == words.RESERVATION_STATE_RELEASED
        late = await here.call(reserve("r1"))
        assert late.refusal.reason == words.REFUSAL_REASON_RESERVATION_RELEASED
        assert await available(here) == 10


async def test_a_batch_over_many_shards_with_bad_items_and_the_same_id_twice():
    async with node() as (here, _):
        for sku in ("A", "B", "C"):
            await receive(here, 2, sku)
        requests = [reserve("a", 1, "A"), reserve("b", 3, "B"), reserve("", 1, "C"), reserve("a", 1, "A")]
        requests.append(reserve("c", 1, "C", lines=[pb.LineRequest(stock_key=key(sku), quantity=1) for sku in "ABC"]))
        response = await here.call(pb.BatchReserveStockRequest(requests=requests))
        assert [result.WhichOneof("result") for result in response.results] == [
            "granted", "refusal", "error", "granted", "granted",
        ]  # fmt: skip
        first, repeated = response.results[0].granted, response.results[3].granted
        assert (first.reservation_id, first.replayed) == (repeated.reservation_id, False)
        assert repeated.replayed
        assert [await available(here, sku) for sku in "ABC"] == [0, 1, 1]


async def test_a_partial_grant_answers_its_lines():
    async with node() as (here, _):
        await receive(here, 2)
        request = reserve("r1", 5, fill_policy=pb.FILL_POLICY_PARTIAL_QUANTITIES)
        response = await here.call(pb.BatchReserveStockRequest(requests=[request]))
        (shown,) = response.results[0].granted.lines
        assert (shown.requested_quantity, shown.granted_quantity) == (5, 2)


async def test_an_imposed_claim_is_recorded_with_what_was_not_covered():
    async with node() as (here, _):
        await receive(here, 2)
        imposed = await here.call(reserve("r1", 5, channel_id="edi", admission=pb.ADMISSION_ALWAYS, confirm=True))
        assert imposed.reservation.lines[0].uncovered_quantity == 3
        exceptions = await here.call(exception_pb.ListExceptionsRequest())
        (shortage,) = exceptions.exceptions
        assert (shortage.kind, shortage.quantity) == (exception_pb.EXCEPTION_KIND_SHORTAGE, 3)
        assert list(shortage.reservation_ids) == [imposed.reservation.reservation_id]
        denied = await here.failure(reserve("r2", 5, admission=pb.ADMISSION_ALWAYS))
        assert denied.what == ("PERMISSION_DENIED", "PERMISSION_DENIED", "not_done")


async def test_stock_is_registered_suspended_resumed_limited_and_listed():
    async with node(Rules(catalog_open=False)) as (here, _):
        policy = stock_pb.StockPolicy(safety_stock_quantity=1, base_unit="pcs")
        registered = await here.call(
            stock_pb.RegisterStockRequest(
                request_id="r1",
                registrations=[
                    stock_pb.StockRegistration(stock_key=key("A"), policy=policy),
                    stock_pb.StockRegistration(stock_key=key("B", "nowhere")),
                    stock_pb.StockRegistration(stock_key=key("B")),
                ],
            )
        )
        assert [result.WhichOneof("result") for result in registered.results] == ["stock", "error", "stock"]
        rejected = await here.call(
            event_pb.IngestEventsRequest(events=[told("e", "unregistered", receipt=event_pb.Receipt(quantity=1))])
        )
        assert rejected.results[0].rejected.reason == event_pb.REJECT_REASON_UNKNOWN_STOCK_KEY
        await receive(here, 5)
        assert await available(here) == 4
        await here.call(stock_pb.SuspendSellingRequest(request_id="r2", stock_key=key(), note="recall?"))
        assert (await here.call(reserve("r3"))).refusal.reason == words.REFUSAL_REASON_SELLING_SUSPENDED
        await here.call(stock_pb.ResumeSellingRequest(request_id="r4", stock_key=key()))
        limit = stock_pb.StockPolicy(max_quantity_per_order=2)
        limited = await here.call(stock_pb.SetStockPolicyRequest(request_id="r5", stock_key=key(), policy=limit))
        assert (limited.stock.policy.max_quantity_per_order, limited.stock.policy.safety_stock_quantity) == (2, 1)
        stale = stock_pb.SetStockPolicyRequest(request_id="r6", stock_key=key(), policy=limit, expected_version=1)
        assert (await here.call(stale)).refusal.reason == words.REFUSAL_REASON_VERSION_MISMATCH
        assert (await here.call(reserve("r7", 3))).refusal.reason == words.REFUSAL_REASON_LIMIT_PER_ORDER
        stock = (await here.call(stock_pb.GetStockRequest(stock_key=key()))).stock
        assert [(each.disposition, each.quantity) for each in stock.on_hand] == [(words.DISPOSITION_SELLABLE, 5)]
        listed = await here.call(stock_pb.ListStockRequest(warehouse_id="main"))
        assert {each.stock_key.sku for each in listed.stocks} == {"A", "B"}
        failure = await here.failure(stock_pb.GetStockRequest(stock_key=key("nobody's")))
        assert failure.what == ("NOT_FOUND", "STOCK_KEY_NOT_FOUND", "not_done")


async def test_reservations_are_listed_by_order_by_stock_key_and_by_state_page_by_page():
    async with node() as (here, _):
        for sku in ("A", "B"):
            await receive(here, 50, sku)
        for index in range(12):
            await here.call(reserve(f"r{index}", 1, "AB"[index % 2], order_reference=f"SO-{index // 4}"))
        by_order = await here.call(pb.ListReservationsRequest(channel_id="web", order_reference="SO-1"))
        assert len(by_order.reservations) == 4
        found: set[str] = set()
        token = "first"
        while token:
            page = await here.call(
                pb.ListReservationsRequest(stock_key=key("B"), states=[words.RESERVATION_STATE_HELD], page_size=4,
                                           page_token="" if token == "first" else token)
            )  # fmt: skip
            assert len(page.reservations) <= 4
            found |= {each.reservation_id for each in page.reservations}
            token = page.next_page_token
        assert len(found) == 6


async def test_every_fact_is_understood_and_a_duplicate_is_told():
    promise = words.Promise(order=words.OrderReference(channel_id="web", order_reference="SO-1"))
    async with node() as (here, _):
        await here.call(reserve("r0", 1))
        facts = [
            told("e1", receipt=event_pb.Receipt(quantity=20)),
            told("e2", pick=event_pb.Pick(quantity=2, promise=promise)),
            told("e3", unpick=event_pb.Unpick(quantity=1, promise=promise)),
            told("e4", shipment=event_pb.Shipment(quantity=1, shipment_id="s", promise=promise)),
            told("e5", adjustment=event_pb.Adjustment(delta=-1, reason="broken")),
            told("e6", stock_count=event_pb.StockCount(quantity=17, take_as_now=True)),
            told("e7", disposition_change=event_pb.DispositionChange(
                quantity=1, from_disposition=words.DISPOSITION_SELLABLE, to_disposition=words.DISPOSITION_DAMAGED)),
            told("e8", transfer_dispatch=event_pb.TransferDispatch(
                quantity=2, transfer_id="t", to_warehouse_id="overflow")),
            told("e9", transfer_receipt=event_pb.TransferReceipt(
                quantity=2, transfer_id="t", from_warehouse_id="overflow")),
            told("e10", customer_return=event_pb.CustomerReturn(quantity=1, return_id="rma")),
            told("e11"),
            told("e12", stock_count=event_pb.StockCount(quantity=1)),
        ]  # fmt: skip
        response = await here.call(event_pb.IngestEventsRequest(events=facts))
        outcomes = [result.WhichOneof("result") for result in response.results]
        assert outcomes == ["applied"] * 10 + ["rejected"] * 2, response
        assert [result.rejected.reason for result in response.results[10:]] == [
            event_pb.REJECT_REASON_UNKNOWN_FACT,
            event_pb.REJECT_REASON_AS_OF_MISSING,
        ]
        again = await here.call(event_pb.IngestEventsRequest(events=facts[:3]))
        assert [result.WhichOneof("result") for result in again.results] == ["duplicate"] * 3
        stock = (await here.call(stock_pb.GetStockRequest(stock_key=key()))).stock
        on_hand = {each.disposition: each.quantity for each in stock.on_hand}
        assert on_hand == {
            words.DISPOSITION_SELLABLE: 16,
            words.DISPOSITION_QUALITY_HOLD: 1,
            words.DISPOSITION_DAMAGED: 1,
        }


async def test_every_metric_of_the_contract_is_there_and_says_what_happened():
    heard = WarehouseConfig(feeds=frozenset({"handheld"}))
    warehouses = {"main": WarehouseConfig(sources={Fact.RECEIPT: frozenset({"wms"})}), "overflow": heard}
    async with node(warehouses=warehouses) as (here, there):
        for source_id in ("handheld", "nobody"):
            event = told("e", source_id=source_id)
            await here.call(event_pb.IngestEventsRequest(events=[event]))
        old = told("old", receipt=event_pb.Receipt(quantity=5))
        old.occur_time.FromSeconds(old.occur_time.seconds - 600)
        elsewhere = told("x", receipt=event_pb.Receipt(quantity=1))
        elsewhere.stock_key.warehouse_id = "nowhere"
        await here.call(event_pb.IngestEventsRequest(events=[old, elsewhere]))
        await here.call(reserve("r1"))
        _, text = await here.get("/metrics")
        age_s = [line for line in text.splitlines() if line.startswith("stockade_feed_age_seconds{")]
        assert [line.rpartition(" ")[0] for line in age_s] == [
            'stockade_feed_age_seconds{source="wms",warehouse="main"}'
        ]
        assert 600 <= float(age_s[0].rpartition(" ")[2]) < 660
        books, now_ms = there.host.engine.books, there.host.engine.now_ms
        both = text + host_metrics_text(there.host.status, books, now_ms).decode()
        for name in (
            'stockade_decisions_total{outcome="granted",verb="reserve"} 1.0',
            "stockade_rpc_duration_seconds_bucket{",
            "stockade_commit_duration_seconds_bucket{",
            "stockade_shard_queue_depth{",
            "stockade_oversell_total 0.0",
            "stockade_imposed_uncovered_units 0.0",
            "stockade_shortage_units 0.0",
            'stockade_events_total{outcome="applied",source="wms"} 1.0',
            'stockade_events_received_total{source="wms"} 2.0',
            'stockade_events_received_total{source="handheld"} 1.0',
            'stockade_events_received_total{source="other"} 1.0',
            'stockade_feed_events_total{outcome="received",source="wms",stream=""} 2.0',
            'stockade_feed_waiting_events{source="wms",stream=""} 0.0',
            'stockade_feed_lag_seconds{source="wms",stream="",warehouse="main"} 6',
            "stockade_journal_bytes ",
            "stockade_dedupe_entries ",
            "stockade_recovery_seconds ",
            "stockade_build_info{",
            "stockade_accepts_claims 1.0",
        ):
            assert name in both, name


def metric(text: str, name: str) -> dict[str, float]:
    """One metric by its labels' outcome."""
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                samples[sample.labels.get("outcome", "")] = (
                    samples.get(sample.labels.get("outcome", ""), 0) + sample.value
                )
    return samples


async def test_every_event_that_came_in_is_accounted_for_at_the_gateway_and_at_the_host():
    """received = applied + duplicate + waiting + rejected (+ what was never decided), counted where it comes in."""
    async with node() as (here, there):
        good = [told(f"e{number}", receipt=event_pb.Receipt(quantity=1)) for number in range(20)]
        for number, event in enumerate(good):
            event.source_sequence = number + 1
        waits = told("w", shipment=event_pb.Shipment(quantity=1, shipment_id="s1", close_remainder=True))
        waits.source_sequence = 40
        reused = told("e3", receipt=event_pb.Receipt(quantity=9))
        lost = told("x", receipt=event_pb.Receipt(quantity=1))
        lost.stock_key.warehouse_id = "nowhere"
        malformed = told("m", receipt=event_pb.Receipt(quantity=0))
        batch = [*good, waits, reused, lost, malformed, *good[:7]]
        response = await here.call(event_pb.IngestEventsRequest(events=batch))
        _, text = await here.get("/metrics")
        received = metric(text, "stockade_events_received_total")[""]
        answered = metric(text, "stockade_events_total")
        assert received == len(batch) == len(response.results) == sum(answered.values())
        assert answered == {"applied": 20, "duplicate": 7, "deferred": 1, "rejected": 2, "error": 1}
        books = there.host.engine.books
        feed = metric(host_metrics_text(there.host.status, books, 0).decode(), "stockade_feed_events_total")
        assert feed == {"received": 30, "applied": 20, "duplicate": 7, "waiting": 1, "rejected": 2}
        assert received == feed["received"] + answered["error"], "what was not decided is the sender's still"


async def test_an_event_of_an_unknown_warehouse_is_rejected_on_record():
    async with node() as (here, _):
        event = told("e1", receipt=event_pb.Receipt(quantity=1))
        event.stock_key.warehouse_id = "mian"
        response = await here.call(event_pb.IngestEventsRequest(events=[event]))
        rejected = response.results[0].rejected
        assert rejected.reason == event_pb.REJECT_REASON_UNKNOWN_WAREHOUSE
        exceptions = await here.call(exception_pb.ListExceptionsRequest(warehouse_id="mian"))
        assert [each.exception_id for each in exceptions.exceptions] == [rejected.exception_id]


async def test_an_explanation_says_what_would_succeed():
    async with node() as (here, _):
        await receive(here, 5)
        await here.call(reserve("r1", 3))
        asked = availability_pb.ExplainAvailabilityRequest(stock_key=key(), channel_id="web", quantity=3)
        explanation = (await here.call(asked)).explanation
        assert (explanation.available_quantity, explanation.largest_quantity_now) == (2, 2)
        assert explanation.refusal_reason == words.REFUSAL_REASON_INSUFFICIENT_STOCK
        assert explanation.next_hold_expire_quantity == 3


async def test_the_cluster_says_how_it_is():
    async with node() as (here, _):
        await receive(here, 5)
        response = await here.call(admin_pb.GetClusterStatusRequest())
        status = response.cluster_status
        assert (status.shard_count, len(status.shards), status.oversells) == (64, 64, 0)
        assert status.hosts[0].state == "serving"
        assert status.hosts[0].accepts_claims
        assert status.journal.kind == "memory"


async def test_the_door_of_a_warehouse_is_a_setting():
    warehouses = {"main": WarehouseConfig(Door.WAREHOUSE), "overflow": WarehouseConfig(Door.ORDER_MANAGEMENT)}
    async with node(Rules(doors={"overflow": Door.ORDER_MANAGEMENT}), warehouses=warehouses) as (here, _):
        await receive(here, 5)
        granted = (await here.call(reserve("r1", 3, confirm=True))).reservation
        response = await here.call(
            pb.FulfillReservationRequest(request_id="r2", reservation_id=granted.reservation_id, shipment_id="s")
        )
        assert response.refusal.reason == words.REFUSAL_REASON_FULFILLED_BY_WAREHOUSE


async def test_a_successor_host_keeps_every_acknowledged_reservation_and_repeats_lost_answers():
    async with node() as (here, there):
        await receive(here, 100)
        kept = [(await here.call(reserve(f"r{index}"))).reservation.reservation_id for index in range(10)]
        there.hold.hold()
        asked = asyncio.ensure_future(here.call(reserve("lost"), timeout=9))
        await until(lambda: there.hold.begun > there.hold.done)
        there.hold.let_go()
        await there.start_host()
        here.directory.set(there.host.route)
        answered = (await asked).reservation.reservation_id
        again = (await here.call(reserve("lost"))).reservation.reservation_id
        assert answered == again
        for index, reservation_id in enumerate(kept):
            repeated = await here.call(reserve(f"r{index}"))
            assert repeated.reservation.reservation_id == reservation_id
        assert await available(here) == 89
