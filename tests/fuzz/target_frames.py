"""Frames: the decoder under any cut, a shard host's link under any stream of bytes, a gateway's link under any host."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Sequence
from typing import Any, cast

import google_crc32c
import msgpack

from actors.domain.commands import COMMANDS, Verb
from actors.domain.keys import stock_key
from actors.domain.outcomes import ErrorReason
from actors.journal.memory import MemoryJournal, memory_store
from actors.journal.verify import verify
from actors.shard import frames
from actors.shard.directory import HostRoute, Routes
from actors.shard.host import ShardHost
from actors.shard.host_config import HostConfig
from actors.shard.messages import FrameKind
from actors.shard.placement import PLACEMENT_VERSION, feed_shard_of, shard_of
from gateway.core import Core
from gateway.links import HostLinks
from tests.fuzz import nasty
from tests.fuzz.guard import no_errors_logged
from tests.fuzz.registry import Random, target
from tests.fuzz.service import CLUSTER, CONFIG, HOST, LOOP, RULES, SHARDS, TIMELINE

TOKEN = CONFIG.cluster_token
PATIENCE_S = 10.0
NOW_MS = 1_700_000_000_000


def frame(payload: bytes) -> bytes:
    """Any payload as a frame whose length and checksum are right."""
    return struct.pack(">IBI", len(payload) + 5, 1, google_crc32c.value(payload)) + payload


def framed(message: Any) -> bytes:
    """Any value as a frame."""
    return frame(msgpack.packb(message, use_bin_type=True))


HELLO = frames.hello(cluster_id=CLUSTER, timeline=TIMELINE, token=TOKEN, peer_name="fuzz")
WELCOME = [2, 1, CLUSTER, TIMELINE, HOST, NOW_MS, list(range(SHARDS)), [1] * SHARDS]


# --- the decoder ------------------------------------------------------------------------------------------------------------


def make_stream(random: Random) -> bytes:
    """A few frames, one of them odd now and then."""
    out = b""
    for _ in range(random.randrange(1, 5)):
        message = random.choice(
            ([4, 1, []], [5, 1, 0, [[0, False, None]]], [3, "bye"], nasty.value(random), [nasty.value(random)] * 3)
        )
        out += (
            framed(message)
            if random.random() < 0.8
            else frame(random.choice(nasty.TOKENS) * random.choice((1, 3, 200)))
        )
    return out


@target("frame-decoder", "bytes → messages: the same whatever the cuts, or FrameError", make_stream, nasty.spoiled)
def decode(data: bytes) -> None:
    """Fed whole, byte by byte and in two parts, a decoder says the same."""
    half = len(data) // 2
    whole = _decoded([data])
    assert _decoded([data[:half], data[half:]]) == whole
    assert _decoded([data[at : at + 1] for at in range(len(data))] if len(data) < 2_000 else [data]) == whole


def _decoded(parts: Sequence[bytes]) -> tuple[list[str], str]:
    decoder = frames.FrameDecoder(frames.FRAME_BYTES_MAX)
    messages: list[str] = []
    try:
        for part in parts:
            for message in decoder.feed(part):
                assert isinstance(message, list)
                assert len(message) >= 2
                messages.append(repr(message))
    except frames.FrameError as error:
        return messages, str(error)
    return messages, ""


# --- gateway → host ---------------------------------------------------------------------------------------------------------

KEY = stock_key("main", "A")
HOME = shard_of(KEY, SHARDS)
FEED_SHARD = feed_shard_of("wms", SHARDS)
HEADER = ["wms", "", 7, NOW_MS, 2, 10, 1, 1, ""]
RECONCILIATION_BODIES: dict[int, list[Any]] = {
    Verb.BEGIN_RECONCILIATION: ["q1", b"d" * 16, f"rc-1-{HOME}-1", "main", 1, HEADER],
    Verb.RECONCILE_LINES: ["q1", f"rc-1-{HOME}-1", 1, HEADER, False, [[KEY, 1, 5, True]]],
    Verb.FINISH_RECONCILIATION: ["q1", f"rc-1-{HOME}-1", 3, [1, 1, 0, 0, 0, 0, 0, 0, 0], ""],
    Verb.GET_RECONCILIATION: [f"rc-1-{HOME}-1"],
    Verb.LIST_RECONCILIATIONS: ["main", [1], 10, ""],
    Verb.LIST_FINDINGS: [f"rc-1-{HOME}-1", [], 10, ""],
    Verb.LIST_COMPARABLE: ["main", 1, 0, 10, 0],
}
GOOD_BODIES: dict[int, list[Any]] = {
    Verb.RESERVE: ["r1", b"d" * 16, "web", [["0", KEY, 1, 0]], 60_000, False, 1, 1, "o1", "", "", []],
    Verb.CONFIRM: ["r2", b"d" * 16, f"1-{TIMELINE}-{HOME}-1", "o1", 0],
    Verb.RELEASE: ["r3", b"d" * 16, f"1-{TIMELINE}-{HOME}-1", "", "", [["0", 1]], 1, ""],
    Verb.EXTEND: ["r4", b"d" * 16, f"1-{TIMELINE}-{HOME}-1", 60_000],
    Verb.AMEND: ["r5", b"d" * 16, f"1-{TIMELINE}-{HOME}-1", [["0", KEY, 2, 0]], [], 0],
    Verb.FULFILL: ["r6", b"d" * 16, f"1-{TIMELINE}-{HOME}-1", "s1", [["0", 1, ""]], False, 0],
    Verb.GET_RESERVATION: [f"1-{TIMELINE}-{HOME}-1"],
    Verb.LIST_RESERVATIONS: ["web", "o1", KEY, [1], 10, ""],
    Verb.GET_AVAILABILITY: ["web", [KEY]],
    Verb.EXPLAIN_AVAILABILITY: ["web", KEY, 1],
    Verb.GET_STOCK: [KEY],
    Verb.LIST_STOCK: ["main", False, 10, ""],
    Verb.LIST_EXCEPTIONS: [[], "", "", [], 10, "", [1], "warehouse", 0, 1, True, "wms"],
    Verb.GET_EXCEPTION: ["x-t1-0-1"],
    Verb.RESOLVE_EXCEPTION: ["r", b"d", "x-t1-0-1", 1, "why", "me", []],
    Verb.LIST_TRANSFERS: ["overflow", "main", "t1", 10, ""],
    Verb.REGISTER_STOCK: ["r7", b"d" * 16, KEY, 0, 1, 0, "pc", 1, 2, [["L-1"]]],
    Verb.SET_STOCK_POLICY: ["r8", b"d" * 16, KEY, 0, 0, "", 0, 0, 0, 0, [["L-1"]]],
    Verb.SET_SELLING: ["r9", b"d" * 16, KEY, 1, ""],
    Verb.INGEST: ["wms", "", "e1", 0, NOW_MS, KEY, b"d" * 16, 1, [5, 1, "", ""], "", "", "", 0, [], 0],
    Verb.HEARTBEAT: ["wms", "", "main", 7],
    Verb.GET_FEED_STATUS: ["wms", "", "main", 10, ""],
    Verb.GET_HOST_STATUS: [],
    **RECONCILIATION_BODIES,
    Verb.LIST_AVAILABILITY: ["main", 10, 0],
    Verb.ACKNOWLEDGE_CHANGES: [
        "erp",
        TIMELINE,
        NOW_MS,
        [[HOME, 1]],
        [[f"{TIMELINE}-{HOME}-1", "unknown SKU"]],
        "stuck",
    ],
    Verb.LIST_CONSUMERS: [],
    Verb.ATTACH_CONSUMER: ["erp"],
    Verb.TAKE_ERRAND: [HOME, 1, 1, 82, [], [1, "web", "r1", "", "", "", "", "", 0, 0]],
    Verb.ERRAND_ANSWERED: [HOME, 1, []],
    Verb.READ_LINES: ["1-t-1-1", [KEY], 2, [[KEY, "ship", "0"]]],
    Verb.READ_CHANGES: [TIMELINE, [[HOME, -1]], 100, 0],
}
assert set(COMMANDS) < set(GOOD_BODIES)


def make_requests(random: Random) -> bytes:
    """A hello and frames of items, more or less right."""
    parts = [HELLO]
    for frame_id in range(1, random.randrange(2, 6)):
        items = [_item(random) for _ in range(random.choice((1, 1, 2, 4)))]
        message: Any = [int(FrameKind.REQUEST), frame_id, items]
        if random.random() < 0.05:
            message = nasty.spoiled_value(random, message)
        parts.append(framed(message))
    return nasty.pack(parts)


def _item(random: Random) -> Any:
    verb = random.choice((Verb.INGEST, Verb.RESERVE, *GOOD_BODIES))
    body: Any = GOOD_BODIES[verb]
    if random.random() < 0.4:
        body = nasty.spoiled_value(random, body)
    if isinstance(body, list) and body and random.random() < 0.5 and verb not in (Verb.GET_STOCK, Verb.GET_RESERVATION):
        body = [f"i{random.randrange(9)}", *body[1:]] if isinstance(body[0], str) else body
    lists = verb in (
        Verb.LIST_RESERVATIONS,
        Verb.LIST_STOCK,
        Verb.LIST_TRANSFERS,
        Verb.LIST_EXCEPTIONS,
        Verb.GET_FEED_STATUS,
        Verb.LIST_RECONCILIATIONS,
        Verb.LIST_FINDINGS,
        Verb.GET_HOST_STATUS,
    )
    shard = FEED_SHARD if verb in (Verb.INGEST, Verb.HEARTBEAT) else HOME
    item: Any = [int(verb), -1 if lists else shard, 0, 1, [], body]
    if random.random() < 0.15:
        item = nasty.spoiled_value(random, item)
    return item


def change_parts(random: Random, data: bytes) -> bytes:
    """Spoil one frame of several, or what is inside it."""
    parts = nasty.unpack(data)
    if not isinstance(parts, list) or not parts or not all(isinstance(part, bytes) for part in parts):
        return nasty.pack([nasty.spoiled(random, data)])
    at = random.randrange(len(parts))
    inner = nasty.unpack(parts[at][9:])
    if random.random() < 0.7 and inner is not None:
        with contextlib.suppress(ValueError, OverflowError):
            parts[at] = framed(nasty.spoiled_value(random, inner))
    elif random.random() < 0.5:
        parts.insert(at, random.choice(parts))
    else:
        parts[at] = nasty.spoiled(random, parts[at])
    return nasty.pack(parts)


@target(
    "host-link",
    "frames to a shard host: it answers, refuses or closes the link, and serves others on",
    make_requests,
    change_parts,
)
def host_link(data: bytes) -> None:
    """One stream on a fresh host, then a good link."""
    parts = nasty.unpack(data)
    if isinstance(parts, list) and all(isinstance(part, bytes) for part in parts):
        with no_errors_logged("asyncio"):
            LOOP.run_until_complete(_feed_host(parts[:20]))


async def _feed_host(parts: list[bytes]) -> None:
    store = memory_store(CLUSTER, TIMELINE, SHARDS, PLACEMENT_VERSION, NOW_MS)
    ended: list[str] = []
    links: list[Link] = []

    def end(_code: int, reason: str) -> None:
        ended.append(reason)
        for link in links:
            link.close()

    host = ShardHost(HostConfig(HOST, TOKEN), lambda: MemoryJournal(store), RULES, end_process=end)
    route = await host.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            odd, good = links[:] = [await Link(route.endpoint).open(), await Link(route.endpoint).open()]
            odd.write(parts)
            good.write([HELLO, framed([4, 1, [[int(Verb.GET_AVAILABILITY), HOME, 0, 1, [], ["web", [KEY]]]]])])
            await good.read_until(lambda message: message[0] == FrameKind.REPLY)
            assert not ended, f"the host ended: {ended}"
            reply = good.said[-1][3][0]
            assert reply[0] == 0 or reply[1] == ErrorReason.OVERLOADED, reply
            odd.write_eof()
            await odd.read_until(lambda _message: False)
            good.close()
    finally:
        await host.stop(1.0)
    assert not ended, f"the host ended: {ended}"
    report = verify(MemoryJournal(store))
    assert report.ok, report.violations[:3]


class Link:
    """A connection to the host; ``said``: what the host sent."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._decoder = frames.FrameDecoder()
        self.said: list[Sequence[Any]] = []

    async def open(self) -> Link:
        address, port = self._endpoint.rsplit(":", 1)
        self._reader, self._writer = await asyncio.open_connection(address, int(port), limit=2**24)
        return self

    def write(self, parts: Sequence[bytes]) -> None:
        self._writer.writelines(parts)

    def write_eof(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def close(self) -> None:
        self._writer.transport.abort()

    async def read_until(self, wanted: Callable[[Sequence[Any]], bool]) -> None:
        """Read until such a message came, or the host closed the link."""
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(1 << 16):
                for message in self._decoder.feed(data):
                    self.said.append(message)
                    assert message[0] in (FrameKind.WELCOME, FrameKind.GOODBYE, FrameKind.REPLY)
                    assert message[0] != FrameKind.REPLY or all(reply[0] in (0, 1, 2) for reply in message[3])
                if self.said and wanted(self.said[-1]):
                    return
        self.close()


# --- host → gateway ---------------------------------------------------------------------------------------------------------


def make_replies(random: Random) -> bytes:
    """What a host may send: a welcome, replies, a goodbye, more or less right."""
    welcome: Any = WELCOME if random.random() < 0.7 else nasty.spoiled_value(random, WELCOME)
    replies: Any = [
        5,
        1,
        NOW_MS,
        [
            random.choice(
                (
                    [0, False, [[[3, True, False]], [HOME, 1, 1, NOW_MS]]],
                    [2, 12, "", 0],
                    [1, False, [1, [], 0, 0, [0, 1, 1, NOW_MS]]],
                )
            )
        ],
    ]
    if random.random() < 0.7:
        replies = nasty.spoiled_value(random, replies)
    return nasty.pack(
        [framed(welcome), framed(replies), framed(random.choice(([3, "bye"], nasty.value(random), replies)))]
    )


class Directory:
    """Knows one host, for ever."""

    def __init__(self, port: int) -> None:
        self._routes = Routes(
            1,
            CLUSTER,
            TIMELINE,
            SHARDS,
            (HostRoute(HOST, f"127.0.0.1:{port}", 1, tuple(range(SHARDS)), (1,) * SHARDS),),
        )

    async def routes(self, after_version: int) -> Routes:
        if after_version == 1:
            await asyncio.Event().wait()
        return self._routes


@target(
    "gateway-link",
    "frames from a shard host: the call ends in time, the link closes or goes on, and is made again",
    make_replies,
    change_parts,
)
def gateway_link(data: bytes) -> None:
    """A host that says this, then one that says what is right."""
    parts = nasty.unpack(data)
    if isinstance(parts, list) and all(isinstance(part, bytes) for part in parts):
        LOOP.run_until_complete(_feed_gateway(parts[:10]))


async def _feed_gateway(parts: list[bytes]) -> None:
    said = asyncio.Event()
    calls = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        odd = calls == 1
        with contextlib.suppress(ConnectionError):
            if odd:
                await reader.read(1 << 16)
                writer.write(parts[0] if parts else b"")
                await asyncio.sleep(0)
                writer.write(b"".join(parts[1:]))
                writer.write_eof()
                said.set()
                while await reader.read(1 << 16):
                    pass
            else:
                await _serve_well(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    core = Core(CONFIG)
    links = HostLinks(core, cast(Any, Directory(server.sockets[0].getsockname()[1])), CONFIG)
    failures: list[dict[str, Any]] = []
    LOOP.set_exception_handler(lambda _loop, context: failures.append(context))
    try:
        links.start()
        async with asyncio.timeout(PATIENCE_S):
            await said.wait()
            item = [int(Verb.GET_AVAILABILITY), HOME, 0, 1, [], ["web", [KEY]]]
            deadline = links.now() + 8_000
            (reply,) = await links.ask([item], deadline=deadline, size=64, weight=1, mutating=False)
            assert isinstance(reply, list | tuple) and reply[0] in (0, 1, 2), reply
            while core.host_ids() and not core.routable:
                await asyncio.sleep(0.001)
    finally:
        await links.stop()
        server.close()
        LOOP.set_exception_handler(None)
    assert not failures, failures[0]


async def _serve_well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    decoder = frames.FrameDecoder()
    while data := await reader.read(1 << 16):
        for message in decoder.feed(data):
            if message[0] == FrameKind.HELLO:
                writer.write(framed(WELCOME))
            else:
                reply = [0, False, [[[3, True, False]], [HOME, 1, 1, NOW_MS]]]
                writer.write(frames.encode_reply(message[1], NOW_MS, [reply for _ in message[2]]))
