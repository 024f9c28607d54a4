"""What every journal must do, whichever adapter: fences, no gaps, all or nothing, entries, snapshots, compaction."""

from __future__ import annotations

import time

import pytest

from actors.journal.port import (
    EntryRow,
    Fenced,
    Journal,
    JournalDamaged,
    JournalError,
    JournalFull,
    Record,
    ShardHead,
    Snapshot,
    SnapshotSlice,
)
from tests.unit.journal_places import (
    NOW_MS,
    SHARD_COUNT,
    WANTED,
    Owner,
    Place,
    after,
    contents,
    next_record,
    place,
)

__all__ = ["place"]

DAY_MS = 24 * 3600 * 1000


def test_a_new_journal_knows_its_header_and_is_empty(place: Place) -> None:
    journal = place.open()
    header = journal.header
    assert (header.cluster_id, header.shard_count, header.placement_version) == WANTED[2:] + WANTED[:2]
    assert header.timeline
    assert journal.info().heads == tuple(ShardHead(shard, 0, 0, 0, 0) for shard in range(SHARD_COUNT))
    assert journal.read(0, 0, 10) == []
    assert journal.first_number(0) == 1


def test_taking_over_bumps_the_epoch_and_says_where_records_end(place: Place) -> None:
    first = Owner(place.open())
    first.append(3, events=4)
    heads = place.open().take_over([3, 5])
    assert heads == {3: ShardHead(3, 2, 1, 4, NOW_MS), 5: ShardHead(5, 2, 0, 0, 0)}


def test_what_was_appended_is_read_in_order(place: Place) -> None:
    owner = Owner(place.open())
    for events in (1, 0, 5):
        owner.append(2, 4, events=events)
    records = owner.journal.read(2, 0, 10)
    assert [(one.number, one.first_sequence, one.event_count) for one in records] == [(1, 1, 1), (2, 2, 0), (3, 2, 5)]
    assert owner.journal.read(2, 1, 1) == records[1:2]
    assert owner.journal.read_latest(4, 2) == owner.journal.read(4, 1, 10)[::-1]
    assert owner.journal.info().heads[2] == ShardHead(2, 1, 3, 6, NOW_MS)


FOLLOWS = ShardHead(1, epoch=2, record_number=2, sequence=2, time_ms=NOW_MS)


@pytest.mark.parametrize(
    ("why", "head"),
    [
        ("a former owner's epoch", FOLLOWS._replace(epoch=1)),
        ("an epoch nobody had", FOLLOWS._replace(epoch=3)),
        ("a gap in the numbers", FOLLOWS._replace(record_number=3)),
        ("a number twice", FOLLOWS._replace(record_number=1)),
        ("a gap in the sequences", FOLLOWS._replace(sequence=3)),
        ("a sequence twice", FOLLOWS._replace(sequence=1)),
        ("an unknown shard", FOLLOWS._replace(shard=SHARD_COUNT)),
    ],
)
def test_a_record_that_does_not_follow_is_fenced_and_all_of_its_turn_with_it(
    place: Place, why: str, head: ShardHead
) -> None:
    owner = Owner(Owner(place.open()).journal)
    owner.append(0, 1)
    owner.append(1)
    before = contents(owner.journal)
    good = next_record(owner.heads[0])
    entry = EntryRow("c\x1fweb\x1f1", 0, "", b"answer", NOW_MS)
    with pytest.raises(Fenced):
        owner.journal.append([good, next_record(head)], [entry], [])
    assert contents(owner.journal) == before, why


@pytest.mark.parametrize(
    ("read", "fenced"),
    [(FOLLOWS, False), (FOLLOWS._replace(epoch=1), True), (FOLLOWS._replace(record_number=1), True)],
)
def test_shards_that_were_only_read_are_compared_too(place: Place, read: ShardHead, fenced: bool) -> None:
    owner = Owner(Owner(place.open()).journal)
    owner.append(1)
    owner.append(1)
    before = contents(owner.journal)
    if fenced:
        with pytest.raises(Fenced):
            owner.journal.append([next_record(owner.heads[0])], [], [read])
        assert contents(owner.journal) == before
    else:
        owner.journal.append([next_record(owner.heads[0])], [], [read])
        assert owner.journal.read_latest(0, 1)


