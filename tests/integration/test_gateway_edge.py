"""What a caller sees of the gateway: clear errors whatever is sent, the right answer whatever the host does."""

from __future__ import annotations

import asyncio
import datetime
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.duration_pb2 import Duration
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from actors.domain.answers import ERROR, OK, REFUSED, RefusalView
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason, RefusalReason
from gateway.config import Credential, RefusedBinding, TlsFiles
from gateway.server import start_gateway
from gateway.servicers.constant import ConstantReservationService
from stockade.client.errors import from_call_error
from stockade.v1 import admin_service_pb2 as admin_pb
from stockade.v1 import availability_service_pb2 as availability_pb
from stockade.v1 import exception_service_pb2 as exception_pb
from stockade.v1 import reservation_service_pb2 as pb
from stockade.v1 import stock_service_pb2 as stock_pb
from stockade.v1 import warehouse_event_service_pb2 as event_pb
from stockade.v1.stock_key_pb2 import StockKey
from tests.integration.gateway_world import FakeDirectory, FakeHost, config, grant, until, world


def line(sku: str = "A", **fields: Any) -> pb.LineRequest:
    given: dict[str, Any] = {"stock_key": StockKey(sku=sku, warehouse_id="main"), "quantity": 1}
    return pb.LineRequest(**(given | fields))


def reserve(request_id: str = "r1", **fields: Any) -> pb.ReserveStockRequest:
    return pb.ReserveStockRequest(**({"request_id": request_id, "channel_id": "web", "lines": [line()]} | fields))


def batch(count: int, **fields: Any) -> pb.BatchReserveStockRequest:
    return pb.BatchReserveStockRequest(
        requests=[reserve(f"r{index}", lines=[line(f"S{index}")], **fields) for index in range(count)]
    )


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_a_grant_is_answered_with_what_was_asked():
    async with world() as here:
        response = await here.call(reserve(order_reference="SO-1", ttl=Duration(seconds=60)))
        reservation = response.reservation
        assert (reservation.channel_id, reservation.order_reference) == ("web", "SO-1")
        assert reservation.expire_time.seconds - reservation.create_time.seconds == 60
        assert reservation.position.timeline == "tl1"


async def test_a_refusal_is_data():
    async with world() as here:
        view = RefusalView(
            int(RefusalReason.INSUFFICIENT_STOCK), [["0", "\x1fmain\x1fA", 1, 0, 14]], 0, 0, (1, 1, 1, 1)
        )
        here.host.decide = lambda item: (REFUSED, False, view)
        response = await here.call(reserve())
        assert response.refusal.reason == RefusalReason.INSUFFICIENT_STOCK
        assert response.refusal.shortages[0].requested_quantity == 1


async def test_a_batch_is_answered_in_its_order_and_a_bad_item_fails_alone():
    async with world() as here:
        request = batch(5)
        request.requests[1].lines[0].quantity = 0
        request.requests[3].channel_id = "wbe"
        response = await here.call(request)
        assert [result.WhichOneof("result") for result in response.results] == [
            "granted", "error", "granted", "error", "granted",
        ]  # fmt: skip
        assert "requests[3].channel_id" in str(response.results[3].error)
        assert [item[5][0] for item in here.host.seen] == ["r0", "r2", "r4"]
        assert response.timeline == "tl1"


async def test_a_batch_travels_in_one_frame():
    async with world() as here:
        await here.call(batch(1000))
        assert (here.host.frames, len(here.host.seen)) == (1, 1000)


async def test_calls_gather_into_frames_while_two_are_under_way():
    async with world() as here:
        here.host.delay_s = 0.05
        await asyncio.gather(*(here.call(reserve(f"r{index}")) for index in range(100)))
        assert len(here.host.seen) == 100
        assert here.host.frames < 20


