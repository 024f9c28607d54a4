"""What drives the service: calls with latencies and outcomes counted, and every answer told to the oracle.

One ``Traffic`` serves many concurrent shoppers and warehouse streams of one asyncio loop.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.trading.oracle import Key, Oracle
from stockade import AsyncClient
from stockade.client import facts
from stockade.client.results import Failed, Granted, Ingested, LineWanted, Refused, Reservation, Stock

T = TypeVar("T")

EVENTS_PER_CALL = 500
CALL_TIMEOUT_S = 120.0  # retries included: a load must not fail because a process was killed under it


class TrafficError(Exception):
    """The service answered what it must not answer to this traffic."""


@dataclass(slots=True)
class Counts:
    """What happened, as the clients saw it."""

    orders: int = 0
    lines_asked: int = 0
    lines_refused: int = 0
    units_asked: int = 0
    units_granted: int = 0
    units_shipped: int = 0
    orders_refused: int = 0
    orders_confirmed: int = 0
    orders_cancelled: int = 0
    carts_replaced: int = 0
    orders_amended: int = 0
    expiries: int = 0
    events: int = 0
    shortages_opened: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    sold_out: set[Key] = field(default_factory=set)
    short: set[Key] = field(default_factory=set)


class Traffic:
    """A client, an oracle, counters and latencies."""

    def __init__(self, client: AsyncClient, source_id: str) -> None:
        self.client = client
        self.oracle = Oracle()
        self.counts = Counts()
        self.latencies_ms: dict[str, list[float]] = {}
        self._source_id = source_id
        self._events = itertools.count(1)
        self._run = f"{time.time_ns():x}"  # event ids of this run; another run of the same plan is another day

    async def timed(self, verb: str, call: Awaitable[T]) -> T:
        """Wait for a call and keep how long it took."""
        started = time.perf_counter()
        answer = await call
        self.latencies_ms.setdefault(verb, []).append((time.perf_counter() - started) * 1000)
        return answer

    # --- checkout --------------------------------------------------------------------------------------------------------------

    async def reserve(self, lines: Sequence[LineWanted], **options: Any) -> Reservation | Refused:
        """One order; granted lines are told to the oracle."""
        answer = await self.timed("reserve", self.client.reserve(lines, timeout_s=CALL_TIMEOUT_S, **options))
        if isinstance(answer, Refused):
            self.count_order(lines, None, answer)
        else:
            replaced = options.get("replaces_reservation_id", "")
            if replaced:
                self.oracle.ended(replaced)
            granted = {line.line_id: line.granted_quantity for line in answer.lines}
            self.count_order(lines, granted, None)
            self.book(answer.reservation_id, lines, granted, confirmed=answer.state == "CONFIRMED")
        return answer

    async def reserve_batch(self, orders: Sequence[tuple[Sequence[LineWanted], dict[str, Any]]]) -> list[str]:
        """Many orders in one call; their reservation ids, empty for refused ones."""
        messages = [self.client.reserve_message(lines, **options) for lines, options in orders]
        answers = await self.timed("reserve batch", self.client.batch_reserve(messages, timeout_s=CALL_TIMEOUT_S))
        ids = []
        for (lines, options), message, answer in zip(orders, messages, answers, strict=True):
            while isinstance(answer, Failed) and answer.retryable:
                (answer,) = await self.client.batch_reserve([message], timeout_s=CALL_TIMEOUT_S)
            if isinstance(answer, Failed):
                raise TrafficError(f"a reserve failed: {answer.reason or answer.code}: {answer.message}")
            if isinstance(answer, Granted):
                wanted = {line.line_id or str(at): line.quantity for at, line in enumerate(lines)}
                granted = (
                    wanted if answer.lines is None else {one.line_id: one.granted_quantity for one in answer.lines}
                )
                self.count_order(lines, granted, None)
                self.book(answer.reservation_id, lines, granted, confirmed=bool(options.get("confirm")))
                ids.append(answer.reservation_id)
            else:
                self.count_order(lines, None, answer)
                ids.append("")
        return ids

    def book(
        self, reservation_id: str, lines: Sequence[LineWanted], granted: dict[str, int], *, confirmed: bool
    ) -> None:
        """Tell the oracle what was granted."""
        self.oracle.reserved(
            reservation_id,
            [
                (line.line_id or str(at), (line.sku, line.warehouse_id), granted.get(line.line_id or str(at), 0))
                for at, line in enumerate(lines)
            ],
            confirmed=confirmed,
        )

    def count_order(self, lines: Sequence[LineWanted], granted: dict[str, int] | None, refusal: Refused | None) -> None:
        """Count an order's demand and what of it was refused."""
        counts = self.counts
        counts.orders += 1
        counts.lines_asked += len(lines)
        asked = sum(line.quantity for line in lines)
        counts.units_asked += asked
        if refusal is not None:
            counts.orders_refused += 1
            counts.lines_refused += len(lines)
            counts.refusals[refusal.reason] += 1
            for short in refusal.shortages:
                if short.available_quantity == 0:
                    counts.sold_out.add((short.stock_key.sku, short.stock_key.warehouse_id))
            return
        assert granted is not None
        for at, line in enumerate(lines):
            units = granted.get(line.line_id or str(at), 0)
            counts.units_granted += units
            if units < line.quantity:
                counts.lines_refused += 1
                if not units:
                    counts.sold_out.add((line.sku, line.warehouse_id))

    async def confirm(self, reservation_id: str, order_reference: str = "") -> bool:
        """True when it was confirmed; False when its deadline came first."""
        call = self.client.confirm(reservation_id, order_reference=order_reference, timeout_s=CALL_TIMEOUT_S)
        answer = await self.timed("confirm", call)
        if isinstance(answer, Refused):
            if answer.reason != "RESERVATION_EXPIRED":
                raise TrafficError(f"confirm of {reservation_id}: {answer.reason}")
            self.expired(reservation_id)
            return False
        self.oracle.confirmed(reservation_id)
        self.counts.orders_confirmed += 1
        return True

    def expired(self, reservation_id: str) -> None:
        """The service said that its deadline ended it."""
        self.oracle.ended(reservation_id)
        self.counts.expiries += 1

    async def release(self, reservation_id: str, reason: str, parts: dict[str, int] | None = None) -> bool:
        """Give units back; False when there was nothing open any more."""
        lines = tuple((parts or {}).items())
        call = self.client.release(reservation_id, reason=reason, lines=lines, timeout_s=CALL_TIMEOUT_S)
        answer = await self.timed("release", call)
        if isinstance(answer, Refused):
            if answer.reason == "RESERVATION_EXPIRED":
                self.expired(reservation_id)
                return False
            raise TrafficError(f"release of {reservation_id}: {answer.reason}")
        self.oracle.ended(reservation_id, parts)
        self.counts.orders_cancelled += 1
        return True

    async def amend(self, reservation_id: str, targets: Sequence[LineWanted]) -> bool:
        """Other quantities; False when refused."""
        answer = await self.timed("amend", self.client.amend(reservation_id, targets, timeout_s=CALL_TIMEOUT_S))
        if isinstance(answer, Refused):
            self.counts.refusals[answer.reason] += 1
            if answer.reason == "RESERVATION_EXPIRED":
                self.expired(reservation_id)
            return False
        self.oracle.now_is(answer)
        self.counts.orders_amended += 1
        return True

    async def is_expired(self, reservation_id: str) -> bool:
        """Ask whether a hold that was left alone has ended, and tell the oracle when it has."""
        found = await self.client.get_reservation(reservation_id, timeout_s=CALL_TIMEOUT_S)
        if found.state == "EXPIRED":
            self.expired(reservation_id)
            return True
        return False

    # --- warehouse -------------------------------------------------------------------------------------------------------------

    def told(self, key: Key, **place: Any) -> facts.Told:
        """The identity of a new event, now."""
        event_id = f"{self._run}-{next(self._events)}"
        return facts.Told(self._source_id, event_id, key, time.time_ns() // 1_000_000, **place)

    async def tell(self, events: Sequence[Any]) -> list[Ingested]:
        """Send events in order; every one must be applied."""
        results: list[Ingested] = []
        for start in range(0, len(events), EVENTS_PER_CALL):
            part = list(events[start : start + EVENTS_PER_CALL])
            while part:
                answers = await self.timed("events", self.client.ingest(part, timeout_s=CALL_TIMEOUT_S))
                failed = [event for event, answer in zip(part, answers, strict=True) if answer.outcome == "FAILED"]
                for event, answer in zip(part, answers, strict=True):
                    if answer.outcome in ("APPLIED", "DUPLICATE"):
                        results.append(answer)
                        if answer.shortage_quantity:
                            self.counts.short.add((event.stock_key.sku, event.stock_key.warehouse_id))
                    elif answer.outcome != "FAILED":
                        raise TrafficError(f"event {answer.event_id}: {answer.outcome} {answer.reason}")
                part = failed
        self.counts.events += len(events)
        return results

    async def receive(self, received: Iterable[tuple[Key, int]], reference: str = "") -> None:
        """Goods came in."""
        received = list(received)
        await self.tell([facts.receipt(self.told(key), units, inbound_reference=reference) for key, units in received])
        for key, units in received:
            self.oracle.moved(key, units)

    # --- judgement -------------------------------------------------------------------------------------------------------------

    async def all_stock(self) -> list[Stock]:
        """Every stock key of the service."""
        found: list[Stock] = []
        token = ""
        while True:
            page, token = await self.client.list_stock(page_size=1_000, page_token=token, timeout_s=CALL_TIMEOUT_S)
            found += page
            if not token:
                return found


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
