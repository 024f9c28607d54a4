"""Reconciliations, blocking and for asyncio: a list as a stream of messages, sent again as a whole when it breaks off.

The same request id sent again goes on with the same reconciliation, so sending again does no harm. Nothing is kept here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import grpc

from stockade.client.calls import Call, enum_number
from stockade.client.errors import StockadeError, from_call_error
from stockade.client.ids import new_request_id
from stockade.client.reading import stock_key, time_ms
from stockade.client.reconciliation_results import (
    FailedLine,
    Finding,
    Reconciled,
    Reconciliation,
    ReconciliationCounts,
)
from stockade.client.retrying import Attempts, RetryPolicy
from stockade.v1 import reconciliation_service_pb2 as pb
from stockade.v1 import stock_key_pb2

RECONCILIATIONS = "/stockade.v1.ReconciliationService/"
ReconcileResponse = pb.ReconcileResponse
RECONCILE = RECONCILIATIONS + "Reconcile"
CHUNK_LINES = 500
RECONCILE_TIMEOUT_S = 3_600.0  # of a whole list, with all attempts
FIELDS = {"STOCK": "stock_lines", "OPEN_ORDERS": "open_order_lines", "CHANNEL_AVAILABILITY": "channel_lines"}

Lines = Iterable[Any] | Callable[[], Iterable[Any]]


def stock_line(sku: str, quantity: int, disposition: str = "", *, includes_picked: bool = False) -> pb.StockLine:
    """What was counted of a SKU, in all bins and lots."""
    return pb.StockLine(
        sku=sku,
        quantity=quantity,
        disposition=enum_number(stock_key_pb2.Disposition, "DISPOSITION_", disposition, "disposition"),  # type: ignore[arg-type]
        includes_picked=includes_picked,
    )


def open_order_line(channel_id: str, order_reference: str, sku: str, quantity: int) -> pb.OpenOrderLine:
    """What an order has open of a SKU."""
    return pb.OpenOrderLine(channel_id=channel_id, order_reference=order_reference, sku=sku, quantity=quantity)


def channel_line(sku: str, quantity: int) -> pb.ChannelLine:
    """What a channel shows of a SKU."""
    return pb.ChannelLine(sku=sku, quantity=quantity)


def header_message(  # noqa: PLR0913  the parts of a header
    warehouse_id: str,
    kind: str = "STOCK",
    *,
    request_id: str = "",
    reconciliation_id: str = "",
    source_id: str = "",
    stream_id: str = "",
    as_of_source_sequence: int = 0,
    as_of_time_ms: int = 0,
    tolerance_units: int = 0,
    tolerance_permille: int = 0,
    beyond_tolerance: str = "",
    unlisted_keys: str = "",
    dry_run: bool = False,
    differences_max: int = 0,
) -> pb.ReconciliationHeader:
    """A header; see the proto for each field. Enum values by their short names."""
    header = pb.ReconciliationHeader(
        request_id=request_id or new_request_id(),
        reconciliation_id=reconciliation_id,
        warehouse_id=warehouse_id,
        kind=enum_number(pb.ReconciliationKind, "RECONCILIATION_KIND_", kind, "kind"),  # type: ignore[arg-type]
        source_id=source_id,
        stream_id=stream_id,
        as_of_source_sequence=as_of_source_sequence,
        beyond_tolerance=enum_number(pb.BeyondTolerance, "BEYOND_TOLERANCE_", beyond_tolerance, "beyond_tolerance"),  # type: ignore[arg-type]
        unlisted_keys=enum_number(pb.UnlistedKeys, "UNLISTED_KEYS_", unlisted_keys, "unlisted_keys"),  # type: ignore[arg-type]
        dry_run=dry_run,
        differences_max=differences_max,
    )
    if as_of_time_ms:
        header.as_of_time.FromMilliseconds(as_of_time_ms)
    if tolerance_units or tolerance_permille:
        header.tolerance.units, header.tolerance.permille = tolerance_units, tolerance_permille
    return header


class List:
    """A list to be reconciled. ``lines``: messages of the kind's lines; a sequence, or a function that begins them anew, may be
    sent again; an iterator once."""

    def __init__(self, header: pb.ReconciliationHeader, lines: Lines) -> None:
        self.header = header
        self._field = FIELDS[pb.ReconciliationKind.Name(header.kind).removeprefix("RECONCILIATION_KIND_")]
        self._lines = lines
        self.repeatable = callable(lines) or not isinstance(lines, Iterator)
        self.failure: Exception | None = (
            None  # of the lines themselves: gRPC would only say that the call was cancelled
        )

    def messages(self) -> Iterator[pb.ReconcileRequest]:
        """The header, chunks, the end."""
        try:
            yield from self._messages()
        except Exception as failure:
            self.failure = failure
            raise

    def _messages(self) -> Iterator[pb.ReconcileRequest]:
        yield pb.ReconcileRequest(header=self.header)
        chunk: list[Any] = []
        count = 0
        for line in self._lines() if callable(self._lines) else self._lines:
            count += 1
            chunk.append(line)
            if len(chunk) >= CHUNK_LINES:
                yield self._message(chunk)
                chunk = []
        if chunk:
            yield self._message(chunk)
        yield pb.ReconcileRequest(end=pb.ReconciliationEnd(line_count=count))

    def _message(self, lines: list[Any]) -> pb.ReconcileRequest:
        return pb.ReconcileRequest(chunk=pb.ReconciliationChunk(**{self._field: lines}))


class Sending:
    """The attempts to send one list."""

    def __init__(self, wanted: List, retry: RetryPolicy, timeout_s: float) -> None:
        self._wanted = wanted
        whole = dataclasses.replace(retry, attempt_ms_max=timeout_s * 1000)
        self._attempts = Attempts(whole, timeout_s, time.monotonic())

    def timeout_s(self) -> float:
        """Of the next attempt."""
        return self._attempts.timeout_s(time.monotonic())

    def pause_s(self, failure: grpc.RpcError) -> float:
        """Before the next one. Raises StockadeError when there is none, or what the lines raised."""
        if self._wanted.failure is not None:
            raise self._wanted.failure
        error: StockadeError = from_call_error(failure)
        pause_s = self._attempts.pause_s(error, time.monotonic())
        if pause_s is None or not self._wanted.repeatable:
            raise error from None
        return pause_s


def send(method: Any, wanted: List, sending: Sending, metadata: Sequence[tuple[str, str]]) -> Reconciled:
    """Blocking, until the list was answered. Raises StockadeError."""
    while True:
        try:
            return reconciled(method(wanted.messages(), timeout=sending.timeout_s(), metadata=metadata))
        except grpc.RpcError as failure:
            pause_s = sending.pause_s(failure)
        threading.Event().wait(pause_s)


async def send_asynchronously(
    method: Any, wanted: List, sending: Sending, metadata: Sequence[tuple[str, str]]
) -> Reconciled:
    """The same for asyncio."""
    while True:
        try:
            return reconciled(await method(wanted.messages(), timeout=sending.timeout_s(), metadata=metadata))
        except grpc.RpcError as failure:
            pause_s = sending.pause_s(failure)
        except asyncio.CancelledError:
            if wanted.failure is not None:
                raise wanted.failure from None
            raise
        await asyncio.sleep(pause_s)


# --- reading --------------------------------------------------------------------------------------------------------------


def reconciled(response: pb.ReconcileResponse) -> Reconciled:
    """What became of a list."""
    return Reconciled(
        reconciliation(response.reconciliation),
        tuple(finding(one) for one in response.findings),
        tuple(
            FailedLine(one.line_index, _name(pb.LineProblem, "LINE_PROBLEM_", one.problem), one.description)
            for one in response.failed_lines
        ),
    )


def reconciliation(message: pb.Reconciliation) -> Reconciliation:
    """One comparison."""
    counts, header = message.counts, message.header
    return Reconciliation(
        message.reconciliation_id,
        message.warehouse_id,
        _name(pb.ReconciliationKind, "RECONCILIATION_KIND_", message.kind),
        _name(pb.ReconciliationState, "RECONCILIATION_STATE_", message.state),
        _name(pb.RequestReason, "REQUEST_REASON_", message.request_reason),
        header.request_id,
        header.source_id,
        header.stream_id,
        header.as_of_source_sequence,
        _milliseconds(header, "as_of_time"),
        ReconciliationCounts(*(getattr(counts, name.name) for name in dataclasses.fields(ReconciliationCounts))),
        message.note,
        message.exception_id,
        _milliseconds(message, "request_time"),
        _milliseconds(message, "begin_time"),
        _milliseconds(message, "end_time"),
    )


def finding(message: pb.Finding) -> Finding:
    """A line that differs."""
    return Finding(
        stock_key(message.stock_key),
        _name(stock_key_pb2.Disposition, "DISPOSITION_", message.disposition),
        message.channel_id,
        message.order_reference,
        _name(pb.FindingKind, "FINDING_KIND_", message.kind),
        _name(pb.FindingState, "FINDING_STATE_", message.state),
        message.found_quantity,
        message.expected_quantity,
        message.booked_delta,
        tuple(message.suspects),
        message.exception_id,
        _milliseconds(message, "time"),
    )


def _milliseconds(message: Any, field: str) -> int:
    return time_ms(getattr(message, field)) if message.HasField(field) else 0


def _name(enum: Any, prefix: str, number: int) -> str:
    """An enum value's short name; empty for none, its number for one of a newer service."""
    if not number:
        return ""
    try:
        return str(enum.Name(number)).removeprefix(prefix)
    except ValueError:
        return str(number)


