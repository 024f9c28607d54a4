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
from gateway.validation import NANOS_PER_SECOND, SEQUENCE_MAX, TIME_SECONDS_MAX, Findings, KnownNames, valid_id
from stockade.v1 import stock_key_pb2
from stockade.v1 import warehouse_event_service_pb2 as pb

Item = list[Any]
DISPOSITIONS = frozenset(map(int, Disposition))
_INGEST = int(Verb.INGEST)
_APPLIED, _DUPLICATE = int(IngestOutcome.APPLIED), int(IngestOutcome.DUPLICATE)
_REJECTED = int(IngestOutcome.REJECTED)
_UNKNOWN_FACT, _UNKNOWN_WAREHOUSE = int(RejectReason.UNKNOWN_FACT), int(RejectReason.UNKNOWN_WAREHOUSE)
_SOURCE_NOT_ALLOWED = int(RejectReason.SOURCE_NOT_ALLOWED)
_SELLABLE = int(Disposition.SELLABLE)
_ANYBODY: dict[int, frozenset[str]] = {}  # of a warehouse of which any source may tell any fact


class EventRequests:
    """Reads warehouse events by the settings. The way of a good event is kept short: a warehouse's rush hour is 40,000 a second."""

    def __init__(self, config: GatewayConfig, names: KnownNames) -> None:
        self._names = names
        self._placed = names.placed
        self._feeds = names.feeds
        # warehouse → fact → who may tell it; facts that anybody may tell are absent
        self._allowed = {
            warehouse_id: {int(fact): sources for fact, sources in warehouse.sources.items()}
            for warehouse_id, warehouse in config.warehouses.items()
        }

    def event(self, event: pb.WarehouseEvent, cause: Sequence[str], findings: Findings) -> Item:
        """The item of one event; not to be used when there are findings. The event loses its id."""
        source_id, event_id, stream_id = event.source_id, event.event_id, event.stream_id
        shard = self._feeds.get(source_id, -1)
        if shard < 0:
            shard = self._names.feed("source_id", source_id, findings)
        if not valid_id(event_id):
            findings.id("event_id", event_id)
        if stream_id and not valid_id(stream_id):
            findings.id("stream_id", stream_id)
        sequence = event.source_sequence
        if sequence < 0:
            findings.quantity("source_sequence", sequence, 0, SEQUENCE_MAX)
        occur_time_ms = self._occur_time_ms(event, findings)
        stock_key = event.stock_key
        warehouse_id = stock_key.warehouse_id
        skus = self._placed.get(warehouse_id)
        placed = skus.get(stock_key.sku) if skus is not None and not stock_key.owner_id else None
        key, _ = placed or self._names.place_anywhere(stock_key, "stock_key", findings)
        document_id, document_line, lot_id = event.document_id, event.document_line, event.lot_id
        if document_id and not valid_id(document_id):
            findings.id("document_id", document_id)
        if document_line and not valid_id(document_line):
            findings.id("document_line", document_line)
        if lot_id and not valid_id(lot_id):
            findings.id("lot_id", lot_id)
        if event.unit_code:
            findings.reserved("unit_code", event.unit_code)
        lot_expire_ms = 0
        if event.HasField("lot_expire_time"):
            lot_expire_ms = findings.time_ms("lot_expire_time", event.lot_expire_time)
        attributes = findings.labels("attributes", dict(event.attributes)) if event.attributes else ()
        name = event.WhichOneof("fact")
        if name is None:  # not given, or one that only a newer version knows
            fact, details = 0, []
        else:
            fact, read = FACTS[name]
            details = read(getattr(event, name), Path(name, findings))
        body: list[Any] = [source_id, stream_id, event_id, sequence, occur_time_ms, key, b"", fact, details]
        allowed_by_fact = self._allowed.get(warehouse_id)
        reject_reason = (
            0 if fact and allowed_by_fact == _ANYBODY else self._reject_reason(warehouse_id, source_id, fact)
        )
        if (
            document_id or document_line or lot_id or lot_expire_ms or attributes or reject_reason
        ):  # what is not said is not sent
            body += (document_id, document_line, lot_id, lot_expire_ms, attributes, reject_reason)
        if not findings:
            body[6] = digests.EVENT.of(event, has_map=bool(attributes))
        return [_INGEST, shard, 0, 1, cause, body]

    def _occur_time_ms(self, event: pb.WarehouseEvent, findings: Findings) -> int:
        time = event.occur_time
        seconds, nanos = time.seconds, time.nanos
        if 0 < seconds < TIME_SECONDS_MAX and 0 <= nanos < NANOS_PER_SECOND:
            return int(seconds * 1000 + nanos // 1_000_000)
        if not event.HasField("occur_time"):
            findings.add("occur_time", "is required")
            return 0
        return findings.time_ms("occur_time", time)

    def _reject_reason(self, warehouse_id: str, source_id: str, fact: int) -> int:
        if not fact:
            return _UNKNOWN_FACT
        allowed_by_fact = self._allowed.get(warehouse_id)
        if allowed_by_fact is None:
            return _UNKNOWN_WAREHOUSE
        allowed = allowed_by_fact.get(fact) if allowed_by_fact else None
        return _SOURCE_NOT_ALLOWED if allowed is not None and source_id not in allowed else 0


class Path:
    """Findings under the name of the fact. ``units`` and the like return what they checked."""

    __slots__ = ("_findings", "_name")

    def __init__(self, name: str, findings: Findings) -> None:
        self._name = name
        self._findings = findings

    def units(self, quantity: int, least: int = 1, field: str = "quantity") -> int:
        if not least <= quantity <= ON_HAND_MAX:
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
        if not valid_id(text):
            self._findings.id(f"{self._name}.{field}", text)
        return text

    def optional_id(self, field: str, text: str) -> str:
        if text and not valid_id(text):
            self._findings.id(f"{self._name}.{field}", text)
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
        promise: stock_key_pb2.Promise = fact.promise
        line_id = promise.line_id
        if line_id and not valid_id(line_id):
            self.id("promise.line_id", line_id)
        target = promise.WhichOneof("target")
        if target == "order":
            order = promise.order
            channel_id, order_reference = order.channel_id, order.order_reference
            if not (valid_id(channel_id) and valid_id(order_reference)):
                self.id("promise.order.channel_id", channel_id)
                self.id("promise.order.order_reference", order_reference)
            return ["", channel_id, order_reference, line_id]
        if target == "reservation_id":
            return [self.id("promise.reservation_id", promise.reservation_id), "", "", line_id]
        if fact.HasField("promise"):
            self.add("promise", "give a reservation_id or an order, or no promise")
        return []


def _receipt(fact: pb.Receipt, at: Path) -> list[Any]:
    return [
        at.units(fact.quantity),
        at.disposition(fact.disposition) if fact.disposition else _SELLABLE,
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
        at.disposition(fact.disposition) if fact.disposition else _SELLABLE,
    ]


def _adjustment(fact: pb.Adjustment, at: Path) -> list[Any]:
    delta, note = fact.delta, fact.note
    if delta == 0 or abs(delta) > ON_HAND_MAX:
        at.add("delta", f"is {delta}; it must not be 0, and at most {ON_HAND_MAX} either way")
    return [
        delta,
        at.disposition(fact.disposition) if fact.disposition else _SELLABLE,
        at.optional_id("reason", fact.reason),
        at.text("note", note) if note else "",
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
FACTS: dict[str, tuple[int, Callable[[Any, Path], list[Any]]]] = {
    "receipt": (int(Fact.RECEIPT), _receipt),
    "pick": (int(Fact.PICK), _pick),
    "unpick": (int(Fact.UNPICK), _pick),
    "shipment": (int(Fact.SHIPMENT), _shipment),
    "adjustment": (int(Fact.ADJUSTMENT), _adjustment),
    "stock_count": (int(Fact.STOCK_COUNT), _stock_count),
    "disposition_change": (int(Fact.DISPOSITION_CHANGE), _disposition_change),
    "transfer_dispatch": (int(Fact.TRANSFER_DISPATCH), _transfer_dispatch),
    "transfer_receipt": (int(Fact.TRANSFER_RECEIPT), _transfer_receipt),
    "customer_return": (int(Fact.CUSTOMER_RETURN), _customer_return),
}


class Results:
    """Puts the replies of one batch into results. A record's events have answers that are alike: they are made once and
    copied.
    """

    def __init__(self) -> None:
        self._applied: dict[tuple[Any, ...], pb.Applied] = {}

    def fill(self, result: pb.IngestResult, timeline: str, view: Sequence[Any]) -> str:
        """Put an ``IngestView`` into a result; returns the outcome's name for the metrics."""
        event_id, outcome, place, shortage_quantity, exception_id, reject_reason = view[:6]
        result.event_id = event_id
        if outcome == _APPLIED:
            like = (*place, shortage_quantity, exception_id)
            applied = self._applied.get(like)
            if applied is None:
                applied = self._applied[like] = pb.Applied(
                    position=position(timeline, place), shortage_quantity=shortage_quantity, exception_id=exception_id
                )
            result.applied.CopyFrom(applied)
            if len(view) > 7 and view[6]:  # noqa: PLR2004  an older host has no sale gate
                result.applied.booked_disposition = view[6]
                result.applied.gate_reasons.extend(view[7])
            return "applied"
        if outcome == _DUPLICATE:
            result.duplicate.position.CopyFrom(position(timeline, place))
            return "duplicate"
        if outcome == _REJECTED:
            result.rejected.reason = reject_reason
            result.rejected.exception_id = exception_id
            return "rejected"
        place_awaited, until_ms = view[8:10] if len(view) > 9 else (0, 0)  # an older host says nothing  # noqa: PLR2004
        result.deferred.reason = f"waits for all that its source told up to {place_awaited}"
        result.deferred.waits_for_sequence = place_awaited
        result.deferred.until_time.FromMilliseconds(until_ms)
        return "deferred"
