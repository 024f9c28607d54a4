"""The whole service in one process, as callers meet it: two gateways behind one port, 64 shards, the journal in SQLite.

At the end of each test the journal is checked offline: what was promised was there, whatever the callers were told.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from actors.journal.verify import verify
from actors.runtime.settings import Settings, load_settings
from actors.runtime.wiring import InProcessNode, open_data_journal, read_data_journal, start_in_process
from stockade import AsyncClient
from stockade.client import facts
from stockade.client.results import Availability, Ingested, LineWanted, Refused, Reservation, Stock

FULFILLED_BY_ORDER_MANAGEMENT = {"main": {"fulfilment_door": "order_management"}, "overflow": {}}
SMALL_DISK = {"disk_floor_bytes": 2**20, "ballast_bytes": 2**20}


def node_settings(**overrides: Any) -> Settings:
    """Two gateways, free ports, little space kept in reserve; "edi" may impose."""
    fixed = {"grpc_port": 0, "http_port": 0, "gateways": 2, "warehouses": "main,overflow", **SMALL_DISK}
    return load_settings(overrides={**fixed, **overrides}, environment={}).settings


class Service:
    """A running node, a client of the channel "web", and short words for what tests do."""

    def __init__(self, node: InProcessNode, client: AsyncClient) -> None:
        self.node = node
        self.client = client
        self._events = itertools.count(1)

    @property
    def target(self) -> str:
        return self.node.target

    async def restart_host(self) -> None:
        """The host goes and a successor replays its journal."""
        await self.node.stop_host()
        await self.node.start_host()

    def told(self, sku: str, event_id: str = "", warehouse_id: str = "main") -> facts.Told:
        """A warehouse event that happens now, with an id of its own."""
        name = event_id or f"event-{next(self._events)}"
        return facts.Told("wms", name, (sku, warehouse_id), time.time_ns() // 1_000_000)

    async def ingest(self, *events: Any) -> list[Ingested]:
        return await self.client.ingest(events)

    async def receive(self, sku: str, quantity: int, warehouse_id: str = "main") -> Ingested:
        """Goods come in; the answer must be APPLIED."""
        (result,) = await self.ingest(facts.receipt(self.told(sku, warehouse_id=warehouse_id), quantity))
        assert result.outcome == "APPLIED", result
        return result

    async def count(self, sku: str, quantity: int) -> Ingested:
        (result,) = await self.ingest(facts.stock_count(self.told(sku), quantity, now=True))
        return result

    async def reserve(self, sku: str, quantity: int = 1, **options: Any) -> Reservation | Refused:
        return await self.client.reserve([(sku, "main", quantity)], **options)

    async def held(self, sku: str, quantity: int = 1, **options: Any) -> Reservation:
        """A reservation that must be granted."""
        return granted(await self.reserve(sku, quantity, **options))

    async def stock(self, sku: str) -> Stock:
        return await self.client.get_stock((sku, "main"))

    async def availability(self, sku: str) -> Availability:
        return await self.client.availability((sku, "main"))

    async def available(self, sku: str) -> int:
        return (await self.availability(sku)).available_quantity


def granted(answer: Reservation | Refused) -> Reservation:
    assert isinstance(answer, Reservation), answer
    return answer


def refused(answer: Reservation | Refused, reason: str) -> Refused:
    assert isinstance(answer, Refused), answer
    assert answer.reason == reason, answer
    return answer


def wanted(sku: str, quantity: int = 1, line_id: str = "") -> LineWanted:
    return LineWanted(sku, "main", quantity, line_id)


@contextlib.asynccontextmanager
async def service(directory: Path, **overrides: Any) -> AsyncIterator[Service]:
    """A service over a journal in this directory; afterwards its journal must hold together, without an oversell."""
    settings = node_settings(**overrides)
    node = await start_in_process(settings, lambda: open_data_journal(settings, directory, print))
    try:
        async with AsyncClient(node.target, channel_id="web", timeout_s=20.0) as client:
            yield Service(node, client)
    finally:
        await node.stop()
    journal = read_data_journal(directory)
    try:
        report = verify(journal)
    finally:
        journal.close()
    assert report.ok, report.violations
    assert report.oversells == 0
