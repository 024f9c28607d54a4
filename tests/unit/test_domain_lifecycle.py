"""The life of a reservation: HELD is left once, a unit ends once, deadlines are exact."""

from __future__ import annotations

import pytest

from actors.domain.outcomes import Door, SellingState
from actors.domain.rules import Rules
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from tests.unit.world import World


@pytest.fixture
def world():
    made = World()
    made.receive("A", 10)
    made.receive("B", 10)
    return made


class TestExpiry:
    def test_is_exact_to_the_millisecond(self, world):
        held = world.reserve(("A", 4), ttl_ms=1_000)
        world.pass_ms(999)
        assert (world.state(held), world.ats("A")) == ("HELD", 6)
        world.pass_ms(1)
        assert (world.state(held), world.ats("A")) == ("EXPIRED", 10)
        world.restart()
        assert world.state(held) == "EXPIRED"

    def test_confirm_at_the_same_instant_comes_too_late(self, world):
        held = world.reserve(("A", 4), ttl_ms=1_000)
        world.now_ms += 1_000
        late = world.confirm(held)
        assert (late.refusal, late.state) == ("RESERVATION_EXPIRED", "EXPIRED")
        assert world.ats("A") == 10

    def test_confirm_a_millisecond_before_wins(self, world):
        held = world.reserve(("A", 4), ttl_ms=1_000)
        world.now_ms += 999
        assert world.confirm(held).ok
        world.pass_ms(60_000)
        assert (world.state(held), world.ats("A")) == ("CONFIRMED", 6)

    def test_a_claim_that_would_be_refused_gets_what_is_due_first(self, world):
        small = World(Rules(expiries_per_turn_max=0))
        small.receive("A", 1)
        small.reserve(("A", 1), ttl_ms=1_000)
        small.now_ms += 1_000
        assert small.reserve(("A", 1)).ok
        small.check_replay()

    def test_deadlines_that_passed_while_nobody_owned_get_a_grace(self, world):
        held = world.reserve(("A", 4), ttl_ms=1_000)
        world.now_ms += 60_000
        world.restart()
        assert world.state(held) == "HELD"
        world.pass_ms(world.rules.takeover_grace_ms)
        assert world.state(held) == "EXPIRED"
        world.check_replay()

    def test_what_got_a_grace_gives_its_units_back_without_being_asked(self, world):
        world.reserve(("A", 4), ttl_ms=1_000)
        world.now_ms += 60_000
        world.restart()
        world.pass_ms(1)
        assert world.ats("A") == 6
        world.pass_ms(world.rules.takeover_grace_ms)
        assert world.ats("A") == 10

    def test_extend_moves_it_later_never_earlier_and_within_a_lifetime(self, world):
        held = world.reserve(("A", 4), ttl_ms=10_000)
        assert world.extend(held, 5_000).payload.expire_time_ms == world.now_ms + 10_000
        assert world.extend(held, 20_000).payload.expire_time_ms == world.now_ms + 20_000
        world.pass_ms(15_000)
        assert world.state(held) == "HELD"
        assert world.extend(held, world.rules.lifetime_ms_max).refusal == "LIFETIME_EXCEEDED"
        world.pass_ms(5_000)
        assert world.state(held) == "EXPIRED"
        world.check_replay()

    def test_an_extended_hold_gives_its_units_back_at_its_new_deadline_without_being_asked(self, world):
        held = world.reserve(("A", 4), ttl_ms=1_000)
        world.extend(held, 5_000)
        world.pass_ms(1_000)
        assert world.engine.wakeup_ms() == world.now_ms + 4_000
        world.pass_ms(4_000)
        assert world.ats("A") == 10

    def test_a_clock_that_goes_back_brings_no_hold_back_and_no_record_before_the_last(self, world):
        held = world.reserve(("A", 4), ttl_ms=1_000)
        world.pass_ms(1_000)
        world.now_ms -= 500
        assert world.confirm(held).refusal == "RESERVATION_EXPIRED"
        later = world.reserve(("A", 4), ttl_ms=1_000)
        assert later.payload.create_time_ms == world.now_ms + 500
        world.now_ms -= 500
        world.restart()
        assert world.engine.now_ms == later.payload.create_time_ms
        assert verify(MemoryJournal(world.store)).violations == []


class TestRelease:
    def test_twice_is_refused_and_the_same_id_is_repeated(self, world):
        held = world.reserve(("A", 4))
        first = world.release(held, request="x")
        assert first.state == "RELEASED"
        assert world.release(held, request="x").replayed
        assert world.release(held).refusal == "RESERVATION_RELEASED"
        assert world.confirm(held).refusal == "RESERVATION_RELEASED"
        assert world.ats("A") == 10

    def test_in_part_with_reasons(self, world):
        held = world.reserve(("A", 4, "a"), ("B", 2, "b"))
        world.confirm(held)
        assert world.release(held, ("a", 5)).refusal == "QUANTITY_EXCEEDS_OPEN"
        assert world.release(held, ("a", 2), ("a", 3)).refusal == "QUANTITY_EXCEEDS_OPEN"
        assert world.release(held, ("a", 3)).ok
        assert (world.ats("A"), world.ats("B"), world.state(held)) == (9, 8, "CONFIRMED")
        assert world.release(held, ("a", 1), ("b", 2)).state == "RELEASED"
        assert (world.ats("A"), world.ats("B")) == (10, 10)
        world.check_replay()

    def test_by_request_id_before_during_and_after_its_reserve(self, world):
        before = world.release_by_request("x", "A", request="rel")
        assert (before.payload.reservation_id, before.state, list(before.payload.lines)) == ("", "RELEASED", [])
        assert world.reserve(("A", 4), request="x").refusal == "RESERVATION_RELEASED"
        assert world.release_by_request("x", "A", request="rel").replayed
        item = world.reserve_item(("A", 4), request="y")
        reserved = world.step(item)[0]
        after = world.release_by_request("y", "A")
        assert (after.id, after.state) == (reserved.id, "RELEASED")
        assert world.ats("A") == 10
        world.restart()
        assert world.reserve(("A", 4), request="x").refusal == "RESERVATION_RELEASED"

    def test_a_late_reserve_is_refused_with_all_that_its_release_and_others_had_seen(self, world):
        released = world.release_by_request("x", "A")
        late = world.reserve(("A", 4), request="x")
        assert (late.refusal, late.replayed) == ("RESERVATION_RELEASED", False)
        assert late.reply[2].position[:3] == released.payload.position[:3]
        since = world.reserve(("A", 4))
        assert world.reserve(("A", 4), request="x").reply[2].position[:3] == since.payload.position[:3]


