"""Makes a plan from a retailer's file and a seed: warehouses, opening stock, weekly receipts, orders, cancellations, days.

The file has neither warehouses nor receipts. They are made reproducibly: a warehouse by country and SKU; receipts at the start
of each week, so sized (by bisection over a plain simulation of whole lines) that a chosen share of the demanded lines meets
an empty shelf. A plan decides nothing at run time: what the service answers counts.
"""

from __future__ import annotations

import math
import random
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.trading.oracle import Key
from gateway.trading.retail_file import Meaning, RetailLine

WAREHOUSES = ("north", "south", "continent")
CHANNELS = ("web", "b2b", "marketplace", "call-center")
MINUTES_PER_DAY = 24 * 60
DAYS_PER_WEEK = 7
HELD_FIRST_SHARE = 0.01  # of orders: first held with a short time to live and left to expire, then placed again
SUPPLY_SPREAD = 0.45  # how uneven supply is from week to week and SKU to SKU: sigma of a log-normal factor
BISECTIONS = 16


@dataclass(slots=True)
class PlannedOrder:
    """One invoice. ``lines``: (line id, stock key, units)."""

    invoice: str
    channel: str
    customer: str
    day: int
    lines: list[tuple[str, Key, int]] = field(default_factory=list)
    held_first: bool = False


@dataclass(frozen=True, slots=True)
class PlannedCancellation:
    """Units of an order's line that come back: released while the order is not shipped, a return afterwards."""

    order: int  # index into the plan's orders; -1: no earlier sale was found, goods come back all the same
    line_id: str
    key: Key
    units: int


@dataclass(slots=True)
class PlannedDay:
    """What happens on one day, in this order but for checkout and warehouse, which go on beside each other."""

    day: int
    receipts: list[tuple[Key, int]] = field(default_factory=list)
    adjustments: list[tuple[Key, int, str]] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    cancellations: list[PlannedCancellation] = field(default_factory=list)


@dataclass(slots=True)
class RetailPlan:
    """Days in order. ``expected_refusal_rate``: refused lines / lines, as simulated; the service's own may differ a little."""

    seed: int
    lines_read: int
    meanings: dict[str, int]
    orders: list[PlannedOrder]
    days: list[PlannedDay]
    expected_refusal_rate: float
    cancellations_matched: int
    cancellations_in_all: int

    @property
    def order_lines(self) -> int:
        """Lines to be reserved."""
        return sum(len(order.lines) for order in self.orders)


def warehouse_of(country: str, sku: str) -> str:
    """By country and SKU: the continent has one warehouse, the home country two."""
    if country and country != "United Kingdom":
        return "continent"
    return WAREHOUSES[zlib.crc32(sku.encode()) % 2]


def channel_of(country: str, customer: str) -> str:
    """By country and customer."""
    if not customer:
        return "call-center"
    if country != "United Kingdom":
        return "marketplace"
    return "web" if zlib.crc32(customer.encode()) % 3 else "b2b"


