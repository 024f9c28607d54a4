"""The oracle of feeds against stories that a warehouse manager would tell, and against floors that it cannot see."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.simulation.feed_oracle import (
    SELLABLE,
    Expected,
    Key,
    Order,
    WarehouseEvent,
    expected,
    fulfilment,
    moved,
)
from tests.simulation.feed_stories import CONDITIONS, MINUTE_MS, Day, deliveries

MUGS: Key = ("main", "mug")
MUGS_EAST: Key = ("east", "mug")
HOUR_MS = 60 * MINUTE_MS
ORDER = ("order 7", "", "", "")


class Told:
    """Events of one source, numbered as they are told; ``at`` is the hour of the day."""

    def __init__(self, source: str = "wms", stream: str = "s1", first: int = 1, *, numbered: bool = True) -> None:
        self.source, self.stream, self.next, self.numbered = source, stream, first, numbered
        self.events: list[WarehouseEvent] = []

    def tell(self, at: float, fact: str, key: Key = MUGS, **details: Any) -> WarehouseEvent:
        sequence = self.next if self.numbered else 0
        event_id = f"{self.source} {self.stream} {self.next}"
        event = WarehouseEvent(
            self.source, self.stream, event_id, sequence, int(at * HOUR_MS), key, fact, {"disposition": SELLABLE, **details}
        )  # fmt: skip
        self.next += 1
        self.events.append(event)
        return event

    def receives(self, at: float, units: int, **more: Any) -> WarehouseEvent:
        return self.tell(at, "RECEIPT", quantity=units, inbound_reference="", inbound_line="", **more)

    def picks(self, at: float, units: int, promise: tuple[str, ...] = ORDER) -> WarehouseEvent:
        return self.tell(at, "PICK", quantity=units, promise=promise)

    def ships(self, at: float, units: int, promise: tuple[str, ...] = ORDER, *, last: bool = False) -> WarehouseEvent:
        return self.tell(
            at, "SHIPMENT", quantity=units, shipment_id=f"p{self.next}", promise=promise, close_remainder=last
        )

    def counts(self, at: float, units: int, *, n: int = 0, picked: bool = True, **more: Any) -> WarehouseEvent:
        return self.tell(
            at, "STOCK_COUNT", quantity=units, as_of_source_sequence=n, take_as_now=False, includes_picked=picked, **more
        )  # fmt: skip


def mugs(*events: WarehouseEvent, orders: tuple[Order, ...] = (), key: Key = MUGS) -> int:
    """Sellable mugs in the books."""
    return expected(events, orders).on_hand.get((key, SELLABLE), 0)


def test_a_nightly_count_does_not_put_sold_units_back_on_sale():
    """At 02:00 ten mugs lie there. Until the list is typed in at 05:00 three of them are shipped."""
    wms = Told()
    wms.receives(1, 10)
    wms.ships(3, 3, ())
    wms.counts(2, 10, n=1)

    assert mugs(*wms.events) == 7


def test_a_count_corrects_what_was_lost_and_nothing_else():
    """Two mugs are gone at 02:00: of twelve ten lie there. Three are shipped later: seven."""
    wms = Told()
    wms.receives(1, 12)
    wms.counts(2, 10)
    wms.ships(3, 3, ())

    assert mugs(*wms.events) == 7


def test_a_receipt_that_overtook_its_count_stays_on_top_of_it():
    """The receipt is the fifth event of the stream, and the count is as of the third."""
    wms = Told(first=1)
    three = [wms.receives(1, 1) for _ in range(3)]
    count = wms.counts(2, 3, n=3)
    receipt = wms.receives(2.5, 20)

    assert mugs(receipt, *three, count) == mugs(*three, count, receipt) == 23


def test_what_another_system_tells_counts_by_the_clock():
    """The robots number nothing: what they moved before the count is in it, what they moved afterwards is not."""
    wms, robots = Told(), Told("robots", "", numbered=False)
    wms.receives(1, 10)
    before = robots.ships(1.9, 4, ())
    wms.counts(2, 6)
    at_the_same_time = robots.ships(2, 1, ())
    after = robots.ships(2.1, 2, ())

    assert mugs(*wms.events, before, at_the_same_time, after) == 4


def test_what_order_management_ships_counts_by_the_clock():
    wms = Told()
    wms.receives(1, 10)
    wms.counts(2, 8)
    sold_before = fulfilment("order 7", MUGS, 2, "parcel 1", int(1.5 * HOUR_MS))
    sold_after = fulfilment("order 8", MUGS, 3, "parcel 2", int(2.5 * HOUR_MS))

    assert mugs(*wms.events, sold_before, sold_after) == 5


def test_a_count_that_leaves_picked_units_out_does_not_lose_them():
    """Four are picked and stand on the trolley; six are counted on the shelf: ten are in the house until the parcel leaves."""
    wms = Told()
    wms.receives(1, 10)
    wms.picks(2, 4)
    wms.counts(3, 6, picked=False)
    orders = (Order("order 7", MUGS, 4),)

    assert mugs(*wms.events, orders=orders) == 10
    wms.ships(4, 4)
    assert mugs(*wms.events, orders=orders) == 6


def test_a_pick_that_is_late_after_its_shipment_leaves_nothing_picked():
    wms = Told()
    wms.receives(1, 10)
    pick = wms.picks(2, 4)
    shipment = wms.ships(3, 4)
    orders = (Order("order 7", MUGS, 4),)

    found = expected([*wms.events[:1], shipment, pick], orders)

    assert (found.picked, found.picked_adrift) == ({}, {})
    assert found.fulfilled == {(MUGS, "order 7"): 4}


def test_a_pick_that_is_late_after_its_count_was_on_the_trolley_all_the_same():
    """The count as of 2 left picked units out, and the pick that is number 2 had overtaken nobody: it belongs to the count."""
    wms = Told()
    wms.receives(1, 10)
    wms.picks(2, 3)
    wms.counts(3, 7, picked=False)
    wms.ships(4, 3)

    assert mugs(*wms.events, orders=(Order("order 7", MUGS, 3),)) == 7


def test_a_shipment_that_nobody_picked_takes_nothing_from_the_trolleys_of_others():
    """Order 7 stands picked, order 8 is shipped without a pick; the count saw the shelf without the trolley."""
    wms = Told()
    wms.receives(1, 10)
    wms.picks(2, 3)
    wms.ships(2.5, 2, ("order 8", "", "", ""))
    wms.counts(3, 5, picked=False)
    orders = (Order("order 7", MUGS, 3), Order("order 8", MUGS, 2))

    found = expected(wms.events, orders)

    assert found.on_hand == {(MUGS, SELLABLE): 8}
    assert found.picked == {MUGS: 3}


def test_a_count_without_any_place_is_not_booked():
    wms, robots = Told(), Told("robots", "", numbered=False)
    wms.receives(1, 10)
    robots.counts(2, 3)

    assert mugs(*wms.events, *robots.events) == 10


def test_a_rejected_event_is_not_booked_and_leaves_no_hole():
    wms = Told()
    wms.receives(1, 10)
    shipment = wms.ships(2, 4, ())
    wms.counts(3, 9)

    found = expected(wms.events, rejected={(shipment.source_id, shipment.event_id)})

    assert found.on_hand == {(MUGS, SELLABLE): 9}
    assert found.watermarks == {("wms", "s1"): 3}


def test_the_newest_count_counts_though_an_older_one_comes_last():
    wms = Told()
    wms.receives(1, 10)
    older = wms.counts(2, 9)
    newer = wms.counts(3, 8)

    assert mugs(wms.events[0], newer, older) == 8


def test_a_count_of_damaged_mugs_says_nothing_about_the_others():
    wms = Told()
    wms.receives(1, 10)
    wms.tell(2, "DISPOSITION_CHANGE", quantity=3, from_disposition=SELLABLE, to_disposition="DAMAGED")
    wms.counts(3, 2, disposition="DAMAGED")

    assert expected(wms.events).on_hand == {(MUGS, SELLABLE): 7, (MUGS, "DAMAGED"): 2}


def test_a_count_waits_for_a_hole_before_its_place_and_only_there():
    wms = Told()
    wms.receives(1, 10)
    missing = wms.receives(1.5, 5)
    count = wms.counts(2, 14)
    other_key = wms.receives(3, 1, key=MUGS_EAST)
    without = [event for event in wms.events if event is not missing]

    found = expected(without)

    assert found.waiting == {(count.source_id, count.event_id)}
    assert found.watermarks == {("wms", "s1"): 1}
    assert found.on_hand == {(MUGS, SELLABLE): 10, (MUGS_EAST, SELLABLE): other_key.details["quantity"]}
    assert mugs(*wms.events) == 14


def test_a_shipment_that_closes_its_order_waits_for_the_parcels_before_it():
    wms = Told()
    wms.receives(1, 10)
    first = wms.ships(2, 2)
    wms.ships(3, 1, last=True)
    orders = (Order("order 7", MUGS, 5),)

    waiting = expected([event for event in wms.events if event is not first], orders)
    assert (waiting.fulfilled, waiting.released) == ({}, {})
    whole = expected(wms.events, orders)
    assert (whole.fulfilled, whole.released) == ({(MUGS, "order 7"): 3}, {(MUGS, "order 7"): 2})


def test_a_truck_that_arrives_before_it_left_is_not_on_the_way():
    wms = Told()
    wms.receives(1, 10)
    transfer: dict[str, Any] = {"transfer_id": "truck", "transfer_line": "1"}
    left = wms.tell(2, "TRANSFER_DISPATCH", quantity=6, to_warehouse_id="east", **transfer)
    arrived = wms.tell(3, "TRANSFER_RECEIPT", MUGS_EAST, quantity=4, from_warehouse_id="main", final=False, **transfer)

    assert expected([wms.events[0], arrived]).in_transit == {}
    assert expected([wms.events[0], arrived, left]).in_transit == {(MUGS_EAST, "truck", "1"): 2}
    wms.tell(4, "TRANSFER_RECEIPT", MUGS_EAST, quantity=1, from_warehouse_id="main", final=True, **transfer)
    found = expected(wms.events)
    assert found.in_transit == {}, "one fell off"
    assert found.on_hand == {(MUGS, SELLABLE): 4, (MUGS_EAST, SELLABLE): 5}


def test_units_that_the_sale_gate_holds_back_are_not_sellable():
    wms = Told()
    wms.receives(1, 10)

    held = expected(wms.events, lands=lambda event, disposition: "QUALITY_HOLD")

    assert held.on_hand == {(MUGS, "QUALITY_HOLD"): 10}


def test_an_event_told_three_times_is_one_event():
    wms = Told()
    wms.receives(1, 10)
    wms.ships(2, 3, ())

    assert mugs(*wms.events, *wms.events, *wms.events) == 7


# --- floors -------------------------------------------------------------------------------------------------------------


def a_day(seed: int, steps: int = 150) -> tuple[Day, list[Order]]:
    draw = random.Random(seed)
    keys: list[Key] = [(warehouse, sku) for warehouse in ("main", "east") for sku in "ABC"]
    orders = [Order(f"r{number}", draw.choice(keys), draw.randint(1, 8), "web", f"o{number}") for number in range(12)]
    day = Day(seed, orders)
    day.work(steps)
    return day, orders


@pytest.mark.parametrize("day_number", range(40))
def test_after_a_stocktaking_the_books_are_the_floor(seed, day_number):
    """Losses that nobody told of are found by it; what moves afterwards moves in both."""
    day, orders = a_day(seed + day_number)
    day.count_everything()
    day._actions = tuple(one for one in day._actions if one[1] != day.lose)
    day.work(60)

    books = expected(day.events, orders)

    floor = {place: units for place, units in day.floor.items() if units}
    assert books.on_hand == floor
    assert books.picked == {key: day._picked(key) for key in day.keys if day._picked(key)}
    assert books.waiting == set()


@pytest.mark.parametrize("day_number", range(20))
def test_the_books_do_not_know_in_which_order_or_how_often_they_were_told(seed, day_number):
    day, orders = a_day(seed + day_number)
    arrivals = [event for _, event in deliveries(day.events, random.Random(seed))]

    assert len(arrivals) == 3 * len(day.events)
    assert expected(arrivals, orders) == expected(day.events, orders)


def test_a_day_has_everything_in_it(seed):
    """Late, numbered and not, counts of every sort: what is never drawn is never tried."""
    events = [event for number in range(30) for event in a_day(seed + number)[0].events]
    counts = [event for event in events if event.fact == "STOCK_COUNT"]

    assert {event.fact for event in events} >= {
        "RECEIPT", "PICK", "UNPICK", "SHIPMENT", "ADJUSTMENT", "STOCK_COUNT", "DISPOSITION_CHANGE", "TRANSFER_DISPATCH",
        "TRANSFER_RECEIPT", "CUSTOMER_RETURN",
    }  # fmt: skip
    assert {bool(count.details["as_of_source_sequence"]) for count in counts} == {True, False}
    assert {promise[0] != "" for event in events if (promise := event.details.get("promise"))} == {True, False}
    assert any(event.fact == "SHIPMENT" and event.details["close_remainder"] for event in events)
    assert any(event.source_id == "" for event in events), "order management"
    assert {disposition for event in events for disposition, _ in moved(event)} == set(CONDITIONS)


def test_an_arrival_may_be_minutes_late_and_out_of_order(seed):
    day, _ = a_day(seed)
    arrivals = deliveries(day.events, random.Random(seed))
    times = [event.occur_time_ms for _, event in arrivals]

    assert times != sorted(times)
    assert max(at_ms - event.occur_time_ms for at_ms, event in arrivals) > MINUTE_MS
    assert isinstance(expected(()), Expected)
