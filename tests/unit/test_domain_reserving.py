"""Reserving: nothing is granted without cover, however it is asked."""

from __future__ import annotations

import random

import pytest

from actors.domain.keys import stock_key
from actors.domain.outcomes import Door, Fact, FillPolicy, SellingState
from actors.domain.rules import Rules
from actors.shard.placement import shard_of
from tests.unit.world import SHARDS, World


def test_the_last_unit_goes_to_one_of_200_buyers():
    world = World()
    world.receive("A", 1)
    answers = world.step(*[world.reserve_item(("A", 1)) for _ in range(200)])
    assert sum(answer.ok for answer in answers) == 1
    assert {answer.refusal for answer in answers if not answer.ok} == {"INSUFFICIENT_STOCK"}
    assert world.ats("A") == 0
    world.restart()
    assert world.ats("A") == 0


def test_ten_units_are_never_more_than_ten_for_500_buyers_of_1_to_3(seed):
    draw = random.Random(seed)
    world = World()
    world.receive("A", 10)
    asked = [draw.randint(1, 3) for _ in range(500)]
    answers = world.step(*[world.reserve_item(("A", quantity)) for quantity in asked])
    granted = sum(quantity for quantity, answer in zip(asked, answers, strict=True) if answer.ok)
    assert granted == 10
    assert world.ats("A") == 0
    world.check_replay()


def test_two_lines_of_one_sku_are_decided_on_their_sum_and_kept_apart():
    world = World()
    world.receive("A", 5)
    refused = world.reserve(("A", 3), ("A", 3))
    assert refused.refusal == "INSUFFICIENT_STOCK"
    assert [short[:4] for short in refused.shortages] == [("0", "\x1fmain\x1fA", 3, 5), ("1", "\x1fmain\x1fA", 3, 5)]
    granted = world.reserve(("A", 3), ("A", 2))
    assert granted.ok
    assert [line.granted_quantity for line in world.get(granted).lines] == [3, 2]
    assert world.ats("A") == 0
    world.check_replay()


@pytest.mark.parametrize(
    ("fill", "quantities", "minimum", "granted"),
    [
        (FillPolicy.ALL_OR_NOTHING, (6, 6), 0, None),
        (FillPolicy.WHOLE_LINES, (6, 6), 0, [6, 0]),
        (FillPolicy.WHOLE_LINES, (11, 4), 0, [0, 4]),
        (FillPolicy.PARTIAL_QUANTITIES, (6, 6), 0, [6, 4]),
        (FillPolicy.PARTIAL_QUANTITIES, (6, 6), 5, [6, 0]),
        (FillPolicy.PARTIAL_QUANTITIES, (20, 6), 0, [10, 0]),
        (FillPolicy.WHOLE_LINES, (11, 11), 0, None),
    ],
)
def test_fill_policies(fill, quantities, minimum, granted):
    world = World()
    world.receive("A", 10)
    answer = world.reserve(*[("A", units, str(at), "main", minimum) for at, units in enumerate(quantities)], fill=fill)
    if granted is None:
        assert answer.refusal == "INSUFFICIENT_STOCK"
        assert world.ats("A") == 10
    else:
        assert [line.granted_quantity for line in world.get(answer).lines] == granted
        assert world.ats("A") == 10 - sum(granted)
    world.check_replay()


def test_refusals_in_order_of_precedence():
    world = World()
    world.receive("A", 10)
    assert world.reserve(("nobody", 1)).refusal == "UNKNOWN_STOCK_KEY"
    assert world.reserve(("nobody", 1), ("A", 99)).refusal == "UNKNOWN_STOCK_KEY"
    world.set_policy("A", limit=4)
    assert world.reserve(("A", 5)).refusal == "LIMIT_PER_ORDER"
    assert world.reserve(("A", 3), ("A", 2)).refusal == "LIMIT_PER_ORDER"
    assert world.reserve(("A", 4)).ok
    world.set_policy("A", selling=SellingState.SUSPENDED)
    assert world.reserve(("A", 1)).refusal == "SELLING_SUSPENDED"
    assert world.ats("A") == 0
    world.set_policy("A", selling=SellingState.OPEN, limit=0, safety=5)
    assert world.ats("A") == 1
    assert world.reserve(("A", 2)).refusal == "INSUFFICIENT_STOCK"
    world.check_replay()


