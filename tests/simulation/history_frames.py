"""Frame items and replies → operations of a history. Spelling only: nothing is decided here.

operation = attempted("client 1", item, invoked=now)      # before it is sent
answered(operation, reply, timeline, returned=now)        # for each that got a reply; lost ones stay unknown
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.commands import COMMANDS, Verb
from actors.domain.keys import split_stock_key
from actors.domain.outcomes import (
    Admission,
    Disposition,
    ErrorReason,
    Fact,
    FillPolicy,
    IngestOutcome,
    ItemState,
    RefusalReason,
    RejectReason,
    ReleaseReason,
    ReservationState,
    SaleGateReason,
    SellingState,
)
from tests.simulation.history import (
    FACT_DETAILS,
    NOT_DONE,
    OK,
    REFUSED,
    UNKNOWN,
    Key,
    LineSeen,
    Operation,
    Place,
)

# Errors after which the call may have happened all the same.
UNCERTAIN = frozenset((ErrorReason.DEADLINE_EXCEEDED, ErrorReason.INTERNAL))
DISPOSITION_FIELDS = frozenset(("disposition", "from_disposition", "to_disposition"))


def plain_key(key: str) -> Key:
    """A stock key as a history spells it."""
    parts = split_stock_key(key)
    return (parts.warehouse_id, parts.sku)


def attempted(client: str, item: Sequence[Any], invoked: float) -> Operation:
    """An operation for an item that is about to be sent. Raises KeyError for a verb that histories do not hold."""
    verb, arguments = asked(item)
    body = item[5]
    digest = body[6] if item[0] == Verb.INGEST else body[1] if item[0] < 10 or 30 <= item[0] < 40 else b""
    return Operation(client, verb, arguments, invoked, digest=digest)


def asked(item: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """The verb and its plain arguments."""
    return ASKED[item[0]](COMMANDS[item[0]](*item[5]))


def _lines(lines: Sequence[Sequence[Any]]) -> tuple[tuple[str, Key, int, int], ...]:
    return tuple((line_id, plain_key(key), quantity, minimum) for line_id, key, quantity, minimum in lines)


def _rows(rows: Sequence[Sequence[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, rows))


def _reserve(command: Any) -> tuple[str, dict[str, Any]]:
    return "reserve", {
        "request_id": command.request_id,
        "channel_id": command.channel_id,
        "lines": _lines(command.lines),
        "ttl_ms": command.ttl_ms,
        "confirm": command.confirm,
        "fill_policy": FillPolicy(command.fill_policy).name,
        "admission": Admission(command.admission).name,
        "order_reference": command.order_reference,
        "customer_id": command.customer_id,
        "replaces_reservation_id": command.replaces_reservation_id,
        "labels": _rows(command.labels),
    }


def _confirm(command: Any) -> tuple[str, dict[str, Any]]:
    return "confirm", {
        "request_id": command.request_id,
        "reservation_id": command.reservation_id,
        "order_reference": command.order_reference,
        "expected_version": command.expected_version,
    }


def _release(command: Any) -> tuple[str, dict[str, Any]]:
    arguments = {
        "request_id": command.request_id,
        "lines": _rows(command.lines),
        "reason": ReleaseReason(command.reason).name,
        "note": command.note,
    }
    if command.reservation_id:
        return "release", {**arguments, "reservation_id": command.reservation_id}
    by = {"channel_id": command.channel_id, "reserve_request_id": command.reserve_request_id}
    return "release_by_request", {**arguments, **by}


def _extend(command: Any) -> tuple[str, dict[str, Any]]:
    return "extend", {
        "request_id": command.request_id,
        "reservation_id": command.reservation_id,
        "ttl_ms": command.ttl_ms,
    }


def _amend(command: Any) -> tuple[str, dict[str, Any]]:
    return "amend", {
        "request_id": command.request_id,
        "reservation_id": command.reservation_id,
        "target_lines": _lines(command.target_lines),
        "removed_line_ids": tuple(command.removed_line_ids),
        "expected_version": command.expected_version,
    }


def _fulfill(command: Any) -> tuple[str, dict[str, Any]]:
    return "fulfill", {
        "request_id": command.request_id,
        "reservation_id": command.reservation_id,
        "shipment_id": command.shipment_id,
        "lines": _rows(command.lines),
        "close_remainder": command.close_remainder,
        "occur_time_ms": command.occur_time_ms,
    }


def _policy(command: Any) -> dict[str, Any]:
    safety, limit = command.safety_stock_quantity, command.max_quantity_per_order
    return {
        "request_id": command.request_id,
        "key": plain_key(command.stock_key),
        "safety_stock_quantity": safety if safety >= 0 else None,
        "selling_state": SellingState(command.selling_state).name if command.selling_state else "",
        "max_quantity_per_order": limit if limit >= 0 else None,
        "base_unit": command.base_unit,
        "item_state": ItemState(command.item_state).name if command.item_state else "",
        "receipt_disposition": Disposition(command.receipt_disposition).name if command.receipt_disposition else "",
        "recalled_lots": tuple(command.recalled_lot_ids[0]) if command.recalled_lot_ids else None,
    }


def _set_selling(command: Any) -> tuple[str, dict[str, Any]]:
    verb = "suspend_selling" if command.selling_state == SellingState.SUSPENDED else "resume_selling"
    key = plain_key(command.stock_key)
    return verb, {"request_id": command.request_id, "key": key, "note": command.note}


def _ingest(command: Any) -> tuple[str, dict[str, Any]]:
    known = command.fact in Fact.__members__.values()
    fact = Fact(command.fact).name if known else f"UNKNOWN {command.fact}"
    details: dict[str, Any] = dict(zip(FACT_DETAILS.get(fact, ()), command.details, strict=False))
    for name, value in details.items():
        if name in DISPOSITION_FIELDS:
            details[name] = Disposition(value).name
        elif name == "promise":
            details[name] = tuple(value)
    return "ingest", {
        "source_id": command.source_id,
        "stream_id": command.stream_id,
        "event_id": command.event_id,
        "source_sequence": command.source_sequence,
        "occur_time_ms": command.occur_time_ms,
        "key": plain_key(command.stock_key),
        "fact": fact,
        "details": details,
        "document_id": command.document_id,
        "document_line": command.document_line,
        "lot_id": command.lot_id,
        "lot_expire_time_ms": command.lot_expire_time_ms,
        "attributes": _rows(command.attributes),
        "reject_reason": RejectReason(command.reject_reason).name if command.reject_reason else "",
    }


ASKED: dict[int, Any] = {
    Verb.RESERVE: _reserve,
    Verb.CONFIRM: _confirm,
    Verb.RELEASE: _release,
    Verb.EXTEND: _extend,
    Verb.AMEND: _amend,
    Verb.FULFILL: _fulfill,
    Verb.GET_RESERVATION: lambda command: ("get_reservation", {"reservation_id": command.reservation_id}),
    Verb.GET_AVAILABILITY: lambda command: (
        "get_availability",
        {"channel_id": command.channel_id, "keys": tuple(map(plain_key, command.stock_keys))},
    ),
    Verb.GET_STOCK: lambda command: ("get_stock", {"key": plain_key(command.stock_key)}),
    Verb.REGISTER_STOCK: lambda command: ("register_stock", _policy(command)),
    Verb.SET_STOCK_POLICY: lambda command: (
        "set_stock_policy",
        {**_policy(command), "expected_version": command.expected_version},
    ),
    Verb.SET_SELLING: _set_selling,
    Verb.INGEST: _ingest,
}


# --- answers ----------------------------------------------------------------------------------------------------------


def answered(operation: Operation, reply: Sequence[Any], timeline: str, returned: float) -> Operation:
    """Put a host's reply into its operation."""
    operation.returned = returned
    status, replayed, payload = reply[0], reply[1], reply[2]
    if status == 2:
        reason = ErrorReason(reply[1])
        operation.status = UNKNOWN if reason in UNCERTAIN else NOT_DONE
        operation.answer = {"error": reason.name}
        return operation
    operation.replayed = bool(replayed)
    if status == 1:
        operation.status = REFUSED
        operation.answer = _refusal(payload)
        _at(operation, timeline, payload[4], payload[5] if len(payload) > 5 else ())
        return operation
    operation.status = OK
    if operation.verb == "reserve":
        operation.answer = _granted(operation.arguments, payload)
        _at(operation, timeline, payload[5], payload[7])
    elif operation.verb == "get_availability":
        operation.answer = {"items": tuple((item[0], bool(item[1])) for item in payload[0])}
        _at(operation, timeline, payload[1], ())
    elif operation.verb == "ingest":
        operation.answer = {
            "outcome": IngestOutcome(payload[1]).name,
            "shortage": payload[3],
            "exception_id": payload[4],
            "reject_reason": RejectReason(payload[5]).name if payload[5] else "",
            "booked_disposition": Disposition(payload[6]).name if payload[6] else "",
            "gate_reasons": tuple(SaleGateReason(reason).name for reason in payload[7]),
        }
        if not replayed:
            operation.answer["watermark"] = payload[10]
        _at(operation, timeline, payload[2], ())
    elif operation.verb in (
        "confirm",
        "release",
        "release_by_request",
        "extend",
        "amend",
        "fulfill",
        "get_reservation",
    ):
        operation.answer = _reservation(payload)
        _at(operation, timeline, payload[12], payload[13])
    else:
        operation.answer = stock_answer(payload)
        _at(operation, timeline, payload[13], ())
    return operation


