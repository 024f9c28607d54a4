"""``verify`` against random histories of everything the engine does: honest ones pass, whatever was changed is found.

A history is made from the run's seed, which is printed. Changes are made to sealed records, with the checksum made anew, as
somebody who knows the format would.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from actors.domain.outcomes import Disposition, Door, Fact, FillPolicy
from actors.domain.rules import Rules
from actors.journal.codec import decode_groups, encode_groups, record_checksum
from actors.journal.memory import MemoryJournal, MemoryStore, copy_store
from actors.journal.port import Record
from actors.journal.verify import VerifyReport, verify
from tests.unit.world import World

SKUS, WAREHOUSES = "ABCD", ("main", "om")

Edit = Callable[[list[Any]], None]


class Day:
    """A random day of two warehouses, one of which ships by order management."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.world = World(Rules(doors={"om": Door.ORDER_MANAGEMENT}, dedupe_memory_ms=5_000, healed_memory_ms=2_000))
        self.orders: list[Any] = []
        for warehouse in WAREHOUSES:
            for sku in SKUS:
                self.world.receive(sku, self.draw.randint(5, 60), warehouse=warehouse)

    def pass_turns(self, turns: int) -> World:
        for number in range(turns):
            self._reserve(number)
            if self.orders:
                self._change_an_order(number)
            self._warehouse()
            if self.draw.random() < 0.02:
                self.world.restart()
            if self.draw.random() < 0.03:
                self.world.snapshot(between=lambda: self.world.reserve((self.draw.choice(SKUS), 1)))
            self.world.pass_ms(self.draw.randint(0, 300))
        self.world.pass_ms(self.draw.choice((0, 10_000)))
        return self.world

    def _reserve(self, number: int) -> None:
        draw = self.draw
        lines = [
            (draw.choice(SKUS), draw.randint(1, 4), str(line), draw.choice(WAREHOUSES), draw.randint(0, 1))
            for line in range(draw.randint(1, 4))
        ]
        answer = self.world.reserve(
            *lines,
            ttl_ms=draw.choice((500, 1_500, 60_000)),
            confirm=draw.random() < 0.2,
            fill=draw.choice(list(FillPolicy)),
            always=draw.random() < 0.1,
            channel=draw.choice(("web", "edi")),
            order=draw.choice(("", f"O{number}")),
        )
        if answer.ok:
            self.orders.append(answer)

    def _change_an_order(self, number: int) -> None:
        draw, world = self.draw, self.world
        order, sku = draw.choice(self.orders), draw.choice(SKUS)
        if draw.random() < 0.5:
            world.confirm(order, order=draw.choice(("", f"P{number}")))
        if draw.random() < 0.2:
            world.extend(draw.choice(self.orders), draw.choice((1_000, 5_000)))
        if draw.random() < 0.3:
            world.pick(sku, draw.randint(1, 3), order)
            world.unpick(sku, draw.randint(0, 1) + 1, draw.choice((order, None)))
            promise = draw.choice((order, None, ("web", f"O{number}")))
            world.ship(sku, draw.randint(1, 3), world.fresh_id("s"), promise, close=draw.random() < 0.2)
        if draw.random() < 0.2:
            world.release(draw.choice(self.orders))
        if draw.random() < 0.2:
            world.reserve((sku, 2), (draw.choice(SKUS), 1), replaces=draw.choice(self.orders).id)
        if draw.random() < 0.2:
            world.amend(draw.choice(self.orders), ("0", sku, draw.randint(1, 4)), ("9", "C", 1))
        if draw.random() < 0.1:
            world.amend(draw.choice(self.orders), remove=("1",))
        if draw.random() < 0.2:
            world.fulfill(draw.choice(self.orders), world.fresh_id("f"), close=draw.random() < 0.3)
        if draw.random() < 0.05:
            world.release_by_request(f"never seen {number}", sku)

    def _warehouse(self) -> None:
        draw, world = self.draw, self.world
        sku = draw.choice(SKUS)
        if draw.random() < 0.3:
            world.receive(sku, draw.randint(1, 8))
        if draw.random() < 0.1:
            world.count(sku, draw.randint(0, 20), draw.random() < 0.5)
        if draw.random() < 0.1:
            world.set_policy(sku, safety=draw.randint(0, 6), selling=draw.choice((0, 1, 1, 2)))
        if draw.random() < 0.05:
            world.tell(Fact.DISPOSITION_CHANGE, sku, 2, int(Disposition.SELLABLE), int(Disposition.DAMAGED))
        if draw.random() < 0.1:
            self._transfer(sku)

    def _transfer(self, sku: str) -> None:
        """A few transfers, told in any order, some of them closed."""
        draw, sellable = self.draw, int(Disposition.SELLABLE)
        transfer, units = f"T{draw.randint(0, 9)}", draw.randint(1, 5)
        if draw.random() < 0.5:
            self.world.tell(Fact.TRANSFER_DISPATCH, sku, units, transfer, "1", "om", sellable)
        else:
            final = draw.random() < 0.3
            self.world.tell(Fact.TRANSFER_RECEIPT, sku, units, transfer, "1", "main", final, sellable, warehouse="om")


