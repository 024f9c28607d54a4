"""ExceptionService: what somebody must look at, and what they do about it."""

from __future__ import annotations

from actors.domain.commands import Verb
from gateway.rpc import Rpc
from gateway.servicers.desk import Desk, check
from gateway.translate.events import EventRequests, Results
from gateway.translate.exceptions import ExceptionRequests, stock_exception
from gateway.validation import Findings
from stockade.v1 import exception_service_pb2 as pb


class ExceptionService:
    """See ``protos/stockade/v1/exception_service.proto``. For operators."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = ExceptionRequests(desk.names, EventRequests(desk.config, desk.names))

    async def ListExceptions(self, request: pb.ListExceptionsRequest, rpc: Rpc) -> pb.ListExceptionsResponse:
        self._open(rpc)
        findings = Findings()
        filters, page_size, rest = self._requests.filters(request, findings)
        views, token = await self._desk.page(
            Verb.LIST_EXCEPTIONS,
            rpc,
            filters=filters,
            page_size=page_size,
            page_token=request.page_token,
            findings=findings,
            filters_after=rest,
        )
        return pb.ListExceptionsResponse(exceptions=[stock_exception(view) for view in views], next_page_token=token)

    async def GetException(self, request: pb.GetExceptionRequest, rpc: Rpc) -> pb.GetExceptionResponse:
        self._open(rpc)
        findings = Findings()
        item = self._requests.get(request, rpc.cause, findings)
        check(findings)
        (view,) = await self._desk.read([item], rpc, request.ByteSize())
        return pb.GetExceptionResponse(exception=stock_exception(view))

    async def ResolveException(self, request: pb.ResolveExceptionRequest, rpc: Rpc) -> pb.ResolveExceptionResponse:
        self._open(rpc)
        findings, size = Findings(), request.ByteSize()
        item = self._requests.resolve(request, rpc.cause, findings)
        check(findings)
        reply = await self._desk.change(item, rpc, size)
        view, outcome, place, short, opened, reason, booked, gate_reasons = reply[2][:8]
        response = pb.ResolveExceptionResponse(exception=stock_exception(view))
        if outcome:
            event_id = response.exception.event_id
            told = (event_id, outcome, place, short, opened, reason, booked, gate_reasons)
            Results().fill(response.result, self._desk.hosts.timeline, told)
        return response

    def _open(self, rpc: Rpc) -> None:
        self._desk.open()
        rpc.principal.require_operator()
