"""Exceptions are resolved by people: who, how and why, once; a rejected event is not lost, and may be booked after all."""

from __future__ import annotations

from typing import Any

import pytest

from actors.domain.apply import apply_event
from actors.domain.attaching import detach
from actors.domain.commands import Cause, Verb
from actors.domain.events import ExceptionOpened
from actors.domain.exception_events import FeedCorrected
from actors.domain.keys import parse_exception_id, stock_key
from actors.domain.outcomes import (
    Disposition,
    ExceptionKind,
    ExceptionState,
    Fact,
    IngestOutcome,
    RejectReason,
    ResolveAction,
)
from actors.domain.rules import Rules
from actors.domain.state import Books, ShardState
from actors.domain.turn import Turn
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from actors.runtime.host_metrics import host_metrics_text
from actors.shard.books_status import books_status
from actors.shard.encoding import Tag, decode_exception, pack, read_entry_row, read_reservation_row
from actors.shard.placement import shard_of
from actors.shard.stored_types import check_entity, check_event
from tests.unit.world import SHARDS, World

SELLABLE = int(Disposition.SELLABLE)
RETRY, CORRECT, DISCARD, ACKNOWLEDGE = ResolveAction
OPEN = int(ExceptionState.OPEN)
HOUR_MS = 3_600_000


@pytest.fixture
def world():
    return World()


def closed(**options):
    return World(rules=Rules(catalog_open=False, **options))


def resolve(world, exception_id, action, *, request="", note="because", corrected=(), digest=b"d" * 16, resolver="ann"):
    body = [request or world.fresh_id("resolve"), digest, exception_id, int(action), note, resolver, list(corrected)]
    shard = parse_exception_id(exception_id)
    return world.one([int(Verb.RESOLVE_EXCEPTION), shard, 0, 1, ["", "", ""], body])


def get(world, exception_id):
    shard = parse_exception_id(exception_id)
    return world.one([int(Verb.GET_EXCEPTION), shard, 0, 1, [], [exception_id]])


def register(world, sku, warehouse="main"):
    key = stock_key(warehouse, sku)
    body = [world.fresh_id("register"), b"d" * 16, key]
    assert world.one([int(Verb.REGISTER_STOCK), shard_of(key, SHARDS), 0, 1, [], body]).ok


def state(world, exception_id):
    return ExceptionState(get(world, exception_id).payload.state).name


def listed(world, *, states=(), priorities=(), team="", since=0, until=0, newest=False, source="", size=100, token=""):
    body = [[], "", "", list(states), size, token, list(priorities), team, since, until, newest, source]
    return world.one([int(Verb.LIST_EXCEPTIONS), -1, 0, 1, [], body]).payload


class TestRetry:
    def test_what_was_rejected_is_booked_once_its_cause_is_mended(self):
        world = closed()
        told = world.receive("A", 5, event="e1")
        assert (told.outcome, told.reason) == ("REJECTED", "UNKNOWN_STOCK_KEY")
        register(world, "A")

        answer = resolve(world, told.exception, RETRY)

        assert IngestOutcome(answer.payload.outcome).name == "APPLIED"
        assert world.on_hand("A") == 5
        assert state(world, told.exception) == "RESOLVED"
        assert world.receive("A", 5, event="e1").outcome == "DUPLICATE"
        assert world.on_hand("A") == 5

    def test_while_its_cause_stays_it_is_rejected_again_and_stays_open(self):
        world = closed()
        told = world.receive("A", 5, event="e1")

        answer = resolve(world, told.exception, RETRY)

        assert RejectReason(answer.payload.reject_reason).name == "UNKNOWN_STOCK_KEY"
        shown = get(world, told.exception).payload
        assert shown.state == ExceptionState.OPEN
        assert [(one[1], one[2], one[3], one[4]) for one in shown.handlings] == [(RETRY, "ann", "because", 3)]
        assert len(world.exceptions()) == 1

    def test_what_is_only_suspicious_is_booked_on_the_persons_word(self, world):
        world.receive("A", 5, event="e1")
        reused = world.receive("A", 7, event="e1")
        old = world.receive("A", 1, event="e2", age_ms=48 * HOUR_MS)
        assert (reused.reason, old.reason) == ("EVENT_ID_REUSED", "TOO_OLD")

        resolve(world, reused.exception, RETRY)
        resolve(world, old.exception, RETRY)

        assert world.on_hand("A") == 13
        assert world.receive("A", 7, event="e1").outcome == "DUPLICATE"
        assert world.receive("A", 5, event="e1").outcome == "DUPLICATE"

    def test_a_feed_counts_it_as_what_it_became(self):
        world = closed()
        told = world.receive("A", 5, event="e1", sequence=1)
        register(world, "A")
        resolve(world, told.exception, RETRY)

        page = world.one([int(Verb.GET_FEED_STATUS), -1, 0, 1, [], ["", "", "", 100, ""]]).payload
        (part,) = page.items[0].warehouses
        assert (part.received, part.applied, part.rejected) == (1, 1, 0)

    def test_a_shipment_with_another_quantity_opens_no_second_exception(self, world):
        world.receive("A", 9)
        world.ship("A", 2, "S1")
        told = world.ship("A", 3, "S1")
        assert told.reason == "SHIPMENT_MISMATCH"

        answer = resolve(world, told.exception, RETRY)

        assert RejectReason(answer.payload.reject_reason).name == "SHIPMENT_MISMATCH"
        assert len(world.exceptions()) == 1
        assert world.on_hand("A") == 7

    def test_what_did_not_wait_long_enough_is_booked_at_once(self):
        world = World(rules=Rules(deferral_ms_max=1_000))
        world.receive("A", 5, event="e1", sequence=1)
        world.tell(Fact.STOCK_COUNT, "A", 3, SELLABLE, 0, False, False, event="c", sequence=5)
        world.now_ms += 2_000
        world.step()
        (exception,) = [one for one in world.exceptions() if one.kind == ExceptionKind.EVENT_NOT_PLACED]

        resolve(world, exception.exception_id, RETRY)

        assert world.on_hand("A") == 3
        assert state(world, exception.exception_id) == "RESOLVED"

    def test_when_it_left_memory_its_id_is_still_known(self):
        world = World(rules=Rules(catalog_open=False, dedupe_memory_ms=1_000))
        told = world.receive("A", 5, event="e1")
        register(world, "A")
        world.now_ms += 5_000
        world.step()
        resolve(world, told.exception, RETRY)
        assert world.receive("A", 5, event="e1").outcome == "DUPLICATE"


