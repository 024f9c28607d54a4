"""AvailabilityService: what may be promised now, answered by the stock actors themselves."""

from __future__ import annotations

from typing import Any

from actors.domain.outcomes import ErrorReason
from gateway.errors import CallFailed
from gateway.rpc import Rpc
from gateway.servicers.desk import Desk, check
from gateway.streams import Stream
from gateway.translate import answers
from gateway.translate.stock import StockRequests
from gateway.validation import Findings
from stockade.v1 import availability_service_pb2 as pb


class AvailabilityService:
    """See ``protos/stockade/v1/availability_service.proto``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = StockRequests(desk.names)

    async def GetAvailability(self, request: pb.GetAvailabilityRequest, rpc: Rpc) -> pb.GetAvailabilityResponse:
        self._desk.open()
        findings = Findings()
        item = self._requests.availability_of_one(request.stock_key, request.channel_id, rpc.cause, findings)
        check(findings)
        rpc.principal.require_channel(request.channel_id)
        ((views, place),) = await self._desk.read([item], rpc, request.ByteSize())
        available, known, stale = views[0][:3]
        return pb.GetAvailabilityResponse(
            availability=pb.Availability(
                stock_key=request.stock_key,
                channel_id=request.channel_id,
                available_quantity=available,
                known=known,
                stale=stale,
                position=answers.position(self._desk.hosts.timeline, place),
            )
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
            )
        return response

    async def WatchAvailability(self, request: pb.WatchAvailabilityRequest, stream: Stream, rpc: Rpc) -> None:
        raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, "not yet")

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
