"""Events in: once each by id and by sequence, waiting where order matters, and never dropped silently."""

from __future__ import annotations

import pytest

from actors.domain import feeds, sequences
from actors.domain.commands import Cause, Verb
from actors.domain.feed_watch import close_gap
from actors.domain.keys import stock_key
from actors.domain.outcomes import Disposition, ExceptionKind, Fact
from actors.domain.rules import Rules
from actors.domain.turn import Turn
from actors.shard.encoding import read_entry_row, read_reservation_row
from actors.shard.placement import feed_shard_of, shard_of
from tests.unit.world import SHARDS, START_MS, World

SELLABLE = int(Disposition.SELLABLE)
HOUR_MS = 3_600_000


@pytest.fixture
def world():
    return World()


def status(world, source="", warehouse=""):
    page = world.one([int(Verb.GET_FEED_STATUS), -1, 0, 1, [], [source, "", warehouse, 100, ""]]).payload
    return page.items


def heartbeat(world, last=0, source="wms", warehouse="main"):
    item = [int(Verb.HEARTBEAT), feed_shard_of(source, SHARDS), 0, 1, [], [source, "", warehouse, last]]
    return world.one(item).payload


def count(world, sku, units, *, sequence=0, as_of=0, includes_picked=False, **options):
    details = (units, SELLABLE, as_of, False, includes_picked)
    return world.tell(Fact.STOCK_COUNT, sku, *details, sequence=sequence, **options)


class TestIds:
    def test_the_same_event_again_gets_the_first_answer_and_its_position(self, world):
        first = world.receive("A", 5, event="e1", sequence=1)
        world.receive("B", 5, sequence=2)
        again = world.receive("A", 5, event="e1", sequence=1)
        assert (again.outcome, again.position) == ("DUPLICATE", first.position)
        assert first.position[0] == world.engine.books.stock["\x1fmain\x1fA"].shard.id
        world.restart()
        assert world.receive("A", 5, event="e1", sequence=1).position == first.position
        assert world.on_hand("A") == 5

    def test_the_same_id_for_another_stock_key_is_found(self, world):
        world.receive("A", 5, event="e1")
        other = world.receive("B", 5, event="e1")
        assert (other.outcome, other.reason) == ("REJECTED", "EVENT_ID_REUSED")
        assert world.receive("B", 5, event="e1").exception == other.exception
        assert len(world.exceptions(1)) == 1

    def test_ids_of_different_sources_are_different(self, world):
        world.receive("A", 5, event="e1")
        assert world.receive("A", 5, event="e1", source="other").outcome == "APPLIED"

    def test_an_id_is_known_when_it_left_memory(self):
        world = World(Rules(dedupe_memory_ms=1_000))
        world.receive("A", 5, event="e1")
        world.pass_ms(2_000)
        assert not any(shard.entries for shard in world.engine.books.shards.values())
        assert world.receive("A", 5, event="e1", age_ms=2_000).outcome == "DUPLICATE"
        assert world.receive("B", 5, event="e1").reason == "EVENT_ID_REUSED"


class TestSequences:
    def test_the_watermark_is_what_was_received_without_a_gap(self, world):
        for sequence in (1, 2, 5, 4, 7):
            world.receive("A", 1, sequence=sequence)
        [feed] = status(world)
        assert (feed.watermark, feed.highest, feed.missing) == (2, 7, [(3, 3), (6, 6)])
        world.snapshot()
        world.restart()
        world.receive("A", 1, sequence=3)
        world.receive("A", 1, sequence=6)
        [feed] = status(world)
        assert (feed.watermark, feed.highest, feed.missing) == (7, 7, [])
        world.check_replay()

    def test_a_sequence_that_another_event_had_is_an_exception(self, world):
        world.receive("A", 1, sequence=1)
        world.receive("A", 1, sequence=3)
        for sequence in (1, 3):
            told = world.receive("A", 1, sequence=sequence)
            assert (told.outcome, told.reason, bool(told.exception)) == ("REJECTED", "SEQUENCE_REUSED", True)
        assert world.on_hand("A") == 2

    def test_what_is_older_than_the_window_is_a_duplicate_for_ever_or_applied_by_its_sequence(self):
        world = World(Rules(dedupe_window_ms=HOUR_MS, dedupe_memory_ms=1_000))
        world.receive("A", 5, event="e1", sequence=1)
        world.pass_ms(2 * HOUR_MS)
        world.journal.compact(0, world.now_ms - HOUR_MS)
        told = world.receive("A", 5, event="e1", sequence=1, age_ms=2 * HOUR_MS)
        assert (told.outcome, world.on_hand("A")) == ("DUPLICATE", 5)
        assert world.receive("A", 5, sequence=3, age_ms=2 * HOUR_MS).outcome == "APPLIED"
        assert world.receive("A", 5, age_ms=2 * HOUR_MS).reason == "TOO_OLD"
        world.check_replay()

    def test_streams_of_a_source_count_apart(self, world):
        world.receive("A", 1, sequence=1, stream="x")
        world.receive("A", 1, sequence=1, stream="y")
        assert [(feed.stream_id, feed.watermark) for feed in status(world)] == [("x", 1), ("y", 1)]

    def test_rejected_events_take_their_sequence_too(self, world):
        world.tell(99, "A", sequence=1)
        world.receive("A", 1, sequence=2)
        [feed] = status(world)
        assert feed.watermark == 2


