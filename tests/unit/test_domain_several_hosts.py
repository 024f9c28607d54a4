"""Orders whose lines live on several hosts: decided by their home alone, whole or not at all, whoever is silent."""

from __future__ import annotations

import pytest

from actors.domain.keys import stock_key
from actors.domain.outcomes import Door, ErrorReason, FillPolicy
from actors.domain.rules import Rules
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from actors.shard.placement import shard_of
from tests.unit.spread_world import SpreadWorld
from tests.unit.world import SHARDS


def skus_apart() -> tuple[str, str]:
    """Two SKUs of one warehouse, the first of which is at home where an order has both, the other on the other host."""
    found: dict[int, str] = {}
    for number in range(100):
        sku = f"S{number:02}"
        found.setdefault(shard_of(stock_key("main", sku), SHARDS) % 2, sku)
        if len(found) == 2:
            return (found[0], found[1]) if found[0] < found[1] else (found[1], found[0])
    raise AssertionError("all on one host")


NEAR, FAR = skus_apart()


@pytest.fixture
def world():
    world = SpreadWorld()
    world.receive(NEAR, 10)
    world.receive(FAR, 10)
    yield world
    judge(world)


def judge(world: SpreadWorld) -> None:
    """At rest nothing is half done."""
    world.settle()
    assert not world.operations_open
    assert not world.errands_open
    world.check_replay()
    report = verify(MemoryJournal(world.store))
    assert not report.violations, report.violations[:5]
    assert report.oversells == 0


def test_an_order_over_two_hosts_is_granted_whole(world):
    order = world.reserve((NEAR, 3), (FAR, 4))
    assert order.state == "HELD"
    assert (world.ats(NEAR), world.ats(FAR)) == (7, 6)
    assert [line.granted_quantity for line in world.get(order).lines] == [3, 4]
    assert len(world.get(order).other_positions) == 1


def test_an_order_that_falls_short_on_the_other_host_is_refused_and_leaves_nothing(world):
    order = world.reserve((NEAR, 3), (FAR, 11))
    assert order.refusal == "INSUFFICIENT_STOCK"
    assert [shortage[:4] for shortage in order.shortages] == [("1", stock_key("main", FAR), 11, 10)]
    assert (world.ats(NEAR), world.ats(FAR)) == (10, 10)


def test_an_order_that_falls_short_at_home_is_refused_without_asking(world):
    order = world.reserve((NEAR, 11), (FAR, 3))
    assert order.refusal == "INSUFFICIENT_STOCK"
    assert not world.errands_open
    assert world.ats(FAR) == 10


def test_whole_lines_and_part_quantities_are_filled_as_far_as_they_go(world):
    order = world.reserve((NEAR, 3), (FAR, 11), fill=FillPolicy.WHOLE_LINES)
    assert [line.granted_quantity for line in order.payload.lines] == [3, 0]
    order = world.reserve((NEAR, 8), (FAR, 11), fill=FillPolicy.PARTIAL_QUANTITIES)
    assert [line.granted_quantity for line in order.payload.lines] == [7, 10]
    assert world.reserve((NEAR, 1), (FAR, 1), fill=FillPolicy.PARTIAL_QUANTITIES).refusal == "INSUFFICIENT_STOCK"
    assert (world.ats(NEAR), world.ats(FAR)) == (0, 0)


def test_a_sale_made_elsewhere_is_recorded_whole_and_what_was_not_there_is_shown(world):
    order = world.reserve((NEAR, 3), (FAR, 12), always=True, confirm=True)
    assert [line.uncovered_quantity for line in order.payload.lines] == [0, 2]
    assert len(world.exceptions()) == 1


def test_an_unknown_stock_key_on_the_other_host_refuses_the_order(world):
    assert world.reserve((NEAR, 3), (FAR, 2), ("nowhere", 1)).refusal == "UNKNOWN_STOCK_KEY"
    assert (world.ats(NEAR), world.ats(FAR)) == (10, 10)


def test_an_order_whose_other_host_is_silent_is_given_up_and_may_be_tried_again(world):
    world.silent = {0, 1}
    order = world.reserve((NEAR, 3), (FAR, 4), request="again")
    assert order.error == "SHARD_UNAVAILABLE"
    assert world.ats(NEAR) == 10
    world.silent = set()
    world.pass_ms(10_000)
    assert (world.ats(NEAR), world.ats(FAR)) == (10, 10)
    assert world.reserve((NEAR, 3), (FAR, 4), request="again").state == "HELD"
    assert (world.ats(NEAR), world.ats(FAR)) == (7, 6)


def test_the_same_request_gives_the_same_order(world):
    first = world.reserve((NEAR, 3), (FAR, 4), request="once")
    second = world.reserve((NEAR, 3), (FAR, 4), request="once")
    assert second.replayed
    assert second.id == first.id
    assert [line.granted_quantity for line in second.payload.lines] == [3, 4]
    assert world.reserve((NEAR, 3), (FAR, 5), request="once").error == "REQUEST_ID_REUSED"
    assert (world.ats(NEAR), world.ats(FAR)) == (7, 6)


