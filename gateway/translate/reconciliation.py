"""Requests of ReconciliationService → items, and what became of lines → messages.

A bad header refuses the call, a bad line is a failed line of its own: one row must not cost the other million.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from actors.domain.outcomes import Disposition
from actors.domain.reconciliation_commands import Header
from actors.domain.reconciliation_state import Counts
from actors.domain.reconciliation_views import FindingView, LineView, ReconciliationView
from actors.domain.reconciliation_words import (
    BeyondTolerance,
    FindingKind,
    LineProblem,
    ReconciliationKind,
    ReconciliationState,
    UnlistedKeys,
)
from actors.domain.rules import ON_HAND_MAX
from actors.shard.placement import placement_hash
from gateway.config import DIFFERENCES_DEFAULT_MAX, DIFFERENCES_MAX
from gateway.translate import answers, digests
from gateway.validation import SEQUENCE_MAX, Findings, KnownNames
from stockade.v1 import reconciliation_service_pb2 as pb
from stockade.v1 import stock_key_pb2

KINDS = frozenset(map(int, ReconciliationKind))
STATES = frozenset(map(int, ReconciliationState))
FINDING_KINDS = frozenset(map(int, FindingKind))
DISPOSITIONS = frozenset(map(int, Disposition))
PERMILLE_MAX = 1_000
STOCK, OPEN_ORDERS = int(ReconciliationKind.STOCK), int(ReconciliationKind.OPEN_ORDERS)
SELLABLE = int(Disposition.SELLABLE)
LINES_FIELD = {STOCK: "stock_lines", OPEN_ORDERS: "open_order_lines", 3: "channel_lines"}
ID_PARTS = 4
PROBLEMS = {
    LineProblem.UNKNOWN_STOCK_KEY: "the catalog is closed and the stock key is not registered",
    LineProblem.BEFORE_HISTORY: "its place is older than the history that is kept",
    LineProblem.LISTED_TWICE: "it was listed before: add up bins and lots, and list it once",
    LineProblem.QUANTITY_OUT_OF_RANGE: "on hand would leave the range of ±10^15 units",
}


class Wanted(NamedTuple):
    """A checked header. ``reconciliation_id`` "" for a dry run."""

    request_id: str
    digest: bytes
    reconciliation_id: str
    shard: int
    warehouse_id: str
    kind: int
    header: Header
    dry_run: bool
    differences_max: int


class Line(NamedTuple):
    """A checked line: where it goes, what it says (see ``ReconcileLines``), and its place in the list (-1: made up)."""

    shard: int
    body: list[Any]
    line_index: int


class ReconciliationRequests:
    """Reads requests by the settings."""

    def __init__(self, names: KnownNames) -> None:
        self._names = names

    def header(self, message: pb.ReconciliationHeader, findings: Findings) -> Wanted:
        """Not to be used when there are findings."""
        request_id, kind = message.request_id, int(message.kind)
        findings.id("header.request_id", request_id)
        self._names.warehouse("header.warehouse_id", message.warehouse_id, findings)
        findings.choice("header.kind", kind, KINDS)
        findings.optional_id("header.source_id", message.source_id)
        findings.optional_id("header.stream_id", message.stream_id)
        sequence = message.as_of_source_sequence
        findings.quantity("header.as_of_source_sequence", sequence, 0, SEQUENCE_MAX)
        as_of_ms = findings.time_ms("header.as_of_time", message.as_of_time) if message.HasField("as_of_time") else 0
        if sequence and not message.source_id:
            findings.add("header.source_id", "is required with as_of_source_sequence: it is a place in that feed")
        if sequence and not message.HasField("as_of_time"):
            findings.add("header.as_of_time", "is required with as_of_source_sequence: other feeds are placed by time")
        findings.quantity("header.tolerance.units", message.tolerance.units, 0, ON_HAND_MAX)
        findings.quantity("header.tolerance.permille", message.tolerance.permille, 0, PERMILLE_MAX)
        beyond, unlisted = int(message.beyond_tolerance), int(message.unlisted_keys)
        findings.choice("header.beyond_tolerance", beyond, tuple(BeyondTolerance), required=False)
        findings.choice("header.unlisted_keys", unlisted, tuple(UnlistedKeys), required=False)
        findings.quantity("header.differences_max", message.differences_max, 0, DIFFERENCES_MAX)
        made_id, shard = self._identity(message, findings)
        dry_run, differences_max = message.dry_run, message.differences_max or DIFFERENCES_DEFAULT_MAX
        header = Header(
            message.source_id,
            message.stream_id,
            sequence,
            as_of_ms,
            message.tolerance.units,
            message.tolerance.permille,
            beyond or int(BeyondTolerance.QUARANTINE),
            unlisted or int(UnlistedKeys.COUNT_AS_ZERO if kind == OPEN_ORDERS else UnlistedKeys.IGNORE),
        )
        warehouse_id = message.warehouse_id
        digest = b"" if findings else digests.RECONCILE.of(message)
        return Wanted(request_id, digest, made_id, shard, warehouse_id, kind, header, dry_run, differences_max)

    def _identity(self, message: pb.ReconciliationHeader, findings: Findings) -> tuple[str, int]:
        if not message.reconciliation_id:
            return self.id_of(message.request_id)
        shard = self.shard_of(message.reconciliation_id)
        if shard is None:
            findings.add("header.reconciliation_id", "is not one that the service asked for")
        return message.reconciliation_id, shard or 0

    def id_of(self, request_id: str) -> tuple[str, int]:
        """The reconciliation that a request begins, and its shard."""
        number = placement_hash("reconciliation", request_id)
        shard = number % self._names.shard_count
        return f"rc-{number:016x}-{shard}-1", shard

    def shard_of(self, reconciliation_id: str) -> int | None:
        """The shard that an id names; None when it is not one of ours."""
        parts = reconciliation_id.split("-")
        if len(parts) != ID_PARTS or parts[0] not in ("rc", "rq") or not (parts[2].isascii() and parts[2].isdigit()):
            return None
        shard = int(parts[2]) if len(parts[2]) <= ID_PARTS else self._names.shard_count
        return shard if shard < self._names.shard_count else None

    def line(self, wanted: Wanted, message: Any, index: int, findings: Findings) -> Line | None:
        """One line of a chunk; None with findings."""
        quantity = message.quantity
        findings.stock_quantity("quantity", quantity, 0)
        key = stock_key_pb2.StockKey(sku=message.sku, warehouse_id=wanted.warehouse_id)
        spelled, shard = self._names.place(key, "", findings)
        body: list[Any]
        if wanted.kind == STOCK:
            disposition = int(message.disposition) or SELLABLE
            findings.choice("disposition", disposition, DISPOSITIONS)
            body = [spelled, disposition, quantity, message.includes_picked]
        elif wanted.kind == OPEN_ORDERS:
            self._names.channel("channel_id", message.channel_id, findings)
            findings.id("order_reference", message.order_reference)
            body = [spelled, message.channel_id, message.order_reference, quantity]
        else:
            body = [spelled, quantity]
        return None if findings else Line(shard, body, index)

    def list_filters(self, request: pb.ListReconciliationsRequest, findings: Findings) -> tuple[list[Any], int]:
        """[warehouse, states], and the page size."""
        if request.warehouse_id:
            self._names.warehouse("warehouse_id", request.warehouse_id, findings)
        for index, state in enumerate(request.states):
            findings.choice(f"states[{index}]", int(state), STATES)
        states = [int(state) for state in request.states]
        return [request.warehouse_id, states], findings.page_size("page_size", request.page_size)


def what_is_compared(kind: int, body: Sequence[Any]) -> tuple[Any, ...]:
    """What of a line may be listed once: all but its quantity."""
    if kind == STOCK:
        return (body[0], body[1])
    return tuple(body[:-1])


def description(findings: Findings) -> str:
    """What is wrong with a line, in one."""
    return "; ".join(f"{each.field.lstrip('.')} {each.description}" for each in findings)


def finding_of_line(kind: int, line: Line, view: LineView, time_ms: int) -> pb.Finding:
    """A line that differs."""
    what = [str(each) for each in line.body[1:2]] if kind == STOCK else line.body[1:-1]
    return _finding(
        kind, line.body[0], what, view.kind, view.state, view.found, view.expected, view.booked, view.exception_id,
        view.suspects, time_ms,
    )  # fmt: skip


def finding(view: Sequence[Any], kind: int) -> pb.Finding:
    """A ``FindingView``."""
    one = FindingView(*view)
    return _finding(
        kind, one.stock_key, one.what, one.kind, one.state, one.found, one.expected, one.booked, one.exception_id,
        one.suspects, one.time_ms,
    )  # fmt: skip


def _finding(  # noqa: PLR0913  the parts of a message
    kind: int,
    key: str,
    what: Sequence[str],
    why: int,
    state: int,
    found: int,
    expected: int,
    booked: int,
    exception_id: str,
    suspects: Sequence[str],
    time_ms: int,
) -> pb.Finding:
    made = pb.Finding(
        stock_key=answers.stock_key(key),
        kind=why,  # type: ignore[arg-type]
        state=state,  # type: ignore[arg-type]
        found_quantity=found,
        expected_quantity=expected,
        booked_delta=booked,
        suspects=suspects,
        exception_id=exception_id,
        time=answers.timestamp(time_ms),
    )
    if kind == STOCK and what:
        made.disposition = int(what[0])  # type: ignore[assignment]
    elif kind == OPEN_ORDERS and len(what) > 1:
        made.channel_id, made.order_reference = what[0], what[1]
    return made


def counts(values: Sequence[int]) -> pb.ReconciliationCounts:
    """``Counts`` as a message."""
    return pb.ReconciliationCounts(**dict(zip(Counts._fields, values, strict=False)))


def reconciliation(view: Sequence[Any]) -> pb.Reconciliation:
    """A ``ReconciliationView``."""
    one = ReconciliationView(*view)
    made = pb.Reconciliation(
        reconciliation_id=one.reconciliation_id,
        warehouse_id=one.warehouse_id,
        kind=one.kind,  # type: ignore[arg-type]
        state=one.state,  # type: ignore[arg-type]
        request_reason=one.reason,  # type: ignore[arg-type]
        note=one.note,
        exception_id=one.exception_id,
        request_time=answers.timestamp(one.request_time_ms),
        begin_time=answers.timestamp(one.begin_time_ms),
        end_time=answers.timestamp(one.end_time_ms),
        header=_header(one),
    )
    if one.counts:
        made.counts.CopyFrom(counts(one.counts))
    return made


def _header(view: ReconciliationView) -> pb.ReconciliationHeader:
    if not view.header:
        return pb.ReconciliationHeader(
            warehouse_id=view.warehouse_id, source_id=view.source_id, stream_id=view.stream_id
        )
    header = Header(*view.header)
    return pb.ReconciliationHeader(
        request_id=view.request_id,
        reconciliation_id=view.reconciliation_id,
        warehouse_id=view.warehouse_id,
        kind=view.kind,  # type: ignore[arg-type]
        source_id=header.source_id,
        stream_id=header.stream_id,
        as_of_source_sequence=header.as_of_source_sequence,
        as_of_time=answers.timestamp(header.as_of_time_ms),
        tolerance=pb.Tolerance(units=header.tolerance_units, permille=header.tolerance_permille),
        beyond_tolerance=header.beyond_tolerance,  # type: ignore[arg-type]
        unlisted_keys=header.unlisted_keys,  # type: ignore[arg-type]
    )
