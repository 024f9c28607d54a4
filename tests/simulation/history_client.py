"""Requests and results of the ``stockade`` client → operations of a history. Spelling only: nothing is decided here.

    call = Calls("web").reserve(...)                       # or the request message itself
    operations = attempted("client 1", call.request, invoked=now)
    answered(operations, result, returned=now)             # what the client returned: a result, or a list of them
    failed(operations, error, returned=now)                # what it raised

A batch is one operation an item, all with the call's own times. Calls that a history does not hold (lists, explanations)
give no operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stockade.client.errors import StockadeError
from stockade.client.results import (
    Availability,
    Failed,
    Granted,
    Ingested,
    Line,
    Position,
    Refused,
    Reservation,
    Stock,
)
from stockade.v1 import reservation_service_pb2, stock_key_pb2, stock_service_pb2
from tests.simulation.history import NOT_DONE, OK, REFUSED, UNKNOWN, Key, LineSeen, Operation, Place

FACT_NAMES = {
    "receipt": "RECEIPT",
    "pick": "PICK",
    "unpick": "UNPICK",
    "shipment": "SHIPMENT",
    "adjustment": "ADJUSTMENT",
    "stock_count": "STOCK_COUNT",
    "disposition_change": "DISPOSITION_CHANGE",
    "transfer_dispatch": "TRANSFER_DISPATCH",
    "transfer_receipt": "TRANSFER_RECEIPT",
    "customer_return": "CUSTOMER_RETURN",
}

# What histories hold of a reserve's answer, whether its caller was told more (a call of its own) or not (in a batch).
OF_A_RESERVE = ("reservation_id", "state", "version", "create_time_ms", "expire_time_ms", "lines")


def attempted(client: str, request: Any, invoked: float) -> list[Operation]:
    """Operations of a request message that is about to be sent; one an item of a batch."""
    return [Operation(client, verb, arguments, invoked) for verb, arguments in asked(request)]


def answered(operations: Sequence[Operation], result: Any, returned: float) -> None:
    """Put what the client returned into its operations."""
    results = result if isinstance(result, list | tuple) else [result]
    if len(operations) == 1 and operations[0].verb == "get_availability" and isinstance(result, list):
        raise ValueError("a batch of availabilities is one operation a key: see asked")
    for operation, one in zip(operations, results, strict=True):
        operation.returned = returned
        _answer(operation, one)


def failed(operations: Sequence[Operation], error: BaseException, returned: float) -> None:
    """The call raised: not done, or unknown."""
    for operation in operations:
        operation.returned = returned
        not_done = isinstance(error, StockadeError) and error.outcome == "not_done"
        operation.status = NOT_DONE if not_done else UNKNOWN
        operation.answer = {"error": getattr(error, "reason", "") or type(error).__name__}


# --- requests ---------------------------------------------------------------------------------------------------------


def asked(request: Any) -> list[tuple[str, dict[str, Any]]]:
    """Verbs and plain arguments of a request message."""
    name = request.DESCRIPTOR.name.removesuffix("Request")
    if name == "ReserveStock":
        return [_reserve(request)]
    if name == "BatchReserveStock":
        return [_reserve(one) for one in request.requests]
    if name == "IngestEvents":
        return [_ingest(event) for event in request.events]
    if name == "RegisterStock":
        return [_register(request.request_id, one) for one in request.registrations]
    if name == "BatchGetAvailability":
        return [_availability(request.channel_id, key) for key in request.stock_keys]
    return [SINGLE[name](request)] if name in SINGLE else []


def _key(message: Any) -> Key:
    return (message.warehouse_id, message.sku)


def _ms(message: Any, field: str) -> int:
    if not message.HasField(field):
        return 0
    value = getattr(message, field)
    return int(value.seconds * 1000 + value.nanos // 1_000_000)


def _name(enum: Any, prefix: str, number: int, default: str = "") -> str:
    return str(enum.Name(number)).removeprefix(prefix) if number else default


def _lines(lines: Sequence[Any]) -> tuple[tuple[str, Key, int, int], ...]:
    return tuple(
        (line.line_id or str(index), _key(line.stock_key), line.quantity, line.minimum_quantity)
        for index, line in enumerate(lines)
    )


def _reserve(request: Any) -> tuple[str, dict[str, Any]]:
    fill = _name(reservation_service_pb2.FillPolicy, "FILL_POLICY_", request.fill_policy, "ALL_OR_NOTHING")
    return "reserve", {
        "request_id": request.request_id,
        "channel_id": request.channel_id,
        "lines": _lines(request.lines),
        "ttl_ms": _ms(request, "ttl"),
        "confirm": request.confirm,
        "fill_policy": fill,
        "admission": _name(reservation_service_pb2.Admission, "ADMISSION_", request.admission, "WHEN_COVERED"),
        "order_reference": request.order_reference,
        "customer_id": request.customer_id,
        "replaces_reservation_id": request.replaces_reservation_id,
        "labels": tuple(sorted(request.labels.items())),
    }


def _confirm(request: Any) -> tuple[str, dict[str, Any]]:
    names = ("request_id", "reservation_id", "order_reference", "expected_version")
    return "confirm", {name: getattr(request, name) for name in names}


def _release(request: Any) -> tuple[str, dict[str, Any]]:
    reason = _name(reservation_service_pb2.ReleaseReason, "RELEASE_REASON_", request.reason)
    arguments = {
        "request_id": request.request_id,
        "lines": tuple((line.line_id, line.quantity) for line in request.lines),
        "reason": reason,
        "note": request.note,
    }
    if request.WhichOneof("target") == "reservation_id":
        return "release", {**arguments, "reservation_id": request.reservation_id}
    by = {"channel_id": request.reserve.channel_id, "reserve_request_id": request.reserve.request_id}
    return "release_by_request", {**arguments, **by}


def _extend(request: Any) -> tuple[str, dict[str, Any]]:
    ids = {"request_id": request.request_id, "reservation_id": request.reservation_id}
    return "extend", {**ids, "ttl_ms": _ms(request, "ttl")}


def _amend(request: Any) -> tuple[str, dict[str, Any]]:
    return "amend", {
        "request_id": request.request_id,
        "reservation_id": request.reservation_id,
        "target_lines": _lines(request.target_lines),
        "removed_line_ids": tuple(request.removed_line_ids),
        "expected_version": request.expected_version,
    }


def _fulfill(request: Any) -> tuple[str, dict[str, Any]]:
    return "fulfill", {
        "request_id": request.request_id,
        "reservation_id": request.reservation_id,
        "shipment_id": request.shipment_id,
        "lines": tuple((line.line_id, line.quantity, line.document_line) for line in request.lines),
        "close_remainder": request.close_remainder,
        "occur_time_ms": _ms(request, "occur_time"),
    }


def _availability(channel_id: str, key: Any) -> tuple[str, dict[str, Any]]:
    return "get_availability", {"channel_id": channel_id, "keys": (_key(key),)}


def _policy(policy: Any) -> dict[str, Any]:
    def given(name: str) -> int | None:
        return int(getattr(policy, name)) if policy.HasField(name) else None

    return {
        "safety_stock_quantity": given("safety_stock_quantity"),
        "selling_state": _name(stock_key_pb2.SellingState, "SELLING_STATE_", policy.selling_state),
        "max_quantity_per_order": given("max_quantity_per_order"),
        "base_unit": policy.base_unit,
        "item_state": _name(stock_service_pb2.ItemState, "ITEM_STATE_", policy.item_state),
        "receipt_disposition": _name(stock_key_pb2.Disposition, "DISPOSITION_", policy.receipt_disposition),
        "recalled_lots": tuple(policy.recalled_lots.lot_ids) if policy.HasField("recalled_lots") else None,
    }


def _register(request_id: str, one: Any) -> tuple[str, dict[str, Any]]:
    return "register_stock", {"request_id": request_id, "key": _key(one.stock_key), **_policy(one.policy)}


def _set_policy(request: Any) -> tuple[str, dict[str, Any]]:
    ids = {"request_id": request.request_id, "key": _key(request.stock_key)}
    return "set_stock_policy", {**ids, **_policy(request.policy), "expected_version": request.expected_version}


def _selling(verb: str, request: Any) -> tuple[str, dict[str, Any]]:
    return verb, {"request_id": request.request_id, "key": _key(request.stock_key), "note": request.note}


def _promise(message: Any) -> tuple[str, ...]:
    if not message.HasField("promise"):
        return ()
    promise = message.promise
    if promise.WhichOneof("target") == "reservation_id":
        return (promise.reservation_id, "", "", promise.line_id)
    return ("", promise.order.channel_id, promise.order.order_reference, promise.line_id)


def _ingest(event: Any) -> tuple[str, dict[str, Any]]:
    which = event.WhichOneof("fact")
    fact = FACT_NAMES.get(which, "UNKNOWN 0")
    details: dict[str, Any] = {}
    if which is not None:
        message = getattr(event, which)
        for field in message.DESCRIPTOR.fields:
            name = field.name
            if name == "promise":
                details[name] = _promise(message)
            elif name.endswith("disposition"):
                default = "QUALITY_HOLD" if which == "customer_return" else "SELLABLE"
                details[name] = _name(stock_key_pb2.Disposition, "DISPOSITION_", getattr(message, name), default)
            else:
                details[name] = getattr(message, name)
    names = ("source_id", "stream_id", "event_id", "source_sequence", "document_id", "document_line", "lot_id")
    return "ingest", {
        **{name: getattr(event, name) for name in names},
        "occur_time_ms": _ms(event, "occur_time"),
        "key": _key(event.stock_key),
        "fact": fact,
        "details": details,
        "lot_expire_time_ms": _ms(event, "lot_expire_time"),
        "attributes": tuple(sorted(event.attributes.items())),
        "reject_reason": "",
    }


SINGLE: dict[str, Any] = {
    "ConfirmReservation": _confirm,
    "ReleaseReservation": _release,
    "ExtendReservation": _extend,
    "AmendReservation": _amend,
    "FulfillReservation": _fulfill,
    "GetReservation": lambda request: ("get_reservation", {"reservation_id": request.reservation_id}),
    "GetAvailability": lambda request: _availability(request.channel_id, request.stock_key),
    "GetStock": lambda request: ("get_stock", {"key": _key(request.stock_key)}),
    "SetStockPolicy": _set_policy,
    "SuspendSelling": lambda request: _selling("suspend_selling", request),
    "ResumeSelling": lambda request: _selling("resume_selling", request),
}


# --- results ----------------------------------------------------------------------------------------------------------


def _answer(operation: Operation, result: Any) -> None:
    if isinstance(result, Failed):
        operation.status = NOT_DONE if result.outcome == "not_done" else UNKNOWN
        operation.answer = {"error": result.reason or result.code}
        return
    if isinstance(result, Ingested):
        _ingested(operation, result)
        return
    operation.replayed = bool(getattr(result, "replayed", False))
    _at(operation, result.position, getattr(result, "other_positions", ()))
    if isinstance(result, Refused):
        operation.status = REFUSED
        operation.answer = {
            "reason": result.reason,
            "state": result.state,
            "version": result.version,
            "shortages": tuple(
                (
                    short.line_id,
                    _key(short.stock_key),
                    short.requested_quantity,
                    short.available_quantity,
                    short.reason,
                )
                for short in result.shortages
            ),
        }
        return
    operation.status = OK
    if isinstance(result, Granted):
        operation.answer = _granted(operation.arguments, result)
    elif isinstance(result, Reservation):
        told = _reservation(result)
        operation.answer = {name: told[name] for name in OF_A_RESERVE} if operation.verb == "reserve" else told
    elif isinstance(result, Availability):
        operation.answer = {"items": ((result.available_quantity, result.known),)}
    elif isinstance(result, Stock):
        operation.answer = _stock(result)
    else:
        raise TypeError(f"a history does not hold {type(result).__name__}")


def _at(operation: Operation, position: Position, others: Sequence[Position]) -> None:
    operation.home, operation.time_ms = position.shard, position.time_ms
    operation.positions = {
        other.shard: Place(other.timeline, other.epoch, other.sequence) for other in (*others, position)
    }


def _seen(line: Line) -> LineSeen:
    return LineSeen(
        line.line_id,
        _key(line.stock_key),
        line.requested_quantity,
        line.granted_quantity,
        line.fulfilled_quantity,
        line.released_quantity,
        line.expired_quantity,
        line.picked_quantity,
        line.uncovered_quantity,
        line.imposed,
    )


def _granted(arguments: dict[str, Any], result: Granted) -> dict[str, Any]:
    if result.lines is None:
        asked_lines = arguments["lines"]
        lines = tuple(LineSeen(line_id, key, quantity, quantity) for line_id, key, quantity, _ in asked_lines)
    else:
        lines = tuple(map(_seen, result.lines))
    return {"reservation_id": result.reservation_id, "expire_time_ms": result.expire_time_ms, "lines": lines}


def _reservation(result: Reservation) -> dict[str, Any]:
    return {
        "reservation_id": result.reservation_id,
        "channel_id": result.channel_id,
        "customer_id": result.customer_id,
        "order_reference": result.order_reference,
        "state": result.state,
        "version": result.version,
        "lines": tuple(map(_seen, result.lines)),
        "create_time_ms": result.create_time_ms,
        "expire_time_ms": result.expire_time_ms,
        "confirm_time_ms": result.confirm_time_ms,
        "end_time_ms": result.end_time_ms,
    }


def _stock(result: Stock) -> dict[str, Any]:
    return {
        "key": _key(result.stock_key),
        "on_hand": {name: units for name, units in result.on_hand.items() if units},
        "held": result.held_quantity,
        "confirmed": result.confirmed_quantity,
        "picked": result.picked_quantity,
        "picked_adrift": result.picked_adrift_quantity,
        "shortage": result.shortage_quantity,
        "safety_stock": result.safety_stock_quantity,
        "selling_state": result.selling_state,
        "max_quantity_per_order": result.max_quantity_per_order,
        "base_unit": result.base_unit,
        "policy_version": result.policy_version,
        "available": result.available_quantity,
        "item_state": result.item_state,
        "receipt_disposition": result.receipt_disposition,
        "recalled_lots": tuple(result.recalled_lot_ids),
        "in_transit": result.in_transit_quantity,
    }


def _ingested(operation: Operation, result: Ingested) -> None:
    if result.outcome == "FAILED":
        operation.status = UNKNOWN
        operation.answer = {"error": result.reason}
        return
    operation.status = OK
    operation.answer = {"outcome": result.outcome}
    operation.replayed = result.outcome == "DUPLICATE"
    if result.outcome == "APPLIED":
        operation.answer |= {"shortage": result.shortage_quantity, "exception_id": result.exception_id}
    if result.outcome == "REJECTED":
        operation.answer |= {"exception_id": result.exception_id, "reject_reason": result.reason}
    if result.position is not None:
        _at(operation, result.position, ())
