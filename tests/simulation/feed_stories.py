"""Days in a warehouse, drawn from a seed: what really happened on the floor, and the events that its systems tell of it.

A day keeps the floor itself (what lies there, in which condition, what is picked and for whom), so that an honest count is what
the floor shows. ``deliveries`` sends the events as networks do: several times, in another order, some of them minutes late.
Nothing of the service is imported; who sends the events spells them as it needs.

    day = Day(seed, orders)
    day.work(200)
    day.count_everything()
    for at_ms, event in deliveries(day.events, draw): ...
    expected(day.events, orders)       # = what day.floor holds
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.simulation.feed_oracle import SELLABLE, Key, Order, Promise, WarehouseEvent, fulfilment

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
CONDITIONS = (SELLABLE, "DAMAGED")

# Who tells: (source, stream, whether its events are numbered). The robots number nothing.
TELLERS = (("wms", "floor", True), ("wms", "yard", True), ("robots", "", False), ("erp", "main", True))


class Day:
    """A floor and its events. ``floor``: (key, condition) → units that lie there, picked ones with them."""

    def __init__(
        self,
        seed: int,
        orders: Sequence[Order] = (),
        *,
        warehouses: Sequence[str] = ("main", "east"),
        skus: Sequence[str] = ("A", "B", "C"),
        order_management_ships: Iterable[str] = ("east",),
        begin_ms: int = 1_000_000_000,
        name: str = "",
        pace_ms: int = SECOND_MS,
        losses: bool = True,
    ) -> None:
        self.draw = random.Random(seed)
        self.orders = list(orders)
        self.keys: list[Key] = [(warehouse, sku) for warehouse in warehouses for sku in skus]
        self.order_management_ships = frozenset(order_management_ships)
        self.now_ms = begin_ms
        self.floor: dict[tuple[Key, str], int] = {}
        self.picked: dict[tuple[Key, str], int] = {}  # (key, reservation id or "") → units off the shelf
        # Of some orders nobody tells of picking; never of a part of one, since a total of picks cannot say which parcel it missed.
        self.never_picked = {order.reservation_id for order in orders if self.draw.random() < 0.25}
        self.left = {(order.key, order.reservation_id): order.quantity for order in orders}
        self.trucks: list[tuple[str, str, Key, Key, int]] = []  # (transfer, line, from, to, units on the way)
        self.events: list[WarehouseEvent] = []
        self._name = name or f"day {seed}"
        self._pace_ms = pace_ms
        self._sequences: dict[tuple[str, str], int] = {}
        self._numbers = 0
        self._unsent: list[tuple[int, Any]] = []  # counts that were taken and are told later
        self._actions: tuple[tuple[int, Callable[[], None]], ...] = (
            (6, self.receive), (5, self.pick), (1, self.put_back), (6, self.ship), (2, self.adjust), (2, self.count),
            (2, self.count_and_tell_later), (2, self.inspect), (2, self.dispatch), (3, self.unload), (1, self.take_back),
            (1 if losses else 0, self.lose),
        )  # fmt: skip

    def work(self, steps: int) -> list[WarehouseEvent]:
        """That many things happen."""
        weights, actions = zip(*self._actions, strict=True)
        for _ in range(steps):
            self.now_ms += self.draw.randint(1, 90) * self._pace_ms
            self.draw.choices(actions, weights)[0]()
            for due, tell in [one for one in self._unsent if one[0] <= len(self.events)]:
                self._unsent.remove((due, tell))
                tell()
        return self.events

    def count_everything(self) -> None:
        """A stocktaking: every key, every condition."""
        for _, tell in self._unsent:
            tell()
        self._unsent.clear()
        for key in self.keys:
            for condition in CONDITIONS:
                self.now_ms += self._pace_ms
                self._count(key, condition)()

    # --- what happens -------------------------------------------------------------------------------------------------

    def receive(self) -> None:
        key, condition = self._key(), self.draw.choice((SELLABLE, SELLABLE, SELLABLE, "DAMAGED"))
        units = self.draw.randint(1, 12)
        self._lay(key, condition, units)
        self._tell(
            key, "RECEIPT", quantity=units, disposition=condition, inbound_reference="delivery", inbound_line="1"
        )

    def pick(self) -> None:
        key, order, most = self._open_order()
        units = self.draw.randint(1, max(1, min(most, 3)))
        if order in self.never_picked or self._free(key, SELLABLE) < units:
            return
        self._pick(key, order, units)
        self._tell(key, "PICK", quantity=units, promise=self._promise(order))

    def put_back(self) -> None:
        if self.picked:
            key, order = self.draw.choice(sorted(self.picked))
            units = self.draw.randint(1, self.picked[(key, order)])
            self._pick(key, order, -units)
            self._tell(key, "UNPICK", quantity=units, promise=self._promise(order))

    def ship(self) -> None:
        """What was picked leaves; or units of which nobody tells that they were picked; the last parcel may close its order."""
        if self.picked and self.draw.random() < 0.8:
            key, order = self.draw.choice(sorted(self.picked))
            units = self.draw.randint(1, self.picked[(key, order)])
            self._pick(key, order, -units)
        else:
            key, order, most = self._open_order()
            units = self.draw.randint(1, max(1, min(most, 3)))
            if order not in self.never_picked or min(most, self._free(key, SELLABLE)) < units:
                return
        self._lay(key, SELLABLE, -units)
        shipment_id = self._fresh("parcel")
        closes = False
        if order:
            self.left[(key, order)] = max(0, self.left[(key, order)] - units)
            closes = self.draw.random() < 0.2 and not self.picked.get((key, order))
        if order and key[0] in self.order_management_ships:
            self.events.append(fulfilment(order, key, units, shipment_id, self.now_ms))
            return
        if closes:
            self.left[(key, order)] = 0
        self._tell(
            key, "SHIPMENT", quantity=units, shipment_id=shipment_id, promise=self._promise(order), close_remainder=closes,
            disposition=SELLABLE,
        )  # fmt: skip

    def adjust(self) -> None:
        key, condition = self._key(), self.draw.choice(CONDITIONS)
        delta = self.draw.choice((-2, -1, 1, 2, 5))
        if delta < 0 and self._free(key, condition) < -delta:
            return
        self._lay(key, condition, delta)
        self._tell(key, "ADJUSTMENT", delta=delta, disposition=condition, reason="found", note="")

    def lose(self) -> None:
        """Nobody tells of it."""
        key, condition = self._key(), self.draw.choice(CONDITIONS)
        if self._free(key, condition):
            self._lay(key, condition, -1)

    def inspect(self) -> None:
        key = self._key()
        one, other = self.draw.sample(CONDITIONS, 2)
        if self._free(key, one):
            units = self.draw.randint(1, min(3, self._free(key, one)))
            self._lay(key, one, -units)
            self._lay(key, other, units)
            self._tell(key, "DISPOSITION_CHANGE", quantity=units, from_disposition=one, to_disposition=other)

    def dispatch(self) -> None:
        origin = self._key()
        destination = self.draw.choice([key for key in self.keys if key[1] == origin[1]])
        units = self.draw.randint(1, 6)
        if destination != origin and self._free(origin, SELLABLE) >= units:
            self._lay(origin, SELLABLE, -units)
            transfer = self._fresh("truck")
            self.trucks.append((transfer, "1", origin, destination, units))
            self._tell(
                origin, "TRANSFER_DISPATCH", quantity=units, transfer_id=transfer, transfer_line="1",
                to_warehouse_id=destination[0], disposition=SELLABLE,
            )  # fmt: skip

    def unload(self) -> None:
        """A part of a truck, or the last of it; a unit may have fallen off."""
        if not self.trucks:
            return
        transfer, line, origin, destination, on_board = self.trucks.pop(self.draw.randrange(len(self.trucks)))
        units = self.draw.randint(1, on_board)
        last = units == on_board or self.draw.random() < 0.2
        if not last:
            self.trucks.append((transfer, line, origin, destination, on_board - units))
        self._lay(destination, SELLABLE, units)
        self._tell(
            destination, "TRANSFER_RECEIPT", quantity=units, transfer_id=transfer, transfer_line=line,
            from_warehouse_id=origin[0], final=last, disposition=SELLABLE,
        )  # fmt: skip

    def take_back(self) -> None:
        key, condition = self._key(), self.draw.choice(CONDITIONS)
        self._lay(key, condition, 1)
        self._tell(key, "CUSTOMER_RETURN", quantity=1, disposition=condition, promise=(), return_id=self._fresh("r"))

    def count(self) -> None:
        self._count(self._key(), self.draw.choice(CONDITIONS))()

    def count_and_tell_later(self) -> None:
        """The list is typed in when many other things have happened."""
        later = len(self.events) + self.draw.randint(1, 12)
        self._unsent.append((later, self._count(self._key(), self.draw.choice(CONDITIONS))))

    def _count(self, key: Key, condition: str) -> Any:
        source, stream, numbered = self.draw.choice([teller for teller in TELLERS if teller[2]])
        with_picked = self.draw.random() < 0.5
        units = self.floor.get((key, condition), 0)
        if condition == SELLABLE and not with_picked:
            units -= self._picked(key)
        place = self._sequences.get((source, stream), 0) if numbered else 0
        counted_ms, events_then = self.now_ms, len(self.events)

        def tell() -> None:
            at_once = len(self.events) == events_then
            self._tell(
                key, "STOCK_COUNT", teller=(source, stream, numbered), occur_time_ms=counted_ms, quantity=units,
                disposition=condition, as_of_source_sequence=0 if at_once else place, take_as_now=False,
                includes_picked=with_picked,
            )  # fmt: skip

        # As of nothing cannot be said: before its stream's first event a count can only be told at once.
        if numbered and not place:
            tell()
            return lambda: None
        return tell

    # --- parts --------------------------------------------------------------------------------------------------------

    def _key(self) -> Key:
        return self.draw.choice(self.keys)

    def _teller(self) -> tuple[str, str, bool]:
        return self.draw.choice(TELLERS)

    def _fresh(self, what: str) -> str:
        self._numbers += 1
        return f"{self._name} {what} {self._numbers}"

    def _open_order(self) -> tuple[Key, str, int]:
        """A stock key, an order with open units there (or ""), and how many of them are not picked yet."""
        wanted = [(key, order, units - self.picked.get((key, order), 0)) for (key, order), units in self.left.items()]
        wanted = [one for one in wanted if one[2] > 0]
        if not wanted or self.draw.random() < 0.1:
            return self._key(), "", 3
        return self.draw.choice(wanted)

    def _promise(self, order: str) -> Promise:
        """Named by its reservation, or as its channel's order."""
        if not order:
            return ()
        named = next(one for one in self.orders if one.reservation_id == order)
        if named.order_reference and self.draw.random() < 0.3:
            return ("", named.channel_id, named.order_reference, "")
        return (order, "", "", "")

    def _lay(self, key: Key, condition: str, units: int) -> None:
        self.floor[(key, condition)] = self.floor.get((key, condition), 0) + units

    def _pick(self, key: Key, order: str, units: int) -> None:
        self.picked[(key, order)] = self.picked.get((key, order), 0) + units
        if not self.picked[(key, order)]:
            del self.picked[(key, order)]

    def _picked(self, key: Key) -> int:
        return sum(units for (one, _), units in self.picked.items() if one == key)

    def _free(self, key: Key, condition: str) -> int:
        """Units that lie there and are not picked."""
        return self.floor.get((key, condition), 0) - (self._picked(key) if condition == SELLABLE else 0)

    def _tell(
        self,
        key: Key,
        fact: str,
        *,
        teller: tuple[str, str, bool] | None = None,
        occur_time_ms: int = 0,
        **details: Any,
    ) -> None:
        source, stream, numbered = teller or self._teller()
        sequence = 0
        if numbered:
            sequence = self._sequences[(source, stream)] = self._sequences.get((source, stream), 0) + 1
        occur_ms = occur_time_ms or self.now_ms
        event_id = self._fresh("event")
        self.events.append(WarehouseEvent(source, stream, event_id, sequence, occur_ms, key, fact, details))


def deliveries(
    events: Iterable[WarehouseEvent],
    draw: random.Random,
    *,
    times: int = 3,
    spread_ms: int = 30 * SECOND_MS,
    late_share: float = 0.05,
    late_ms_min: int = MINUTE_MS,
    late_ms_max: int = 8 * MINUTE_MS,
) -> list[tuple[int, WarehouseEvent]]:
    """(when it arrives, event), in this order: each so many times, some of all of these minutes late."""
    arrivals = []
    for number, event in enumerate(events):
        late = draw.random() < late_share
        for _ in range(times):
            delay_ms = draw.randint(0, spread_ms)
            if late:
                delay_ms += draw.randint(late_ms_min, late_ms_max)
            arrivals.append((event.occur_time_ms + delay_ms, draw.random(), number, event))
    return [(at_ms, event) for at_ms, _, _, event in sorted(arrivals, key=lambda one: one[:3])]