class TestWaiting:
    def test_a_count_waits_for_what_was_before_it(self, world):
        world.receive("A", 10, sequence=1)
        told = count(world, "A", 8, sequence=4, event="c")
        assert (told.outcome, world.on_hand("A")) == ("DEFERRED", 10)
        again = count(world, "A", 8, sequence=4, event="c")
        assert (again.outcome, world.on_hand("A")) == ("DEFERRED", 10)
        world.snapshot()
        world.restart()
        world.receive("A", 5, sequence=3)
        world.ship("A", 4, "s1", sequence=2)
        assert world.on_hand("A") == 8
        done = count(world, "A", 8, sequence=4, event="c")
        assert done.outcome == "DUPLICATE"
        [feed] = status(world)
        assert (feed.watermark, feed.waiting, world.exceptions(1)) == (4, 0, [])
        world.check_replay()

    def test_when_its_time_is_over_it_is_an_exception_and_never_applied(self):
        world = World(Rules(deferral_ms_max=60_000))
        world.receive("A", 10, sequence=1)
        count(world, "A", 8, sequence=4, event="c")
        wakeup_ms = world.engine.wakeup_ms()
        assert wakeup_ms is not None
        assert wakeup_ms <= START_MS + 60_000
        world.pass_ms(60_000)
        [opened] = world.exceptions(1)
        assert opened.kind == ExceptionKind.EVENT_NOT_PLACED
        world.receive("A", 1, sequence=2)
        world.receive("A", 1, sequence=3)
        told = count(world, "A", 8, sequence=4, event="c")
        assert (told.outcome, told.reason, world.on_hand("A")) == ("REJECTED", "DEFERRED_TOO_LONG", 12)
        world.check_replay()

    def test_a_shipment_that_closes_the_remainder_waits_for_its_predecessors(self, world):
        world.receive("A", 10, sequence=1)
        order = world.reserve(("A", 4), confirm=True)
        assert world.ship("A", 1, "s2", order, close=True, sequence=3).outcome == "DEFERRED"
        world.ship("A", 2, "s1", order, sequence=2)
        line = world.get(order).lines[0]
        assert (line.fulfilled_quantity, line.released_quantity, world.state(order)) == (3, 1, "FULFILLED")

    def test_one_that_fills_the_hole_itself_does_not_wait(self, world):
        world.receive("A", 10, sequence=1)
        world.receive("A", 5, sequence=3)
        told = count(world, "A", 8, sequence=2, as_of=3, includes_picked=True)
        assert (told.outcome, world.on_hand("A")) == ("APPLIED", 8)
        assert world.engine.books.waiting == {}

    def test_what_may_be_decided_when_the_host_dies_is_decided_by_its_successor(self, world):
        count(world, "A", 8, sequence=3)
        for sequence in (1, 2):
            world.receive("A", 1, sequence=sequence)
        wakeup_ms = world.engine.wakeup_ms()
        assert wakeup_ms is not None
        assert wakeup_ms <= world.now_ms
        world.restart()
        assert world.on_hand("A") == 8
        world.check_replay()

    def test_facts_that_commute_do_not_wait(self, world):
        assert world.receive("A", 10, sequence=5).outcome == "APPLIED"
        assert world.ats("A") == 10

    def test_several_are_decided_in_the_order_of_their_places(self, world):
        count(world, "A", 7, sequence=5)
        count(world, "A", 3, sequence=3)
        for sequence in (4, 1, 2):
            world.receive("A", 1, sequence=sequence)
        assert world.on_hand("A") == 7
        world.check_replay()