def _at(operation: Operation, timeline: str, position: Sequence[int], others: Sequence[Sequence[int]]) -> None:
    operation.home, operation.time_ms = position[0], position[3]
    operation.positions = {other[0]: Place(timeline, other[1], other[2]) for other in (*others, position)}


def _seen_lines(lines: Sequence[Sequence[Any]]) -> tuple[LineSeen, ...]:
    return tuple(LineSeen._make((line[0], plain_key(line[1]), *line[2:9], bool(line[9]))) for line in lines)


def _granted(arguments: dict[str, Any], payload: Sequence[Any]) -> dict[str, Any]:
    reservation_id, state, version, create_ms, expire_ms, _, lines, _ = payload[:8]
    if lines is None:
        seen = tuple(LineSeen(line_id, key, quantity, quantity) for line_id, key, quantity, _ in arguments["lines"])
    else:
        seen = _seen_lines(lines)
    return {
        "reservation_id": reservation_id,
        "state": ReservationState(state).name,
        "version": version,
        "create_time_ms": create_ms,
        "expire_time_ms": expire_ms,
        "lines": seen,
    }


def _reservation(payload: Sequence[Any]) -> dict[str, Any]:
    return {
        "reservation_id": payload[0],
        "channel_id": payload[1],
        "customer_id": payload[2],
        "order_reference": payload[3],
        "state": ReservationState(payload[4]).name,
        "version": payload[5],
        "lines": _seen_lines(payload[6]),
        "create_time_ms": payload[8],
        "expire_time_ms": payload[9],
        "confirm_time_ms": payload[10],
        "end_time_ms": payload[11],
    }


def _refusal(payload: Sequence[Any]) -> dict[str, Any]:
    reason, shortages, state, version = payload[:4]
    return {
        "reason": RefusalReason(reason).name,
        "state": ReservationState(state).name if state else "",
        "version": version,
        "shortages": tuple(
            (line_id, plain_key(key) if key else ("", ""), wanted, available, RefusalReason(why).name)
            for line_id, key, wanted, available, why in shortages
        ),
    }


def stock_answer(payload: Sequence[Any]) -> dict[str, Any]:
    """A ``StockView``."""
    return {
        "key": plain_key(payload[0]),
        "on_hand": {Disposition(disposition).name: units for disposition, units in payload[1]},
        "held": payload[2],
        "confirmed": payload[3],
        "picked": payload[4],
        "picked_adrift": payload[5],
        "shortage": payload[6],
        "safety_stock": payload[7],
        "selling_state": SellingState(payload[8]).name,
        "max_quantity_per_order": payload[9],
        "base_unit": payload[10],
        "policy_version": payload[11],
        "available": payload[12],
        "item_state": ItemState(payload[14]).name,
        "receipt_disposition": Disposition(payload[15]).name,
        "recalled_lots": tuple(payload[16]),
        "in_transit": payload[17],
    }
