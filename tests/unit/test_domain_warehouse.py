"""Warehouse facts: applied even when inconvenient, once, and never behind the back of who was promised something."""

from __future__ import annotations

import random

import pytest

from actors.domain.outcomes import Disposition, Door, ExceptionKind, Fact
from actors.domain.rules import Rules
from tests.unit.world import World


@pytest.fixture
def world():
    made = World()
    made.receive("A", 10)
    return made


class TestShipments:
    def test_end_claims_and_take_stock_out(self, world):
        order = world.reserve(("A", 4), confirm=True)
        assert world.ship("A", 3, "s1", order).outcome == "APPLIED"
        assert (world.on_hand("A"), world.ats("A"), world.state(order)) == (7, 6, "CONFIRMED")
        assert world.ship("A", 1, "s2", order).outcome == "APPLIED"
        assert (world.on_hand("A"), world.ats("A"), world.state(order)) == (6, 6, "FULFILLED")
        world.check_replay()

    def test_by_order_reference(self, world):
        order = world.reserve(("A", 4), channel="b2b")
        world.confirm(order, order="PO-1")
        world.ship("A", 4, "s1", ("b2b", "PO-1"))
        assert world.state(order) == "FULFILLED"

    def test_of_what_is_only_held_fulfil_it_all_the_same(self, world):
        order = world.reserve(("A", 4))
        world.ship("A", 4, "s1", order)
        assert (world.state(order), world.ats("A")) == ("FULFILLED", 6)

    def test_of_what_expired_leave_stock_and_an_exception(self, world):
        order = world.reserve(("A", 4), ttl_ms=1_000)
        world.pass_ms(1_000)
        told = world.ship("A", 4, "s1", order)
        assert told.exception
        assert (world.state(order), world.on_hand("A"), world.ats("A")) == ("EXPIRED", 6, 6)

    def test_of_what_was_released_or_more_than_is_open_are_booked_with_an_exception(self, world):
        order = world.reserve(("A", 4), confirm=True)
        world.ship("A", 6, "s1", order)
        assert (world.state(order), world.on_hand("A"), world.ats("A")) == ("FULFILLED", 4, 4)
        assert [one.kind for one in world.exceptions(1)] == [ExceptionKind.SHIPMENT_EXCEEDS_OPEN]
        gone = world.reserve(("A", 4), confirm=True)
        world.release(gone)
        world.ship("A", 1, "s2", gone)
        assert world.on_hand("A") == 3
        world.check_replay()

    def test_the_same_one_twice_is_a_duplicate_with_another_quantity_an_exception(self, world):
        order = world.reserve(("A", 4), confirm=True)
        world.ship("A", 2, "s1", order)
        assert world.ship("A", 2, "s1", order).outcome == "DUPLICATE"
        other = world.ship("A", 1, "s1", order)
        assert (other.outcome, other.reason) == ("REJECTED", "SHIPMENT_MISMATCH")
        assert world.ship("A", 1, "s1", order, document_line="2").outcome == "APPLIED"
        assert world.on_hand("A") == 7
        world.check_replay()

    def test_close_the_remainder(self, world):
        order = world.reserve(("A", 4), confirm=True)
        world.ship("A", 3, "s1", order, close=True)
        line = world.get(order).lines[0]
        assert (world.state(order), line.fulfilled_quantity, line.released_quantity) == ("FULFILLED", 3, 1)
        assert world.ats("A") == 7

    def test_before_the_receipt_go_below_zero_and_heal(self):
        world = World()
        world.ship("A", 3, "s1")
        assert (world.on_hand("A"), world.ats("A")) == (-3, 0)
        assert world.stock("A").shortage_quantity == 3
        assert len(world.exceptions(1)) == 1
        world.receive("A", 5)
        assert (world.ats("A"), world.exceptions(1)) == (2, [])
        world.check_replay()


