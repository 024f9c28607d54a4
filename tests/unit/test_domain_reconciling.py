"""Reconciliations: lines against the books of now, orders, channels; idempotent, durable, bounded in time."""

from __future__ import annotations

import pytest

from actors.domain.answers import ERROR
from actors.domain.commands import Verb
from actors.domain.keys import stock_key
from actors.domain.outcomes import ErrorReason
from actors.domain.reconciliation_state import Counts
from actors.domain.reconciliation_views import FindingView, LineView, ReconciliationView
from actors.domain.reconciliation_words import (
    FindingKind,
    FindingState,
    LineProblem,
    ReconciliationState,
    RequestReason,
)
from actors.domain.rules import Rules
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from actors.shard.placement import shard_of
from tests.unit.test_domain_resolving import DISCARD, RETRY, resolve
from tests.unit.world import SHARDS, World

STOCK, ORDERS, CHANNEL = 1, 2, 3
DAY_MS = 24 * 3600 * 1000
RUN = "rc-1-7-1"


def header(units=0, permille=0, beyond=1, as_of=0, time_ms=0):
    return ["wms" if as_of else "", "", as_of, time_ms, units, permille, beyond, 1, ""]


class Desk:
    """Reconciles in a world."""

    def __init__(self, world, run=RUN, **options):
        self.world = world
        self.run = run
        self.header = header(**options)

    def ask(self, verb, shard, body):
        (answer,) = self.world.step([int(verb), shard, 0, 1, [], body])
        return answer.reply

    def begin(self, kind=STOCK, request_id="q1", digest=b"d" * 16, warehouse="main"):
        shard = int(self.run.split("-")[2])
        return self.ask(Verb.BEGIN_RECONCILIATION, shard, [request_id, digest, self.run, warehouse, kind, self.header])

    def finish(self, state=3, request_id="q1"):
        shard = int(self.run.split("-")[2])
        return self.ask(
            Verb.FINISH_RECONCILIATION, shard, [request_id, self.run, state, list(Counts(lines=1, matches=1)), ""]
        )

    def line(self, sku, *rest, kind=STOCK, dry_run=False):
        key = stock_key("main", sku)
        body = ["q1", self.run, kind, self.header, dry_run, [[key, *rest]]]
        reply = self.ask(Verb.RECONCILE_LINES, shard_of(key, SHARDS), body)
        assert reply[0] == 0, reply
        ((result,), _) = reply[2]
        return 0 if result == 0 else LineView(*result)

    def count(self, sku, quantity, disposition=1, includes_picked=True, dry_run=False):
        return self.line(sku, disposition, quantity, includes_picked, dry_run=dry_run)

    def findings(self):
        page = self.ask(Verb.LIST_FINDINGS, -1, [self.run, [], 100, ""])[2]
        return [FindingView(*one) for one in page[0]]


@pytest.fixture
def world():
    made = World()
    made.receive("A", 10)
    return made


def events_of(world):
    return sum(shard.sequence for shard in world.engine.books.shards.values())


def test_a_line_that_matches_journals_nothing(world):
    before = events_of(world)
    assert Desk(world).count("A", 10) == 0
    assert Desk(world).count("NEVER HEARD OF", 0) == 0
    assert events_of(world) == before


def test_a_difference_within_the_tolerance_is_booked_once(world):
    desk = Desk(world, units=2)
    first = desk.count("A", 9)
    assert (first.kind, first.state, first.expected, first.booked) == (
        FindingKind.GENUINE_DRIFT,
        FindingState.BOOKED,
        10,
        -1,
    )
    assert world.ats("A") == 9
    assert desk.count("A", 9) == first
    assert world.ats("A") == 9
    world.restart()
    assert desk.count("A", 9) == first


def test_the_tolerance_is_the_larger_of_units_and_permille(world):
    assert Desk(world, units=1, permille=200).count("A", 8).state == FindingState.BOOKED
    assert Desk(world, run="rc-2-7-1", units=1, permille=100).count("A", 5).state == FindingState.QUARANTINED


