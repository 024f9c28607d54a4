"""Rubbish at every door of a running service: a clear error that names the field, and a service that sells on.

Errors of single fields are tabled in the unit tests of validation and translation; ports, sizes and deadlines of a
gateway alone in ``test_gateway_edge``, full and read-only disks in ``tests/e2e``. Here the whole way is shown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from stockade import Failed, Granted, StockadeError
from stockade.client import facts
from stockade.v1 import reservation_service_pb2 as pb
from stockade.v1 import warehouse_event_service_pb2 as event_pb
from stockade.v1.stock_key_pb2 import StockKey
from tests.integration.withstand_world import Service, granted, refused, service, wanted

pytestmark = pytest.mark.timeout(120)

RESERVE = "/stockade.v1.ReservationService/ReserveStock"
INT64_MAX = 2**63 - 1


def good() -> pb.ReserveStockRequest:
    line = pb.LineRequest(stock_key=StockKey(sku="A", warehouse_id="main"), quantity=1)
    return pb.ReserveStockRequest(request_id="raw-1", channel_id="web", lines=[line])


def changed(change: Callable[[Any], None]) -> bytes:
    request = good()
    change(request)
    return request.SerializeToString()


def with_sku(sku: str) -> bytes:
    return changed(lambda request: request.lines[0].stock_key.MergeFrom(StockKey(sku=sku)))


def with_(**fields: Any) -> bytes:
    return changed(lambda request: request.MergeFrom(pb.ReserveStockRequest(**fields)))


def with_quantity(quantity: int) -> bytes:
    def change(request: Any) -> None:
        request.lines[0].quantity = quantity

    return changed(change)


def twice_one_line_id(request: Any) -> None:
    request.lines.append(request.lines[0])
    for line in request.lines:
        line.line_id = "same"


# what is sent, and what the error must name
BAD_RESERVES: dict[str, tuple[bytes, str]] = {
    "nothing at all": (b"", "request_id"),
    "no request id": (changed(lambda request: request.ClearField("request_id")), "request_id"),
    "no lines": (changed(lambda request: request.ClearField("lines")), "lines"),
    "quantity zero": (with_quantity(0), "lines[0].quantity"),
    "quantity negative": (with_quantity(-1), "lines[0].quantity"),
    "quantity huge": (with_quantity(INT64_MAX), "lines[0].quantity"),
    "a line feed in the SKU": (with_sku("A\nB"), "lines[0].stock_key.sku"),
    "a NUL in the SKU": (with_sku("A\x00"), "lines[0].stock_key.sku"),
    "the separator of stock keys in the SKU": (with_sku("A\x1fmain"), "lines[0].stock_key.sku"),
    "a SKU of 10,000 characters": (with_sku("S" * 10_000), "lines[0].stock_key.sku"),
    "an unknown channel": (with_(channel_id="wbe"), "channel_id"),
    "an unknown warehouse": (
        changed(lambda request: request.lines[0].stock_key.MergeFrom(StockKey(warehouse_id="mian"))),
        "lines[0].stock_key.warehouse_id",
    ),
    "an unknown fill policy": (with_(fill_policy=99), "fill_policy"),
    "an unknown admission": (with_(admission=99), "admission"),
    "two lines of one line id": (changed(twice_one_line_id), "line_id"),
    "a field of a later version, by number": (good().SerializeToString() + b"\xfa\x7f\x03abc", ""),
    "no protobuf": (b"\xff" * 50, ""),
    "text that is not UTF-8": (b"\x0a\x02\xff\xfe", ""),
}


async def raw(shop: Service, method: str, body: bytes, timeout_s: float = 10.0) -> Any:
    """The error of a call with these bytes; None when it was answered."""
    async with grpc.aio.insecure_channel(shop.target) as channel:
        try:
            call: Any = channel.unary_unary(method)  # without serializers it takes bytes
            await call(body, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return error
    return None


async def test_every_bad_request_is_answered_by_name_and_nothing_is_sold_by_it(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 3)
        for name, (body, field) in BAD_RESERVES.items():
            error = await raw(shop, RESERVE, body)
            if name == "a field of a later version, by number":
                assert error is None, "an unknown field of a newer client is no error"
                continue
            assert error is not None, name
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, (name, error)
            assert field in error.details(), (name, error.details())
        assert await shop.available("A") == 2
        await shop.held("A")


async def test_unknown_and_doubled_skus_are_a_no_that_says_which(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 5)
        order = [("A", "main", 1), ("nope", "main", 1), ("A", "main", 1), ("nor this", "main", 2)]
        refusal = refused(await shop.client.reserve(order), "UNKNOWN_STOCK_KEY")
        assert {one.stock_key.sku for one in refusal.shortages if one.reason == "UNKNOWN_STOCK_KEY"} == {
            "nope",
            "nor this",
        }
        assert (await shop.availability("nope")).known is False
        assert await shop.available("A") == 5


async def test_an_order_of_1114_lines_is_served_and_one_of_2001_named(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        events = [facts.receipt(shop.told(f"S{at:04d}"), 10) for at in range(1_114)]
        for part in (events[:1_000], events[1_000:]):
            assert {one.outcome for one in await shop.ingest(*part)} == {"APPLIED"}
        order = granted(await shop.client.reserve([wanted(f"S{at:04d}", 2) for at in range(1_114)]))
        assert sum(line.granted_quantity for line in order.lines) == 2_228
        confirmed = granted(await shop.client.confirm(order.reservation_id))
        assert len(confirmed.lines) == 1_114
        with pytest.raises(StockadeError) as caught:
            await shop.client.reserve([wanted("S0000")] * 2_001)
        assert "2001" in caught.value.violations["lines"].replace(",", "")
        assert (await shop.stock("S0000")).confirmed_quantity == 2


@pytest.mark.parametrize("megabytes", [1, 10, 20])
async def test_a_request_of_many_megabytes_is_refused(tmp_path: Path, megabytes: int) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 1)
        error = await raw(shop, RESERVE, with_sku("S" * (megabytes * 1024 * 1024)))
        if megabytes <= 16:  # what gRPC lets in, so that the error is ours
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "at most" in error.details()
        else:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await shop.held("A")


async def test_a_bad_item_of_a_batch_fails_alone(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 10)
        requests = [shop.client.reserve_message([("A", "main", 1)]) for _ in range(4)]
        requests[1].lines[0].quantity = -5
        requests[2].channel_id = "nowhere"
        answers = await shop.client.batch_reserve(requests)
        assert [type(answer) for answer in answers] == [Granted, Failed, Failed, Granted]
        failed = [answer.violations for answer in answers if isinstance(answer, Failed)]
        assert [next(iter(named)) for named in failed] == ["requests[1].lines[0].quantity", "requests[2].channel_id"]
        assert await shop.available("A") == 8


async def test_what_a_warehouse_sends_wrong_is_rejected_on_record_and_blocks_nobody(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        now = Timestamp()
        now.GetCurrentTime()

        def event(event_id: str, warehouse_id: str = "main", **fact: Any) -> event_pb.WarehouseEvent:
            key = StockKey(sku="A", warehouse_id=warehouse_id)
            return event_pb.WarehouseEvent(source_id="wms", event_id=event_id, stock_key=key, occur_time=now, **fact)

        later_version = event("a fact of a later version")
        later_version.MergeFromString(bytes([30 << 3 & 0x7F | 0x80 | 2, 30 >> 4, 0]))  # field 30, empty
        sent = [
            event("good", receipt=event_pb.Receipt(quantity=5)),
            event("no fact"),
            later_version,
            event("elsewhere", "nowhere", receipt=event_pb.Receipt(quantity=5)),
            event("no place", stock_count=event_pb.StockCount(quantity=3)),
            event("also good", receipt=event_pb.Receipt(quantity=1)),
        ]
        results = {one.event_id: one for one in await shop.ingest(*sent)}
        assert [results[name].outcome for name in ("good", "also good")] == ["APPLIED", "APPLIED"]
        assert {
            name: results[name].outcome for name in ("no fact", "a fact of a later version", "elsewhere", "no place")
        } == {
            "no fact": "REJECTED",
            "a fact of a later version": "REJECTED",
            "elsewhere": "REJECTED",
            "no place": "REJECTED",
        }
        assert results["elsewhere"].reason == "UNKNOWN_WAREHOUSE"
        assert results["no place"].reason == "AS_OF_MISSING"
        assert results["no fact"].reason == results["a fact of a later version"].reason == "UNKNOWN_FACT"
        assert await shop.available("A") == 6
        (malformed,) = await shop.ingest(event("x", receipt=event_pb.Receipt(quantity=-5)))
        assert (malformed.outcome, "receipt.quantity" in malformed.reason) == ("FAILED", True), malformed
        assert await shop.available("A") == 6


async def test_a_deadline_that_has_passed_does_nothing(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("A", 1_000)
        codes = set()
        for at in range(50):
            request = with_(request_id=f"late-{at}")
            error = await raw(shop, RESERVE, request, timeout_s=0.000_001)
            codes.add(None if error is None else error.code())
        assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
        assert await shop.available("A") == 1_000


@pytest.mark.parametrize("port", ["grpc", "host"])
async def test_garbage_bytes_on_a_port_harm_nobody(tmp_path: Path, port: str, seed: int) -> None:
    draw = random.Random(seed)
    async with service(tmp_path) as shop:
        await shop.receive("A", 100)
        target = shop.target if port == "grpc" else shop.node.host.route.endpoint
        address, _, number = target.rpartition(":")

        async def visitor(body: bytes) -> None:
            reader, writer = await asyncio.open_connection(address, int(number))
            try:
                writer.write(body)
                await writer.drain()
                async with asyncio.timeout(5):
                    while await reader.read(65_536):
                        pass
            except (ConnectionError, TimeoutError):
                pass
            finally:
                writer.close()

        bodies = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x00" * 100,
            b"\xff" * 70_000,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x01" * 99,
        ]
        bodies += [draw.randbytes(draw.randint(1, 5_000)) for _ in range(30)]
        sold = asyncio.gather(*(shop.reserve("A") for _ in range(40)))
        await asyncio.gather(*(visitor(body) for body in bodies))
        assert all(granted(answer) for answer in await sold)
        assert await shop.available("A") == 60
