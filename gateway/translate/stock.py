"""Requests of StockService and AvailabilityService → items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.commands import Verb
from actors.domain.outcomes import Disposition, ItemState, SellingState
from actors.domain.rules import ON_HAND_MAX, QUANTITY_PER_LINE_MAX, RECALLED_LOTS_MAX
from gateway.config import STOCK_KEYS_PER_CALL_MAX
from gateway.translate import digests
from gateway.validation import Findings, KnownNames
from stockade.v1 import availability_service_pb2, stock_key_pb2, stock_service_pb2

Item = list[Any]
SELLING_STATES = frozenset(map(int, SellingState))
ITEM_STATES = frozenset(map(int, ItemState))
RECEIPT_DISPOSITIONS = frozenset((int(Disposition.SELLABLE), int(Disposition.QUALITY_HOLD)))


class StockRequests:
    """Reads requests by the settings."""

    def __init__(self, names: KnownNames) -> None:
        self._names = names

    def get(self, request: stock_service_pb2.GetStockRequest, cause: Sequence[str], findings: Findings) -> Item:
        key, shard = self._names.place(request.stock_key, "stock_key", findings)
        return [int(Verb.GET_STOCK), shard, 0, 1, cause, [key]]

    def list_filters(self, request: stock_service_pb2.ListStockRequest, findings: Findings) -> tuple[list[Any], int]:
        """[warehouse, only shortage], and the page size."""
        if request.warehouse_id:
            self._names.warehouse("warehouse_id", request.warehouse_id, findings)
        return [request.warehouse_id, request.only_shortage], findings.page_size("page_size", request.page_size)

    def register(
        self,
        registration: stock_service_pb2.StockRegistration,
        request_id: str,
        cause: Sequence[str],
        findings: Findings,
    ) -> Item:
        """One registration of a batch; ``request_id`` is the batch's."""
        key, shard = self._names.place(registration.stock_key, "stock_key", findings)
        safety_stock, limit, base_unit, selling_state = self._policy(registration.policy, findings)
        gate = self._gate(registration.policy, findings)
        digest = b"" if findings else digests.REGISTER.of(registration)
        body = [request_id, digest, key, safety_stock, selling_state, limit, base_unit, *gate]
        return [int(Verb.REGISTER_STOCK), shard, 0, 1, cause, body]

    def set_policy(
        self, request: stock_service_pb2.SetStockPolicyRequest, cause: Sequence[str], findings: Findings
    ) -> Item:
        request_id, version = request.request_id, request.expected_version
        findings.id("request_id", request_id)
        key, shard = self._names.place(request.stock_key, "stock_key", findings)
        if not request.HasField("policy"):
            findings.add("policy", "is required")
        safety_stock, limit, base_unit, selling_state = self._policy(request.policy, findings)
        findings.version("expected_version", version)
        gate = self._gate(request.policy, findings)
        digest = b"" if findings else digests.SET_POLICY.of(request)
        body = [request_id, digest, key, safety_stock, limit, base_unit, version, selling_state, *gate]
        return [int(Verb.SET_STOCK_POLICY), shard, 0, 1, cause, body]

    def set_selling(
        self,
        request: stock_service_pb2.SuspendSellingRequest | stock_service_pb2.ResumeSellingRequest,
        state: SellingState,
        cause: Sequence[str],
        findings: Findings,
    ) -> Item:
        """``state`` OPEN for ResumeSelling, SUSPENDED for SuspendSelling."""
        request_id, note = request.request_id, request.note
        findings.id("request_id", request_id)
        key, shard = self._names.place(request.stock_key, "stock_key", findings)
        findings.text("note", note)
        digest = digests.SUSPEND if state is SellingState.SUSPENDED else digests.RESUME
        body = [request_id, b"" if findings else digest.of(request), key, int(state), note]
        return [int(Verb.SET_SELLING), shard, 0, 1, cause, body]

    @staticmethod
    def _policy(policy: stock_service_pb2.StockPolicy, findings: Findings) -> tuple[int, int, str, int]:
        """(safety stock, limit per order, base unit, selling state); -1, "" and 0 leave it as it is."""
        safety_stock = limit = -1
        if policy.HasField("safety_stock_quantity"):
            safety_stock = policy.safety_stock_quantity
            findings.quantity("policy.safety_stock_quantity", safety_stock, 0, ON_HAND_MAX)
        if policy.HasField("max_quantity_per_order"):
            limit = policy.max_quantity_per_order
            findings.quantity("policy.max_quantity_per_order", limit, 0, QUANTITY_PER_LINE_MAX)
        findings.optional_id("policy.base_unit", policy.base_unit)
        findings.choice("policy.selling_state", policy.selling_state, SELLING_STATES, required=False)
        return safety_stock, limit, policy.base_unit, policy.selling_state

    @staticmethod
    def _gate(policy: stock_service_pb2.StockPolicy, findings: Findings) -> tuple[int, int, list[list[str]]]:
        """(item state, receipt disposition, [recalled lots]); 0 and [] leave them as they are."""
        findings.choice("policy.item_state", policy.item_state, ITEM_STATES, required=False)
        disposition = policy.receipt_disposition
        if disposition and disposition not in RECEIPT_DISPOSITIONS:
            findings.add("policy.receipt_disposition", "must be SELLABLE or QUALITY_HOLD")
        if not policy.HasField("recalled_lots"):
            return policy.item_state, disposition, []
        lots = list(policy.recalled_lots.lot_ids)
        findings.size("policy.recalled_lots.lot_ids", len(lots), 0, RECALLED_LOTS_MAX, "lots")
        for index, lot_id in enumerate(lots[:RECALLED_LOTS_MAX]):
            findings.id(f"policy.recalled_lots.lot_ids[{index}]", lot_id)
        return policy.item_state, disposition, [lots]

    def transfer_filters(
        self, request: stock_service_pb2.ListTransfersRequest, findings: Findings
    ) -> tuple[list[Any], int]:
        """[to warehouse, from warehouse, transfer], and the page size."""
        if request.to_warehouse_id:
            self._names.warehouse("to_warehouse_id", request.to_warehouse_id, findings)
        findings.optional_id("from_warehouse_id", request.from_warehouse_id)
        findings.optional_id("transfer_id", request.transfer_id)
        filters = [request.to_warehouse_id, request.from_warehouse_id, request.transfer_id]
        return filters, findings.page_size("page_size", request.page_size)

    def availability(
        self, stock_keys: Sequence[stock_key_pb2.StockKey], channel_id: str, cause: Sequence[str], findings: Findings
    ) -> tuple[list[Item], list[list[int]]]:
        """One item for each shard, and beside it which of the keys asked its answers are for."""
        self._names.channel("channel_id", channel_id, findings)
        find = self._names.find
        keys_by_shard: dict[int, tuple[list[str], list[int]]] = {}
        for index, stock_key in enumerate(stock_keys):
            key, shard = find(stock_key) or self._names.place(stock_key, f"stock_keys[{index}]", findings)
            keys, slots = keys_by_shard.setdefault(shard, ([], []))
            keys.append(key)
            slots.append(index)
        verb = int(Verb.GET_AVAILABILITY)
        items = [[verb, shard, 0, len(keys), cause, [channel_id, keys]] for shard, (keys, _) in keys_by_shard.items()]
        return items, [slots for _, slots in keys_by_shard.values()]

    def availability_of_one(
        self, stock_key: stock_key_pb2.StockKey, channel_id: str, cause: Sequence[str], findings: Findings
    ) -> Item:
        """The question for one key."""
        self._names.channel("channel_id", channel_id, findings)
        key, shard = self._names.place(stock_key, "stock_key", findings)
        return [int(Verb.GET_AVAILABILITY), shard, 0, 1, cause, [channel_id, [key]]]

    def watched(self, request: availability_service_pb2.WatchAvailabilityRequest, findings: Findings) -> dict[str, int]:
        """Stock key → shard of what is to be watched; empty: a whole warehouse."""
        self._names.channel("channel_id", request.channel_id, findings)
        if bool(request.stock_keys) == bool(request.warehouse_id):
            findings.add("stock_keys", "give either stock keys or a warehouse_id")
        if request.warehouse_id:
            self._names.warehouse("warehouse_id", request.warehouse_id, findings)
            return {}
        findings.size("stock_keys", len(request.stock_keys), 1, STOCK_KEYS_PER_CALL_MAX, "stock keys")
        return dict(
            self._names.place(stock_key, f"stock_keys[{index}]", findings)
            for index, stock_key in enumerate(request.stock_keys[:STOCK_KEYS_PER_CALL_MAX])
        )

    @staticmethod
    def key_count(count: int, findings: Findings) -> None:
        """How many keys a batch of availability may ask for."""
        findings.size("stock_keys", count, 1, STOCK_KEYS_PER_CALL_MAX, "stock keys")

    def explain(
        self, request: availability_service_pb2.ExplainAvailabilityRequest, cause: Sequence[str], findings: Findings
    ) -> Item:
        self._names.channel("channel_id", request.channel_id, findings)
        key, shard = self._names.place(request.stock_key, "stock_key", findings)
        findings.quantity("quantity", request.quantity, 0)
        return [int(Verb.EXPLAIN_AVAILABILITY), shard, 0, 1, cause, [request.channel_id, key, request.quantity]]
