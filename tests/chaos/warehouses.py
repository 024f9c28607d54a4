"""What the warehouses tell: goods in, picks, shipments, counts, corrections, returns and transfers, some of it twice.

One teller a warehouse. Each batch is told until it is answered, then sometimes told again word for word.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Any

from stockade import StockadeError
from stockade.client import facts
from stockade.client.results import Stock
from tests.chaos.asking import Connection, GivenUp, Memory
from tests.chaos.shoppers import SKUS, Market

FULL_SHELF = (12, 60, 400)  # units, by SKU: some are always scarce
TOLD_TWICE = 0.2


def full_shelf(sku: str) -> int:
    """How many units of it a warehouse likes to have."""
    return FULL_SHELF[SKUS.index(sku) % len(FULL_SHELF)]


class Warehouse:
    """One warehouse system and its stream. ``source_id``: what it calls itself."""

    def __init__(
        self, name: str, connection: Connection, memory: Memory, market: Market, seed: int, source_id: str = ""
    ) -> None:
        self.name = name
        self._source_id = source_id or f"wms-{name}"
        self.draw = random.Random(f"{seed} {name}")
        self._connection = connection
        self._memory = memory
        self._market = market
        self._number = 0
        self._sequence = 0

    async def open_doors(self) -> None:
        """Fill every shelf once."""
        await self._tell([facts.receipt(self._told(sku), full_shelf(sku)) for sku in SKUS])

    async def work(self, stop: asyncio.Event, pause_s: float) -> None:
        """Fact after fact until ``stop``."""
        while not stop.is_set():
            with suppress(StockadeError, GivenUp):  # remembered
                events = [*await self._refill(), *self._ship(), *self._correct()]
                if events:
                    await self._tell(events)
            await asyncio.sleep(self.draw.uniform(0.0, 2.0 * pause_s))

    async def _tell(self, events: list[Any]) -> None:
        call = self._connection.client.calls.ingest(events)
        await self._memory.ask(self.name, self._connection, call)
        if self.draw.random() < TOLD_TWICE:
            await self._memory.ask(self.name, self._connection, call)

    def _told(self, sku: str, *, sequenced: bool = False) -> facts.Told:
        self._number += 1
        if sequenced:
            self._sequence += 1
        return facts.Told(
            self._source_id,
            f"{self.name}-{self._number}",
            (sku, self.name),
            time.time_ns() // 1_000_000,
            stream_id="floor" if sequenced else "",
            source_sequence=self._sequence if sequenced else 0,
        )

    async def _refill(self) -> list[Any]:
        """Look at one shelf; goods in when it is half empty."""
        sku = self.draw.choice(SKUS)
        call = self._connection.client.calls.get_stock((sku, self.name))
        stock: Stock = await self._memory.ask(self.name, self._connection, call)
        missing = full_shelf(sku) - stock.on_hand.get("SELLABLE", 0)
        return [facts.receipt(self._told(sku), missing)] if missing > full_shelf(sku) // 2 else []

    def _ship(self) -> list[Any]:
        """Pick, and mostly ship, a line of an order that was confirmed."""
        if not self._market.confirmed or self.draw.random() < 0.5:
            return []
        order = self.draw.choice(self._market.confirmed)
        lines = [line for line in order.lines if line.stock_key.warehouse_id == self.name and line.open_quantity > 0]
        if not lines:
            return []
        line = self.draw.choice(lines)
        promised = facts.promise(order.reservation_id, line_id=line.line_id)
        sku, units = line.stock_key.sku, self.draw.randint(1, line.open_quantity)
        events = [facts.pick(self._told(sku, sequenced=True), units, promised)]
        if self.draw.random() < 0.8:
            shipment = facts.shipment(
                self._told(sku, sequenced=True),
                units,
                f"shipment-{self.name}-{self._number}",
                promised,
                close_remainder=self.draw.random() < 0.5,
            )
            return [*events, shipment]
        return [*events, facts.unpick(self._told(sku, sequenced=True), units, promised)]

    def _correct(self) -> list[Any]:
        """One of the rarer facts."""
        draw = self.draw
        if draw.random() < 0.6:
            return []
        sku = draw.choice(SKUS)
        told = self._told(sku)
        which = draw.randrange(7)
        names = self._market.warehouses
        other = names[(names.index(self.name) + 1) % len(names)]
        if which == 0:
            return [facts.adjustment(told, draw.choice((-2, -1, 1, 2)), reason="shelf")]
        if which == 1:
            return [
                facts.stock_count(
                    told, full_shelf(sku) // 2 + draw.randrange(4), now=True, includes_picked=draw.random() < 0.5
                )
            ]
        if which == 2:
            return [facts.disposition_change(told, 1, "SELLABLE", "DAMAGED")]
        if which == 3:
            return [facts.customer_return(told, 1, into=draw.choice(("", "SELLABLE")), return_id=told.event_id)]
        if which in (4, 5) and self._market.one_warehouse:
            return []
        if which == 4:
            return [facts.transfer_dispatch(told, 1, f"transfer-{told.event_id}", other)]
        if which == 5:
            return [facts.transfer_receipt(told, 1, f"transfer-{told.event_id}", other)]
        return [facts.pick(told, 1)]
