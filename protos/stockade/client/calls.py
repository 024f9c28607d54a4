"""Every call once: which method, what is sent, how the answer is read, whether it may be repeated. No transport.

``Client`` and ``AsyncClient`` only send a ``Call`` and retry it; nothing about a request is written in them twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stockade.client import reading
from stockade.client.ids import IdGuard, new_request_id
from stockade.client.results import (
    Availability,
    BatchResult,
    Feed,
    HeartbeatTaken,
    Ingested,
    LineWanted,
    Refused,
    Reservation,
    Stock,
    StockKey,
    Transfer,
)
from stockade.v1 import (
    admin_service_pb2,
    availability_service_pb2,
    reservation_service_pb2,
    stock_key_pb2,
    stock_service_pb2,
    warehouse_event_service_pb2,
)

T = TypeVar("T")

RESERVATIONS = "/stockade.v1.ReservationService/"
AVAILABILITY = "/stockade.v1.AvailabilityService/"
STOCK = "/stockade.v1.StockService/"
EVENTS = "/stockade.v1.WarehouseEventService/"
EXCEPTIONS = "/stockade.v1.ExceptionService/"
ADMIN = "/stockade.v1.AdminService/"

Wanted = LineWanted | tuple[str, str, int]
Key = StockKey | tuple[str, str]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call: it is repeated as it stands, with the same request id. ``read(response, replayed)``."""

    method: str
    request: Any
    response_type: Any
    read: Callable[[Any, bool], T]


def key_message(key: Key) -> Any:
    """A stock key; a pair is (sku, warehouse_id)."""
    sku, warehouse_id = (key.sku, key.warehouse_id) if isinstance(key, StockKey) else key
    return stock_key_pb2.StockKey(sku=sku, warehouse_id=warehouse_id)


def line_message(wanted: Wanted) -> Any:
    """A line; a triple is (sku, warehouse_id, quantity)."""
    if not isinstance(wanted, LineWanted):
        wanted = LineWanted(*wanted)
    return reservation_service_pb2.LineRequest(
        line_id=wanted.line_id,
        stock_key=stock_key_pb2.StockKey(sku=wanted.sku, warehouse_id=wanted.warehouse_id),
        quantity=wanted.quantity,
        minimum_quantity=wanted.minimum_quantity,
    )


def enum_number(enum: Any, prefix: str, name: str, field: str) -> int:
    if not name:
        return 0
    try:
        return int(enum.Value(prefix + name.upper()))
    except ValueError:
        known = ", ".join(other.removeprefix(prefix) for other in enum.keys()[1:])
        raise ValueError(f"{field}: {name!r} is not one of {known}") from None


def _set_ttl(message: Any, ttl_s: float | None) -> None:
    if ttl_s is not None:
        message.ttl.FromMilliseconds(round(ttl_s * 1000))