async def test_a_replayed_answer_says_so_in_the_trailers_and_the_correlation_id_comes_back():
    async with world() as here:
        here.host.decide = lambda item: (OK, True, grant(item)[2])
        method = here.method("ReservationService", "ReserveStock", pb.ReserveStockResponse)
        call = method(reserve(), metadata=(("x-correlation-id", "c-1"), ("traceparent", "00-ab-cd-01")))
        await call
        trailers = dict(await call.trailing_metadata())
        assert (trailers["stockade-replayed"], trailers["x-correlation-id"]) == ("true", "c-1")
        assert trailers["traceparent"] == "00-ab-cd-01"
        assert here.host.seen[0][4] == ["", "c-1", "00-ab-cd-01"]


async def test_availability_over_many_shards_comes_back_in_the_order_asked():
    async with world(FakeHost("a", range(32)), FakeHost("b", range(32, 64))) as here:
        for host in here.hosts:
            host.decide = lambda item: (OK, False, [[[int(key.rsplit("S")[-1]), True, False] for key in item[5][1]],
                                                    [item[1], 1, 1, 1]])  # fmt: skip
        keys = [StockKey(sku=f"S{index}", warehouse_id=("main", "overflow")[index % 2]) for index in range(200)]
        response = await here.call(availability_pb.BatchGetAvailabilityRequest(channel_id="web", stock_keys=keys))
        assert [each.available_quantity for each in response.availabilities] == list(range(200))
        assert all(host.seen for host in here.hosts)


async def test_a_list_goes_over_all_hosts_page_by_page():
    stocks = {
        name: [[f"\x1fmain\x1f{name}{index}", [], 0, 0, 0, 0, 0, 0, 1, 0, "", 1, 0, [0, 1, 1, 1]] for index in range(5)]
        for name in ("a", "b")
    }

    def pages(name: str) -> Any:
        def decide(item: Any) -> Any:
            assert item[1] == -1
            size, token = item[5][2:4]
            begin = int(token or 0)
            end = begin + size
            return (OK, False, [stocks[name][begin:end], str(end) if end < 5 else ""])

        return decide

    async with world(FakeHost("a", range(32)), FakeHost("b", range(32, 64))) as here:
        for host in here.hosts:
            host.decide = pages(host.host_id)
        found, token, calls = [], "", 0
        while calls == 0 or token:
            page = await here.call(stock_pb.ListStockRequest(page_size=3, page_token=token))
            found += [stock.stock_key.sku for stock in page.stocks]
            token, calls = page.next_page_token, calls + 1
            assert len(page.stocks) <= 3
        assert found == [f"a{index}" for index in range(5)] + [f"b{index}" for index in range(5)]
        failure = await here.failure(stock_pb.ListStockRequest(page_token="made-up"))
        assert failure.fields == ["page_token"]


async def test_the_cluster_status_shows_a_host_that_does_not_answer_as_unreachable():
    async with world(FakeHost("a", range(32)), FakeHost("b", range(32, 64))) as here:
        here.hosts[0].decide = lambda item: (OK, False, [{"state": "serving", "pid": 7, "shards": []}])
        here.hosts[1].decide = lambda item: None
        response = await here.call(admin_pb.GetClusterStatusRequest())
        status = response.cluster_status
        assert [(host.host_id, host.state) for host in status.hosts] == [("a", "serving"), ("b", "unreachable")]
        assert (status.cluster_id, status.shard_count) == ("test-cluster", 64)


# --- bad calls -------------------------------------------------------------------------------------------------------


async def test_every_bad_field_is_named_at_once():
    async with world() as here:
        failure = await here.failure(
            reserve("", channel_id="wbe", lines=[line(quantity=0, lot_id="l"), line("\x01")], fill_policy=9)
        )
        assert failure.what == ("INVALID_ARGUMENT", "INVALID_FIELD", "not_done")
        assert failure.fields == [
            "request_id", "channel_id", "lines[0].quantity", "lines[0].lot_id", "lines[1].stock_key.sku", "fill_policy",
        ]  # fmt: skip
        assert not here.host.seen


