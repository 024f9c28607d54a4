"""Drives a trading day: shoppers of all channels check out beside the warehouses that receive, pick, ship, adjust and count."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.trading.oracle import Key
from gateway.trading.report import latency_table
from gateway.trading.trading_day import WAREHOUSES, PlannedBasket, Story, TradingDay
from gateway.trading.traffic import Traffic
from stockade import AsyncClient
from stockade.client import facts
from stockade.client.results import LineWanted, Refused

SHOPPERS = 64
ABANDONED_TTL_S = 2.0
CART_TTL_S = 600.0
PATIENCE_S = 60.0
SHIPPED_PER_CALL = 400
ORDERS_PER_TRIP = 12  # then receipts get their turn at the door
EARLY_SHIPMENTS = 3  # shipments that overtake their receipt, a warehouse
COUNTS_PER_WAVE = 5

REFUSED_SHARE_MIN, REFUSED_SHARE_MAX = 0.01, 0.10
SOLD_OUT_KEYS_MIN = 50
EXPIRIES_MIN = 100
FULL_DAY_ORDERS = 3_000  # a shorter day promises its share of these two

Progress = Callable[[int, int, Traffic], None]


@dataclass(slots=True)
class DayReport:
    """What the day came to. Shares are 0 to 1; ``differences``: where service and oracle disagree; must be empty."""

    orders: int
    order_lines: int
    units_asked: int
    units_granted: int
    units_shipped: int
    orders_confirmed: int
    orders_refused: int
    lines_refused: int
    refused_share: float
    sold_out_keys: int
    expiries: int
    carts_replaced: int
    orders_amended: int
    orders_cancelled_in_part: int
    shortages_opened: int
    shortages_healed: int
    shortages_open: int
    imposed_uncovered_units: int
    oversells: int
    warehouse_events: int
    stock_keys: int
    seconds: float
    orders_per_second: float
    lines_per_second: float
    latencies_ms: dict[str, dict[str, float]]
    refusals: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


def failures(report: DayReport) -> list[str]:
    """What the day promised and did not show."""
    found = [f"oracle: {difference}" for difference in report.differences]
    if report.oversells:
        found.append(f"the service counts {report.oversells} oversells")
    if not REFUSED_SHARE_MIN <= report.refused_share <= REFUSED_SHARE_MAX:
        found.append(
            f"{report.refused_share:.1%} of demand refused, {REFUSED_SHARE_MIN:.0%} to {REFUSED_SHARE_MAX:.0%} were promised"
        )
    share = min(1.0, report.orders / FULL_DAY_ORDERS)
    sold_out_min, expiries_min = int(SOLD_OUT_KEYS_MIN * share), int(EXPIRIES_MIN * share)
    if report.sold_out_keys < sold_out_min:
        found.append(f"{report.sold_out_keys} stock keys sold out, at least {sold_out_min} were promised")
    if report.expiries < expiries_min:
        found.append(f"{report.expiries} holds expired, at least {expiries_min} were promised")
    if not report.shortages_healed:
        found.append("no shortage opened and healed")
    return found


async def run_day(
    day: TradingDay, target: str, *, seconds: float = 0.0, token: str = "", progress: Progress | None = None
) -> DayReport:
    """Drive the day through the service at ``target``, which must be empty of stock.

    ``seconds``: how long shoppers take to place all orders, at least; a day that is over in less than some lives of a cart
    sells out because of carts alone.
    """
    async with AsyncClient(target, token=token) as client:
        return await Day(day, Traffic(client, "demo-wms"), seconds, progress).run()


class Day:
    """One day under way."""

    def __init__(self, day: TradingDay, traffic: Traffic, seconds: float, progress: Progress | None) -> None:
        self._day = day
        self._seconds = seconds
        self._traffic = traffic
        self._progress = progress
        self._draw = random.Random(day.seed + 1)
        self._to_ship: dict[str, list[str]] = {warehouse: [] for warehouse in WAREHOUSES}  # reservation ids
        self._abandoned: list[str] = []
        self._warehouse_locks = {
            warehouse: asyncio.Lock() for warehouse in WAREHOUSES
        }  # a warehouse tells one thing at a time
        self._placed = 0
        self._in_part = 0
        self._shipments = 0

    async def run(self) -> DayReport:
        """Open, trade, close, judge."""
        traffic = self._traffic
        started = time.monotonic()
        await self._receive(self._day.opening, "opening stock")
        baskets = iter(self._day.baskets)
        closing = asyncio.Event()
        opened = time.monotonic()

        async def shopper() -> None:
            for basket in baskets:
                arrives = opened + self._seconds * basket.number / len(self._day.baskets)
                await asyncio.sleep(max(0.0, arrives - time.monotonic()))
                await self._shop(basket)
                self._placed += 1
                if self._progress is not None and self._placed % 25 == 0:
                    self._progress(self._placed, len(self._day.baskets), traffic)

        async with asyncio.TaskGroup() as warehouses:
            for warehouse in WAREHOUSES:
                warehouses.create_task(self._work(warehouse, closing))
            warehouses.create_task(self._deliver(closing))
            async with asyncio.TaskGroup() as shoppers:
                for _ in range(SHOPPERS):
                    shoppers.create_task(shopper())
            closing.set()
        trading_seconds = time.monotonic() - started
        if self._progress is not None:
            self._progress(self._placed, len(self._day.baskets), traffic)
        unexpired = await self._wait_for_expiries()
        await self._heal()
        return await self._judge(trading_seconds, unexpired)

    # --- checkout --------------------------------------------------------------------------------------------------------------

    async def _shop(self, basket: PlannedBasket) -> None:
        traffic = self._traffic
        story = basket.story
        lines = [LineWanted(key[0], key[1], units, str(at)) for at, (key, units) in enumerate(basket.lines)]
        reference = f"{basket.channel}-{basket.number:05d}"
        at_once = story in (Story.ON_ACCOUNT, Story.IMPOSED)
        answer = await traffic.reserve(
            lines,
            channel_id=basket.channel,
            order_reference=reference if at_once else "",
            fill_policy="all_or_nothing" if basket.all_or_nothing or story is Story.IMPOSED else "whole_lines",
            confirm=at_once,
            admission="always" if story is Story.IMPOSED else "",
            ttl_s=ABANDONED_TTL_S if story is Story.ABANDONED else CART_TTL_S,
        )
        if isinstance(answer, Refused):
            return
        reservation_id = answer.reservation_id
        if story is Story.ABANDONED:
            self._abandoned.append(reservation_id)
            return
        if story is Story.REPLACED:
            changed = await traffic.reserve(
                lines[: max(1, len(lines) - 1)],
                channel_id=basket.channel,
                fill_policy="whole_lines",
                replaces_reservation_id=reservation_id,
                ttl_s=CART_TTL_S,
            )
            if not isinstance(changed, Refused):
                traffic.counts.carts_replaced += 1
                reservation_id = changed.reservation_id
        if not at_once and not await traffic.confirm(reservation_id, reference):
            return
        await self._after(story, reservation_id)
        for warehouse in {line.key[1] for line in traffic.oracle.orders[reservation_id].lines.values() if line.open}:
            self._to_ship[warehouse].append(reservation_id)

    async def _after(self, story: Story, reservation_id: str) -> None:
        """What customers do between ordering and shipping."""
        traffic = self._traffic
        open_lines = [
            (line_id, line) for line_id, line in traffic.oracle.orders[reservation_id].lines.items() if line.open
        ]
        if not open_lines:
            return
        line_id, line = open_lines[0]
        if story is Story.CANCELLED_IN_PART and await traffic.release(
            reservation_id, "customer_cancelled", {line_id: max(1, line.open // 2)}
        ):
            self._in_part += 1
        if story is Story.AMENDED:
            target = LineWanted(line.key[0], line.key[1], line.open + 1, line_id)
            await traffic.amend(reservation_id, [target])

    # --- warehouses ------------------------------------------------------------------------------------------------------------

    async def _receive(self, arriving: Sequence[tuple[Key, int]], reference: str) -> None:
        async def at(warehouse: str) -> None:
            async with self._warehouse_locks[warehouse]:
                await self._traffic.receive([one for one in arriving if one[0][1] == warehouse], reference)

        await asyncio.gather(*map(at, WAREHOUSES))

    async def _deliver(self, closing: asyncio.Event) -> None:
        """The day's receipts come in waves as it goes on; each wave is followed by corrections and counts."""
        total = len(self._day.baskets)
        waves = len(self._day.waves)
        for number, wave in enumerate(self._day.waves):
            while self._placed < total * (number + 1) // (waves + 1) and not closing.is_set():
                await asyncio.sleep(0.02)
            if number == 0:
                await self._ship_early()
            await self._receive(wave, f"delivery {number + 1}")
            await self._correct()

    async def _ship_early(self) -> None:
        """Shipments that overtake their receipt: more leaves than the books know of. Visible, and healed by the receipt."""
        traffic = self._traffic
        for warehouse in WAREHOUSES:
            keys = self._draw.sample([key for key, _ in self._day.opening if key[1] == warehouse], EARLY_SHIPMENTS)
            async with self._warehouse_locks[warehouse]:
                for key in keys:
                    books = traffic.oracle.keys[key]
                    units = books.on_hand.get("SELLABLE", 0) + 10
                    await self._tell_shipment(key, units)
                    await traffic.receive([(key, units)], "late receipt")

    async def _tell_shipment(self, key: Key, units: int) -> None:
        self._shipments += 1
        await self._traffic.tell([facts.shipment(self._traffic.told(key), units, f"T-{self._shipments}")])
        self._traffic.oracle.moved(key, -units)

    async def _correct(self) -> None:
        """Breakage, finds and counts, as a warehouse has them."""
        traffic = self._traffic
        for warehouse in WAREHOUSES:
            keys = self._draw.sample([key for key, _ in self._day.opening if key[1] == warehouse], 2 * COUNTS_PER_WAVE)
            async with self._warehouse_locks[warehouse]:
                for key in keys[:COUNTS_PER_WAVE]:
                    delta = self._draw.choice((-2, -1, 1, 3))
                    reason = "found" if delta > 0 else "damaged"
                    await traffic.tell([facts.adjustment(traffic.told(key), delta, reason=reason)])
                    traffic.oracle.moved(key, delta)
                for key in keys[COUNTS_PER_WAVE:]:
                    books = traffic.oracle.keys[key]
                    on_shelf = max(0, books.on_hand.get("SELLABLE", 0) - books.picked - self._draw.choice((0, 0, 1)))
                    await traffic.tell([facts.stock_count(traffic.told(key), on_shelf, now=True)])
                    traffic.oracle.counted(key, on_shelf)

    async def _work(self, warehouse: str, closing: asyncio.Event) -> None:
        """Pick, then ship, what was ordered, until the day is closed and nothing is left."""
        while True:
            last = closing.is_set()
            waiting = self._to_ship[warehouse]
            orders, self._to_ship[warehouse] = waiting[:ORDERS_PER_TRIP], waiting[ORDERS_PER_TRIP:]
            if orders:
                async with self._warehouse_locks[warehouse]:
                    await self._pick_and_ship(warehouse, orders)
            elif last:
                return
            else:
                await asyncio.sleep(0.05)

    async def _pick_and_ship(self, warehouse: str, orders: Sequence[str]) -> None:
        traffic = self._traffic
        leaving = [
            (reservation_id, line_id, line.key, line.open)
            for reservation_id in orders
            for line_id, line in traffic.oracle.orders[reservation_id].lines.items()
            if line.open and line.key[1] == warehouse
        ]
        for start in range(0, len(leaving), SHIPPED_PER_CALL):
            part = leaving[start : start + SHIPPED_PER_CALL]
            picks = [
                facts.pick(traffic.told(key), units, facts.promise(reservation_id, line_id=line_id))
                for reservation_id, line_id, key, units in part
            ]
            await traffic.tell(picks)
            for reservation_id, line_id, _, units in part:
                traffic.oracle.picked(reservation_id, line_id, units)
            ships = [
                facts.shipment(
                    traffic.told(key, document_line=line_id),
                    units,
                    f"D-{reservation_id}",
                    facts.promise(reservation_id, line_id=line_id),
                )
                for reservation_id, line_id, key, units in part
            ]
            await traffic.tell(ships)
            for reservation_id, line_id, _, units in part:
                traffic.oracle.shipped(reservation_id, line_id, units)
                traffic.counts.units_shipped += units

    # --- closing ---------------------------------------------------------------------------------------------------------------

    async def _wait_for_expiries(self) -> list[str]:
        """Every abandoned cart must expire by itself; those that have not in time."""
        left = self._abandoned
        patience = time.monotonic() + PATIENCE_S
        while left and time.monotonic() < patience:
            ended = await asyncio.gather(*(self._traffic.is_expired(one) for one in left[:200]))
            left = [one for one, over in zip(left[:200], ended, strict=True) if not over] + left[200:]
            if left and not any(ended):
                await asyncio.sleep(0.1)
        return left

    async def _heal(self) -> None:
        """The night's receipts: what is short is delivered, and every shortage heals."""
        short = [stock for stock in await self._traffic.all_stock() if stock.shortage_quantity]
        needed = [((stock.stock_key.sku, stock.stock_key.warehouse_id), stock.shortage_quantity) for stock in short]
        await self._receive(needed, "night delivery")

    async def _judge(self, seconds: float, unexpired: list[str]) -> DayReport:
        traffic = self._traffic
        counts = traffic.counts
        stocks = await traffic.all_stock()
        differences = traffic.oracle.differences(stocks)[:50]
        differences += [f"the abandoned cart {reservation_id} did not expire" for reservation_id in unexpired]
        exceptions: list[str] = []
        token = ""
        while True:
            page, token = await traffic.client.list_exceptions(kinds=("shortage",), page_size=1_000, page_token=token)
            exceptions += [one.state for one in page]
            if not token:
                break
        status = await traffic.client.cluster_status()
        return DayReport(
            orders=counts.orders,
            order_lines=counts.lines_asked,
            units_asked=counts.units_asked,
            units_granted=counts.units_granted,
            units_shipped=counts.units_shipped,
            orders_confirmed=counts.orders_confirmed,
            orders_refused=counts.orders_refused,
            lines_refused=counts.lines_refused,
            refused_share=counts.lines_refused / max(1, counts.lines_asked),
            sold_out_keys=len(counts.sold_out),
            expiries=counts.expiries,
            carts_replaced=counts.carts_replaced,
            orders_amended=counts.orders_amended,
            orders_cancelled_in_part=self._in_part,
            shortages_opened=len(exceptions),
            shortages_healed=exceptions.count("HEALED"),
            shortages_open=exceptions.count("OPEN"),
            imposed_uncovered_units=status.imposed_uncovered_units,
            oversells=status.oversells,
            warehouse_events=counts.events,
            stock_keys=len(stocks),
            seconds=seconds,
            orders_per_second=counts.orders / seconds,
            lines_per_second=counts.lines_asked / seconds,
            latencies_ms=latency_table(traffic.latencies_ms),
            refusals=dict(counts.refusals),
            differences=differences,
        )
