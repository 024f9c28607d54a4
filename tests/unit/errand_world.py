"""Two engines over one journal in memory, and a network between their couriers that loses, doubles and reorders.

A command (``SEND``) sends an errand whose effect is an entry at the shard it is for, and whose answer is an entry at the shard
that sent it; either may send one more. What was done, and how often, is read from the journal alone, apart from the code that
keeps errands. Each part of a host's work is a step of its own, so that a test can end a host between any two.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import pytest

from actors.domain.answers import OK, PENDING, Reply, ok, pending
from actors.domain.commands import COMMANDS
from actors.domain.errand_registry import ANSWERS, ERRANDS
from actors.domain.errand_state import Errand
from actors.domain.errands import send
from actors.domain.events import EntrySpent
from actors.domain.rules import Rules
from actors.domain.state import ShardState
from actors.domain.turn import Turn
from actors.journal.codec import decode_groups
from actors.journal.memory import MemoryJournal, memory_store
from actors.shard import shapes
from actors.shard.courier import Courier, Parcel
from actors.shard.engine import Engine, TurnResult
from actors.shard.frames import FrameDecoder, encode
from actors.shard.handlers import HANDLERS
from actors.shard.recovery import recover
from actors.shard.snapshot import Snapshotter

SHARDS = 8
START_MS = 1_700_000_000_000
SEND, DO = 198, 199
ENTRY_SPENT, ERRAND_SENT = 40, 100


class SendTest(NamedTuple):
    """Ask ``to_shard`` to do it under ``request_id``; then, ``more`` times, it asks back."""

    request_id: str
    to_shard: int
    more: int


def begin(turn: Turn, shard: ShardState, command: SendTest) -> Reply:
    key = f"o\x1f{command.request_id}"
    if key in shard.entries:
        return ok((command.request_id,), replayed=True)
    outbound = shard.outbound.get(command.to_shard)
    under_way = outbound.open.values() if outbound is not None else ()
    if not any(errand.body[0] == command.request_id for errand in under_way):
        send(turn, shard, command.to_shard, DO, (command.request_id, command.more), ("test", command.request_id))
    return pending(command.request_id)


def do(turn: Turn, shard: ShardState, from_shard: int, body: Sequence[Any]) -> Sequence[Any]:
    name, more = body
    turn.emit(shard, EntrySpent(f"d\x1f{name}", b"", [turn.cause.request_id]))
    if more:
        send(turn, shard, from_shard, DO, (f"{name}.", more - 1), ("test", ""))
    return ("did", name, shard.sequence)


def answered(turn: Turn, shard: ShardState, errand: Errand, reply: Sequence[Any]) -> None:
    name = errand.body[0]
    assert list(reply[:2]) == ["did", name], "another errand's reply"
    turn.emit(shard, EntrySpent(f"o\x1f{name}", b"", list(reply)))
    if errand.purpose[1]:
        turn.finish(errand.purpose[1], ok((name,)))


def _any(_value: Any) -> bool:
    return True


def teach(patch: pytest.MonkeyPatch) -> None:
    """Make the test's verbs known."""
    patch.setitem(COMMANDS, SEND, SendTest)
    patch.setitem(shapes._FIELDS, SEND, (_any, _any, _any))
    patch.setitem(shapes._REQUIRED, SEND, 3)
    patch.setitem(HANDLERS, SEND, begin)
    patch.setitem(ERRANDS, DO, do)
    patch.setitem(ANSWERS, "test", answered)


class Message(NamedTuple):
    """Between two hosts: a request (``item``) or its reply, with the parcel that it belongs to."""

    to: int
    back_to: int
    parcel: Parcel
    reply: Reply | None


class Applied(NamedTuple):
    """A turn that is not durable yet, and where its replies belong."""

    items: list[tuple[Any, Message | None]]
    result: TurnResult