async def test_a_real_order_of_1114_lines_is_served_and_one_of_2001_refused():
    async with world() as here:
        served = await here.call(reserve(lines=[line(f"S{index}") for index in range(1_114)]))
        assert len(served.reservation.lines) == 1_114
        failure = await here.failure(reserve(lines=[line(f"S{index}") for index in range(2_001)]))
        assert failure.what == ("INVALID_ARGUMENT", "INVALID_FIELD", "not_done")
        assert "2001 lines" in failure.message


async def test_thousands_of_bad_fields_are_an_error_that_every_client_can_receive():
    async with world() as here:
        bad = pb.LineRequest(stock_key=StockKey(sku="\n" * 120, warehouse_id="é" * 200), line_id="same" * 100)
        failure = await here.failure(reserve(lines=[bad] * 2_000))
        assert failure.what == ("INVALID_ARGUMENT", "INVALID_FIELD", "not_done")
        assert failure.fields[:3] == ["lines[0].line_id", "lines[0].stock_key.sku", "lines[0].stock_key.warehouse_id"]
        assert 20 < len(failure.fields) < 100
        assert failure.fields[-1] == ""
        assert len(failure.message) < 500
        failure = await here.failure(reserve(channel_id="x" * 3_000_000))
        assert failure.fields == ["channel_id"]


async def test_a_batch_is_bounded_in_items_and_lines():
    async with world() as here:
        assert (await here.failure(batch(1001))).fields == ["requests"]
        assert (await here.failure(pb.BatchReserveStockRequest())).fields == ["requests"]
        many = pb.BatchReserveStockRequest(
            requests=[
                reserve(f"r{index}", lines=[line(f"S{number}") for number in range(2_000)]) for index in range(13)
            ]
        )
        assert "26000 lines" in (await here.failure(many)).message


@pytest.mark.parametrize("megabytes", [5, 10])
async def test_a_request_of_many_megabytes_is_refused_with_a_clear_error(megabytes: int):
    async with world() as here:
        failure = await here.failure(reserve("r" * (megabytes * 1_000_000)))
        assert failure.what == ("INVALID_ARGUMENT", "INVALID_FIELD", "not_done")
        assert "4194304" in failure.message
        assert (await here.call(reserve())).reservation.reservation_id


@pytest.mark.parametrize("body", [b"\xff" * 40, b"\x0a\x02\xff\xfe", b"\x0a\xff\xff\xff\xff\x0f"])
async def test_a_body_that_is_no_message_is_an_invalid_argument(body: bytes):
    async with world() as here:
        method = here.method("ReservationService", "ReserveStock", pb.ReserveStockResponse)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await method(body, timeout=5)
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "ReserveStockRequest" in (failure.value.details() or "")


async def test_an_empty_request_names_all_that_is_required():
    async with world() as here:
        assert (await here.failure(pb.ReserveStockRequest())).fields == ["request_id", "channel_id", "lines"]
        assert (await here.failure(event_pb.IngestEventsRequest())).fields == ["events"]


