"""ChangeFeedService: changes from a cursor on, and where the consumers of them stand."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason
from gateway.changes.reader import Batch, ChangeReader, from_oldest
from gateway.changes.rows import AVAILABILITY, RowFilter, encoded
from gateway.errors import CallFailed
from gateway.rpc import Rpc
from gateway.servicers.desk import Desk, check
from gateway.streams import Stream
from gateway.translate.answers import timestamp
from gateway.translate.changes import ChangeRequests, Reading, require_channels
from gateway.validation import Findings
from stockade.v1 import change_feed_service_pb2 as pb

SNAPSHOT_PAGE = 500


class ChangeFeedService:
    """See ``protos/stockade/v1/change_feed_service.proto``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = ChangeRequests(desk.names)

    async def ReadChanges(self, request: pb.ReadChangesRequest, stream: Stream, rpc: Rpc) -> None:
        self._desk.open()
        findings = Findings()
        reading = self._requests.read(request, findings)
        check(findings)
        require_channels(reading.row_filter, rpc.principal)
        hub = self._desk.changes
        with hub.used():
            await self._desk.changes_ready()
            await _Delivery(self._desk, stream, reading, rpc).run()

    async def AcknowledgeChanges(self, request: Any, rpc: Rpc) -> Any:
        raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, "not yet")

    async def ListConsumers(self, request: Any, rpc: Rpc) -> Any:
        raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, "not yet")


class _Delivery:
    """One stream of changes."""

    def __init__(self, desk: Desk, stream: Stream, reading: Reading, rpc: Rpc) -> None:
        self._desk = desk
        self._hub = desk.changes
        self._stream = stream
        self._reading = reading
        self._rpc = rpc
        self._stream_id = uuid.uuid4().hex
        self._delivered = 0

    async def run(self) -> None:
        """Until the caller goes, the gateway stops, or the reader must begin anew."""
        reading = self._reading
        reader = self._reader()
        if reading.start == "from_snapshot":
            async for batch in self._snapshot(reading.row_filter):
                await self._deliver(batch, reader, snapshot=True)
        heartbeat_s = reading.heartbeat_ms / 1000
        while not self._desk.closing.is_set():
            batch = await reader.next(reading.count_max, heartbeat_s)
            await self._deliver(batch, reader)
            if batch.resync:
                return
            if self._rpc_over():
                raise CallFailed(ErrorReason.DEADLINE_EXCEEDED)
        raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, "the gateway stops: go on from your cursor", retry_after_ms=100)

    def _rpc_over(self) -> bool:
        remaining = self._rpc.remaining_ms
        return remaining is not None and asyncio.get_running_loop().time() * 1000 > self._rpc.now + remaining

    def _reader(self) -> ChangeReader:
        reading, hub = self._reading, self._hub
        if reading.cursor is not None:
            places = {shard: reading.cursor.sequences.get(shard, 0) for shard in hub.shards}
            return ChangeReader(hub, reading.cursor.timeline, places, reading.row_filter, reading.cursor.time_ms)
        if reading.start in ("from_snapshot", "from_now"):
            return ChangeReader(hub, hub.timeline, hub.places(), reading.row_filter, hub.as_of()[1])
        return ChangeReader(hub, hub.timeline, from_oldest(hub.shards), reading.row_filter)

    async def _deliver(self, batch: Batch, reader: ChangeReader, *, snapshot: bool = False) -> None:
        self._delivered += 1
        rest = pb.ReadChangesResponse(
            cursor="" if snapshot else reader.cursor(),
            delivery_id=f"{self._stream_id}-{self._delivered}",
            as_of_time=timestamp(batch.as_of_ms),
            resync=batch.resync,  # type: ignore[arg-type]
            snapshot=snapshot,
        )
        batch.parts.append(rest.SerializeToString())
        await self._stream.write(b"".join(batch.parts))

    async def _snapshot(self, row_filter: RowFilter) -> AsyncIterator[Batch]:
        """The availability of every stock key, by its actor: later than every place that the reader began with."""
        if row_filter.kinds and AVAILABILITY not in row_filter.kinds:
            return
        warehouses = sorted(row_filter.warehouse_ids)
        wanted = warehouses[0] if len(warehouses) == 1 else ""
        for shard in self._hub.shards:
            start = 0
            while True:
                (page,) = await self._desk.ask_now(
                    [
                        [
                            int(Verb.LIST_AVAILABILITY),
                            shard,
                            0,
                            SNAPSHOT_PAGE,
                            self._rpc.cause,
                            [wanted, SNAPSHOT_PAGE, start],
                        ]
                    ]
                )
                items, start, position = page[:3]
                rows: list[Any] = [
                    (AVAILABILITY, position[2], position[3], key, available, stale, position[2])
                    for key, available, stale in items
                ]
                rows = [row for row in rows if row_filter.lets(row)]
                if rows:
                    batch = Batch()
                    batch.add(encoded(self._hub.timeline, shard, rows), len(rows))
                    yield batch
                if not start:
                    break
