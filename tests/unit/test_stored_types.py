"""What is stored with a right checksum and is nonsense all the same: recovery says ``JournalDamaged`` and where."""

from __future__ import annotations

import pytest

from actors.domain.commands import Verb
from actors.domain.keys import stock_key
from actors.domain.rules import Rules
from actors.journal.codec import decode_groups, encode_groups, record_checksum, slice_checksum
from actors.journal.memory import MemoryJournal
from actors.journal.port import EntryRow, JournalDamaged
from actors.shard.encoding import pack, read_entry_row, read_reservation_row, unpack
from actors.shard.placement import shard_of
from actors.shard.recovery import recover
from actors.shard.stored_types import EVENT_TYPES, check_event
from tests.unit.world import SHARDS, START_MS, World

SHARD = shard_of(stock_key("main", "A"), SHARDS)


@pytest.fixture
def world():
    made = World()
    made.receive("A", 10)
    made.reserve(("A", 2))
    return made


def damage_last_record(world, edit):
    record, _ = world.store.records[SHARD][-1]
    groups = decode_groups(record.payload)
    damaged = record._replace(payload=encode_groups(edit(groups) or groups))
    world.store.records[SHARD][-1] = (damaged, record_checksum(damaged))


def recovered(world):
    return recover(MemoryJournal(world.store), range(SHARDS), Rules(), START_MS)


@pytest.mark.parametrize(
    ("what", "edit"),
    [
        ("an unknown kind", lambda groups: groups[0][1][0].__setitem__(0, 99)),
        ("a field too few", lambda groups: groups[0][1][0].pop()),
        ("a field too many", lambda groups: groups[0][1][0].extend([1] * 20)),
        ("a field of another type", lambda groups: groups[0][1][0].__setitem__(1, 7)),
        ("events that are none", lambda groups: groups[0].__setitem__(1, 5)),
        ("groups that are none", lambda _: [5]),
        ("an event too few", lambda groups: groups[0][1].pop()),
        ("an event twice", lambda groups: groups[0][1].append(groups[0][1][-1])),
    ],
)
def test_a_record_that_cannot_be_replayed_is_damage_with_its_place(world, what, edit):
    damage_last_record(world, edit)
    with pytest.raises(JournalDamaged, match=f"shard {SHARD}: record"):
        recovered(world)


def test_a_snapshot_that_cannot_be_understood_is_passed_over(world):
    world.snapshot()
    live = world.ats("A")
    for key, (part, _) in list(world.store.slices.items()):
        entities = unpack(part.payload)
        entities[-1][2] = [None]
        spoiled = part._replace(payload=pack(entities))
        world.store.slices[key] = (spoiled, slice_checksum(spoiled))
    engine = recovered(world).engine
    question = [int(Verb.GET_AVAILABILITY), SHARD, 0, 1, [], ["web", [stock_key("main", "A")]]]
    assert engine.step([question], {}, START_MS).replies[0][2].items[0][0] == live == 8


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", pack(5), pack([[], []]), pack(["k", 1, 2, 3, 4, 5, 6]), b"\x91" * 5_000]
)
def test_a_row_that_cannot_be_understood_is_damage_with_its_key(payload):
    with pytest.raises(JournalDamaged, match="the row 'k'"):
        read_entry_row(EntryRow("k", 0, "", payload, 0))
    with pytest.raises(JournalDamaged, match="the row 'r'"):
        read_reservation_row(EntryRow("r", 0, "", payload, 0))


def test_every_kind_of_event_has_its_types():
    for kind, types in EVENT_TYPES.items():
        fields: list = [one() for one in types]
        if kind in (30, 50):
            fields[:2] = ["x-7", 7]
            with pytest.raises(ValueError, match="number"):
                check_event(kind, ["x-07", *fields[1:]])
        if kind == 61:
            with pytest.raises(ValueError, match="waiting event"):
                check_event(kind, fields)
            fields[4] = ["wms", "", "e1", 3, 0, stock_key("main", "A"), b"", 1, []]
        check_event(kind, fields)
        with pytest.raises(ValueError, match=f"kind {kind}"):
            check_event(kind, [None] * len(types))
