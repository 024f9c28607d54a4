"""Shoppers that reserve, confirm and release over gRPC, never give up on a request id, and remember every answer."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from stockade.v1 import (
    reservation_service_pb2,
    reservation_service_pb2_grpc,
    warehouse_event_service_pb2,
    warehouse_event_service_pb2_grpc,
)
from stockade.v1.stock_key_pb2 import StockKey

CHANNEL_ID = "web"
WAREHOUSE_ID = "main"
DEADLINE_S = 3.0
PAUSE_AFTER_ERROR_S = 0.05
GIVE_UP_AFTER_S = 60.0
CONFIRMED_SHARE = 0.1
RELEASED_SHARE = 0.8  # ended reservations leave memory, so that snapshots pay and repeats are found in the table


@dataclass(frozen=True)
class Answered:
    """A request that got its answer. Times are monotonic seconds; ``reservation_id`` is empty for a refusal."""

    request_id: str
    sku: str
    quantity: int
    reservation_id: str
    sent_at: float
    answered_at: float


@dataclass
class Memory:
    """Everything that shoppers were told."""

    reserves: dict[str, Answered] = field(default_factory=dict)  # by request id
    confirmed: set[str] = field(default_factory=set)  # reservation ids whose confirmation was acknowledged
    released: set[str] = field(default_factory=set)
    retries: int = 0

    @property
    def granted(self) -> list[Answered]:
        return [answered for answered in self.reserves.values() if answered.reservation_id]

    def first_granted_after(self, moment: float) -> Answered | None:
        """The earliest answer to a reserve that was sent after ``moment`` and granted."""
        later = [answered for answered in self.granted if answered.sent_at >= moment]
        return min(later, key=lambda answered: answered.answered_at, default=None)

    def longest_silence(self, since: float, until: float) -> float:
        """The longest time in seconds without a granted reserve, between two moments."""
        moments = sorted(one.answered_at for one in self.granted if since <= one.answered_at <= until)
        return max(after - before for before, after in pairwise([since, *moments, until]))


class Shop:
    """Shoppers on one target. ``seed`` decides what they want."""

    def __init__(self, target: str, memory: Memory, seed: int, skus: list[str]) -> None:
        self.memory = memory
        self._skus = skus
        self._random = random.Random(seed)
        self._numbers = iter(range(10**9))
        self._prefix = f"{seed}-{target.rpartition(':')[2]}"
        self._channel = grpc.aio.insecure_channel(
            target, options=[("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 50)]
        )
        self._reservations = reservation_service_pb2_grpc.ReservationServiceStub(self._channel)
        self._events = warehouse_event_service_pb2_grpc.WarehouseEventServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def receive(self, quantity: int) -> None:
        """Receipts of ``quantity`` units of every SKU, each told until it is acknowledged."""
        now = Timestamp()
        now.GetCurrentTime()
        request = warehouse_event_service_pb2.IngestEventsRequest(
            events=[
                warehouse_event_service_pb2.WarehouseEvent(
                    source_id="wms-1",
                    event_id=f"receipt-{sku}",
                    occur_time=now,
                    stock_key=StockKey(sku=sku, warehouse_id=WAREHOUSE_ID),
                    receipt=warehouse_event_service_pb2.Receipt(quantity=quantity),
                )
                for sku in self._skus
            ]
        )
        answer = await self._until_answered(self._events.IngestEvents, request)
        outcomes = {result.WhichOneof("result") for result in answer.results}
        assert outcomes <= {"applied", "duplicate"}, answer

    async def shop_until(self, stop: asyncio.Event) -> None:
        """One shopper: reserve, then sometimes confirm or release, as fast as answers come."""
        while not stop.is_set():
            answered = await self.reserve(f"{self._prefix}-{next(self._numbers)}", self._random.choice(self._skus), 1)
            if not answered.reservation_id:
                continue
            what_next = self._random.random()
            if what_next < CONFIRMED_SHARE:
                await self.confirm(answered)
            elif what_next < CONFIRMED_SHARE + RELEASED_SHARE:
                await self.release(answered)

    async def ask_again(self, count: int) -> None:
        """Repeat some reserves that were answered long ago: ``reserve`` asserts that the answers are the same."""
        for answered in self._random.sample(list(self.memory.reserves.values()), count):
            await self.reserve(answered.request_id, answered.sku, answered.quantity)

    async def reserve(self, request_id: str, sku: str, quantity: int) -> Answered:
        """Reserve, asking again with the same request id until there is an answer; it is remembered."""
        line = reservation_service_pb2.LineRequest(
            stock_key=StockKey(sku=sku, warehouse_id=WAREHOUSE_ID), quantity=quantity
        )
        request = reservation_service_pb2.ReserveStockRequest(
            request_id=request_id, channel_id=CHANNEL_ID, lines=[line]
        )
        sent_at = time.monotonic()
        answer = await self._until_answered(self._reservations.ReserveStock, request)
        reservation_id = answer.reservation.reservation_id if answer.WhichOneof("result") == "reservation" else ""
        answered = Answered(request_id, sku, quantity, reservation_id, sent_at, time.monotonic())
        known = self.memory.reserves.setdefault(request_id, answered)
        assert known.reservation_id == reservation_id, f"{request_id} got two answers: {known} and {answered}"
        return answered

    async def why_refused(self, request_id: str, sku: str, quantity: int) -> str:
        """The ``ErrorInfo.reason`` of one try to reserve; empty when it was answered."""
        line = reservation_service_pb2.LineRequest(
            stock_key=StockKey(sku=sku, warehouse_id=WAREHOUSE_ID), quantity=quantity
        )
        request = reservation_service_pb2.ReserveStockRequest(
            request_id=request_id, channel_id=CHANNEL_ID, lines=[line]
        )
        try:
            await self._reservations.ReserveStock(request, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
            for detail in status_pb2.Status.FromString(bytes(packed)).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
            return error.code().name
        return ""

    async def confirm(self, answered: Answered) -> None:
        request = reservation_service_pb2.ConfirmReservationRequest(
            request_id=f"{answered.request_id}-c", reservation_id=answered.reservation_id
        )
        answer = await self._until_answered(self._reservations.ConfirmReservation, request)
        assert answer.WhichOneof("result") == "reservation", answer
        self.memory.confirmed.add(answered.reservation_id)

    async def release(self, answered: Answered) -> None:
        request = reservation_service_pb2.ReleaseReservationRequest(
            request_id=f"{answered.request_id}-r",
            reservation_id=answered.reservation_id,
            reason=reservation_service_pb2.RELEASE_REASON_CART_ABANDONED,
        )
        answer = await self._until_answered(self._reservations.ReleaseReservation, request)
        assert answer.WhichOneof("result") == "reservation", answer
        self.memory.released.add(answered.reservation_id)

    async def _until_answered(self, method: grpc.aio.UnaryUnaryMultiCallable, request: Any) -> Any:
        """The answer, however often the service has to be asked; anything but a transient error is raised."""
        give_up_at = time.monotonic() + GIVE_UP_AFTER_S
        while True:
            try:
                return await method(request, timeout=DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                transient = (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    grpc.StatusCode.CANCELLED,
                )
                if error.code() not in transient or time.monotonic() > give_up_at:
                    raise
                self.memory.retries += 1
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