def test_a_refusal_of_a_confirmed_order_spends_its_id(world):
    first = world.reserve((NEAR, 3), (FAR, 11), confirm=True, request="once")
    assert first.refusal == "INSUFFICIENT_STOCK"
    world.receive(FAR, 5)
    again = world.reserve((NEAR, 3), (FAR, 11), confirm=True, request="once")
    assert again.refusal == "INSUFFICIENT_STOCK"
    assert again.replayed


def test_an_order_is_confirmed_on_both_hosts(world):
    order = world.reserve((NEAR, 3), (FAR, 4))
    confirmed = world.confirm(order, order="A-1", request="c")
    assert confirmed.state == "CONFIRMED"
    assert [line.granted_quantity for line in confirmed.payload.lines] == [3, 4]
    assert (world.stock(NEAR).confirmed_quantity, world.stock(FAR).confirmed_quantity) == (3, 4)
    assert world.confirm(order, order="A-1", request="c").replayed
    assert world.confirm(order).refusal == "RESERVATION_ALREADY_CONFIRMED"
    world.pass_ms(120_000)
    assert world.state(order) == "CONFIRMED"


def test_an_order_is_released_whole_or_in_part(world):
    order = world.reserve((NEAR, 3), (FAR, 4))
    part = world.release(order, ("1", 3))
    assert [line.released_quantity for line in part.payload.lines] == [0, 3]
    assert world.release(order, ("1", 2)).refusal == "QUANTITY_EXCEEDS_OPEN"
    assert world.release(order, request="r").state == "RELEASED"
    assert (world.ats(NEAR), world.ats(FAR)) == (10, 10)
    assert world.release(order, request="r").replayed
    assert world.release(order).refusal == "RESERVATION_RELEASED"
    assert world.confirm(order).refusal == "RESERVATION_RELEASED"


def test_a_hold_expires_on_both_hosts(world):
    order = world.reserve((NEAR, 3), (FAR, 4), ttl_ms=60_000)
    assert world.extend(order, 90_000).state == "HELD"
    world.pass_ms(60_001)
    assert world.state(order) == "HELD"
    world.pass_ms(30_000)
    assert (world.ats(NEAR), world.ats(FAR)) == (10, 10)
    assert world.state(order) == "EXPIRED"
    assert [line.expired_quantity for line in world.get(order).lines] == [3, 4]
    assert world.confirm(order).refusal == "RESERVATION_EXPIRED"


def test_an_ended_order_leaves_memory_on_both_hosts_and_is_still_known(world):
    order = world.reserve((NEAR, 3), (FAR, 4), request="once")
    world.release(order)
    world.pass_ms(world.rules.dedupe_memory_ms + 1)
    assert not any(host.engine.books.reservations for host in world.hosts)
    assert not any(actor.claims for host in world.hosts for actor in host.engine.books.stock.values())
    assert [line.released_quantity for line in world.get(order).lines] == [3, 4]
    assert world.reserve((NEAR, 3), (FAR, 4), request="once").replayed


def test_a_release_by_request_id_finds_the_order(world):
    world.reserve((NEAR, 3), (FAR, 4), request="lost")
    assert world.release_by_request("lost", NEAR).state == "RELEASED"
    assert (world.ats(NEAR), world.ats(FAR)) == (10, 10)


# --- shipments and amends ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ordering():
    """Order management tells of shipments."""
    world = SpreadWorld(Rules(doors={"main": Door.ORDER_MANAGEMENT}))
    world.receive(NEAR, 10)
    world.receive(FAR, 10)
    yield world
    judge(world)


def test_order_management_ships_lines_on_both_hosts(ordering):
    order = ordering.reserve((NEAR, 3), (FAR, 4), confirm=True)
    part = ordering.fulfill(order, "S1", ("0", 1), ("1", 2), request="f")
    assert [line.fulfilled_quantity for line in part.payload.lines] == [1, 2]
    assert ordering.fulfill(order, "S1", ("0", 1), ("1", 2), request="f").replayed
    assert ordering.fulfill(order, "S1", ("1", 2)).state == "CONFIRMED"  # told again: booked once
    assert ordering.fulfill(order, "S2", ("1", 3)).refusal == "QUANTITY_EXCEEDS_OPEN"
    rest = ordering.fulfill(order, "S3", ("1", 1), close=True)
    assert rest.state == "FULFILLED"
    assert [line.released_quantity for line in rest.payload.lines] == [2, 1]
    assert (ordering.ats(NEAR), ordering.ats(FAR)) == (9, 7)
    assert (ordering.on_hand(NEAR), ordering.on_hand(FAR)) == (9, 7)


def test_a_shipment_told_with_another_quantity_is_an_exception_on_its_host(ordering):
    order = ordering.reserve((NEAR, 3), (FAR, 4), confirm=True)
    ordering.fulfill(order, "S1", ("1", 2))
    ordering.fulfill(order, "S1", ("1", 3))
    assert ordering.on_hand(FAR) == 8
    assert len(ordering.exceptions()) == 1