def test_beyond_the_tolerance_nothing_is_booked_and_selling_is_suspended(world):
    found = Desk(world, units=2).count("A", 7)
    assert found.state == FindingState.QUARANTINED
    assert world.ats("A") == 0
    actor = world.engine.books.stock[stock_key("main", "A")]
    assert actor.sellable == 10
    exception = actor.shard.exceptions[found.exception_id]
    assert "7 counted, 10 in the books" in exception.fields[2]
    assert exception.quantity == 3
    world.restart()


def exception_of(world, found):
    return next(
        shard.exceptions[found.exception_id]
        for shard in world.engine.books.shards.values()
        if found.exception_id in shard.exceptions
    )


def decide(world, action, found):
    """Somebody resolves the exception of a difference; empty, or the error."""
    return resolve(world, found.exception_id, action).error


def test_an_accepted_count_is_booked_and_the_stock_key_is_sold_again(world):
    found = Desk(world).count("A", 7)
    world.receive("A", 2)  # since then
    assert decide(world, RETRY, found) == ""
    assert world.ats("A") == 9
    assert decide(world, RETRY, found) == "EXCEPTION_ENDED"
    world.restart()


def test_a_discarded_count_leaves_the_books_and_the_stock_key_is_sold_again(world):
    found = Desk(world).count("A", 7)
    assert decide(world, DISCARD, found) == ""
    assert world.ats("A") == 10
    world.restart()


def test_what_an_operator_suspended_is_not_sold_again(world):
    world.set_policy("A", selling=2)
    found = Desk(world).count("A", 7)
    assert decide(world, DISCARD, found) == ""
    assert world.ats("A") == 0


def test_a_stock_key_is_sold_again_when_its_last_difference_has_ended(world):
    first = Desk(world).count("A", 7)
    other = Desk(world).count("A", 3, disposition=3)
    decide(world, DISCARD, first)
    assert world.ats("A") == 0
    decide(world, RETRY, other)
    assert (world.ats("A"), world.on_hand("A", 3)) == (10, 3)
    world.restart()


def test_a_later_list_that_agrees_ends_an_earlier_difference(world):
    found = Desk(world).count("A", 7)
    world.pass_ms(1)
    assert Desk(world, run="rc-2-7-1").count("A", 10) == 0
    assert world.ats("A") == 10
    assert exception_of(world, found).state == 2
    world.restart()


def test_a_later_list_that_differs_again_takes_the_place_of_the_earlier_one(world):
    first = Desk(world).count("A", 7)
    world.pass_ms(1)
    again = Desk(world, run="rc-2-7-1").count("A", 6)
    assert (exception_of(world, first).state, exception_of(world, again).state) == (2, 1)
    assert world.ats("A") == 0
    decide(world, RETRY, again)
    assert world.ats("A") == 6
    world.restart()


def test_report_only_leaves_selling_alone(world):
    assert Desk(world, beyond=2).count("A", 7).state == FindingState.REPORTED
    assert world.ats("A") == 10


def test_a_dry_run_journals_nothing(world):
    before = events_of(world)
    assert Desk(world, units=1).count("A", 9, dry_run=True).state == FindingState.WOULD_BOOK
    assert Desk(world).count("A", 1, dry_run=True).state == FindingState.WOULD_QUARANTINE
    assert Desk(world, units=9).count("NEW", 3, dry_run=True).state == FindingState.WOULD_BOOK
    assert events_of(world) == before


def test_a_count_never_overwrites_live_claims_and_uncovers_their_shortage(world):
    world.reserve(("A", 8))
    assert Desk(world, units=10).count("A", 5).booked == -5
    actor = world.engine.books.stock[stock_key("main", "A")]
    assert (actor.sellable, actor.held) == (5, 8)
    assert actor.shortage_exception_id
    assert world.ats("A") == 0


def test_a_line_listed_again_with_another_quantity_fails(world):
    desk = Desk(world, units=5)
    desk.count("A", 9)
    assert desk.count("A", 8).problem == LineProblem.LISTED_TWICE


def test_a_closed_catalog_knows_no_other_keys():
    world = World(Rules(catalog_open=False))
    assert Desk(world).count("A", 3).problem == LineProblem.UNKNOWN_STOCK_KEY


def test_a_rejected_event_is_a_suspect(world):
    world.tell(99, "A", "what", event="e-bad")  # an unknown fact
    found = Desk(world).count("A", 12)
    assert found.kind == FindingKind.MISSED_EVENT_SUSPECTED
    assert "e-bad" in found.suspects[0]


