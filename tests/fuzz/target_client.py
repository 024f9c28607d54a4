"""What clients read: responses of every method, errors with any trailers; and the probes' little HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from gateway.cli.showing import plain, when
from gateway.http import HttpServer, text
from stockade.client import reading
from stockade.client.change_feed import WatchCourse
from stockade.client.change_results import changed, consumer
from stockade.client.errors import StockadeError, from_call_error
from tests.fuzz import nasty, requests
from tests.fuzz.registry import Random, target
from tests.fuzz.service import LOOP

CODES = tuple(grpc.StatusCode)
READERS: dict[str, Callable[[Any], Any]] = {
    "ReserveStock": reading.decision,
    "ConfirmReservation": reading.decision,
    "ReleaseReservation": reading.decision,
    "ExtendReservation": reading.decision,
    "AmendReservation": reading.decision,
    "FulfillReservation": reading.decision,
    "BatchReserveStock": lambda response: [reading.batch_result(one, response.timeline) for one in response.results],
    "GetReservation": lambda response: reading.reservation(response.reservation),
    "ListReservations": lambda response: [reading.reservation(one) for one in response.reservations],
    "GetAvailability": reading.fresh_availability,
    "WatchAvailability": lambda response: [WatchCourse(warehouse_id="main").take(response)],
    "ReadChanges": lambda response: [changed(one) for one in response.changes],
    "AcknowledgeChanges": lambda response: consumer(response.consumer),
    "ListConsumers": lambda response: [consumer(one) for one in response.consumers],
    "BatchGetAvailability": lambda response: [reading.availability(one) for one in response.availabilities],
    "GetStock": lambda response: reading.stock(response.stock),
    "ListStock": lambda response: [reading.stock(one) for one in response.stocks],
    "IngestEvents": lambda response: [reading.ingested(one) for one in response.results],
    "ListExceptions": lambda response: [reading.stock_exception(one) for one in response.exceptions],
}


def make_reply(random: Random) -> bytes:
    """[method, response bytes]."""
    method = random.choice(tuple(READERS))
    response = requests.filled(random, requests.METHODS[method].output_type, random.choice((0.0, 0.1, 0.5)), 0)
    return nasty.pack([method, response.SerializeToString()])


def change_last(random: Random, data: bytes) -> bytes:
    """Spoil the bytes at the end of a container."""
    parts = nasty.unpack(data)
    if not isinstance(parts, list) or not parts or not isinstance(parts[-1], bytes):
        return make_reply(random)
    return nasty.pack([*parts[:-1], nasty.spoiled(random, parts[-1])])


@target("client-replies", "responses of any server: results of plain values that can be shown", make_reply, change_last)
def replies(data: bytes) -> None:
    """Read, and show as the command line does."""
    parts = nasty.unpack(data)
    if not (isinstance(parts, list) and len(parts) == 2 and parts[0] in READERS and isinstance(parts[1], bytes)):
        return
    try:
        response = GetMessageClass(requests.METHODS[parts[0]].output_type).FromString(parts[1])
    except DecodeError:
        return  # gRPC says so itself
    result = READERS[parts[0]](response)
    assert result is not None
    shown = plain(result)
    for one in shown if isinstance(shown, list) else [shown]:
        for name, value in one.items():
            if name.endswith("_time_ms"):
                when(value)


class CallError:
    """A failed call with these trailers."""

    def __init__(self, code: grpc.StatusCode, trailers: list[tuple[str, Any]]) -> None:
        self._code = code
        self._trailers = trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "details"

    def trailing_metadata(self) -> list[tuple[str, Any]]:
        return self._trailers


def make_error(random: Random) -> bytes:
    """[code, status bytes]: a google.rpc.Status with details, more or less right."""
    status = status_pb2.Status(code=nasty.number(random) % 2**31, message=random.choice(("", "why")))
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
        if random.random() < 0.6:
            packed = AnyMessage()
            packed.Pack(requests.filled(random, kind.DESCRIPTOR, 0.2, 0))
            if random.random() < 0.3:
                packed.value = nasty.spoiled(random, packed.value)
            status.details.append(packed)
    return nasty.pack([random.randrange(len(CODES)), status.SerializeToString()])


@target(
    "client-errors",
    "failed calls with any trailers: a StockadeError that says whether it may have happened",
    make_error,
    change_last,
)
def errors(data: bytes) -> None:
    """Read the error."""
    parts = nasty.unpack(data)
    if not (isinstance(parts, list) and len(parts) == 2 and isinstance(parts[0], int) and isinstance(parts[1], bytes)):
        return
    code = CODES[parts[0] % len(CODES)]
    error = from_call_error(CallError(code, [("grpc-status-details-bin", parts[1])]))
    assert isinstance(error, StockadeError)
    assert error.code is code
    assert error.outcome in ("not_done", "unknown")
    assert error.retry_after_ms >= 0


# --- probes -----------------------------------------------------------------------------------------------------------------


class Collected:
    """A writer that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None:
        return

    def close(self) -> None:
        self.closed = True


PROBES = HttpServer({"/livez": lambda: text(200, "alive\n")})


def make_http(random: Random) -> bytes:
    """A probe's request."""
    path = random.choice(("/livez", "/livez?x=1", "/", "*", "http://x/livez", nasty.text(random)))
    line = f"{random.choice(('GET', 'HEAD', 'POST'))} {path} HTTP/1.1\r\nHost: {nasty.text(random)}\r\n\r\n"
    return line.encode("utf-8", "replace")


@target("http", "bytes to the probes' port: one HTTP answer, and the connection is closed", make_http, nasty.spoiled)
def http(data: bytes) -> None:
    """One connection."""
    LOOP.run_until_complete(_ask(data))


async def _ask(data: bytes) -> None:
    reader = asyncio.StreamReader(limit=8 * 1024)
    reader.feed_data(data)
    reader.feed_eof()
    writer: Any = Collected()
    await PROBES._serve(reader, writer)
    assert writer.closed
    head, _, body = writer.data.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status in (200, 400, 404, 405), writer.data
    assert status != 200 or data.startswith((b"GET ", b"HEAD "))
    assert body or data.startswith(b"HEAD ")
