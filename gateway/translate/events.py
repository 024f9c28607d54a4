"""Warehouse events → items, and what became of them → results.

A malformed event is an error of its own and reaches no shard. One that is well formed but cannot be understood (an
unknown fact or warehouse, a source that may not tell it) goes to its shard with the reason, to be rejected there on
record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actors.domain.commands import Verb
from actors.domain.outcomes import Disposition, Fact, IngestOutcome, RejectReason
from actors.domain.rules import ON_HAND_MAX
from gateway.config import GatewayConfig
from gateway.translate import digests
from gateway.translate.answers import position
from gateway.validation import SEQUENCE_MAX, Findings, KnownNames
from stockade.v1 import stock_key_pb2
from stockade.v1 import warehouse_event_service_pb2 as pb

Item = list[Any]
DISPOSITIONS = frozenset(map(int, Disposition))
_INGEST = int(Verb.INGEST)
_APPLIED, _DUPLICATE = int(IngestOutcome.APPLIED), int(IngestOutcome.DUPLICATE)
_REJECTED = int(IngestOutcome.REJECTED)


class EventRequests:
    """Reads warehouse events by the settings."""

    def __init__(self, config: GatewayConfig, names: KnownNames) -> None:
        self._names = names
        self._warehouses = config.warehouses

    def event(self, event: pb.WarehouseEvent, cause: Sequence[str], findings: Findings) -> Item:
        """The item of one event; not to be used when there are findings."""
        source_id, event_id = event.source_id, event.event_id
        findings.id("source_id", source_id)
        findings.id("event_id", event_id)
        findings.optional_id("stream_id", event.stream_id)
        sequence = event.source_sequence
        findings.quantity("source_sequence", sequence, 0, SEQUENCE_MAX)
        occur_time_ms = 0
        if event.HasField("occur_time"):
            occur_time_ms = findings.time_ms("occur_time", event.occur_time)
        else:
            findings.add("occur_time", "is required")
        key, _ = self._names.place_anywhere(event.stock_key, "stock_key", findings)
        findings.optional_id("document_id", event.document_id)
        findings.optional_id("document_line", event.document_line)
        findings.optional_id("lot_id", event.lot_id)
        findings.reserved("unit_code", event.unit_code)
        lot_expire_ms = 0
        if event.HasField("lot_expire_time"):
            lot_expire_ms = findings.time_ms("lot_expire_time", event.lot_expire_time)
        attributes = findings.labels("attributes", dict(event.attributes)) if event.attributes else ()
        fact, details = self._fact(event, findings)
        reject_reason = self._reject_reason(event.stock_key.warehouse_id, source_id, fact)
        body = [
            source_id, event.stream_id, event_id, sequence, occur_time_ms, key, b"", fact, details, event.document_id,
            event.document_line, event.lot_id, lot_expire_ms, attributes, reject_reason,
        ]  # fmt: skip
        if not findings:
            body[6] = digests.EVENT.of(event, has_map=bool(attributes))
        return [_INGEST, self._names.feed_shard(source_id), 0, 1, cause, body]

    def _fact(self, event: pb.WarehouseEvent, findings: Findings) -> tuple[int, list[Any]]:
        name = event.WhichOneof("fact")
        if name is None:  # not given, or one that only a newer version knows
            return 0, []
        fact, read = FACTS[name]
        return int(fact), read(getattr(event, name), Path(name, findings))

    def _reject_reason(self, warehouse_id: str, source_id: str, fact: int) -> int:
        if not fact:
            return int(RejectReason.UNKNOWN_FACT)
        warehouse = self._warehouses.get(warehouse_id)
        if warehouse is None:
            return int(RejectReason.UNKNOWN_WAREHOUSE)
        allowed = warehouse.sources.get(Fact(fact))
        if allowed is not None and source_id not in allowed:
            return int(RejectReason.SOURCE_NOT_ALLOWED)
        return 0


class Path:
    """Findings under the name of the fact. ``units`` and the like return what they checked."""

    __slots__ = ("_findings", "_name")

    def __init__(self, name: str, findings: Findings) -> None:
        self._name = name
        self._findings = findings

    def units(self, quantity: int, least: int = 1, field: str = "quantity") -> int:
        self._findings.stock_quantity(f"{self._name}.{field}", quantity, least)
        return quantity

    def disposition(
        self, number: int, default: Disposition | None = Disposition.SELLABLE, field: str = "disposition"
    ) -> int:
        if number == 0 and default is not None:
            return int(default)
        if number not in DISPOSITIONS:
            self._findings.choice(f"{self._name}.{field}", number, DISPOSITIONS)
        return number

    def id(self, field: str, text: str) -> str:
        self._findings.id(f"{self._name}.{field}", text)
        return text

    def optional_id(self, field: str, text: str) -> str:
        if text:
            self._findings.optional_id(f"{self._name}.{field}", text)
        return text

    def text(self, field: str, text: str) -> str:
        self._findings.text(f"{self._name}.{field}", text)
        return text

    def add(self, field: str, description: str) -> None:
        self._findings.add(f"{self._name}.{field}", description)

    def promise(self, fact: Any) -> list[str]:
        """[] or [reservation_id, channel_id, order_reference, line_id]. A promise of an unknown channel is kept as it
        is.
        """
        if not fact.HasField("promise"):
            return []
        promise: stock_key_pb2.Promise = fact.promise
        line_id = self.optional_id("promise.line_id", promise.line_id)
        target = promise.WhichOneof("target")
        if target == "reservation_id":
            return [self.id("promise.reservation_id", promise.reservation_id), "", "", line_id]
        if target == "order":
            order = promise.order
            channel_id = self.id("promise.order.channel_id", order.channel_id)
            return ["", channel_id, self.id("promise.order.order_reference", order.order_reference), line_id]
        self.add("promise", "give a reservation_id or an order, or no promise")
        return []


def _receipt(fact: pb.Receipt, at: Path) -> list[Any]:
    return [
        at.units(fact.quantity),
        at.disposition(fact.disposition),
        at.optional_id("inbound_reference", fact.inbound_reference),
        at.optional_id("inbound_line", fact.inbound_line),
    ]


def _pick(fact: pb.Pick | pb.Unpick, at: Path) -> list[Any]:
    return [at.units(fact.quantity), at.promise(fact)]


def _shipment(fact: pb.Shipment, at: Path) -> list[Any]:
    return [
        at.units(fact.quantity),
        at.id("shipment_id", fact.shipment_id),
        at.promise(fact),
        fact.close_remainder,
        at.disposition(fact.disposition),
    ]


def _adjustment(fact: pb.Adjustment, at: Path) -> list[Any]:
    delta = fact.delta
    if delta == 0 or abs(delta) > ON_HAND_MAX:
        at.add("delta", f"is {delta}; it must not be 0, and at most {ON_HAND_MAX} either way")
    return [
        delta,
        at.disposition(fact.disposition),
        at.optional_id("reason", fact.reason),
        at.text("note", fact.note),
    ]


def _stock_count(fact: pb.StockCount, at: Path) -> list[Any]:
    if fact.as_of_source_sequence < 0:
        at.add("as_of_source_sequence", "must not be negative")
    return [
        at.units(fact.quantity, 0),
        at.disposition(fact.disposition),
        fact.as_of_source_sequence,
        fact.take_as_now,
        fact.includes_picked,
    ]


def _disposition_change(fact: pb.DispositionChange, at: Path) -> list[Any]:
    before, after = fact.from_disposition, fact.to_disposition
    if before == after and before:
        at.add("to_disposition", "is the same as from_disposition")
    return [
        at.units(fact.quantity),
        at.disposition(before, None, "from_disposition"),
        at.disposition(after, None, "to_disposition"),
    ]


def _transfer_dispatch(fact: pb.TransferDispatch, at: Path) -> list[Any]:
    return [
        at.units(fact.quantity),
        at.id("transfer_id", fact.transfer_id),
        at.optional_id("transfer_line", fact.transfer_line),
        at.id("to_warehouse_id", fact.to_warehouse_id),
        at.disposition(fact.disposition),
    ]


def _transfer_receipt(fact: pb.TransferReceipt, at: Path) -> list[Any]:
    return [
        at.units(fact.quantity),
        at.id("transfer_id", fact.transfer_id),
        at.optional_id("transfer_line", fact.transfer_line),
        at.id("from_warehouse_id", fact.from_warehouse_id),
        fact.final,
        at.disposition(fact.disposition),
    ]


def _customer_return(fact: pb.CustomerReturn, at: Path) -> list[Any]:
    return [
        at.units(fact.quantity),
        at.disposition(fact.disposition, Disposition.QUALITY_HOLD),
        at.promise(fact),
        at.optional_id("return_id", fact.return_id),
    ]


# The name in the oneof → the domain's fact and what reads its details, in the order of ``commands.Ingest``.
FACTS: dict[str, tuple[Fact, Callable[[Any, Path], list[Any]]]] = {
    "receipt": (Fact.RECEIPT, _receipt),
    "pick": (Fact.PICK, _pick),
    "unpick": (Fact.UNPICK, _pick),
    "shipment": (Fact.SHIPMENT, _shipment),
    "adjustment": (Fact.ADJUSTMENT, _adjustment),
    "stock_count": (Fact.STOCK_COUNT, _stock_count),
    "disposition_change": (Fact.DISPOSITION_CHANGE, _disposition_change),
    "transfer_dispatch": (Fact.TRANSFER_DISPATCH, _transfer_dispatch),
    "transfer_receipt": (Fact.TRANSFER_RECEIPT, _transfer_receipt),
    "customer_return": (Fact.CUSTOMER_RETURN, _customer_return),
}


def fill_result(result: pb.IngestResult, timeline: str, view: Sequence[Any]) -> str:
    """Put an ``IngestView`` into a result; returns the outcome's name for the metrics."""
    event_id, outcome, place, shortage_quantity, exception_id, reject_reason = view[:6]
    result.event_id = event_id
    if outcome == _APPLIED:
        result.applied.MergeFrom(
            pb.Applied(
                position=position(timeline, place), shortage_quantity=shortage_quantity, exception_id=exception_id
            )
        )
    elif outcome == _DUPLICATE:
        result.duplicate.position.CopyFrom(position(timeline, place))
    elif outcome == _REJECTED:
        result.rejected.reason = reject_reason
        result.rejected.exception_id = exception_id
    else:
        place_awaited, until_ms = view[8:10] if len(view) > 9 else (0, 0)  # an older host says nothing  # noqa: PLR2004
        result.deferred.reason = f"waits for all that its source told up to {place_awaited}"
        result.deferred.waits_for_sequence = place_awaited
        result.deferred.until_time.FromMilliseconds(until_ms)
    return IngestOutcome(outcome).name.lower() if outcome in _OUTCOMES else "deferred"


_OUTCOMES = frozenset(map(int, IngestOutcome))
