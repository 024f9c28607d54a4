"""ChangeFeedService: changes from a cursor on, and where the consumers of them stand."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason
from actors.shard.messages import ANY_SHARD
from gateway.access import Principal
from gateway.changes.reader import Batch, ChangeReader, from_oldest
from gateway.changes.rows import AVAILABILITY, RowFilter, encoded_snapshot
from gateway.config import CHANGE_STREAMS_MAX
from gateway.errors import CallFailed, Violation, invalid
from gateway.rpc import Rpc
from gateway.servicers.desk import Desk, check
from gateway.streams import Stream
from gateway.translate.answers import timestamp
from gateway.translate.changes import (
    ChangeRequests,
    Reading,
    acknowledged_cursor,
    consumer_message,
    require_channels,
)
from gateway.validation import Findings
from stockade.v1 import change_feed_service_pb2 as pb

SNAPSHOT_PAGE = 500


class ChangeFeedService:
    """See ``protos/stockade/v1/change_feed_service.proto``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = ChangeRequests(desk.names)
        self._connected: Counter[str] = Counter()  # streams by consumer
        self._streams = 0

    async def ReadChanges(self, request: pb.ReadChangesRequest, stream: Stream, rpc: Rpc) -> None:
        self._desk.open()
        findings = Findings()
        reading = self._requests.read(request, findings)
        check(findings)
        require_channels(reading.row_filter, rpc.principal)
        consumer_id = request.consumer_id
        if consumer_id:
            self._require_consumer(consumer_id, rpc.principal)
        with self._desk.changes.used():
            await self._desk.changes_ready()
            if self._streams >= CHANGE_STREAMS_MAX:
                raise CallFailed(ErrorReason.OVERLOADED, "too many streams of changes", retry_after_ms=1_000)
            if consumer_id:
                reading = await self._attach(reading, consumer_id, rpc, prefer_acknowledged=request.prefer_acknowledged)
                self._connected[consumer_id] += 1
            self._streams += 1
            self._desk.changes.readers += 1
            try:
                await _Delivery(self._desk, stream, reading, rpc).run()
            finally:
                self._streams -= 1
                self._desk.changes.readers -= 1
                if consumer_id:
                    self._connected[consumer_id] -= 1

    async def AcknowledgeChanges(
        self, request: pb.AcknowledgeChangesRequest, rpc: Rpc
    ) -> pb.AcknowledgeChangesResponse:
        self._desk.open()
        findings = Findings()
        item = self._requests.acknowledge(request, rpc.cause, findings)
        check(findings)
        self._require_consumer(request.consumer_id, rpc.principal)
        reply = await self._desk.change(item, rpc, request.ByteSize())
        view, exception_ids = reply[2][:2]
        return pb.AcknowledgeChangesResponse(consumer=self._consumer(view), exception_ids=exception_ids)

    async def ListConsumers(self, _request: pb.ListConsumersRequest, rpc: Rpc) -> pb.ListConsumersResponse:
        self._desk.open()
        rpc.principal.require_operator()
        found: dict[str, pb.Consumer] = {
            consumer_id: pb.Consumer(consumer_id=consumer_id, connected_streams=self._connected[consumer_id])
            for consumer_id in self._desk.config.consumers
        }
        for host_id in self._desk.hosts.host_ids():
            item = [int(Verb.LIST_CONSUMERS), ANY_SHARD, 0, 1, rpc.cause, []]
            (page,) = await self._desk.read([item], rpc, 64, host_id=host_id)
            found.update((view[0], self._consumer(view)) for view in page[0])
        return pb.ListConsumersResponse(consumers=[found[consumer_id] for consumer_id in sorted(found)])

    def _require_consumer(self, consumer_id: str, principal: Principal) -> None:
        """Raises CallFailed unless the caller may read and acknowledge as that consumer."""
        owner = self._desk.config.consumers.get(consumer_id)
        if owner is None:
            raise invalid([Violation("consumer_id", f"{consumer_id!r} is not declared in the settings")])
        if not (principal.operator or (owner and owner == principal.name)):
            raise CallFailed(
                ErrorReason.PERMISSION_DENIED, f"{principal.name} may not read changes as consumer {consumer_id!r}"
            )

    def _consumer(self, view: Sequence[Any]) -> pb.Consumer:
        return consumer_message(view, self._connected[view[0]])

    async def _attach(self, reading: Reading, consumer_id: str, rpc: Rpc, *, prefer_acknowledged: bool) -> Reading:
        """Where to begin, when the caller leaves it to what the consumer acknowledged."""
        item = self._requests.attach(consumer_id, rpc.cause)
        (view,) = await self._desk.ask_now([item])
        if reading.start and not prefer_acknowledged:
            return reading
        acknowledged = acknowledged_cursor(view)
        return reading._replace(start="cursor", cursor=acknowledged) if acknowledged is not None else reading


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
        try:
            while not self._desk.closing.is_set():
                batch = await reader.next(reading.count_max, heartbeat_s)
                await self._deliver(batch, reader)
                if batch.resync:
                    return
                if self._rpc_over():
                    raise CallFailed(ErrorReason.DEADLINE_EXCEEDED)
        finally:
            reader.close()
        raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, "the gateway stops: go on from your cursor", retry_after_ms=100)

    def _rpc_over(self) -> bool:
        remaining = self._rpc.remaining_ms
        return remaining is not None and asyncio.get_running_loop().time() * 1000 > self._rpc.now + remaining

    def _reader(self) -> ChangeReader:
        reading, hub = self._reading, self._hub
        if reading.cursor is not None:
            places = {shard: reading.cursor.sequences.get(shard, 0) for shard in hub.shards}
            return ChangeReader(hub, reading.cursor.timeline, places, reading.row_filter, reading.cursor.time_ms)
        if not hub.ready:  # it began anew while the consumer was looked up
            raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, "the change feed is not followed now", retry_after_ms=100)
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
                first = start
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
                    batch.add(encoded_snapshot(self._hub.timeline, shard, rows, first), len(rows))
                    yield batch
                if not start:
                    break
