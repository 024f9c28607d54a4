"""The proxy of the chaos run: what it promises to do to a link it does, and a node behind it serves through all of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.journal.memory import MemoryJournal
from actors.runtime.settings import load_settings
from actors.runtime.wiring import InProcessNode, new_memory_store
from stockade import AsyncClient, Reservation
from stockade.client import facts
from tests.chaos.proxy import LinkProxy
from tests.chaos.schedule import BOTH_WAYS, CUT, FLIP, GARBAGE, HOLD, STRAND, TO_GATEWAY, TO_HOST, TRUNCATE

WITHIN_S = 10.0


class Echo:
    """A server that sends back what it gets; ``got`` is all of it."""

    def __init__(self) -> None:
        self.got = b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1024):
                self.got += chunk
                writer.write(chunk)
        except OSError:
            pass
        writer.close()


@asynccontextmanager
async def proxied(seed: int) -> AsyncIterator[tuple[Echo, LinkProxy]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    proxy = LinkProxy(lambda: echo.port, random.Random(seed))
    await proxy.start()
    try:
        yield echo, proxy
    finally:
        proxy.close()
        server.close()


async def until(condition, within_s: float = WITHIN_S) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def ended(reader: asyncio.StreamReader) -> None:
    """The other side has closed or reset the connection."""
    async with asyncio.timeout(WITHIN_S):
        with contextlib.suppress(OSError):
            await reader.read()


async def test_in_fair_weather_bytes_pass_both_ways(seed):
    async with proxied(seed) as (_, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")

        assert await reader.readexactly(5) == b"hello"
        writer.close()


@pytest.mark.parametrize("direction", [TO_HOST, TO_GATEWAY, BOTH_WAYS])
async def test_what_is_held_arrives_late_even_from_a_caller_who_has_gone(seed, direction):
    async with proxied(seed) as (echo, proxy):
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.hold(direction)
        writer.write(b"hello")
        if direction == TO_GATEWAY:
            await until(lambda: echo.got == b"hello")
        else:
            await until(lambda: proxy.connections == 1)
            assert echo.got == b""
        writer.close()
        proxy.calm()

        await until(lambda: echo.got == b"hello")


async def test_who_is_stranded_waits_while_others_get_through(seed):
    async with proxied(seed) as (echo, proxy):
        _, stranded = await asyncio.open_connection("127.0.0.1", proxy.port)
        await until(lambda: proxy.connections == 1)
        proxy.strand(TO_HOST)
        stranded.write(b"late")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert echo.got == b"hello"
        proxy.calm()

        await until(lambda: echo.got == b"hellolate")


async def test_a_cut_resets_the_connection_and_a_refusal_lets_nobody_through(seed):
    async with proxied(seed) as (echo, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        await reader.readexactly(5)
        proxy.cut()
        await ended(reader)
        proxy.refusing = True
        reader, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
        await ended(reader)

        assert (proxy.connections, echo.got) == (1, b"hello")


@pytest.mark.parametrize("how", [GARBAGE, FLIP, TRUNCATE])
async def test_a_spoiler_strikes_once(seed, how):
    async with proxied(seed) as (echo, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.spoil(TO_HOST, how)
        writer.write(b"hello")
        await until(lambda: proxy.spoilt == 1)
        if how == TRUNCATE:
            await ended(reader)
            assert b"hello".startswith(echo.got)
            assert echo.got != b"hello"
            return
        await until(lambda: len(echo.got) >= 5)
        writer.write(b"again")
        await until(lambda: echo.got.endswith(b"again"))

        assert echo.got.removesuffix(b"again") != b"hello"
        assert len(echo.got) == 10 if how == FLIP else echo.got.endswith(b"helloagain")


@pytest.mark.parametrize("how", [GARBAGE, FLIP, TRUNCATE, CUT, HOLD, STRAND])
async def test_a_node_whose_gateways_reach_its_host_through_the_proxy_decides_each_id_once(seed, how):
    async with node_behind_a_proxy(seed) as (node, proxy), AsyncClient(node.target, timeout_s=30.0) as client:
        received = facts.Told("wms", "receipt", ("A", "main"), node.host.engine.now_ms)
        await client.ingest([facts.receipt(received, 10)])
        rounds = 1 if how == STRAND else 4  # a gateway gives a silent link up after four seconds
        for number in range(rounds):
            if how == CUT:
                proxy.cut()
            elif how in (HOLD, STRAND):
                (proxy.hold if how == HOLD else proxy.strand)(BOTH_WAYS)
            else:
                proxy.spoil((TO_HOST, TO_GATEWAY)[number % 2], how)
            calling = client.reserve([("A", "main", 1)], request_id=f"r-{number}", channel_id="web")
            asking = asyncio.create_task(calling)
            if how == HOLD:
                await until(lambda: proxy.holding > 0)
                assert not asking.done()
                proxy.calm()
            assert isinstance(await asking, Reservation)

        assert (await client.availability(("A", "main"), channel_id="web")).available_quantity == 10 - rounds
        assert proxy.spoilt == (rounds if how in (GARBAGE, FLIP, TRUNCATE) else 0)


@asynccontextmanager
async def node_behind_a_proxy(seed: int) -> AsyncIterator[tuple[InProcessNode, LinkProxy]]:
    nodes: list[InProcessNode] = []
    proxy = LinkProxy(lambda: nodes[0].host.port, random.Random(seed))
    await proxy.start()
    fixed = {"grpc_port": 0, "http_port": 0, "gateways": 1, "disk_floor_bytes": 2**20}
    chosen = load_settings(overrides={**fixed, "host_advertise_port": proxy.port}, environment={}).settings
    store = new_memory_store(chosen)
    nodes.append(InProcessNode(chosen, lambda: MemoryJournal(store), "token"))
    await nodes[0].start()
    try:
        yield nodes[0], proxy
    finally:
        await nodes[0].stop()
        proxy.close()


async def test_two_clients_are_two_connections_even_in_one_process(seed):
    async with node_behind_a_proxy(seed) as (node, _):
        front = LinkProxy(lambda: int(node.target.rpartition(":")[2]), random.Random(seed))
        await front.start()
        async with AsyncClient(f"127.0.0.1:{front.port}") as one, AsyncClient(f"127.0.0.1:{front.port}") as other:
            await one.cluster_status()
            await other.cluster_status()

            assert front.connections == 2
        front.close()
