"""Consumers of changes: their place only moves forward, what they refuse becomes an exception once, and lag is noticed."""

from __future__ import annotations

from typing import Any

import pytest

from actors.domain.commands import Verb
from actors.domain.consumer_state import ConsumerLimits
from actors.domain.consumers import kept_for_ms
from actors.domain.outcomes import ExceptionKind, ExceptionState
from actors.domain.rules import Rules
from actors.shard.placement import consumer_shard_of
from tests.unit.world import SHARDS, START_MS, Answer, World

DAY_MS = 24 * 3600 * 1000
LAGGING = int(ExceptionKind.CONSUMER_LAGGING)


class Consumers(World):
    """A world with one declared consumer, "erp"."""

    def __init__(self, limits: ConsumerLimits | None = None, **rules: Any) -> None:
        super().__init__(Rules(consumers={"erp": limits or ConsumerLimits(100, 60_000, 30 * DAY_MS)}, **rules))

    def places(self) -> list[list[int]]:
        """How far the journal goes."""
        return [[shard.id, shard.sequence] for shard in self.engine.books.shards.values() if shard.sequence]

    def acknowledge(
        self, places: Any = None, *, consumer: str = "erp", timeline: str = "t1", reject: Any = (), trouble: str = ""
    ) -> Answer:
        told = self.places() if places is None else places
        body = [consumer, timeline, self.now_ms if told else 0, told, [list(one) for one in reject], trouble]
        return self.one([int(Verb.ACKNOWLEDGE_CHANGES), consumer_shard_of(consumer, SHARDS), 0, 1, [], body])

    def attach(self, consumer: str = "erp") -> Answer:
        return self.one([int(Verb.ATTACH_CONSUMER), consumer_shard_of(consumer, SHARDS), 0, 1, [], [consumer]])

    def erp(self) -> Any:
        (view,) = self.one([int(Verb.LIST_CONSUMERS), -1, 0, 1, [], []]).payload.items
        return view

    def lagging(self, *states: int) -> list[Any]:
        return [one for one in self.exceptions(*states) if one.kind == LAGGING]


def test_a_consumer_that_is_not_declared_is_refused_by_name():
    world = Consumers()

    assert world.acknowledge(consumer="epr").reply[2] == "consumer_id: 'epr' is not declared in the settings"
    assert world.attach("epr").error == "INVALID_FIELD"


def test_a_new_consumer_lags_by_nothing_and_has_acknowledged_nothing():
    world = Consumers()
    world.receive("A", 5)
    view = world.attach().payload

    assert (view.lag_events, view.lag_ms, view.timeline, view.acknowledge_time_ms) == (0, 0, "", 0)
    assert not view.positions


def test_lag_is_counted_from_the_acknowledged_place_and_survives_a_restart():
    world = Consumers()
    world.receive("A", 5)
    world.acknowledge()
    assert (world.erp().lag_events, world.erp().lag_ms) == (0, 0)

    world.reserve(("A", 1))
    world.pass_ms(1_500)
    world.reserve(("A", 1))
    world.pass_ms(3_000)
    lag = world.erp().lag_events
    assert lag >= 4, "two claims, two reservations"
    assert 3_000 <= world.erp().lag_ms <= 4_500
    world.restart()

    assert world.erp().lag_events == lag
    assert 3_000 <= world.erp().lag_ms <= 4_500
    world.acknowledge()
    assert (world.erp().lag_events, world.erp().lag_ms) == (0, 0)
    world.restart()
    assert (world.erp().lag_events, world.erp().lag_ms) == (0, 0)


def test_what_is_no_change_is_no_lag():
    world = Consumers()
    world.receive("A", 5)
    world.acknowledge()
    world.acknowledge([], trouble="the marketplace is down")
    world.acknowledge([], reject=[("t1-1-1", "unknown SKU")])
    world.pass_ms(120_000)

    assert (world.erp().lag_events, world.erp().lag_ms, world.lagging()) == (0, 0, [])


def test_a_place_never_goes_back():
    world = Consumers()
    world.receive("A", 5)
    early = world.places()
    world.reserve(("A", 1))
    world.acknowledge()
    stood = world.erp().positions
    world.acknowledge(early)

    assert world.erp().positions == stood
    assert world.erp().lag_events == 0


@pytest.mark.parametrize(
    ("timeline", "ahead", "said"),
    [("t0", 0, "cursor: it is of another journal history"), ("t1", 10, "cursor: it is ahead of the journal")],
)
def test_a_cursor_that_cannot_be_is_refused(timeline, ahead, said):
    world = Consumers()
    world.receive("A", 5)
    before = world.attach().payload
    places = [[shard, sequence + ahead] for shard, sequence in world.places()]

    assert world.acknowledge(places, timeline=timeline).reply[2].startswith(said)
    assert world.erp().positions == before.positions


def test_a_consumer_of_another_history_is_told_to_begin_anew_and_its_first_cursor_counts_alone():
    world = Consumers()
    world.receive("A", 5)
    world.acknowledge()
    shard = world.engine.books.shards[consumer_shard_of("erp", SHARDS)]
    shard.consumers["erp"].timeline = "t0"  # as after a restore
    assert world.erp().resync == 1

    world.acknowledge([[3, 0], *world.places()[:1]])

    assert world.erp().resync == 0
    assert [list(pair) for pair in world.erp().positions] == world.places()[:1]


