"""Makes long journals to verify: the real engine in this process, its records written to SQLite as a host would.

Two shapes. ``mixed``: orders of one to six lines over some warehouses, held, confirmed, amended, replaced, picked,
shipped, released, expired, refused; receipts, counts, policies, snapshots. ``hot``: reservations of one line, all of one
stock key, which is one shard.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from actors.domain.answers import OK
from actors.domain.commands import Verb
from actors.domain.keys import parse_reservation_id, stock_key
from actors.domain.outcomes import Admission, Disposition, Fact, FillPolicy
from actors.domain.rules import Rules
from actors.journal.lock import take_lock
from actors.journal.sqlite_open import Wanted, open_journal
from actors.shard.engine import Engine
from actors.shard.filter import EntryFilter
from actors.shard.placement import PLACEMENT_VERSION, feed_shard_of, shard_of
from actors.shard.recovery import recover
from actors.shard.snapshot import Snapshotter

SHARDS = 64
START_MS = 1_750_000_000_000
ITEMS_PER_TURN = 64
TURN_MS = 20
SNAPSHOT_EVERY_TURNS = 1_500
WAREHOUSES = ("north", "south", "west")
SKUS = 400


class Maker:
    """A host without links: turns of items, each made durable."""

    def __init__(self, data_dir: Path, seed: int) -> None:
        directory = data_dir / "journal"
        directory.mkdir(parents=True)
        lock = take_lock(directory, role="bench", wait_s=0.0, kill_holder_after_s=None, say=print)
        self.journal = open_journal(lock, Wanted(SHARDS, PLACEMENT_VERSION), now_ms=START_MS, ballast_bytes=0)
        self.now_ms = START_MS
        self.draw = random.Random(seed)
        self.events = 0
        self.granted: list[str] = []  # reservation ids, the newest thousand or so
        self._numbers = itertools.count(1)
        self._items: list[list[Any]] = []
        recovered = recover(self.journal, range(SHARDS), Rules(dedupe_memory_ms=60_000), self.now_ms)
        self.engine: Engine = recovered.engine
        own = recovered.ownership
        self.journal.append(own.records, own.entries, own.read_heads)
        self.filter = EntryFilter(self.journal.entry_keys())

    def fresh(self, prefix: str) -> str:
        """An id as callers draw them: long, never used again."""
        return f"{prefix}-{self.draw.getrandbits(64):016x}-{next(self._numbers)}"

    def put(self, item: list[Any]) -> None:
        """One more item for this turn; a full turn is stepped."""
        self._items.append(item)
        if len(self._items) >= ITEMS_PER_TURN:
            self.turn()

    def turn(self) -> None:
        """Step what was put, make it durable."""
        items, self._items = self._items, []
        self.now_ms += TURN_MS
        found: dict[str, Any] = {}
        while wanted := self.engine.unresolved(items, found, self.filter):
            found.update(dict.fromkeys(wanted))
            found.update(self.journal.find_entries(wanted))
        result = self.engine.step(items, found, self.now_ms)
        for row in result.entries:
            self.filter.add(row.key)
        if result.records or result.entries:
            self.journal.append(result.records, result.entries, result.read_heads)
        self.engine.durable(result)
        self.events += sum(record.event_count for record in result.records)
        for item, reply in zip(items, result.replies, strict=True):
            if item[0] == Verb.RESERVE and reply[0] == OK:
                payload = reply[2]
                self.granted.append(payload[0] if type(payload) is tuple else payload.reservation_id)
        del self.granted[:-1_000]

    def snapshot(self) -> None:
        """A snapshot of every shard that has anything."""
        for shard in range(SHARDS):
            if self.engine.books.shards[shard].stock:
                snapshotter = Snapshotter(self.engine, shard, self.now_ms)
                while (part := snapshotter.next_slice()) is not None:
                    self.journal.write_slice(part, snapshotter.epoch)
                self.journal.publish_snapshot(snapshotter.snapshot())

    # --- items --------------------------------------------------------------------------------------------------------

    def reserve(self, lines: list[list[Any]], *, confirm: bool, ttl_ms: int, replaces: str = "") -> list[Any]:
        """A reserve; its home is that of its smallest key, or of what it replaces."""
        home = self._home(replaces) if replaces else shard_of(min(line[1] for line in lines), SHARDS)
        order = self.fresh("order") if confirm else ""
        fill, admission = int(FillPolicy.ALL_OR_NOTHING), int(Admission.WHEN_COVERED)
        body = [self.fresh("r"), b"0123456789abcdef", "web", lines, ttl_ms, confirm, fill, admission, order, "customer"]
        return [int(Verb.RESERVE), home, 0, len(lines), [], [*body, replaces, []]]

    def verb(self, verb: Verb, reservation_id: str, *fields: Any) -> list[Any]:
        """A verb on a reservation."""
        body = [self.fresh("v"), b"0123456789abcdef", reservation_id, *fields]
        return [int(verb), self._home(reservation_id), 0, 1, [], body]

    def fact(self, fact: Fact, key: str, *details: Any) -> list[Any]:
        """A warehouse event."""
        event = self.fresh("e")
        body = [
            "wms",
            "",
            event,
            0,
            self.now_ms,
            key,
            event.encode()[:16],
            int(fact),
            list(details),
            "",
            "",
            "",
            0,
            [],
            0,
        ]
        return [int(Verb.INGEST), feed_shard_of("wms", SHARDS), 0, 1, [], body]

    def receive(self, key: str, units: int) -> list[Any]:
        """A receipt of sellable units."""
        return self.fact(Fact.RECEIPT, key, units, int(Disposition.SELLABLE), "", "")

    @staticmethod
    def _home(reservation_id: str) -> int:
        parts = parse_reservation_id(reservation_id)
        assert parts is not None
        return parts.shard


def mixed(maker: Maker, events: int) -> None:
    """Trade until so many events are journaled."""
    draw = maker.draw
    keys = {
        warehouse: [stock_key(warehouse, f"SKU-{number:05d}") for number in range(SKUS)] for warehouse in WAREHOUSES
    }
    for key in itertools.chain(*keys.values()):
        maker.put(maker.receive(key, draw.randint(200, 2_000)))
    for number in itertools.count():
        if maker.events >= events:
            break
        warehouse = draw.choice(WAREHOUSES)
        wanted = draw.sample(keys[warehouse], draw.choice((1, 1, 1, 2, 3, 4, 6)))
        lines = [[str(at), key, draw.randint(1, 4), 0] for at, key in enumerate(wanted)]
        maker.put(maker.reserve(lines, confirm=draw.random() < 0.3, ttl_ms=draw.choice((2_000, 60_000, 900_000))))
        if maker.granted:
            _after_sale(maker, wanted)
        if draw.random() < 0.2:
            maker.put(maker.receive(draw.choice(keys[warehouse]), draw.randint(1, 40)))
        if number % (SNAPSHOT_EVERY_TURNS * ITEMS_PER_TURN // 4) == 0:
            maker.turn()
            maker.snapshot()


def _after_sale(maker: Maker, keys: Sequence[str]) -> None:
    """What happens to one of the latest reservations."""
    draw = maker.draw
    order = draw.choice(maker.granted)
    reservation = maker.engine.books.reservations.get(order)
    line = reservation.lines[0] if reservation is not None and reservation.lines else None
    chance = draw.random()
    if chance < 0.4:
        maker.put(maker.verb(Verb.CONFIRM, order, maker.fresh("order"), 0))
    elif chance < 0.7 and line is not None:
        promise = ["", "", "", ""]
        promise[0] = order
        maker.put(maker.fact(Fact.PICK, line[1], 1, promise))
        shipment = maker.fresh("s")
        maker.put(maker.fact(Fact.SHIPMENT, line[1], 1, shipment, promise, False, int(Disposition.SELLABLE)))
    elif chance < 0.8:
        maker.put(maker.verb(Verb.RELEASE, order, "", "", [], 1))
    elif chance < 0.84:
        maker.put(maker.verb(Verb.AMEND, order, [["9", keys[0], draw.randint(1, 3), 0]], [], 0))
    elif chance < 0.88 and line is not None:
        maker.put(maker.reserve([["0", line[1], 1, 0]], confirm=False, ttl_ms=60_000, replaces=order))


def hot(maker: Maker, events: int) -> None:
    """Reserve one unit of one stock key until so many events are journaled; a third is confirmed at once."""
    key = stock_key("main", "HOT")
    maker.put(maker.receive(key, 10**9))
    while maker.events < events:
        maker.put(maker.reserve([["0", key, 1, 0]], confirm=maker.draw.random() < 0.3, ttl_ms=5_000))


SHAPES: dict[str, Callable[[Maker, int], None]] = {"mixed": mixed, "hot": hot}


def make_journal(data_dir: Path, shape: str, events: int, seed: int) -> int:
    """Make a journal of that shape in an empty data directory; how many events it holds."""
    maker = Maker(data_dir, seed)
    try:
        SHAPES[shape](maker, events)
        maker.turn()
    finally:
        maker.journal.close()
    return maker.events


if (
    __name__ == "__main__"
):  # data directory, shape, events, seed: in a process of its own, so that its memory is no one else's
    print(make_journal(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
