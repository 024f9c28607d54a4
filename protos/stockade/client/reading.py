"""Messages of ``stockade.v1`` → results. Enum values lose their prefix: ``RESERVATION_STATE_HELD`` is ``HELD``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
from google.protobuf import json_format

from stockade.client.errors import from_status
from stockade.client.results import (
    Availability,
    BatchResult,
    Failed,
    Feed,
    Granted,
    Handling,
    HeartbeatTaken,
    Ingested,
    Line,
    Position,
    Refused,
    Reservation,
    Shortage,
    Stock,
    StockException,
    StockKey,
    Transfer,
    WarehouseFeed,
)
from stockade.v1 import (
    availability_service_pb2,
    exception_service_pb2,
    stock_key_pb2,
    stock_service_pb2,
    warehouse_event_service_pb2,
)

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _names(enum: Any, prefix: str) -> dict[int, str]:
    return {number: name.removeprefix(prefix) if number else "" for name, number in enum.items()}


ANSWERERS = _names(availability_service_pb2.AnsweredBy, "ANSWERED_BY_")
STATES = _names(stock_key_pb2.ReservationState, "RESERVATION_STATE_")
REFUSALS = _names(stock_key_pb2.RefusalReason, "REFUSAL_REASON_")
DISPOSITIONS = _names(stock_key_pb2.Disposition, "DISPOSITION_")
SELLING = _names(stock_key_pb2.SellingState, "SELLING_STATE_")
ITEM_STATES = _names(stock_service_pb2.ItemState, "ITEM_STATE_")
GATE_REASONS = _names(warehouse_event_service_pb2.SaleGateReason, "SALE_GATE_REASON_")
REJECTIONS = _names(warehouse_event_service_pb2.RejectReason, "REJECT_REASON_")
KINDS = _names(exception_service_pb2.ExceptionKind, "EXCEPTION_KIND_")
PRIORITIES = _names(exception_service_pb2.ExceptionPriority, "EXCEPTION_PRIORITY_")
ACTIONS = _names(exception_service_pb2.ResolveAction, "RESOLVE_ACTION_")
EXCEPTION_STATES = _names(exception_service_pb2.ExceptionState, "EXCEPTION_STATE_")


def time_ms(stamp: Any) -> int:
    """A Timestamp as Unix milliseconds."""
    return int(stamp.seconds * 1000 + stamp.nanos // 1_000_000)


def stock_key(message: Any) -> StockKey:
    """StockKey."""
    return StockKey(message.sku, message.warehouse_id)


def position(message: Any, timeline: str = "") -> Position:
    """Position, or ShardPosition with its response's timeline."""
    when = time_ms(message.time) if hasattr(message, "time") else 0
    return Position(timeline or getattr(message, "timeline", ""), message.shard, message.epoch, message.sequence, when)


def line(message: Any) -> Line:
    """Line."""
    return Line(
        message.line_id,
        stock_key(message.stock_key),
        message.requested_quantity,
        message.granted_quantity,
        message.fulfilled_quantity,
        message.released_quantity,
        message.expired_quantity,
        message.picked_quantity,
        message.uncovered_quantity,
        message.imposed,
    )


def reservation(message: Any, replayed: bool = False) -> Reservation:  # noqa: FBT001, FBT002  metadata of the same call
    """Reservation."""
    return Reservation(
        message.reservation_id,
        message.channel_id,
        message.customer_id,
        message.order_reference,
        STATES.get(message.state, str(message.state)),
        message.version,
        tuple(map(line, message.lines)),
        dict(message.labels),
        time_ms(message.create_time),
        time_ms(message.expire_time),
        time_ms(message.confirm_time),
        time_ms(message.end_time),
        position(message.position),
        tuple(map(position, message.other_positions)),
        replayed,
    )


def refused(message: Any, replayed: bool = False) -> Refused:  # noqa: FBT001, FBT002
    """Refusal."""
    return Refused(
        REFUSALS.get(message.reason, str(message.reason)),
        tuple(
            Shortage(
                short.line_id,
                stock_key(short.stock_key),
                short.requested_quantity,
                short.available_quantity,
                REFUSALS.get(short.reason, str(short.reason)),
            )
            for short in message.shortages
        ),
        STATES.get(message.state, str(message.state)),
        message.version,
        position(message.position),
        replayed,
        tuple(map(position, message.other_positions)),
    )


def decision(response: Any, replayed: bool = False) -> Reservation | Refused:  # noqa: FBT001, FBT002
    """A response with ``oneof result { reservation, refusal }``."""
    if response.WhichOneof("result") == "refusal":
        return refused(response.refusal, replayed)
    return reservation(response.reservation, replayed)


def failed(status: Any) -> Failed:
    """A google.rpc.Status inside a response."""
    error = from_status(status, _CODES.get(status.code, grpc.StatusCode.UNKNOWN))
    return Failed(error.code.name, error.reason, str(error), error.outcome, error.retryable, error.violations)


def batch_result(message: Any, timeline: str) -> BatchResult:
    """One result of BatchReserveStock."""
    which = message.WhichOneof("result")
    if which == "granted":
        granted = message.granted
        return Granted(
            granted.reservation_id,
            granted.expire_time_ms,
            position(granted.position, timeline),
            tuple(map(line, granted.lines)) if granted.lines else None,
            granted.replayed,
        )
    if which == "refusal":
        return refused(message.refusal)
    return failed(message.error)


def fresh_availability(response: Any) -> Availability:
    """GetAvailabilityResponse: as of when it was true."""
    as_of_ms = time_ms(response.as_of_time)
    return replace(availability(response.availability), as_of_ms=as_of_ms)


