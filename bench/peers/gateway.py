"""A gateway before a peer: the real one's port, wrapper and validation, with a servicer that asks the peer's store. Own process.

Serves reserves of one line, single and in batches; a batch goes to the store whole. Everything else is the real gateway's and
finds no host.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import uvloop

from actors.domain.outcomes import ErrorReason, RefusalReason, ReservationState
from bench.noop import CHANNEL, WAREHOUSE, NoHosts
from bench.peers.batch_function import BatchFunction
from bench.peers.conditional_update import ConditionalUpdate
from bench.peers.orders import HOLD_MS, Decision, Order, OtherContent, Store
from bench.peers.ray_actors import RayActors
from bench.peers.valkey_script import ValkeyScript
from gateway.config import ChannelConfig, GatewayConfig, WarehouseConfig
from gateway.errors import CallFailed
from gateway.rpc import Rpc
from gateway.server import start_gateway
from gateway.servicers.desk import Desk, check
from gateway.servicers.reservation import ReservationService
from gateway.translate import answers
from gateway.validation import Findings
from stockade.v1 import reservation_service_pb2 as pb
from stockade.v1 import stock_key_pb2

STORES: dict[str, Any] = {
    "conditional-update": ConditionalUpdate,
    "batch-function": BatchFunction,
    "ray-actors": RayActors,
    "valkey-script": ValkeyScript,
}
TIMELINE = "peer"
STOP_GRACE_S = 0.1


class PeerReservationService(ReservationService):
    """ReserveStock and BatchReserveStock of a store."""

    def __init__(self, desk: Desk, store: Store) -> None:
        super().__init__(desk)
        self._store = store
        self._numbers = itertools.count(1)

    async def ReserveStock(self, request: pb.ReserveStockRequest, rpc: Rpc) -> pb.ReserveStockResponse:
        self._desk.open()
        findings = Findings()
        item = self._requests.reserve(request, rpc.principal, rpc.cause, findings)
        findings.size("lines", len(request.lines), 1, 1, "lines")
        check(findings)
        now_ms = time.time_ns() // 1_000_000
        (decision,) = await self._ask_store([order_of(item)], now_ms)
        if not decision.granted:
            return pb.ReserveStockResponse(
                refusal=stock_key_pb2.Refusal(reason=int(RefusalReason.INSUFFICIENT_STOCK))  # type: ignore[arg-type]
            )
        rpc.replayed = decision.replayed
        payload = (request.request_id, int(ReservationState.HELD), 1, now_ms, decision.expire_time_ms,
                   (0, 1, next(self._numbers), now_ms), None, ())  # fmt: skip
        return answers.granted_reservation(TIMELINE, payload, item[5], request)

    async def BatchReserveStock(self, request: pb.BatchReserveStockRequest, rpc: Rpc) -> pb.BatchReserveStockResponse:
        self._desk.open()
        findings = Findings()
        findings.size("requests", len(request.requests), 1, self._desk.config.batch_items_max, "requests")
        check(findings)
        items, failed = self._batch_items(request.requests, rpc)
        for failure in failed.values():
            raise failure  # a peer's batch is good or bad as a whole
        now_ms = time.time_ns() // 1_000_000
        decisions = await self._ask_store([order_of(item) for item in items], now_ms)
        response = pb.BatchReserveStockResponse(timeline=TIMELINE)
        for item, decision in zip(items, decisions, strict=True):
            result = response.results.add()
            if decision.granted:
                place = (0, 1, next(self._numbers), now_ms)
                payload = (item[5][0], int(ReservationState.HELD), 1, now_ms, decision.expire_time_ms, place, None, ())
                answers.add_granted(result.granted, payload, decision.replayed)
            else:
                result.refusal.reason = int(RefusalReason.INSUFFICIENT_STOCK)  # type: ignore[assignment]
        return response

    async def _ask_store(self, orders: Sequence[Order], now_ms: int) -> Sequence[Decision]:
        try:
            return await self._store.reserve(orders, now_ms + HOLD_MS)
        except OtherContent as other:
            raise CallFailed(ErrorReason.REQUEST_ID_REUSED, f"request id {other} came with other content") from other


def order_of(item: Sequence[Any]) -> Order:
    """An item of one line, as validation made it."""
    (line,) = item[5][3]
    return Order(item[5][0], line[1], line[2])


async def serve(store: Store) -> None:
    """Serve until standard input closes: then the benchmark has gone."""
    await store.open()
    config = GatewayConfig(
        cluster_token=TIMELINE,
        channels={CHANNEL: ChannelConfig()},
        warehouses={WAREHOUSE: WarehouseConfig()},
        bind_port=0,
        so_reuseport=False,
    )
    gateway = await start_gateway(
        config, NoHosts(), reservation_servicer=lambda desk: PeerReservationService(desk, store)
    )
    print(gateway.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await gateway.stop(STOP_GRACE_S)
    await store.close()


if __name__ == "__main__":
    name, options = sys.argv[1:]
    uvloop.run(serve(STORES[name](**json.loads(options))))