class TestCorrect:
    def test_the_corrected_event_is_booked_and_the_sent_one_is_a_duplicate(self):
        world = closed()
        register(world, "A")
        told = world.receive("AA", 5, event="e1")
        body = list(get(world, told.exception).payload.payload)
        body[5] = stock_key("main", "A")

        resolve(world, told.exception, CORRECT, corrected=body)

        assert world.on_hand("A") == 5
        assert world.receive("AA", 5, event="e1").outcome == "DUPLICATE"

    def test_it_stays_the_same_event(self):
        world = closed()
        told = world.receive("A", 5, event="e1")
        body = list(get(world, told.exception).payload.payload)
        body[2] = "another"

        answer = resolve(world, told.exception, CORRECT, corrected=body)

        assert "corrected_event.event_id" in answer.reply[2]
        assert state(world, told.exception) == "OPEN"


class TestEnds:
    def test_discard_books_nothing_and_says_who_and_why(self):
        world = closed()
        told = world.receive("A", 5, event="e1")

        resolve(world, told.exception, DISCARD, note="a test message")

        shown = get(world, told.exception).payload
        assert shown.state == ExceptionState.RESOLVED
        assert tuple(shown.handlings[-1][1:4]) == (DISCARD, "ann", "a test message")
        assert world.receive("A", 5, event="e1").outcome == "REJECTED"

    def test_the_same_request_again_changes_nothing(self):
        world = closed()
        told = world.receive("A", 5, event="e1")
        register(world, "A")
        first = resolve(world, told.exception, RETRY, request="r1")
        again = resolve(world, told.exception, RETRY, request="r1")
        assert again.replayed
        assert again.payload[1:] == tuple(first.payload[1:])
        assert world.on_hand("A") == 5
        assert resolve(world, told.exception, RETRY, request="r1", digest=b"o" * 16).error == "REQUEST_ID_REUSED"

    def test_the_second_of_two_people_is_told_that_it_ended(self):
        world = closed()
        told = world.receive("A", 5, event="e1")
        resolve(world, told.exception, DISCARD)
        assert resolve(world, told.exception, DISCARD).error == "EXCEPTION_ENDED"

    def test_one_that_never_was_is_not_found(self, world):
        assert resolve(world, "x-tl-1-77", DISCARD).error == "EXCEPTION_NOT_FOUND"
        assert get(world, "x-tl-1-77").error == "EXCEPTION_NOT_FOUND"

    def test_what_heals_by_itself_can_be_acknowledged_and_nothing_else(self, world):
        world.receive("A", 1)
        world.reserve(("A", 5), always=True, channel="edi")
        (exception,) = world.exceptions()
        assert resolve(world, exception.exception_id, DISCARD).error == "INVALID_FIELD"

        resolve(world, exception.exception_id, ACKNOWLEDGE, note="on the phone")

        assert state(world, exception.exception_id) == "OPEN"
        world.receive("A", 9)
        assert state(world, exception.exception_id) == "HEALED"

    def test_a_resolved_one_leaves_memory_like_a_healed_one(self):
        world = closed(healed_memory_ms=1_000)
        told = world.receive("A", 5, event="e1")
        resolve(world, told.exception, DISCARD)
        world.now_ms += 5_000
        world.step()
        assert world.exceptions() == []


