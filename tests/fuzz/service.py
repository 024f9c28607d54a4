"""The real service in one thread, without sockets: handlers, validation, translation, core, frames, engine, journal in memory.

What is not here is IO: gRPC's own server, the links' connections, the host's threads. Those have targets of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from actors.domain.answers import OK, ExplanationView, ok
from actors.domain.apply import rebuild_indices
from actors.domain.commands import Verb
from actors.domain.outcomes import Door
from actors.domain.rules import Rules
from actors.domain.state import Books
from actors.journal.codec import decode_groups
from actors.journal.memory import MemoryJournal, memory_store
from actors.journal.verify import verify
from actors.shard import frames
from actors.shard.directory import HostRoute, Routes
from actors.shard.encoding import canonical_state
from actors.shard.explaining import events_behind, newest_first
from actors.shard.filter import EntryFilter
from actors.shard.placement import PLACEMENT_VERSION, shard_of
from actors.shard.recovery import load_shard, recover
from actors.shard.snapshot import Snapshotter
from actors.shard.turns import stock_key_of
from gateway.access import Access
from gateway.config import ChannelConfig, GatewayConfig, WarehouseConfig
from gateway.core import Call, Core
from gateway.entrance import Entrance
from gateway.metrics import Metrics
from gateway.rpc import Wrapper
from gateway.server import SERVICES
from gateway.servicers.desk import Desk
from gateway.streams import handler
from gateway.validation import KnownNames
from tests.fuzz import nasty
from tests.fuzz.requests import START_MS

SHARDS = 4
HOST = "host-a"
CLUSTER, TIMELINE = "cluster", "t1"
RULES = Rules(
    doors={"om": Door.ORDER_MANAGEMENT},
    dedupe_memory_ms=5_000,
    healed_memory_ms=2_000,
    dedupe_window_ms=3_600_000,
    exceptions_open_max=50,
)
CONFIG = GatewayConfig(
    cluster_token="token",
    channels={"web": ChannelConfig(), "edi": ChannelConfig(may_impose=True)},
    warehouses={"main": WarehouseConfig(), "om": WarehouseConfig(fulfilment_door=Door.ORDER_MANAGEMENT)},
)
METRICS = Metrics(name="fuzz", version="0", build="", sources=frozenset(("wms",)))
LOOP = asyncio.new_event_loop()


class Context:
    """A call's context, as far as the handlers use one."""

    def __init__(self, metadata: Sequence[tuple[str, str]], messages: Sequence[Any] = ()) -> None:
        self._metadata = metadata
        self._messages = iter(messages)
        self.written: list[Message] = []
        self.code = grpc.StatusCode.OK
        self.details = ""
        self.trailers: dict[str, Any] = {}

    async def read(self) -> Any:
        return next(self._messages, grpc.aio.EOF)

    async def write(self, message: Message) -> None:
        self.written.append(message)

    def done(self) -> bool:
        return False

    def time_remaining(self) -> float | None:
        return 3.0

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return self._metadata

    def set_trailing_metadata(self, trailers: Sequence[tuple[str, Any]]) -> None:
        self.trailers = dict(trailers)

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