def test_a_former_owner_is_fenced_from_the_moment_another_took_over(place: Place) -> None:
    former, successor = Owner(place.open()), place.open()
    former.append(1)
    successor.take_over([1])
    with pytest.raises(Fenced):
        former.append(1)
    with pytest.raises(Fenced):
        former.journal.append([next_record(former.heads[0])], [], [former.heads[1]])
    with pytest.raises(Fenced):
        former.journal.check([former.heads[1]])
    assert len(successor.read(1, 0, 10)) == 1


def test_two_owners_of_different_shards_do_not_disturb_each_other(place: Place) -> None:
    one, other = Owner(place.open(), [0, 1]), Owner(place.open(), [2, 3])
    for _ in range(3):
        one.append(0, 1)
        other.append(2, 3)
    assert [len(one.journal.read(shard, 0, 10)) for shard in range(4)] == [3, 3, 3, 3]


def test_a_turn_that_appends_nothing_is_checked_by_epoch(place: Place) -> None:
    owner = Owner(place.open())
    owner.append(1)
    owner.journal.check([owner.heads[1]._replace(record_number=0), owner.heads[2]])
    with pytest.raises(Fenced):
        owner.journal.check([owner.heads[2], owner.heads[1]._replace(epoch=2)])


def test_a_former_owner_neither_writes_nor_publishes_a_snapshot(place: Place) -> None:
    former, successor = Owner(place.open()), place.open()
    former.append(4)
    published = former.snapshot(4)
    former.append(4)
    head = former.heads[4]
    part = SnapshotSlice(4, head.sequence, 0, head.sequence, head.record_number, b"of the former owner")
    former.journal.write_slice(part, head.epoch)
    successor.take_over([4])
    with pytest.raises(Fenced, match="shard 4"):
        former.journal.write_slice(part._replace(slice_number=1), head.epoch)
    with pytest.raises(Fenced, match="shard 4"):
        former.journal.write_slice(SnapshotSlice(4, published.snapshot_id, 0, 1, 1, b"published"), head.epoch)
    with pytest.raises(Fenced, match="shard 4"):
        former.journal.publish_snapshot(Snapshot(4, head.sequence, 1, 2, 2, 2, NOW_MS, head.epoch))
    assert successor.snapshots(4) == [published]
    assert successor.read_slices(published)[0].payload == b"slice 0 at 1"


def test_whoever_owns_nothing_can_follow(place: Place) -> None:
    owner, follower = Owner(place.open()), place.open()
    owner.append(2, 3, events=2)
    snapshot = owner.snapshot(2)
    owner.append(2)
    assert follower.heads([2, 3, 4, SHARD_COUNT]) == {shard: owner.heads[shard] for shard in (2, 3, 4)}
    assert follower.snapshots(2) == [snapshot]
    assert len(follower.read_slices(snapshot)) == snapshot.slice_count
    assert follower.read(2, snapshot.lowest_record_number, 10) == owner.journal.read_latest(2, 1)
    owner.append(2)  # nobody was fenced by it


def test_facts_of_the_cluster_are_kept_and_the_last_one_counts(place: Place) -> None:
    one, other = place.open(), place.open()
    assert one.get_fact("placement") is None
    one.put_fact("placement", b"first")
    one.put_fact("else", bytes(range(256)))
    other.put_fact("placement", b"second")
    one.close()
    assert (other.get_fact("placement"), place.open().get_fact("else")) == (b"second", bytes(range(256)))


def test_two_records_of_one_shard_in_a_call_are_refused(place: Place) -> None:
    owner = Owner(place.open())
    first = next_record(owner.heads[0])
    with pytest.raises(ValueError, match="several records"):
        owner.journal.append([first, next_record(after(first))], [], [])
    assert owner.journal.read(0, 0, 10) == []