class TestGaps:
    @pytest.fixture
    def world(self):
        made = World(Rules(gap_patience_ms=60_000))
        made.receive("A", 1, sequence=1)
        made.receive("A", 1, sequence=4)
        return made

    def test_that_stay_are_told_once_and_a_reconciliation_is_requested(self, world):
        assert world.exceptions(1) == []
        wakeup_ms = world.engine.wakeup_ms()
        assert wakeup_ms is not None
        assert wakeup_ms <= START_MS + 60_000
        world.pass_ms(60_000)
        gap, asked = (
            sorted(world.exceptions(1), key=lambda one: one.kind)[:1],
            world.engine.books.reconciliations.requested,
        )
        assert [(one.kind, one.quantity, one.source_id) for one in gap] == [(ExceptionKind.FEED_GAP, 2, "wms")]
        assert "events 2 to 3 are missing" in gap[0].message
        assert list(asked) == ["main"]
        world.receive("A", 1, sequence=3)
        world.pass_ms(120_000)
        assert [one.kind for one in world.exceptions(1)].count(ExceptionKind.FEED_GAP) == 1
        world.snapshot()
        world.restart()

    def test_heal_when_they_are_filled(self, world):
        world.pass_ms(60_000)
        world.restart()
        world.receive("A", 1, sequence=3)
        assert ExceptionKind.FEED_GAP in [one.kind for one in world.exceptions(1)]
        world.receive("A", 1, sequence=2)
        assert ExceptionKind.FEED_GAP not in [one.kind for one in world.exceptions(1)]
        world.receive("A", 1, sequence=7)
        world.pass_ms(59_999)
        assert ExceptionKind.FEED_GAP not in [one.kind for one in world.exceptions(1)]
        world.pass_ms(1)
        assert ExceptionKind.FEED_GAP in [one.kind for one in world.exceptions(1)]
        world.check_replay()

    def test_that_are_filled_in_time_are_nobodys_business(self, world):
        world.receive("A", 1, sequence=3)
        world.receive("A", 1, sequence=2)
        world.pass_ms(600_000)
        assert world.exceptions() == []

    def test_at_the_end_are_found_by_a_heartbeat(self, world):
        world.receive("A", 1, sequence=2)
        world.receive("A", 1, sequence=3)
        heartbeat(world, 6)
        world.pass_ms(60_000)
        gap = next(one for one in world.exceptions(1) if one.kind == ExceptionKind.FEED_GAP)
        assert "events 5 to 6 are missing" in gap.message

    def test_that_are_given_up_let_the_watermark_and_what_waits_go_on(self, world):
        count(world, "A", 7, sequence=5)
        world.pass_ms(60_000)
        gap = next(one for one in world.exceptions(1) if one.kind == ExceptionKind.FEED_GAP)
        turn = Turn(world.engine.books, world.now_ms, {}, read_reservation_row, read_entry_row)
        shard = world.engine.books.shards[feed_shard_of("wms", SHARDS)]
        turn.begin(Cause(43, "", "r1"))
        assert close_gap(turn, shard, gap.exception_id)
        result = world.engine._result(turn, [], [], 0)
        world.journal.append(result.records, result.entries, result.read_heads)
        [feed] = status(world)
        assert (feed.watermark, feed.missing, feed.waiting, world.on_hand("A")) == (5, [], 0, 7)
        late = world.receive("A", 1, sequence=3)
        assert late.reason == "SEQUENCE_REUSED"
        world.check_replay()


