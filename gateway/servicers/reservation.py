"""ReservationService: what checkout and order management call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from actors.domain.answers import OK, REFUSED
from actors.domain.commands import Verb
from gateway.config import RESERVATION_CHANNEL_CACHE_MAX
from gateway.errors import CallFailed, failure_of, status_of
from gateway.rpc import Rpc
from gateway.servicers.desk import ERROR_NAMES, FAILED, REFUSAL_NAMES, Desk, check, failed_check, with_failures
from gateway.translate import answers
from gateway.translate.reservations import ReservationRequests
from gateway.validation import Findings
from stockade.v1 import reservation_service_pb2 as pb

_CHANNEL_OF_VIEW = 1  # channel_id in a ReservationView


class ReservationService:
    """See ``protos/stockade/v1/reservation_service.proto``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = ReservationRequests(desk.config, desk.names)
        self._channel_of: dict[str, str] = {}  # reservation id → channel; asked only for callers bound to channels

    async def ReserveStock(self, request: pb.ReserveStockRequest, rpc: Rpc) -> pb.ReserveStockResponse:
        self._desk.open()
        findings = Findings()
        size = request.ByteSize()
        item = self._requests.reserve(request, rpc.principal, rpc.cause, findings)
        if findings:
            raise failed_check(findings)
        reply = await self._desk.change(item, rpc, size)
        timeline = self._desk.hosts.timeline
        if reply[0] == OK:
            return answers.granted_reservation(timeline, reply[2], item[5], request)
        return pb.ReserveStockResponse(refusal=answers.refusal(timeline, reply[2]))

    async def BatchReserveStock(self, request: pb.BatchReserveStockRequest, rpc: Rpc) -> pb.BatchReserveStockResponse:
        desk = self._desk
        desk.open()
        requests = request.requests
        findings = Findings()
        findings.size("requests", len(requests), 1, desk.config.batch_items_max, "requests")
        check(findings)
        size = request.ByteSize()
        items, failed = self._batch_items(requests, rpc)
        replies = await desk.change_many(items, rpc, size)
        response = pb.BatchReserveStockResponse(timeline=desk.hosts.timeline)
        outcomes = _fill_batch(response, with_failures(replies, failed))
        for outcome, count in outcomes.items():
            desk.metrics.decided("reserve", outcome, count)
        return response

    def _batch_items(
        self, requests: Sequence[pb.ReserveStockRequest], rpc: Rpc
    ) -> tuple[list[list[Any]], dict[int, CallFailed]]:
        """The items of the good requests in order, and the failures of the bad ones by index."""
        read, principal, cause = self._requests.reserve, rpc.principal, rpc.cause
        items = []
        failed: dict[int, CallFailed] = {}
        findings = Findings()
        for index, each in enumerate(requests):
            try:
                item = read(each, principal, cause, findings)
            except CallFailed as failure:
                failed[index] = failure
                continue
            if findings:
                failed[index] = failed_check(findings, f"requests[{index}].")
                findings = Findings()
            else:
                items.append(item)
        return items, failed

    async def ConfirmReservation(
        self, request: pb.ConfirmReservationRequest, rpc: Rpc
    ) -> pb.ConfirmReservationResponse:
        self._desk.open()
        findings, size = Findings(), request.ByteSize()
        item = self._requests.confirm(request, rpc.cause, findings)
        return pb.ConfirmReservationResponse(**await self._decide(item, request.reservation_id, rpc, size, findings))

    async def ReleaseReservation(
        self, request: pb.ReleaseReservationRequest, rpc: Rpc
    ) -> pb.ReleaseReservationResponse:
        self._desk.open()
        findings, size = Findings(), request.ByteSize()
        item = self._requests.release(request, rpc.cause, findings)
        if not findings and request.WhichOneof("target") == "reserve":
            rpc.principal.require_channel(request.reserve.channel_id)
        return pb.ReleaseReservationResponse(**await self._decide(item, request.reservation_id, rpc, size, findings))

    async def ExtendReservation(self, request: pb.ExtendReservationRequest, rpc: Rpc) -> pb.ExtendReservationResponse:
        self._desk.open()
        findings, size = Findings(), request.ByteSize()
        item = self._requests.extend(request, rpc.cause, findings)
        return pb.ExtendReservationResponse(**await self._decide(item, request.reservation_id, rpc, size, findings))

    async def AmendReservation(self, request: pb.AmendReservationRequest, rpc: Rpc) -> pb.AmendReservationResponse:
        self._desk.open()
        findings, size = Findings(), request.ByteSize()
        item = self._requests.amend(request, rpc.cause, findings)
        return pb.AmendReservationResponse(**await self._decide(item, request.reservation_id, rpc, size, findings))

    async def FulfillReservation(
        self, request: pb.FulfillReservationRequest, rpc: Rpc
    ) -> pb.FulfillReservationResponse:
        self._desk.open()
        findings, size = Findings(), request.ByteSize()
        item = self._requests.fulfill(request, rpc.cause, findings)
        return pb.FulfillReservationResponse(**await self._decide(item, request.reservation_id, rpc, size, findings))

    async def GetReservation(self, request: pb.GetReservationRequest, rpc: Rpc) -> pb.GetReservationResponse:
        self._desk.open()
        findings = Findings()
        item = self._requests.get(request.reservation_id, rpc.cause, findings)
        check(findings)
        (view,) = await self._desk.read([item], rpc, request.ByteSize())
        rpc.principal.require_channel(view[_CHANNEL_OF_VIEW])
        return pb.GetReservationResponse(reservation=answers.reservation(self._desk.hosts.timeline, view))

    async def ListReservations(self, request: pb.ListReservationsRequest, rpc: Rpc) -> pb.ListReservationsResponse:
        self._desk.open()
        findings = Findings()
        filters, page_size = self._requests.list_filters(request, rpc.principal, findings)
        views, token = await self._desk.page(
            Verb.LIST_RESERVATIONS,
            rpc,
            filters=filters,
            page_size=page_size,
            page_token=request.page_token,
            findings=findings,
        )
        timeline = self._desk.hosts.timeline
        return pb.ListReservationsResponse(
            reservations=[answers.reservation(timeline, view) for view in views], next_page_token=token
        )

    async def _decide(
        self, item: list[Any], reservation_id: str, rpc: Rpc, size: int, findings: Findings
    ) -> dict[str, Any]:
        """A verb on a reservation: the response's one field."""
        check(findings)
        if reservation_id and not rpc.principal.sells_everywhere:
            rpc.principal.require_channel(await self._channel(reservation_id, rpc))
        reply = await self._desk.change(item, rpc, size)
        timeline = self._desk.hosts.timeline
        if reply[0] == REFUSED:
            return {"refusal": answers.refusal(timeline, reply[2])}
        return {"reservation": answers.reservation(timeline, reply[2])}

    async def _channel(self, reservation_id: str, rpc: Rpc) -> str:
        """The channel of a reservation: asked once, it never changes."""
        known = self._channel_of.get(reservation_id)
        if known is None:
            item = self._requests.get(reservation_id, rpc.cause, Findings())
            (view,) = await self._desk.read([item], rpc, len(reservation_id))
            if len(self._channel_of) >= RESERVATION_CHANNEL_CACHE_MAX:
                self._channel_of.clear()
            known = self._channel_of[reservation_id] = str(view[_CHANNEL_OF_VIEW])
        return known


def _fill_batch(response: pb.BatchReserveStockResponse, replies: Sequence[Any]) -> Counter[str]:
    """Results in the order of the replies, and how often each outcome occurs."""
    outcomes: Counter[str] = Counter()
    granted = 0
    add, add_granted, timeline = response.results.add, answers.add_granted, response.timeline
    for reply in replies:
        status = reply[0]
        if status == OK:
            add_granted(add().granted, reply[2], reply[1])
            granted += 1
        elif status == REFUSED:
            add().refusal.CopyFrom(answers.refusal(timeline, reply[2]))
            outcomes[REFUSAL_NAMES.get(reply[2][0], "refused")] += 1
        else:
            failure = reply[1] if status == FAILED else failure_of(reply)
            add().error.CopyFrom(status_of(failure))
            outcomes[ERROR_NAMES[int(failure.reason)]] += 1
    if granted:
        outcomes["granted"] = granted
    return outcomes
