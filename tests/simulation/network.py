"""The network between processes: connections that deliver bytes in order, late, in pieces, twice, or not at all.

A connection is what TCP makes of packets: within it nothing is lost or reordered unless the connection breaks, so a lost
packet is a delay, a cut or a silence. Against what TCP promises, a frame may be doubled: the protocol says that doubled frames do
no harm, and is held to it. Bytes under way when a side gives up may still arrive, after newer ones of the next connection.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation.loop import PROCESS, Process, SimulatedLoop

REQUEST_KIND = 4  # frames that may be doubled: requests and replies, not hellos
KIND_AT = 10  # length, version, checksum, the array's head
FIRST_PORT = 7_000


@dataclass(slots=True)
class NetworkFaults:
    """Rates are chances a write; ``delay_ms``: (least, most) one way."""

    delay_ms: tuple[float, float] = (0.05, 1.0)
    cut: float = 0.0  # both sides hear of it, each in its own time
    silence: float = 0.0  # half-open from here on: nothing arrives, and nobody is told
    double: float = 0.0
    pieces: float = 0.0  # a write arrives in several reads
    late: float = 0.0  # a piece and all behind it wait for a retransmission


class Network:
    """All listeners and connections. ``blocked``: (from, to) names of processes; bytes wait until it is lifted."""

    def __init__(self, loop: SimulatedLoop, draw: random.Random, note: Callable[..., None]) -> None:
        self.loop = loop
        self.draw = draw
        self.faults = NetworkFaults()
        self.note = note
        self.blocked: set[tuple[str, str]] = set()
        self.connections: dict[Connection, None] = {}
        self._listeners: dict[int, tuple[Callable[[], asyncio.Protocol], Process]] = {}
        self._port = FIRST_PORT
        loop.server_factory = self.listen
        loop.connection_factory = self.connect

    def listen(self, protocol_factory: Callable[[], asyncio.Protocol], _host: str, _port: int) -> Listener:
        """A listener of the process that asks."""
        self._port += 1
        self._listeners[self._port] = (protocol_factory, PROCESS.get())
        return Listener(self, self._port)

    def close_listener(self, port: int) -> None:
        self._listeners.pop(port, None)

    async def connect(self, protocol_factory: Callable[[], asyncio.Protocol], _host: str, port: int) -> Any:
        """Connect the process that asks; raises ConnectionRefusedError where nobody listens."""
        caller = PROCESS.get()
        await self.loop.pass_time(self._delay_s())
        while port in self._listeners:
            listening = self._listeners[port][1].name
            if not {(caller.name, listening), (listening, caller.name)} & self.blocked:
                break
            await self.loop.pass_time(0.1)
        found = self._listeners.get(port)
        if found is None:
            raise ConnectionRefusedError(f"nobody listens at {port}")
        factory, process = found
        connection = Connection(self, (caller, protocol_factory()), (process, None))
        self.connections[connection] = None
        ours, theirs = connection.ends
        self.loop.call_soon(theirs.begin, factory, context=process.context)
        ours.protocol.connection_made(ours)  # type: ignore[union-attr]
        return ours, ours.protocol

    def heal(self) -> None:
        """No more faults; half-open connections end, what waited arrives."""
        self.faults = NetworkFaults()
        self.blocked.clear()
        for connection in list(self.connections):
            if connection.silent:
                connection.cut()
        self.unblock()

    def unblock(self) -> None:
        """After ``blocked`` changed: what may travel does."""
        for connection in list(self.connections):
            for end in connection.ends:
                end.flush_held()

    def process_died(self, process: Process, *, told: bool) -> None:
        """Its connections break; ``told``: its kernel says so, else the others must find out."""
        for port in [port for port, (_, owner) in self._listeners.items() if owner is process]:
            del self._listeners[port]
        for connection in list(self.connections):
            for end in connection.ends:
                if end.process is process:
                    if told:
                        connection.cut()
                    else:
                        connection.silent = True

    def cut_some(self, chance: float) -> None:
        """Cut each connection with a chance."""
        for connection in list(self.connections):
            if self.draw.random() < chance:
                connection.cut()

    def _delay_s(self) -> float:
        return self.draw.uniform(*self.faults.delay_ms) / 1000

    def struck(self, chance: float) -> bool:
        return chance > 0 and self.draw.random() < chance


class Listener:
    """What ``create_server`` returns."""

    def __init__(self, network: Network, port: int) -> None:
        self._network = network
        self._port = port
        self.sockets = [self]

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", self._port)

    def close(self) -> None:
        self._network.close_listener(self._port)


class Connection:
    """Two ends. ``silent``: half-open, nothing arrives any more."""

    def __init__(
        self,
        network: Network,
        caller: tuple[Process, asyncio.Protocol | None],
        listener: tuple[Process, asyncio.Protocol | None],
    ) -> None:
        self.network = network
        self.silent = False
        first, second = End(self, *caller), End(self, *listener)
        first.peer, second.peer = second, first
        self.ends = (first, second)

    def cut(self) -> None:
        """Break it; each side hears of it in its own time, and may read before what was already under way."""
        for end in self.ends:
            end.break_off(ConnectionResetError("the connection was cut"))
        self.network.connections.pop(self, None)


class End(asyncio.Transport):
    """One side's transport. Bytes written here are under way to ``peer``."""

    def __init__(self, connection: Connection, process: Process, protocol: asyncio.Protocol | None) -> None:
        super().__init__()
        self.connection = connection
        self.process = process
        self.protocol = protocol
        self.peer: End
        self._network = connection.network
        self._closing = False
        self._lost = False
        self._paused = False
        self._under_way = 0
        self._arrive_s = 0.0
        self._held: deque[bytes] = deque()  # arrived, but the way is blocked or reading is paused

    # --- what protocols ask -------------------------------------------------------------------------------------------

    def begin(self, factory: Callable[[], asyncio.Protocol]) -> None:
        self.protocol = factory()
        self.protocol.connection_made(self)
        self.flush_held()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _Options() if name == "socket" else default

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return self._under_way

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._network.loop.call_soon(self.flush_held, context=self.process.context)

    def write(self, data: Any) -> None:
        if self._closing or not self.process.alive:
            return
        network, faults = self._network, self._network.faults
        if network.struck(faults.cut):
            network.note("cut", self.process.name, self.peer.process.name)
            self.connection.cut()
            return
        if network.struck(faults.silence):
            network.note("silence", self.process.name, self.peer.process.name)
            self.connection.silent = True
        self._send(bytes(data))
        if len(data) > KIND_AT and data[KIND_AT] >= REQUEST_KIND and network.struck(faults.double):
            network.note("double", self.process.name, self.peer.process.name)
            network.loop.call_later(network.draw.choice((0, 0.001, 0.05, 0.5)), self._send, bytes(data))

    def close(self) -> None:
        if not self._closing and self.process.alive:
            self._closing = True
            self._network.loop.call_soon(self._lose, None, context=self.process.context)
            self.peer.hear_end(self._arrival_s(), None)

    def abort(self) -> None:
        if not self._closing and self.process.alive:
            self._closing = True
            self._network.loop.call_soon(self._lose, None, context=self.process.context)
            self.peer.hear_end(self._arrival_s(), ConnectionResetError("the other side gave up"))

    # --- under way ----------------------------------------------------------------------------------------------------

    def _arrival_s(self) -> float:
        network = self._network
        delay_s = network._delay_s()
        if network.struck(network.faults.late):
            delay_s += network.draw.choice((0.2, 0.4, 1.0))
        self._arrive_s = max(self._arrive_s, network.loop.time() + delay_s)
        return self._arrive_s

    def _send(self, data: bytes) -> None:
        network = self._network
        if self._closing or self.connection.silent:
            return
        pieces = [data]
        if network.struck(network.faults.pieces):
            at = network.draw.randrange(len(data))
            pieces = [piece for piece in (data[:at], data[at:]) if piece]
        for piece in pieces:
            self._under_way += len(piece)
            peer = self.peer
            network.loop.call_at(self._arrival_s(), peer.arrive, piece, context=peer.process.context)

    def arrive(self, data: bytes) -> None:
        """In this end's process."""
        self.peer._under_way -= len(data)
        if not self._lost and not self.connection.silent:
            self._held.append(data)
            self.flush_held()

    def flush_held(self) -> None:
        """Give the protocol what it may have."""
        if (self.peer.process.name, self.process.name) in self._network.blocked:
            return
        while self._held and not self._paused and not self._lost and self.protocol is not None:
            self.protocol.data_received(self._held.popleft())

    def hear_end(self, at_s: float, error: Exception | None) -> None:
        """The other side closed: heard behind what it wrote before."""
        if not self.connection.silent:
            self._network.loop.call_at(at_s, self._lose, error, context=self.process.context)

    def break_off(self, error: Exception) -> None:
        """The connection was cut."""
        network = self._network
        if network.draw.random() < 0.5:
            self._held.clear()
            delay_s = 0.0
        else:
            delay_s = network.draw.choice((0.0, 0.01, 0.3))
        network.loop.call_later(delay_s, self._lose, error, context=self.process.context)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._network.connections.pop(self.connection, None)
            if self.protocol is not None:
                self.protocol.connection_lost(error)


class _Options:
    """Stands for a socket whose options nobody reads."""

    def setsockopt(self, *_: Any) -> None:
        return None
