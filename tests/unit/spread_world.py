"""The world of ``tests.unit.world`` over several hosts: the shards dealt out among engines over one journal in memory.

A command goes to the host of its shard, its errands go where they must, and the answer is the one that its caller gets in the
end; so the same sentences can be said about one host and about several. What a caller never sees is played here: what must be
read at other hosts first, answers that come later, and calls that are asked to come again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.answers import ERROR, OK, PENDING
from actors.domain.commands import Verb
from actors.domain.keys import stock_key
from actors.domain.outcomes import ErrorReason, ReleaseReason
from actors.domain.rules import Rules
from actors.domain.state import Books
from actors.journal.memory import MemoryJournal
from actors.shard.courier import Courier
from actors.shard.encoding import canonical_state
from actors.shard.filter import EntryFilter
from actors.shard.frames import FrameDecoder, encode
from actors.shard.placement import feed_shard_of, shard_of
from actors.shard.recovery import load_shard, recover
from actors.shard.snapshot import Snapshotter
from tests.unit.world import SHARDS, Answer, World

ROUNDS_MAX = 1_000


def plain(value: Any) -> Any:
    """As it comes over the wire."""
    (message,) = FrameDecoder().feed(encode([0, value]))
    return message[1]


class SpreadHost:
    """One engine with some of the shards."""

    def __init__(self, world: SpreadWorld, shards: Sequence[int]) -> None:
        self.shards = sorted(shards)
        self.world = world
        self.journal = MemoryJournal(world.store)
        recovered = recover(self.journal, self.shards, world.rules, world.now_ms)
        own = recovered.ownership
        self.journal.append(own.records, own.entries, own.read_heads)
        self.engine = recovered.engine
        self.filter = EntryFilter(self.journal.entry_keys(self.shards))
        self.courier = Courier()
        self.courier.durable(self.engine.open_errands())

    def step(
        self, items: Sequence[Any], told: dict[int, Any] | None = None, *, accept_claims: bool = True
    ) -> list[Any]:
        """One turn, made durable; its replies."""
        found: dict[str, Any] = {}
        while wanted := self.engine.unresolved(items, found, self.filter):
            rows = self.journal.find_entries(wanted)
            found.update(dict.fromkeys(wanted))
            found.update(rows)
        result = self.engine.step(items, found, self.world.now_ms, accept_claims=accept_claims, told=told)
        for row in result.entries:
            self.filter.add(row.key)
        if result.records or result.entries:
            self.journal.append(result.records, result.entries, result.read_heads)
        else:
            self.journal.check(result.read_heads)
        self.engine.durable(result)
        self.courier.durable(result.errands)
        self.world.finished.update(result.finished)
        return list(result.replies)


class SpreadWorld(World):
    """Shard n lives on host n mod ``HOSTS``, until ``deal`` says otherwise."""

    HOSTS = 2

    def __init__(self, rules: Rules | None = None) -> None:
        self.finished: dict[str, Any] = {}
        self.silent: set[int] = set()  # hosts that nothing reaches
        super().__init__(rules)

    def _start(self) -> None:
        self.deal([[shard for shard in range(SHARDS) if shard % self.HOSTS == host] for host in range(self.HOSTS)])

    def deal(self, splits: Sequence[Sequence[int]]) -> None:
        """Every host ends; their successors have these shards."""
        self.hosts = [SpreadHost(self, shards) for shards in splits]
        self.engine = self.hosts[0].engine
        self.journal = self.hosts[0].journal

    def host_of(self, shard: int) -> SpreadHost:
        return next(host for host in self.hosts if shard in host.engine.books.shards)

    # --- errands ------------------------------------------------------------------------------------------------------------

    def pump(self) -> bool:
        """Errands go where they can; whether any did."""
        moved = False
        for host in self.hosts:
            for at, other in enumerate(self.hosts):
                if at in self.silent or self.hosts.index(host) in self.silent:
                    continue
                for parcel in host.courier.parcels(set(other.shards), self.now_ms, 1_000):
                    (reply,) = other.step([plain(parcel.item)])
                    moved = True
                    answers = host.courier.replied(parcel, plain(reply), self.now_ms)
                    for answer in host.step(plain(answers)) if answers else ():
                        assert answer[0] == OK, answer
        return moved

    def settle(self) -> None:
        """Everything that was begun goes as far as it can."""
        for _ in range(ROUNDS_MAX):
            if not self.pump():
                return
        raise AssertionError("errands that never end")

    def pass_ms(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        for host in self.hosts:
            host.step([])
        self.settle()
        for host in self.hosts:
            host.step([])
        self.settle()

    # --- commands -----------------------------------------------------------------------------------------------------------

    def step(self, *items: list[Any], accept_claims: bool = True) -> list[Answer]:
        if not items:
            for host in self.hosts:
                host.step([])
        answers = [self._answer(plain(item), accept_claims=accept_claims) for item in items]
        self.settle()
        return answers

    def _answer(self, item: list[Any], *, accept_claims: bool) -> Answer:
        if item[1] == -1:
            return self._listed(item)
        if item[0] == Verb.INGEST:
            item = self._fed(item)
        for _ in range(5):
            reply = self._call(item, accept_claims=accept_claims)
            if reply[0] == ERROR and reply[1] == ErrorReason.BUSY:
                self.now_ms += 50
                self.settle()
                continue
            break
        return Answer(reply)

    def _call(self, item: list[Any], *, accept_claims: bool) -> Any:
        host = self.host_of(item[1])
        told = [plain(self._asked(ask))[2] for ask in ([] if host.engine.whole else host.engine.asks(item))]
        (reply,) = host.step([item], {0: told}, accept_claims=accept_claims)
        if reply[0] != PENDING:
            return reply
        self.settle()
        if reply[1] not in self.finished:  # somebody does not answer
            self.pass_ms(10_000)
        return self.finished.pop(reply[1])

    def send(self, item: list[Any]) -> Any:
        """A call whose caller does not wait: its reply, or None while it is under way."""
        item = plain(item)
        host = self.host_of(item[1])
        told = [plain(self._asked(ask))[2] for ask in host.engine.asks(item)]
        (reply,) = host.step([item], {0: told})
        return None if reply[0] == PENDING else reply

    def confirm_item(self, reservation: Answer, request: str = "") -> list[Any]:
        return self._verb(Verb.CONFIRM, reservation, "", 0, request=request)

    def release_item(self, reservation: Answer) -> list[Any]:
        return self._verb(Verb.RELEASE, reservation, "", "", [], int(ReleaseReason.CUSTOMER_CANCELLED))

    def amend_item(self, reservation: Answer, *targets: tuple[str, str, int]) -> list[Any]:
        lines = [[line_id, stock_key("main", sku), quantity, 0] for line_id, sku, quantity in targets]
        return self._verb(Verb.AMEND, reservation, lines, [], 0)

    def _asked(self, ask: tuple[int, int, Any]) -> Any:
        shard, verb, body = ask
        (reply,) = self.host_of(shard).step([plain([verb, shard, 0, 1, [], body])])
        assert reply[0] == OK, reply
        return reply

    def restart_all(self) -> None:
        """Every host ends; its successor replays."""
        self.deal([host.shards for host in self.hosts])

    def _listed(self, item: list[Any]) -> Answer:
        pages = [host.step([item])[0] for host in self.hosts]
        items = [one for page in pages for one in page[2].items]
        return Answer((OK, False, pages[0][2]._replace(items=items)))

    def _fed(self, item: list[Any]) -> list[Any]:
        """Told by a source whose feed is where the stock key is."""
        source, key = item[5][0], item[5][5]
        here = self.host_of(shard_of(key, SHARDS)).shards
        for number in range(1_000):
            named = source if not number else f"{source}{number}"
            if feed_shard_of(named, SHARDS) in here:
                return [item[0], feed_shard_of(named, SHARDS), *item[2:5], [named, *item[5][1:]]]
        raise AssertionError("no such source")

    # --- failure --------------------------------------------------------------------------------------------------------------

    def check_replay(self) -> None:
        for host in self.hosts:
            for use_snapshots in (False, True):
                for shard in host.shards:
                    books = Books(self.rules, lambda key: shard_of(key, SHARDS))
                    load_shard(MemoryJournal(self.store), books, shard, use_snapshots=use_snapshots)
                    live = canonical_state(host.engine.books, shard)
                    assert canonical_state(books, shard) == live, (shard, use_snapshots)

    def snapshot(self, between: Any = lambda: None) -> None:
        for host in self.hosts:
            for shard in host.shards:
                snapshotter = Snapshotter(host.engine, shard, self.now_ms)
                while (part := snapshotter.next_slice()) is not None:
                    host.journal.write_slice(part, snapshotter.epoch)
                    between()
                host.journal.publish_snapshot(snapshotter.snapshot())

    @property
    def operations_open(self) -> int:
        return sum(len(shard.operations) for host in self.hosts for shard in host.engine.books.shards.values())

    @property
    def errands_open(self) -> int:
        return sum(host.courier.open for host in self.hosts)