def make_plan(lines: Iterable[RetailLine], seed: int, refusal_rate: float = 0.03) -> RetailPlan:
    """The plan for these lines. ``refusal_rate``: share of demanded lines that shall find too little (0 to 0.5)."""
    draw = random.Random(seed)
    meanings: dict[str, int] = defaultdict(int)
    orders: list[PlannedOrder] = []
    by_invoice: dict[str, int] = {}
    days: dict[int, PlannedDay] = {}
    sold: dict[tuple[str, str], list[tuple[int, str, list[int]]]] = defaultdict(
        list
    )  # (customer, sku) → lines with units left
    matched = in_all = count = 0
    for line in lines:
        count += 1
        meanings[line.meaning.value] += 1
        if line.meaning is Meaning.NOT_STOCK:
            continue
        number = line.minute // MINUTES_PER_DAY
        day = days.get(number)
        if day is None:
            day = days[number] = PlannedDay(number)
        key = (line.sku, warehouse_of(line.country, line.sku))
        if line.meaning is Meaning.SALE:
            index = by_invoice.get(line.invoice, -1)
            if index < 0:
                index = by_invoice[line.invoice] = len(orders)
                channel = channel_of(line.country, line.customer)
                held_first = draw.random() < HELD_FIRST_SHARE
                orders.append(PlannedOrder(line.invoice, channel, line.customer, number, held_first=held_first))
                day.orders.append(index)
            order = orders[index]
            line_id = str(len(order.lines))
            order.lines.append((line_id, key, line.quantity))
            if line.customer:
                sold[(line.customer, line.sku)].append((index, line_id, [line.quantity]))
        elif line.meaning is Meaning.CANCELLATION:
            in_all += 1
            found = _match(sold[(line.customer, line.sku)], -line.quantity)
            if found is None:
                day.cancellations.append(PlannedCancellation(-1, "", key, -line.quantity))
            else:
                matched += 1
                index, line_id = found
                place = next(kept for name, kept, _ in orders[index].lines if name == line_id)
                day.cancellations.append(PlannedCancellation(index, line_id, place, -line.quantity))
        else:
            day.adjustments.append((key, line.quantity, line.description or "unexplained"))
    plan = RetailPlan(
        seed, count, dict(meanings), orders, [days[number] for number in sorted(days)], 0.0, matched, in_all
    )
    _supply(plan, draw, refusal_rate)
    return plan


def _match(candidates: list[tuple[int, str, list[int]]], units: int) -> tuple[int, str] | None:
    """The latest earlier sale of the same customer and SKU with enough units left."""
    for index, line_id, left in reversed(candidates):
        if left[0] >= units:
            left[0] -= units
            return index, line_id
    return None


def _supply(plan: RetailPlan, draw: random.Random, refusal_rate: float) -> None:
    """Find the supply at which the simulated refusal rate is the one asked for, and write the receipts into the plan."""
    demand: dict[tuple[Key, int], int] = defaultdict(int)
    first_day_of_week: dict[int, PlannedDay] = {}
    for day in plan.days:
        first_day_of_week.setdefault(day.day // DAYS_PER_WEEK, day)
        for index in day.orders:
            for _, key, units in plan.orders[index].lines:
                demand[(key, day.day // DAYS_PER_WEEK)] += units
    weekly = [(key, week, units, math.exp(draw.gauss(0.0, SUPPLY_SPREAD))) for (key, week), units in demand.items()]

    def receipts(level: float) -> dict[int, list[tuple[Key, int]]]:
        by_week: dict[int, list[tuple[Key, int]]] = defaultdict(list)
        for key, week, units, uneven in weekly:
            quantity = math.ceil(units * uneven * level)
            if quantity > 0:
                by_week[week].append((key, quantity))
        return by_week

    low, high = 0.0, 1.0
    while simulated_refusal_rate(plan, receipts(high)) > refusal_rate and high < 64:
        low, high = high, high * 2
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if simulated_refusal_rate(plan, receipts(middle)) > refusal_rate:
            low = middle
        else:
            high = middle
    chosen = receipts(high)
    for week, arriving in chosen.items():
        first_day_of_week[week].receipts = arriving
    plan.expected_refusal_rate = simulated_refusal_rate(plan, chosen)


def simulated_refusal_rate(plan: RetailPlan, receipts: dict[int, list[tuple[Key, int]]]) -> float:
    """Refused lines / lines when everything happens one after the other: whole lines, same-day cancellations come back."""
    shelf: dict[Key, int] = defaultdict(int)
    lines = refused = 0
    week_before = None
    for day in plan.days:
        week = day.day // DAYS_PER_WEEK
        if week != week_before:
            for key, units in receipts.get(week, ()):
                shelf[key] += units
            week_before = week
        for key, delta, _ in day.adjustments:
            shelf[key] += delta
        sold_today = set()
        for index in day.orders:
            for line_id, key, units in plan.orders[index].lines:
                lines += 1
                if shelf[key] >= units:
                    shelf[key] -= units
                    sold_today.add((index, line_id))
                else:
                    refused += 1
        for cancellation in day.cancellations:
            if (cancellation.order, cancellation.line_id) in sold_today:
                shelf[cancellation.key] += cancellation.units
    return refused / lines if lines else 0.0