def test_entries_come_with_the_reservation_they_point_at(place: Place) -> None:
    owner = Owner(place.open())
    reservation = EntryRow("r\x1f1-t-0-7", 0, "", b"the reservation", NOW_MS)
    reserve = EntryRow("c\x1fweb\x1fr1", 0, "1-t-0-7", b"", NOW_MS)
    confirm = EntryRow("c\x1fweb\x1fr2", 0, "1-t-0-7", b"", NOW_MS)
    event = EntryRow("e\x1fwms\x1fe1", 0, "", b"applied", NOW_MS)
    dangling = EntryRow("c\x1fweb\x1fr3", 0, "1-t-0-8", b"", NOW_MS)
    owner.append(0, entries=(reservation, reserve, confirm, event, dangling))
    find = owner.journal.find_entries
    assert find(["c\x1fweb\x1fr1"]) == {reserve.key: reserve, reservation.key: reservation}
    assert find([reserve.key, confirm.key, event.key, "c\x1fweb\x1fnone"]) == {
        row.key: row for row in (reserve, confirm, reservation, event)
    }
    assert find([dangling.key]) == {dangling.key: dangling}
    assert find([]) == {}
    keys = (reservation.key, reserve.key, confirm.key, event.key, dangling.key)
    assert sorted(owner.journal.entry_keys()) == sorted(keys)
    later = reserve._replace(payload=b"again", end_time_ms=NOW_MS + 1)
    owner.append(0, entries=(later,))
    assert find([reserve.key])[reserve.key] == later


def test_keys_of_stored_entries_by_shard(place: Place) -> None:
    owner = Owner(place.open())
    for shard in range(3):
        owner.append(shard, entries=(EntryRow(f"e\x1fwms\x1f{shard}", shard, "", b"x", NOW_MS),))
    assert sorted(owner.journal.entry_keys([0, 2])) == ["e\x1fwms\x1f0", "e\x1fwms\x1f2"]
    assert list(owner.journal.entry_keys([])) == []


def test_everything_is_there_again_after_reopening(place: Place) -> None:
    owner = Owner(place.open())
    for number in range(20):
        owner.append(number % SHARD_COUNT, entries=(EntryRow(f"e\x1fwms\x1f{number}", 0, "", b"x", NOW_MS),))
    owner.snapshot(3)
    owner.journal.checkpoint()
    before = contents(owner.journal)
    owner.journal.close()
    assert contents(place.open()) == before


def test_a_closed_journal_writes_nothing_any_more(place: Place) -> None:
    owner = Owner(place.open())
    owner.journal.close()
    with pytest.raises(JournalError):
        owner.append(0)


def test_a_full_disk_refuses_all_of_an_append(place: Place) -> None:
    owner = Owner(place.open())
    owner.append(0, 1)
    before = contents(owner.journal)
    place.fill()
    big = next_record(owner.heads[0])._replace(payload=b"\x91" * 100_000)
    with pytest.raises(JournalFull):
        owner.journal.append([next_record(owner.heads[1]), big], [], [])
    assert contents(owner.journal) == before


def test_a_damaged_record_is_named(place: Place) -> None:
    owner = Owner(place.open())
    for _ in range(3):
        owner.append(5)
    place.damage("record", shard=5, number=2)
    assert len(owner.journal.read(5, 2, 10)) == 1
    with pytest.raises(JournalDamaged, match=r"shard 5: record 2"):
        owner.journal.read(5, 0, 10)


def test_a_damaged_last_record_refuses_the_takeover(place: Place) -> None:
    owner = Owner(place.open())
    owner.append(5)
    place.damage("record", shard=5, number=1)
    with pytest.raises(JournalDamaged, match=r"shard 5"):
        place.open().take_over([5])


