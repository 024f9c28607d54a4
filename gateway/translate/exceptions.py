"""Requests of ExceptionService → items, and exceptions → messages, with their events as they were sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from actors.domain.answers import ExceptionView
from actors.domain.commands import Ingest, Verb
from actors.domain.outcomes import ExceptionKind, ExceptionPriority, ExceptionState, Fact, ResolveAction
from gateway.translate import digests
from gateway.translate.answers import stock_key, timestamp
from gateway.translate.events import EventRequests
from gateway.validation import Findings, KnownNames
from stockade.v1 import exception_service_pb2 as pb
from stockade.v1 import stock_key_pb2, warehouse_event_service_pb2

Item = list[Any]
EXCEPTION_KINDS = frozenset(map(int, ExceptionKind))
EXCEPTION_STATES = frozenset(map(int, ExceptionState))
PRIORITIES = frozenset(map(int, ExceptionPriority))
ACTIONS = frozenset(map(int, ResolveAction))
_VIEW_SIZE = len(ExceptionView._fields)
_NO_REST = (0, "", "", (), (), (), ())  # what an older host does not tell
_VERBS = {int(verb): verb.name.lower() for verb in Verb}


class ExceptionRequests:
    """Reads requests by the settings."""

    def __init__(self, names: KnownNames, events: EventRequests) -> None:
        self._names = names
        self._events = events

    def filters(self, request: pb.ListExceptionsRequest, findings: Findings) -> tuple[list[Any], int, list[Any]]:
        """What stands before the page in ``commands.ListExceptions``, the page size, and what stands after it."""
        kinds, states, priorities = list(request.kinds), list(request.states), list(request.priorities)
        for index, kind in enumerate(kinds):
            findings.choice(f"kinds[{index}]", kind, EXCEPTION_KINDS)
        for index, state in enumerate(states):
            findings.choice(f"states[{index}]", state, EXCEPTION_STATES)
        for index, priority in enumerate(priorities):
            findings.choice(f"priorities[{index}]", priority, PRIORITIES)
        if request.warehouse_id:
            findings.id("warehouse_id", request.warehouse_id)  # unknown ones have exceptions too
        findings.optional_id("source_id", request.source_id)
        findings.text("owning_team", request.owning_team)
        key = ""
        if request.HasField("stock_key"):
            key, _ = self._names.place_anywhere(request.stock_key, "stock_key", findings)
        since = findings.time_ms("open_from_time", request.open_from_time) if request.HasField("open_from_time") else 0
        until = findings.time_ms("open_to_time", request.open_to_time) if request.HasField("open_to_time") else 0
        rest = [priorities, request.owning_team, since, until, request.newest_first, request.source_id]
        return [kinds, request.warehouse_id, key, states], findings.page_size("page_size", request.page_size), rest

    def get(self, request: pb.GetExceptionRequest, cause: Sequence[str], findings: Findings) -> Item:
        findings.id("exception_id", request.exception_id)
        shard = 0 if findings else self._names.exception_shard(request.exception_id)
        return [int(Verb.GET_EXCEPTION), shard, 0, 1, cause, [request.exception_id]]

    def resolve(self, request: pb.ResolveExceptionRequest, cause: Sequence[str], findings: Findings) -> Item:
        request_id, exception_id, note, resolver = (
            request.request_id,
            request.exception_id,
            request.note,
            request.resolver,
        )
        findings.id("request_id", request_id)
        findings.id("exception_id", exception_id)
        findings.choice("action", request.action, ACTIONS)
        findings.text("note", note)
        if not note.strip():
            findings.add("note", "is required: why is it resolved so?")
        findings.optional_id("resolver", resolver)
        if not resolver and not (cause and cause[0]):
            findings.add("resolver", "is required where no credential says who it is")
        corrects = request.action == pb.RESOLVE_ACTION_CORRECT_AND_RETRY
        if request.HasField("corrected_event") != corrects:
            findings.add("corrected_event", "is required with CORRECT_AND_RETRY, and allowed with nothing else")
        digest = b"" if findings else digests.RESOLVE_EXCEPTION.of(request, has_map=corrects)
        corrected: list[Any] = []
        if corrects and request.HasField("corrected_event"):
            found = Findings()
            corrected = self._events.event(request.corrected_event, cause, found)[5]
            for violation in found:
                findings.add(f"corrected_event.{violation.field}", violation.description)
        shard = 0 if findings else self._names.exception_shard(exception_id)
        body = [request_id, digest, exception_id, int(request.action), note, resolver, corrected]
        return [int(Verb.RESOLVE_EXCEPTION), shard, 0, 1, cause, body]


def stock_exception(view: Sequence[Any]) -> pb.StockException:
    """An ``ExceptionView``."""
    (
        exception_id, kind, state, key, text, quantity, reservation_ids, source_id, event_id, request_id, channel_id,
        open_ms, end_ms, reject_reason, priority, team, suggested, actions, payload, cause, handlings,
    ) = [*view, *_NO_REST[len(view) - 14 :]][:_VIEW_SIZE]  # fmt: skip
    message = pb.StockException(
        exception_id=exception_id,
        kind=kind,
        state=state,
        stock_key=stock_key(key) if key else None,
        message=text,
        quantity=quantity,
        reservation_ids=reservation_ids,
        source_id=source_id,
        event_id=event_id,
        request_id=request_id,
        channel_id=channel_id,
        open_time=timestamp(open_ms),
        end_time=timestamp(end_ms),
        reject_reason=reject_reason,
        priority=priority,
        owning_team=team,
        suggested_action=suggested,
        actions=actions,
        event=event_of(payload) if payload else None,
    )
    if cause:
        verb, principal, correlation_id, stream_id, sequence, occur_ms = cause[:6]
        message.cause.MergeFrom(
            pb.ExceptionCause(
                verb=_VERBS.get(verb, ""),
                principal=principal,
                correlation_id=correlation_id,
                stream_id=stream_id,
                source_sequence=sequence,
                occur_time=timestamp(occur_ms),
            )
        )
    for time_ms, action, resolver, note, reason in handlings:
        message.handlings.add(
            action=action, resolver=resolver, note=note, time=timestamp(time_ms), reject_reason=reason
        )
    return message


# The fact's name in the oneof, and the fields that its details are, in the order of ``commands.Ingest``.
_FACTS: dict[int, tuple[str, tuple[str, ...]]] = {
    Fact.RECEIPT: ("receipt", ("quantity", "disposition", "inbound_reference", "inbound_line")),
    Fact.PICK: ("pick", ("quantity", "promise")),
    Fact.UNPICK: ("unpick", ("quantity", "promise")),
    Fact.SHIPMENT: ("shipment", ("quantity", "shipment_id", "promise", "close_remainder", "disposition")),
    Fact.ADJUSTMENT: ("adjustment", ("delta", "disposition", "reason", "note")),
    Fact.STOCK_COUNT: (
        "stock_count",
        ("quantity", "disposition", "as_of_source_sequence", "take_as_now", "includes_picked"),
    ),
    Fact.DISPOSITION_CHANGE: ("disposition_change", ("quantity", "from_disposition", "to_disposition")),
    Fact.TRANSFER_DISPATCH: (
        "transfer_dispatch",
        ("quantity", "transfer_id", "transfer_line", "to_warehouse_id", "disposition"),
    ),
    Fact.TRANSFER_RECEIPT: (
        "transfer_receipt",
        ("quantity", "transfer_id", "transfer_line", "from_warehouse_id", "final", "disposition"),
    ),
    Fact.CUSTOMER_RETURN: ("customer_return", ("quantity", "disposition", "promise", "return_id")),
}


def event_of(payload: Sequence[Any]) -> warehouse_event_service_pb2.WarehouseEvent:
    """The event that an ``Ingest`` was made of; defaults are written out. An unknown fact has none."""
    told = Ingest(*payload)
    event = warehouse_event_service_pb2.WarehouseEvent(
        source_id=told.source_id,
        stream_id=told.stream_id,
        event_id=told.event_id,
        source_sequence=told.source_sequence,
        occur_time=timestamp(told.occur_time_ms),
        stock_key=stock_key(told.stock_key),
        document_id=told.document_id,
        document_line=told.document_line,
        lot_id=told.lot_id,
        lot_expire_time=timestamp(told.lot_expire_time_ms),
    )
    for name, value in told.attributes:
        event.attributes[name] = value
    if told.fact in _FACTS:
        name, fields = _FACTS[told.fact]
        _fill(getattr(event, name), fields, told.details)
    return event


def _fill(fact: Message, fields: Sequence[str], details: Sequence[Any]) -> None:
    fact.SetInParent()
    for field, value in zip(fields, details, strict=True):
        if field != "promise":
            setattr(fact, field, value)
        elif value:
            fact.promise.CopyFrom(_promise(value))  # type: ignore[attr-defined]


def _promise(value: Sequence[str]) -> stock_key_pb2.Promise:
    reservation_id, channel_id, order_reference, line_id = value
    if reservation_id:
        return stock_key_pb2.Promise(reservation_id=reservation_id, line_id=line_id)
    order = stock_key_pb2.OrderReference(channel_id=channel_id, order_reference=order_reference)
    return stock_key_pb2.Promise(order=order, line_id=line_id)
