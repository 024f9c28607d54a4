"""A transfer is one thing in two warehouses: what left, what came, and what is between them, in whatever order it is told."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from actors.domain.commands import Verb
from actors.domain.outcomes import Disposition, ExceptionKind, Fact
from actors.domain.rules import Rules
from actors.domain.transfers import TRANSFERS_PER_KEY_MAX
from tests.unit.world import World

SELLABLE = int(Disposition.SELLABLE)


def dispatch(world, quantity, transfer="t1", line="1", to="overflow", **options):
    return world.tell(Fact.TRANSFER_DISPATCH, "A", quantity, transfer, line, to, SELLABLE, **options)


def arrive(world, quantity, transfer="t1", line="1", final=False, **options):
    options = {"warehouse": "overflow", **options}
    return world.tell(Fact.TRANSFER_RECEIPT, "A", quantity, transfer, line, "main", final, SELLABLE, **options)


def at_target(world):
    stock = world.stock("A", "overflow")
    return dict(stock.on_hand).get(SELLABLE, 0), stock.in_transit_quantity, world.ats("A", "overflow")


def remembered(world):
    return list(world.engine.books.stock["\x1foverflow\x1fA"].transfers or ())


def short(world, *states):
    return [one for one in world.exceptions(*states) if one.kind == ExceptionKind.TRANSFER_SHORT]


class TestTransfer:
    def test_is_in_transit_between_dispatch_and_receipt_and_sold_nowhere(self):
        world = World()
        world.receive("A", 10)
        assert dispatch(world, 6).outcome == "APPLIED"
        assert (world.ats("A"), at_target(world)) == (4, (0, 6, 0))
        arrive(world, 2)
        assert at_target(world) == (2, 4, 2)
        world.restart()
        arrive(world, 4)
        assert at_target(world) == (6, 0, 6)
        assert world.stock("A", "overflow").transfers == []
        world.check_replay()

    def test_a_receipt_may_overtake_its_dispatch(self):
        world = World()
        world.receive("A", 10)
        arrive(world, 6)
        (view,) = world.stock("A", "overflow").transfers
        assert (view.dispatched_quantity, view.received_quantity, view.in_transit_quantity) == (0, 6, 0)
        dispatch(world, 6)
        assert at_target(world) == (6, 0, 6)
        assert world.engine.books.stock["\x1foverflow\x1fA"].transfers is None

    def test_what_comes_in_short_is_an_exception_until_the_rest_arrives(self):
        world = World()
        world.receive("A", 10)
        dispatch(world, 6)
        told = arrive(world, 4, final=True)
        (opened,) = short(world, 1)
        assert (told.exception, opened.quantity, at_target(world)) == (opened.exception_id, 2, (4, 0, 4))
        assert "2 of 6 units are missing" in opened.message
        world.snapshot()
        world.restart()
        arrive(world, 1)
        assert short(world, 1)[0].quantity == 1
        arrive(world, 1)
        assert (short(world, 1), len(short(world, 2)), at_target(world)) == ([], 1, (6, 0, 6))
        world.check_replay()

    def test_a_last_receipt_before_its_dispatch_says_what_is_missing_once_that_is_told(self):
        world = World()
        world.receive("A", 10)
        arrive(world, 4, final=True)
        assert short(world) == []
        dispatch(world, 6)
        assert [one.quantity for one in short(world, 1)] == [2]

    def test_lines_and_transfers_are_told_apart(self):
        world = World()
        world.receive("A", 10)
        dispatch(world, 3, line="1")
        dispatch(world, 2, line="2")
        dispatch(world, 1, transfer="t2")
        arrive(world, 3, line="1")
        assert at_target(world) == (3, 3, 3)
        items = [int(Verb.LIST_TRANSFERS), -1, 0, 1, []]
        page = world.one([*items, ["", "", "", 1, ""]]).payload
        rest = world.one([*items, ["overflow", "main", "", 10, page.next_page_token]]).payload
        named = [(one.transfer_id, one.transfer_line, one.in_transit_quantity) for one in [*page.items, *rest.items]]
        assert named == [("t1", "2", 2), ("t2", "1", 1)]
        assert world.one([*items, ["main", "", "", 10, ""]]).payload.items == []

    def test_one_that_cannot_be_followed_is_booked_and_somebody_is_told(self):
        for rules, to in ((Rules(catalog_open=False), "overflow"), (Rules(warehouses=frozenset({"main"})), "mars")):
            world = World(rules)
            world.set_gate("A")
            world.receive("A", 10)
            told = dispatch(world, 6, to=to)
            (opened,) = world.exceptions(1)
            assert (told.outcome, told.exception) == ("APPLIED", opened.exception_id)
            assert (opened.kind, world.on_hand("A")) == (ExceptionKind.TRANSFER_KEY_UNKNOWN, 4)
            world.check_replay()

    def test_there_are_not_endlessly_many_and_closed_ones_are_forgotten(self):
        world = World()
        world.receive("A", 2 * TRANSFERS_PER_KEY_MAX)
        for number in range(TRANSFERS_PER_KEY_MAX):
            dispatch(world, 1, transfer=f"t{number}")
        refused = dispatch(world, 1, transfer="one more")
        assert [one.kind for one in world.exceptions(1)] == [ExceptionKind.TRANSFER_KEY_UNKNOWN]
        assert refused.outcome == "APPLIED"
        arrive(world, 1, transfer="t0", final=True)
        world.pass_ms(world.rules.history_ms + 1)
        dispatch(world, 1, transfer="after the closed one was forgotten")
        assert len(world.exceptions(1)) == 1

    def test_receipts_whose_dispatch_nobody_tells_do_not_stand_in_the_way(self):
        world = World()
        for number in range(TRANSFERS_PER_KEY_MAX + 20):
            assert arrive(world, 1, transfer=f"t{number}").exception == ""
            world.now_ms += 1
        kept = remembered(world)
        assert len(kept) == TRANSFERS_PER_KEY_MAX
        assert "t0\x1f1" not in kept
        world.pass_ms(world.rules.history_ms + 1)
        arrive(world, 1, transfer="the next")
        assert remembered(world) == ["the next\x1f1"]
        world.check_replay()

    def test_what_came_in_short_is_kept_until_somebody_looked_at_it(self):
        world = World()
        world.receive("A", 10)
        dispatch(world, 6)
        arrive(world, 4, final=True)
        world.pass_ms(world.rules.history_ms + 1)
        dispatch(world, 1, transfer="t2")
        assert [one.quantity for one in short(world, 1)] == [2]
        arrive(world, 2)
        assert short(world, 1) == []

    def test_not_endlessly_many_exceptions_are_opened(self):
        world = World(Rules(warehouses=frozenset({"main"}), exceptions_open_max=3))
        world.receive("A", 10)
        told = [dispatch(world, 1, transfer=f"t{number}", to="mars") for number in range(5)]
        assert [bool(one.exception) for one in told] == [True, True, True, False, False]
        assert world.on_hand("A") == 5

    def test_pages_of_a_list_neither_skip_nor_repeat(self):
        world = World()
        for sku in ("A", "A!", "B"):
            for number in range(5):
                world.tell(
                    Fact.TRANSFER_DISPATCH, sku, 1, f"t{number}", "", "overflow", SELLABLE, event=f"{sku} {number}"
                )
        found, token = [], ""
        while True:
            page = world.one([int(Verb.LIST_TRANSFERS), -1, 0, 1, [], ["", "", "", 2, token]]).payload
            found += [(one.stock_key, one.transfer_id) for one in page.items]
            token = page.next_page_token
            if not token:
                break
        assert len(found) == len(set(found)) == 15
        one = world.one([int(Verb.LIST_TRANSFERS), -1, 0, 1, [], ["", "", "t3", 100, ""]]).payload
        assert [view.transfer_id for view in one.items] == ["t3"] * 3

    @given(
        st.lists(st.integers(1, 9), min_size=1, max_size=4),
        st.lists(st.integers(1, 9), max_size=4),
        st.booleans(),
        st.randoms(use_true_random=False),
    )
    def test_ends_the_same_in_whatever_order_it_is_told(self, sent, came, closed, draw):
        def told(shuffle):
            world = World()
            tellings = [partial(dispatch, world, units) for units in sent]
            for place, units in enumerate(came, 1):
                tellings.append(partial(arrive, world, units, final=closed and place == len(came)))
            if shuffle:
                draw.shuffle(tellings)
            for telling in tellings:
                telling()
            on_hand, in_transit, _ = at_target(world)
            missing = sum(one.quantity for one in short(world, 1))
            return on_hand, world.on_hand("A"), in_transit, missing

        expected = (
            sum(came),
            -sum(sent),
            0 if closed and came else max(0, sum(sent) - sum(came)),
            max(0, sum(sent) - sum(came)) if closed and came else 0,
        )
        assert told(shuffle=False) == expected
        assert told(shuffle=True) == expected
