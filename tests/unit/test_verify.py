"""``verify`` finds what was changed in a journal and names the record."""

from __future__ import annotations

import random

import pytest

from actors.domain.outcomes import Door
from actors.domain.rules import Rules
from actors.journal.codec import decode_groups, encode_groups, record_checksum
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from tests.unit.world import World


@pytest.fixture
def world(seed):
    made = World(Rules(doors={"main": Door.WAREHOUSE}, dedupe_memory_ms=5_000))
    draw = random.Random(seed)
    for sku in "ABC":
        made.receive(sku, 60)
    live: list = []
    for _ in range(120):
        answer = made.reserve((draw.choice("ABC"), draw.randint(1, 3)), (draw.choice("ABC"), 1), ttl_ms=1_500)
        if answer.ok:
            live.append(answer)
        if live and draw.random() < 0.5:
            made.confirm(draw.choice(live))
        if live and draw.random() < 0.3:
            order = draw.choice(live)
            made.pick("A", 1, order)
            made.ship("A", 1, made.fresh_id("s"), order)
        if live and draw.random() < 0.2:
            made.release(draw.choice(live))
        if live and draw.random() < 0.2:
            made.reserve(("A", 2), replaces=draw.choice(live).id)
        if live and draw.random() < 0.2:
            made.amend(draw.choice(live), ("0", "B", 2), ("9", "C", 1))
        if draw.random() < 0.3:
            made.receive(draw.choice("ABC"), 2)
        if draw.random() < 0.1:
            made.reserve(("A", 3), always=True, confirm=True, channel="edi")
        made.pass_ms(draw.randint(0, 300))
    made.pass_ms(10_000)
    return made


def report_of(world):
    return verify(MemoryJournal(world.store))


def test_an_honest_journal_passes(world):
    report = report_of(world)
    assert report.violations == []
    assert (report.oversells, report.ok) == (0, True)
    assert report.claims_granted > 50
    assert report.units_expired > 0


def test_from_a_snapshot_when_the_first_records_are_gone(world):
    for _ in range(2):
        world.snapshot(between=lambda: world.reserve(("A", 1)))
        world.reserve(("B", 1))
    world.journal.compact(world.now_ms + 1, 0)
    report = report_of(world)
    assert report.from_snapshot_shards > 0
    assert report.violations == []


def change(world, kind, edit):
    """Let ``edit(events, index)`` change the last record that holds an event of that kind; seal it again. (shard, number)."""
    for shard, rows in world.store.records.items():
        for at in range(len(rows) - 1, -1, -1):
            record, _ = rows[at]
            groups = decode_groups(record.payload)
            for _, events in groups:
                for index, event in enumerate(events):
                    if event[0] == kind:
                        edit(events, index)
                        count = sum(len(group[1]) for group in groups)
                        changed = record._replace(payload=encode_groups(groups), event_count=count)
                        rows[at] = (changed, record_checksum(changed))
                        return shard, record.number
    raise AssertionError("no such event")


def test_a_flipped_quantity_of_a_grant_is_found(world):
    def flip(events, index):
        events[index][4] += 1

    place = change(world, 20, flip)
    report = report_of(world)
    assert not report.ok
    assert place[1] in {violation.record_number for violation in report.violations}


def test_a_grant_beyond_the_stock_is_an_oversell(world):
    def flip(events, index):
        events[index][4] += 10_000

    shard, number = change(world, 20, flip)
    report = report_of(world)
    assert report.oversells >= 1
    first = next(violation for violation in report.violations if "OVERSELL" in violation.message)
    assert (first.shard, first.record_number) == (shard, number)
    assert first.stock_key


def test_a_doubled_grant_is_found(world):
    def double(events, index):
        events.insert(index, list(events[index]))

    shard, number = change(world, 20, double)
    report = report_of(world)
    assert (shard, number) in {
        (violation.shard, violation.record_number) for violation in report.violations
    } or number + 1 in {violation.record_number for violation in report.violations}


def test_a_dropped_record_is_found(world):
    shard = next(shard for shard, rows in world.store.records.items() if len(rows) > 5)
    dropped, _ = world.store.records[shard].pop(3)
    report = report_of(world)
    assert any(
        (violation.shard, violation.record_number) == (shard, dropped.number + 1) for violation in report.violations
    )


def test_a_unit_that_ends_twice_is_found(world):
    def more(events, index):
        events[index][4] += 5

    place = change(world, 22, more)
    assert place[1] in {violation.record_number for violation in report_of(world).violations}


def test_a_broken_checksum_names_the_record(world):
    shard = next(shard for shard, rows in world.store.records.items() if len(rows) > 5)
    record, checksum = world.store.records[shard][2]
    world.store.records[shard][2] = (record, checksum ^ 1)
    report = report_of(world)
    assert any(f"{record.number}" in violation.message for violation in report.violations)


def test_units_that_come_back_to_a_stock_key_after_the_confirm_are_confirmed_ones():
    world = World()
    world.receive("A", 5)
    world.receive("B", 5)
    order = world.reserve(("A", 1, "0"))
    world.amend(order, ("0", "B", 1))
    world.confirm(order)
    world.amend(order, ("0", "A", 1))
    world.snapshot()
    world.receive("A", 1)
    assert report_of(world).violations == []