def test_an_order_that_the_erp_has_and_we_do_not(world):
    desk = Desk(world)
    found = desk.line("A", "web", "o-77", 3, kind=ORDERS)
    assert (found.kind, found.found, found.expected) == (FindingKind.CLAIM_MISSING, 3, 0)


def test_orders_are_compared_with_their_open_confirmed_claims(world):
    world.reserve(("A", 3), confirm=True, order="o-1")
    world.reserve(("A", 1), order="o-2")  # a hold is no order yet
    desk = Desk(world)
    assert desk.line("A", "web", "o-1", 3, kind=ORDERS) == 0
    assert desk.line("A", "web", "o-2", 0, kind=ORDERS) == 0
    other = Desk(world, run="rc-2-7-1")
    assert other.line("A", "web", "o-1", 4, kind=ORDERS).kind == FindingKind.CLAIM_QUANTITY_DIFFERS
    third = Desk(world, run="rc-3-7-1")
    assert third.line("A", "web", "o-1", 0, kind=ORDERS).kind == FindingKind.CLAIM_EXCESS
    late = Desk(world, run="rc-4-7-1", time_ms=world.now_ms - 1)
    assert late.line("A", "web", "o-1", 0, kind=ORDERS).kind == FindingKind.TIMING
    world.restart()


def test_what_a_channel_shows_is_compared_with_what_it_may_sell(world):
    assert Desk(world).line("A", 10, kind=CHANNEL) == 0
    assert Desk(world, units=2).line("A", 12, kind=CHANNEL) == 0
    assert Desk(world).line("A", 12, kind=CHANNEL).kind == FindingKind.CHANNEL_SHOWS_MORE
    assert Desk(world, run="rc-2-7-1").line("A", 3, kind=CHANNEL).kind == FindingKind.CHANNEL_SHOWS_LESS


def test_the_same_request_goes_on_and_a_done_one_stays_done(world):
    desk = Desk(world)
    assert ReconciliationView(*desk.begin()[2]).state == ReconciliationState.RUNNING
    world.restart()
    again = desk.begin()
    assert again[1]
    assert desk.begin(digest=b"x" * 16)[0] == 2
    assert desk.begin(request_id="q2")[0] == 2
    assert ReconciliationView(*desk.finish()[2]).state == ReconciliationState.DONE
    assert ReconciliationView(*desk.begin()[2]).state == ReconciliationState.DONE
    assert desk.finish()[1]
    world.restart()


def test_counts_that_are_not_the_sum_of_what_became_of_the_lines_end_nothing(world):
    desk = Desk(world)
    desk.begin()
    for counts in ([1, 2000, 0, 0, 0, 0, 0, 0, 0], [1], [0] * 10):
        status, reason, detail, *_ = desk.ask(Verb.FINISH_RECONCILIATION, 7, ["q1", RUN, 3, counts, ""])
        assert (status, reason) == (ERROR, ErrorReason.INVALID_FIELD)
        assert detail.startswith("counts: ")
    assert ReconciliationView(*desk.finish()[2]).state == ReconciliationState.DONE
    world.restart()


def test_a_failed_one_may_be_tried_again(world):
    desk = Desk(world)
    desk.begin()
    desk.finish(state=4)
    assert ReconciliationView(*desk.begin()[2]).state == ReconciliationState.RUNNING
    world.restart()


def test_nobody_may_answer_what_was_not_asked(world):
    reply = Desk(world, run="rq-t1-7-9").begin()
    assert reply[0] == 2


def test_a_schedule_asks_alerts_and_is_answered():
    world = World(Rules(reconciliation_intervals_ms={"main": DAY_MS}, reconciliation_answer_ms_max=3_600_000))
    world.step()
    (asked,) = runs(world)
    assert (asked.state, asked.reason) == (ReconciliationState.REQUESTED, RequestReason.SCHEDULE)
    world.pass_ms(3_599_000)
    assert not runs(world)[0].exception_id
    pass_until_due(world)
    (alerted,) = runs(world)
    assert "nobody has begun" in alert_of(world, alerted).fields[2]
    world.restart()
    desk = Desk(world, run=alerted.reconciliation_id)
    desk.begin()
    desk.finish()
    assert alert_of(world, alerted).state == 2
    world.pass_ms(DAY_MS - 1)
    assert len(runs(world)) == 1
    pass_until_due(world)
    assert [one.state for one in runs(world)] == [ReconciliationState.DONE, ReconciliationState.REQUESTED]
    world.restart()