class TestVersions:
    def test_the_expected_one_or_a_refusal(self, world):
        held = world.reserve(("A", 4))
        assert world.confirm(held, version=7).refusal == "VERSION_MISMATCH"
        assert world.confirm(held, version=1).payload.version == 2

    def test_an_unknown_reservation_is_an_error(self, world):
        assert world.confirm("1-t1-3-77").error == "RESERVATION_NOT_FOUND"
        assert world.confirm("1-other-3-1").error == "RESERVATION_NOT_FOUND"


class TestAmend:
    def test_up_down_and_own_claims_count_as_available(self, world):
        order = world.reserve(("A", 8, "a"), ("B", 5, "b"))
        assert world.amend(order, ("a", "A", 11)).refusal == "INSUFFICIENT_STOCK"
        assert world.amend(order, ("a", "A", 10), ("b", "B", 1)).ok
        assert (world.ats("A"), world.ats("B")) == (0, 9)
        assert world.get(order).version == 2
        world.check_replay()

    def test_all_or_nothing_and_a_refusal_spends_the_id(self, world):
        order = world.reserve(("A", 8, "a"), ("B", 5, "b"))
        refused = world.amend(order, ("a", "A", 11), ("b", "B", 1), request="x")
        assert refused.refusal == "INSUFFICIENT_STOCK"
        world.receive("A", 5)
        assert world.amend(order, ("a", "A", 11), ("b", "B", 1), request="x").replayed
        assert (world.ats("A"), world.ats("B")) == (7, 5)

    def test_units_move_between_lines_of_one_sku_undecided(self, world):
        order = world.reserve(("A", 10, "a"))
        assert world.amend(order, ("a", "A", 4), ("a2", "A", 6)).ok
        assert world.ats("A") == 0
        world.check_replay()

    def test_a_suspended_key_keeps_what_it_has_but_gives_no_more(self, world):
        order = world.reserve(("A", 5, "a"))
        world.set_policy("A", selling=SellingState.SUSPENDED)
        assert world.amend(order, ("a", "A", 6)).refusal == "SELLING_SUSPENDED"
        assert world.amend(order, ("a", "A", 3)).ok

    def test_safety_stock_counts_for_the_excess(self, world):
        order = world.reserve(("A", 5, "a"))
        world.set_policy("A", safety=4)
        assert world.amend(order, ("a", "A", 7)).refusal == "INSUFFICIENT_STOCK"
        assert world.amend(order, ("a", "A", 6)).ok

    def test_never_below_what_is_fulfilled_and_a_moved_line_keeps_it_there(self):
        world = World(Rules(doors={"main": Door.ORDER_MANAGEMENT}))
        world.receive("A", 10)
        world.receive("A", 10, warehouse="other")
        order = world.reserve(("A", 6, "a"), confirm=True)
        assert world.fulfill(order, "s1", ("a", 2)).ok
        assert world.amend(order, ("a", "A", 1)).refusal == "BELOW_FULFILLED"
        assert world.amend(order, remove=("a",)).refusal == "BELOW_FULFILLED"
        assert world.amend(order, ("a", "A", 6, "other")).ok
        lines = world.get(order).lines
        assert [
            (line.stock_key.split("\x1f")[1], line.requested_quantity, line.fulfilled_quantity) for line in lines
        ] == [
            ("main", 2, 2),
            ("other", 4, 0),
        ]
        assert (world.ats("A"), world.ats("A", "other")) == (8, 6)
        world.restart()
        assert world.state(order) == "CONFIRMED"

    def test_lines_are_added_and_removed_and_none_left_ends_it(self, world):
        order = world.reserve(("A", 5, "a"))
        assert world.amend(order, ("b", "B", 2), remove=("a",)).ok
        assert (world.ats("A"), world.ats("B")) == (10, 8)
        assert world.amend(order, remove=("zz",)).error == "INVALID_FIELD"
        assert world.amend(order, remove=("b",)).state == "RELEASED"
        assert world.state(order) == "RELEASED"
        world.check_replay()

    def test_an_imposed_claim_keeps_its_mark_when_it_moves_between_lines(self, world):
        order = world.reserve(("A", 14, "a"), always=True, confirm=True)
        assert world.amend(order, ("a", "A", 4), ("c", "A", 10)).ok
        assert [line.imposed for line in world.get(order).lines] == [True, True]
        assert world.engine.books.oversells == 0
        assert world.stock("A").shortage_quantity == 4
        world.check_replay()