# --- questions ------------------------------------------------------------------------------------------------------------


def get_call(
    reconciliation_id: str = "",
    *,
    request_id: str = "",
    finding_kinds: Iterable[str] = (),
    page_size: int = 0,
    page_token: str = "",
) -> Call[tuple[Reconciliation, list[Finding], str]]:
    """GetReconciliation: it, a page of its findings, and the next one's token."""
    request = pb.GetReconciliationRequest(
        reconciliation_id=reconciliation_id,
        request_id=request_id,
        finding_kinds=[enum_number(pb.FindingKind, "FINDING_KIND_", one, "finding_kinds") for one in finding_kinds],  # type: ignore[misc]
        page_size=page_size,
        page_token=page_token,
    )
    return Call(
        RECONCILIATIONS + "GetReconciliation",
        request,
        pb.GetReconciliationResponse,
        lambda response, _: (
            reconciliation(response.reconciliation),
            [finding(one) for one in response.findings],
            response.next_page_token,
        ),
    )


def list_call(
    *, warehouse_id: str = "", states: Iterable[str] = (), page_size: int = 0, page_token: str = ""
) -> Call[tuple[list[Reconciliation], str]]:
    """ListReconciliations: one page and the next one's token."""
    request = pb.ListReconciliationsRequest(
        warehouse_id=warehouse_id,
        states=[enum_number(pb.ReconciliationState, "RECONCILIATION_STATE_", one, "states") for one in states],  # type: ignore[misc]
        page_size=page_size,
        page_token=page_token,
    )
    return Call(
        RECONCILIATIONS + "ListReconciliations",
        request,
        pb.ListReconciliationsResponse,
        lambda response, _: ([reconciliation(one) for one in response.reconciliations], response.next_page_token),
    )
