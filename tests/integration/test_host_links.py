"""The internal port: who says no proper hello, or sends what is no frame, is told why and closed; the host lives on."""

from __future__ import annotations

import asyncio
import struct

import google_crc32c
import pytest

from actors.domain.answers import ERROR, OK, error, ok
from actors.domain.outcomes import ErrorReason
from actors.shard import frames
from actors.shard.host_config import HostConfig
from actors.shard.host_links import Batch, HostLink, LinkOwner
from tests.integration.host_world import (
    CLUSTER,
    SHARDS,
    TIMELINE,
    TOKEN,
    World,
    availability,
    receipt,
    reserve,
    status,
    until,
    world,
)


def hello(**changes: str) -> bytes:
    said = {"cluster_id": CLUSTER, "timeline": TIMELINE, "token": TOKEN, "peer_name": "test"} | changes
    return frames.hello(**said)


def framed(payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) + 5, frames.FRAME_VERSION, google_crc32c.value(payload)) + payload


async def assert_unharmed(here: World) -> None:
    """A proper gateway is served as before, and nothing ended."""
    gateway = await here.gateway()
    [reply] = await gateway.ask(receipt("unharmed", 1))
    assert reply[0] == OK
    assert here.ends == []


async def test_a_welcome_says_who_answers_for_which_shards():
    async with world() as here:
        gateway = await here.gateway()
        assert gateway.welcome is not None
        assert (gateway.welcome.cluster_id, gateway.welcome.timeline) == (CLUSTER, TIMELINE)
        assert gateway.welcome.host_id == "host-a"
        assert list(gateway.welcome.shards) == list(range(SHARDS))
        assert set(gateway.welcome.epochs) == {1}


@pytest.mark.parametrize(
    ("first_bytes", "reason"),
    [
        (hello(token="guessed"), "token"),
        (hello(token=""), "token"),
        (hello(cluster_id="another"), "cluster"),
        (frames.encode([1, 3, 4, CLUSTER, TIMELINE, TOKEN, "test"]), "protocols"),
        (frames.encode_request(1, [status()]), "hello"),
        (frames.encode([1, 1]), "hello"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "cannot be"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "cannot be"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), "cannot be"),  # TLS
        (b"\xff" * 100_000, "cannot be"),
        (struct.pack(">IBI", 50, 1, 0) + bytes(45), "checksum"),
        (struct.pack(">I", frames.HELLO_BYTES_MAX + 1), "cannot be"),  # a stranger gets no more room than a hello needs
        (framed(b"\xdd\x00\x00\x0f\xff" * 500), "msgpack"),  # arrays in arrays, each long, they say
    ],
)
async def test_strangers_are_told_why_and_closed(first_bytes, reason):
    async with world() as here:
        gateway = await here.gateway(first_bytes)
        assert reason in await gateway.hung_up()
        assert gateway.welcome is None
        await assert_unharmed(here)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\x00\x00\x00\x03abc", "cannot be"),
        (struct.pack(">I", frames.FRAME_BYTES_MAX + 1), "cannot be"),
        (frames.encode([9, 1]), "REQUEST"),
        (frames.encode([4, 1]), "REQUEST"),
        (frames.encode([4, 1, "items"]), "REQUEST"),
        (frames.encode([4, 1, [[1, 2, 3]]]), "item"),
        (frames.encode([4, 1, [[1, 0, 0, 1, [], "body"]]]), "item"),
        (frames.encode([4, 1, [["1", 0, 0, 1, [], []]]]), "integers"),
        (frames.encode([4, 1, [[1, 0, 0, True, [], []]]]), "integers"),
        (frames.encode([4, 1, [[1, 0, 0, 0, [], []]]]), "weighs"),
        (frames.encode([4, 1, [[1, 0, 0, -5, [], []]]]), "weighs"),
    ],
)
async def test_a_gateway_that_sends_garbage_is_closed_with_the_reason_and_others_are_not(frame, reason):
    async with world() as here:
        other, gateway = await here.gateway(), await here.gateway()
        gateway.writer.write(frame)
        assert reason in await gateway.hung_up()
        [reply] = await other.ask(receipt("A", 1))
        assert reply[0] == OK
        await assert_unharmed(here)


