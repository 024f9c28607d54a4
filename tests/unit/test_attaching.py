"""Shards that come and go between engines on one journal: each engine's books are what a fresh recovery of its shards finds."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from actors.domain.attaching import attach, detach, index_again
from actors.domain.commands import Verb
from actors.domain.consumer_state import ConsumerLimits
from actors.domain.keys import stock_key
from actors.domain.outcomes import Disposition, Fact, FillPolicy, ReservationState
from actors.domain.rules import Rules
from actors.domain.state import Books
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from actors.shard.change_recovery import find_last_changes
from actors.shard.encoding import canonical_state
from actors.shard.engine import Engine
from actors.shard.filter import EntryFilter
from actors.shard.following import Following
from actors.shard.placement import feed_shard_of, shard_of
from actors.shard.recovery import load_shard, recover
from tests.unit.world import SHARDS, World

from actors.domain.apply import rebuild_indices  # isort: skip

HELD = int(ReservationState.HELD)
WAREHOUSES = ("main", "north")
SKUS = [f"S{number}" for number in range(24)]
SOURCES = ("wms", "erp")
ELSEWHERE = {"WRONG_OWNER", "SHARD_UNAVAILABLE"}
INTERVAL_MS = 60_000


class Hosts(World):
    """Three engines on one store; ``use`` says which one hears the next command."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        empty = [recover(MemoryJournal(self.store), [], rules, self.now_ms).engine for _ in range(2)]
        self.engines: list[Engine] = [self.engine, *empty]
        self.filters = [self.filter, EntryFilter(), EntryFilter()]

    def use(self, number: int) -> None:
        self.engine, self.filter = self.engines[number], self.filters[number]

    def owner(self, shard: int) -> int:
        return next(number for number, engine in enumerate(self.engines) if shard in engine.books.shards)

    def move(self, shard: int, to: int, *, followed: bool = True, meanwhile: Any = lambda: None) -> None:
        """The shard goes to another engine, which followed it before, or loads it only when it is its own."""
        here = self.owner(shard)
        follower = self.follower(shard)
        if followed:
            follower.load()
            meanwhile()
            follower.catch_up()
            here = self.owner(shard)
        detach(self.engines[here].books, shard)
        self.serve(follower, to, loaded=followed)

    def follower(self, shard: int) -> Following:
        return Following(MemoryJournal(self.store), shard, self.rules, _shard_of, _feed_shard_of)

    def serve(self, follower: Following, to: int, *, loaded: bool = False) -> None:
        head = self.journal.take_over([follower.shard_id])[follower.shard_id]
        if not loaded:
            follower.load()
        arrival = follower.arrive(head)
        for key in follower.take_keys():
            self.filters[to].add(key)
        self.own(to, arrival.part, head)

    def own(self, to: int, part: Books, head: Any) -> None:
        attach(self.engines[to].books, part)
        owned = self.engines[to].own({head.shard: head}, self.now_ms)
        self.journal.append(owned.records, owned.entries, owned.read_heads)

    def seal_and_think_better(self, shard: int) -> None:
        """It left, and comes back to the one that had it."""
        here = self.owner(shard)
        engine = self.engines[here]
        state = detach(engine.books, shard)
        assert_equal(engine.books, self.fresh(list(engine.books.shards)))
        self.own(here, index_again(state), self.journal.take_over([shard])[shard])

    def fresh(self, shards: list[int], *, use_snapshots: bool = True) -> Books:
        books = Books(self.rules, _shard_of, _feed_shard_of)
        journal = MemoryJournal(self.store)
        for shard in shards:
            load_shard(journal, books, shard, use_snapshots=use_snapshots)
        find_last_changes(journal, books)
        rebuild_indices(books)
        return books

    def check(self) -> None:
        shards = [shard for engine in self.engines for shard in engine.books.shards]
        assert sorted(shards) == list(range(SHARDS)), "every shard has one owner"
        for engine in self.engines:
            assert_equal(engine.books, self.fresh(list(engine.books.shards)))