def availability(message: Any) -> Availability:
    """Availability."""
    place = position(message.position)
    return Availability(
        stock_key(message.stock_key),
        message.channel_id,
        message.available_quantity,
        message.known,
        message.stale,
        place,
        ANSWERERS.get(message.answered_by, ""),
        place.time_ms,
    )


def stock(message: Any) -> Stock:
    """Stock."""
    policy = message.policy
    return Stock(
        stock_key(message.stock_key),
        {DISPOSITIONS.get(part.disposition, str(part.disposition)): part.quantity for part in message.on_hand},
        message.held_quantity,
        message.confirmed_quantity,
        message.picked_quantity,
        message.picked_adrift_quantity,
        message.safety_stock_quantity,
        message.shortage_quantity,
        message.available_quantity,
        SELLING.get(policy.selling_state, str(policy.selling_state)),
        policy.max_quantity_per_order,
        policy.base_unit,
        policy.version,
        position(message.position),
        ITEM_STATES.get(policy.item_state, str(policy.item_state)),
        DISPOSITIONS.get(policy.receipt_disposition, str(policy.receipt_disposition)),
        tuple(policy.recalled_lots.lot_ids),
        message.in_transit_quantity,
        tuple(map(transfer, message.transfers)),
    )


def transfer(message: Any) -> Transfer:
    """Transfer."""
    return Transfer(
        stock_key(message.stock_key),
        message.transfer_id,
        message.transfer_line,
        message.from_warehouse_id,
        message.dispatched_quantity,
        message.received_quantity,
        message.in_transit_quantity,
        message.lost_quantity,
        message.exception_id,
        time_ms(message.last_time),
    )


def ingested(message: Any) -> Ingested:
    """IngestResult."""
    which = message.WhichOneof("result")
    if which == "applied":
        applied = message.applied
        where = position(applied.position)
        reasons = tuple(GATE_REASONS.get(reason, str(reason)) for reason in applied.gate_reasons)
        booked = DISPOSITIONS.get(applied.booked_disposition, str(applied.booked_disposition)) if reasons else ""
        return Ingested(
            message.event_id, "APPLIED", "", applied.shortage_quantity, applied.exception_id, where,
            booked_disposition=booked, gate_reasons=reasons,
        )  # fmt: skip
    if which == "duplicate":
        return Ingested(message.event_id, "DUPLICATE", position=position(message.duplicate.position))
    if which == "deferred":
        return Ingested(message.event_id, "DEFERRED", message.deferred.reason)
    if which == "rejected":
        reason = REJECTIONS.get(message.rejected.reason, str(message.rejected.reason))
        return Ingested(message.event_id, "REJECTED", reason, exception_id=message.rejected.exception_id)
    error = from_status(message.error, _CODES.get(message.error.code, grpc.StatusCode.UNKNOWN))
    reason = f"{error.reason or error.code.name}: {error}"
    return Ingested(message.event_id, "FAILED", reason, retryable=error.retryable, retry_after_ms=error.retry_after_ms)


def feed(message: Any) -> Feed:
    """FeedStatus."""
    return Feed(
        message.source_id,
        message.stream_id,
        message.watermark,
        message.highest_sequence,
        tuple((gap.first_sequence, gap.last_sequence) for gap in message.missing),
        message.waiting_count,
        tuple(map(_warehouse_feed, message.warehouses)),
    )


def _warehouse_feed(message: Any) -> WarehouseFeed:
    return WarehouseFeed(
        message.warehouse_id,
        time_ms(message.last_received_time),
        time_ms(message.last_occur_time),
        time_ms(message.last_heard_time),
        time_ms(message.lag),
        message.stale,
        time_ms(message.expected_interval),
        message.received_count,
        message.applied_count,
        message.duplicate_count,
        message.waiting_count,
        message.rejected_count,
    )


def heartbeat_taken(message: Any) -> HeartbeatTaken:
    """HeartbeatResult."""
    reason = ""
    if message.HasField("error"):
        failure = failed(message.error)
        reason = f"{failure.reason or failure.code}: {failure.message}"
    return HeartbeatTaken(message.watermark, message.highest_sequence, message.waiting_count, reason)


def stock_exception(message: Any) -> StockException:
    """StockException."""
    return StockException(
        message.exception_id,
        KINDS.get(message.kind, str(message.kind)),
        EXCEPTION_STATES.get(message.state, str(message.state)),
        stock_key(message.stock_key),
        message.message,
        message.quantity,
        tuple(message.reservation_ids),
        message.source_id,
        message.event_id,
        message.request_id,
        message.channel_id,
        time_ms(message.open_time),
        time_ms(message.end_time),
        _rejection(message.reject_reason),
        PRIORITIES.get(message.priority, ""),
        message.owning_team,
        message.suggested_action,
        tuple(ACTIONS.get(action, str(action)) for action in message.actions),
        _event(message.event) if message.HasField("event") else {},
        message.cause.verb,
        message.cause.principal,
        message.cause.correlation_id,
        message.cause.stream_id,
        message.cause.source_sequence,
        time_ms(message.cause.occur_time),
        tuple(
            Handling(
                ACTIONS.get(one.action, str(one.action)),
                one.resolver,
                one.note,
                time_ms(one.time),
                _rejection(one.reject_reason),
            )
            for one in message.handlings
        ),
    )


def _event(message: Any) -> dict[str, Any]:
    """A WarehouseEvent in protobuf's JSON; without the times that no calendar has."""
    try:
        return json_format.MessageToDict(message, preserving_proto_field_name=True)
    except (json_format.Error, ValueError):
        told = type(message)()
        told.CopyFrom(message)
        told.ClearField("occur_time")
        told.ClearField("lot_expire_time")
        return json_format.MessageToDict(told, preserving_proto_field_name=True)


def _rejection(number: int) -> str:
    return REJECTIONS.get(number, str(number))