@pytest.mark.parametrize("port", ["port", "http_port"])
async def test_garbage_bytes_on_a_port_harm_nobody(port: str):
    async with world() as here:
        for garbage in (b"\x00" * 4096, b"GET / HTTP/1.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 999):
            reader, writer = await asyncio.open_connection("127.0.0.1", getattr(here.gateway, port))
            writer.write(garbage)
            if writer.can_write_eof():
                writer.write_eof()
            async with asyncio.timeout(10):
                await reader.read()
            writer.close()
        assert (await here.call(reserve())).reservation.reservation_id


async def test_an_unknown_method_is_unimplemented():
    async with world() as here:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await here.method("ReservationService", "StealStock", pb.ReserveStockResponse)(b"", timeout=5)
        assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_source_that_sends_a_malformed_event_hears_of_it_and_the_others_are_told():
    async with world() as here:
        here.host.decide = lambda item: (OK, False, [item[5][2], 1, [1, 1, 1, 1], 0, "", 0])
        key = StockKey(sku="A", warehouse_id="main")
        good = event_pb.WarehouseEvent(source_id="wms", event_id="e1", stock_key=key)
        good.occur_time.GetCurrentTime()
        good.receipt.quantity = 5
        bad = event_pb.WarehouseEvent(source_id="wms", event_id="e2")
        response = await here.call(event_pb.IngestEventsRequest(events=[good, bad]))
        assert [result.WhichOneof("result") for result in response.results] == ["applied", "error"]
        assert [result.event_id for result in response.results] == ["e1", "e2"]
        status, text = await here.get("/metrics")
        assert status == 200
        assert 'stockade_events_total{outcome="applied",source="other"} 1.0' in text


# --- deadlines, overload, lost hosts ---------------------------------------------------------------------------------


async def test_a_host_that_never_answers_leads_to_the_deadline():
    async with world(deadline_default_ms=300) as here:
        here.host.decide = lambda item: None
        failure = await here.failure(reserve(), timeout=None)
        assert failure.what == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "unknown")
        failure = await here.failure(
            stock_pb.GetStockRequest(stock_key=StockKey(sku="A", warehouse_id="main")), timeout=None
        )
        assert failure.what == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "not_done")


async def test_a_callers_own_deadline_is_kept_and_told_to_the_host():
    async with world() as here:
        here.host.decide = lambda item: None
        began = time.time() * 1000
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await here.call(reserve(), timeout=0.3)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert 0 < here.host.seen[0][2] - began < 400


async def test_a_mutation_never_lives_longer_than_ten_seconds():
    async with world() as here:
        await here.call(reserve(), timeout=3_600)
        assert here.host.seen[0][2] - time.time() * 1000 <= 10_000


async def test_an_expired_deadline_reaches_no_host():
    async with world() as here:
        failure = await here.failure(reserve(), timeout=0)
        assert failure.code == "DEADLINE_EXCEEDED"
        assert not here.host.seen


async def test_a_host_that_dies_in_between_is_asked_again_with_the_same_content():
    async with world() as here:
        here.host.decide = lambda item: None
        asked = asyncio.ensure_future(here.call(reserve(), timeout=10))
        await until(lambda: bool(here.host.seen))
        here.host.decide = grant
        here.host.cut()
        assert (await asked).reservation.reservation_id
        first, again = here.host.seen
        assert (first[5], first[0]) == (again[5], again[0])


async def test_a_host_that_dies_for_good_leaves_what_was_sent_unknown_and_the_rest_not_done():
    async with world(route_patience_ms=400) as here:
        here.host.decide = lambda item: None
        sent = asyncio.ensure_future(here.failure(reserve(), timeout=9))
        await until(lambda: bool(here.host.seen))
        await here.host.stop()
        unsent = await here.failure(reserve("r2"), timeout=9)
        assert (await sent).what == ("UNAVAILABLE", "SHARD_UNAVAILABLE", "unknown")
        assert unsent.what == ("UNAVAILABLE", "SHARD_UNAVAILABLE", "not_done")
        assert unsent.retry_ms > 0


async def test_a_successor_at_another_endpoint_is_found_through_the_directory():
    async with world() as here:
        here.host.decide = lambda item: None
        asked = asyncio.ensure_future(here.call(reserve(), timeout=10))
        await until(lambda: bool(here.host.seen))
        successor = FakeHost("host-a")
        here.hosts.append(successor)
        route = await successor.start()
        await here.host.stop()
        here.directory.set(route)
        assert (await asked).reservation.reservation_id
        assert len(successor.seen) == 1
        await successor.stop()


async def test_a_shard_that_moved_is_followed():
    a, b = FakeHost("a", range(64)), FakeHost("b", [])
    async with world(a, b) as here:
        a.decide = lambda item: (ERROR, int(ErrorReason.WRONG_OWNER), "", 0)
        asked = asyncio.ensure_future(here.call(reserve(), timeout=10))
        await until(lambda: bool(a.seen))
        a.shards, b.shards = (), tuple(range(64))
        here.directory.set(a.route, b.route)
        assert (await asked).reservation.reservation_id
        assert len(b.seen) == 1


