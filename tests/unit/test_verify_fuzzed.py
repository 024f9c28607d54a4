"""``verify`` on what fuzzing made of journals: it always ends, with a report, and says what is the service's fault only."""

from __future__ import annotations

import pytest

from actors.domain.keys import stock_key
from actors.journal.codec import encode_groups, record_checksum, slice_checksum
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from actors.shard.encoding import Tag, pack, unpack
from actors.shard.placement import shard_of
from tests.unit.world import SHARDS, World


def test_a_journal_whose_only_record_lies_behind_its_head_is_judged_to_its_end():
    """Found by fuzzing: verify went on for ever."""
    world = World()
    world.receive("A", 5)
    shard = shard_of(stock_key("main", "A"), SHARDS)
    rows = world.store.records[shard]
    last = rows[-1][0]
    moved = last._replace(number=last.number + 1)
    rows[:] = [(moved, record_checksum(moved))]
    report = verify(MemoryJournal(world.store))
    assert any("missing" in violation.message for violation in report.violations)


@pytest.mark.parametrize(
    "groups",
    [[[{}, []]], [[5, []]], [[[], [5]]], [[[], [[]]]], [[["a", "b", "c"], [[10, 5]]]], [[[[]], [[20, *[None] * 11]]]]],
)
def test_content_of_another_shape_is_a_violation_with_its_record(groups):
    """Found by fuzzing: it was a traceback."""
    world = World()
    world.receive("A", 5)
    shard = shard_of(stock_key("main", "A"), SHARDS)
    last, _ = world.store.records[shard][-1]
    spoiled = last._replace(payload=encode_groups(groups))
    world.store.records[shard][-1] = (spoiled, record_checksum(spoiled))
    report = verify(MemoryJournal(world.store))
    assert any((one.shard, one.record_number) == (shard, last.number) for one in report.violations), report.violations


def test_a_slice_with_an_empty_map_for_an_entity_is_a_violation():
    """Found by fuzzing: a bound of no elements lets an empty map through, and a map is read by keys."""
    world = World()
    world.receive("A", 5)
    world.reserve(("A", 2))
    world.snapshot()
    for key, (part, _) in list(world.store.slices.items()):
        entities = unpack(part.payload)
        spoiled = part._replace(
            payload=pack([[tag, name, {} if tag == Tag.CLAIMS else fields] for tag, name, fields in entities])
        )
        world.store.slices[key] = (spoiled, slice_checksum(spoiled))
    report = verify(MemoryJournal(world.store))
    assert [one.rule for one in report.violations] == ["snapshot"], report.violations