class TestDoors:
    def test_partial_fulfilment_by_order_management_then_release_of_the_rest(self):
        world = World(Rules(doors={"main": Door.ORDER_MANAGEMENT}))
        world.receive("A", 10)
        held = world.reserve(("A", 4, "a"))
        assert world.fulfill(held, "s1", ("a", 1)).refusal == "RESERVATION_NOT_CONFIRMED"
        world.confirm(held)
        assert world.fulfill(held, "s1", ("a", 9)).refusal == "QUANTITY_EXCEEDS_OPEN"
        assert world.fulfill(held, "s1", ("a", 1)).ok
        assert world.fulfill(held, "s1", ("a", 1)).ok  # the same shipment again: a duplicate, not one more
        assert world.on_hand("A") == 9
        assert world.release(held).state == "FULFILLED"
        assert (world.on_hand("A"), world.ats("A")) == (9, 9)
        assert world.fulfill(held, "s2").refusal == "RESERVATION_FULFILLED"
        world.check_replay()

    def test_the_other_door_is_refused(self, world):
        order = world.reserve(("A", 4), confirm=True)
        assert world.fulfill(order, "s1").refusal == "FULFILLED_BY_WAREHOUSE"
        managed = World(Rules(doors={"main": Door.ORDER_MANAGEMENT}))
        managed.receive("A", 10)
        other = managed.reserve(("A", 4), confirm=True)
        told = managed.ship("A", 4, "s1", other)
        assert (told.outcome, told.reason) == ("REJECTED", "FULFILLED_BY_ORDER_MANAGEMENT")
        assert managed.ship("A", 4, "s2").outcome == "APPLIED"

    def test_the_same_shipment_with_another_quantity_is_not_booked(self):
        world = World(Rules(doors={"main": Door.ORDER_MANAGEMENT}))
        world.receive("A", 10)
        order = world.reserve(("A", 4, "a"), confirm=True)
        world.fulfill(order, "s1", ("a", 2))
        world.fulfill(order, "s1", ("a", 1))
        assert world.on_hand("A") == 8
        assert [one.kind for one in world.exceptions(1)] == [ExceptionKind.SHIPMENT_MISMATCH]


class TestPicks:
    def test_picked_units_are_not_sold_again_when_their_order_is_released(self, world):
        order = world.reserve(("A", 6), confirm=True)
        world.pick("A", 6, order)
        assert (world.on_hand("A"), world.ats("A")) == (10, 4)
        world.release(order)
        stock = world.stock("A")
        assert (stock.picked_adrift_quantity, stock.available_quantity) == (6, 4)
        world.unpick("A", 2, order)
        assert world.ats("A") == 6
        world.ship("A", 4, "s1", order)
        assert (world.on_hand("A"), world.ats("A")) == (6, 6)
        world.check_replay()

    def test_for_an_unknown_promise_are_adrift_until_shipped(self, world):
        world.pick("A", 3, ("b2b", "PO-9"))
        assert (world.stock("A").picked_adrift_quantity, world.ats("A")) == (3, 7)
        world.ship("A", 3, "s1", ("b2b", "PO-9"))
        assert (world.stock("A").picked_adrift_quantity, world.ats("A"), world.on_hand("A")) == (0, 7, 7)
        world.check_replay()


class TestCounts:
    @pytest.mark.parametrize(("includes_picked", "on_hand"), [(False, 9), (True, 7)])
    def test_picked_units_are_in_or_out_as_the_count_says(self, world, includes_picked, on_hand):
        order = world.reserve(("A", 4), confirm=True)
        world.pick("A", 2, order)
        world.count("A", 7, includes_picked=includes_picked)
        assert world.on_hand("A") == on_hand
        assert world.stock("A").confirmed_quantity == 4

    def test_below_what_is_promised_is_a_shortage_that_names_its_reservations(self, world):
        first, second = world.reserve(("A", 4), confirm=True), world.reserve(("A", 5), confirm=True)
        told = world.count("A", 6)
        assert (told.shortage, world.ats("A")) == (3, 0)
        exception = world.exceptions(1)[0]
        assert (exception.exception_id, list(exception.reservation_ids)) == (told.exception, [second.id])
        assert world.reserve(("A", 1)).refusal == "INSUFFICIENT_STOCK"
        world.count("A", 3)
        assert list(world.exceptions(1)[0].reservation_ids) == [second.id, first.id]
        world.receive("A", 10)
        assert (world.exceptions(1), world.ats("A")) == ([], 4)
        world.check_replay()

    def test_of_no_place_cannot_be_understood(self, world):
        told = world.tell(Fact.STOCK_COUNT, "A", 5, 1, 0, False, False)
        assert (told.outcome, told.reason) == ("REJECTED", "AS_OF_MISSING")
        assert world.on_hand("A") == 10


