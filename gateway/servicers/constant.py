"""A ReservationService that checks requests like the real one and answers a constant: what benchmarks compare with.

The ratio to it says what the work behind the gateway costs. It asks no shard, promises nothing and is never served by
default: ``start_gateway(..., reservation_servicer=ConstantReservationService)``.
"""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from actors.domain.keys import reservation_id
from gateway.rpc import Rpc
from gateway.servicers.desk import Desk, check
from gateway.servicers.reservation import ReservationService
from gateway.validation import Findings
from stockade.v1 import reservation_service_pb2 as pb
from stockade.v1 import stock_key_pb2

_TIME = Timestamp(seconds=1_700_000_000)
_RESERVATION_ID = reservation_id("constant", 0, 1)


class ConstantReservationService(ReservationService):
    """ReserveStock and BatchReserveStock without anything behind them; the other methods are the real ones."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        position = stock_key_pb2.Position(timeline="constant", epoch=1, sequence=1, time=_TIME)
        line = pb.Line(
            line_id="0",
            stock_key=stock_key_pb2.StockKey(sku="constant", warehouse_id="constant"),
            requested_quantity=1,
            granted_quantity=1,
        )
        self._response = pb.ReserveStockResponse(
            reservation=pb.Reservation(
                reservation_id=_RESERVATION_ID,
                channel_id="constant",
                state=stock_key_pb2.RESERVATION_STATE_HELD,
                version=1,
                lines=[line],
                create_time=_TIME,
                expire_time=_TIME,
                position=position,
            )
        )
        granted = pb.Granted(
            reservation_id=_RESERVATION_ID, expire_time_ms=1, position=stock_key_pb2.ShardPosition(epoch=1, sequence=1)
        )
        self._result = pb.BatchReserveStockResult(granted=granted)

    async def ReserveStock(self, request: pb.ReserveStockRequest, rpc: Rpc) -> pb.ReserveStockResponse:
        self._desk.open()
        findings = Findings()
        self._requests.reserve(request, rpc.principal, rpc.cause, findings)
        check(findings)
        return self._response

    async def BatchReserveStock(self, request: pb.BatchReserveStockRequest, rpc: Rpc) -> pb.BatchReserveStockResponse:
        self._desk.open()
        self._batch_items(request.requests, rpc)
        return pb.BatchReserveStockResponse(results=[self._result] * len(request.requests), timeline="constant")