def _shard_of(key: str) -> int:
    return shard_of(key, SHARDS)


def _feed_shard_of(source_id: str) -> int:
    return feed_shard_of(source_id, SHARDS)


def assert_equal(live: Books, fresh: Books) -> None:
    """Every shard byte for byte, and every index but for what an index may keep beyond what is alive."""
    assert live.shards.keys() == fresh.shards.keys()
    for shard in live.shards:
        assert canonical_state(live, shard) == canonical_state(fresh, shard), shard
    for name, of in INDICES.items():
        assert of(live) == of(fresh), name
    times = [one[0] for one in live.entries_spent]
    assert times == sorted(times)
    assert live.deadlines[:1] == sorted(live.deadlines)[:1]
    assert live.imposed_uncovered_units >= fresh.imposed_uncovered_units  # those of claims forgotten since count on


def _spender(one: Any) -> str:
    return str(getattr(one, "key", "") or one.id)


def _held(books: Books, reservation_id: str) -> bool:
    reservation = books.reservations.get(reservation_id)
    return reservation is not None and reservation.state == HELD


def _identical(books: Books) -> bool:
    return all(
        books.stock[key] is actor and actor.shard is shard
        for shard in books.shards.values()
        for key, actor in shard.stock.items()
    ) and all(
        books.reservations[one] is reservation
        for shard in books.shards.values()
        for one, reservation in shard.reservations.items()
    )


def _entry_times(books: Books) -> Counter[Any]:
    return Counter(
        (time_ms, shard, key)
        for time_ms, shard, key in books.entries_spent
        if key in books.shards[shard].entries and books.shards[shard].entries[key].time_ms == time_ms
    )


def _runs(books: Books) -> Counter[Any]:
    index = books.reconciliations
    return Counter(
        run_id
        for time_ms, shard, run_id in index.ended
        if time_ms in (books.shards[shard].reconciliations[run_id].end_time_ms, 0)
    )


INDICES: dict[str, Any] = {
    "the same objects": _identical,
    "stock": lambda books: sorted(books.stock),
    "reservations": lambda books: sorted(books.reservations),
    "request_ids": lambda books: {key: _spender(one) for key, one in books.request_ids.items()},
    "orders": lambda books: {order: sorted(ids) for order, ids in books.orders.items()},
    "deadlines": lambda books: {one[1:] for one in books.deadlines if _held(books, one[2])},
    "operations_due": lambda books: {one for one in books.operations_due if one[2] in books.shards[one[1]].operations},
    "ended": lambda books: Counter(one for _, one in books.ended),
    "entries_spent": _entry_times,
    "exceptions_healed": lambda books: Counter(books.exceptions_healed),
    "exceptions_open": lambda books: books.exceptions_open,
    "held_reservations": lambda books: books.held_reservations,
    "shortage_units": lambda books: books.shortage_units,
    "oversells": lambda books: books.oversells,
    "requested": lambda books: books.reconciliations.requested,
    "done_ms": lambda books: books.reconciliations.done_ms,
    "runs": _runs,
    "findings": lambda books: Counter(books.reconciliations.findings),
    "quarantined": lambda books: books.reconciliations.quarantined,
    "waiting": lambda books: {
        (feed, one) for feed, heap in books.waiting.items() for one in heap if one[2] in books.shards[one[3]].deferred
    },
    "waiting_until": lambda books: {one for one in books.waiting_until if one[2] in books.shards[one[1]].deferred},
    "feeds_of": lambda books: {source: sorted(feed.key for feed in feeds) for source, feeds in books.feeds_of.items()},
    "gaps": lambda books: {
        one[1:] for one in books.gaps if books.shards[one[1]].feeds[one[2]].sequences.missing_since_ms()
    },
    "gaps_watched": lambda books: {
        feed.key
        for shard in books.shards.values()
        for feed in shard.feeds.values()
        if feed.key in books.gaps_watched and feed.sequences.missing_since_ms() and not feed.gap_exception_id
    },
    "consumers": lambda books: sorted(books.consumers),
    "changed": lambda books: sorted(books.changed),
    "stale_feeds": lambda books: books.stale_feeds,
    "stale_warehouses": lambda books: books.stale_warehouses,
}
OTHERWISE = {
    "rules", "shard_of", "feed_shard_of", "shards", "reconciliations",  # compared by their parts, or given
    "imposed_uncovered_units",  # see assert_equal
    "resolution_times",  # since the process began
    "consumers_due_ms", "silence_look_ms",  # when to look next
    "partial",  # set with every turn
    "feeds_moved",  # what is looked at in the next turn
}  # fmt: skip