@cache
def honest_store(seed: int) -> MemoryStore:
    """One honest history, made once; take a copy of it."""
    return Day(seed).pass_turns(150).store


def judge(store: MemoryStore) -> VerifyReport:
    return verify(MemoryJournal(store))


@pytest.mark.parametrize("offset", range(8))
def test_an_honest_history_passes_whole_and_compacted(offset: int, run_seed: int) -> None:
    world = Day(run_seed + offset).pass_turns(120)
    report = judge(world.store)
    assert report.violations == []
    assert report.rounds == 1, "the sums over all shards come out even at once"
    assert report.from_snapshot_shards == 0
    assert report.reservations > 50
    whole_on_hand = report.on_hand
    for _ in range(2):
        world.receive("A", 1)
        world.receive("B", 1, warehouse="om")
        world.snapshot(between=lambda: world.reserve(("A", 1), ("B", 1, "1", "om")))
    world.journal.compact(world.now_ms + 1, 0)
    compacted = judge(world.store)
    assert compacted.violations == []
    assert compacted.rounds == 1
    assert compacted.from_snapshot_shards > 0
    assert compacted.on_hand[1] == whole_on_hand[1] + 4


def events_of(store: MemoryStore, kind: int) -> Iterator[tuple[int, int, int, int]]:
    """(shard, index of record, group, event) of every event of a kind."""
    for shard, rows in store.records.items():
        for at, (record, _) in enumerate(rows):
            for group, (_, events) in enumerate(decode_groups(record.payload)):
                yield from ((shard, at, group, index) for index, event in enumerate(events) if event[0] == kind)


def changed(kind: int, edit: Edit, seed: int, draw: random.Random) -> tuple[MemoryStore, Record]:
    """A copy of the honest history with one event of that kind changed, and the record it is in."""
    store = copy_store(honest_store(seed))
    shard, at, group, index = draw.choice(list(events_of(store, kind)))
    record, _ = store.records[shard][at]
    groups = decode_groups(record.payload)
    edit(groups[group][1][index])
    return sealed(store, shard, at, groups), record


def sealed(store: MemoryStore, shard: int, at: int, groups: list[Any]) -> MemoryStore:
    """Put changed groups into a record and make its checksum anew."""
    record, _ = store.records[shard][at]
    count = sum(len(events) for _, events in groups)
    edited = record._replace(payload=encode_groups(groups), event_count=count)
    store.records[shard][at] = (edited, record_checksum(edited))
    return store


def more(field: int, units: int) -> Edit:
    def edit(event: list[Any]) -> None:
        event[field] += units

    return edit


def more_by_its_home(event: list[Any]) -> None:
    event[8][0][3] += 1


def confirmed_twice(event: list[Any]) -> None:
    event[0] = 31
    del event[2:]
    event.append("")


CHANGES: list[tuple[str, int, Edit]] = [
    ("a grant of one unit more", 20, more(4, 1)),
    ("a grant of a thousand units more", 20, more(4, 1_000)),
    ("a release of one unit more", 22, more(4, 1)),
    ("a release of one unit less", 22, more(4, -1)),
    ("a fulfilment of one unit more", 24, more(4, 1)),
    ("units of which a home says they were released", 34, more(3, 1)),
    ("units of which a home says they expired", 34, more(4, 1)),
    ("units of which a home says they were fulfilled", 34, more(2, 1)),
    ("a line that its home opened with more", 30, more_by_its_home),
    ("a shortage that says another quantity", 51, more(2, 1)),
    ("a transfer's line that is told of more than came in", 71, more(5, 1)),
]


@pytest.mark.parametrize(("what", "kind", "edit"), CHANGES, ids=[change[0] for change in CHANGES])
def test_a_changed_quantity_names_the_record(what: str, kind: int, edit: Edit, run_seed: int) -> None:
    draw = random.Random(run_seed)
    for _ in range(5):
        store, record = changed(kind, edit, run_seed, draw)
        report = judge(store)
        named = {(one.shard, one.record_number) for one in report.violations}
        told = [one for one in report.violations if f"shard {record.shard}, record {record.number}," in one.message]
        assert (record.shard, record.number) in named or told, (what, record[:3], report.violations[:3])


def test_a_violation_says_what_the_record_did(run_seed: int) -> None:
    def oversell(event: list[Any]) -> None:
        event[4:9] = [event[4] + 10_000, 0, 1, 0, 0]

    store, record = changed(20, oversell, run_seed, random.Random(run_seed))
    found = next(one for one in judge(store).violations if "OVERSELL" in one.message)
    assert (found.shard, found.record_number, found.rule) == (record.shard, record.number, "cover")
    assert found.sequence >= record.first_sequence
    assert found.stock_key.startswith("\x1f")
    assert "ClaimGranted(" in found.did
    assert str(found).startswith(f"shard {found.shard}, record {found.record_number}, sequence {found.sequence}, ")


