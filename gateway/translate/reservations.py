"""Requests of ReservationService → items. Each function checks everything in one pass and leaves what it found in
``findings``.

An item is built even from a bad request, to find everything; the caller must not use it when there are findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.commands import Verb
from actors.domain.outcomes import Admission, ErrorReason, FillPolicy, ReleaseReason, ReservationState
from actors.domain.rules import LINES_PER_ORDER_MAX, QUANTITY_PER_LINE_MAX
from gateway.access import Principal
from gateway.config import GatewayConfig
from gateway.errors import CallFailed
from gateway.translate import digests
from gateway.validation import Findings, KnownNames, valid_id
from stockade.v1 import reservation_service_pb2 as pb

# Plain ints: an IntEnum in a set is compared through Python code.
FILL_POLICIES = frozenset(map(int, FillPolicy))
ADMISSIONS = frozenset(map(int, Admission))
RELEASE_REASONS = frozenset(map(int, ReleaseReason)) - {int(ReleaseReason.AMENDED), int(ReleaseReason.ABORTED)}
STATES = frozenset(map(int, ReservationState))

_RESERVE = int(Verb.RESERVE)
_ALWAYS = int(Admission.ALWAYS)
_PLAIN_IDS = tuple(str(index) for index in range(LINES_PER_ORDER_MAX))  # default line ids
ITEM_OVERHEAD_BYTES = 192  # an item's frame around what the caller sent, at most; a line's is under 24
LINE_OVERHEAD_BYTES = 24

Item = list[Any]


class ReservationRequests:
    """Reads requests by the settings. ``names``: known channels, warehouses and stock keys."""

    def __init__(self, config: GatewayConfig, names: KnownNames) -> None:
        self._names = names
        self._placed = names.placed
        self._channels = config.channels
        self._lines_max = min(config.lines_per_order_max, LINES_PER_ORDER_MAX)
        self._ttl_default = config.ttl_default_ms
        self._ttl_min = config.ttl_ms_min
        self._ttl_max = config.ttl_ms_max

    def reserve(
        self, request: pb.ReserveStockRequest, principal: Principal, cause: Sequence[str], findings: Findings
    ) -> Item:
        """The hot path. Raises CallFailed when the caller may not do it, or the hold to replace is not one of ours."""
        request_id, channel_id = request.request_id, request.channel_id
        if not valid_id(request_id):
            findings.id("request_id", request_id)
        channel = self._channels.get(channel_id)
        if channel is None:
            self._names.channel("channel_id", channel_id, findings)
        lines, shard = self._lines(request.lines, findings)
        ttl_ms = self._ttl_default
        if request.HasField("ttl"):
            ttl_ms = findings.duration_ms("ttl", request.ttl, self._ttl_min, self._ttl_max)
        fill_policy, admission = request.fill_policy or 1, request.admission or 1
        if fill_policy not in FILL_POLICIES:
            findings.choice("fill_policy", fill_policy, FILL_POLICIES)
        if admission not in ADMISSIONS:
            findings.choice("admission", admission, ADMISSIONS)
        order_reference, customer_id = request.order_reference, request.customer_id
        if order_reference and not valid_id(order_reference):
            findings.id("order_reference", order_reference)
        if customer_id and not valid_id(customer_id):
            findings.id("customer_id", customer_id)
        replaces = request.replaces_reservation_id
        if replaces and not valid_id(replaces):
            findings.id("replaces_reservation_id", replaces)
        labels = findings.labels("labels", dict(request.labels)) if request.labels else ()
        digest = b""
        if not findings:
            assert channel is not None
            if not principal.sells_everywhere:
                principal.require_channel(channel_id)
            if admission == _ALWAYS and not channel.may_impose:
                raise CallFailed(
                    ErrorReason.PERMISSION_DENIED,
                    f"channel {channel_id!r} may not reserve with admission ALWAYS: set may_impose in the settings",
                )
            if replaces:
                shard = self._names.home(replaces)
            digest = digests.RESERVE.of(request, has_map=bool(labels))
        return [
            _RESERVE, shard, 0, len(lines) or 1, cause,
            [
                request_id, digest, channel_id, lines, ttl_ms, request.confirm, fill_policy, admission,
                order_reference, customer_id, replaces, labels,
            ],
        ]  # fmt: skip

    def _lines(self, lines: Sequence[pb.LineRequest], findings: Findings) -> tuple[list[list[Any]], int]:
        """Lines as the domain has them, and the home: the shard of the smallest stock key."""
        count = len(lines)
        if count == 1:
            item, shard = self._line(lines[0], 0, findings)
            return [item], shard
        if not 1 <= count <= self._lines_max:
            findings.size("lines", count, 1, self._lines_max, "lines")
            lines = lines[: self._lines_max]
        items = []
        smallest, home = "", 0
        for index, line in enumerate(lines):
            item, shard = self._line(line, index, findings)
            items.append(item)
            key = item[1]
            if not smallest or key < smallest:
                smallest, home = key, shard
        self._unique_line_ids("lines", items, findings)
        return items, home

    def _line(self, line: pb.LineRequest, index: int, findings: Findings) -> tuple[list[Any], int]:
        """One line and its shard. Each field is read once; what is wrong is found out only when something is."""
        key = line.stock_key
        skus = self._placed.get(key.warehouse_id)
        placed = skus.get(key.sku) if skus is not None else None
        line_id, quantity, minimum = line.line_id, line.quantity, line.minimum_quantity
        if (
            placed is None
            or not 1 <= quantity <= QUANTITY_PER_LINE_MAX
            or not 0 <= minimum <= quantity
            or (line_id and not valid_id(line_id))
            or key.owner_id
            or line.quantity_multiple
            or line.bundle_id
            or line.unit_code
            or line.lot_id
        ):
            placed = self._explain(line, f"lines[{index}]", findings)
        return [line_id or _PLAIN_IDS[index], placed[0], quantity, minimum], placed[1]

    def _explain(self, line: pb.LineRequest, path: str, findings: Findings) -> tuple[str, int]:
        """Every finding of a line, and its stock key once it is known to be well formed."""
        findings.optional_id(f"{path}.line_id", line.line_id)
        placed = self._names.place(line.stock_key, f"{path}.stock_key", findings)
        findings.quantity(f"{path}.quantity", line.quantity)
        if not 0 <= line.minimum_quantity <= max(line.quantity, 0):
            findings.add(
                f"{path}.minimum_quantity", f"is {line.minimum_quantity}; it must be between 0 and the quantity"
            )
        for name in ("quantity_multiple", "bundle_id", "unit_code", "lot_id"):
            findings.reserved(f"{path}.{name}", getattr(line, name))
        return placed

    @staticmethod
    def _unique_line_ids(field: str, items: list[list[Any]], findings: Findings) -> None:
        line_ids = [item[0] for item in items]
        if len(set(line_ids)) != len(line_ids):
            findings.unique(field + "[{}].line_id", line_ids, "line_id")

    def confirm(self, request: pb.ConfirmReservationRequest, cause: Sequence[str], findings: Findings) -> Item:
        """Raises CallFailed RESERVATION_NOT_FOUND when the id is not one of ours; so do all verbs below."""
        request_id, reservation_id = self._ids(request, findings)
        order_reference, version = request.order_reference, request.expected_version
        findings.optional_id("order_reference", order_reference)
        findings.version("expected_version", version)
        digest = b"" if findings else digests.CONFIRM.of(request)
        body = [request_id, digest, reservation_id, order_reference, version]
        return self._at_home(Verb.CONFIRM, reservation_id, cause, body, findings)

    def release(self, request: pb.ReleaseReservationRequest, cause: Sequence[str], findings: Findings) -> Item:
        """By id, or by the reserve's own id: then at the home that its content leads to."""
        request_id = request.request_id
        findings.id("request_id", request_id)
        target = request.WhichOneof("target")
        reservation_id = channel_id = reserve_request_id = ""
        home = 0
        if target == "reserve":
            channel_id, reserve_request_id, home = self._reserve_key(request.reserve, findings)
            if request_id and request_id == reserve_request_id:
                findings.add("request_id", "is that of the reserve: the release needs one of its own")
        elif target == "reservation_id":
            reservation_id = request.reservation_id
            findings.id("reservation_id", reservation_id)
        else:
            findings.add("reservation_id", "give either reservation_id or reserve")
        lines: list[list[Any]] = [[line.line_id, line.quantity] for line in request.lines]
        self._line_quantities(lines, findings)
        if len({line[0] for line in lines}) != len(lines):
            findings.unique("lines[{}].line_id", [line[0] for line in lines], "line_id")
        reason, note = request.reason, request.note
        findings.choice("reason", reason, RELEASE_REASONS)
        findings.text("note", note)
        digest = b"" if findings else digests.RELEASE.of(request)
        body = [request_id, digest, reservation_id, channel_id, reserve_request_id, lines, reason, note]
        if reservation_id:
            return self._at_home(Verb.RELEASE, reservation_id, cause, body, findings, weight=len(lines))
        return [int(Verb.RELEASE), home, 0, len(lines) or 1, cause, body]

    def _reserve_key(self, key: pb.ReserveKey, findings: Findings) -> tuple[str, str, int]:
        channel_id, request_id, replaces = key.channel_id, key.request_id, key.replaces_reservation_id
        self._names.channel("reserve.channel_id", channel_id, findings)
        findings.id("reserve.request_id", request_id)
        findings.optional_id("reserve.replaces_reservation_id", replaces)
        _, home = self._names.place(key.stock_key, "reserve.stock_key", findings)
        if replaces and not findings:
            home = self._names.home(replaces)
        return channel_id, request_id, home

    def extend(self, request: pb.ExtendReservationRequest, cause: Sequence[str], findings: Findings) -> Item:
        request_id, reservation_id = self._ids(request, findings)
        ttl_ms = 0
        if request.HasField("ttl"):
            ttl_ms = findings.duration_ms("ttl", request.ttl, self._ttl_min, self._ttl_max)
        else:
            findings.add("ttl", "is required")
        digest = b"" if findings else digests.EXTEND.of(request)
        return self._at_home(Verb.EXTEND, reservation_id, cause, [request_id, digest, reservation_id, ttl_ms], findings)

    def amend(self, request: pb.AmendReservationRequest, cause: Sequence[str], findings: Findings) -> Item:
        request_id, reservation_id = self._ids(request, findings)
        targets = self._targets(request.target_lines, findings)
        removed = list(request.removed_line_ids)
        for index, line_id in enumerate(removed):
            findings.id(f"removed_line_ids[{index}]", line_id)
        findings.unique("removed_line_ids[{}]", removed, "line id")
        named = {target[0] for target in targets}
        for index, line_id in enumerate(removed):
            if line_id in named:
                findings.add(f"removed_line_ids[{index}]", f"{line_id!r} is a target line too: name it once")
        if not targets and not removed:
            findings.add("target_lines", "nothing to amend: give target lines or removed line ids")
        findings.size("removed_line_ids", len(removed), 0, self._lines_max, "line ids")
        findings.version("expected_version", request.expected_version)
        version = request.expected_version
        digest = b"" if findings else digests.AMEND.of(request)
        body = [request_id, digest, reservation_id, targets, removed, version]
        return self._at_home(Verb.AMEND, reservation_id, cause, body, findings, weight=len(targets) + len(removed))

    def _targets(self, lines: Sequence[pb.LineRequest], findings: Findings) -> list[list[Any]]:
        findings.size("target_lines", len(lines), 0, self._lines_max, "lines")
        targets = []
        for index, line in enumerate(lines[: self._lines_max]):
            path = f"target_lines[{index}]"
            key, _ = self._explain(line, path, findings)
            if not line.line_id:
                findings.add(f"{path}.line_id", "is required in an amend")
            targets.append([line.line_id, key, line.quantity, line.minimum_quantity])
        self._unique_line_ids("target_lines", targets, findings)
        return targets

    def fulfill(self, request: pb.FulfillReservationRequest, cause: Sequence[str], findings: Findings) -> Item:
        request_id, reservation_id = self._ids(request, findings)
        shipment_id = request.shipment_id
        findings.id("shipment_id", shipment_id)
        lines: list[list[Any]] = [[line.line_id, line.quantity, line.document_line] for line in request.lines]
        self._line_quantities(lines, findings)
        for index, line in enumerate(lines):
            findings.optional_id(f"lines[{index}].document_line", line[2])
        identities = [line[2] or line[0] for line in lines]
        findings.unique("lines[{}].document_line", identities, "the shipment's line")
        occur_time_ms = findings.time_ms("occur_time", request.occur_time) if request.HasField("occur_time") else 0
        close_remainder = request.close_remainder
        digest = b"" if findings else digests.FULFILL.of(request)
        body = [request_id, digest, reservation_id, shipment_id, lines, close_remainder, occur_time_ms]
        return self._at_home(Verb.FULFILL, reservation_id, cause, body, findings, weight=len(lines))

    def get(self, reservation_id: str, cause: Sequence[str], findings: Findings) -> Item:
        """The question for one reservation."""
        findings.id("reservation_id", reservation_id)
        return self._at_home(Verb.GET_RESERVATION, reservation_id, cause, [reservation_id], findings)

    def list_filters(
        self, request: pb.ListReservationsRequest, principal: Principal, findings: Findings
    ) -> tuple[list[Any], int]:
        """The question for one host without page size and token: [channel, order, key, states], and the page size."""
        channel_id, order_reference = request.channel_id, request.order_reference
        if channel_id:
            self._names.channel("channel_id", channel_id, findings)
        findings.optional_id("order_reference", order_reference)
        if order_reference and not channel_id:
            findings.add("channel_id", "is required with order_reference")
        key = ""
        if request.HasField("stock_key"):
            key, _ = self._names.place(request.stock_key, "stock_key", findings)
        states = list(request.states)
        for index, state in enumerate(states):
            findings.choice(f"states[{index}]", state, STATES)
        page_size = findings.page_size("page_size", request.page_size)
        if not findings and not principal.sells_everywhere:
            principal.require_channel(channel_id)
        return [channel_id, order_reference, key, states], page_size

    def _ids(self, request: Any, findings: Findings) -> tuple[str, str]:
        request_id, reservation_id = request.request_id, request.reservation_id
        findings.id("request_id", request_id)
        findings.id("reservation_id", reservation_id)
        return request_id, reservation_id

    def _line_quantities(self, lines: list[list[Any]], findings: Findings) -> None:
        findings.size("lines", len(lines), 0, self._lines_max, "lines")
        for index, line in enumerate(lines):
            findings.id(f"lines[{index}].line_id", line[0])
            findings.quantity(f"lines[{index}].quantity", line[1])

    def _at_home(
        self,
        verb: Verb,
        reservation_id: str,
        cause: Sequence[str],
        body: list[Any],
        findings: Findings,
        *,
        weight: int = 1,
    ) -> Item:
        shard = 0 if findings else self._names.home(reservation_id)
        return [int(verb), shard, 0, max(weight, 1), cause, body]


def wire_size(request_bytes: int, items: int, lines: int, cause: Sequence[str]) -> int:
    """An upper bound of the bytes that the items of a call need in frames."""
    cause_bytes = sum(map(len, cause)) if cause else 0
    return request_bytes + items * (ITEM_OVERHEAD_BYTES + cause_bytes) + lines * LINE_OVERHEAD_BYTES
