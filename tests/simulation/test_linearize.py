"""The exhaustive search explains true histories and no others, whatever their positions say."""

from __future__ import annotations

import random
from copy import deepcopy

import pytest

from tests.simulation.history import UNKNOWN, Operation
from tests.simulation.linearize import Search, first_of, groups, unexplained
from tests.simulation.model import Settings
from tests.simulation.recording import RecordingWorld, Trader, settings_of


def race() -> list[Operation]:
    """Two units; three buyers and a reader at once; then one buys again, one cancels, and they look."""
    world = RecordingWorld()
    world.receive("A", 2)
    buyers = [world.reserve_item(("A", 1), request=f"buyer {number}") for number in range(3)]
    answers = world.step(*buyers)
    world.ats("A")
    world.reserve(("A", 1), request="buyer 0")
    world.release(answers[0].id, request="cancel")
    world.ats("A")
    world.stock("A")
    return world.operations


def told(operations: list[Operation], verb: str, number: int = 0) -> Operation:
    return [operation for operation in operations if operation.verb == verb][number]


def test_a_true_race_is_explained():
    assert unexplained(race()) == []


@pytest.mark.parametrize("turns", [15, 40])
def test_random_days_are_explained(seed, turns):
    """At most undecided, and that seldom: then there are many calls at once that change something."""
    undecided = searched = 0
    for day in range(300 // turns):
        trader = Trader(seed + day)
        trader.skus, trader.warehouses = ("A", "B"), ("main",)
        world = trader.trade(turns)
        settings = settings_of(world.rules)
        for group in groups(world.operations):
            search = Search(first_of(group, 40), settings)
            found = search.run()
            assert found is not False, f"day {seed + day}"
            undecided += found is None
            searched += 1
    assert undecided <= searched / 5


def test_positions_are_not_looked_at(seed):
    operations = race()
    draw = random.Random(seed)
    places = [operation.positions for operation in operations]
    draw.shuffle(places)
    for operation, place in zip(operations, places, strict=True):
        operation.positions = place
    assert unexplained(operations) == []


def test_three_grants_of_two_units_are_not_explained():
    operations = race()
    granted, refused = told(operations, "reserve", 0), told(operations, "reserve", 2)
    refused.status, refused.answer = granted.status, {**granted.answer, "reservation_id": "1-t1-24-9"}
    refused.positions = {
        shard: place._replace(sequence=place.sequence + 9) for shard, place in granted.positions.items()
    }
    (found,) = unexplained(operations)
    assert "left over" in str(found)


def test_a_refusal_while_units_were_left_is_not_explained():
    operations = race()
    told(operations, "ingest").arguments["details"]["quantity"] = 3
    told(operations, "get_availability").answer = {"items": ((1, True),)}
    assert unexplained(operations) != []


def test_a_read_of_long_ago_is_not_explained_though_its_position_says_so():
    operations = race()
    told(operations, "get_availability", 1).answer = {"items": ((0, True),)}
    assert unexplained(operations) != []


def test_a_read_of_long_ago_is_explained_where_it_was_under_way_that_long():
    operations = race()
    late = told(operations, "get_availability", 1)
    late.answer, late.invoked = {"items": ((0, True),)}, told(operations, "get_availability", 0).invoked
    assert unexplained(operations) == []


def test_a_repeat_with_another_answer_is_not_explained():
    operations = race()
    again = told(operations, "reserve", 3)
    assert again.replayed
    again.answer = {**again.answer, "reservation_id": told(operations, "reserve", 1).answer["reservation_id"]}
    assert unexplained(operations) != []


@pytest.mark.parametrize("happened", [True, False])
def test_an_unanswered_call_may_have_happened_or_not(happened):
    operations = race()
    release = told(operations, "release")
    release.status, release.answer, release.returned = UNKNOWN, {}, float("inf")
    if not happened:
        told(operations, "get_availability", 1).answer = {"items": ((0, True),)}
        stock = told(operations, "get_stock").answer
        stock["held"], stock["available"] = 2, 0
    assert unexplained(operations) == []


def test_a_hold_may_expire_but_not_come_back():
    operations = race()
    early, late = told(operations, "get_availability", 0), told(operations, "get_availability", 1)
    early.answer = {"items": ((1, True),)}
    assert unexplained(operations[:5]) != []  # it is too early for that
    early.time_ms += 60_000
    assert unexplained(operations[:5]) == []
    late.answer, late.time_ms = {"items": ((0, True),)}, early.time_ms
    assert unexplained([one for one in operations if one.verb not in ("release", "get_stock")]) != []


def test_operations_that_have_nothing_in_common_are_searched_apart():
    world = RecordingWorld()
    for sku in "ABC":
        world.receive(sku, 1)
        world.reserve((sku, 1))
    world.reserve(("A", 1), ("C", 1))
    assert sorted(map(len, groups(world.operations))) == [2, 5]


def test_of_a_long_history_the_beginning_is_searched():
    operations = race()
    late = deepcopy(told(operations, "get_availability"))
    late.answer, late.invoked, late.returned = {"items": ((7, True),)}, 1_000.0, 1_001.0
    assert unexplained([*operations, late], most=len(operations)) == []
    assert unexplained([*operations, late], Settings()) != []
