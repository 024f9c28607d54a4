"""``verify`` at the edges of what a journal may hold: it names the record that was changed, whatever was changed in it, and
never ends in an exception of its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from actors.domain.commands import Verb
from actors.domain.events import EVENT_KINDS
from actors.journal import verify_ledger
from actors.journal.codec import decode_groups, encode_groups, record_checksum, slice_checksum
from actors.journal.memory import MemoryJournal, MemoryStore, copy_store
from actors.journal.port import Record, SnapshotSlice
from actors.journal.verify import DAY_MS, Done, VerifyReport, verify
from actors.journal.verify_format import EVENTS, RULES
from actors.journal.verify_ledger import Ledger
from actors.journal.verify_round import judge_shards
from tests.unit.test_verify_random import events_of, honest_store, judge, sealed
from tests.unit.world import World


def named(report: VerifyReport) -> set[tuple[int, int]]:
    """Records that violations name, in their place or in their message."""
    return {(one.shard, one.record_number) for one in report.violations}


def put(store: MemoryStore, shard: int, at: int, record: Record) -> None:
    store.records[shard][at] = (record, record_checksum(record))


def busiest(store: MemoryStore) -> int:
    return max(store.records, key=lambda shard: len(store.records[shard]))


# --- the format -------------------------------------------------------------------------------------------------------


def test_verify_knows_every_event_that_is_written_by_the_same_names_in_the_same_order() -> None:
    written = {kind: (event.__name__, event._fields) for kind, event in EVENT_KINDS.items()}
    fewest = {kind: len(event._fields) - len(event._field_defaults) for kind, event in EVENT_KINDS.items()}

    assert {kind: (name, fields) for kind, (name, _, fields) in EVENTS.items()} == written
    assert {kind: least for kind, (_, least, _) in EVENTS.items()} == fewest


def test_every_rule_is_told_in_words(run_seed: int) -> None:
    draw = random.Random(run_seed)
    for _ in range(20):
        store = copy_store(honest_store(run_seed))
        shard, at, group, index = draw.choice(list(events_of(store, draw.choice((12, 20, 22, 24, 30, 34, 40)))))
        groups = decode_groups(store.records[shard][at][0].payload)
        del groups[group][1][index]
        for one in judge(sealed(store, shard, at, groups)).violations:
            assert RULES[one.rule]
            assert one.plain()["rule_text"]


# --- what was changed ---------------------------------------------------------------------------------------------------


def test_swapped_records_are_named(run_seed: int) -> None:
    draw = random.Random(run_seed)
    for _ in range(5):
        store = copy_store(honest_store(run_seed))
        shard = busiest(store)
        at = draw.randrange(1, len(store.records[shard]) - 1)
        first, second = store.records[shard][at][0], store.records[shard][at + 1][0]
        put(store, shard, at, second._replace(number=first.number))
        put(store, shard, at + 1, first._replace(number=second.number))
        found = judge(store).violations[0]
        assert (found.shard, found.record_number, found.rule) == (shard, first.number, "sequence")
        assert (found.expected, found.found) == (str(first.first_sequence), str(second.first_sequence))


@pytest.mark.parametrize("by_ms", [-3_600_000, 3_600_000])
def test_a_changed_time_is_named_there_or_where_time_goes_back(by_ms: int, run_seed: int) -> None:
    draw = random.Random(run_seed)
    for _ in range(5):
        store = copy_store(honest_store(run_seed))
        shard = busiest(store)
        at = draw.randrange(1, len(store.records[shard]) - 1)
        record = store.records[shard][at][0]
        put(store, shard, at, record._replace(time_ms=record.time_ms + by_ms))
        found = [one for one in judge(store).violations if one.rule == "time"]
        assert (found[0].shard, found[0].record_number) == (shard, record.number + (by_ms > 0))


@pytest.mark.parametrize("kind", [20, 30, 36, 40])
def test_a_changed_cause_names_the_record(kind: int, run_seed: int) -> None:
    draw = random.Random(run_seed)
    for _ in range(5):
        store = copy_store(honest_store(run_seed))
        places = list(events_of(store, kind))
        if kind == 40:  # other ids than events' do not tell whose they are
            places = [place for place in places if event_at(store, place)[1].startswith("e")]
        if kind == 20:  # alone: that of a reservation whose home is in this record is told by its home
            places = [place for place in places if len(decode_groups(record_at(store, place).payload)) == 1]
        shard, at, group, _ = place = draw.choice(places)
        record = record_at(store, place)
        groups = decode_groups(record.payload)
        groups[group][0][2] += "x"
        report = judge(sealed(store, shard, at, groups))
        told = [one for one in report.violations if f"shard {shard}, record {record.number}," in str(one)]
        assert told, report.violations[:3]


def record_at(store: MemoryStore, place: tuple[int, int, int, int]) -> Record:
    return store.records[place[0]][place[1]][0]


def event_at(store: MemoryStore, place: tuple[int, int, int, int]) -> Any:
    return decode_groups(record_at(store, place).payload)[place[2]][1][place[3]]


def snapshotted() -> World:
    world = World()
    world.receive("A", 10)
    order = world.reserve(("A", 2))
    world.reserve(("A", 20), always=True, channel="edi")
    world.pick("A", 1, order)
    world.pick("A", 1, ("web", "unknown"))
    world.set_policy("A", safety=1)
    world.snapshot()
    return world


# tag, and the fields of it that verify judges by (see the snapshot's format in ``actors.shard.encoding``)
JUDGED = [(0, range(6)), (1, (1, 2, 3, 4, 7, 8)), (2, (4,)), (3, (2, 9, 12, 13, 15)), (5, (2, 4))]


@pytest.mark.parametrize(("tag", "field"), [(tag, field) for tag, fields in JUDGED for field in fields])
def test_a_changed_field_of_a_snapshot_is_named(tag: int, field: int) -> None:
    store = snapshotted().store
    key, (part, _) = next((key, row) for key, row in store.slices.items() if has(row[0], tag))
    assert judge(store).violations == []
    assert judge(store).entities_compared > 5
    entities = msgpack.unpackb(part.payload)
    fields = next(entity[2] for entity in entities if entity[0] == tag)
    fields[field] = other(fields[field])
    changed = part._replace(payload=msgpack.packb(entities))
    store.slices[key] = (changed, slice_checksum(changed))
    report = judge(store)
    assert [one.rule for one in report.violations] == ["snapshot"]
    assert named(report) == {(part.shard, part.record_number)}
    assert report.violations[0].expected != report.violations[0].found


def has(part: SnapshotSlice, tag: int) -> bool:
    return any(entity[0] == tag for entity in msgpack.unpackb(part.payload))


def other(value: Any) -> Any:
    if isinstance(value, list):
        return [[3, 7]]
    return f"{value}x" if isinstance(value, str) else not value if isinstance(value, bool) else value + 1


@pytest.mark.parametrize(
    "payload",
    [
        encode_groups([1]),
        encode_groups([[1, 2]]),
        encode_groups([[[], [1]]]),
        encode_groups([[5, [[20]]]]),
        encode_groups([[["x"], [[20, 1, 2, 3]]]]),
        encode_groups([[[1, "web", "r"], [[]]]]),
        encode_groups([[[1, "web", "r"], [[20, [], 0, 0, "5", 0, 1, 0, 0, False, "", ""]]]]),
        encode_groups([[[1, "web", "r"], [[53, 7], [12, "k", 1, 1, None], [40, "", b"", []], [1, 2, 3, 4]]]]),
        encode_groups([[[0, "", ""], [3]]]),
        b"",
        b"\x80",
    ],
)
def test_what_no_writer_writes_is_a_violation_and_no_exception(payload: bytes, run_seed: int) -> None:
    store = copy_store(honest_store(run_seed))
    shard = busiest(store)
    at = len(store.records[shard]) // 2
    record = store.records[shard][at][0]._replace(payload=payload)
    put(store, shard, at, record)
    assert (shard, record.number) in named(judge(store))


# --- ids --------------------------------------------------------------------------------------------------------------


def spent_again(store: MemoryStore, *, later_in_a_lower_shard: bool) -> tuple[MemoryStore, int]:
    """A copy with one request opened twice, in two shards; the milliseconds between."""
    opened = [(place, record_at(store, place).time_ms) for place in events_of(store, 30)]
    pairs = (
        (first, second)
        for first in opened
        for second in reversed(opened)
        if second[1] > first[1]
        and (second[0][0] < first[0][0]) == later_in_a_lower_shard
        and second[0][0] != first[0][0]
    )
    (first, first_ms), (second, second_ms) = next(pairs)
    store = copy_store(store)
    groups = decode_groups(record_at(store, second).payload)
    groups[second[2]][1][second[3]][3:5] = groups[second[2]][0][1:3] = event_at(store, first)[3:5]
    return sealed(store, second[0], second[1], groups), second_ms - first_ms


@pytest.mark.parametrize("later_in_a_lower_shard", [False, True])
def test_an_id_is_spent_twice_within_its_window_only(later_in_a_lower_shard: bool, run_seed: int) -> None:
    store, apart_ms = spent_again(honest_store(run_seed), later_in_a_lower_shard=later_in_a_lower_shard)
    within = verify(MemoryJournal(store), dedupe_window_ms=apart_ms + 1)
    after = verify(MemoryJournal(store), dedupe_window_ms=apart_ms)
    assert [one.rule for one in within.violations if one.rule == "request id"] == ["request id"]
    assert [one.rule for one in after.violations if one.rule == "request id"] == []
    assert within.rounds == 2


def test_ids_that_are_too_many_for_memory_are_judged_all_the_same(
    run_seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = spent_again(honest_store(run_seed), later_in_a_lower_shard=False)
    in_memory = judge(store)
    monkeypatch.setattr(verify_ledger, "IDS_IN_MEMORY_MAX", 10)
    on_disk = judge(store)
    assert [str(one) for one in on_disk.violations] == [str(one) for one in in_memory.violations]
    assert any(one.rule == "request id" for one in on_disk.violations)


def split(store: MemoryStore, draw: random.Random) -> Ledger:
    """The books of two processes that judged some shards each, put together."""
    journal = MemoryJournal(store)
    heads = list(journal.info().heads)
    draw.shuffle(heads)
    at = draw.randrange(1, len(heads))
    mine, others = Ledger(DAY_MS), Ledger(DAY_MS)
    for part, ledger in ((heads[:at], mine), (heads[at:], others)):
        judge_shards(journal, iter(part), VerifyReport(), ledger, 0)
    mine.merge(others)
    return mine


def test_however_shards_are_shared_out_their_books_come_out_even(run_seed: int) -> None:
    draw = random.Random(run_seed)
    for _ in range(5):
        assert not split(honest_store(run_seed), draw).uneven()


@pytest.mark.parametrize("later_in_a_lower_shard", [False, True])
def test_however_shards_are_shared_out_an_id_spent_in_two_is_uneven(
    later_in_a_lower_shard: bool, run_seed: int
) -> None:
    store, _ = spent_again(honest_store(run_seed), later_in_a_lower_shard=later_in_a_lower_shard)
    draw = random.Random(run_seed)
    for _ in range(5):
        assert split(store, draw).uneven().ids


# --- what it tells ----------------------------------------------------------------------------------------------------


def test_a_violation_tells_expected_and_found_in_the_event_s_own_words(run_seed: int) -> None:
    def oversell(event: list[Any]) -> None:
        event[4:9] = [event[4] + 10_000, 0, 1, 0, 0]

    store = copy_store(honest_store(run_seed))
    places = ((place, decode_groups(store.records[place[0]][place[1]][0].payload)) for place in events_of(store, 20))
    # a reserve's grant, and not an amend's
    (shard, at, group, index), groups = next(one for one in places if one[1][one[0][2]][0][0] == int(Verb.RESERVE))
    oversell(groups[group][1][index])
    quantity = groups[group][1][index][4]
    found = next(one for one in judge(sealed(store, shard, at, groups)).violations if one.rule == "cover")
    assert found.found == str(quantity)
    assert found.expected.startswith("at most ")
    assert f"quantity={quantity}" in found.event
    assert found.cause.startswith("reserve ")
    assert found.time_ms == store.records[shard][at][0].time_ms


@pytest.mark.parametrize("compacted", [False, True])
def test_progress_ends_where_it_said_it_would(compacted: bool, run_seed: int) -> None:
    world = snapshotted()
    world.snapshot()
    world.reserve(("A", 1))
    if compacted:
        world.receive("A", 3)
        world.snapshot()
        world.journal.compact(world.now_ms + 1, 0)
        world.reserve(("A", 1))
    told: list[Done] = []
    report = verify(MemoryJournal(world.store), told.append)
    last = told[-1]
    assert report.ok
    assert (report.from_snapshot_shards > 0) == compacted
    assert (last.records <= last.records_total, last.events <= last.events_total) == (True, True)
    if not compacted:
        assert (last.records, last.events) == (last.records_total, last.events_total) == (report.records, report.events)


def test_the_first_violations_of_all_shards_are_told_and_all_are_counted(run_seed: int) -> None:
    store = copy_store(honest_store(run_seed))
    flips: Callable[[list[Any]], None] = lambda event: event.__setitem__(4, event[4] + 1)  # noqa: E731
    for shard, at, group, index in list(events_of(store, 20)):
        groups = decode_groups(store.records[shard][at][0].payload)
        flips(groups[group][1][index])
        sealed(store, shard, at, groups)
    report = judge(store)
    assert len(report.violations) == 100 < report.violation_count == sum(report.violations_by_rule.values())
    times = [one.time_ms for one in report.violations]
    assert times == sorted(times)
    assert len({one.shard for one in report.violations}) > 1
    assert not report.conserved
