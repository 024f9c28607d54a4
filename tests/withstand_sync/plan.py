"""What the warehouses of a retailer's file tell: orders that stand at the beginning, and the events of their year in order.

The year is compressed into the last hours, so that nothing is older than what the service remembers. The file's adjustments are
genuine; receipts, picks, counts and transfers are made reproducibly from a seed. Without a file a small one is made up.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.trading.retail_file import Meaning, RetailLine, read_retail_lines
from gateway.trading.retail_plan import PlannedDay, PlannedOrder, RetailPlan, make_plan
from tests.simulation.feed_oracle import SELLABLE, Key, Order, Promise, WarehouseEvent

HOUR_MS = 3_600_000
LATEST_MS = 10 * 60_000  # the last event is this old at the beginning, the first ``HOURS`` older
HOURS = 15
COUNTED_EVERY_DAYS = 7
COUNTED_SHARE = 0.05  # of the keys a week
TOLD_LATER_SHARE = 0.5  # of the counts: typed in when hundreds of other events have been told
LOST_SHARE = 0.2  # of the counts find something else than the books say


@dataclass
class SyncPlan:
    """``orders``: (retail order, lines to be reserved); ``claims``: the same for the oracle; ``events``: in order of telling."""

    orders: list[PlannedOrder]
    events: list[WarehouseEvent] = field(default_factory=list)
    claims: list[Order] = field(default_factory=list)


def make_sync_plan(path: Path | None, lines_max: int, seed: int, now_ms: int) -> SyncPlan:
    """From a file, or made up."""
    lines = read_retail_lines(path, lines_max) if path is not None else made_up(lines_max, seed)
    return Teller(make_plan(lines, seed, refusal_rate=0.03), seed, now_ms).tell()


def made_up(count: int, seed: int) -> Iterator[RetailLine]:
    """Sales of some days: few SKUs are sold often, most now and then; some come back, some are found or thrown away."""
    draw = random.Random(f"{seed} lines")
    sold: list[RetailLine] = []
    invoice, minute = 500_000, 21_000_000
    for number in range(2, count + 2):
        if draw.random() < 0.2:
            invoice, minute = invoice + 1, minute + draw.randint(1, 60)
        sku = f"8{int(draw.paretovariate(0.7)) % 60:04}"
        country = "France" if invoice % 7 == 0 else "United Kingdom"
        chance, customer = draw.random(), str(12_000 + invoice % 50)
        if chance < 0.03 and sold:
            old = draw.choice(sold[-200:])
            yield RetailLine(
                number, f"C{invoice}", old.sku, "", -1, minute, 1.0, old.customer, old.country, Meaning.CANCELLATION
            )
        elif chance < 0.05:
            units = draw.choice((-5, -1, 2, 8))
            yield RetailLine(
                number, str(invoice), sku, "stock check", units, minute, 0.0, "", country, Meaning.ADJUSTMENT
            )
        else:
            units = draw.choice((1, 1, 2, 3, 6, 12))
            sold.append(RetailLine(number, str(invoice), sku, "", units, minute, 1.0, customer, country, Meaning.SALE))
            yield sold[-1]


class Teller:
    """Walks the days of a plan and tells what the warehouses would."""

    def __init__(self, plan: RetailPlan, seed: int, now_ms: int) -> None:
        self._plan = plan
        self._draw = random.Random(f"{seed} events")
        self._made = SyncPlan(plan.orders)
        self._begin_ms = now_ms - LATEST_MS - HOURS * HOUR_MS
        self._sequences: dict[tuple[str, str], int] = {}
        self._shelf: dict[Key, int] = {}  # as a warehouse that never errs would have it
        self._off: dict[Key, int] = {}  # picked of it
        self._later: list[tuple[int, WarehouseEvent]] = []

    def tell(self) -> SyncPlan:
        """The whole year."""
        made = self._made
        wanted: dict[Key, int] = {}
        for order in self._plan.orders:
            for _, (sku, warehouse), units in order.lines:
                key = (warehouse, sku)
                wanted[key] = wanted.get(key, 0) + units
        for key, units in wanted.items():  # enough for every order: what is refused is tried elsewhere
            self._tell("opening", "", key, "RECEIPT", units, quantity=units, disposition=SELLABLE)
        yesterday: PlannedDay | None = None
        for day in self._plan.days:
            self._supply(day)
            self._ship(yesterday.orders if yesterday is not None else ())
            self._take_back(day)
            if day.day % COUNTED_EVERY_DAYS == 0:
                self._count()
            yesterday = day
        self._ship(yesterday.orders if yesterday is not None else ())
        for _, count in self._later:
            self._append(count)
        step_ms = HOURS * HOUR_MS / max(1, len(made.events))
        at = {event.event_id: place for place, event in enumerate(made.events)}
        made.events = [
            event._replace(occur_time_ms=self._begin_ms + int(self._moment(event, at) * step_ms))
            for event in made.events
        ]
        return made

    def _moment(self, event: WarehouseEvent, at: dict[str, int]) -> float:
        """A count that is told later was taken just before the event of its place + 1."""
        if event.fact == "STOCK_COUNT" and event.attributes:
            return at[event.attributes[0][1]] + 0.5
        return at[event.event_id]

    # --- facts --------------------------------------------------------------------------------------------------------

    def _supply(self, day: PlannedDay) -> None:
        for (sku, warehouse), units in day.receipts:
            key = (warehouse, sku)
            self._tell(f"wms-{warehouse}", "inbound", key, "RECEIPT", units, quantity=units, disposition=SELLABLE)
        for (sku, warehouse), delta, reason in day.adjustments:
            key = (warehouse, sku)
            self._tell(
                "erp", "books", key, "ADJUSTMENT", delta, delta=delta, disposition=SELLABLE, reason=reason, note=""
            )

    def _ship(self, orders: Iterable[int]) -> None:
        """Yesterday's orders leave; of every other one the picks are told, too."""
        for index in orders:
            order = self._plan.orders[index]
            promise: Promise = ("", order.channel, order.invoice, "")
            for line_id, (sku, warehouse), units in order.lines:
                key = (warehouse, sku)
                if index % 2:
                    self._off[key] = self._off.get(key, 0) + units
                    self._tell(
                        f"wms-{warehouse}", "floor", key, "PICK", 0, quantity=units, promise=(*promise[:3], line_id)
                    )
            for line_id, (sku, warehouse), units in order.lines:
                key = (warehouse, sku)
                if index % 2:
                    self._off[key] -= units
                details: dict[str, Any] = {
                    "quantity": units, "shipment_id": f"parcel {order.invoice}", "promise": (*promise[:3], line_id),
                    "close_remainder": False, "disposition": SELLABLE,
                }  # fmt: skip
                self._tell(f"wms-{warehouse}", "floor", key, "SHIPMENT", -units, document_line=line_id, **details)

    def _take_back(self, day: PlannedDay) -> None:
        for one in day.cancellations:
            sku, warehouse = one.key
            self._tell(
                "returns", "", (warehouse, sku), "CUSTOMER_RETURN", 0, quantity=one.units, disposition="QUALITY_HOLD",
                promise=(), return_id="",
            )  # fmt: skip

    def _count(self) -> None:
        """Some keys of every warehouse, by its own stream: now, or in a list that is typed in later."""
        keys = sorted(self._shelf)
        for key in self._draw.sample(keys, max(1, int(len(keys) * COUNTED_SHARE))):
            source, stream = f"wms-{key[0]}", "floor"
            place = self._sequences.get((source, stream), 0)
            if not place:
                continue
            with_picked = self._draw.random() < 0.5
            there = self._shelf[key]
            if self._draw.random() < LOST_SHARE:
                there += self._draw.choice((-2, -1, 1))
            off = self._off.get(key, 0)
            there = max(there, off)
            self._shelf[key] = there
            units = there if with_picked else there - off
            details = {
                "quantity": units, "disposition": SELLABLE, "as_of_source_sequence": 0, "take_as_now": False,
                "includes_picked": with_picked,
            }  # fmt: skip
            count = WarehouseEvent(source, stream, "", 0, 0, key, "STOCK_COUNT", details)
            if self._draw.random() < TOLD_LATER_SHARE:
                details["as_of_source_sequence"] = place
                taken_after = self._made.events[-1].event_id
                self._later.append((len(self._made.events) + 400, count._replace(attributes=(("after", taken_after),))))
            else:
                self._append(count)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _tell(
        self, source: str, stream: str, key: Key, fact: str, moved: int, *, document_line: str = "", **details: Any
    ) -> None:
        self._shelf[key] = self._shelf.get(key, 0) + moved
        self._append(WarehouseEvent(source, stream, "", 0, 0, key, fact, details, document_line))
        while self._later and self._later[0][0] <= len(self._made.events):
            self._append(self._later.pop(0)[1])

    def _append(self, event: WarehouseEvent) -> None:
        """Number it where its stream is numbered; the opening and the returns desk number nothing."""
        sequence = 0
        if event.stream_id:
            stream = (event.source_id, event.stream_id)
            sequence = self._sequences[stream] = self._sequences.get(stream, 0) + 1
        name = f"{event.source_id} {len(self._made.events)}"
        self._made.events.append(event._replace(event_id=name, source_sequence=sequence))
