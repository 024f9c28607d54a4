"""Picked units of an order that changes: off the shelf, they are no cover for what it asks for anew.

Found by setting the engine against the independent model (random day 23476): the engine decided as if they were, and then
ended itself rather than grant without cover, again at every retry.
"""

from __future__ import annotations

import pytest

from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from tests.unit.world import World


@pytest.fixture
def world():
    made = World()
    made.receive("A", 6)
    return made


def judged(world: World) -> None:
    world.restart()
    assert verify(MemoryJournal(world.store)).violations == []


def test_units_that_move_from_a_picked_line_leave_the_picked_ones_adrift(world):
    order = world.reserve(("A", 3, "0"), ("A", 1, "1"), confirm=True)
    world.pick("A", 3, order)
    refused = world.amend(order, ("0", "A", 1), ("1", "A", 4))
    assert (refused.refusal, refused.shortages[0][3]) == ("INSUFFICIENT_STOCK", 4)
    assert world.amend(order, ("0", "A", 2), ("1", "A", 3)).ok
    stock = world.stock("A")
    assert (stock.confirmed_quantity, stock.picked_adrift_quantity, stock.available_quantity) == (5, 1, 0)
    judged(world)


def test_a_cart_that_replaces_a_picked_one_leaves_the_picked_units_adrift(world):
    held = world.reserve(("A", 2))
    world.pick("A", 2, held)
    refused = world.reserve(("A", 5), replaces=held.id)
    assert (refused.refusal, refused.shortages[0][3]) == ("INSUFFICIENT_STOCK", 4)
    assert world.reserve(("A", 4), replaces=held.id).ok
    stock = world.stock("A")
    assert (stock.held_quantity, stock.picked_adrift_quantity, stock.available_quantity) == (4, 2, 0)
    judged(world)


def test_what_an_order_has_carries_over_even_when_all_of_it_is_picked(world):
    held = world.reserve(("A", 6))
    world.pick("A", 6, held)
    again = world.reserve(("A", 6), replaces=held.id)
    assert again.ok
    assert world.stock("A").shortage_quantity == 6
    judged(world)


def test_an_imposed_order_that_replaces_a_picked_one_says_what_is_not_covered(world):
    held = world.reserve(("A", 2))
    world.pick("A", 2, held)
    imposed = world.reserve(("A", 5), replaces=held.id, always=True)
    assert imposed.payload.lines[0].uncovered_quantity == 1
    judged(world)
