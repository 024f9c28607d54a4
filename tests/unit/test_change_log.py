"""What a host tells of changes: the log in memory and the journal behind it say the same, and nothing is lost where they meet."""

from __future__ import annotations

from random import Random
from typing import Any

import msgpack
import pytest

from actors.domain.change_rows import AvailabilityChange, ReservationChange
from actors.domain.changes import changes_of, last_change, with_values
from actors.domain.keys import stock_key
from actors.domain.outcomes import Fact
from actors.journal.codec import decode_groups
from actors.shard.change_catchup import CatchUp
from actors.shard.change_log import ChangeLog, chunk_of
from actors.shard.placement import shard_of
from tests.unit.world import SHARDS, World

SHARD = shard_of(stock_key("main", "A"), SHARDS)
SKUS = "ABCDEFGH"


class Feed(World):
    """A world whose turns are noted as the host notes them."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__()
        self.log = ChangeLog(bytes_max)
        self.catch_up = CatchUp(self.journal)

    def step(self, *items: list[Any], accept_claims: bool = True) -> list[Any]:
        heads = {shard: head.record_number for shard, head in self.store.heads.items()}
        answers = super().step(*items, accept_claims=accept_claims)
        if getattr(self, "log", None) is not None and self.log.recording:
            records = [record for shard, number in heads.items() for record in self.journal.read(shard, number, 1_000)]
            groups = {record.shard: decode_groups(record.payload) for record in records}
            self.log.publish(self.log.record(self.engine.books, records, groups))
        return answers

    def begin(self) -> None:
        self.log.begin({shard.id: shard.sequence for shard in self.engine.books.shards.values()})

    def sequence(self, shard: int) -> int:
        return self.engine.books.shards[shard].sequence

    def told(self, shard: int, after: int, weight_max: int = 1_000_000) -> tuple[list[Any], int, bool]:
        """(rows after a place, up to which place, whether they came from memory): as the host answers."""
        ring = self.log.rings.get(shard)
        if ring is not None and after >= ring.floor:
            packed, upto, _ = ring.after(after, weight_max)
            return [row for one in packed for row in msgpack.unpackb(one)], upto, True
        (piece,) = self.catch_up.read([(shard, after, self.sequence(shard))], weight_max)
        assert not piece.gone_before
        state = self.engine.books.shards[shard]
        packed = [chunk_of(with_values(self.engine.books, state, rows)).packed for rows in piece.records]
        return [row for one in packed for row in msgpack.unpackb(one)], piece.upto, False

    def journaled(self, shard: int) -> list[tuple[Any, ...]]:
        """Every change of the shard from the beginning, without values."""
        rows: list[tuple[Any, ...]] = []
        for record in self.journal.read(shard, 0, 100_000):
            rows += changes_of(decode_groups(record.payload), record.first_sequence, record.time_ms)
        return rows


def test_a_record_tells_each_stock_key_once_and_each_step_of_a_reservation():
    world = Feed(10**6)
    world.receive("A", 10)
    world.begin()
    before = world.sequence(SHARD)
    reservation = world.reserve(("A", 2, "0"), ("A", 3, "1"), order="o-7")
    world.confirm(reservation)
    rows, upto, from_memory = world.told(SHARD, before)

    assert from_memory
    assert upto == world.sequence(SHARD)
    availability, opened, confirmed = AvailabilityChange(*rows[0]), ReservationChange(*rows[1]), rows[2]
    assert (availability.stock_key, availability.available_quantity) == (stock_key("main", "A"), 5)
    assert availability.seen_sequence >= availability.sequence
    assert (opened.what, opened.reservation_id, opened.channel_id, opened.order_reference) == (
        1, reservation.id, "web", "o-7",
    )  # fmt: skip
    assert [line[2:] for line in opened.lines] == [[2, 2], [3, 3]]
    assert confirmed[3:6] == [2, reservation.id, "web"]
    assert len(rows) == 3


def test_every_way_a_reservation_goes_is_told_with_its_channel():
    world = Feed(10**6)
    world.receive("A", 100)
    held = world.reserve(("A", 1), ttl_ms=5_000, channel="b2b")
    world.extend(held, 10_000)
    world.amend(held, ("0", "A", 2))
    world.pass_ms(20_000)
    shipped = world.reserve(("A", 3), confirm=True, channel="b2b")
    world.ship("A", 3, "s1", shipped)
    replaced = world.reserve(("A", 4), channel="b2b")
    world.reserve(("A", 5), replaces=replaced.id, channel="b2b")
    rows = [ReservationChange(*row) for row in world.told(SHARD, 0)[0] if row[0] == 2]
    of = {row.reservation_id: [one.what for one in rows if one.reservation_id == row.reservation_id] for row in rows}

    assert list(of.values()) == [[1, 3, 4, 5, 6], [1, 5, 6], [1, 5, 6], [1]]
    assert {row.channel_id for row in rows} == {"b2b"}
    assert [(row.fulfilled, row.released, row.expired) for row in rows if row.what == 5] == [
        (0, 0, 2), (3, 0, 0), (0, 4, 0),
    ]  # fmt: skip


def test_old_records_without_a_channel_are_told_all_the_same():
    events = [[31, "r1", "o1"], [32, "r1", 5], [33, "r1", [], 1, 2], [34, "r1", 1, 2, 3], [35, "r1", 3]]
    rows = changes_of([([], events)], 10, 77)

    assert [(row[1], row[3], row[5]) for row in rows] == [
        (10, 2, ""),
        (11, 3, ""),
        (12, 4, ""),
        (13, 5, ""),
        (14, 6, ""),
    ]


def test_the_last_change_is_found_from_the_end():
    events = [[20, "k"], [40, "e"], [41, "e"]]

    assert last_change([([], events)], 9) == 7
    assert last_change([([], events[1:])], 9) == 0
    assert last_change([([], events), ([], [[30, "r"]])], 9) == 9


def test_a_silent_feed_is_a_change_of_its_warehouse_with_what_holds_now():
    world = Feed(10**6)
    world.receive("A", 1)
    state = world.engine.books.shards[SHARD]
    rows = changes_of(
        [([], [[63, "wms\x1f", "main", True], [63, "wms2\x1f", "main", False], [10, stock_key("main", "A")]])], 5, 77
    )
    world.engine.books.set_stale("wms", "main", stale=True)

    told = with_values(world.engine.books, state, rows)

    assert told[:2] == [(3, 5, 77, "main", True), (3, 6, 77, "main", True)], "wms is silent still"
    assert told[2][5] is True, "and so is its availability"


@pytest.mark.parametrize("bytes_max", [1, 400, 5_000, 10**6])
def test_nothing_is_lost_or_doubled_where_memory_and_journal_meet(seed, bytes_max):
    """Random turns; readers at any place, in any steps, through a log that forgets nearly at once."""
    random = Random(seed)
    world = Feed(bytes_max)
    for sku in SKUS:
        world.receive(sku, 10_000)
    readers: list[tuple[dict[int, int], dict[int, list[Any]]]] = []
    live: list[Any] = []
    came_from = {True: 0, False: 0}

    def read(reader: tuple[dict[int, int], dict[int, list[Any]]], shard: int) -> None:
        places, got = reader
        rows, upto, from_memory = world.told(shard, places.get(shard, 0), random.choice([1, 3, 50]))
        came_from[from_memory] += 1
        got.setdefault(shard, []).extend(rows)
        assert upto >= places.get(shard, 0)
        places[shard] = upto

    shards = sorted({shard_of(stock_key("main", sku), SHARDS) for sku in SKUS})
    for turn in range(120):
        if turn == 20:
            world.begin()
        items = []
        for _ in range(random.randrange(1, 6)):
            lines = [(random.choice(SKUS), 1, str(line)) for line in range(random.randrange(1, 4))]
            items.append(world.reserve_item(*lines))
        live += world.step(*items)
        if live and random.random() < 0.5:
            world.release(live.pop(random.randrange(len(live))))
        if random.random() < 0.2:
            readers.append(({}, {}))
        for reader in readers:
            if random.random() < 0.5:
                read(reader, random.choice(shards))
    readers.append(({}, {}))
    for reader in readers:
        for shard in shards:
            while reader[0].get(shard, 0) < world.sequence(shard):
                read(reader, shard)
    for _, got in readers:
        for shard in shards:
            wanted = world.journaled(shard)
            assert [(row[0], row[1], row[3]) for row in got[shard]] == [(row[0], row[1], row[3]) for row in wanted]
            for row in got[shard]:
                assert row[0] != 1 or row[6] >= row[1], "a value is never older than its change"
    assert came_from[False]
    assert came_from[True]


def test_what_retention_dropped_is_said_and_where_the_rest_begins():
    world = Feed(10**6)
    world.receive("A", 100)
    for _ in range(20):
        world.reserve(("A", 1))
    del world.store.records[SHARD][:10]
    oldest = world.store.records[SHARD][0][0].first_sequence
    durable = world.sequence(SHARD)

    (gone,) = world.catch_up.read([(SHARD, oldest - 2, durable)], 1_000)
    (kept,) = world.catch_up.read([(SHARD, oldest - 1, durable)], 1_000)
    (all_kept,) = world.catch_up.read([(SHARD, -1, durable)], 1_000)

    assert (gone.gone_before, gone.records) == (oldest, [])
    assert kept.gone_before == 0
    assert [rows[0][1] >= oldest for rows in kept.records] == [True] * len(kept.records)
    assert all_kept.records == kept.records


def test_a_shard_whose_records_are_all_gone_has_nothing_to_tell():
    world = Feed(10**6)
    world.receive("A", 100)
    durable = world.sequence(SHARD)
    world.store.records[SHARD].clear()

    (gone,) = world.catch_up.read([(SHARD, 0, durable)], 1_000)
    (oldest,) = world.catch_up.read([(SHARD, -1, durable)], 1_000)
    (at_the_end,) = world.catch_up.read([(SHARD, durable, durable)], 1_000)

    assert gone.gone_before == durable + 1
    assert (oldest.gone_before, oldest.upto) == (0, durable)
    assert (at_the_end.gone_before, at_the_end.upto) == (0, durable)


@pytest.mark.parametrize("weight_max", [1, 7, 100])
def test_a_piece_ends_at_its_bound_and_the_next_goes_on_without_looking(weight_max):
    world = Feed(10**6)
    world.receive("A", 500)
    for _ in range(200):
        world.reserve(("A", 1))
    place, pieces, rows = 0, 0, []
    while place < world.sequence(SHARD):
        (piece,) = world.catch_up.read([(SHARD, place, world.sequence(SHARD))], weight_max)
        assert sum(map(len, piece.records)) <= weight_max + 2
        rows += [row for record in piece.records for row in record]
        place, pieces = piece.upto, pieces + 1

    assert rows == world.journaled(SHARD)
    assert pieces >= 400 // (weight_max + 2)


def test_a_pick_or_a_policy_touches_availability_and_bookkeeping_does_not():
    world = Feed(10**6)
    world.receive("A", 10)
    world.begin()
    place = world.sequence(SHARD)
    world.tell(Fact.PICK, "A", 2, [])
    world.set_policy("A", safety=3)
    rows, place, _ = world.told(SHARD, place)

    assert [row[4] for row in rows] == [8, 5]
    world.pass_ms(10**9)  # what ended leaves memory
    rows, upto, _ = world.told(SHARD, place)
    assert (rows, upto) == ([], world.sequence(SHARD))