class TestBounds:
    def test_beyond_its_bound_an_event_stays_with_its_sender(self):
        world = closed(exceptions_open_max=1)
        told = world.receive("A", 5, event="e1")
        answer = world.one(world.event(Fact.RECEIPT, "A", 5, SELLABLE, "", "", event="e2"))
        assert answer.error == "OVERLOADED"

        resolve(world, told.exception, DISCARD)

        assert world.receive("A", 5, event="e2").outcome == "REJECTED"

    def test_contradicting_shipments_are_bounded_too(self):
        world = World(rules=Rules(exceptions_open_max=2))
        world.receive("A", 9)
        world.ship("A", 2, "S1")
        answers = [world.one(ship_again(world, f"again-{number}")) for number in range(9)]
        outcomes = ["OVERLOADED" if answer.error else IngestOutcome(answer.payload.outcome).name for answer in answers]
        assert outcomes[:2] == ["REJECTED", "REJECTED"]
        assert outcomes[-1] == "OVERLOADED"
        assert len(world.exceptions()) <= 4


def ship_again(world, event):
    return world.event(Fact.SHIPMENT, "A", 3, "S1", [], False, SELLABLE, event=event)


class TestEffects:
    def test_a_gap_that_is_given_up_lets_the_feed_go_on(self):
        world = World(rules=Rules(gap_patience_ms=1_000))
        world.receive("A", 5, event="e1", sequence=1)
        world.receive("A", 5, event="e5", sequence=5)
        world.now_ms += 5_000
        world.step()
        (gap,) = [one for one in world.exceptions(OPEN) if one.kind == ExceptionKind.FEED_GAP]

        resolve(world, gap.exception_id, DISCARD, note="the outbox was lost")

        page = world.one([int(Verb.GET_FEED_STATUS), -1, 0, 1, [], ["", "", "", 100, ""]]).payload
        assert page.items[0].watermark == 5
        world.now_ms += 60_000
        world.step()
        assert world.exceptions(OPEN) == []

    def test_a_transfer_is_followed_once_its_stock_key_is_known(self):
        world = closed()
        register(world, "A")
        world.receive("A", 9)
        told = world.tell(Fact.TRANSFER_DISPATCH, "A", 4, "T1", "", "overflow", SELLABLE)
        exception = get(world, told.exception).payload
        assert exception.kind == ExceptionKind.TRANSFER_KEY_UNKNOWN
        assert resolve(world, told.exception, RETRY).error == "INVALID_FIELD"
        register(world, "A", "overflow")

        resolve(world, told.exception, RETRY)

        assert state(world, told.exception) == "RESOLVED"
        assert world.stock("A", "overflow").in_transit_quantity == 4
        assert world.on_hand("A") == 5


class TestMetrics:
    def test_every_kind_is_counted_and_how_long_it_took_is_told(self):
        world = closed()
        told = [world.receive("A", 5, event=f"e{number}") for number in range(3)]
        world.now_ms += 90_000
        world.step()
        resolve(world, told[0].exception, DISCARD)
        status = books_status(world.engine.books, world.now_ms)
        open_by_kind = {(kind, priority): count for kind, priority, count in status["exceptions_open"]}
        assert open_by_kind["event_rejected", "normal"] == 2
        assert open_by_kind["shortage", "urgent"] == 0
        assert ["normal", 90.0] in status["exceptions_oldest"]
        assert ["urgent", 0.0] in status["exceptions_oldest"]
        ((kind, seconds, *buckets),) = status["resolution_times"]
        assert (kind, seconds, sum(buckets)) == ("event_rejected", 90.0, 1)
        text = host_metrics_text(lambda: {**status, "shards": ()}).decode()
        assert 'stockade_exceptions_open{kind="event_rejected",priority="normal"} 2.0' in text
        assert 'stockade_exception_resolution_seconds_bucket{kind="event_rejected",le="300"} 1.0' in text
        world.restart()
        again = books_status(world.engine.books, world.now_ms)
        assert again["exceptions_open"] == status["exceptions_open"]