class Host:
    """One host without its sockets: a queue, an engine, a courier."""

    def __init__(self, world: ErrandWorld, name: int, shards: Sequence[int]) -> None:
        self.name = name
        self.shards = set(shards)
        self._world = world
        self._journal = MemoryJournal(world.store)
        recovered = recover(self._journal, list(shards), Rules(), world.now_ms)
        own = recovered.ownership
        self._journal.append(own.records, own.entries, own.read_heads)
        self.engine: Engine = recovered.engine
        self.courier = Courier()
        self.courier.durable(self.engine.open_errands())
        self.queue: deque[tuple[Any, Message | None]] = deque()
        self.applied: deque[Applied] = deque()
        self.under_way: dict[tuple[int, int, int], Parcel] = {}
        self.answers: dict[str, Reply] = {}

    def step(self, most: int) -> None:
        """Take up to ``most`` items and apply them."""
        items = [self.queue.popleft() for _ in range(min(most, len(self.queue)))]
        if items and len(self.applied) < 2:
            result = self.engine.step([item for item, _ in items], {}, self._world.now_ms)
            self.applied.append(Applied(items, result))
        else:
            self.queue.extendleft(reversed(items))

    def commit(self) -> None:
        """The oldest applied turn becomes durable; what saw it goes out."""
        if not self.applied:
            return
        items, result = self.applied.popleft()
        if result.records or result.entries:
            self._journal.append(result.records, result.entries, result.read_heads)
        self.engine.durable(result)
        self.courier.durable(result.errands)
        for (item, message), reply in zip(items, result.replies, strict=True):
            if message is not None:
                self._world.network.append(message._replace(to=message.back_to, reply=plain(reply)))
            elif item[0] == SEND and reply[0] != PENDING:
                self.answers[item[5][0]] = reply
            elif item[0] != SEND:
                assert reply[0] == OK, reply
        for token, reply in result.finished:
            self.answers[token] = reply

    def pump(self, most: int) -> None:
        """Errands leave for the other hosts, and for this one's own queue."""
        for other in self._world.hosts:
            for parcel in self.courier.parcels(other.shards, self._world.now_ms, most):
                self.under_way[parcel[:3]] = parcel
                self._world.network.append(Message(other.name, self.name, parcel, None))

    def receive(self, message: Message) -> None:
        parcel, reply = message.parcel, message.reply
        if reply is not None:
            self.under_way.pop(parcel[:3], None)
            for item in self.courier.replied(parcel, reply, self._world.now_ms):
                self.queue.append((item, None))
        elif parcel.to_shard not in self.shards:
            self._world.network.append(message._replace(to=message.back_to, reply=[2, 12, "not here", 0]))
        else:
            self.queue.append((plain(parcel.item), message))

    def lose(self) -> None:
        """The links break: what is under way may or may not have arrived."""
        self.courier.lost(list(self.under_way.values()), self._world.now_ms)
        self.under_way.clear()

    def snapshot(self, shard: int) -> None:
        snapshotter = Snapshotter(self.engine, shard, self._world.now_ms, 1)
        while (part := snapshotter.next_slice()) is not None:
            self._journal.write_slice(part, self.engine.books.shards[shard].epoch)
            self.step(1)
            while self.applied:
                self.commit()
        self._journal.publish_snapshot(snapshotter.snapshot())

    @property
    def idle(self) -> bool:
        return not (self.queue or self.applied or self.courier.open)


class ErrandWorld:
    """Some hosts and what is on its way between them."""

    def __init__(self, splits: Sequence[Sequence[int]]) -> None:
        self.store = memory_store("cluster", "t1", SHARDS, 1, START_MS)
        self.now_ms = START_MS
        self.network: list[Message] = []
        self.hosts: list[Host] = []
        self.split(splits)

    def split(self, splits: Sequence[Sequence[int]]) -> None:
        """All hosts end; their successors have these shards."""
        self.hosts = []
        self.hosts = [Host(self, name, shards) for name, shards in enumerate(splits)]

    def crash(self, name: int) -> None:
        """A host ends: what was not durable is gone; its successor replays."""
        self.hosts[name] = Host(self, name, sorted(self.hosts[name].shards))

    def host_of(self, shard: int) -> Host:
        return next(host for host in self.hosts if shard in host.shards)

    def ask(self, name: str, shard: int, to_shard: int, more: int = 0) -> None:
        """A command comes to ``shard``."""
        item = [SEND, shard, 0, 1, [], [name, to_shard, more]]
        self.host_of(shard).queue.append((item, None))

    def deliver(self, at: int) -> None:
        message = self.network.pop(at)
        self.hosts[message.to].receive(message)

    def settle(self) -> None:
        """Everything works from now on: all that was begun ends."""
        for host in self.hosts:
            host.lose()
        for _ in range(2_000):
            self.now_ms += 100
            for host in self.hosts:
                host.pump(100)
            while self.network:
                self.deliver(0)
            for host in self.hosts:
                host.step(100)
                host.commit()
            if all(host.idle for host in self.hosts) and not self.network:
                return
        raise AssertionError("errands stay open although everything works")

    # --- what the journal says --------------------------------------------------------------------------------------------

    def events(self, kind: int) -> Iterator[tuple[int, list[Any]]]:
        """(shard, fields) of every event of a kind, in the order of each shard."""
        for shard, records in self.store.records.items():
            for record, _ in records:
                for _, events in decode_groups(record.payload):
                    yield from ((shard, event[1:]) for event in events if event[0] == kind)

    def counted(self, prefix: str) -> Counter[str]:
        """How often each name was done (``d``) or answered (``o``)."""
        keys = (fields[0].split("\x1f") for _, fields in self.events(ENTRY_SPENT))
        return Counter(key[1] for key in keys if key[0] == prefix)

    def judge(self, names: set[str]) -> None:
        """Of everything sent: done once, where it was sent to, in the order sent; answered once, by what was done."""
        sent: dict[tuple[int, int], list[str]] = {}
        done: dict[int, list[str]] = {}
        for shard, (to_shard, _, _, body, *_) in self.events(ERRAND_SENT):
            sent.setdefault((shard, to_shard), []).append(body[0])
        for shard, (key, *_) in self.events(ENTRY_SPENT):
            if key.startswith("d\x1f"):
                done.setdefault(shard, []).append(key[2:])
        everything = Counter(name for some in sent.values() for name in some)
        assert set(everything) >= names, "a command was begun and its errand is gone"
        assert self.counted("d") == everything, "an errand was done twice, or not at all"
        assert self.counted("o") == everything, "an answer was taken in twice, or not at all"
        for (_, to_shard), some in sent.items():
            assert [name for name in done[to_shard] if name in set(some)] == some, "errands were done out of order"


def plain(value: Any) -> Any:
    """As it comes over the wire."""
    (message,) = FrameDecoder().feed(encode([0, value]))
    return message[1]


def random_split(draw: Random) -> list[list[int]]:
    """All shards over two hosts, some way."""
    first = [shard for shard in range(SHARDS) if draw.random() < 0.5]
    return [first, [shard for shard in range(SHARDS) if shard not in first]]
