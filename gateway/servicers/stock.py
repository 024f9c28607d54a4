"""StockService: stock and its policies, for operations and the ERP."""

from __future__ import annotations

from actors.domain.answers import OK, REFUSED
from actors.domain.commands import Verb
from actors.domain.outcomes import SellingState
from gateway.config import REGISTRATIONS_PER_CALL_MAX
from gateway.errors import CallFailed, failure_of, status_of
from gateway.rpc import Rpc
from gateway.servicers.desk import ERROR_NAMES, FAILED, Desk, check, failed_check, with_failures
from gateway.translate import answers
from gateway.translate.stock import StockRequests
from gateway.validation import Findings
from stockade.v1 import stock_service_pb2 as pb


class StockService:
    """See ``protos/stockade/v1/stock_service.proto``. For operators."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = StockRequests(desk.names)

    async def GetStock(self, request: pb.GetStockRequest, rpc: Rpc) -> pb.GetStockResponse:
        self._open(rpc)
        findings = Findings()
        item = self._requests.get(request, rpc.cause, findings)
        check(findings)
        (view,) = await self._desk.read([item], rpc, request.ByteSize())
        return pb.GetStockResponse(stock=answers.stock(self._desk.hosts.timeline, view))

    async def ListStock(self, request: pb.ListStockRequest, rpc: Rpc) -> pb.ListStockResponse:
        self._open(rpc)
        findings = Findings()
        filters, page_size = self._requests.list_filters(request, findings)
        views, token = await self._desk.page(
            Verb.LIST_STOCK, rpc, filters=filters, page_size=page_size, page_token=request.page_token, findings=findings
        )
        timeline = self._desk.hosts.timeline
        return pb.ListStockResponse(stocks=[answers.stock(timeline, view) for view in views], next_page_token=token)

    async def ListTransfers(self, request: pb.ListTransfersRequest, rpc: Rpc) -> pb.ListTransfersResponse:
        self._open(rpc)
        findings = Findings()
        filters, page_size = self._requests.transfer_filters(request, findings)
        token = request.page_token
        views, token = await self._desk.page(
            Verb.LIST_TRANSFERS, rpc, filters=filters, page_size=page_size, page_token=token, findings=findings
        )
        return pb.ListTransfersResponse(transfers=map(answers.transfer, views), next_page_token=token)

    async def RegisterStock(self, request: pb.RegisterStockRequest, rpc: Rpc) -> pb.RegisterStockResponse:
        self._open(rpc)
        desk, findings, size = self._desk, Findings(), request.ByteSize()
        request_id = request.request_id
        findings.id("request_id", request_id)
        findings.size("registrations", len(request.registrations), 1, REGISTRATIONS_PER_CALL_MAX, "registrations")
        check(findings)
        items = []
        failed: dict[int, CallFailed] = {}
        for index, registration in enumerate(request.registrations):
            found = Findings()
            item = self._requests.register(registration, request_id, rpc.cause, found)
            if found:
                failed[index] = failed_check(found, f"registrations[{index}].")
            else:
                items.append(item)
        replies = await desk.change_many(items, rpc, size)
        response = pb.RegisterStockResponse()
        for reply in with_failures(replies, failed):
            result = response.results.add()
            if reply[0] == OK:
                result.stock.CopyFrom(answers.stock(desk.hosts.timeline, reply[2]))
                rpc.replayed = rpc.replayed or reply[1]
                desk.metrics.decided("register_stock", "done")
                continue
            failure = reply[1] if reply[0] == FAILED else failure_of(reply)
            result.error.CopyFrom(status_of(failure))
            desk.metrics.decided("register_stock", ERROR_NAMES[int(failure.reason)])
        return response

    async def SetStockPolicy(self, request: pb.SetStockPolicyRequest, rpc: Rpc) -> pb.SetStockPolicyResponse:
        self._open(rpc)
        findings, size = Findings(), request.ByteSize()
        item = self._requests.set_policy(request, rpc.cause, findings)
        check(findings)
        reply = await self._desk.change(item, rpc, size)
        timeline = self._desk.hosts.timeline
        if reply[0] == REFUSED:
            return pb.SetStockPolicyResponse(refusal=answers.refusal(timeline, reply[2]))
        return pb.SetStockPolicyResponse(stock=answers.stock(timeline, reply[2]))

    async def SuspendSelling(self, request: pb.SuspendSellingRequest, rpc: Rpc) -> pb.SuspendSellingResponse:
        return pb.SuspendSellingResponse(stock=await self._set_selling(request, SellingState.SUSPENDED, rpc))

    async def ResumeSelling(self, request: pb.ResumeSellingRequest, rpc: Rpc) -> pb.ResumeSellingResponse:
        return pb.ResumeSellingResponse(stock=await self._set_selling(request, SellingState.OPEN, rpc))

    async def _set_selling(
        self, request: pb.SuspendSellingRequest | pb.ResumeSellingRequest, state: SellingState, rpc: Rpc
    ) -> pb.Stock:
        self._open(rpc)
        findings, size = Findings(), request.ByteSize()
        item = self._requests.set_selling(request, state, rpc.cause, findings)
        check(findings)
        reply = await self._desk.change(item, rpc, size)
        return answers.stock(self._desk.hosts.timeline, reply[2])

    def _open(self, rpc: Rpc) -> None:
        self._desk.open()
        rpc.principal.require_operator()