def test_a_warehouse_ships_what_has_its_home_on_another_host(world):
    order = world.reserve((NEAR, 3), (FAR, 4), confirm=True, order="A-1")
    world.ship(FAR, 4, "S1", ("web", "A-1"))
    world.settle()
    assert [line.fulfilled_quantity for line in world.get(order).lines] == [0, 4]
    assert world.state(order) == "CONFIRMED"
    world.ship(NEAR, 3, "S1", order)
    assert world.state(order) == "FULFILLED"


def test_a_shipment_that_is_faster_than_a_release_ends_its_units(world):
    order = world.reserve((NEAR, 3), (FAR, 4), confirm=True)
    world.silent = {0, 1}
    assert world.send(world.release_item(order)) is None  # begun; the other host has not heard of it
    world.ship(FAR, 3, "S1", order)
    world.silent = set()
    world.settle()
    assert world.state(order) == "FULFILLED"
    assert [line.fulfilled_quantity for line in world.get(order).lines] == [0, 3]
    assert [line.released_quantity for line in world.get(order).lines] == [3, 1]


def test_a_shipment_that_is_faster_than_the_deadline_is_told_before_the_hold_ends(world):
    order = world.reserve((NEAR, 3), (FAR, 4))
    world.silent = {0, 1}
    world.ship(FAR, 4, "S1", order)
    world.pass_ms(60_000)
    world.silent = set()
    world.settle()
    assert world.state(order) == "FULFILLED"
    assert [line.expired_quantity for line in world.get(order).lines] == [3, 0]


def test_another_call_waits_while_one_is_under_way(world):
    order = world.reserve((NEAR, 3), (FAR, 4))
    world.silent = {0, 1}
    assert world.send(world.confirm_item(order, request="c")) is None
    assert world.send(world.confirm_item(order, request="c")) is None  # the same one waits with it
    assert world.send(world.release_item(order))[1] == ErrorReason.BUSY
    world.silent = set()
    world.settle()
    assert world.confirm(order, request="c").replayed


def test_an_amend_moves_units_between_hosts(world):
    order = world.reserve((NEAR, 3), (FAR, 4))
    amended = world.amend(order, ("0", FAR, 3), ("1", NEAR, 6))
    assert amended.ok
    assert (world.ats(NEAR), world.ats(FAR)) == (4, 7)
    assert world.amend(order, ("0", FAR, 30), ("1", NEAR, 7), request="a").refusal == "INSUFFICIENT_STOCK"
    assert (world.ats(NEAR), world.ats(FAR)) == (4, 7)
    assert world.amend(order, ("0", FAR, 30), ("1", NEAR, 7), request="a").replayed
    world.release(order)
    assert (world.ats(NEAR), world.ats(FAR)) == (10, 10)


def test_units_shipped_while_an_amend_moves_them_are_released_from_the_increase(world):
    order = world.reserve((NEAR, 1, "a"), (FAR, 4, "b"), confirm=True)
    world.silent = {0, 1}
    assert world.send(world.amend_item(order, ("b", NEAR, 4))) is None
    world.ship(FAR, 3, "S1", order)
    world.silent = set()
    world.settle()
    lines = {(line.line_id, line.stock_key): line for line in world.get(order).lines}
    assert lines["b", stock_key("main", FAR)].fulfilled_quantity == 3
    there = lines["b", stock_key("main", NEAR)]
    assert there.granted_quantity - there.released_quantity == 1
    assert (world.ats(NEAR), world.ats(FAR)) == (8, 7)


def test_a_hold_is_replaced_over_two_hosts_and_kept_when_that_is_refused(world):
    old = world.reserve((NEAR, 8), (FAR, 8))
    assert world.reserve((NEAR, 9), (FAR, 11), replaces=old.id).refusal == "INSUFFICIENT_STOCK"
    assert world.state(old) == "HELD"
    new = world.reserve((NEAR, 9), (FAR, 3), replaces=old.id)
    assert [line.granted_quantity for line in new.payload.lines] == [9, 3]
    assert world.state(old) == "RELEASED"
    assert (world.ats(NEAR), world.ats(FAR)) == (1, 7)


def test_shards_that_come_together_and_part_again_make_no_difference(world):
    order = world.reserve((NEAR, 3), (FAR, 4))
    world.deal([list(range(SHARDS)), []])
    assert world.confirm(order).state == "CONFIRMED"
    world.deal([[shard for shard in range(SHARDS) if shard % 2 == host] for host in (1, 0)])
    assert world.release(order).state == "RELEASED"
    assert (world.ats(NEAR), world.ats(FAR)) == (10, 10)


def test_a_home_that_ends_in_the_middle_is_gone_on_with_by_its_successor(world):
    world.silent = {0, 1}
    assert world.send(world.reserve_item((NEAR, 3), (FAR, 4), request="r")) is None
    world.restart_all()
    assert world.send(world.reserve_item((NEAR, 3), (FAR, 4), request="r")) is None
    world.silent = set()
    world.settle()
    assert world.reserve((NEAR, 3), (FAR, 4), request="r").replayed
    assert (world.ats(NEAR), world.ats(FAR)) == (7, 6)
