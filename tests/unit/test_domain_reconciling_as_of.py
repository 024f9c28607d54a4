"""Lists of stock as of a place in their feed: what happened since is left alone, and why a line differs is told."""

from __future__ import annotations

import pytest

from actors.domain.change_rows import WarehouseChange
from actors.domain.changes import changes_of, with_values
from actors.domain.outcomes import Disposition, IngestOutcome
from actors.domain.reconciliation_words import FindingKind, FindingState, LineProblem, RequestReason
from actors.journal.codec import decode_groups
from tests.unit.test_domain_reconciling import Desk, decide, events_of, runs
from tests.unit.test_domain_resolving import RETRY
from tests.unit.world import World


class Warehouse(World):
    """A world, and when a list was made in it."""

    listed_ms = 0


@pytest.fixture
def world():
    """Ten units by sequence 1; four more by sequence 2, a minute later; the list is of between them."""
    made = Warehouse()
    made.receive("A", 10, sequence=1)
    made.pass_ms(30_000)
    made.listed_ms = made.now_ms
    made.pass_ms(30_000)
    made.receive("A", 4, sequence=2)
    return made


def desk(world, as_of=1, **options):
    return Desk(world, as_of=as_of, time_ms=world.listed_ms, **options)


def test_a_list_is_compared_with_the_books_at_its_place(world):
    before = events_of(world)
    assert desk(world).count("A", 10) == 0
    assert events_of(world) == before
    assert world.ats("A") == 14


def test_only_the_difference_is_booked_on_top_of_what_happened_since(world):
    found = desk(world, units=3).count("A", 8)
    assert (found.state, found.expected, found.booked) == (FindingState.BOOKED, 10, -2)
    assert world.ats("A") == 12
    world.restart()


def test_a_list_that_was_made_later_than_it_says_is_a_matter_of_timing(world):
    found = desk(world, units=100).count("A", 14)
    assert (found.kind, found.state) == (FindingKind.TIMING, FindingState.REPORTED)
    assert world.ats("A") == 14


def test_a_hole_at_or_below_the_place_is_suspected(world):
    world.receive("A", 1, sequence=5)
    world.pass_ms(1)
    found = desk(world, as_of=4, units=5, run="rc-2-7-1").count("A", 12)
    assert found.kind == FindingKind.MISSED_EVENT_SUSPECTED
    assert found.suspects[0] == "sequences 3 to 4 of feed wms are missing"
    assert desk(world, as_of=2, run="rc-3-7-1").count("A", 9).kind == FindingKind.GENUINE_DRIFT


def test_a_feed_that_has_not_come_so_far_is_suspected(world):
    found = desk(world, as_of=9).count("A", 13)
    assert found.kind == FindingKind.MISSED_EVENT_SUSPECTED
    assert "has told up to 2 only" in found.suspects[0]


def test_an_event_that_fills_the_hole_after_the_count_was_booked_changes_nothing(world):
    world.receive("A", 1, sequence=4)
    late = world.event(1, "A", 2, 1, "", "", sequence=3, age_ms=40_000)  # before the list
    assert desk(world, as_of=3, units=5).count("A", 16).state == FindingState.BOOKED
    stock = world.ats("A")
    assert world.one(late).payload.outcome == IngestOutcome.APPLIED
    assert world.ats("A") == stock
    world.restart()


def test_a_count_that_matches_by_chance_while_something_is_missing_holds_too(world):
    world.receive("A", 1, sequence=4)
    late = world.event(1, "A", 2, 1, "", "", sequence=3, age_ms=40_000)
    assert desk(world, as_of=3).count("A", 14) == 0
    assert world.ats("A") == 15
    world.one(late)
    assert world.ats("A") == 15
    world.restart()


def test_picked_units_are_in_or_out_as_the_list_says(world):
    order = world.reserve(("A", 3), confirm=True, order="o-1")
    world.pick("A", 3, order)
    world.pass_ms(1)
    world.listed_ms = world.now_ms
    world.pass_ms(1)
    assert desk(world, as_of=2).count("A", 11, includes_picked=False) == 0
    assert desk(world, as_of=2).count("A", 14, includes_picked=True) == 0
    found = desk(world, as_of=2, units=5).count("A", 10, includes_picked=False)
    assert found.booked == -1
    world.restart()


def test_other_dispositions_are_counted_by_themselves(world):
    world.receive("A", 5, disposition=Disposition.DAMAGED, sequence=3)
    world.listed_ms = world.now_ms
    world.pass_ms(1)
    assert desk(world, as_of=3).count("A", 5, disposition=3) == 0
    assert desk(world, as_of=3, units=1).count("A", 4, disposition=3).booked == -1
    assert world.ats("A") == 14


def test_a_list_older_than_the_history_is_no_list(world):
    world.pass_ms(80 * 3_600_000)
    assert desk(world).count("A", 10).problem == LineProblem.BEFORE_HISTORY


def test_a_list_from_the_future_is_refused(world):
    world.listed_ms = world.now_ms + 3_600_000
    assert desk(world).begin()[0] == 2


def test_a_list_placed_by_time_alone(world):
    assert Desk(world, time_ms=world.listed_ms).count("A", 10) == 0


def test_an_accepted_count_stands_at_its_place(world):
    found = desk(world).count("A", 3)
    assert found.state == FindingState.QUARANTINED
    world.receive("A", 1, sequence=3)
    assert decide(world, RETRY, found) == ""
    assert world.ats("A") == 3 + 4 + 1
    world.restart()


def test_an_accepted_count_whose_history_is_gone_books_what_differed_then(world):
    found = desk(world).count("A", 3)
    world.pass_ms(80 * 3_600_000)
    assert decide(world, RETRY, found) == ""
    assert world.ats("A") == 7
    world.restart()


def test_a_hole_that_stays_asks_for_a_reconciliation_of_its_warehouse(world):
    world.receive("A", 1, sequence=5)
    assert not runs(world)
    world.pass_ms(world.rules.gap_patience_ms + 1)
    (asked,) = runs(world)
    assert (asked.warehouse_id, asked.reason, asked.source_id) == ("main", RequestReason.FEED_GAP, "wms")
    world.restart()


def test_a_request_is_told_to_readers_of_changes(world):
    world.receive("A", 1, sequence=5)
    world.pass_ms(world.rules.gap_patience_ms + 1)
    (asked,) = runs(world)
    shard = world.engine.books.shards[int(asked.reconciliation_id.split("-")[2])]
    (record, _) = world.store.records[shard.id][-1]
    rows = changes_of(decode_groups(record.payload), record.first_sequence, record.time_ms)
    told = [WarehouseChange(*row) for row in with_values(world.engine.books, shard, rows) if row[0] == 3]
    assert [(one.warehouse_id, one.requested_reconciliation_id) for one in told] == [("main", asked.reconciliation_id)]