class TestSilence:
    @pytest.fixture
    def world(self):
        return World(Rules(feeds={"main": {"wms": 60_000}}))

    def test_beyond_the_expected_interval_shows_in_every_availability_of_the_warehouse(self, world):
        world.receive("A", 5)
        world.receive("B", 5, warehouse="other")
        world.pass_ms(59_999)
        assert not stale(world, "A")
        world.pass_ms(1)
        assert (stale(world, "A"), stale(world, "B", "other")) == (True, False)
        assert [one.kind for one in world.exceptions(1)] == [ExceptionKind.FEED_STALE]
        assert list(world.engine.books.reconciliations.requested) == ["main"]
        world.snapshot()
        world.restart()
        assert stale(world, "A")
        assert status(world, "wms", "main")[0].warehouses[0].stale

    def test_ends_with_the_next_event_or_heartbeat_of_any_stream(self, world):
        world.pass_ms(60_000)
        world.receive("A", 5, stream="x")
        assert (stale(world, "A"), world.exceptions(1)) == (False, [])
        world.pass_ms(60_000)
        assert stale(world, "A")
        heartbeat(world)
        assert (stale(world, "A"), world.exceptions(1)) == (False, [])
        world.check_replay()

    def test_is_counted_from_when_this_owner_began(self, world):
        world.receive("A", 5)
        world.now_ms += 600_000
        world.restart()
        world.pass_ms(59_999)
        assert not stale(world, "A")
        world.pass_ms(1)
        assert stale(world, "A")

    def test_heartbeats_that_are_not_journaled_count(self, world):
        for _ in range(30):
            heartbeat(world)
            world.pass_ms(5_000)
        assert not stale(world, "A")

    def test_of_a_source_that_nobody_expects_any_more_is_over(self, world):
        world.receive("A", 5)
        world.pass_ms(60_000)
        world.rules = Rules()
        world.check_replay()
        world._start()
        world.pass_ms(1)
        assert (stale(world, "A"), world.exceptions(1)) == (False, [])
        world.check_replay()


def stale(world, sku, warehouse="main"):
    key = stock_key(warehouse, sku)
    item = [int(Verb.GET_AVAILABILITY), shard_of(key, SHARDS), 0, 1, [], ["web", [key]]]
    return world.one(item).payload.items[0][2]


class TestBounds:
    def test_streams_cannot_be_made_at_will(self, world, monkeypatch):
        monkeypatch.setattr(feeds, "FEEDS_PER_SHARD_MAX", 3)
        for stream in "abc":
            world.receive("A", 1, stream=stream)
        refused = world.one(world.event(Fact.RECEIPT, "A", 1, SELLABLE, "", "", stream="d", event="late"))
        assert refused.error == "OVERLOADED"
        assert world.on_hand("A") == 3
        world.check_replay()

    def test_holes_are_bounded_and_filling_them_goes_on(self, world, monkeypatch):
        monkeypatch.setattr(sequences, "INTERVALS_MAX", 3)
        for sequence in (2, 4, 6):
            world.receive("A", 1, sequence=sequence)
        item = world.event(Fact.RECEIPT, "A", 1, SELLABLE, "", "", sequence=8, event="e8")
        assert world.one(item).error == "OVERLOADED"
        world.receive("A", 1, sequence=3)
        assert world.one(item).ok
        world.check_replay()

    def test_what_waits_is_bounded(self, world, monkeypatch):
        monkeypatch.setattr(feeds, "WAITING_PER_FEED_MAX", 2)
        for sequence in (5, 6):
            count(world, "A", 1, sequence=sequence)
        item = world.event(Fact.STOCK_COUNT, "A", 1, SELLABLE, 0, False, True, sequence=7, event="e7")
        assert world.one(item).error == "OVERLOADED"
        world.check_replay()


class TestStatus:
    def test_nothing_is_dropped_silently(self, world):
        world.receive("A", 1, sequence=1, event="e1")
        world.receive("A", 1, sequence=1, event="e1")
        world.tell(99, "A", sequence=2)
        world.ship("A", 1, "s1", sequence=3)
        world.ship("A", 1, "s1", sequence=4)
        count(world, "A", 1, sequence=9)
        [feed] = status(world)
        [main] = feed.warehouses
        assert (main.received, main.applied, main.duplicates, main.waiting, main.rejected) == (6, 2, 2, 1, 1)

    def test_it_tells_when_it_was_heard_and_how_late_events_come(self, world):
        world.receive("A", 1, age_ms=5_000)
        [feed] = status(world, "wms", "main")
        [main] = feed.warehouses
        assert (main.last_received_ms, main.last_occur_ms, main.lag_ms) == (START_MS, START_MS - 5_000, 5_000)
        assert status(world, "nobody") == []

    def test_a_heartbeat_tells_what_is_missing_at_the_end(self, world):
        world.receive("A", 1, sequence=1)
        view = heartbeat(world, 3)
        assert (view.watermark, view.highest) == (1, 3)
        [feed] = status(world)
        assert feed.missing == [(2, 3)]
        world.restart()
        assert status(world)[0].missing == [(2, 3)]

    def test_heartbeats_are_not_all_journaled(self, world):
        heartbeat(world)
        shard = world.engine.books.shards[feed_shard_of("wms", SHARDS)]
        before = shard.record_number
        for _ in range(10):
            world.now_ms += 1_000
            heartbeat(world)
        assert shard.record_number == before