class TestLists:
    def test_they_say_how_soon_who_and_what_to_do(self):
        world = closed(exception_teams={"event_rejected": "night_shift"})
        told = world.receive("A", 5, event="e1")
        shown = get(world, told.exception).payload
        assert shown.owning_team == "night_shift"
        assert "register" in shown.suggested_action
        assert tuple(shown.actions) == (RETRY, CORRECT, DISCARD)
        assert [one.exception_id for one in listed(world, team="night_shift").items] == [told.exception]
        assert listed(world, team="warehouse").items == []
        assert listed(world, priorities=[4]).items == []
        assert len(listed(world, priorities=[shown.priority], source="wms").items) == 1

    def test_the_latest_first_in_pages(self):
        world = closed()
        opened = []
        for number in range(7):
            world.now_ms += 1_000
            opened.append(world.receive(f"S{number}", 1, source=f"w{number % 3}").exception)
        found, token = [], ""
        while True:
            page = listed(world, newest=True, size=3, token=token)
            found += [one.exception_id for one in page.items]
            token = page.next_page_token
            if not token:
                break
        assert found == opened[::-1]
        since = world.now_ms - 2_500
        assert len(listed(world, since=since).items) == 3
        assert len(listed(world, until=since).items) == 4


class TestStored:
    def test_replay_and_snapshots_keep_all_of_it(self):
        world = closed()
        told = [world.receive("A", 5, event=f"e{number}") for number in range(3)]
        resolve(world, told[0].exception, DISCARD)
        resolve(world, told[1].exception, ACKNOWLEDGE)
        before = [get(world, one.exception).payload for one in told]
        world.snapshot()
        resolve(world, told[2].exception, RETRY)
        world.restart()
        assert [pack(get(world, one.exception).payload) for one in told[:2]] == [pack(one) for one in before[:2]]
        assert len(get(world, told[2].exception).payload.handlings) == 1

    def test_a_journal_with_resolutions_is_sound(self):
        world = closed(dedupe_memory_ms=1_000)
        told = [world.receive("A", 5, event=f"e{number}", sequence=number + 1) for number in range(4)]
        resolve(world, told[0].exception, RETRY)
        register(world, "A")
        world.now_ms += 5_000
        world.snapshot(lambda: world.receive("A", 1))
        resolve(world, told[0].exception, RETRY)
        resolve(world, told[1].exception, DISCARD)
        resolve(world, told[2].exception, ACKNOWLEDGE)
        world.snapshot(lambda: resolve(world, told[3].exception, RETRY))
        world.restart()
        report = verify(MemoryJournal(world.store))
        assert report.violations == []

    def test_a_feed_that_is_corrected_more_often_than_it_rejected_is_a_violation(self):
        world = closed()
        world.receive("A", 5, event="e1", sequence=1)
        register(world, "B")
        world.receive("B", 5, event="e2", sequence=2)
        shard = next(one for one in world.engine.books.shards.values() if one.feeds)
        (feed_key,) = shard.feeds
        feed = shard.feeds[feed_key]
        feed.warehouses["main"].rejected += 1  # so that the shard itself lets it through
        turn = Turn(world.engine.books, world.now_ms, {}, read_reservation_row, read_entry_row)
        turn.begin(Cause(int(Verb.RESOLVE_EXCEPTION), "", "r"))
        turn.emit(shard, FeedCorrected(feed_key, "main", 1))
        turn.emit(shard, FeedCorrected(feed_key, "main", 1))
        result = world.engine._result(turn, [], [], 0)
        world.journal.append(result.records, result.entries, result.read_heads)
        report = verify(MemoryJournal(world.store))
        assert [one.rule for one in report.violations] == ["feed"]

    def test_what_an_older_version_wrote_is_read(self):
        shard = ShardState(0)
        old = ["x-t-0-1", [5, "k", "m", "s", "e", "", "", 3], 0, [], 1, 7, 0]
        check_entity(Tag.EXCEPTION, old)
        exception = decode_exception(old)
        assert (exception.open_time_ms, exception.payload, exception.handlings) == (7, (), ())
        fields: Any = ["x-t-0-1", 1, 5, "k", "m", 0, [], "s", "e", "", "", 3]
        check_event(50, fields)
        apply_event(Books(Rules(), lambda _: 0), shard, ExceptionOpened(*fields), 9)
        assert shard.exceptions["x-t-0-1"].payload == ()


def test_an_event_is_not_decided_again_while_its_stock_key_is_on_another_host():
    world = closed()
    answer = world.receive("A", 5)
    exception_id = answer.exception
    assert exception_id
    detach(world.engine.books, shard_of(stock_key("main", "A"), SHARDS))

    assert resolve(world, exception_id, RETRY).error == "SHARD_UNAVAILABLE"
    assert state(world, exception_id) == "OPEN"
