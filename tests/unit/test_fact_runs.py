"""Plain events decided in one loop leave what they would have left one by one: the same answers, state, events and causes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from actors.domain import changes, fact_runs
from actors.domain.commands import Verb
from actors.domain.keys import stock_key
from actors.domain.outcomes import Disposition, Fact
from actors.domain.rules import Rules
from actors.journal import fact_runs as spelling
from actors.journal.codec import decode_groups, decode_groups_as_tuples, encode_groups
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from actors.shard import engine
from actors.shard.encoding import canonical_state
from actors.shard.placement import feed_shard_of, shard_of
from tests.unit.world import SHARDS, World

GOLDEN = json.loads((Path(__file__).parent / "golden" / "fact_run.json").read_text(encoding="utf-8"))
SKUS = [f"S{number}" for number in range(12)]
SELLABLE, DAMAGED = int(Disposition.SELLABLE), int(Disposition.DAMAGED)


def one_by_one(*_: Any) -> int:
    """No run is ever booked: every event goes the long way."""
    return 0


def events_of(world: World) -> dict[int, list[Any]]:
    """Every event of the journal with its cause and its record, by shard."""
    return {
        shard: [
            (record.number, record.first_sequence, record.event_count, cause, event)
            for record in MemoryJournal(world.store).read(shard, 0, 10_000)
            for cause, events in decode_groups(record.payload)
            for event in events
        ]
        for shard in range(SHARDS)
    }


def runs_of(world: World) -> int:
    """How many rows of runs are in the journal."""
    count = 0
    for shard in range(SHARDS):
        for record in MemoryJournal(world.store).read(shard, 0, 10_000):
            count += record.payload.count(b"\x97\xcc\x8c")  # a header of seven elements, the first of them 140
    return count


def beside_its_feed(sku: str) -> str:
    """A warehouse in which that SKU lives in the feed shard of ``wms``."""
    names = (f"W{number}" for number in range(10_000))
    return next(name for name in names if shard_of(stock_key(name, sku), SHARDS) == feed_shard_of("wms", SHARDS))


class Traffic:
    """What a warehouse system and some shops send, drawn at random, mostly plain events of one stream."""

    def __init__(self, draw: random.Random, world: World) -> None:
        self._draw = draw
        self._world = world
        self._sequence = 0
        self._missing: list[int] = []
        self._sent: list[Any] = []

    def turn(self) -> list[Any]:
        return [self._item() for _ in range(self._draw.choice((1, 3, 20, 60)))]

    def _item(self) -> Any:
        draw, world = self._draw, self._world
        chance = draw.random()
        if chance < 0.04 and self._sent:
            item = draw.choice(self._sent[-30:])
            return [*item[:5], list(item[5])] if draw.random() < 0.5 else self._other(item)
        if chance < 0.10:
            return world.reserve_item((draw.choice(SKUS), draw.randint(1, 4)), ttl_ms=draw.choice((2_000, 900_000)))
        item = self._event()
        self._sent.append(item)
        return item

    def _event(self) -> Any:
        draw, world = self._draw, self._world
        told: dict[str, Any] = {"sequence": self._next(), "age_ms": draw.choice((0, 0, 50, 3_000, 30_000))}
        if draw.random() < 0.1:
            told |= {"document_id": "D-1", "document_line": "7", "attributes": [["supplier_id", "acme"]]}
        if draw.random() < 0.05:
            told["warehouse"] = "north"
        if draw.random() < 0.05:
            told["stream"] = "b"
        sku, units = draw.choice(SKUS), draw.randint(1, 6)
        disposition = SELLABLE if draw.random() < 0.95 else DAMAGED
        kind = draw.choices(
            ("receipt", "adjustment", "now", "as of", "pick", "ship", "damaged"), (12, 12, 3, 1, 1, 1, 1)
        )[0]
        event = world.event
        if kind == "receipt":
            return event(Fact.RECEIPT, sku, units, disposition, draw.choice(("", "PO-1")), "", **told)
        if kind == "adjustment":
            return event(
                Fact.ADJUSTMENT,
                sku,
                draw.choice((-1, 1)) * units,
                disposition,
                "broken",
                draw.choice(("", "wet")),
                **told,
            )
        if kind == "now":
            return event(Fact.STOCK_COUNT, sku, draw.randint(0, 40), disposition, 0, True, draw.random() < 0.5, **told)
        if kind == "as of":
            told |= {"age_ms": 100}
            return event(
                Fact.STOCK_COUNT,
                sku,
                draw.randint(0, 40),
                SELLABLE,
                max(0, self._sequence + draw.choice((-3, 0, 10))),
                False,
                True,
                **told,
            )
        if kind == "pick":
            return event(Fact.PICK, sku, units, [], **told)
        if kind == "ship":
            return event(Fact.SHIPMENT, sku, units, world.fresh_id("ship"), [], False, SELLABLE, **told)
        return event(Fact.DISPOSITION_CHANGE, sku, units, SELLABLE, DAMAGED, **told)

    def _next(self) -> int:
        """Mostly the next; sometimes none, or one too far, whose gap is filled or not."""
        chance = self._draw.random()
        if chance < 0.05:
            return 0
        if chance < 0.06:
            self._missing.append(self._sequence + 1)
            self._sequence += 1
        elif chance < 0.07 and self._missing:
            return self._missing.pop()
        self._sequence += 1
        return self._sequence

    def _other(self, item: Any) -> Any:
        """The same id with other content."""
        body = list(item[5])
        body[6] = self._draw.randbytes(8)
        return [*item[:5], body]


@pytest.mark.parametrize("round_number", range(12))
def test_a_run_leaves_what_its_events_would_have_left_one_by_one(seed, round_number, monkeypatch):
    worlds, journals, replies = [], [], []
    for book_run in (fact_runs.book_run, one_by_one):
        monkeypatch.setattr(engine, "book_run", book_run)
        draw = random.Random(seed + round_number)
        world = World(
            Rules(
                ended_in_memory_max=draw.choice((10, 100, 1_000)),
                history_ms=draw.choice((20_000, 3_600_000)),
                gap_patience_ms=draw.choice((2_000, 60_000)),
                deferral_ms_max=5_000,
            )
        )
        world.set_gate(SKUS[0], item_state=2)
        world.set_gate(SKUS[1], receipt_disposition=2, recalled_lot_ids=["L-1"])
        traffic, answers = Traffic(draw, world), []
        for _ in range(25):
            items = traffic.turn()
            answers.append([answer.reply for answer in world.step(*items)])
            world.pass_ms(draw.choice((0, 5, 1_000)))
            if draw.random() < 0.1:
                world.snapshot()
        worlds.append(world)
        replies.append(answers)
        journals.append(events_of(world))
    fast, slow = worlds

    assert runs_of(fast) > 10
    assert runs_of(slow) == 0
    assert replies[0] == replies[1]
    assert journals[0] == journals[1]
    for shard in range(SHARDS):
        assert canonical_state(fast.engine.books, shard) == canonical_state(slow.engine.books, shard)
    fast.restart()
    assert verify(MemoryJournal(fast.store)).violations == []


def test_a_change_is_told_at_the_same_place_whether_its_events_are_a_run_or_not():
    """Also where the feed shard is the stock key's: then a row of one event stands beside one of two."""
    world = World()
    warehouse = beside_its_feed(SKUS[0])
    world.receive(SKUS[0], 5, sequence=1, warehouse=warehouse)
    world.receive(SKUS[0], 5, sequence=2)
    events = [
        world.event(Fact.ADJUSTMENT, SKUS[0], 1, SELLABLE, "", "", sequence=number, warehouse=one)
        for number, one in enumerate(["main", warehouse, "main", warehouse, "main"], 3)
    ]
    result = world.engine.step(events, {}, world.now_ms)

    for record in result.records:
        live = result.groups[record.shard]
        read = decode_groups(record.payload)
        assert any(group[0][0] == fact_runs.FACT_RUN for group in live)
        told = changes.changes_of(read, record.first_sequence, record.time_ms)
        assert changes.changes_of(live, record.first_sequence, record.time_ms) == told
        last = record.first_sequence + record.event_count - 1
        assert changes.last_change(live, last) == changes.last_change(read, last)
        assert record.event_count == sum(len(events) for _, events in read)


