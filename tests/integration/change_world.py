"""A node in one loop and a caller of the change feed, for tests of what goes out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from actors.journal.memory import MemoryJournal, MemoryStore
from actors.runtime.settings import Settings, load_settings
from actors.runtime.wiring import InProcessNode, gateway_config, new_memory_store, start_gateway, start_in_process
from stockade import AsyncClient, Reservation
from stockade.client import facts
from stockade.v1 import change_feed_service_pb2 as pb
from stockade.v1 import change_feed_service_pb2_grpc

PATIENCE_S = 10.0


def settings(**overrides: object) -> Settings:
    fixed = {"grpc_port": 0, "http_port": 0, "gateways": 1, "disk_floor_bytes": 2**20, "ballast_bytes": 2**20}
    return load_settings(overrides={**fixed, **overrides}, environment={}).settings


class ChangeWorld:
    """A node, its client, and readers of its changes."""

    def __init__(self, node: InProcessNode, store: MemoryStore | None = None) -> None:
        self.node = node
        self._store = store
        self.client = AsyncClient(node.target, channel_id="web")
        self.channel = grpc.aio.insecure_channel(node.target, options=[("grpc.max_receive_message_length", 2**26)])
        self.feed = change_feed_service_pb2_grpc.ChangeFeedServiceStub(self.channel)
        self._events = 0

    async def receive(self, sku: str, quantity: int, warehouse_id: str = "main") -> None:
        """Units come in."""
        self._events += 1
        told = facts.Told("wms", f"e{self._events}", (sku, warehouse_id), time.time_ns() // 1_000_000)
        (result,) = await self.client.ingest([facts.receipt(told, quantity)])
        assert result.outcome == "APPLIED", result

    async def reserve(self, sku: str, quantity: int = 1, **options: Any) -> Any:
        """A granted reservation."""
        reservation = await self.client.reserve([(sku, "main", quantity)], **options)
        assert isinstance(reservation, Reservation), reservation
        return reservation

    def read(self, **request: Any) -> Reader:
        """A stream of changes, with heartbeats often enough for a test."""
        message = pb.ReadChangesRequest(**request)
        message.heartbeat_interval.FromMilliseconds(200)
        return Reader(self.feed.ReadChanges(message))

    def remember_little(self, bytes_max: int) -> None:
        """Host and gateways keep next to nothing of recent changes: readers that are not there at once need the journal."""
        self.node.host._changes.log._bytes_max = bytes_max
        for gateway in self.node.gateways:
            gateway._changes.tails._bytes_max = bytes_max

    def drop_records(self, before_ms: int) -> None:
        """Retention ended for what is older."""
        assert self._store is not None
        for rows in self._store.records.values():
            rows[:] = [row for row in rows if row[0].time_ms >= before_ms]

    async def restart_gateway(self) -> None:
        """The gateway goes, and another one comes at the same port."""
        (gateway,) = self.node.gateways
        await gateway.stop(0.5)
        port = int(self.node.target.rpartition(":")[2])
        config = gateway_config(self.node.settings, self.node._cluster_token, name="gateway-1", grpc_port=port)
        self.node.gateways[0] = successor = await start_gateway(config, self.node.directory)
        async with asyncio.timeout(PATIENCE_S):
            while not successor.ready:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Hang up."""
        await self.client.close()
        await self.channel.close()


class Reader:
    """One stream: keeps what came."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.changes: list[pb.Change] = []
        self.cursor = ""
        self.resync = 0
        self.snapshot_size = 0

    async def message(self) -> pb.ReadChangesResponse:
        """The next message."""
        async with asyncio.timeout(PATIENCE_S):
            message = await self._call.read()
        assert message is not grpc.aio.EOF, "the stream ended"
        self.changes += message.changes
        self.cursor = message.cursor or self.cursor
        self.resync = message.resync
        if message.snapshot:
            self.snapshot_size += len(message.changes)
        return message

    async def until(self, condition: Callable[[Reader], bool]) -> Reader:
        """Read until the condition holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self):
                await self.message()
        return self

    async def caught_up(self) -> Reader:
        """Read until all that was durable just now is here."""
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(2):  # the first may have been composed before the caller's last change
                while not (await self.message()).HasField("as_of_time"):
                    pass
        return self

    async def ended(self) -> grpc.StatusCode:
        """How the stream ends, when it has."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while await self._call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                return error.code()
            return await self._call.code()

    async def ended_soon(self) -> grpc.StatusCode:
        """How the stream ends, or OK when it begins."""
        try:
            await self.message()
        except grpc.aio.AioRpcError as error:
            return error.code()
        self.stop()
        return grpc.StatusCode.OK

    def stop(self) -> Reader:
        """Hang up."""
        self._call.cancel()
        return self

    @property
    def ids(self) -> list[str]:
        """Ids in the order in which they came."""
        return [change.change_id for change in self.changes]

    def latest(self) -> dict[tuple[str, str], int]:
        """(sku, warehouse) → the value with the highest position."""
        best: dict[tuple[str, str], tuple[int, int]] = {}
        for change in self.changes:
            if change.WhichOneof("change") == "availability":
                said = change.availability
                key = (said.stock_key.sku, said.stock_key.warehouse_id)
                best[key] = max(best.get(key, (-1, 0)), (said.seen_sequence, said.available_quantity))
        return {key: quantity for key, (_, quantity) in best.items()}

    def reservations(self) -> list[str]:
        """What happened to reservations, in order."""
        return [
            pb.ReservationChangeKind.Name(change.reservation.kind).removeprefix("RESERVATION_CHANGE_KIND_")
            for change in self.changes
            if change.WhichOneof("change") == "reservation"
        ]


@asynccontextmanager
async def change_world(**overrides: object) -> AsyncIterator[ChangeWorld]:
    """A world whose journal survives its host (``node.stop_host``, ``node.start_host``)."""
    chosen = settings(**overrides)
    store = new_memory_store(chosen)
    node = await start_in_process(chosen, lambda: MemoryJournal(store))
    world = ChangeWorld(node, store)
    try:
        yield world
    finally:
        await world.close()
        await node.stop()
