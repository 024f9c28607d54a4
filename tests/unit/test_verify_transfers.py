"""``verify`` judges transfers by itself: honest ones pass, whatever order they are told in; what was changed is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actors.domain.outcomes import Disposition, Fact
from actors.journal.codec import decode_groups
from actors.journal.memory import copy_store
from tests.unit.test_verify_random import events_of, judge, sealed
from tests.unit.world import World

SELLABLE = int(Disposition.SELLABLE)
DISPATCHED, RECEIVED, ALARMED, FORGOTTEN = 70, 71, 72, 73


def dispatch(world: World, units: int, transfer: str) -> None:
    world.tell(Fact.TRANSFER_DISPATCH, "A", units, transfer, "1", "overflow", SELLABLE)


def arrive(world: World, units: int, transfer: str, *, final: bool = False) -> None:
    world.tell(Fact.TRANSFER_RECEIPT, "A", units, transfer, "1", "main", final, SELLABLE, warehouse="overflow")


@pytest.fixture
def world() -> World:
    """One complete, one under way, one that overtook its dispatch, one short and healed, one short."""
    made = World()
    made.receive("A", 100)
    dispatch(made, 5, "complete")
    arrive(made, 5, "complete")
    dispatch(made, 5, "under way")
    arrive(made, 2, "under way")
    arrive(made, 5, "overtook")
    dispatch(made, 5, "overtook")
    dispatch(made, 5, "healed")
    arrive(made, 3, "healed", final=True)
    arrive(made, 2, "healed")
    dispatch(made, 5, "short")
    arrive(made, 2, "short", final=True)
    arrive(made, 1, "short")
    return made


def test_honest_transfers_pass_whole_and_from_a_snapshot(world: World) -> None:
    assert judge(world.store).violations == []
    for _ in range(2):
        world.snapshot(between=lambda: arrive(world, 1, "under way"))
        dispatch(world, 1, "under way")
    world.pass_ms(world.rules.history_ms + 1)
    dispatch(world, 1, "the next")
    world.restart()
    world.journal.compact(world.now_ms + 1, 0)
    report = judge(world.store)
    assert (report.violations, report.from_snapshot_shards > 0) == ([], True)


def drop(events: list[Any], index: int) -> None:
    del events[index]


def put(field: int, value: Any) -> Callable[[list[Any], int], None]:
    def edit(events: list[Any], index: int) -> None:
        events[index][field] = value

    return edit


EDITS: list[tuple[str, int, Callable[[list[Any], int], None]]] = [
    ("more is noted than came in", RECEIVED, put(5, 9)),
    ("a receipt is not noted", RECEIVED, drop),
    ("a dispatch of less than nothing", DISPATCHED, put(5, -1)),
    ("nobody was told of what was lost", ALARMED, drop),
    ("an exception about something else", ALARMED, put(4, "1-t1-0-77")),
    ("a transfer of another line", FORGOTTEN, put(3, "2")),
]


@pytest.mark.parametrize(("what", "kind", "edit"), EDITS, ids=[edit[0] for edit in EDITS])
def test_what_was_changed_is_found(world: World, what: str, kind: int, edit: Callable[[list[Any], int], None]) -> None:
    for shard, at, group, index in events_of(world.store, kind):
        store = copy_store(world.store)
        record, _ = store.records[shard][at]
        groups = decode_groups(record.payload)
        edit(groups[group][1], index)
        violations = judge(sealed(store, shard, at, groups)).violations
        assert any(one.rule == "transfer" for one in violations), (what, record.number, violations[:3])


def test_one_that_is_under_way_may_not_be_forgotten(world: World) -> None:
    shard, at, groups, events, index = the_one(world, RECEIVED, "under way")
    events.insert(index + 1, [FORGOTTEN, *events[index][1:4]])
    violations = judge(sealed(world.store, shard, at, groups)).violations
    assert any("somebody waits for its units" in one.message for one in violations)


def test_a_snapshot_that_knows_another_sum_is_found(world: World) -> None:
    world.snapshot()
    shard, at, groups, events, index = the_one(world, DISPATCHED, "under way")
    events[index][5] += 1
    assert {one.rule for one in judge(sealed(world.store, shard, at, groups)).violations} == {"snapshot"}


def the_one(world: World, kind: int, transfer: str) -> tuple[int, int, list[Any], list[Any], int]:
    """The first event of that kind about a transfer: shard, record, the record's groups, its group's events, and where there."""
    for shard, at, group, index in events_of(world.store, kind):
        groups = decode_groups(world.store.records[shard][at][0].payload)
        events = groups[group][1]
        if events[index][2] == transfer:
            return shard, at, groups, events, index
    raise AssertionError("no such event")