def test_a_count_that_names_no_request_answers_it_when_it_began_later():
    world = World(Rules(reconciliation_intervals_ms={"main": DAY_MS}, reconciliation_answer_ms_max=3_600_000))
    earlier = Desk(world, run="rc-3-7-1")
    earlier.begin()
    pass_until_due(world)  # it goes on for so long that another is asked for
    pass_until_due(world)  # and nobody answers
    (asked,) = (one for one in runs(world) if one.reconciliation_id.startswith("rq-"))
    assert asked.exception_id
    earlier.finish()
    orders = Desk(world, run="rc-4-7-1")
    orders.begin(kind=ORDERS)
    orders.finish()
    assert state_of(world, asked) == ReconciliationState.REQUESTED
    later = Desk(world)
    later.begin()
    later.finish()
    (answered,) = (one for one in runs(world) if one.reconciliation_id == asked.reconciliation_id)
    assert (answered.state, answered.note) == (ReconciliationState.DONE, f"answered by {RUN}")
    shard = world.engine.books.shards[int(asked.reconciliation_id.split("-")[2])]
    assert shard.exceptions[asked.exception_id].state == 2
    assert verify(MemoryJournal(world.store)).violations == []
    world.restart()


def state_of(world, run):
    return next(one.state for one in runs(world) if one.reconciliation_id == run.reconciliation_id)


def test_runs_and_findings_are_forgotten_but_not_what_waits_for_somebody(world):
    desk = Desk(world, units=2)
    desk.begin()
    desk.count("A", 9)
    world.receive("B", 5)
    desk.count("B", 1)
    desk.finish()
    world.pass_ms(1)
    other = Desk(world, run="rc-2-7-1")
    other.begin()
    other.finish()
    assert len(desk.findings()) == 2
    world.snapshot()
    world.restart()
    world.pass_ms(8 * DAY_MS)
    assert [one.stock_key for one in desk.findings()] == [stock_key("main", "B")]
    assert [one.reconciliation_id for one in runs(world)] == ["rc-2-7-1"]  # the warehouse's last
    world.restart()


def test_a_run_whose_sender_never_comes_back_ends(world):
    desk = Desk(world)
    desk.begin()
    world.restart()
    world.pass_ms(8 * DAY_MS)
    (run,) = runs(world)
    assert (run.state, run.note) == (ReconciliationState.FAILED, "its sender never came back")
    world.pass_ms(8 * DAY_MS)
    assert runs(world) == []
    world.restart()


def pass_until_due(world):
    due_ms = world.engine.wakeup_ms()
    assert due_ms is not None
    world.pass_ms(due_ms - world.now_ms)


def runs(world):
    page = Desk(world).ask(Verb.LIST_RECONCILIATIONS, -1, ["", [], 100, ""])[2]
    return sorted((ReconciliationView(*one) for one in page[0]), key=lambda one: one.request_time_ms)


def alert_of(world, run):
    shard = world.engine.books.shards[int(run.reconciliation_id.split("-")[2])]
    return shard.exceptions[run.exception_id]


def test_snapshots_taken_while_it_goes_on_hold_it(world):
    desk = Desk(world, units=3)
    desk.begin()
    desk.count("A", 9)
    world.receive("B", 5)
    world.receive("C", 5)

    def between():
        desk.count("B", 4)
        desk.count("C", 0)

    world.snapshot(between)
    desk.finish()
    world.restart()
    assert {one.state for one in desk.findings()} == {FindingState.BOOKED, FindingState.QUARANTINED}


def test_what_a_warehouse_has_is_listed_for_whole_lists(world):
    shard = shard_of(stock_key("main", "A"), SHARDS)
    rows, place = Desk(world).ask(Verb.LIST_COMPARABLE, shard, ["main", STOCK, 0, 10])[2]
    assert rows == [(stock_key("main", "A"), [1])]
    assert place == 0
    assert Desk(world).ask(Verb.LIST_COMPARABLE, shard, ["far", STOCK, 0, 10])[2][0] == []