async def test_a_directory_that_came_back_knowing_only_one_host_does_not_cut_the_others_off():
    a, b = FakeHost("a", range(0, 64, 2)), FakeHost("b", range(1, 64, 2))
    async with world(a, b) as here:
        here.directory.set(a.route)
        keys = [line(f"S{index}") for index in range(50)]
        for index, each in enumerate(keys):
            await here.call(reserve(f"r{index}", lines=[each]))
        assert a.seen
        assert b.seen
        a.shards, b.shards = tuple(range(64)), ()
        here.directory.set(a.route)
        await until(lambda: here.gateway.status()["hosts"] == ["a"])


async def test_a_directory_that_does_not_answer_costs_nothing():
    async with world() as here:
        here.directory.away = True
        here.directory.set(here.host.route)
        for index in range(3):
            assert (await here.call(reserve(f"r{index}"))).reservation.reservation_id


async def test_too_much_at_once_is_refused_at_once():
    async with world(pending_lines_per_host_max=20) as here:
        at_host = []
        here.host.decide = at_host.append  # and never answered

        def ask():
            return asyncio.ensure_future(here.failure(batch(20), timeout=3))

        async def comes_to_the_host(lines):
            await until(lambda: len(at_host) >= lines, 3)

        waiting = set()
        for frames in (1, 2):  # as many as may be under way: what comes now must wait in the gateway
            waiting.add(ask())
            await comes_to_the_host(20 * frames)
        began = time.monotonic()
        asked = [ask() for _ in range(8)]
        done, one_more = await asyncio.wait(asked, timeout=1)
        assert time.monotonic() - began < 3
        assert len(done) == 7
        for each in done:
            assert each.result().what == ("RESOURCE_EXHAUSTED", "OVERLOADED", "not_done")
            assert each.result().retry_ms > 0
        for each in waiting | one_more:
            await each


async def test_more_concurrent_calls_than_the_bound_are_refused_at_once():
    async with world(concurrent_rpcs_max=8) as here:
        here.host.delay_s = 0.3
        results = await asyncio.gather(
            *(here.call(reserve(f"r{index}")) for index in range(64)), return_exceptions=True
        )
        refused = [each for each in results if isinstance(each, grpc.aio.AioRpcError)]
        assert refused
        assert {each.code() for each in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(refused) < 64
        assert min(from_call_error(each).retry_after_ms for each in refused) > 0


async def test_a_flood_that_waits_before_the_gateway_is_answered_not_dropped():
    """gRPC's own bound of calls that its server has not taken is 1,000: beyond it they ended as CANCELLED."""
    async with world() as here:
        results = await asyncio.gather(
            *(here.call(reserve(f"r{index}"), timeout=20) for index in range(3_000)), return_exceptions=True
        )
        failed = [each for each in results if isinstance(each, grpc.aio.AioRpcError)]
        assert {each.code() for each in failed} <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(failed) < 3_000
        assert all(from_call_error(each).retry_after_ms > 0 for each in failed)


async def test_a_bug_is_internal_without_details_and_with_a_correlation_id():
    async with world() as here:
        here.host.decide = lambda item: (OK, False, ["not a grant"])
        failure = await here.failure(reserve())
        assert failure.what == ("INTERNAL", "INTERNAL", "unknown")
        assert failure.trailers["x-correlation-id"]
        assert "grant" not in failure.message
        here.host.decide = grant
        assert (await here.call(reserve())).reservation.reservation_id


# --- who may ---------------------------------------------------------------------------------------------------------

SHOP = Credential("shop-token", "shop", channels=frozenset({"web"}))
WMS = Credential("wms-token", "wms", sources=frozenset({"wms-1"}))
OPERATOR = Credential("op-token", "op", operator=True)


async def test_without_a_token_nothing_is_allowed_when_credentials_are_configured():
    async with world(credentials=(SHOP,)) as here:
        assert (await here.failure(reserve())).what == ("UNAUTHENTICATED", "UNAUTHENTICATED", "not_done")
        assert (await here.failure(reserve(), authorization="Bearer wrong")).code == "UNAUTHENTICATED"
        assert (await here.call(reserve(), authorization="Bearer shop-token")).reservation.reservation_id
        assert here.host.seen[0][4][0] == "shop"


async def test_each_role_does_its_own_work_only():
    async with world(credentials=(SHOP, WMS, OPERATOR)) as here:
        edi = await here.failure(reserve(channel_id="edi"), authorization="Bearer shop-token")
        assert edi.what == ("PERMISSION_DENIED", "PERMISSION_DENIED", "not_done")
        stock = stock_pb.ListStockRequest()
        assert (await here.failure(stock, authorization="Bearer shop-token")).code == "PERMISSION_DENIED"
        discard = exception_pb.ResolveExceptionRequest(request_id="r", exception_id="x-tl-1-1", note="no")
        for asked in (exception_pb.ListExceptionsRequest(), exception_pb.GetExceptionRequest(), discard):
            for token in ("shop-token", "wms-token"):
                assert (await here.failure(asked, authorization=f"Bearer {token}")).code == "PERMISSION_DENIED"
        assert (await here.failure(reserve(), authorization="Bearer wms-token")).code == "PERMISSION_DENIED"
        assert (
            await here.call(reserve(channel_id="edi"), authorization="Bearer op-token")
        ).reservation.channel_id == "edi"
        told = event_pb.IngestEventsRequest(events=[event_pb.WarehouseEvent(source_id="wms-2")])
        response = await here.call(told, authorization="Bearer wms-token")
        assert response.results[0].error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]