def test_both_sides_of_an_event_in_one_record_have_one_cause():
    world = World()
    warehouse = beside_its_feed(SKUS[0])
    world.receive(SKUS[0], 5, sequence=1, warehouse=warehouse)
    (record,) = world.engine.step(
        [
            world.event(Fact.ADJUSTMENT, SKUS[0], 1, SELLABLE, "", "", sequence=number, warehouse=warehouse)
            for number in (2, 3)
        ],
        {},
        world.now_ms,
    ).records

    assert [[event[0] for event in events] for _, events in decode_groups(record.payload)] == [
        [12, 60, 40],
        [12, 60, 40],
    ]


def test_a_count_that_waited_is_decided_once_a_run_reached_its_place():
    world = World()
    world.receive("A", 5, sequence=1)
    told = world.tell(Fact.STOCK_COUNT, "A", 7, SELLABLE, 4, False, True, sequence=2)
    assert told.outcome == "DEFERRED"
    world.step(*[world.event(Fact.ADJUSTMENT, "A", 1, SELLABLE, "", "", sequence=number) for number in (3, 4, 5)])
    world.step()

    assert runs_of(world) >= 2
    assert world.on_hand("A") == 8


def test_the_numbers_of_a_run_are_nobody_elses():
    assert (spelling.FACT_RUN, spelling.MOVED, spelling.RECEIVED) == (
        fact_runs.FACT_RUN, fact_runs.MOVED, fact_runs.RECEIVED,
    )  # fmt: skip
    assert changes.RECEIVED == fact_runs.RECEIVED
    assert fact_runs.FACT_RUN not in set(Verb)
    assert spelling.INGEST == Verb.INGEST
    assert spelling.STOCK_COUNT == Fact.STOCK_COUNT