def test_every_index_of_the_books_is_compared_here():
    assert set(Books.__slots__) <= INDICES.keys() | OTHERWISE, (
        "an index was added: attach, detach and this test must know it"
    )


def rules() -> Rules:
    return Rules(
        dedupe_memory_ms=20_000,
        healed_memory_ms=40_000,
        gap_patience_ms=8_000,
        deferral_ms_max=15_000,
        feeds={"main": {"wms": INTERVAL_MS}, "north": {"erp": 5_000}},
        consumers={"shop": ConsumerLimits()},
        reconciliation_intervals_ms={"main": INTERVAL_MS, "north": INTERVAL_MS},
    )


class Walk:
    """Random commands to the engine that has what they name, and moves between them."""

    def __init__(self, hosts: Hosts, draw: random.Random) -> None:
        self.hosts = hosts
        self.draw = draw
        self.held: list[Any] = []
        self.sent: list[list[Any]] = []
        self.sequences = dict.fromkeys(SOURCES, 0)
        self.done: Counter[str] = Counter()
        for warehouse in WAREHOUSES:
            for sku in SKUS:
                hosts.receive(sku, 10, warehouse=warehouse)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        draw, hosts = self.draw, self.hosts
        chance = draw.random()
        if chance < 0.25:
            self.tell()
        elif chance < 0.5:
            self.reserve()
        elif chance < 0.65 and self.held:
            self.decide(draw.choice(self.held))
        elif chance < 0.7 and self.sent:
            self.send(draw.choice(self.sent))
        elif chance < 0.85:
            hosts.now_ms += draw.choice((10, 1_000, 7_000))
            hosts.use(draw.randrange(3))
            hosts.step()
        else:
            self.move()

    def move(self) -> None:
        draw, hosts = self.draw, self.hosts
        shard = _shard_of(stock_key(draw.choice(WAREHOUSES), draw.choice(SKUS)))
        if draw.random() < 0.3:
            shard = _feed_shard_of(draw.choice(SOURCES))
        if draw.random() < 0.2:
            hosts.seal_and_think_better(shard)
        else:
            hosts.move(
                shard, draw.randrange(3), followed=draw.random() < 0.7, meanwhile=lambda: self.run(draw.randrange(3))
            )
        self.done["move"] += 1

    def send(self, item: list[Any]) -> Any:
        hosts = self.hosts
        hosts.use(hosts.owner(item[1]))
        answer = hosts.one(item)
        self.done[answer.error or answer.refusal or Verb(item[0]).name] += 1
        return answer

    def tell(self) -> None:
        draw, hosts = self.draw, self.hosts
        source = draw.choice(SOURCES)
        self.sequences[source] += draw.choice((1, 1, 1, 1, 2))
        fact, *details = draw.choice(
            (
                (Fact.RECEIPT, draw.randint(1, 9), int(Disposition.SELLABLE), "", ""),
                (Fact.ADJUSTMENT, -draw.randint(1, 4), int(Disposition.SELLABLE), "why", ""),
                (Fact.STOCK_COUNT, draw.randint(0, 6), int(Disposition.SELLABLE), self.sequences[source], False, False),
            )
        )
        there = hosts.owner(_feed_shard_of(source))
        keys = [(warehouse, sku) for warehouse in WAREHOUSES for sku in SKUS]
        near = [key for key in keys if hosts.owner(_shard_of(stock_key(*key))) == there]
        warehouse, sku = draw.choice(near or keys)  # a fact about another host's stock is another story
        item = hosts.event(
            fact, sku, *details, warehouse=warehouse, source=source, sequence=self.sequences[source]
        )  # fmt: skip
        self.sent.append(item)
        self.send(item)

    def reserve(self) -> None:
        draw, hosts = self.draw, self.hosts
        warehouse = draw.choice(WAREHOUSES)
        lines = [(sku, draw.randint(1, 3), sku, warehouse) for sku in draw.sample(SKUS, draw.randint(1, 2))]
        if len({_shard_of(stock_key(warehouse, line[0])) for line in lines}) > 1:
            lines = lines[:1]  # an order whose shards move apart is another story
        item = hosts.reserve_item(
            *lines,
            ttl_ms=draw.choice((3_000, 30_000, 600_000)),
            confirm=draw.random() < 0.2,
            always=draw.random() < 0.2,
            fill=FillPolicy.PARTIAL_QUANTITIES if draw.random() < 0.5 else FillPolicy.ALL_OR_NOTHING,
            order=f"o{draw.randrange(20)}" if draw.random() < 0.5 else "",
        )
        self.sent.append(item)
        answer = self.send(item)
        if answer.ok:
            self.held.append(answer)

    def decide(self, reservation: Any) -> None:
        hosts = self.hosts
        hosts.use(hosts.owner(int(reservation.id.split("-")[2])))
        answer = self.draw.choice((hosts.confirm, hosts.release, lambda one: hosts.extend(one, 60_000)))(reservation)
        self.done[answer.error or answer.refusal or "DECIDED"] += 1


