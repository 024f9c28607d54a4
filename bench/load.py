"""The load generator: requests encoded beforehand, a fixed number in flight, answers counted by what they say.

A closed loop: it finds the most the service does, and its latencies are those of that many callers who wait for each other.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from hdrh.histogram import HdrHistogram

from stockade.client.ids import new_request_id
from stockade.client.transport import CHANNEL_OPTIONS
from stockade.v1 import reservation_service_pb2 as pb
from stockade.v1 import stock_key_pb2

RESERVE = "/stockade.v1.ReservationService/ReserveStock"
BATCH = "/stockade.v1.ReservationService/BatchReserveStock"
HISTOGRAM_MS_MAX = 60_000
CALL_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Outcome:
    """One run. ``granted``: claims answered yes; ``failed``: calls or items that were neither yes nor no."""

    seconds: float = 0.0
    calls: int = 0
    granted: int = 0
    refused: int = 0
    failed: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    latency_us: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, HISTOGRAM_MS_MAX * 1000, 3))

    @property
    def claims_per_second(self) -> float:
        """Claims answered yes, per second."""
        return self.granted / self.seconds if self.seconds else 0.0

    def percentile_ms(self, share: float) -> float:
        """Latency of a call."""
        return float(self.latency_us.get_value_at_percentile(share)) / 1000

    def fail(self, what: str) -> None:
        """Count something that is neither yes nor no."""
        self.failed += 1
        self.errors[what] = self.errors.get(what, 0) + 1


def make_requests(
    count: int, batch: int, keys: Sequence[tuple[str, str]], channel_id: str, draw: random.Random
) -> list[bytes]:
    """Requests of one unit of one of the keys, each with its own id. ``batch`` 1: ReserveStock, else BatchReserveStock."""
    stock_keys = [stock_key_pb2.StockKey(sku=sku, warehouse_id=warehouse) for sku, warehouse in keys]

    def one() -> pb.ReserveStockRequest:
        line = pb.LineRequest(stock_key=draw.choice(stock_keys), quantity=1)
        return pb.ReserveStockRequest(request_id=new_request_id(), channel_id=channel_id, lines=[line])

    if batch == 1:
        return [one().SerializeToString() for _ in range(count)]
    return [
        pb.BatchReserveStockRequest(requests=[one() for _ in range(batch)]).SerializeToString() for _ in range(count)
    ]


def _count_single(outcome: Outcome, response: Any) -> None:
    if response.WhichOneof("result") == "reservation":
        outcome.granted += 1
    else:
        outcome.refused += 1


def _count_batch(outcome: Outcome, response: Any) -> None:
    for result in response.results:
        which = result.WhichOneof("result")
        if which == "granted":
            outcome.granted += 1
        elif which == "refusal":
            outcome.refused += 1
        else:
            outcome.fail("item failed")


async def drive(target: str, requests: list[bytes], batch: int, in_flight: int, seconds: float) -> Outcome:
    """Send requests until they or the time are over, ``in_flight`` at once over one connection for every 64."""
    outcome = Outcome()
    method, response_type = (RESERVE, pb.ReserveStockResponse) if batch == 1 else (BATCH, pb.BatchReserveStockResponse)
    count: Callable[[Outcome, Any], None] = _count_single if batch == 1 else _count_batch
    options = (*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(max(1, (in_flight + 63) // 64))]
    calls: list[Any] = [
        channel.unary_unary(method, response_deserializer=response_type.FromString) for channel in channels
    ]
    queue = iter(requests)
    started = time.perf_counter()
    end = started + seconds

    async def caller(number: int) -> None:
        call = calls[number % len(calls)]
        for request in queue:
            sent = time.perf_counter()
            if sent >= end:
                return
            try:
                response = await call(request, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                outcome.fail(error.code().name)
                continue
            outcome.latency_us.record_value(int((time.perf_counter() - sent) * 1_000_000))
            outcome.calls += 1
            count(outcome, response)

    await asyncio.gather(*[channel.channel_ready() for channel in channels])
    started = time.perf_counter()
    end = started + seconds
    await asyncio.gather(*[caller(number) for number in range(in_flight)])
    outcome.seconds = time.perf_counter() - started
    for channel in channels:
        await channel.close()
    return outcome
