"""ReconciliationService: lists of others compared with the books."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason
from actors.domain.reconciliation_views import ReconciliationView
from actors.domain.reconciliation_words import ReconciliationState
from gateway.config import (
    DRY_RUN_FINDINGS_MAX,
    RECONCILIATION_CHUNK_LINES_MAX,
    RECONCILIATION_LINES_UNDER_WAY_MAX,
    RESPONSE_FINDINGS_MAX,
)
from gateway.errors import CallFailed, Violation, invalid
from gateway.reconciliation_run import ReconciliationRun, TooDifferent
from gateway.rpc import Rpc
from gateway.servicers.desk import Desk, check
from gateway.streams import Stream
from gateway.translate import reconciliation as translate
from gateway.translate.reconciliation import FINDING_KINDS, LINES_FIELD, Line, ReconciliationRequests, Wanted
from gateway.validation import Findings
from stockade.v1 import reconciliation_service_pb2 as pb

DONE, FAILED = int(ReconciliationState.DONE), int(ReconciliationState.FAILED)


class ReconciliationService:
    """See ``protos/stockade/v1/reconciliation_service.proto``. For operators."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = ReconciliationRequests(desk.names)

    async def Reconcile(self, stream: Stream, rpc: Rpc) -> pb.ReconcileResponse:
        self._open(rpc)
        first = await stream.read()
        if first is None or first.WhichOneof("part") != "header":
            raise invalid([Violation("header", "the first message must be a header")])
        findings = Findings()
        wanted = self._requests.header(first.header, findings)
        check(findings)
        kept = DRY_RUN_FINDINGS_MAX if wanted.dry_run else RESPONSE_FINDINGS_MAX
        run = ReconciliationRun(self._desk, wanted, rpc.cause, kept)
        if not wanted.dry_run:
            (begun,) = await run.ask([_begin(wanted, rpc)])
            if ReconciliationView(*begun).state == DONE:
                rpc.replayed = True
                return await self._told_again(begun, rpc)
        state, note = DONE, ""
        try:
            await self._compare_all(stream, wanted, run)
        except TooDifferent:
            state = FAILED
            note = f"given up after more than {wanted.differences_max:,} differences: is it the right list?"
        response = pb.ReconcileResponse(findings=run.findings, failed_lines=run.failed)
        if wanted.dry_run:
            response.reconciliation.CopyFrom(_dry(wanted, state, note))
        else:
            body = [wanted.request_id, wanted.reconciliation_id, state, list(run.counts), note]
            (ended,) = await run.ask([[int(Verb.FINISH_RECONCILIATION), wanted.shard, 0, 1, rpc.cause, body]])
            response.reconciliation.CopyFrom(translate.reconciliation(ended))
        response.reconciliation.counts.CopyFrom(translate.counts(run.counts))
        return response

    async def _compare_all(self, stream: Stream, wanted: Wanted, run: ReconciliationRun) -> None:
        """Chunk by chunk: the next is read when all lines of the last were answered. Raises CallFailed, TooDifferent."""
        field = LINES_FIELD[wanted.kind]
        index = 0
        while True:
            message = await stream.read()
            if message is None:  # a caller that dies looks the same as one who has said all
                raise invalid([Violation("end", "the list broke off: its last message must be the end")])
            if self._desk.closing.is_set():
                raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, "the gateway stops: send the list again")
            part = message.WhichOneof("part")
            if part == "end":
                break
            if part != "chunk":
                raise invalid([Violation("header", "only the first message may be a header")])
            messages = getattr(message.chunk, field)
            self._check_chunk(message.chunk, field, len(messages))
            lines: list[Line] = []
            for start in range(0, len(messages), RECONCILIATION_LINES_UNDER_WAY_MAX):
                some = messages[start : start + RECONCILIATION_LINES_UNDER_WAY_MAX]
                lines += self._read_lines(some, index + start, wanted, run)
                await asyncio.sleep(0)  # no more at once: others wait meanwhile
            await run.compare(lines)
            index += len(messages)
        if message.end.line_count != index:
            said = f"says {message.end.line_count:,} lines; {index:,} came"
            raise invalid([Violation("end.line_count", said)])
        await run.compare_unlisted()

    def _read_lines(self, messages: Sequence[Any], index: int, wanted: Wanted, run: ReconciliationRun) -> list[Line]:
        """Those that are well formed; the others have failed. ``index``: of the first in the list."""
        lines = []
        for at, one in enumerate(messages, index):
            found = Findings()
            line = self._requests.line(wanted, one, at, found)
            if line is None:
                run.fail_line(at, translate.description(found))
            else:
                lines.append(line)
        return lines

    @staticmethod
    def _check_chunk(chunk: pb.ReconciliationChunk, field: str, count: int) -> None:
        others = [name for name in LINES_FIELD.values() if name != field and getattr(chunk, name)]
        findings = Findings()
        for name in others:
            findings.add(f"chunk.{name}", "are lines of another kind than the header's")
        findings.size(f"chunk.{field}", count, 0, RECONCILIATION_CHUNK_LINES_MAX, "lines")
        check(findings)

    async def _told_again(self, view: Any, rpc: Rpc) -> pb.ReconcileResponse:
        """The first answer, given again: all but the lines that failed, which nobody kept."""
        filters = [view[0], []]
        found, _ = await self._desk.page(
            Verb.LIST_FINDINGS,
            rpc,
            filters=filters,
            page_size=RESPONSE_FINDINGS_MAX,
            page_token="",
            findings=Findings(),
        )
        kind = ReconciliationView(*view).kind
        return pb.ReconcileResponse(
            reconciliation=translate.reconciliation(view), findings=[translate.finding(one, kind) for one in found]
        )

    async def GetReconciliation(self, request: pb.GetReconciliationRequest, rpc: Rpc) -> pb.GetReconciliationResponse:
        self._open(rpc)
        findings = Findings()
        reconciliation_id = request.reconciliation_id
        if not reconciliation_id:
            findings.id("request_id", request.request_id)
            reconciliation_id, shard = self._requests.id_of(request.request_id)
        else:
            findings.id("reconciliation_id", reconciliation_id)
            shard = self._requests.shard_of(reconciliation_id) or 0
        for index, wanted in enumerate(request.finding_kinds):
            findings.choice(f"finding_kinds[{index}]", int(wanted), FINDING_KINDS)
        size = findings.page_size("page_size", request.page_size)
        check(findings)
        item = [int(Verb.GET_RECONCILIATION), shard, 0, 1, rpc.cause, [reconciliation_id]]
        (view,) = await self._desk.read([item], rpc, request.ByteSize())
        found, token = await self._desk.page(
            Verb.LIST_FINDINGS,
            rpc,
            filters=[reconciliation_id, [int(wanted) for wanted in request.finding_kinds]],
            page_size=size,
            page_token=request.page_token,
            findings=findings,
        )
        kind = ReconciliationView(*view).kind
        return pb.GetReconciliationResponse(
            reconciliation=translate.reconciliation(view),
            findings=[translate.finding(one, kind) for one in found],
            next_page_token=token,
        )

    async def ListReconciliations(
        self, request: pb.ListReconciliationsRequest, rpc: Rpc
    ) -> pb.ListReconciliationsResponse:
        self._open(rpc)
        findings = Findings()
        filters, size = self._requests.list_filters(request, findings)
        views, token = await self._desk.page(
            Verb.LIST_RECONCILIATIONS,
            rpc,
            filters=filters,
            page_size=size,
            page_token=request.page_token,
            findings=findings,
        )
        return pb.ListReconciliationsResponse(
            reconciliations=[translate.reconciliation(view) for view in views], next_page_token=token
        )

    def _open(self, rpc: Rpc) -> None:
        self._desk.open()
        rpc.principal.require_operator()


def _begin(wanted: Wanted, rpc: Rpc) -> list[Any]:
    body = [
        wanted.request_id,
        wanted.digest,
        wanted.reconciliation_id,
        wanted.warehouse_id,
        wanted.kind,
        list(wanted.header),
    ]
    return [int(Verb.BEGIN_RECONCILIATION), wanted.shard, 0, 1, rpc.cause, body]


def _dry(wanted: Wanted, state: int, note: str) -> pb.Reconciliation:
    view = ReconciliationView(
        "", wanted.warehouse_id, state, wanted.kind, 0, "", "", wanted.request_id, wanted.header, (), note, "", 0, 0, 0
    )
    return translate.reconciliation(view)
