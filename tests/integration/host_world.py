"""A shard host on a real socket over a journal in memory that can be held, and a gateway that speaks raw frames to it.

Everything here waits on conditions with a bound. ``Gateway.settled`` is how "nothing came" is shown without sleeping:
an item that the host answers at once goes behind what must stay unanswered, and its answer comes back first.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from actors.domain.answers import PENDING
from actors.domain.commands import Verb
from actors.domain.keys import stock_key
from actors.domain.outcomes import Admission, Disposition, Fact, FillPolicy
from actors.domain.rules import Rules
from actors.journal.memory import MemoryJournal, MemoryStore, memory_store
from actors.journal.port import EntryRow, JournalError, Record, ShardHead
from actors.shard import frames
from actors.shard.host import ShardHost
from actors.shard.host_config import HostConfig
from actors.shard.messages import FrameKind
from actors.shard.placement import PLACEMENT_VERSION, feed_shard_of, shard_of

TOKEN = "the cluster's token"
CLUSTER = "test-cluster"
TIMELINE = "tl1"
SHARDS = 64
PATIENCE_S = 10.0
NOWHERE = 9_999  # a shard that no host has: its items are answered at once

Item = list[Any]
_numbers = itertools.count(1)


class Hold:
    """Lets appends through, or holds them inside the journal until ``let_go``."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.begun = 0
        self.done = 0
        self.checks = 0
        self.looked_up = 0

    def hold(self) -> None:
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    def pass_through(self) -> None:
        if not self._open.wait(PATIENCE_S):
            raise JournalError("held for too long: the test has ended")


class HeldJournal(MemoryJournal):
    """The verified fake, with a ``Hold`` before every append and check."""

    def __init__(self, store: MemoryStore, hold: Hold) -> None:
        super().__init__(store)
        self._hold = hold

    def append(self, records: Sequence[Record], entries: Sequence[EntryRow], read_heads: Sequence[ShardHead]) -> None:
        self._hold.begun += 1
        self._hold.pass_through()
        super().append(records, entries, read_heads)
        self._hold.done += 1

    def check(self, heads: Sequence[ShardHead]) -> None:
        self._hold.checks += 1
        self._hold.pass_through()
        super().check(heads)

    def find_entries(self, keys: Sequence[str]) -> dict[str, EntryRow]:
        self._hold.looked_up += len(keys)
        return super().find_entries(keys)


class Gateway:
    """One link to a host. ``answers``: frame id → replies, in order of arrival; ``goodbye``: the host's last word."""

    def __init__(self) -> None:
        self.answers: dict[int, list[Any]] = {}
        self.late: dict[tuple[int, int], Any] = {}  # (frame id, place) → the reply that came later
        self.goodbye = ""
        self.welcome: frames.Welcome | None = None
        self._frame_ids = itertools.count(1)
        self._news = asyncio.Event()
        self._closed = False
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self._task: asyncio.Task[None]

    @property
    def closed(self) -> bool:
        return self._closed

    async def connect(self, endpoint: str, hello: bytes | None = None) -> Gateway:
        address, port = endpoint.rsplit(":", 1)
        self.reader, self.writer = await asyncio.open_connection(address, int(port))
        said = frames.hello(cluster_id=CLUSTER, timeline=TIMELINE, token=TOKEN, peer_name="test")
        self.writer.write(said if hello is None else hello)
        self._task = asyncio.create_task(self._listen())
        return self

    async def _listen(self) -> None:
        decoder = frames.FrameDecoder()
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(1 << 16):
                for message in decoder.feed(data):
                    self._take(message)
                self._news.set()
        self._closed = True
        self._news.set()

    def _take(self, message: Sequence[Any]) -> None:
        if message[0] == FrameKind.WELCOME:
            self.welcome = frames.read_welcome(message)
        elif message[0] == FrameKind.GOODBYE:
            self.goodbye = message[1]
        elif message[0] == FrameKind.LATE:
            assert self.answers[message[1]][message[3]][0] == PENDING, "a late reply to what was answered"
            assert (message[1], message[3]) not in self.late, "answered twice"
            self.late[message[1], message[3]] = message[4]
        else:
            assert message[0] == FrameKind.REPLY
            assert message[1] not in self.answers, "a frame was answered twice"
            self.answers[message[1]] = message[3]

    def send(self, *items: Item) -> int:
        """Send a frame; its id."""
        frame_id = next(self._frame_ids)
        self.writer.write(frames.encode_request(frame_id, items))
        return frame_id

    async def answer(self, frame_id: int) -> list[Any]:
        """The replies of a frame, once they are there."""
        await self.until(lambda: frame_id in self.answers)
        return self.answers[frame_id]

    async def end_of(self, frame_id: int, place: int = 0) -> Any:
        """A reply, whether it comes with its frame or later."""
        replies = await self.answer(frame_id)
        if replies[place][0] != PENDING:
            return replies[place]
        await self.until(lambda: (frame_id, place) in self.late)
        return self.late[frame_id, place]

    async def ask(self, *items: Item) -> list[Any]:
        """Send a frame and wait for its replies."""
        return await self.answer(self.send(*items))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on what this link heard."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert not self._closed, f"the link closed: {self.goodbye!r}"
                self._news.clear()
                await self._news.wait()

    async def settled(self) -> None:
        """The host has read all that was sent, and everything it answers at once is here."""
        [reply] = await self.ask([int(Verb.GET_STOCK), NOWHERE, 0, 1, [], ["x"]])
        assert reply[0] == 2

    async def hung_up(self) -> str:
        """Wait until the host closed the link; its reason."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._closed:
                self._news.clear()
                await self._news.wait()
        return self.goodbye

    async def close(self) -> None:
        self.writer.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await self._task


class World:
    """Hosts over one store, and links to them. ``ends``: how processes would have ended: (code, reason)."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.hold = Hold()
        self.ends: list[tuple[int, str]] = []
        self.host: ShardHost
        self._hosts: list[ShardHost] = []
        self._gateways: list[Gateway] = []

    async def start_host(self, rules: Rules | None = None, **settings: Any) -> ShardHost:
        """Another host over the same store: it takes every shard over."""
        config = HostConfig("host-a", TOKEN, **({"link_frames_max": 10_000} | settings))  # tests send many small frames
        self.host = ShardHost(
            config,
            lambda: HeldJournal(self.store, self.hold),
            rules or Rules(),
            end_process=lambda code, reason: self.ends.append((code, reason)),
        )
        self._hosts.append(self.host)
        await self.host.start()
        return self.host

    async def gateway(self, hello: bytes | None = None) -> Gateway:
        """A new link to the newest host, welcomed unless ``hello`` says otherwise."""
        gateway = await Gateway().connect(self.host.route.endpoint, hello)
        self._gateways.append(gateway)
        if hello is None:
            await gateway.until(lambda: gateway.welcome is not None)
        return gateway

    async def close(self) -> None:
        self.hold.let_go()
        for gateway in self._gateways:
            await gateway.close()
        for host in self._hosts:
            await host.stop(1.0)


