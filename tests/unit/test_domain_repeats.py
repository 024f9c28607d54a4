"""What is told again, or told of under another name: found by setting the engine against the independent model."""

from __future__ import annotations

from actors.domain.outcomes import Fact
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from tests.unit.world import World

MEMORY_MS = 15 * 60_000


def test_a_release_that_found_nothing_answers_the_same_time_when_repeated():
    world = World()
    first = world.release_by_request("never came", "A", request="v1")
    world.pass_ms(5_000)
    again = world.release_by_request("never came", "A", request="v1")
    assert again.replayed
    assert again.payload == first.payload


def test_a_reserve_that_comes_after_its_release_is_refused_where_it_stands_now():
    world = World()
    world.receive("A", 5)
    world.release_by_request("late", "A")
    told = world.receive("A", 1)
    late = world.reserve(("A", 1), request="late")
    assert (late.refusal, late.replayed, tuple(late.reply[2].position)) == (
        "RESERVATION_RELEASED", False, tuple(told.position),
    )  # fmt: skip


def test_an_ended_order_is_refused_as_ended_by_the_wrong_door_too_in_memory_as_out_of_it():
    world = World()
    world.receive("A", 5)
    held, ended = world.reserve(("A", 1)), world.reserve(("A", 1))
    world.release(ended)
    assert world.fulfill(ended, "s1", ("0", 1)).refusal == "RESERVATION_RELEASED"
    assert world.fulfill(held, "s1", ("0", 1)).refusal == "RESERVATION_NOT_CONFIRMED"
    world.confirm(held)
    assert world.fulfill(held, "s1", ("0", 9)).refusal == "FULFILLED_BY_WAREHOUSE"
    world.pass_ms(MEMORY_MS + 1)
    assert world.fulfill(ended, "s1", ("0", 1)).refusal == "RESERVATION_RELEASED"


def test_an_event_id_is_one_for_all_stock_keys_of_its_source():
    world = World()
    world.receive("A", 5, event="e1")
    reused = world.receive("B", 5, event="e1")
    assert (reused.outcome, reused.reason) == ("REJECTED", "EVENT_ID_REUSED")
    world.restart()
    assert world.receive("C", 5, event="e1").reason == "EVENT_ID_REUSED"
    world.pass_ms(MEMORY_MS + 1)
    assert world.receive("D", 5, event="e1").reason == "EVENT_ID_REUSED"
    assert verify(MemoryJournal(world.store)).violations == []


def test_an_order_is_known_by_its_last_reference_also_after_a_restart():
    world = World()
    world.receive("A", 10)
    held = world.reserve(("A", 2), order="draft")
    world.confirm(held, "order 1")
    world.pick("A", 1, ("web", "draft"))
    assert (world.get(held).lines[0].picked_quantity, world.stock("A").picked_adrift_quantity) == (0, 1)
    world.restart()
    world.pick("A", 1, ("web", "draft"))
    assert (world.get(held).lines[0].picked_quantity, world.stock("A").picked_adrift_quantity) == (0, 2)


def test_of_an_orders_claims_the_oldest_is_meant_first_also_after_a_restart():
    world = World()
    world.receive("A", 10)
    older = world.reserve(("A", 2))
    world.reserve(("A", 2), order="order 1")
    world.confirm(older, "order 1")
    world.pick("A", 1, ("web", "order 1"))
    assert world.get(older).lines[0].picked_quantity == 1
    world.restart()
    world.pick("A", 1, ("web", "order 1"))
    assert world.get(older).lines[0].picked_quantity == 2


def test_a_shipment_takes_out_what_was_picked_for_its_promise_before_the_claim_was_known():
    world = World()
    world.receive("A", 10)
    world.pick("A", 3, ("web", "order 1"))
    order = world.reserve(("A", 3), order="order 1", confirm=True)
    world.ship("A", 3, "s1", ("web", "order 1"))
    stock = world.stock("A")
    assert (stock.picked_quantity, stock.picked_adrift_quantity, stock.available_quantity) == (0, 0, 7)
    assert world.state(order) == "FULFILLED"


def test_a_shipment_without_a_promise_takes_out_what_was_picked_without_one():
    world = World()
    world.receive("A", 10)
    world.pick("A", 3)
    world.ship("A", 2, "s1")
    stock = world.stock("A")
    assert (stock.picked_adrift_quantity, stock.available_quantity) == (1, 7)
    world.tell(Fact.UNPICK, "A", 1, [])
    assert world.ats("A") == 8


def test_a_decision_that_left_memory_is_repeated_with_the_quantities_it_granted():
    world = World()
    world.receive("A", 10)
    world.receive("B", 10)
    order = world.reserve(("A", 2), ("B", 4), request="r1", confirm=True)
    more = world.amend(order, ("0", "A", 5), ("1", "B", 4, "main"), request="v1")
    world.amend(order, ("0", "A", 6), remove=("1",), request="v2")
    world.release(order)
    live = [world.reserve(("A", 2), ("B", 4), request="r1", confirm=True)]
    live.append(world.amend(order, ("0", "A", 5), ("1", "B", 4, "main"), request="v1"))
    assert [answer.replayed for answer in live] == [True, True]
    world.pass_ms(MEMORY_MS + 1)
    retired = [world.reserve(("A", 2), ("B", 4), request="r1", confirm=True)]
    retired.append(world.amend(order, ("0", "A", 5), ("1", "B", 4, "main"), request="v1"))
    assert [answer.replayed for answer in retired] == [True, True]
    assert [[line[:6] for line in answer.payload.lines] for answer in retired] == [
        [line[:6] for line in answer.payload.lines] for answer in live
    ]
    assert [line[3] for line in more.payload.lines] == [line[3] for line in retired[1].payload.lines]


def test_units_that_come_back_to_a_stock_key_of_before_the_order_was_confirmed_are_confirmed():
    world = World()
    world.receive("A", 5)
    world.receive("B", 5)
    order = world.reserve(("A", 2), order="draft")
    world.amend(order, ("0", "B", 2))
    world.confirm(order, "order 1")
    world.amend(order, ("0", "A", 2))
    world.pick("A", 1, ("web", "order 1"))
    assert world.get(order).lines[0].picked_quantity == 1
    assert (world.stock("A").held_quantity, world.stock("A").confirmed_quantity) == (0, 2)
    world.restart()
    assert (world.stock("A").held_quantity, world.stock("A").confirmed_quantity) == (0, 2)