class Calls:
    """Builds calls. ``channel_id``: who reserves and asks, unless a call says otherwise."""

    def __init__(self, channel_id: str) -> None:
        self.channel_id = channel_id
        self._guard = IdGuard()

    def identify(self, message: Any, request_id: str | None, scope: str = "") -> Any:
        """Give a request its id: made here, or the caller's own, which must not have had other content."""
        if request_id is not None:
            scope = scope or message.DESCRIPTOR.name
            self._guard.check(
                scope, request_id, message.DESCRIPTOR.name.encode() + message.SerializeToString(deterministic=True)
            )
        message.request_id = request_id if request_id is not None else new_request_id()
        return message

    def reserve_message(  # noqa: PLR0913  the parts of an order
        self,
        lines: Iterable[Wanted],
        *,
        channel_id: str = "",
        request_id: str | None = None,
        ttl_s: float | None = None,
        confirm: bool = False,
        fill_policy: str = "",
        admission: str = "",
        order_reference: str = "",
        customer_id: str = "",
        replaces_reservation_id: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> Any:
        """A ReserveStockRequest."""
        channel = channel_id or self.channel_id
        message = reservation_service_pb2.ReserveStockRequest(
            channel_id=channel,
            lines=map(line_message, lines),
            confirm=confirm,
            fill_policy=enum_number(reservation_service_pb2.FillPolicy, "FILL_POLICY_", fill_policy, "fill_policy"),  # type: ignore[arg-type]
            admission=enum_number(reservation_service_pb2.Admission, "ADMISSION_", admission, "admission"),  # type: ignore[arg-type]
            order_reference=order_reference,
            customer_id=customer_id,
            replaces_reservation_id=replaces_reservation_id,
            labels=dict(labels or {}),
        )
        _set_ttl(message, ttl_s)
        return self.identify(message, request_id, f"channel {channel}")

    def reserve(self, lines: Iterable[Wanted], **options: Any) -> Call[Reservation | Refused]:
        """ReserveStock."""
        return Call(
            RESERVATIONS + "ReserveStock",
            self.reserve_message(lines, **options),
            reservation_service_pb2.ReserveStockResponse,
            reading.decision,
        )

    def batch_reserve(self, requests: Sequence[Any]) -> Call[list[BatchResult]]:
        """BatchReserveStock of ``reserve_message``s."""
        return Call(
            RESERVATIONS + "BatchReserveStock",
            reservation_service_pb2.BatchReserveStockRequest(requests=requests),
            reservation_service_pb2.BatchReserveStockResponse,
            lambda response, _: [reading.batch_result(one, response.timeline) for one in response.results],
        )

    def confirm(
        self,
        reservation_id: str,
        *,
        order_reference: str = "",
        expected_version: int = 0,
        request_id: str | None = None,
    ) -> Call[Reservation | Refused]:
        """ConfirmReservation."""
        message = reservation_service_pb2.ConfirmReservationRequest(
            reservation_id=reservation_id, order_reference=order_reference, expected_version=expected_version
        )
        return self._verb("ConfirmReservation", self.identify(message, request_id))

    def release(  # noqa: PLR0913
        self,
        reservation_id: str = "",
        *,
        reason: str,
        lines: Iterable[tuple[str, int]] = (),
        note: str = "",
        reserve_request_id: str = "",
        stock_key: Key | None = None,
        replaces_reservation_id: str = "",
        channel_id: str = "",
        request_id: str | None = None,
    ) -> Call[Reservation | Refused]:
        """ReleaseReservation, by id, or by the reserve's request id and the smallest stock key of its lines."""
        message = reservation_service_pb2.ReleaseReservationRequest(
            reason=enum_number(reservation_service_pb2.ReleaseReason, "RELEASE_REASON_", reason, "reason"),  # type: ignore[arg-type]
            lines=[reservation_service_pb2.ReleaseLine(line_id=line_id, quantity=units) for line_id, units in lines],
            note=note,
        )
        if reserve_request_id:
            if stock_key is None:
                raise ValueError(
                    "stock_key: the smallest stock key of the reserve's lines is needed beside its request id"
                )
            message.reserve.request_id = reserve_request_id
            message.reserve.channel_id = channel_id or self.channel_id
            message.reserve.stock_key.CopyFrom(key_message(stock_key))
            message.reserve.replaces_reservation_id = replaces_reservation_id
        else:
            message.reservation_id = reservation_id
        return self._verb("ReleaseReservation", self.identify(message, request_id))

    def extend(
        self, reservation_id: str, ttl_s: float, *, request_id: str | None = None
    ) -> Call[Reservation | Refused]:
        """ExtendReservation."""
        message = reservation_service_pb2.ExtendReservationRequest(reservation_id=reservation_id)
        _set_ttl(message, ttl_s)
        return self._verb("ExtendReservation", self.identify(message, request_id))

    def amend(
        self,
        reservation_id: str,
        target_lines: Iterable[LineWanted] = (),
        *,
        removed_line_ids: Iterable[str] = (),
        expected_version: int = 0,
        request_id: str | None = None,
    ) -> Call[Reservation | Refused]:
        """AmendReservation."""
        message = reservation_service_pb2.AmendReservationRequest(
            reservation_id=reservation_id,
            target_lines=map(line_message, target_lines),
            removed_line_ids=removed_line_ids,
            expected_version=expected_version,
        )
        return self._verb("AmendReservation", self.identify(message, request_id))

    def fulfill(  # noqa: PLR0913
        self,
        reservation_id: str,
        shipment_id: str,
        *,
        lines: Iterable[tuple[str, int] | tuple[str, int, str]] = (),
        close_remainder: bool = False,
        occur_time_ms: int = 0,
        request_id: str | None = None,
    ) -> Call[Reservation | Refused]:
        """FulfillReservation; lines are (line_id, quantity[, document_line])."""
        message = reservation_service_pb2.FulfillReservationRequest(
            reservation_id=reservation_id, shipment_id=shipment_id, close_remainder=close_remainder
        )
        for line_id, quantity, *document_line in lines:
            message.lines.add(line_id=line_id, quantity=quantity, document_line="".join(map(str, document_line)))
        if occur_time_ms:
            message.occur_time.FromMilliseconds(occur_time_ms)
        return self._verb("FulfillReservation", self.identify(message, request_id))

    def _verb(self, method: str, message: Any) -> Call[Reservation | Refused]:
        response_type = getattr(reservation_service_pb2, f"{method}Response")
        return Call(RESERVATIONS + method, message, response_type, reading.decision)

    def get_reservation(self, reservation_id: str) -> Call[Reservation]:
        """GetReservation."""
        return Call(
            RESERVATIONS + "GetReservation",
            reservation_service_pb2.GetReservationRequest(reservation_id=reservation_id),
            reservation_service_pb2.GetReservationResponse,
            lambda response, _: reading.reservation(response.reservation),
        )

    def list_reservations(  # noqa: PLR0913
        self,
        *,
        channel_id: str = "",
        order_reference: str = "",
        stock_key: Key | None = None,
        states: Iterable[str] = (),
        page_size: int = 0,
        page_token: str = "",
    ) -> Call[tuple[list[Reservation], str]]:
        """ListReservations: one page and the next one's token."""
        state_type = stock_key_pb2.ReservationState
        numbers: Any = [enum_number(state_type, "RESERVATION_STATE_", state, "states") for state in states]
        message = reservation_service_pb2.ListReservationsRequest(
            channel_id=channel_id,
            order_reference=order_reference,
            states=numbers,
            page_size=page_size,
            page_token=page_token,
        )
        if stock_key is not None:
            message.stock_key.CopyFrom(key_message(stock_key))
        return Call(
            RESERVATIONS + "ListReservations",
            message,
            reservation_service_pb2.ListReservationsResponse,
            lambda response, _: ([reading.reservation(one) for one in response.reservations], response.next_page_token),
        )

    def availability(
        self, key: Key, *, channel_id: str = "", max_staleness_s: float | None = None
    ) -> Call[Availability]:
        """GetAvailability. ``max_staleness_s``: so old an answer will do; never promise by it."""
        message = availability_service_pb2.GetAvailabilityRequest(
            stock_key=key_message(key), channel_id=channel_id or self.channel_id
        )
        if max_staleness_s is not None:
            message.max_staleness.FromMilliseconds(round(max_staleness_s * 1000))
        return Call(
            AVAILABILITY + "GetAvailability",
            message,
            availability_service_pb2.GetAvailabilityResponse,
            lambda response, _: reading.fresh_availability(response),
        )

    def batch_availability(self, keys: Iterable[Key], *, channel_id: str = "") -> Call[list[Availability]]:
        """BatchGetAvailability."""
        return Call(
            AVAILABILITY + "BatchGetAvailability",
            availability_service_pb2.BatchGetAvailabilityRequest(
                stock_keys=map(key_message, keys), channel_id=channel_id or self.channel_id
            ),
            availability_service_pb2.BatchGetAvailabilityResponse,
            lambda response, _: [reading.availability(one) for one in response.availabilities],
        )

    def explain(self, key: Key, quantity: int = 0, *, channel_id: str = "") -> Call[Any]:
        """ExplainAvailability: the ``Explanation`` message."""
        return Call(
            AVAILABILITY + "ExplainAvailability",
            availability_service_pb2.ExplainAvailabilityRequest(
                stock_key=key_message(key), channel_id=channel_id or self.channel_id, quantity=quantity
            ),
            availability_service_pb2.ExplainAvailabilityResponse,
            lambda response, _: response.explanation,
        )

    def get_stock(self, key: Key) -> Call[Stock]:
        """GetStock."""
        return Call(
            STOCK + "GetStock",
            stock_service_pb2.GetStockRequest(stock_key=key_message(key)),
            stock_service_pb2.GetStockResponse,
            lambda response, _: reading.stock(response.stock),
        )

    def list_stock(
        self, *, warehouse_id: str = "", only_shortage: bool = False, page_size: int = 0, page_token: str = ""
    ) -> Call[tuple[list[Stock], str]]:
        """ListStock: one page and the next one's token."""
        return Call(
            STOCK + "ListStock",
            stock_service_pb2.ListStockRequest(
                warehouse_id=warehouse_id, only_shortage=only_shortage, page_size=page_size, page_token=page_token
            ),
            stock_service_pb2.ListStockResponse,
            lambda response, _: ([reading.stock(one) for one in response.stocks], response.next_page_token),
        )

    def list_transfers(
        self,
        *,
        to_warehouse_id: str = "",
        from_warehouse_id: str = "",
        transfer_id: str = "",
        page_size: int = 0,
        page_token: str = "",
    ) -> Call[tuple[list[Transfer], str]]:
        """ListTransfers: one page and the next one's token."""
        return Call(
            STOCK + "ListTransfers",
            stock_service_pb2.ListTransfersRequest(
                to_warehouse_id=to_warehouse_id,
                from_warehouse_id=from_warehouse_id,
                transfer_id=transfer_id,
                page_size=page_size,
                page_token=page_token,
            ),
            stock_service_pb2.ListTransfersResponse,
            lambda response, _: ([reading.transfer(one) for one in response.transfers], response.next_page_token),
        )

    def register_stock(self, keys: Iterable[Key], *, request_id: str | None = None, **policy: Any) -> Call[list[Any]]:
        """RegisterStock, all with the same policy: ``Stock`` or ``Failed`` each."""
        message = stock_service_pb2.RegisterStockRequest()
        for key in keys:
            message.registrations.add(stock_key=key_message(key), policy=_policy(**policy))
        return Call(
            STOCK + "RegisterStock",
            self.identify(message, request_id),
            stock_service_pb2.RegisterStockResponse,
            lambda response, _: [
                reading.stock(one.stock) if one.WhichOneof("result") == "stock" else reading.failed(one.error)
                for one in response.results
            ],
        )

    def set_policy(
        self, key: Key, *, expected_version: int = 0, request_id: str | None = None, **policy: Any
    ) -> Call[Stock | Refused]:
        """SetStockPolicy: what is given of safety_stock_quantity, max_quantity_per_order, selling_state, base_unit, item_state,
        receipt_disposition, recalled_lot_ids (an empty list clears them)."""
        message = stock_service_pb2.SetStockPolicyRequest(
            stock_key=key_message(key), policy=_policy(**policy), expected_version=expected_version
        )
        return Call(
            STOCK + "SetStockPolicy",
            self.identify(message, request_id),
            stock_service_pb2.SetStockPolicyResponse,
            lambda response, replayed: (
                reading.refused(response.refusal, replayed)
                if response.WhichOneof("result") == "refusal"
                else reading.stock(response.stock)
            ),
        )

    def suspend(self, key: Key, *, note: str = "", request_id: str | None = None) -> Call[Stock]:
        """SuspendSelling."""
        message = stock_service_pb2.SuspendSellingRequest(stock_key=key_message(key), note=note)
        return self._selling("SuspendSelling", self.identify(message, request_id))

    def resume(self, key: Key, *, note: str = "", request_id: str | None = None) -> Call[Stock]:
        """ResumeSelling."""
        message = stock_service_pb2.ResumeSellingRequest(stock_key=key_message(key), note=note)
        return self._selling("ResumeSelling", self.identify(message, request_id))

    def _selling(self, method: str, message: Any) -> Call[Stock]:
        response_type = getattr(stock_service_pb2, f"{method}Response")
        return Call(STOCK + method, message, response_type, lambda response, _: reading.stock(response.stock))

    def ingest(self, events: Iterable[Any]) -> Call[list[Ingested]]:
        """IngestEvents of ``WarehouseEvent`` messages (see ``stockade.client.facts``). Their ids make it repeatable."""
        return Call(
            EVENTS + "IngestEvents",
            warehouse_event_service_pb2.IngestEventsRequest(events=events),
            warehouse_event_service_pb2.IngestEventsResponse,
            lambda response, _: [reading.ingested(one) for one in response.results],
        )

    def heartbeats(self, beats: Iterable[tuple[str, str, str, int]]) -> Call[list[HeartbeatTaken]]:
        """SendHeartbeats: (source_id, stream_id, warehouse_id, last source sequence) each."""
        names = ("source_id", "stream_id", "warehouse_id", "last_source_sequence")
        pb = warehouse_event_service_pb2
        messages = [pb.Heartbeat(**dict(zip(names, beat, strict=True))) for beat in beats]  # type: ignore[arg-type]
        return Call(
            EVENTS + "SendHeartbeats",
            pb.SendHeartbeatsRequest(heartbeats=messages),
            pb.SendHeartbeatsResponse,
            lambda response, _: [reading.heartbeat_taken(one) for one in response.results],
        )

    def feed_status(
        self,
        *,
        source_id: str = "",
        stream_id: str = "",
        warehouse_id: str = "",
        page_size: int = 0,
        page_token: str = "",
    ) -> Call[tuple[list[Feed], str]]:
        """GetFeedStatus: one page and the next one's token."""
        return Call(
            EVENTS + "GetFeedStatus",
            warehouse_event_service_pb2.GetFeedStatusRequest(
                source_id=source_id,
                stream_id=stream_id,
                warehouse_id=warehouse_id,
                page_size=page_size,
                page_token=page_token,
            ),
            warehouse_event_service_pb2.GetFeedStatusResponse,
            lambda response, _: ([reading.feed(one) for one in response.feeds], response.next_page_token),
        )

    def cluster_status(self) -> Call[Any]:
        """GetClusterStatus: the ``ClusterStatus`` message."""
        return Call(
            ADMIN + "GetClusterStatus",
            admin_service_pb2.GetClusterStatusRequest(),
            admin_service_pb2.GetClusterStatusResponse,
            lambda response, _: response.cluster_status,
        )

    def drain_host(self, host_id: str, *, undo: bool = False) -> Call[int]:
        """DrainHost: how many shards it has now."""
        return Call(
            ADMIN + "DrainHost",
            admin_service_pb2.DrainHostRequest(host_id=host_id, undo=undo),
            admin_service_pb2.DrainHostResponse,
            lambda response, _: int(response.shards),
        )


def _policy(
    *,
    safety_stock_quantity: int | None = None,
    max_quantity_per_order: int | None = None,
    selling_state: str = "",
    base_unit: str = "",
    item_state: str = "",
    receipt_disposition: str = "",
    recalled_lot_ids: Iterable[str] | None = None,
) -> Any:
    lots = None if recalled_lot_ids is None else stock_service_pb2.RecalledLots(lot_ids=recalled_lot_ids)
    disposition = enum_number(stock_key_pb2.Disposition, "DISPOSITION_", receipt_disposition, "receipt_disposition")
    return stock_service_pb2.StockPolicy(
        item_state=enum_number(stock_service_pb2.ItemState, "ITEM_STATE_", item_state, "item_state"),  # type: ignore[arg-type]
        receipt_disposition=disposition,  # type: ignore[arg-type]
        recalled_lots=lots,
        safety_stock_quantity=safety_stock_quantity,
        max_quantity_per_order=max_quantity_per_order,
        selling_state=enum_number(stock_key_pb2.SellingState, "SELLING_STATE_", selling_state, "selling_state"),  # type: ignore[arg-type]
        base_unit=base_unit,
    )