def test_a_doubled_grant_names_the_record(run_seed: int) -> None:
    draw = random.Random(run_seed)
    for _ in range(5):
        store = copy_store(honest_store(run_seed))
        shard, at, group, index = draw.choice(list(events_of(store, 20)))
        record, _ = store.records[shard][at]
        groups = decode_groups(record.payload)
        groups[group][1].insert(index, list(groups[group][1][index]))
        named = {(one.shard, one.record_number) for one in judge(sealed(store, shard, at, groups)).violations}
        assert (shard, record.number) in named or (shard, record.number + 1) in named


def test_a_dropped_record_is_named(run_seed: int) -> None:
    draw = random.Random(run_seed)
    for _ in range(5):
        store = copy_store(honest_store(run_seed))
        shard = draw.choice([shard for shard, rows in store.records.items() if len(rows) > 4])
        dropped, _ = store.records[shard].pop(draw.randrange(1, len(store.records[shard]) - 1))
        [first, *_] = judge(store).violations
        assert first.shard == shard
        assert f"record {dropped.number} is missing" in first.message


def test_records_missing_at_the_end_are_named(run_seed: int) -> None:
    store = copy_store(honest_store(run_seed))
    shard = max(store.records, key=lambda one: len(store.records[one]))
    del store.records[shard][-2:]
    number = store.records[shard][-1][0].number
    assert any(f"records {number + 1} to {number + 2} are missing" in one.message for one in judge(store).violations)


def test_a_damaged_record_in_the_middle_does_not_hide_the_other_shards(run_seed: int) -> None:
    store = copy_store(honest_store(run_seed))
    shards = sorted(store.records, key=lambda one: len(store.records[one]))[-2:]
    for shard in shards:
        record, checksum = store.records[shard][2]
        store.records[shard][2] = (record, checksum ^ 1)
    report = judge(store)
    assert {(one.shard, one.record_number) for one in report.violations} == {(shard, 3) for shard in shards}
    assert report.notes
    assert report.records == sum(map(len, store.records.values())) - 2


@pytest.mark.parametrize(
    ("what", "edit", "rule"),
    [
        ("its epoch went back", lambda record: record._replace(epoch=0), "epoch"),
        ("its time went back", lambda record: record._replace(time_ms=1), "time"),
        ("an epoch without its owner", lambda record: record._replace(epoch=99), "epoch"),
        ("its sequences have a gap", lambda record: record._replace(first_sequence=10**6), "sequence"),
        ("it counts another number of events", lambda record: record._replace(event_count=77), "record"),
        ("it is no msgpack", lambda record: record._replace(payload=b"\xc1"), "record"),
        ("events without a cause", lambda record: record._replace(payload=_without_causes(record)), "cause"),
        ("an unknown kind", lambda record: record._replace(payload=encode_groups([[[1, "a", "b"], [[99]]]])), "event"),
    ],
)
def test_a_record_that_cannot_be(what: str, edit: Callable[[Record], Record], rule: str, run_seed: int) -> None:
    store = copy_store(honest_store(run_seed))
    shard = max(store.records, key=lambda one: len(store.records[one]))
    at = len(store.records[shard]) // 2
    edited = edit(store.records[shard][at][0])
    store.records[shard][at] = (edited, record_checksum(edited))
    found = [one for one in judge(store).violations if (one.shard, one.record_number) == (shard, edited.number)]
    assert rule in {one.rule for one in found}, (what, found)


def _without_causes(record: Record) -> bytes:
    return encode_groups([[[], events] for _, events in decode_groups(record.payload)])


def test_a_request_id_spent_twice_is_found_over_shards(run_seed: int) -> None:
    store = copy_store(honest_store(run_seed))
    places = list(events_of(store, 30))
    shard, at, group, index = places[0]
    first = decode_groups(store.records[shard][at][0].payload)[group][1][index]
    other_shard, other_at, other_group, other_index = next(place for place in reversed(places) if place[0] != shard)
    groups = decode_groups(store.records[other_shard][other_at][0].payload)
    groups[other_group][1][other_index][3:5] = first[3:5]
    report = judge(sealed(store, other_shard, other_at, groups))
    assert any(one.rule == "request id" and first[4] in one.stock_key for one in report.violations)


def test_a_changed_receipt_shows_against_the_next_snapshot() -> None:
    world = World()
    world.receive("A", 10)
    world.snapshot()
    shard = next(shard for shard, rows in world.store.records.items() if len(rows) > 1)
    assert judge(world.store).ok
    record, _ = world.store.records[shard][1]
    groups = decode_groups(record.payload)
    next(event for event in groups[0][1] if event[0] == 12)[4] = 11
    report = judge(sealed(world.store, shard, 1, groups))
    [found] = report.violations
    assert (found.rule, found.record_number) == ("snapshot", 2)
    assert "on hand is {1: 11} by the records and {1: 10} in the snapshot" in found.message


def test_the_report_is_json(run_seed: int) -> None:
    import json

    store, _ = changed(20, more(4, 1), run_seed, random.Random(run_seed))
    document = json.loads(json.dumps(judge(store).plain()))
    assert document["ok"] is False
    assert document["violations"][0]["rule"]