@contextlib.asynccontextmanager
async def world(rules: Rules | None = None, **settings: Any) -> AsyncIterator[World]:
    """A running host with an empty journal in memory; everything is stopped at the end."""
    here = World(memory_store(CLUSTER, TIMELINE, SHARDS, PLACEMENT_VERSION, now_ms()))
    try:
        await here.start_host(rules, **settings)
        yield here
    finally:
        await here.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition outside any link, with a bound."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def key_of(sku: str, warehouse_id: str = "main") -> str:
    return str(stock_key(warehouse_id, sku))


def keys_of_shard(shard: int, warehouse_id: str = "main") -> Iterator[str]:
    """Stock keys that live in a shard, without end."""
    for number in itertools.count():
        key = key_of(f"S{number}", warehouse_id)
        if shard_of(key, SHARDS) == shard:
            yield key


def item(verb: Verb, key: str, body: list[Any], *, deadline_ms: int = 0, weight: int = 1) -> Item:
    shard = feed_shard_of(str(body[0]), SHARDS) if verb == Verb.INGEST else shard_of(key, SHARDS)
    return [int(verb), shard, deadline_ms, weight, [], body]


def receipt(sku: str, quantity: int, *, event_id: str = "") -> Item:
    key = key_of(sku)
    number = next(_numbers)
    details = [quantity, int(Disposition.SELLABLE), "", ""]
    event = event_id or f"e{number}"
    return item(Verb.INGEST, key, ["wms", "", event, 0, now_ms(), key, event.encode(), int(Fact.RECEIPT), details])


def reserve(
    sku: str, quantity: int = 1, *, request_id: str = "", ttl_ms: int = 900_000, deadline_ms: int = 0, weight: int = 1
) -> Item:
    key = key_of(sku)
    body = [
        request_id or f"r{next(_numbers)}",
        b"digest",
        "web",
        [["0", key, quantity, 0]],
        ttl_ms,
        False,
        int(FillPolicy.ALL_OR_NOTHING),
        int(Admission.WHEN_COVERED),
    ]
    return item(Verb.RESERVE, key, body, deadline_ms=deadline_ms, weight=weight)


def availability(sku: str) -> Item:
    return item(Verb.GET_AVAILABILITY, key_of(sku), ["web", [key_of(sku)]])


def release(sku: str, reservation_id: str) -> Item:
    return item(Verb.RELEASE, key_of(sku), [f"r{next(_numbers)}", b"digest", reservation_id, "", "", [], 8])


def status() -> Item:
    return [int(Verb.GET_HOST_STATUS), -1, 0, 1, [], []]
