"""A gateway with real sockets on both sides: a real gRPC client before it, a small host speaking frames behind it.

The host decides by a table of functions that a test may change; by default it grants every reserve. It keeps no stock:
what shards decide is tested elsewhere, here it is what the gateway makes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from actors.domain.answers import OK, Granted
from actors.domain.commands import Verb
from actors.domain.keys import reservation_id
from actors.shard import frames
from actors.shard.directory import HostRoute, Routes
from actors.shard.messages import FrameKind
from gateway.config import ChannelConfig, GatewayConfig, WarehouseConfig
from gateway.server import RunningGateway, start_gateway

TOKEN = "the cluster's token"
CLUSTER = "test-cluster"
TIMELINE = "tl1"
SHARDS = 64

Decide = Callable[[Sequence[Any]], Any]  # an item → its reply; None: never answer the frame


def config(**settings: Any) -> GatewayConfig:
    """Two channels, two warehouses, free ports."""
    defaults: dict[str, Any] = {
        "cluster_token": TOKEN,
        "channels": {"web": ChannelConfig(), "edi": ChannelConfig(may_impose=True)},
        "warehouses": {"main": WarehouseConfig(), "overflow": WarehouseConfig()},
        "so_reuseport": False,
    }
    return GatewayConfig(**(defaults | settings))


class FakeHost:
    """A shard host that believes every frame. ``seen``: the items that came, in order."""

    def __init__(self, host_id: str = "host-a", shards: Sequence[int] = range(SHARDS)) -> None:
        self.host_id = host_id
        self.shards = tuple(shards)
        self.seen: list[Sequence[Any]] = []
        self.frames = 0
        self.decide: Decide = grant
        self.delay_s = 0.0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> HostRoute:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**24)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.route

    @property
    def route(self) -> HostRoute:
        return HostRoute(self.host_id, f"127.0.0.1:{self.port}", 1, self.shards, (1,) * len(self.shards))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection, as a killed process does."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        decoder = frames.FrameDecoder()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**18):
                for message in decoder.feed(data):
                    await self._answer(message, writer)
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, message: Sequence[Any], writer: asyncio.StreamWriter) -> None:
        now_ms = int(time.time() * 1000)
        if message[0] == FrameKind.HELLO:
            frames.read_hello(message, cluster_id=CLUSTER, token=TOKEN)
            writer.write(
                frames.welcome(
                    cluster_id=CLUSTER,
                    timeline=TIMELINE,
                    host_id=self.host_id,
                    host_time_ms=now_ms,
                    shards=self.shards,
                    epochs=(1,) * len(self.shards),
                )
            )
            return
        self.frames += 1
        self.seen.extend(message[2])
        replies = [self.decide(item) for item in message[2]]
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if None not in replies:
            writer.write(frames.encode_reply(message[1], now_ms, replies))


def grant(item: Sequence[Any]) -> Any:
    """A yes to any reserve; an empty payload to anything else."""
    if item[0] != Verb.RESERVE:
        return (OK, False, [])
    now_ms = int(time.time() * 1000)
    made = reservation_id(TIMELINE, item[1], 1)
    return (OK, False, Granted(made, 1, 1, now_ms, now_ms + item[5][4], (item[1], 1, 7, now_ms), None, ()))


class FakeDirectory:
    """The directory's long poll. ``set`` publishes a new map."""

    def __init__(self, *hosts: HostRoute) -> None:
        self._changed = asyncio.Event()
        self.away = False
        self.map = Routes(1, CLUSTER, TIMELINE, SHARDS, hosts)

    def set(self, *hosts: HostRoute) -> None:
        self.map = Routes(self.map.version + 1, CLUSTER, TIMELINE, SHARDS, hosts)
        self._changed.set()
        self._changed = asyncio.Event()

    async def routes(self, after_version: int) -> Routes:
        changed = self._changed
        if after_version == self.map.version:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), 1.0)
        if self.away:
            raise ConnectionError("the directory is away")
        return self.map


class World:
    """A running gateway, the fake hosts behind it (none, when a real one is), and a client's channel."""

    def __init__(self, gateway: RunningGateway, hosts: list[FakeHost], directory: FakeDirectory) -> None:
        self.gateway = gateway
        self.hosts = hosts
        self.directory = directory
        self.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{gateway.port}", options=[("grpc.max_send_message_length", -1)]
        )

    @property
    def host(self) -> FakeHost:
        return self.hosts[0]

    def method(self, service: str, name: str, response: Any) -> Any:
        """A callable for one method; a request may also be bytes, sent as they are."""
        return self.channel.unary_unary(
            f"/stockade.v1.{service}/{name}",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=response.FromString,
        )

    async def call(self, request: Any, *, timeout: float | None = 5.0, **metadata: str) -> Any:
        """Call the method that takes this kind of request; raises ``AioRpcError``."""
        file = request.DESCRIPTOR.file
        for service in file.services_by_name.values():
            for method in service.methods:
                if method.input_type.name == request.DESCRIPTOR.name:
                    call = self.method(service.name, method.name, GetMessageClass(method.output_type))
                    pairs = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
                    return await call(request, timeout=timeout, metadata=pairs)
        raise AssertionError(f"no method takes {request.DESCRIPTOR.name}")

    async def failure(self, request: Any, *, timeout: float | None = 5.0, **metadata: str) -> Failure:
        """How the call fails; an assertion when it does not."""
        try:
            answer = await self.call(request, timeout=timeout, **metadata)
        except grpc.aio.AioRpcError as error:
            return Failure(error)
        raise AssertionError(f"answered {answer}")

    async def get(self, page: str) -> tuple[int, str]:
        """A page of the probes' port: status and body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.http_port)
        writer.write(f"GET {page} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), body.decode()


class Failure:
    """A failed call, taken apart."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code().name
        self.message = error.details() or ""
        self.trailers = dict(error.trailing_metadata() or ())
        self.reason = self.outcome = ""
        self.fields: list[str] = []
        self.retry_ms = 0
        status = status_pb2.Status.FromString(bytes(self.trailers.get("grpc-status-details-bin", b"")))
        self._read(status)

    def _read(self, status: status_pb2.Status) -> None:
        for packed in status.details:
            if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(packed.value)
                assert not self.reason, "more than one ErrorInfo"
                self.reason, self.outcome = info.reason, info.metadata["outcome"]
            elif packed.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest.FromString(packed.value)
                self.fields = [violation.field for violation in bad.field_violations]
            else:
                self.retry_ms = error_details_pb2.RetryInfo.FromString(packed.value).retry_delay.ToMilliseconds()

    @property
    def what(self) -> tuple[str, str, str]:
        """(code, reason, outcome)."""
        return self.code, self.reason, self.outcome


@contextlib.asynccontextmanager
async def world(*hosts: FakeHost, **settings: Any) -> AsyncIterator[World]:
    """A gateway before fake hosts, once it reaches them; everything is stopped at the end."""
    running = list(hosts) or [FakeHost()]
    directory = FakeDirectory(*[await host.start() for host in running])
    try:
        async with before(directory, running, **settings) as here:
            yield here
    finally:
        for host in running:
            await host.stop()


@contextlib.asynccontextmanager
async def before(directory: FakeDirectory, hosts: Sequence[FakeHost] = (), **settings: Any) -> AsyncIterator[World]:
    """A gateway before whatever hosts the directory knows."""
    gateway = await start_gateway(config(**settings), directory)
    here = World(gateway, list(hosts), directory)
    try:
        await until(lambda: gateway.ready)
        yield here
    finally:
        await here.channel.close()
        await gateway.stop(0)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition, with a bound."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