def test_only_published_snapshots_count_and_the_newest_two_are_kept(place: Place) -> None:
    owner = Owner(place.open())
    journal = owner.journal
    made = []
    for _ in range(3):
        owner.append(4)
        made.append(owner.snapshot(4))
    owner.append(4)
    head = owner.heads[4]
    journal.write_slice(SnapshotSlice(4, head.sequence, 0, head.sequence, head.record_number, b"under way"), head.epoch)
    assert journal.snapshots(4) == [made[2], made[1]]
    assert journal.snapshots(5) == []
    assert [part.payload for part in journal.read_slices(made[2])] == [b"slice 0 at 3", b"slice 1 at 3"]
    with pytest.raises(JournalDamaged):
        journal.read_slices(made[0])


def test_a_snapshot_without_all_its_slices_is_not_published(place: Place) -> None:
    owner = Owner(place.open())
    owner.append(0)
    owner.journal.write_slice(SnapshotSlice(0, 1, 0, 1, 1, b"one of two"), 1)
    with pytest.raises(JournalError, match="snapshot 1 of shard 0"):
        owner.journal.publish_snapshot(Snapshot(0, 1, 2, 1, 1, 1, NOW_MS, 1))
    assert place.open().snapshots(0) == []


def test_a_published_snapshot_stays_as_it_is(place: Place) -> None:
    owner = Owner(place.open())
    owner.append(0)
    published = owner.snapshot(0)
    owner.journal.write_slice(SnapshotSlice(0, published.snapshot_id, 0, 9, 9, b"of a later try"), 1)
    owner.journal.publish_snapshot(published._replace(highest_sequence=9))
    assert owner.journal.snapshots(0) == [published]
    assert owner.journal.read_slices(published)[0].payload == b"slice 0 at 1"


@pytest.mark.parametrize("what", ["slice", "missing slice"])
def test_a_damaged_slice_is_found_and_the_older_snapshot_still_usable(place: Place, what: str) -> None:
    owner = Owner(place.open())
    owner.append(6)
    older = owner.snapshot(6)
    owner.append(6)
    newer = owner.snapshot(6)
    place.damage(what, shard=6, number=1)
    with pytest.raises(JournalDamaged, match="shard 6"):
        owner.journal.read_slices(newer)
    assert len(owner.journal.read_slices(older)) == 2


def _aged(owner: Owner, shard: int, ages_days: list[int]) -> None:
    for age in ages_days:
        owner.append(shard, time_ms=NOW_MS - age * DAY_MS)


def _numbers(journal: Journal, shard: int) -> list[int]:
    return [record.number for record in journal.read(shard, 0, 100)]


def test_compaction_drops_old_records_that_both_kept_snapshots_cover(place: Place) -> None:
    owner = Owner(place.open())
    _aged(owner, 0, [9, 9, 9])
    owner.snapshot(0)
    _aged(owner, 0, [9])
    owner.snapshot(0)
    _aged(owner, 0, [1])
    result = owner.journal.compact(NOW_MS - 7 * DAY_MS, 0)
    assert result.records_dropped == 3
    assert _numbers(owner.journal, 0) == [4, 5]
    assert owner.journal.first_number(0) == 4
    owner.append(0)
    assert place.open().take_over([0])[0].record_number == 6


@pytest.mark.parametrize(
    ("why", "ages", "snapshots_after", "kept"),
    [
        ("one snapshot may turn out damaged", [9, 9, 9], [2], [1, 2, 3]),
        ("no snapshot", [9, 9], [], [1, 2]),
        ("younger than asked", [6, 6, 6], [2, 3], [1, 2, 3]),
        ("old ones only as far as the older snapshot", [9, 9, 9, 9], [1, 4], [2, 3, 4]),
        ("all covered, all old", [9, 9, 9], [3, 3], [1, 2, 3]),
    ],
)
def test_compaction_keeps_what_recovery_may_need(
    place: Place, why: str, ages: list[int], snapshots_after: list[int], kept: list[int]
) -> None:
    owner = Owner(place.open())
    for number, age in enumerate(ages, start=1):
        _aged(owner, 1, [age])
        for _ in range(snapshots_after.count(number)):
            owner.snapshot(1)
    owner.journal.compact(NOW_MS - 7 * DAY_MS, 0)
    assert _numbers(owner.journal, 1) == kept, why