class TestSameRequestId:
    def test_the_same_content_repeats_the_first_decision(self):
        world = World()
        world.receive("A", 5)
        first = world.reserve(("A", 3), request="x")
        again = world.step(*[world.reserve_item(("A", 3), request="x")] * 5)
        assert all(answer.replayed and answer.id == first.id for answer in again)
        assert world.ats("A") == 2
        world.restart()
        after = world.reserve(("A", 3), request="x")
        assert after.replayed
        assert after.id == first.id
        assert after.payload.position[:3] == first.payload.position[:3]
        assert after.payload.expire_time_ms == first.payload.expire_time_ms

    def test_other_content_is_an_error_whatever_differs(self):
        world = World()
        world.receive("A", 5)
        world.receive("B", 5)
        world.reserve(("A", 3), request="x")
        assert world.reserve(("A", 2), request="x").error == "REQUEST_ID_REUSED"
        assert world.reserve(("B", 3), request="x").error == "REQUEST_ID_REUSED"
        assert world.reserve(("A", 2), request="x", channel="b2b").ok

    def test_a_refusal_spends_nothing_but_a_confirmed_one_does(self):
        world = World()
        world.receive("A", 1)
        assert world.reserve(("A", 2), request="x").refusal == "INSUFFICIENT_STOCK"
        assert world.reserve(("A", 2), request="y", confirm=True).refusal == "INSUFFICIENT_STOCK"
        world.receive("A", 9)
        assert world.reserve(("A", 2), request="x").ok
        again = world.reserve(("A", 2), request="y", confirm=True)
        assert (again.refusal, again.replayed) == ("INSUFFICIENT_STOCK", True)
        world.check_replay()

    def test_an_old_uuid7_is_refused_and_other_old_ids_are_not_known_as_such(self):
        world = World()
        world.receive("A", 5)
        old = world.now_ms - world.rules.dedupe_window_ms - 1
        digits = f"{old:012x}"
        uuid = f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"
        assert world.reserve(("A", 1), request=uuid).error == "REQUEST_ID_EXPIRED"

    def test_it_is_found_again_after_it_left_memory(self):
        world = World(Rules(dedupe_memory_ms=1_000))
        world.receive("A", 5, event="e1")
        first = world.reserve(("A", 3), request="x")
        assert world.release(first, request="y").ok
        world.pass_ms(10_000)
        world.pass_ms(1)
        assert first.id not in world.engine.books.reservations
        again = world.reserve(("A", 3), request="x")
        assert (again.id, again.replayed) == (first.id, True)
        assert world.reserve(("A", 1), request="x").error == "REQUEST_ID_REUSED"
        assert world.release(first, request="y").replayed
        assert world.release(first, request="z").refusal == "RESERVATION_RELEASED"
        assert world.state(first) == "RELEASED"
        assert world.receive("A", 5, event="e1").outcome == "DUPLICATE"
        world.restart()
        assert world.reserve(("A", 3), request="x").id == first.id
        assert world.ats("A") == 5


class TestReplace:
    def test_the_shoppers_own_last_unit_stays_his(self):
        world = World()
        world.receive("A", 1)
        cart = world.reserve(("A", 1))
        other = world.reserve(("A", 1))
        assert other.refusal == "INSUFFICIENT_STOCK"
        changed = world.reserve(("A", 1), replaces=cart.id)
        assert changed.ok
        assert world.state(cart) == "RELEASED"
        assert world.ats("A") == 0
        world.check_replay()

    def test_refused_it_stays_and_only_the_excess_is_decided(self):
        world = World()
        world.receive("A", 5)
        cart = world.reserve(("A", 3))
        refused = world.reserve(("A", 6), replaces=cart.id)
        assert refused.refusal == "INSUFFICIENT_STOCK"
        assert refused.shortages[0][3] == 5
        assert world.state(cart) == "HELD"
        assert world.reserve(("A", 5), replaces=cart.id).ok
        assert world.ats("A") == 0
        world.check_replay()

    def test_confirmed_is_refused_ended_contributes_nothing_unknown_is_an_error(self):
        world = World()
        world.receive("A", 5)
        cart = world.reserve(("A", 3))
        world.confirm(cart)
        assert world.reserve(("A", 1), replaces=cart.id).refusal == "RESERVATION_ALREADY_CONFIRMED"
        gone = world.reserve(("A", 1))
        world.release(gone)
        assert world.reserve(("A", 3), replaces=gone.id).refusal == "INSUFFICIENT_STOCK"
        assert world.reserve(("A", 2), replaces=gone.id).ok
        assert world.reserve(("A", 1), replaces="1-t1-0-999").error == "RESERVATION_NOT_FOUND"