@pytest.mark.parametrize("round_number", range(12))
def test_books_after_any_way_of_shards_are_those_of_a_fresh_recovery(seed, round_number):
    draw = random.Random(seed + round_number)
    hosts = Hosts(rules())
    walk = Walk(hosts, draw)
    for _ in range(6):
        walk.run(30)
        hosts.check()
    assert walk.done["move"] > 10
    assert walk.done["RESERVE"] > 10
    report = verify(MemoryJournal(hosts.store))
    assert report.violations == []


def test_an_id_that_left_memory_before_its_shard_moved_is_still_spent():
    hosts = Hosts(Rules(dedupe_memory_ms=1_000))
    hosts.receive("A", 5)
    item = hosts.reserve_item(("A", 1), request="once")
    first = hosts.one(item)
    hosts.release(first)
    hosts.pass_ms(5_000)
    assert not hosts.engine.books.request_ids, "it is in the table now"
    hosts.move(item[1], 1, followed=False)
    hosts.use(1)
    again = hosts.one(item)
    assert again.ok and again.replayed and again.id == first.id  # noqa: PT018  one fact


def test_an_id_that_leaves_memory_while_its_shard_is_followed_is_still_spent():
    hosts = Hosts(Rules(dedupe_memory_ms=1_000))
    hosts.receive("A", 5)
    item = hosts.reserve_item(("A", 1), request="once")
    first = hosts.one(item)
    hosts.release(first)

    def meanwhile() -> None:
        hosts.pass_ms(5_000)
        assert not hosts.engine.books.request_ids

    hosts.move(item[1], 1, meanwhile=meanwhile)
    hosts.use(1)
    again = hosts.one(item)
    assert again.ok and again.replayed and again.id == first.id  # noqa: PT018  one fact


def test_a_snapshot_and_what_came_after_it_is_what_a_follower_loads():
    hosts = Hosts(Rules())
    hosts.receive("A", 5)
    hosts.reserve(("A", 1))
    hosts.snapshot()
    hosts.reserve(("A", 2))
    hosts.move(_shard_of(stock_key("main", "A")), 1)
    hosts.use(1)
    assert hosts.ats("A") == 2
    hosts.check()