def test_a_refused_change_becomes_one_exception_however_often_it_is_told():
    world = Consumers()
    world.receive("A", 5)
    first = world.acknowledge(reject=[("t1-5-2", "unknown SKU"), ("t1-5-3", "price missing")]).payload
    again = world.acknowledge(reject=[("t1-5-3", "price missing"), ("t1-5-4", "no")]).payload
    world.restart()
    third = world.acknowledge(reject=[("t1-5-2", "unknown SKU")]).payload

    assert first.exception_ids[1] == again.exception_ids[0]
    assert third.exception_ids == first.exception_ids[:1]
    assert world.erp().rejected == 3
    opened = world.exceptions()
    assert [(one.kind, one.source_id, one.event_id) for one in opened] == [
        (15, "erp", "t1-5-2"),
        (15, "erp", "t1-5-3"),
        (15, "erp", "t1-5-4"),
    ]
    assert opened[0].message == "consumer 'erp' did not take change t1-5-2: unknown SKU"


def test_a_refusal_that_left_memory_is_still_known():
    world = Consumers(dedupe_memory_ms=1_000)
    first = world.acknowledge([], reject=[("t1-5-2", "unknown SKU")]).payload
    world.pass_ms(5_000)
    assert not world.engine.books.shards[consumer_shard_of("erp", SHARDS)].entries

    assert world.acknowledge([], reject=[("t1-5-2", "unknown SKU")]).payload.exception_ids == first.exception_ids


def test_refusals_are_bounded_by_the_exceptions_that_may_be_open():
    world = Consumers(exceptions_open_max=2)
    world.acknowledge([], reject=[("a", "no"), ("b", "no")])

    assert world.acknowledge([], reject=[("c", "no")]).error == "OVERLOADED"
    assert world.erp().rejected == 2


def test_past_its_limit_of_time_a_consumer_has_an_exception_that_heals_when_it_caught_up():
    world = Consumers()
    world.receive("A", 50)
    world.acknowledge()
    world.reserve(("A", 1))
    assert world.engine.wakeup_ms() is not None, "its lag grows although nothing happens"
    for _ in range(62):
        world.pass_ms(1_000)
    (opened,) = world.lagging(int(ExceptionState.OPEN))
    assert world.erp().lagging
    assert "consumer 'erp' is" in opened.message
    world.restart()
    world.pass_ms(1_000)
    assert len(world.lagging()) == 1, "it is not opened twice"

    world.acknowledge()
    world.pass_ms(1_000)

    assert not world.erp().lagging
    assert [one.exception_id for one in world.lagging(int(ExceptionState.HEALED))] == [opened.exception_id]
    world.check_replay()


def test_past_its_limit_of_changes_too():
    world = Consumers(ConsumerLimits(lag_events_max=10, lag_ms_max=0))
    world.receive("A", 50)
    world.acknowledge()
    for _ in range(8):
        world.reserve(("A", 1))
    world.pass_ms(1_000)
    assert world.erp().lagging

    world.acknowledge()
    world.pass_ms(1_000)
    assert not world.erp().lagging


def test_a_consumer_that_is_no_longer_declared_is_forgotten_with_its_exception():
    world = Consumers()
    world.receive("A", 50)
    world.acknowledge()
    world.reserve(("A", 1))
    for _ in range(62):
        world.pass_ms(1_000)
    assert world.lagging(int(ExceptionState.OPEN))
    world.rules = Rules()
    world.restart()
    world.pass_ms(1_000)

    assert not world.engine.books.consumers
    assert not world.lagging(int(ExceptionState.OPEN))
    world.check_replay()


def test_snapshots_keep_consumers_also_those_made_between_slices():
    world = Consumers()
    world.receive("A", 50)
    world.snapshot(lambda: world.attach())
    world.acknowledge()
    world.snapshot(lambda: world.acknowledge(trouble=world.fresh_id("down ")))

    world.check_replay()


def test_retention_keeps_what_a_consumer_lacks_up_to_its_limit():
    world = Consumers(ConsumerLimits(retention_ms=10 * DAY_MS))
    world.receive("A", 50)
    world.acknowledge()
    by_age = START_MS + 7 * DAY_MS
    books = world.engine.books
    assert kept_for_ms(books, world.now_ms, by_age) == by_age, "it lacks nothing"

    world.reserve(("A", 1))
    world.pass_ms(2_000)
    assert kept_for_ms(books, START_MS + 8 * DAY_MS, by_age) < START_MS + 2_000
    assert kept_for_ms(books, START_MS + 14 * DAY_MS, by_age) == START_MS + 4 * DAY_MS


def test_the_first_place_counts_as_it_is_told_though_the_journal_stood_further():
    """A new consumer reads from the oldest change on; what lies between its first place and where the journal stood is not
    taken in."""
    world = Consumers()
    world.receive("A", 5)
    world.reserve(("A", 1))
    world.attach()
    early = [(shard, 1 if shard % 2 else -1) for shard, _ in world.places()]
    world.acknowledge([list(pair) for pair in early])

    assert [tuple(pair) for pair in world.erp().positions] == early
    assert world.erp().lag_events > 0
    world.restart()
    world.acknowledge()
    assert all(sequence > 0 for _, sequence in world.erp().positions)
    assert world.erp().lag_events == 0
    world.check_replay()
