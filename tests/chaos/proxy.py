"""A TCP proxy between gateways and shard host that spoils what passes. It knows bytes, not frames.

Weather lasts until it is changed (``hold``, ``strand``, ``delay_ms``, ``refusing``); a spoiler strikes once, the next bytes of a
direction, and ends that connection or leaves it to the two sides to notice. What is held is delivered late, not lost, as
TCP would: a request that its gateway gave up long ago still reaches the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable

from tests.chaos.schedule import BOTH_WAYS, FLIP, GARBAGE, TO_GATEWAY, TO_HOST, TRUNCATE

READ_BYTES_MAX = 64 * 1024
GARBAGE_BYTES_MAX = 4_096
CONNECT_WITHIN_S = 2.0


def directions(which: str) -> tuple[str, ...]:
    """The two directions, or one."""
    return (TO_HOST, TO_GATEWAY) if which == BOTH_WAYS else (which,)


class Gates:
    """Whether bytes of one connection get through, by direction."""

    def __init__(self) -> None:
        self.of = {TO_HOST: asyncio.Event(), TO_GATEWAY: asyncio.Event()}
        self.open()

    def open(self) -> None:
        for gate in self.of.values():
            gate.set()

    def close(self, which: Iterable[str]) -> None:
        for direction in which:
            self.of[direction].clear()


class LinkProxy:
    """Listens on ``port``. ``upstream()``: the host's own port now, None while there is none."""

    def __init__(self, upstream: Callable[[], int | None], draw: random.Random) -> None:
        self.port = 0
        self.delay_ms = 0
        self.refusing = False
        self.connections = 0  # made so far
        self.spoilt = 0  # times a spoiler struck
        self.holding = 0  # pieces that wait for fair weather now
        self._upstream = upstream
        self._draw = draw
        self._holding: tuple[str, ...] = ()  # directions in which new connections are held
        self._gates: set[Gates] = set()  # of the connections there are
        self._spoilers: dict[str, str] = {}  # direction → what happens to the next bytes
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening, reset everything."""
        self.calm()
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self, which: str) -> None:
        """Let nothing through in a direction until ``calm``."""
        self._holding = directions(which)
        self.strand(which)

    def strand(self, which: str) -> None:
        """The same for the connections that there are; whoever connects anew gets through."""
        for gates in self._gates:
            gates.close(directions(which))

    def spoil(self, which: str, how: str) -> None:
        """GARBAGE, FLIP or TRUNCATE for the next bytes in a direction."""
        for direction in directions(which):
            self._spoilers[direction] = how

    def calm(self) -> None:
        """Fair weather: what was held goes on, spoilers that met nothing are called off."""
        self.delay_ms, self.refusing = 0, False
        self._spoilers.clear()
        self._holding = ()
        for gates in self._gates:
            gates.open()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a gateway, until either side ends it."""
        port = self._upstream()
        ends, gates = [writer], Gates()
        self._writers.add(writer)
        try:
            if port is None or self.refusing:
                return
            connecting = asyncio.open_connection("127.0.0.1", port)
            host_reader, host_writer = await asyncio.wait_for(connecting, CONNECT_WITHIN_S)
            ends.append(host_writer)
            self._writers.add(host_writer)
            self.connections += 1
            self._gates.add(gates)
            gates.close(self._holding)
            await asyncio.gather(
                self._pump(reader, host_writer, gates, TO_HOST), self._pump(host_reader, writer, gates, TO_GATEWAY)
            )
        except (OSError, TimeoutError):
            return
        finally:
            self._gates.discard(gates)
            for one in ends:
                self._writers.discard(one)
                one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gates: Gates, direction: str
    ) -> None:
        """Until the one side is done; the other is told when it has what came before."""
        gate = gates.of[direction]
        with contextlib.suppress(OSError):
            while chunk := await reader.read(READ_BYTES_MAX):
                self.holding += 1
                await gate.wait()
                self.holding -= 1
                if self.delay_ms:
                    await asyncio.sleep(self.delay_ms / 1000)
                how = self._spoilers.pop(direction, "")
                if how:
                    self.spoilt += 1
                    chunk = self._spoilt(chunk, how)
                writer.write(chunk)
                await writer.drain()
                if how == TRUNCATE:
                    break
        await gate.wait()
        writer.close()

    def _spoilt(self, chunk: bytes, how: str) -> bytes:
        if how == GARBAGE:
            return self._draw.randbytes(self._draw.randint(1, GARBAGE_BYTES_MAX)) + chunk
        place = self._draw.randrange(len(chunk))
        if how == FLIP:
            return chunk[:place] + bytes([chunk[place] ^ 1 << self._draw.randrange(8)]) + chunk[place + 1 :]
        return chunk[:place]
