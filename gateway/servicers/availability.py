"""AvailabilityService: what may be promised now, answered by the stock actors themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.outcomes import ErrorReason
from gateway.changes.view import Entry
from gateway.changes.watching import WatchBoard
from gateway.config import WATCH_STREAMS_MAX
from gateway.errors import CallFailed
from gateway.rpc import Rpc
from gateway.servicers.desk import Desk, check
from gateway.servicers.watch import WatchStream
from gateway.streams import Stream
from gateway.translate import answers
from gateway.translate.changes import cursor, heartbeat_ms
from gateway.translate.stock import StockRequests
from gateway.validation import Findings
from stockade.v1 import availability_service_pb2 as pb

STALENESS_MS_MAX = 3_600_000  # an hour: beyond it a caller wants no answer but any


class AvailabilityService:
    """See ``protos/stockade/v1/availability_service.proto``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = StockRequests(desk.names)
        self._board = WatchBoard(desk.changes)

    async def GetAvailability(self, request: pb.GetAvailabilityRequest, rpc: Rpc) -> pb.GetAvailabilityResponse:
        self._desk.open()
        findings = Findings()
        item = self._requests.availability_of_one(request.stock_key, request.channel_id, rpc.cause, findings)
        staleness_ms = 0
        if request.HasField("max_staleness"):
            staleness_ms = findings.duration_ms("max_staleness", request.max_staleness, 0, STALENESS_MS_MAX)
        check(findings)
        rpc.principal.require_channel(request.channel_id)
        key = item[5][1][0]
        if not request.HasField("max_staleness"):
            return await self._from_actor(request, item, rpc)
        found = self._desk.view.find(key, staleness_ms)
        if found is not None:
            return self._from_view(request, *found)
        expected = self._desk.view.expect(key, item[1])
        response = await self._from_actor(request, item, rpc)
        said = response.availability
        self._desk.view.answered(
            key,
            expected,
            available=said.available_quantity,
            known=said.known,
            stale=said.stale,
            seen=said.position.sequence,
        )
        return response

    async def _from_actor(
        self, request: pb.GetAvailabilityRequest, item: Sequence[Any], rpc: Rpc
    ) -> pb.GetAvailabilityResponse:
        ((views, place),) = await self._desk.read([list(item)], rpc, request.ByteSize())
        available, known, stale = views[0][:3]
        return pb.GetAvailabilityResponse(
            availability=pb.Availability(
                stock_key=request.stock_key,
                channel_id=request.channel_id,
                available_quantity=available,
                known=known,
                stale=stale,
                position=answers.position(self._desk.hosts.timeline, place),
                answered_by=pb.ANSWERED_BY_STOCK_ACTOR,
            ),
            answered_by=pb.ANSWERED_BY_STOCK_ACTOR,
            as_of_time=answers.timestamp(place[3]),
        )

    def _from_view(self, request: pb.GetAvailabilityRequest, entry: Entry, as_of_ms: int) -> pb.GetAvailabilityResponse:
        hub = self._desk.changes
        place = (entry.shard, hub.epochs.get(entry.shard, 0), entry.seen, as_of_ms)
        return pb.GetAvailabilityResponse(
            availability=pb.Availability(
                stock_key=request.stock_key,
                channel_id=request.channel_id,
                available_quantity=entry.available,
                known=entry.known,
                stale=entry.stale,
                position=answers.position(hub.timeline, place),
                answered_by=pb.ANSWERED_BY_GATEWAY_VIEW,
            ),
            answered_by=pb.ANSWERED_BY_GATEWAY_VIEW,
            as_of_time=answers.timestamp(as_of_ms),
        )

    async def BatchGetAvailability(
        self, request: pb.BatchGetAvailabilityRequest, rpc: Rpc
    ) -> pb.BatchGetAvailabilityResponse:
        self._desk.open()
        findings = Findings()
        stock_keys, channel_id = request.stock_keys, request.channel_id
        self._requests.key_count(len(stock_keys), findings)
        check(findings)
        items, slots_of_items = self._requests.availability(stock_keys, channel_id, rpc.cause, findings)
        check(findings)
        rpc.principal.require_channel(channel_id)
        payloads = await self._desk.read(items, rpc, request.ByteSize())
        timeline = self._desk.hosts.timeline
        answered: list[tuple[int, bool, bool, Any]] = [(0, False, False, None)] * len(stock_keys)
        for slots, (views, place) in zip(slots_of_items, payloads, strict=True):
            position = answers.position(timeline, place)
            for slot, view in zip(slots, views, strict=True):
                answered[slot] = (view[0], view[1], view[2], position)
        response = pb.BatchGetAvailabilityResponse()
        add = response.availabilities.add
        for stock_key, (available, known, stale, position) in zip(stock_keys, answered, strict=True):
            add(
                stock_key=stock_key,
                channel_id=channel_id,
                available_quantity=available,
                known=known,
                stale=stale,
                position=position,
                answered_by=pb.ANSWERED_BY_STOCK_ACTOR,
            )
        return response

    async def WatchAvailability(self, request: pb.WatchAvailabilityRequest, stream: Stream, rpc: Rpc) -> None:
        self._desk.open()
        findings = Findings()
        shard_of = self._requests.watched(request, findings)
        interval = request.heartbeat_interval if request.HasField("heartbeat_interval") else None
        beat_ms = heartbeat_ms("heartbeat_interval", interval, 1_000, findings)
        place = cursor("cursor", request.cursor, findings) if request.cursor else None
        check(findings)
        rpc.principal.require_channel(request.channel_id)
        if self._board.count >= WATCH_STREAMS_MAX:
            raise CallFailed(ErrorReason.OVERLOADED, "too many watches of availability", retry_after_ms=1_000)
        with self._desk.changes.used():
            await self._desk.changes_ready()
            watch = WatchStream(
                self._desk,
                self._board,
                stream,
                shard_of=shard_of,
                warehouse_id=request.warehouse_id,
                channel_id=request.channel_id,
                heartbeat_s=beat_ms / 1000,
                cause=rpc.cause,
            )
            await watch.run(place)

    async def ExplainAvailability(
        self, request: pb.ExplainAvailabilityRequest, rpc: Rpc
    ) -> pb.ExplainAvailabilityResponse:
        self._desk.open()
        findings = Findings()
        item = self._requests.explain(request, rpc.cause, findings)
        check(findings)
        rpc.principal.require_channel(request.channel_id)
        (view,) = await self._desk.read([item], rpc, request.ByteSize())
        return pb.ExplainAvailabilityResponse(explanation=answers.explanation(self._desk.hosts.timeline, view))
