"""Replays a plan: days in order, within a day checkout and warehouse beside each other, as fast as it can or compressed.

An order is reserved by whole lines, confirmed, and shipped the next day by its warehouse. One in a hundred is first held with
a short time to live and left to expire, then placed again. A cancellation releases what is not shipped yet, and is a return
into quality hold afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.trading.oracle import Key
from gateway.trading.retail_plan import PlannedCancellation, PlannedDay, RetailPlan
from gateway.trading.traffic import Traffic
from stockade.client import facts
from stockade.client.results import LineWanted

LINES_PER_BATCH = 1_000
BATCHES_IN_FLIGHT = 4
CALLS_IN_FLIGHT = 48
HOLD_TTL_S = 1.5
EXPIRY_PATIENCE_S = 30.0
DIFFERENCES_SHOWN_MAX = 50


@dataclass(slots=True)
class ReplayReport:
    """What came of it. ``differences``: where service and oracle disagree; must be empty."""

    lines_read: int
    meanings: dict[str, int]
    orders: int
    order_lines: int
    lines_refused: int
    refusal_rate: float
    planned_refusal_rate: float
    units_asked: int
    units_granted: int
    units_shipped: int
    expiries: int
    released_cancellations: int
    returns: int
    cancellations_of_refused_lines: int
    cancellations_matched: int
    events: int
    stock_keys: int
    sold_out_keys: int
    seconds: float
    lines_per_second: float
    latencies_ms: dict[str, dict[str, float]]
    differences: list[str] = field(default_factory=list)


class Replay:
    """One replay. ``progress(days done, days in all, orders done)`` is called as it goes."""

    def __init__(
        self,
        plan: RetailPlan,
        traffic: Traffic,
        *,
        speed: float = 0.0,
        progress: Callable[[int, int, Traffic], None] | None = None,
    ) -> None:
        self._plan = plan
        self._traffic = traffic
        self._speed = speed
        self._progress = progress
        self._reservations: dict[int, str] = {}  # order → reservation id
        self._shipped: set[int] = set()
        self._waiting: list[tuple[float, int, str]] = []  # (due, order, reservation id) of holds left to expire
        self._calls = asyncio.Semaphore(CALLS_IN_FLIGHT)
        self._released = self._returned = self._moot = 0

    async def run(self) -> ReplayReport:
        """Replay every day, then judge."""
        plan, traffic = self._plan, self._traffic
        started = time.monotonic()
        before: PlannedDay | None = None
        for done, day in enumerate(plan.days):
            if self._speed > 0 and before is not None:
                await asyncio.sleep((day.day - before.day) * 86_400 / self._speed)
            await self._by_warehouse(day)
            again = await self._expired_by_now()
            await asyncio.gather(self._checkout(day.orders, again), self._ship(before.orders if before else ()))
            await self._cancel(day.cancellations)
            before = day
            if self._progress is not None:
                self._progress(done + 1, len(plan.days), traffic)
        if before is not None:
            await self._ship(before.orders)
        patience = time.monotonic() + EXPIRY_PATIENCE_S
        while self._waiting and time.monotonic() < patience:
            await asyncio.sleep(max(0.0, self._waiting[0][0] - time.monotonic()))
            again = await self._expired_by_now()
            await self._checkout((), again)
            await self._ship(again)
        seconds = time.monotonic() - started
        stocks = await traffic.all_stock()
        differences = traffic.oracle.differences(stocks)[:DIFFERENCES_SHOWN_MAX]
        differences += [f"the hold {reservation_id} did not expire" for _, _, reservation_id in self._waiting]
        return self._report(seconds, len(stocks), differences)

    # --- checkout --------------------------------------------------------------------------------------------------------------

    async def _checkout(self, orders: Iterable[int], again: Sequence[int]) -> None:
        """Place the day's orders in their order, several batches in flight."""
        batches: asyncio.Queue[list[int]] = asyncio.Queue()
        batch: list[int] = []
        lines = 0
        held_before = set(again)
        for index in (*again, *orders):
            batch.append(index)
            lines += len(self._plan.orders[index].lines)
            if lines >= LINES_PER_BATCH:
                batches.put_nowait(batch)
                batch, lines = [], 0
        if batch:
            batches.put_nowait(batch)

        async def worker() -> None:
            while not batches.empty():
                await self._place(batches.get_nowait(), held_before)

        async with asyncio.TaskGroup() as group:
            for _ in range(BATCHES_IN_FLIGHT):
                group.create_task(worker())

    async def _place(self, batch: list[int], held_before: set[int]) -> None:
        orders = self._plan.orders
        wanted: list[tuple[Sequence[LineWanted], dict[str, Any]]] = []
        holds = [orders[index].held_first and index not in held_before for index in batch]
        for index, hold in zip(batch, holds, strict=True):
            order = orders[index]
            lines = [LineWanted(key[0], key[1], units, line_id) for line_id, key, units in order.lines]
            options: dict[str, Any] = {
                "channel_id": order.channel,
                "customer_id": order.customer,
                "order_reference": order.invoice,
                "fill_policy": "whole_lines",
            }
            if hold:
                options["ttl_s"] = HOLD_TTL_S
            wanted.append((lines, options))
        ids = await self._traffic.reserve_batch(wanted)
        confirming = []
        for index, hold, reservation_id in zip(batch, holds, ids, strict=True):
            if hold:
                if reservation_id:
                    self._waiting.append((time.monotonic() + HOLD_TTL_S + 0.05, index, reservation_id))
            elif reservation_id:
                self._reservations[index] = reservation_id
                confirming.append(index)
        await self._each(confirming, self._confirm)

    async def _confirm(self, index: int) -> None:
        if not await self._traffic.confirm(self._reservations[index], self._plan.orders[index].invoice):
            del self._reservations[index]

    async def _expired_by_now(self) -> list[int]:
        """Orders whose hold has ended by now: they are placed again."""
        now = time.monotonic()
        due = [one for one in self._waiting if one[0] <= now]
        self._waiting = [one for one in self._waiting if one[0] > now]
        ended: list[int] = []

        async def look(one: tuple[float, int, str]) -> None:
            if await self._traffic.is_expired(one[2]):
                ended.append(one[1])
            else:
                self._waiting.append((time.monotonic() + 0.1, one[1], one[2]))

        await self._each(due, look)
        return sorted(ended)

    async def _each(self, items: Iterable[Any], work: Callable[[Any], Any]) -> None:
        async def bounded(item: Any) -> None:
            async with self._calls:
                await work(item)

        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(bounded(item))

    # --- warehouses ------------------------------------------------------------------------------------------------------------

    async def _by_warehouse(self, day: PlannedDay) -> None:
        """Receipts, then corrections, each warehouse a stream of its own."""
        traffic = self._traffic

        async def stream(warehouse: str) -> None:
            received = [(key, units) for key, units in day.receipts if key[1] == warehouse]
            if received:
                await traffic.receive(received, f"week {day.day // 7}")
            adjusted = [one for one in day.adjustments if one[0][1] == warehouse]
            events = [facts.adjustment(traffic.told(key), delta, reason=reason) for key, delta, reason in adjusted]
            await traffic.tell(events)
            for key, delta, _ in adjusted:
                traffic.oracle.moved(key, delta)

        keys: list[Key] = [key for key, _ in day.receipts] + [key for key, _, _ in day.adjustments]
        async with asyncio.TaskGroup() as group:
            for warehouse in sorted({key[1] for key in keys}):
                group.create_task(stream(warehouse))

    async def _ship(self, orders: Iterable[int]) -> None:
        """Yesterday's orders leave, a stream a warehouse."""
        traffic = self._traffic
        by_warehouse: dict[str, list[tuple[int, str, Key, int]]] = {}
        for index in orders:
            reservation_id = self._reservations.get(index)
            if reservation_id is None or index in self._shipped:
                continue
            self._shipped.add(index)
            for line_id, line in traffic.oracle.orders[reservation_id].lines.items():
                if line.open:
                    by_warehouse.setdefault(line.key[1], []).append((index, line_id, line.key, line.open))

        async def stream(leaving: list[tuple[int, str, Key, int]]) -> None:
            events = [
                facts.shipment(
                    traffic.told(key, document_line=line_id),
                    units,
                    f"D-{self._plan.orders[index].invoice}",
                    facts.promise(self._reservations[index], line_id=line_id),
                )
                for index, line_id, key, units in leaving
            ]
            await traffic.tell(events)
            for index, line_id, _, units in leaving:
                traffic.oracle.shipped(self._reservations[index], line_id, units)
                traffic.counts.units_shipped += units

        async with asyncio.TaskGroup() as group:
            for leaving in by_warehouse.values():
                group.create_task(stream(leaving))

    async def _cancel(self, cancellations: Iterable[PlannedCancellation]) -> None:
        """Release what is not shipped yet; the rest comes back into quality hold."""
        traffic = self._traffic
        releases: dict[str, dict[str, int]] = {}
        returns = []
        for one in cancellations:
            reservation_id = self._reservations.get(one.order, "")
            line = traffic.oracle.orders[reservation_id].lines.get(one.line_id) if reservation_id else None
            if one.order >= 0 and line is None:
                self._moot += 1  # the line was refused: there is nothing to cancel
            elif line is not None and one.order not in self._shipped:
                parts = releases.setdefault(reservation_id, {})
                if parts.get(one.line_id, 0) + one.units <= line.open:
                    parts[one.line_id] = parts.get(one.line_id, 0) + one.units
                    self._released += 1
                else:
                    self._moot += 1
            else:
                self._returned += 1
                promised = facts.promise(reservation_id, line_id=one.line_id) if reservation_id else None
                returns.append(
                    (
                        one,
                        facts.customer_return(traffic.told(one.key), one.units, into="quality_hold", promised=promised),
                    )
                )

        async def release(one: tuple[str, dict[str, int]]) -> None:
            if one[1]:
                await traffic.release(one[0], "customer_cancelled", one[1])

        await self._each(releases.items(), release)
        await traffic.tell([event for _, event in returns])
        for cancelled, _ in returns:
            traffic.oracle.moved(cancelled.key, cancelled.units, "QUALITY_HOLD")

    # --- report ----------------------------------------------------------------------------------------------------------------

    def _report(self, seconds: float, stock_keys: int, differences: list[str]) -> ReplayReport:
        from gateway.trading.report import latency_table

        plan, counts = self._plan, self._traffic.counts
        return ReplayReport(
            lines_read=plan.lines_read,
            meanings=plan.meanings,
            orders=len(plan.orders),
            order_lines=counts.lines_asked,
            lines_refused=counts.lines_refused,
            refusal_rate=counts.lines_refused / max(1, counts.lines_asked),
            planned_refusal_rate=plan.expected_refusal_rate,
            units_asked=counts.units_asked,
            units_granted=counts.units_granted,
            units_shipped=counts.units_shipped,
            expiries=counts.expiries,
            released_cancellations=self._released,
            returns=self._returned,
            cancellations_of_refused_lines=self._moot,
            cancellations_matched=plan.cancellations_matched,
            events=counts.events,
            stock_keys=stock_keys,
            sold_out_keys=len(counts.sold_out),
            seconds=seconds,
            lines_per_second=plan.lines_read / seconds if seconds else 0.0,
            latencies_ms=latency_table(self._traffic.latencies_ms),
            differences=differences,
        )
