"""WarehouseEventService: facts as the warehouses tell them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from actors.domain.answers import OK
from actors.domain.commands import Verb
from gateway.config import EVENTS_PER_CALL_MAX, PAGE_SIZE_MAX, STREAM_EVENTS_MAX
from gateway.errors import CallFailed, failure_of, invalid, status_of
from gateway.rpc import Rpc
from gateway.servicers.desk import FAILED, Desk, check, failed_check, with_failures
from gateway.servicers.event_stream import EventStream
from gateway.servicers.ingestion import Ingestion
from gateway.streams import Stream
from gateway.translate.feeds import feed_filters, feed_status, fill_heartbeat, heartbeat_item
from gateway.validation import Findings
from stockade.v1 import warehouse_event_service_pb2 as pb

INGEST_RESULTS = pb.IngestEventsResponse.RESULTS_FIELD_NUMBER
STREAM_RESULTS = pb.StreamEventsResponse.RESULTS_FIELD_NUMBER


class WarehouseEventService:
    """See ``protos/stockade/v1/warehouse_event_service.proto``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._ingestion = Ingestion(desk)
        self._clock = asyncio.get_running_loop().time

    async def IngestEvents(self, request: pb.IngestEventsRequest, rpc: Rpc) -> bytes:
        self._desk.open()
        findings, size = Findings(), request.ByteSize()
        findings.size("events", len(request.events), 1, EVENTS_PER_CALL_MAX, "events")
        check(findings)
        response, _ = await self._ingestion.ingest(request.events, size, rpc, INGEST_RESULTS)
        return response

    async def StreamEvents(self, stream: Stream, rpc: Rpc) -> None:
        self._desk.open()
        opening = _opening(await stream.read())
        rpc.principal.require_source(opening.source_id)
        await stream.write(pb.StreamEventsResponse(opened=await self._opened(opening, rpc)))

        async def ingest(events: Sequence[pb.WarehouseEvent], size: int) -> bytes:
            now_ms = int(self._clock() * 1000)
            results, watermark = await self._ingestion.ingest(events, size, rpc.at(now_ms), STREAM_RESULTS, opening)
            return results + pb.StreamEventsResponse(watermark=watermark).SerializeToString()

        await EventStream(stream, ingest, _check_message, self._desk.closing).run()

    async def SendHeartbeats(self, request: pb.SendHeartbeatsRequest, rpc: Rpc) -> pb.SendHeartbeatsResponse:
        desk = self._desk
        desk.open()
        findings, size = Findings(), request.ByteSize()
        findings.size("heartbeats", len(request.heartbeats), 1, EVENTS_PER_CALL_MAX, "heartbeats")
        check(findings)
        items = []
        failed: dict[int, CallFailed] = {}
        for index, beat in enumerate(request.heartbeats):
            found = Findings()
            try:
                rpc.principal.require_source(beat.source_id)
            except CallFailed as failure:
                failed[index] = failure
                continue
            item = heartbeat_item(beat, desk.names, rpc.cause, found)
            if found:
                failed[index] = failed_check(found, f"heartbeats[{index}].")
            else:
                items.append(item)
        response = pb.SendHeartbeatsResponse()
        for reply in with_failures(await desk.change_many(items, rpc, size), failed):
            result = response.results.add()
            if reply[0] == OK:
                fill_heartbeat(result, reply[2])
            else:
                result.error.CopyFrom(status_of(reply[1] if reply[0] == FAILED else failure_of(reply)))
        return response

    async def GetFeedStatus(self, request: pb.GetFeedStatusRequest, rpc: Rpc) -> pb.GetFeedStatusResponse:
        self._desk.open()
        findings = Findings()
        filters, page_size = feed_filters(request, findings)
        if request.source_id:
            rpc.principal.require_source(request.source_id)
        else:
            rpc.principal.require_operator()
        views, token = await self._desk.page(
            Verb.GET_FEED_STATUS,
            rpc,
            filters=filters,
            page_size=page_size,
            page_token=request.page_token,
            findings=findings,
        )
        return pb.GetFeedStatusResponse(feeds=[feed_status(view) for view in views], next_page_token=token)

    async def _opened(self, opening: pb.StreamOpening, rpc: Rpc) -> pb.StreamOpened:
        """How far the stream has come. Without a stream id the source's other streams are found as well: few."""
        opened = pb.StreamOpened(unacknowledged_events_max=STREAM_EVENTS_MAX)
        token = ""
        while True:
            views, token = await self._desk.page(
                Verb.GET_FEED_STATUS,
                rpc,
                filters=[opening.source_id, opening.stream_id, ""],
                page_size=PAGE_SIZE_MAX,
                page_token=token,
                findings=Findings(),
            )
            for _, stream_id, watermark, highest, *_ in views:
                if stream_id == opening.stream_id:
                    opened.watermark, opened.highest_sequence = watermark, highest
            if not token:
                return opened


def _opening(message: pb.StreamEventsRequest | None) -> pb.StreamOpening:
    findings = Findings()
    if message is None or not message.HasField("opening"):
        findings.add("opening", "is required in the first message of a stream")
        raise invalid(findings)
    findings.id("opening.source_id", message.opening.source_id)
    findings.optional_id("opening.stream_id", message.opening.stream_id)
    if message.events:
        findings.add("events", "must wait for the answer to the opening, which says where to go on")
    check(findings)
    return message.opening


def _check_message(message: pb.StreamEventsRequest) -> None:
    findings = Findings()
    if message.HasField("opening"):
        findings.add("opening", "stands only in the first message: open another stream")
    if len(message.events) > EVENTS_PER_CALL_MAX:
        findings.size("events", len(message.events), 0, EVENTS_PER_CALL_MAX, "events")
    check(findings)