class TestIdentity:
    def test_an_event_is_applied_once(self, world):
        first = world.receive("A", 5, event="e9")
        again = world.receive("A", 5, event="e9")
        assert (again.outcome, again.position[:3], world.on_hand("A")) == ("DUPLICATE", first.position[:3], 15)
        world.restart()
        assert world.receive("A", 5, event="e9").outcome == "DUPLICATE"

    def test_its_id_with_other_content_is_rejected_with_one_exception(self, world):
        world.receive("A", 5, event="e9")
        told = world.receive("A", 6, event="e9")
        assert told.reason == "EVENT_ID_REUSED"
        assert world.receive("A", 6, event="e9").exception == told.exception
        assert len(world.exceptions(1)) == 1
        assert world.on_hand("A") == 15

    def test_what_cannot_be_understood_is_rejected_with_an_exception(self, world):
        assert world.tell(77, "A").reason == "UNKNOWN_FACT"
        assert world.receive("A", 1, age_ms=world.rules.dedupe_window_ms + 1).reason == "TOO_OLD"
        assert world.receive("A", 1, reject=2).reason == "UNKNOWN_WAREHOUSE"
        assert world.receive("A", 10**15).reason == "QUANTITY_OUT_OF_RANGE"
        closed = World(Rules(catalog_open=False))
        assert closed.receive("A", 1).reason == "UNKNOWN_STOCK_KEY"
        assert len(world.exceptions(1)) == 4
        assert all(one.kind == ExceptionKind.EVENT_REJECTED for one in world.exceptions(1))


def test_every_other_fact_moves_what_it_says(world):
    hold, damaged = int(Disposition.QUALITY_HOLD), int(Disposition.DAMAGED)
    world.tell(Fact.ADJUSTMENT, "A", -2, 1, "broken", "")
    world.tell(Fact.DISPOSITION_CHANGE, "A", 3, 1, hold)
    world.tell(Fact.DISPOSITION_CHANGE, "A", 1, hold, damaged)
    world.tell(Fact.TRANSFER_DISPATCH, "A", 2, "t1", "", "other", 1)
    world.tell(Fact.TRANSFER_RECEIPT, "A", 2, "t1", "", "main", True, 1, warehouse="other")
    world.tell(Fact.CUSTOMER_RETURN, "A", 4, hold, [], "ret")
    assert dict(world.stock("A").on_hand) == {1: 3, hold: 6, damaged: 1}
    assert (world.ats("A"), world.ats("A", "other")) == (3, 2)
    world.check_replay()


def test_snapshots_taken_between_turns_and_the_tail_equal_a_full_replay(world, seed):
    draw = random.Random(seed)
    for sku in "BCDE":
        world.receive(sku, 500)
    live: list = []

    def trade():
        for _ in range(draw.randint(1, 6)):
            sku = draw.choice("ABCDE")
            chance = draw.random()
            if chance < 0.5 or not live:
                answer = world.reserve(
                    (sku, draw.randint(1, 5)), (draw.choice("ABCDE"), 1), ttl_ms=draw.randint(1, 500)
                )
                if answer.ok:
                    live.append(answer)
            elif chance < 0.6:
                world.confirm(draw.choice(live))
            elif chance < 0.7:
                world.release(draw.choice(live))
            elif chance < 0.8:
                world.pick(sku, 1, draw.choice(live))
            elif chance < 0.9:
                world.ship(sku, 1, world.fresh_id("s"), draw.choice(live))
            else:
                world.pass_ms(draw.randint(1, 100))

    for _ in range(300):
        trade()
    for _ in range(3):
        world.snapshot(between=trade)
        for _ in range(30):
            trade()
        world.restart()
