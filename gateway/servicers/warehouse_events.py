"""WarehouseEventService: facts as the warehouses tell them."""

from __future__ import annotations

from collections import Counter

from actors.domain.answers import OK
from gateway.config import EVENTS_PER_CALL_MAX
from gateway.errors import CallFailed, failure_of, status_of
from gateway.rpc import Rpc
from gateway.servicers.desk import FAILED, Desk, check, failed_check, with_failures
from gateway.translate.events import EventRequests, fill_result
from gateway.validation import Findings
from stockade.v1 import warehouse_event_service_pb2 as pb

HEARD = ("applied", "duplicate")  # outcomes that say how far the source's feed has come


class WarehouseEventService:
    """See ``protos/stockade/v1/warehouse_event_service.proto``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = EventRequests(desk.config, desk.names)

    async def IngestEvents(self, request: pb.IngestEventsRequest, rpc: Rpc) -> pb.IngestEventsResponse:
        desk = self._desk
        desk.open()
        findings, size = Findings(), request.ByteSize()
        findings.size("events", len(request.events), 1, EVENTS_PER_CALL_MAX, "events")
        check(findings)
        items = []
        failed: dict[int, CallFailed] = {}
        # the digest takes the id out
        told = [(event.source_id, event.event_id, event) for event in request.events]
        for index, event in enumerate(request.events):
            found = Findings()
            try:
                rpc.principal.require_source(event.source_id)
            except CallFailed as failure:
                failed[index] = failure
                continue
            item = self._requests.event(event, rpc.cause, found)
            if found:
                failed[index] = failed_check(found, f"events[{index}].")
            else:
                items.append(item)
        replies = with_failures(await desk.change_many(items, rpc, size), failed)
        response = pb.IngestEventsResponse()
        outcomes: Counter[tuple[str, str]] = Counter()
        for (source_id, event_id, event), reply in zip(told, replies, strict=True):
            result = response.results.add()
            if reply[0] == OK:
                outcome = fill_result(result, desk.hosts.timeline, reply[2])
                outcomes[source_id, outcome] += 1
                if outcome in HEARD:
                    desk.metrics.heard(source_id, event.stock_key.warehouse_id, event.occur_time.seconds)
                continue
            result.event_id = event_id
            result.error.CopyFrom(status_of(reply[1] if reply[0] == FAILED else failure_of(reply)))
            outcomes[source_id, "error"] += 1
        for (source_id, outcome), count in outcomes.items():
            desk.metrics.ingested(source_id, outcome, count)
        return response