async def test_a_frame_may_come_byte_by_byte_and_an_empty_one_is_answered():
    async with world() as here:
        gateway = await here.gateway()
        for byte in frames.encode_request(50, [receipt("A", 1)]):
            gateway.writer.write(bytes([byte]))
            await gateway.writer.drain()
        [reply] = await gateway.answer(50)
        assert reply[0] == OK
        assert await gateway.ask() == []


async def test_a_gateway_that_left_changes_nothing_and_its_late_reply_goes_nowhere():
    async with world() as here:
        gateway, other = await here.gateway(), await here.gateway()
        await other.ask(receipt("A", 5))
        here.hold.hold()
        gateway.send(reserve("A", 2))
        await until(lambda: here.hold.begun > here.hold.done)
        await gateway.close()
        here.hold.let_go()
        [view] = await other.ask(availability("A"))
        assert view[2][0][0][0] == 3
        await assert_unharmed(here)


async def test_half_a_frame_and_gone_harms_nobody():
    async with world() as here:
        gateway = await here.gateway()
        gateway.writer.write(frames.encode_request(1, [receipt("A", 1)])[:-3])
        await gateway.close()
        await assert_unharmed(here)


async def test_one_link_too_many_is_refused_and_a_closed_one_makes_room():
    async with world(links_max=2) as here:
        first, _second = await here.gateway(), await here.gateway()
        assert "too many links" in await (await here.gateway(b"")).hung_up()
        await first.close()
        await until(lambda: here.host.status()["links"] < 2)
        await assert_unharmed(here)


async def test_a_link_with_too_many_unanswered_frames_is_not_read_until_one_is_answered():
    async with world(link_frames_max=4) as here:
        gateway, other = await here.gateway(), await here.gateway()
        await other.ask(receipt("A", 100))
        here.hold.hold()
        gateway.send(reserve("A"))
        await until(lambda: here.hold.begun > here.hold.done)
        asked, before = [], here.host.statistics.items
        for _ in range(20):
            asked.append(gateway.send(reserve("A")))
            await other.settled()
        assert here.host.statistics.items - before + here.host.status()["queue_lines"] < 10
        here.hold.let_go()
        for frame_id in asked:
            [reply] = await gateway.answer(frame_id)
            assert reply[0] == OK


class DeafTransport(asyncio.Transport):
    """Takes what is written and never sends it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.written))

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        """A deaf peer's buffer never empties, so closing politely would last for ever."""


def deaf_link(late_link_bytes_max: int = 64 * 1024 * 1024) -> tuple[HostLink, DeafTransport]:
    owner = LinkOwner(
        HostConfig("h", "t", late_link_bytes_max=late_link_bytes_max),
        welcome=lambda _message: b"",
        accept=lambda _batch, _items: None,
        now_ms=lambda: 0,
        opened=lambda _link: True,
        closed=lambda _link: None,
    )
    link = HostLink(owner)
    transport = DeafTransport()
    link._transport = transport
    return link, transport


async def test_a_gateway_that_does_not_read_its_replies_is_cut_off():
    link, transport = deaf_link(late_link_bytes_max=10_000)
    for frame_id in range(100):
        Batch(link, frame_id, 1).answer(0, ok(["x" * 1_000]))
    assert transport.aborted
    assert len(transport.written) == 10


async def test_a_page_too_large_for_a_frame_does_not_hide_what_became_of_the_others():
    link, transport = deaf_link()
    batch = Batch(link, 1, 3)
    batch.answer(0, ok(["granted"]))
    batch.answer(1, ok([b"x" * frames.REPLY_BYTES_MAX]))
    batch.answer(2, error(ErrorReason.RESERVATION_NOT_FOUND, "none"))
    [[_, _, _, replies]] = frames.FrameDecoder().feed(b"".join(transport.written))
    assert replies[0] == [OK, False, ["granted"]]
    assert replies[1][:2] == [ERROR, ErrorReason.INTERNAL]
    assert replies[2][:2] == [ERROR, ErrorReason.RESERVATION_NOT_FOUND]
