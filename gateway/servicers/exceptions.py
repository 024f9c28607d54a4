"""ExceptionService: what somebody must look at."""

from __future__ import annotations

from actors.domain.commands import Verb
from gateway.rpc import Rpc
from gateway.servicers.desk import Desk
from gateway.translate import answers
from gateway.translate.stock import StockRequests
from gateway.validation import Findings
from stockade.v1 import exception_service_pb2 as pb


class ExceptionService:
    """See ``protos/stockade/v1/exception_service.proto``. For operators."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = StockRequests(desk.names)

    async def ListExceptions(self, request: pb.ListExceptionsRequest, rpc: Rpc) -> pb.ListExceptionsResponse:
        self._desk.open()
        rpc.principal.require_operator()
        findings = Findings()
        filters, page_size = self._requests.exception_filters(request, findings)
        views, token = await self._desk.page(
            Verb.LIST_EXCEPTIONS,
            rpc,
            filters=filters,
            page_size=page_size,
            page_token=request.page_token,
            findings=findings,
        )
        return pb.ListExceptionsResponse(
            exceptions=[answers.stock_exception(view) for view in views], next_page_token=token
        )