def test_two_orders_over_the_same_two_skus_in_opposite_order_never_hold_half():
    world = World()
    for sku in ("A", "B"):
        world.receive(sku, 40)
    items = []
    for _ in range(60):
        items += [world.reserve_item(("A", 1), ("B", 1)), world.reserve_item(("B", 1), ("A", 1))]
    answers = world.step(*items)
    assert sum(answer.ok for answer in answers) == 40
    assert (world.ats("A"), world.ats("B")) == (0, 0)
    world.check_replay()


class TestImposedClaims:
    def test_they_are_recorded_counted_and_never_an_oversell(self):
        world = World()
        world.receive("A", 10)
        imposed = world.reserve(("A", 14), always=True, confirm=True, channel="edi", order="o1")
        assert imposed.ok
        line = world.get(imposed).lines[0]
        assert (line.imposed, line.uncovered_quantity) == (True, 4)
        assert world.stock("A").shortage_quantity == 4
        shortage = world.exceptions(1)[0]
        assert shortage.quantity == 4
        assert list(shortage.reservation_ids) == [imposed.id]
        assert world.reserve(("A", 1)).refusal == "INSUFFICIENT_STOCK"
        world.receive("A", 6)
        assert world.exceptions(1) == []
        assert world.ats("A") == 2
        assert world.engine.books.oversells == 0
        world.check_replay()

    def test_20_000_open_orders_at_go_live_three_percent_uncovered(self):
        world = World()
        skus = [f"S{number}" for number in range(200)]
        for sku in skus:
            world.receive(sku, 97)
        orders = [skus[number % 200] for number in range(20_000)]
        for start in range(0, 20_000, 2_000):
            items = [
                world.reserve_item((sku, 1), always=True, confirm=True, order=f"o{start + at}")
                for at, sku in enumerate(orders[start : start + 2_000])
            ]
            assert all(answer.ok for answer in world.step(*items))
        status = world.engine.status()
        assert status["oversells"] == 0
        assert status["imposed_uncovered_units"] == 600
        assert status["shortage_units"] == 600
        assert sum(exception.quantity for exception in world.exceptions(1)) == 600
        world.check_replay()

    def test_only_an_unknown_key_refuses_them(self):
        world = World()
        world.receive("A", 1)
        world.set_policy("A", selling=SellingState.SUSPENDED, limit=1)
        assert world.reserve(("A", 9), always=True).ok
        assert world.reserve(("nobody", 1), always=True).refusal == "UNKNOWN_STOCK_KEY"


def test_an_order_of_1_114_lines_is_one_decision():
    world = World()
    for number in range(1_114):
        world.receive(f"S{number}", 1)
    order = world.reserve(*[(f"S{number}", 1) for number in range(1_114)])
    assert order.ok
    assert len(world.get(order).lines) == 1_114
    assert world.confirm(order).ok
    world.check_replay()


def test_below_the_disk_floor_claims_are_refused_and_facts_and_releases_go_on():
    world = World(Rules(doors={"main": Door.WAREHOUSE}))
    world.receive("A", 5)
    held = world.reserve(("A", 1))
    item = world.reserve_item(("A", 1))
    assert world.one(item, accept_claims=False).error == "JOURNAL_FULL"
    told = world.one(world.event(Fact.RECEIPT, "A", 5, 1, "", ""), accept_claims=False)
    assert told.ok
    assert world.release(held).ok
    assert world.ats("A") == 10


def test_a_command_that_raises_changes_nothing_and_the_shard_lives_on(caplog):
    world = World()
    world.receive("A", 5)
    broken = world.reserve_item(("A", 1))
    broken[5][3] = [["0", "\x1fmain\x1fA", "many", 0]]
    answers = world.step(broken, world.reserve_item(("A", 2)))
    assert answers[0].error == "INTERNAL"
    assert answers[1].ok
    assert world.ats("A") == 3
    world.check_replay()


def test_a_refusal_over_several_shards_tells_what_it_saw_of_each():
    world = World()
    world.receive("shoe", 1)
    refused = world.reserve(("shoe", 2), ("hat", 3))
    assert refused.refusal == "UNKNOWN_STOCK_KEY"
    view = refused.reply[2]
    seen = {place[0] for place in (view.position, *view.other_positions)}
    assert seen == {shard_of(stock_key("main", sku), SHARDS) for sku in ("shoe", "hat")}
    assert len(seen) == 2

    world.receive("hat", 3)
    held = world.reserve(("shoe", 1), ("hat", 1))
    for again in (world.release(held, ("1", 2)), world.amend(held, ("0", "shoe", 1), ("1", "hat", 9))):
        view = again.reply[2]
        assert {place[0] for place in (view.position, *view.other_positions)} == seen, again
