"""What an ended reservation leaves behind when it leaves memory: nothing, and never before it may."""

from __future__ import annotations

from actors.domain.keys import stock_key
from actors.domain.outcomes import Fact
from actors.domain.rules import Rules
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from tests.unit.world import World

MEMORY_MS = 5_000


def claims(world: World, sku: str, warehouse: str = "main") -> int:
    """How many reservations have claims on that stock key in memory."""
    return len(world.engine.books.stock[stock_key(warehouse, sku)].claims)


def made() -> World:
    world = World(Rules(dedupe_memory_ms=MEMORY_MS))
    for warehouse in ("main", "east"):
        world.receive("A", 50, warehouse=warehouse)
    return world


def test_units_picked_on_a_line_that_an_amend_removed_keep_it_in_memory() -> None:
    world = made()
    order = world.reserve(("A", 5, "0"), ("A", 2, "1"), confirm=True)
    world.pick("A", 3, order)
    world.amend(order, remove=("0",))
    world.release(order)
    world.pass_ms(2 * MEMORY_MS)
    assert claims(world, "A") == 1
    assert world.ats("A") == 47  # three units are off the shelf
    world.restart()
    world.unpick("A", 3, order)
    world.pass_ms(120_000)
    assert claims(world, "A") == 0
    assert world.ats("A") == 50
    assert verify(MemoryJournal(world.store)).violations == []


def test_claims_that_an_amend_moved_away_leave_with_the_reservation() -> None:
    world = made()
    order = world.reserve(("A", 5, "0"), confirm=True)
    world.amend(order, ("0", "A", 5, "east"))
    world.release(order)
    world.pass_ms(2 * MEMORY_MS)
    assert (claims(world, "A"), claims(world, "A", "east")) == (0, 0)
    world.restart()
    assert world.state(order) == "RELEASED"
    assert verify(MemoryJournal(world.store)).violations == []


def test_claims_moved_twice_leave_too() -> None:
    world = made()
    world.receive("A", 50, warehouse="west")
    order = world.reserve(("A", 5, "0"), confirm=True)
    world.amend(order, ("0", "A", 5, "east"))
    world.amend(order, ("0", "A", 5, "west"))
    world.release(order)
    world.pass_ms(2 * MEMORY_MS)
    assert [claims(world, "A", warehouse) for warehouse in ("main", "east", "west")] == [0, 0, 0]


def test_healed_exceptions_are_listed_for_a_while_and_then_leave() -> None:
    world = World(Rules(healed_memory_ms=MEMORY_MS))
    world.receive("A", 5)
    world.ship("A", 7, "early")
    world.receive("A", 10)
    world.ship("A", 20, "earlier still")
    assert [one.state for one in world.exceptions()] == [2, 1]
    world.restart()
    world.pass_ms(MEMORY_MS + 1)
    (still_open,) = world.exceptions()
    assert still_open.quantity == 12
    world.snapshot(between=lambda: world.receive("A", 1))
    world.receive("A", 50)
    world.snapshot(between=lambda: world.pass_ms(MEMORY_MS))
    world.pass_ms(1)
    assert world.exceptions() == []
    world.restart()
    assert verify(MemoryJournal(world.store)).violations == []


def test_of_many_healed_exceptions_the_oldest_leave_early() -> None:
    world = World(Rules(healed_in_memory_max=3))
    for number in range(10):
        world.ship("A", 1, f"s{number}")
        world.receive("A", 1)
    world.pass_ms(1)
    assert len(world.exceptions()) == 3
    world.restart()
    assert len(world.exceptions()) == 3
    assert verify(MemoryJournal(world.store)).violations == []


def test_ids_of_events_leave_memory_as_fast_as_they_come():
    world = World(Rules(ended_in_memory_max=1_000))
    for _ in range(8):
        world.step(*(world.event(Fact.RECEIPT, "A", 1, 1, "", "") for _ in range(1_500)))
        world.pass_ms(1)
        assert len(world.engine.books.entries_spent) <= 2_500
    assert len(world.store.entries) >= 12_000 - 2_500