def test_a_shard_of_which_all_records_are_gone_goes_on(place: Place) -> None:
    owner = Owner(place.open())
    _aged(owner, 2, [9, 9])
    owner.snapshot(2)
    owner.journal.append([next_record(owner.heads[2], 0, NOW_MS - 9 * DAY_MS)], [], [])
    empty = ShardHead(2, 1, 3, 2, NOW_MS - 9 * DAY_MS)
    owner.heads[2] = empty
    owner.journal.write_slice(SnapshotSlice(2, 3, 0, 2, 3, b"the second"), 1)
    owner.journal.publish_snapshot(Snapshot(2, 3, 1, 2, 2, 3, NOW_MS, 1))
    owner.journal.compact(NOW_MS, 0)
    assert _numbers(owner.journal, 2) == [3]
    owner.append(2)
    assert owner.journal.first_number(2) == 3


def test_compaction_drops_entries_whose_window_ended_a_bounded_number_at_a_time(place: Place) -> None:
    owner = Owner(place.open())
    rows = tuple(EntryRow(f"e\x1fwms\x1f{age}", 0, "", b"x", NOW_MS - age * DAY_MS) for age in range(6))
    owner.append(0, entries=rows)
    assert owner.journal.compact(0, NOW_MS - 2 * DAY_MS, rows_max=2).entries_dropped == 2
    assert owner.journal.compact(0, NOW_MS - 2 * DAY_MS).entries_dropped == 1
    assert sorted(owner.journal.entry_keys()) == [row.key for row in rows[:3]]


def test_a_host_reads_keys_and_drops_what_is_old_of_its_own_shards_only(place: Place) -> None:
    owner = Owner(place.open())
    for shard in (0, 1):
        _aged(owner, shard, [9, 9])
        owner.snapshot(shard)
        _aged(owner, shard, [9])
        owner.snapshot(shard)
    rows = tuple(EntryRow(f"e\x1fwms\x1f{shard}", shard, "", b"x", NOW_MS - 9 * DAY_MS) for shard in (0, 1, 1, 2))
    owner.append(0, entries=rows)
    assert list(owner.journal.entry_keys([1, 2])) == ["e\x1fwms\x1f1", "e\x1fwms\x1f2"]
    result = owner.journal.compact(NOW_MS, NOW_MS, shards=[1, 7])
    assert (result.records_dropped, result.entries_dropped) == (2, 1)
    assert list(owner.journal.entry_keys()) == ["e\x1fwms\x1f0", "e\x1fwms\x1f2"]
    assert [owner.journal.first_number(shard) for shard in (0, 1)] == [1, 3]


def test_a_journal_on_another_machine_says_what_the_time_is_there(place: Place) -> None:
    there_ms = Owner(place.open()).journal.wall_ms()
    assert there_ms is None or abs(there_ms - time.time_ns() // 1_000_000) < 60_000


def test_a_large_turn_of_all_shards_is_one_append(place: Place) -> None:
    owner = Owner(place.open())
    owner.append(*range(SHARD_COUNT), events=500)
    assert [len(owner.journal.read(shard, 0, 2)) for shard in range(SHARD_COUNT)] == [1] * SHARD_COUNT


def test_any_bytes_and_numbers_come_back_as_they_went(place: Place) -> None:
    owner = Owner(place.open())
    record = Record(7, 1, 1, 1, 3, 2**53, bytes(range(256)) * 40)
    owner.journal.append([record], [EntryRow("c\x1f\u00e9\U0001f4e6\x1f'", 7, "", b"", -1)], [])
    assert owner.journal.read(7, 0, 1) == [record]
    assert list(owner.journal.entry_keys()) == ["c\x1f\u00e9\U0001f4e6\x1f'"]
