"""An endpoint that answers as told, over real sockets and real TLS; a change feed in memory; a clock that tests turn."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.webhooks.outbox import Change, Settlement
from gateway.webhooks.source import FeedBegunAnew, Read, SourceUnavailable
from stockade.client.webhooks import verify

SECRET = "a-secret-of-thirty-two-characters"
START_S = 1_700_000_000
WITHIN_S = 20.0
STEP_MS = 20


class TurnedClock:
    """Stands still until somebody turns it."""

    def __init__(self) -> None:
        self._now_ms = 0
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def now_ms(self) -> int:
        return self._now_ms

    def wall_s(self) -> float:
        return START_S + self._now_ms / 1000

    async def wait(self, event: asyncio.Event, until_ms: int | None) -> None:
        come = asyncio.Event()
        if until_ms is not None:
            if until_ms <= self._now_ms:
                return
            self._waiting.append((until_ms, come))
        tasks = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(come.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def advance(self, milliseconds: int) -> None:
        self._now_ms += milliseconds
        for until_ms, come in self._waiting:
            if until_ms <= self._now_ms:
                come.set()
        self._waiting = [(until_ms, come) for until_ms, come in self._waiting if not come.is_set()]


class SystemTime:
    """The machine's clock, where nothing is turned."""

    def now_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall_s(self) -> float:
        return time.time()


async def until(reached: Callable[[], bool], clock: TurnedClock | None = None) -> None:
    """Wait for a condition, turning the clock meanwhile."""
    async with asyncio.timeout(WITHIN_S):
        while not reached():
            await asyncio.sleep(0.001)
            if clock is not None:
                clock.advance(STEP_MS)


@dataclass
class Request:
    """What reached the endpoint, and when by the turned clock."""

    headers: dict[str, str]
    body: bytes
    at_ms: int

    @property
    def events(self) -> list[dict[str, Any]]:
        return json.loads(self.body)

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]


Answer = Callable[[asyncio.StreamWriter, Request], Awaitable[None]]


def say(status: int, body: bytes = b"", **headers: str) -> Answer:
    """An ordinary answer."""

    async def answer(writer: asyncio.StreamWriter, _request: Request) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in {"content-length": str(len(body)), **named}.items()]
        writer.write("\r\n".join([f"HTTP/1.1 {status} As told", *lines, "", ""]).encode() + body)
        await writer.drain()

    return answer


async def drop(writer: asyncio.StreamWriter, _request: Request) -> None:
    """The connection breaks before an answer."""
    writer.transport.abort()


async def drop_in_the_head(writer: asyncio.StreamWriter, _request: Request) -> None:
    writer.write(b"HTTP/1.1 20")
    await writer.drain()
    writer.transport.abort()


async def never(_writer: asyncio.StreamWriter, _request: Request) -> None:
    """No answer as long as somebody waits for one."""
    await asyncio.Event().wait()


def endless(status: int) -> Answer:
    """A body without an end."""

    async def answer(writer: asyncio.StreamWriter, _request: Request) -> None:
        writer.write(f"HTTP/1.1 {status} As told\r\ncontent-type: text/plain\r\n\r\n".encode())
        while not writer.is_closing():
            writer.write(b"x" * 65_536)
            await writer.drain()

    return answer


async def endless_head(writer: asyncio.StreamWriter, _request: Request) -> None:
    """One line of a head without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\nx: ")
    while not writer.is_closing():
        writer.write(b"x" * 65_536)
        await writer.drain()


async def no_http(writer: asyncio.StreamWriter, _request: Request) -> None:
    writer.write(b"220 mail.example ESMTP\r\n\r\n")
    await writer.drain()


@dataclass
class Endpoint:
    """Answers requests with ``answers`` in turn, then with ``otherwise``; keeps what it was sent."""

    clock: TurnedClock | SystemTime
    otherwise: Answer = field(default_factory=lambda: say(204))
    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    @property
    def ids(self) -> list[str]:
        """Of all events it was sent, in their order."""
        return [one for request in self.requests for one in request.ids]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while True:
                request = await self._read(reader)
                self.requests.append(request)
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                try:
                    await (self.answers.pop(0) if self.answers else self.otherwise)(writer, request)
                finally:
                    self.under_way -= 1
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        pairs = (line.partition(":") for line in head.split("\r\n")[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        verify(headers, body, [SECRET], self.clock.wall_s())
        return Request(headers, body, self.clock.now_ms())


class FeedInMemory:
    """A change feed and one consumer's place in it; the cursor is a number of changes, as text."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.acknowledged = 0
        self.rejections: dict[str, str] = {}
        self.errors: list[str] = []
        self.break_reads = 0  # so many reads and acknowledgements fail first
        self.break_acknowledgements = 0
        self.anew: FeedBegunAnew | None = None
        self.acknowledgements = 0
        self._more = asyncio.Event()

    def add(self, count: int, key: Callable[[int], str] = lambda number: f"key-{number}") -> None:
        first = len(self.changes)
        for number in range(first, first + count):
            event = {"specversion": "1.0", "id": f"c-{number}", "source": "/t", "type": "test", "key": key(number)}
            self.changes.append(Change(f"c-{number}", key(number), json.dumps(event).encode()))
        self.wake()

    def wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def read(self, cursor: str) -> AsyncIterator[Read]:
        place = int(cursor) if cursor else self.acknowledged
        while True:
            if self.break_reads:
                self.break_reads -= 1
                raise SourceUnavailable("no gateway")
            if self.anew is not None:
                anew, self.anew = self.anew, None
                raise anew
            more = self._more
            if place < len(self.changes):
                some = tuple(self.changes[place : place + 7])
                place += len(some)
                yield Read(some, str(place))
            else:
                await more.wait()

    async def acknowledge(self, settlement: Settlement) -> None:
        if self.break_acknowledgements:
            self.break_acknowledgements -= 1
            raise SourceUnavailable("no gateway")
        self.acknowledgements += 1
        self.rejections.update(settlement.rejections)
        self.errors.append(settlement.error)
        if settlement.cursor:
            assert int(settlement.cursor) >= self.acknowledged
            self.acknowledged = int(settlement.cursor)


def make_certificate(folder: Path, name: str = "localhost", *, days: int = 36_500) -> ssl.SSLContext:
    """A server's TLS with a certificate that signs itself, in ``certificate.pem`` of the folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    began = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + datetime.timedelta(days=days))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
