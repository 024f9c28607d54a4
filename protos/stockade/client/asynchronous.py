"""The asyncio client: sends calls and tries them again. What a call is: ``stockade.client.calls``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio

from stockade.client import exceptions
from stockade.client.calls import Call, Calls, Key, Wanted
from stockade.client.change_feed import (
    ChangeCourse,
    Course,
    WatchCourse,
    acknowledge_call,
    consumers_call,
    follow_async,
)
from stockade.client.change_results import Acknowledged, ChangeBatch, Consumer, WatchUpdate
from stockade.client.errors import from_call_error
from stockade.client.event_stream import PATIENCE_S, STREAM_EVENTS, AsyncEventStream, OnResult, course_of
from stockade.client.outbox import UNSETTLED_MAX
from stockade.client.reconciliation_results import Finding, Reconciled, Reconciliation
from stockade.client.reconciling import (
    RECONCILE,
    RECONCILE_TIMEOUT_S,
    Lines,
    List,
    ReconcileResponse,
    Sending,
    get_call,
    header_message,
    list_call,
    send_asynchronously,
)
from stockade.client.results import (
    Availability,
    BatchResult,
    Feed,
    HeartbeatTaken,
    Ingested,
    LineWanted,
    Refused,
    Reservation,
    Resolved,
    Stock,
    StockException,
    Transfer,
)
from stockade.client.retrying import Attempts, RetryPolicy
from stockade.client.transport import CHANNEL_OPTIONS, TIMEOUT_S, call_metadata, was_replayed
from stockade.v1.warehouse_event_service_pb2 import StreamEventsResponse

T = TypeVar("T")


class AsyncClient:
    """Calls the service at ``target`` ("host:port") as ``channel_id``. Use it from one event loop.

    Every mutating call carries a request id made once and kept across its retries; ``timeout_s`` bounds a call with all of
    them. A business "no" is a ``Refused`` result; everything else that goes wrong raises ``StockadeError``.
    """

    def __init__(
        self,
        target: str,
        *,
        channel_id: str = "",
        token: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        timeout_s: float = TIMEOUT_S,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.calls = Calls(channel_id)
        self._token = token
        self._timeout_s = timeout_s
        self._retry = retry or RetryPolicy()
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=CHANNEL_OPTIONS)
        self._methods: dict[str, Any] = {}

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def run(
        self, call: Call[T], *, timeout_s: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> T:
        """Send a call until it is answered or its time is over. Raises StockadeError."""
        method = self._methods.get(call.method)
        if method is None:
            method = self._methods[call.method] = self._channel.unary_unary(
                call.method, request_serializer=_serialize, response_deserializer=call.response_type.FromString
            )
        sent = call_metadata(self._token, metadata)
        attempts = Attempts(self._retry, timeout_s or self._timeout_s, time.monotonic())
        while True:
            sending = method(call.request, timeout=attempts.timeout_s(time.monotonic()), metadata=sent)
            try:
                response = await sending
                return call.read(response, was_replayed(await sending.trailing_metadata()))
            except grpc.RpcError as failure:
                error = from_call_error(failure)
                pause_s = attempts.pause_s(error, time.monotonic())
                if pause_s is None:
                    raise error from None
            await asyncio.sleep(pause_s)

    def reserve_message(self, lines: Iterable[Wanted], **options: Any) -> Any:
        """A request for ``batch_reserve``, with its own id; options as ``reserve``."""
        return self.calls.reserve_message(lines, **options)

    async def reserve(
        self, lines: Iterable[Wanted], *, timeout_s: float | None = None, **options: Any
    ) -> Reservation | Refused:
        """ReserveStock. Options: channel_id, request_id, ttl_s, confirm, fill_policy, admission, order_reference, customer_id,
        replaces_reservation_id, labels."""
        return await self.run(self.calls.reserve(lines, **options), timeout_s=timeout_s)

    async def batch_reserve(self, requests: Sequence[Any], *, timeout_s: float | None = None) -> list[BatchResult]:
        """BatchReserveStock of up to 1,000 ``reserve_message``s; results in their order."""
        return await self.run(self.calls.batch_reserve(requests), timeout_s=timeout_s)

    async def confirm(
        self, reservation_id: str, *, timeout_s: float | None = None, **options: Any
    ) -> Reservation | Refused:
        """ConfirmReservation. Options: order_reference, expected_version, request_id."""
        return await self.run(self.calls.confirm(reservation_id, **options), timeout_s=timeout_s)

    async def release(
        self, reservation_id: str = "", *, reason: str, timeout_s: float | None = None, **options: Any
    ) -> Reservation | Refused:
        """ReleaseReservation. Options: lines, note, request_id; by request id: reserve_request_id, stock_key, channel_id,
        replaces_reservation_id."""
        return await self.run(self.calls.release(reservation_id, reason=reason, **options), timeout_s=timeout_s)

    async def extend(
        self, reservation_id: str, ttl_s: float, *, timeout_s: float | None = None, **options: Any
    ) -> Reservation | Refused:
        """ExtendReservation: ``ttl_s`` seconds from now. Options: request_id."""
        return await self.run(self.calls.extend(reservation_id, ttl_s, **options), timeout_s=timeout_s)

    async def amend(
        self,
        reservation_id: str,
        target_lines: Iterable[LineWanted] = (),
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Reservation | Refused:
        """AmendReservation. Options: removed_line_ids, expected_version, request_id."""
        return await self.run(self.calls.amend(reservation_id, target_lines, **options), timeout_s=timeout_s)

    async def fulfill(
        self, reservation_id: str, shipment_id: str, *, timeout_s: float | None = None, **options: Any
    ) -> Reservation | Refused:
        """FulfillReservation. Options: lines of (line_id, quantity[, document_line]), close_remainder, occur_time_ms, request_id."""
        return await self.run(self.calls.fulfill(reservation_id, shipment_id, **options), timeout_s=timeout_s)

    async def get_reservation(self, reservation_id: str, *, timeout_s: float | None = None) -> Reservation:
        """GetReservation."""
        return await self.run(self.calls.get_reservation(reservation_id), timeout_s=timeout_s)

    async def list_reservations(
        self, *, timeout_s: float | None = None, **filters: Any
    ) -> tuple[list[Reservation], str]:
        """ListReservations: a page and the next one's token. Filters: channel_id, order_reference, stock_key, states,
        page_size, page_token."""
        return await self.run(self.calls.list_reservations(**filters), timeout_s=timeout_s)

    async def availability(self, key: Key, *, timeout_s: float | None = None, **options: Any) -> Availability:
        """GetAvailability. Options: channel_id, max_staleness_s."""
        return await self.run(self.calls.availability(key, **options), timeout_s=timeout_s)

    async def batch_availability(
        self, keys: Iterable[Key], *, timeout_s: float | None = None, **options: Any
    ) -> list[Availability]:
        """BatchGetAvailability. Options: channel_id."""
        return await self.run(self.calls.batch_availability(keys, **options), timeout_s=timeout_s)

    async def explain(self, key: Key, quantity: int = 0, *, timeout_s: float | None = None, **options: Any) -> Any:
        """ExplainAvailability: the ``Explanation`` message. Options: channel_id."""
        return await self.run(self.calls.explain(key, quantity, **options), timeout_s=timeout_s)

    async def get_stock(self, key: Key, *, timeout_s: float | None = None) -> Stock:
        """GetStock."""
        return await self.run(self.calls.get_stock(key), timeout_s=timeout_s)

    async def list_stock(self, *, timeout_s: float | None = None, **filters: Any) -> tuple[list[Stock], str]:
        """ListStock: a page and the next one's token. Filters: warehouse_id, only_shortage, page_size, page_token."""
        return await self.run(self.calls.list_stock(**filters), timeout_s=timeout_s)

    async def list_transfers(self, *, timeout_s: float | None = None, **filters: Any) -> tuple[list[Transfer], str]:
        """ListTransfers by to_warehouse_id, from_warehouse_id, transfer_id: one page and the next one's token."""
        return await self.run(self.calls.list_transfers(**filters), timeout_s=timeout_s)

    async def register_stock(self, keys: Iterable[Key], *, timeout_s: float | None = None, **policy: Any) -> list[Any]:
        """RegisterStock, all with the same policy: ``Stock`` or ``Failed`` each. Also: request_id."""
        return await self.run(self.calls.register_stock(keys, **policy), timeout_s=timeout_s)

    async def set_policy(self, key: Key, *, timeout_s: float | None = None, **policy: Any) -> Stock | Refused:
        """SetStockPolicy: safety_stock_quantity, max_quantity_per_order, selling_state, base_unit; expected_version, request_id."""
        return await self.run(self.calls.set_policy(key, **policy), timeout_s=timeout_s)

    async def suspend(self, key: Key, *, timeout_s: float | None = None, **options: Any) -> Stock:
        """SuspendSelling. Options: note, request_id."""
        return await self.run(self.calls.suspend(key, **options), timeout_s=timeout_s)

    async def resume(self, key: Key, *, timeout_s: float | None = None, **options: Any) -> Stock:
        """ResumeSelling. Options: note, request_id."""
        return await self.run(self.calls.resume(key, **options), timeout_s=timeout_s)

    async def ingest(self, events: Iterable[Any], *, timeout_s: float | None = None) -> list[Ingested]:
        """IngestEvents of up to 1,000 messages from ``stockade.client.facts``; results in their order."""
        return await self.run(self.calls.ingest(events), timeout_s=timeout_s)

    async def heartbeats(
        self, beats: Iterable[tuple[str, str, str, int]], *, timeout_s: float | None = None
    ) -> list[HeartbeatTaken]:
        """SendHeartbeats: (source_id, stream_id, warehouse_id, last source sequence) each; results in their order."""
        return await self.run(self.calls.heartbeats(beats), timeout_s=timeout_s)

    async def feed_status(self, *, timeout_s: float | None = None, **filters: Any) -> tuple[list[Feed], str]:
        """GetFeedStatus: a page and the next one's token. Filters: source_id, stream_id, warehouse_id, page_size, page_token."""
        return await self.run(self.calls.feed_status(**filters), timeout_s=timeout_s)

    def event_stream(
        self,
        source_id: str,
        stream_id: str = "",
        on_result: OnResult | None = None,
        *,
        unsettled_max: int = UNSETTLED_MAX,
        patience_s: float = PATIENCE_S,
    ) -> AsyncEventStream:
        """StreamEvents, kept open: reconnects, sends again what has no result, waits when too much is under way.

        ``on_result``: gets each event with its final ``Ingested``. ``patience_s``: without any answer, then it gives up.
        """
        method: Any = self._channel.stream_stream(
            STREAM_EVENTS, request_serializer=_serialize, response_deserializer=StreamEventsResponse.FromString
        )
        course = course_of(
            source_id,
            stream_id,
            on_result,
            retry=self._retry,
            unsettled_max=unsettled_max,
            patience_s=patience_s,
        )
        return AsyncEventStream(lambda: method(metadata=call_metadata(self._token)), course)

    async def list_exceptions(
        self, *, timeout_s: float | None = None, **filters: Any
    ) -> tuple[list[StockException], str]:
        """ListExceptions: a page and the next one's token. Filters: those of ``stockade.client.exceptions.list_exceptions``."""
        return await self.run(exceptions.list_exceptions(**filters), timeout_s=timeout_s)

    async def get_exception(self, exception_id: str, *, timeout_s: float | None = None) -> StockException:
        """GetException."""
        return await self.run(exceptions.get_exception(exception_id), timeout_s=timeout_s)

    async def resolve_exception(
        self, exception_id: str, *, action: str, note: str, timeout_s: float | None = None, **options: Any
    ) -> Resolved:
        """ResolveException: RETRY, CORRECT_AND_RETRY, DISCARD, ACKNOWLEDGE. Options: resolver, corrected_event, request_id."""
        call = exceptions.resolve_exception(self.calls.identify, exception_id, action=action, note=note, **options)
        return await self.run(call, timeout_s=timeout_s)

    async def reconcile(
        self, warehouse_id: str, lines: Lines, *, timeout_s: float = RECONCILE_TIMEOUT_S, **options: Any
    ) -> Reconciled:
        """Reconcile a list with the books. ``lines``: messages of ``stockade.client.reconciling``; a sequence, or a function that
        begins them anew, is sent again when it breaks off. Options: kind ("STOCK", "OPEN_ORDERS", "CHANNEL_AVAILABILITY"),
        request_id, reconciliation_id, source_id, stream_id, as_of_source_sequence, as_of_time_ms, tolerance_units,
        tolerance_permille, beyond_tolerance, unlisted_keys, dry_run, differences_max."""
        method: Any = self._channel.stream_unary(
            RECONCILE, request_serializer=_serialize, response_deserializer=ReconcileResponse.FromString
        )
        wanted = List(header_message(warehouse_id, **options), lines)
        return await send_asynchronously(
            method, wanted, Sending(wanted, self._retry, timeout_s), call_metadata(self._token)
        )

    async def get_reconciliation(
        self, reconciliation_id: str = "", *, timeout_s: float | None = None, **options: Any
    ) -> tuple[Reconciliation, list[Finding], str]:
        """GetReconciliation: it, a page of its findings, and the next one's token. Options: request_id (instead of its id),
        finding_kinds, page_size, page_token."""
        return await self.run(get_call(reconciliation_id, **options), timeout_s=timeout_s)

    async def list_reconciliations(
        self, *, timeout_s: float | None = None, **filters: Any
    ) -> tuple[list[Reconciliation], str]:
        """ListReconciliations: a page and the next one's token. Filters: warehouse_id, states, page_size, page_token."""
        return await self.run(list_call(**filters), timeout_s=timeout_s)

    async def acknowledge_changes(
        self,
        consumer_id: str,
        cursor: str = "",
        *,
        rejections: Iterable[tuple[str, str]] = (),
        error: str = "",
        timeout_s: float | None = None,
    ) -> Acknowledged:
        """AcknowledgeChanges: all up to the cursor is taken in, but for the rejections (change id, reason). ``error``: what keeps
        the consumer from going on."""
        return await self.run(
            acknowledge_call(consumer_id, cursor, rejections=rejections, error=error), timeout_s=timeout_s
        )

    async def list_consumers(self, *, timeout_s: float | None = None) -> list[Consumer]:
        """ListConsumers."""
        return await self.run(consumers_call(), timeout_s=timeout_s)

    def changes(self, **wanted: Any) -> AsyncIterator[ChangeBatch]:
        """ReadChanges for ever, over broken connections. Options: cursor, start ("oldest", "now", "snapshot"), consumer_id,
        kinds, channel_ids, warehouse_ids, skus, changes_per_message_max, heartbeat_s, patience_s, and on_resync: "raise"
        (``ResyncNeeded``) or "snapshot" (begin anew)."""
        return self._follow(ChangeCourse(**wanted))

    def watch(self, keys: Iterable[Key] = (), **wanted: Any) -> AsyncIterator[WatchUpdate]:
        """WatchAvailability for ever, over broken connections. Options: warehouse_id instead of keys, channel_id, cursor,
        heartbeat_s, patience_s."""
        wanted["channel_id"] = wanted.get("channel_id") or self.calls.channel_id
        return self._follow(WatchCourse(keys, **wanted))

    def _follow(self, course: Course[T]) -> AsyncIterator[T]:
        method: Any = self._channel.unary_stream(
            course.method,
            request_serializer=_serialize,
            response_deserializer=course.response_type.FromString,
        )
        return follow_async(lambda request: method(request, metadata=call_metadata(self._token)), course)

    async def cluster_status(self, *, timeout_s: float | None = None) -> Any:
        """GetClusterStatus: the ``ClusterStatus`` message."""
        return await self.run(self.calls.cluster_status(), timeout_s=timeout_s)

    async def drain_host(self, host_id: str, *, undo: bool = False, timeout_s: float | None = None) -> int:
        """DrainHost: how many shards it has now."""
        return await self.run(self.calls.drain_host(host_id, undo=undo), timeout_s=timeout_s)


def _serialize(message: Any) -> bytes:
    packed: bytes = message.SerializeToString()
    return packed