# --- its bytes ---------------------------------------------------------------------------------------------------------------

HEADER = [140, 1_700_000_000_000, "shop", "trace-1", "", "wms", "a"]
ROWS = [
    [12, "\x1fmain\x1fA", "e-1", 7, 1_699_999_999_000, 1, 5, "PO-1"],
    [69, "e-1", 7, 1_699_999_999_000, bytes(range(16)), "main", 3, 2, 40],
    [12, "\x1fmain\x1fB", "e-2", 8, 1_699_999_999_001, 6, -2, "D-1", "D-1", "", "L", 9, "", [["k", "größe"]]],
    [69, "e-3", 0, 1_699_999_999_002, b"\x01", "north", 9, 1, 2],
]
TOLD = ["shop", "trace-1", "", "wms", "a"]
WRITTEN_OUT = [
    [
        [40, "", "e-1", *TOLD, 7, 1_699_999_999_000],
        [
            [12, "\x1fmain\x1fA", 1, 1, 5, "PO-1", "", "", "", 0, "", [], "wms\x1fa", 7, 1_699_999_999_000],
            [60, "wms\x1fa", 7, "main", 1_699_999_999_000, 1],
            [40, "e\x1fwms\x1fe-1", bytes(range(16)), [3, 1, 0, "", 0, 3, 2, 40, 1_700_000_000_000]],
        ],
    ],
    [
        [40, "", "e-2", *TOLD, 8, 1_699_999_999_001],
        [[12, "\x1fmain\x1fB", 6, 1, -2, "D-1", "D-1", "", "L", 9, "", [["k", "größe"]], "", 0, -1]],
    ],
    [
        [40, "", "e-3", *TOLD, 0, 1_699_999_999_002],
        [
            [60, "wms\x1fa", 0, "north", 1_699_999_999_002, 1],
            [40, "e\x1fwms\x1fe-3", b"\x01", [3, 1, 0, "", 0, 9, 1, 2, 1_700_000_000_000]],
        ],
    ],
]  # fmt: skip
OWNED = [[101, "", ""], [[41, "e\x1fwms\x1f4711"]]]


def as_tuples(value: Any) -> Any:
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def test_a_run_is_written_and_read_as_it_always_was():
    payload = bytes.fromhex(GOLDEN["payload"])

    assert encode_groups([OWNED, [HEADER, ROWS], OWNED]) == payload
    assert decode_groups(payload) == [OWNED, *WRITTEN_OUT, OWNED]
    assert decode_groups_as_tuples(payload) == as_tuples([OWNED, *WRITTEN_OUT, OWNED])


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_a_row_with_a_field_of_another_type_or_without_one_is_damage(row):
    for at in range(len(ROWS[row])):
        for other in (None, 1.5, b"x" if not isinstance(ROWS[row][at], bytes) else "x", []):
            if isinstance(ROWS[row][at], list) and other == []:
                continue
            damaged = [list(one) for one in ROWS]
            damaged[row][at] = other
            with pytest.raises(ValueError, match="run of warehouse events"):
                decode_groups(encode_groups([[HEADER, damaged]]))
        shorter = [list(one) for one in ROWS]
        del shorter[row][at]
        with pytest.raises(ValueError, match="run of warehouse events"):
            decode_groups(encode_groups([[HEADER, shorter]]))


@pytest.mark.parametrize(
    "group",
    [
        [HEADER[:-1], ROWS],
        [[*HEADER, ""], ROWS],
        [[140, "now", *HEADER[2:]], ROWS],
        [HEADER, 5],
        [HEADER, [5]],
        [HEADER, [[]]],
        [HEADER, [[13, *ROWS[0][1:]]]],
        [HEADER, [[12, *ROWS[1][1:]]]],
    ],
    ids=range(8),
)
def test_a_run_that_does_not_hold_together_is_damage(group):
    for decode in (decode_groups, decode_groups_as_tuples):
        with pytest.raises(ValueError, match="run of warehouse events"):
            decode(encode_groups([OWNED, group]))