async def test_a_seller_cannot_touch_a_reservation_of_another_channel():
    async with world(credentials=(SHOP, OPERATOR)) as here:
        foreign = ["1-tl1-5-1", "edi", "", "", 1, 1, [], [], 1, 2, 0, 0, [5, 1, 1, 1], []]
        here.host.decide = lambda item: (OK, False, foreign)
        confirm = pb.ConfirmReservationRequest(request_id="r", reservation_id="1-tl1-5-1")
        assert (await here.failure(confirm, authorization="Bearer shop-token")).code == "PERMISSION_DENIED"
        get = pb.GetReservationRequest(reservation_id="1-tl1-5-1")
        assert (await here.failure(get, authorization="Bearer shop-token")).code == "PERMISSION_DENIED"
        assert {item[0] for item in here.host.seen} == {Verb.GET_RESERVATION}
        assert (await here.call(confirm, authorization="Bearer op-token")).reservation.channel_id == "edi"


def make_certificate(folder: Path) -> TlsFiles:
    """A certificate for localhost that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    began = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + datetime.timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return TlsFiles(str(folder / "certificate.pem"), str(folder / "key.pem"))


async def test_tls_and_a_token_open_the_network(tmp_path: Path):
    tls = make_certificate(tmp_path)
    host = FakeHost()
    directory = FakeDirectory(await host.start())
    gateway = await start_gateway(config(bind_host="0.0.0.0", tls=tls, credentials=(SHOP,)), directory)
    roots = grpc.ssl_channel_credentials((tmp_path / "certificate.pem").read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{gateway.port}", roots) as channel:
        method = channel.unary_unary(
            "/stockade.v1.ReservationService/ReserveStock",
            request_serializer=pb.ReserveStockRequest.SerializeToString,
            response_deserializer=pb.ReserveStockResponse.FromString,
        )
        answer = await method(reserve(), timeout=5, metadata=(("authorization", "Bearer shop-token"),))
        assert answer.reservation.reservation_id
    async with grpc.aio.insecure_channel(f"localhost:{gateway.port}") as plain:
        with pytest.raises(grpc.aio.AioRpcError):
            await health_pb2_grpc.HealthStub(plain).Check(health_pb2.HealthCheckRequest(), timeout=3)
    await gateway.stop(0)
    await host.stop()


@pytest.mark.parametrize("settings", [{"bind_host": "0.0.0.0"}, {"http_host": "0.0.0.0"}, {"bind_host": "::"}])
async def test_an_unprotected_port_to_the_network_is_refused(settings: dict[str, str]):
    with pytest.raises(RefusedBinding, match="loopback"):
        await start_gateway(config(**settings), FakeDirectory())


# --- operated --------------------------------------------------------------------------------------------------------


async def test_probes_and_health_follow_the_hosts():
    async with world() as here:
        health = health_pb2_grpc.HealthStub(here.channel)
        asked = health_pb2.HealthCheckRequest(service="stockade.v1.ReservationService")
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
        assert (await here.get("/readyz"))[0] == 200
        await here.host.stop()
        await until(lambda: not here.gateway.ready)
        assert (await here.get("/readyz"))[0] == 503
        assert (await here.get("/livez"))[0] == 200
        async with asyncio.timeout(5):
            while (await health.Check(asked)).status != health_pb2.HealthCheckResponse.NOT_SERVING:
                await asyncio.sleep(0.01)


async def test_metrics_count_decisions_and_calls():
    async with world() as here:
        await here.call(batch(10))
        await here.failure(reserve(""))
        _, text = await here.get("/metrics")
        assert 'stockade_decisions_total{outcome="granted",verb="reserve"} 10.0' in text
        assert 'stockade_rpc_duration_seconds_count{code="OK",method="BatchReserveStock"} 1.0' in text
        assert 'stockade_rpc_duration_seconds_count{code="INVALID_ARGUMENT",method="ReserveStock"} 1.0' in text
        assert "stockade_build_info{" in text


async def test_reflection_and_channelz_are_served():
    async with world() as here:
        stub = reflection_pb2_grpc.ServerReflectionStub(here.channel)
        requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        async for answer in stub.ServerReflectionInfo(requests):
            names = {service.name for service in answer.list_services_response.service}
        assert {"stockade.v1.ReservationService", "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"} <= names
        servers = await channelz_pb2_grpc.ChannelzStub(here.channel).GetServers(channelz_pb2.GetServersRequest())
        assert servers.server


async def test_a_stop_lets_calls_under_way_finish_and_takes_no_new_ones():
    async with world() as here:
        here.host.delay_s = 0.3
        asked = asyncio.ensure_future(here.call(reserve()))
        await until(lambda: bool(here.host.seen))
        stopping = asyncio.ensure_future(here.gateway.stop(5))
        assert (await asked).reservation.reservation_id
        await stopping
        assert (await here.failure(reserve("r2"), timeout=1)).code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


async def test_two_gateways_share_a_port():
    host = FakeHost()
    async with world(host, so_reuseport=True) as here:
        other = await start_gateway(config(so_reuseport=True, bind_port=here.gateway.port), here.directory)
        assert other.port == here.gateway.port
        await other.stop(0)


async def test_a_taken_port_is_told():
    async with world() as here:
        with pytest.raises(OSError, match=str(here.gateway.port)):
            await start_gateway(config(bind_port=here.gateway.port), here.directory)


async def test_the_constant_service_checks_like_the_real_one_and_asks_nobody():
    host = FakeHost()
    directory = FakeDirectory(await host.start())
    gateway = await start_gateway(config(), directory, reservation_servicer=ConstantReservationService)
    await until(lambda: gateway.ready)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        method = channel.unary_unary(
            "/stockade.v1.ReservationService/ReserveStock",
            request_serializer=pb.ReserveStockRequest.SerializeToString,
            response_deserializer=pb.ReserveStockResponse.FromString,
        )
        assert (await method(reserve())).reservation.reservation_id
        with pytest.raises(grpc.aio.AioRpcError):
            await method(reserve(""))
    assert not host.seen
    await gateway.stop(0)
    await host.stop()
