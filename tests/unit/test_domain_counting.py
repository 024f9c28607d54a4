"""Counts of the past: the final stock is a function of the set of events, whatever the order in which they come.

The oracle below says so in a few lines and knows nothing of how it is kept.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.domain import counting
from actors.domain.outcomes import Disposition, Door, Fact
from actors.domain.rules import Rules
from actors.shard import snapshot
from tests.unit.world import START_MS, World

SELLABLE, HOLD = int(Disposition.SELLABLE), int(Disposition.QUALITY_HOLD)


@dataclasses.dataclass(frozen=True)
class Event:
    """``units``: of a fact, signed; of a count, counted. ``promise``: an order, of picks and shipments."""

    source: str
    sequence: int
    age_s: int
    what: str  # move, pick, unpick, ship, count
    units: int
    disposition: int = SELLABLE
    promise: str = ""
    includes_picked: bool = False

    @property
    def id(self) -> str:
        return f"{self.source}-{self.sequence}"

    def tell(self, world: World) -> str:
        promise = world.promise(("web", self.promise)) if self.promise else []
        fact, details = {
            "move": (Fact.ADJUSTMENT, (self.units, self.disposition, "", "")),
            "pick": (Fact.PICK, (self.units, promise)),
            "unpick": (Fact.UNPICK, (self.units, promise)),
            "ship": (Fact.SHIPMENT, (self.units, self.id, promise, False, self.disposition)),
            "count": (Fact.STOCK_COUNT, (self.units, self.disposition, 0, False, self.includes_picked)),
        }[self.what]
        age_ms = world.now_ms - START_MS + self.age_s * 1_000
        told = world.tell(fact, "A", *details, source=self.source, sequence=self.sequence, event=self.id, age_ms=age_ms)
        return told.outcome


def expected(events):
    """On hand by disposition, and picked units."""
    on_hand = {}
    for disposition in (SELLABLE, HOLD):
        counts = [one for one in events if one.what == "count" and one.disposition == disposition]
        newest = [
            max((one for one in counts if one.source == source), key=place) for source in {c.source for c in counts}
        ]
        count = max(newest, key=lambda one: (-one.age_s, one.source)) if newest else None
        facts = [one for one in events if one.disposition == disposition or one.what in ("pick", "unpick")]
        units = sum(moved(one) for one in facts if count is None or after(one, count))
        if count is not None:
            units += count.units
            if disposition == SELLABLE and not count.includes_picked:
                units += picked([one for one in events if one.what != "count" and not after(one, count)])
        on_hand[disposition] = units
    return on_hand[SELLABLE], on_hand[HOLD], picked(events)


def place(count):
    return count.sequence


def after(fact, count):
    return fact.sequence > count.sequence if fact.source == count.source else -fact.age_s > -count.age_s


def moved(event):
    return {"move": event.units, "ship": -event.units}.get(event.what, 0)


def picked(events):
    nets = {}
    for one in events:
        sign = {"pick": 1, "unpick": -1, "ship": -1}.get(one.what, 0)
        nets[one.promise] = nets.get(one.promise, 0) + sign * one.units
    return sum(max(0, net) for net in nets.values())


@st.composite
def sets_of_events(draw):
    """Sequenced streams of a few sources: in each, time never goes back."""
    events = []
    for source in ("s1", "s2", "s3")[: draw(st.integers(1, 3))]:
        ages = sorted(draw(st.lists(st.integers(0, 50), max_size=8)), reverse=True)
        for sequence, age_s in enumerate(ages, 1):
            what = draw(st.sampled_from(("move", "move", "pick", "unpick", "ship", "count")))
            least = -9 if what == "move" else 0 if what == "count" else 1
            units = draw(st.integers(least, 9)) or int(what != "count")
            disposition = (
                draw(st.sampled_from((SELLABLE, SELLABLE, HOLD))) if what in ("move", "count", "ship") else SELLABLE
            )
            promise = draw(st.sampled_from(("", "O1", "O2"))) if what in ("pick", "unpick", "ship") else ""
            events.append(Event(source, sequence, age_s, what, units, disposition, promise, draw(st.booleans())))
    return events


def final(world):
    stock = world.stock("A")
    return world.on_hand("A"), world.on_hand("A", Disposition.QUALITY_HOLD), stock.picked_quantity


@settings(max_examples=150, deadline=None)
@given(sets_of_events(), st.booleans(), st.integers(0, 2**32))
def test_the_final_stock_is_that_of_the_set_of_events(events, claimed, seed):
    draw = random.Random(seed)
    world = World()
    world.tell(Fact.ADJUSTMENT, "A", 1, HOLD, "", "", source="start")  # a fact of a time after all the others
    if claimed:
        for order, units in (("O1", 4), ("O2", 2)):
            claim = world.reserve(("A", units), always=True, order=order, confirm=True)
            assert claim.ok
    told = events * draw.randint(1, 3)
    draw.shuffle(told)
    for number, event in enumerate(told):
        world.now_ms += draw.choice((0, 0, 1_000))
        event.tell(world)
        if draw.random() < 0.02 and number:
            world.snapshot()
            world.restart()
    start = Event("start", 0, 0, "move", 1, HOLD)
    sellable, hold, shown = expected([*events, start])
    assert final(world) == (sellable, hold, shown)
    world.check_replay()


class TestACountOfThePast:
    def test_leaves_what_happened_since_alone(self):
        world = World()
        Event("wms", 1, 50, "move", 10).tell(world)
        Event("wms", 2, 30, "ship", 3).tell(world)
        world.tell(
            Fact.STOCK_COUNT, "A", 9, SELLABLE, 1, False, True, sequence=3
        )  # one was missing before the shipment
        assert world.on_hand("A") == 6
        world.check_replay()

    def test_leaves_claims_alone_and_a_shortage_shows(self):
        world = World()
        world.receive("A", 10, sequence=1)
        world.reserve(("A", 8), confirm=True)
        world.tell(Fact.STOCK_COUNT, "A", 5, SELLABLE, 0, False, True, sequence=2)
        stock = world.stock("A")
        assert (stock.confirmed_quantity, stock.shortage_quantity, world.ats("A")) == (8, 3, 0)

    def test_knows_what_order_management_shipped_since(self):
        world = World(Rules(doors={"main": Door.ORDER_MANAGEMENT}))
        world.receive("A", 10, sequence=1, age_ms=10_000)
        order = world.reserve(("A", 4), confirm=True)
        world.fulfill(order, "s1")
        world.tell(Fact.STOCK_COUNT, "A", 10, SELLABLE, 1, False, True, sequence=2, age_ms=5_000)
        assert world.on_hand("A") == 6
        world.check_replay()

    def test_before_the_horizon_is_rejected(self):
        world = World(Rules(history_ms=60_000))
        world.receive("A", 10, sequence=1, age_ms=100_000)
        told = world.tell(Fact.STOCK_COUNT, "A", 9, SELLABLE, 0, False, True, sequence=2, age_ms=61_000)
        assert (told.outcome, told.reason) == ("REJECTED", "BEFORE_HISTORY")

    def test_what_it_left_out_because_it_was_picked_is_still_there(self):
        world = World()
        world.receive("A", 10, sequence=1)
        order = world.reserve(("A", 3), confirm=True)
        world.pick("A", 3, order)
        world.tell(Fact.STOCK_COUNT, "A", 7, SELLABLE, 0, False, False, sequence=2)
        assert world.on_hand("A") == 10

    def test_as_now_is_as_it_always_was(self):
        world = World()
        world.receive("A", 10)
        world.count("A", 4)
        world.receive("A", 1, age_ms=50_000)
        assert world.on_hand("A") == 5


class TestHistory:
    def test_is_forgotten_behind_the_horizon_and_late_facts_still_find_the_count(self):
        world = World(Rules(history_ms=20_000))
        for sequence in range(1, 41):
            world.receive("A", 1, sequence=sequence)
            world.now_ms += 2_000
        history = world.engine.books.stock["\x1fmain\x1fA"].history
        assert history is not None
        assert len(history) < 40
        world.tell(Fact.STOCK_COUNT, "A", 100, SELLABLE, 0, False, True, sequence=42)
        world.receive("A", 1, sequence=41)
        assert world.on_hand("A") == 100
        world.snapshot()
        world.restart()

    def test_does_not_make_a_slice_of_a_snapshot_long(self, monkeypatch):
        monkeypatch.setattr(snapshot, "BYTES_PER_SLICE_MAX", 100)
        world = World()
        skus = [f"S{number}" for number in range(30)]
        for sku in skus:
            for sequence in range(1, 4):
                world.receive(sku, 1, stream=sku, sequence=sequence)
        world.snapshot()
        assert len(world.store.slices) > len(skus)
        world.restart()

    def test_is_bounded_however_much_happens(self, monkeypatch):
        monkeypatch.setattr(counting, "FACTS_MAX", 50)
        world = World()
        for sequence in range(1, 201):
            world.receive("A", 1, sequence=sequence)
            world.now_ms += 1
        history = world.engine.books.stock["\x1fmain\x1fA"].history
        assert history is not None
        assert len(history) <= 51
        assert len(history.facts) * history.facts.itemsize == 48 * len(history)
        told = world.tell(Fact.STOCK_COUNT, "A", 1, SELLABLE, 3, False, True, age_ms=190)
        assert told.reason == "BEFORE_HISTORY" or told.outcome == "DEFERRED"
        world.check_replay()


@pytest.mark.parametrize("order", [("ship", "pick"), ("pick", "ship")])
@pytest.mark.parametrize("promised", [True, False])
def test_a_shipment_that_overtook_its_pick_leaves_nothing_adrift(order, promised):
    world = World()
    world.receive("A", 10)
    promise = world.reserve(("A", 4), confirm=True) if promised else ("web", "O9")
    for what in order:
        if what == "ship":
            world.ship("A", 4, "s1", promise)
        else:
            world.pick("A", 4, promise)
    stock = world.stock("A")
    assert (stock.picked_quantity, stock.picked_adrift_quantity, world.ats("A")) == (0, 0, 6)
    world.restart()


def test_a_pick_that_comes_when_the_claim_left_memory_finds_its_shipment():
    world = World(Rules(dedupe_memory_ms=1_000))
    world.receive("A", 10)
    order = world.reserve(("A", 4), confirm=True, order="O1")
    world.ship("A", 4, "s1", order)
    world.pass_ms(5_000)
    assert not world.engine.books.stock["\x1fmain\x1fA"].claims
    world.snapshot()
    world.restart()
    world.pick("A", 4, order)
    assert (world.stock("A").picked_adrift_quantity, world.ats("A")) == (0, 6)
    world.check_replay()


@pytest.mark.parametrize("in_order", [True, False])
def test_the_lines_of_an_order_for_one_sku_do_not_hide_each_others_picks_from_a_count(in_order):
    """One line's parcel overtook its pick while the other line stands picked; the count was before both."""
    world = World()
    place: dict[str, Any] = {"source": "wms", "stream": "floor"}
    world.tell(Fact.RECEIPT, "A", 10, SELLABLE, "", "", sequence=1, **place)
    order = world.reserve(("A", 1, "0"), ("A", 3, "1"), confirm=True)
    late = world.event(Fact.PICK, "A", 1, [order.id, "", "", "0"], sequence=2, **place)
    if in_order:
        world.one(late)
    world.tell(Fact.PICK, "A", 3, [order.id, "", "", "1"], sequence=3, **place)
    world.tell(Fact.SHIPMENT, "A", 1, "s1", [order.id, "", "", "0"], False, SELLABLE, sequence=4, **place)
    assert world.tell(Fact.STOCK_COUNT, "A", 10, SELLABLE, 1, False, False, sequence=5, **place).outcome == "APPLIED"
    if not in_order:
        world.one(late)
    assert (world.on_hand("A"), world.stock("A").picked_quantity) == (9, 3)
    world.check_replay()
