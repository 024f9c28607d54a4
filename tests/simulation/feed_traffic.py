"""Warehouse systems in the simulation: a day's events, each sent up to three times, in another order, some of them late.

They have stock keys of their own, so that at the end what stands in the books can be compared with the oracle, which knows no
order. How events are delivered while everything fails is ``traffic``'s; what the floor does ``feed_stories``'s.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from actors.domain.answers import ERROR, OK
from actors.domain.commands import Verb
from actors.domain.keys import parse_reservation_id, stock_key
from actors.domain.outcomes import Admission, Disposition, Fact, FillPolicy
from actors.shard.placement import feed_shard_of, shard_of
from tests.simulation.feed_oracle import ORDER_MANAGEMENT, Expected, Key, Order, WarehouseEvent, expected
from tests.simulation.feed_stories import Day, deliveries
from tests.simulation.history import FACT_DETAILS
from tests.simulation.history_frames import DISPOSITION_FIELDS, stock_answer
from tests.simulation.journal_facts import OUTCOMES
from tests.simulation.orders import Item, digest_of
from tests.simulation.plan import ORDERED_FLOOR, TOLD_FLOOR
from tests.simulation.traffic import FLOOR, Outside, settled

PACE_MS = 8
SPREAD_MS = 1_500
LATE_MS_MAX = 12_000
ORDERS = 6
SKUS = ("A", "B")
APPLIED_OR_AGAIN = ("APPLIED", "DUPLICATE", "DEFERRED")


class WarehouseSystems:
    """One day on the floor, told over gateways that come and go."""

    def __init__(self, outside: Outside, seed: int, steps: int) -> None:
        self._outside = outside
        self._cluster = outside.cluster
        self._shards = outside.cluster.plan.shards
        self._draw = random.Random(f"{seed}/warehouse systems")
        self._steps = steps
        self._sent: dict[str, Item] = {}
        self._answered: set[str] = set()
        self.orders: list[Order] = []
        self.day: Day

    # --- before anything fails ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Orders that were promised elsewhere stand before the first event."""
        keys: list[Key] = [(warehouse, sku) for warehouse in (TOLD_FLOOR, ORDERED_FLOOR) for sku in SKUS]
        for key in keys:
            name = stock_key(*key)
            body: list[Any] = [f"floor {key}", digest_of(name), name, -1, 0, -1, ""]
            await self._settle([int(Verb.REGISTER_STOCK), shard_of(name, self._shards), 0, 1, [], body])
        for number in range(ORDERS):
            key = self._draw.choice(keys)
            units = self._draw.randint(1, 8)
            reference = self._draw.choice(("", f"floor order {number}"))
            name = stock_key(*key)
            line = ["0", name, units, 0]
            body = [
                f"floor order {number}", digest_of(line, reference), "web", [line], 60_000, True,
                int(FillPolicy.ALL_OR_NOTHING), int(Admission.ALWAYS), reference, "", "", [],
            ]  # fmt: skip
            reply = await self._settle([int(Verb.RESERVE), shard_of(name, self._shards), 0, 1, [], body])
            if reply is not None and reply[0] == OK:
                self.orders.append(Order(reply[2][0], key, units, "web", reference))
        self.day = Day(
            self._draw.getrandbits(32), self.orders, warehouses=(TOLD_FLOOR, ORDERED_FLOOR), skus=SKUS,
            order_management_ships=(ORDERED_FLOOR,), begin_ms=self._cluster.wall_ms(), name="floor", pace_ms=PACE_MS,
        )  # fmt: skip
        self.day.work(self._steps)

    # --- while everything fails -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send everything; what is not answered at last is settled with the rest."""
        begin_ms = self._cluster.wall_ms()
        started_s = self._cluster.loop.time()
        arrivals = deliveries(
            self.day.events, self._draw, times=3, spread_ms=SPREAD_MS, late_share=0.05, late_ms_max=LATE_MS_MAX,
            late_ms_min=LATE_MS_MAX // 8,
        )  # fmt: skip
        batch: list[WarehouseEvent] = []
        for at_ms, event in arrivals:
            due_s = started_s + (at_ms - begin_ms) / 1000
            if due_s > self._cluster.loop.time():
                await self._send(batch)
                batch = []
                await self._cluster.loop.pass_time(due_s - self._cluster.loop.time())
            batch.append(event)
        await self._send(batch)
        unanswered = [item for name, item in self._sent.items() if name not in self._answered]
        self._outside.unsettled += [(FLOOR, item) for item in unanswered]

    async def _send(self, events: Sequence[WarehouseEvent]) -> None:
        items = [self.item(event) for event in events]
        if not items:
            return
        timeout_ms = self._draw.choice(self._cluster.plan.work.timeout_ms)
        replies = await self._outside.send(FLOOR, items, timeout_ms, self._draw)
        for event, item, reply in zip(events, items, replies, strict=True):
            self._sent[event.event_id] = item
            if settled(reply):
                self._answered.add(event.event_id)

    async def _settle(self, item: Item) -> Sequence[Any] | None:
        return await self._outside.settle(FLOOR, item, self._draw)

    # --- when it is over ------------------------------------------------------------------------------------------------

    async def compare(self) -> list[str]:
        """What stands in the books against what the oracle makes of the set of events."""
        rejected = set()
        for event in self.day.events:
            reply = await self._settle(self.item(event))
            if reply is None or (reply[0] == ERROR and event.source_id != ORDER_MANAGEMENT):
                return [f"an event is not answered: {event}: {reply}"]
            if event.source_id == ORDER_MANAGEMENT:
                if reply[0] != OK:
                    rejected.add((event.source_id, event.event_id))
            elif OUTCOMES[reply[2][1]] not in APPLIED_OR_AGAIN:
                rejected.add((event.source_id, event.event_id))
        should_be = expected(self.day.events, self.orders, rejected=rejected)
        problems = []
        for key in self.day.keys:
            name = stock_key(*key)
            reply = await self._settle([int(Verb.GET_STOCK), shard_of(name, self._shards), 0, 1, [], [name]])
            if reply is None or reply[0] != OK:
                problems.append(f"no answer about {key}: {reply}")
                continue
            problems += different(key, should_be, stock_answer(reply[2]))
        return problems

    def item(self, event: WarehouseEvent) -> Item:
        """An event as a frame's item, the same each time."""
        if event.source_id == ORDER_MANAGEMENT:
            return self._fulfill(event)
        details = [_number(name, event.details[name]) for name in FACT_DETAILS[event.fact]]
        name = stock_key(*event.key)
        body = [
            event.source_id, event.stream_id, event.event_id, event.source_sequence, event.occur_time_ms, name,
            digest_of(event), int(Fact[event.fact]), details, "", event.document_line, event.lot_id, 0, [], 0,
        ]  # fmt: skip
        return [int(Verb.INGEST), feed_shard_of(event.source_id, self._shards), 0, 1, [], body]

    def _fulfill(self, event: WarehouseEvent) -> Item:
        reservation_id = event.details["promise"][0]
        parts = parse_reservation_id(reservation_id)
        assert parts is not None
        lines = [["0", event.details["quantity"], ""]]
        shipment_id = event.details["shipment_id"]
        body = [
            event.event_id, digest_of(event), reservation_id, shipment_id, lines, False, event.occur_time_ms,
        ]  # fmt: skip
        return [int(Verb.FULFILL), parts.shard, 0, 1, [], body]


def _number(name: str, value: Any) -> Any:
    if name in DISPOSITION_FIELDS:
        return int(Disposition[value])
    return list(value) if name == "promise" else value


def different(key: Key, should_be: Expected, stock: dict[str, Any]) -> list[str]:
    """Where a stock key's answer is not what the oracle says."""
    on_hand = {disposition: units for (one, disposition), units in should_be.on_hand.items() if one == key}
    wanted = {
        "on_hand": on_hand,
        "picked": should_be.picked.get(key, 0),
        "picked_adrift": should_be.picked_adrift.get(key, 0),
        "in_transit": sum(units for (to, _, _), units in should_be.in_transit.items() if to == key),
    }
    return [
        f"the oracle says {name} of {key} is {value}; it is {stock[name]}"
        for name, value in wanted.items()
        if stock[name] != value
    ]