class Service:
    """A fresh cluster of one host and one gateway. ``call`` is what gRPC would do with a request's bytes."""

    def __init__(self) -> None:
        self.store = memory_store(CLUSTER, TIMELINE, SHARDS, PLACEMENT_VERSION, START_MS)
        self.now_ms = START_MS
        self._start_host()
        self.names = KnownNames(CONFIG)
        self.names.set_shard_count(SHARDS)
        self.core = Core(CONFIG)
        route = HostRoute(HOST, "127.0.0.1:1", 1, tuple(range(SHARDS)), (1,) * SHARDS)
        now = int(LOOP.time() * 1000)
        self.core.set_routes(Routes(1, CLUSTER, TIMELINE, SHARDS, (route,)), now)
        self.core.link_up(HOST, timeline=TIMELINE, host_time_ms=self.now_ms, shards=range(SHARDS), now=now)
        self.handlers = LOOP.run_until_complete(self._make_handlers())

    # --- the gateway ------------------------------------------------------------------------------------------------------

    async def _make_handlers(self) -> dict[str, Any]:
        wrapper = Wrapper(CONFIG, Access(()), METRICS, Entrance(1_000, lambda: None))
        desk = Desk(CONFIG, self.names, self, METRICS)
        handlers = {}
        self.answers: dict[str, type[Message]] = {}  # by method; an answer may be handed over as its bytes
        for file, name, make in SERVICES:
            servicer = make(desk)
            for method in file.DESCRIPTOR.services_by_name[name].methods:
                request_class = GetMessageClass(method.input_type)
                self.answers[method.name] = GetMessageClass(method.output_type)
                handlers[method.name] = handler(wrapper, method, request_class, getattr(servicer, method.name))
        return handlers

    def call(self, method: str, raw: bytes, metadata: Sequence[tuple[str, str]] = ()) -> tuple[Context, Message | None]:
        """The context after the call, and the response as its bytes say it."""
        found = self.handlers[method]
        if found.request_streaming:
            return self._talk(method, raw, metadata)
        context = Context(metadata)
        request = found.request_deserializer(raw)
        response = LOOP.run_until_complete(found.unary_unary(request, context))
        if response is None:
            return context, None
        return context, self.answers[method].FromString(found.response_serializer(response))

    def _talk(self, method: str, raw: bytes, metadata: Sequence[tuple[str, str]]) -> tuple[Context, Message | None]:
        """A caller's stream, whose messages ``raw`` holds; all that was answered, merged."""
        found, answer = self.handlers[method], self.answers[method]
        parts = nasty.unpack(raw)
        said = parts if isinstance(parts, list) and all(isinstance(part, bytes) for part in parts) else [raw]
        context = Context(metadata, [found.request_deserializer(part) for part in said])
        response = LOOP.run_until_complete((found.stream_unary or found.stream_stream)(None, context))
        written = context.written if response is None else [response]
        if context.code is not grpc.StatusCode.OK or not written:
            return context, None
        merged = answer()
        for message in written:
            merged.MergeFrom(answer.FromString(found.response_serializer(message)))
        return context, merged

    timeline = TIMELINE
    cluster_id = CLUSTER
    saturated = False

    def host_ids(self) -> list[str]:
        return self.core.host_ids()

    async def ask(
        self, items: list[list[Any]], *, deadline: int, size: int, weight: int, mutating: bool, host_id: str = ""
    ) -> Sequence[Any]:
        """As ``gateway.links.HostLinks.ask``: the real core and real frames, and the host at the other end of a call."""
        ended: list[Call] = []
        now = int(LOOP.time() * 1000)
        call = Call(
            items, ended.append, deadline=deadline, size=size, weight=weight, mutating=mutating, patience=deadline,
            host_id=host_id,
        )  # fmt: skip
        self.core.submit(call, now)
        while not ended:
            sent = self.core.take_frames(now)
            assert sent, "a call waits and no frame is sent"
            for frame in sent:
                _, frame_id, received = through(
                    frames.encode_request(frame.frame_id, frame.items), frames.FRAME_BYTES_MAX
                )
                reply = frames.encode_reply(frame_id, self.now_ms, self.answer(received))
                message = through(reply, frames.REPLY_BYTES_MAX)
                frames.check_reply(message)
                self.core.receive(HOST, message[1], message[2], message[3], now)
        return ended[0].replies

    # --- the host ---------------------------------------------------------------------------------------------------------

    def _start_host(self) -> None:
        self.journal = MemoryJournal(self.store)
        recovered = recover(self.journal, range(SHARDS), RULES, self.now_ms)
        self.engine = recovered.engine
        own = recovered.ownership
        self.journal.append(own.records, own.entries, own.read_heads)
        self.filter = EntryFilter(self.journal.entry_keys())

    def answer(self, items: Sequence[Sequence[Any]]) -> list[Any]:
        """One turn, made durable, as the host's shell does it."""
        if items and items[0][0] == Verb.GET_HOST_STATUS:
            return [ok([self._status()])]
        for item in items:
            stock_key_of(item)
        found: dict[str, Any] = {}
        while wanted := self.engine.unresolved(items, found, self.filter):
            found.update(dict.fromkeys(wanted))
            found.update(self.journal.find_entries(wanted))
        result = self.engine.step(items, found, self.now_ms)
        for row in result.entries:
            self.filter.add(row.key)
        if result.records or result.entries:
            self.journal.append(result.records, result.entries, result.read_heads)
        else:
            self.journal.check(result.read_heads)
        self.engine.durable(result)
        return [self._explained(item, reply) for item, reply in zip(items, result.replies, strict=True)]

    def _explained(self, item: Sequence[Any], reply: Any) -> Any:
        if item[0] != Verb.EXPLAIN_AVAILABILITY or reply[0] != OK:
            return reply
        records = newest_first(self.journal, item[1], 200)
        return ok(ExplanationView(*reply[2])._replace(events=events_behind(records, item[5][1], 20, decode_groups)))

    def _status(self) -> dict[str, Any]:
        status = self.engine.status()
        for shard in status["shards"]:
            shard["queue_depth"] = 0
        return status | {"endpoint": "127.0.0.1:1", "pid": 1, "state": "serving", "accepts_claims": True}

    def pass_ms(self, milliseconds: int) -> None:
        """Time passes; what is due expires and leaves memory."""
        self.now_ms += milliseconds
        self.answer([])

    def restart(self) -> None:
        """The host dies and its successor replays."""
        self.check()
        self._start_host()

    def snapshot(self) -> None:
        """A snapshot of every shard that holds anything."""
        for shard in range(SHARDS):
            if self.engine.books.shards[shard].stock:
                snapshotter = Snapshotter(self.engine, shard, self.now_ms)
                while (part := snapshotter.next_slice()) is not None:
                    self.journal.write_slice(part, snapshotter.epoch)
                self.journal.publish_snapshot(snapshotter.snapshot())

    # --- what must hold ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Replay, with and without snapshots, is the live state; ``verify`` finds nothing; nothing was oversold."""
        assert self.engine.books.oversells == 0
        assert self.core.idle or not any(self.core.pending_lines().values()), "the core still holds something"
        for use_snapshots in (False, True):
            books = Books(RULES, lambda key: shard_of(key, SHARDS))
            for shard in range(SHARDS):
                load_shard(MemoryJournal(self.store), books, shard, use_snapshots=use_snapshots)
            rebuild_indices(books)
            for shard in range(SHARDS):
                live, replayed = canonical_state(self.engine.books, shard), canonical_state(books, shard)
                assert live == replayed, f"shard {shard} is not what its journal says"
        report = verify(MemoryJournal(self.store), dedupe_window_ms=RULES.dedupe_window_ms)
        assert report.ok, report.violations[:3]


def through(frame: bytes, bytes_max: int) -> Sequence[Any]:
    """What the other side reads of a frame."""
    (message,) = frames.FrameDecoder(bytes_max).feed(frame)
    return message
