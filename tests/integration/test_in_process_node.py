"""A host and its gateways in one loop: the node that fast tests and benchmarks use behaves like the real one."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from actors.journal.port import JournalLocked, JournalMismatch
from actors.runtime.settings import Settings, load_settings
from actors.runtime.wiring import InProcessNode, open_data_journal, start_in_process
from stockade.v1 import (
    reservation_service_pb2,
    reservation_service_pb2_grpc,
    warehouse_event_service_pb2,
    warehouse_event_service_pb2_grpc,
)
from stockade.v1.stock_key_pb2 import StockKey

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

KEY = StockKey(sku="A", warehouse_id="main")


def settings(**overrides: object) -> Settings:
    fixed = {"grpc_port": 0, "http_port": 0, "disk_floor_bytes": 2**20, "ballast_bytes": 2**20}
    return load_settings(overrides={**fixed, **overrides}, environment={}).settings


async def receive(node: InProcessNode, quantity: int) -> None:
    now = Timestamp()
    now.GetCurrentTime()
    event = warehouse_event_service_pb2.WarehouseEvent(
        source_id="wms-1",
        event_id="receipt-1",
        occur_time=now,
        stock_key=KEY,
        receipt=warehouse_event_service_pb2.Receipt(quantity=quantity),
    )
    async with grpc.aio.insecure_channel(node.target) as channel:
        stub = warehouse_event_service_pb2_grpc.WarehouseEventServiceStub(channel)
        await stub.IngestEvents(warehouse_event_service_pb2.IngestEventsRequest(events=[event]))


async def reserve(node: InProcessNode, request_id: str, quantity: int) -> str:
    """The reservation id; empty when refused."""
    request = reservation_service_pb2.ReserveStockRequest(
        request_id=request_id,
        channel_id="web",
        lines=[reservation_service_pb2.LineRequest(stock_key=KEY, quantity=quantity)],
    )
    async with grpc.aio.insecure_channel(node.target) as channel:
        answer = await reservation_service_pb2_grpc.ReservationServiceStub(channel).ReserveStock(request, timeout=5)
    return str(answer.reservation.reservation_id)


@pytest.mark.parametrize("gateways", [1, 3])
async def test_a_node_in_memory_keeps_what_it_had_over_a_change_of_its_host(gateways: int) -> None:
    node = await start_in_process(settings(gateways=gateways))
    try:
        await receive(node, 10)
        first = await reserve(node, "r-1", 6)
        assert first
        await node.stop_host()
        await node.start_host()
        assert await reserve(node, "r-1", 6) == first
        assert await reserve(node, "r-2", 5) == ""
        assert await reserve(node, "r-3", 4)
    finally:
        await node.stop()


async def test_a_node_on_disk_comes_back_with_everything_it_had(tmp_path: Path) -> None:
    chosen = settings(gateways=1)
    for _ in range(2):
        node = await start_in_process(chosen, lambda: open_data_journal(chosen, tmp_path, print))
        try:
            await receive(node, 10)  # the second time a duplicate
            assert await reserve(node, "r-1", 6)
            assert await reserve(node, "r-2", 5) == ""
        finally:
            await node.stop()


def test_a_journal_in_use_is_refused_to_maintenance(tmp_path: Path) -> None:
    chosen = settings()
    journal = open_data_journal(chosen, tmp_path, print)
    try:
        with pytest.raises(JournalLocked, match="shard host"):
            open_data_journal(chosen, tmp_path, print, end_holder=False)
    finally:
        journal.close()


def test_another_shard_count_is_refused(tmp_path: Path) -> None:
    open_data_journal(settings(), tmp_path, print).close()
    with pytest.raises(JournalMismatch, match="shard count 64"):
        open_data_journal(settings(shard_count=32), tmp_path, print)
