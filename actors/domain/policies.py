"""What operations and the ERP set on a stock key: registration, safety stock, limits, suspended selling."""

from __future__ import annotations

from actors.domain.alarms import watch_shortage
from actors.domain.answers import Reply, error, ok, refused
from actors.domain.commands import RegisterStock, SetSelling, SetStockPolicy
from actors.domain.events import EntrySpent, StockKeyRegistered, StockPolicySet
from actors.domain.identity import ANSWER_DONE, operator_key
from actors.domain.keys import split_stock_key
from actors.domain.outcomes import ErrorReason, RefusalReason
from actors.domain.state import ShardState, StockActor
from actors.domain.stock_parts import DEFAULT_GATE, SaleGate
from actors.domain.turn import Turn
from actors.domain.views import stock_view


def _again(turn: Turn, shard: ShardState, request_id: str, digest: bytes, stock_key: str) -> Reply | None:
    entry = turn.entry(shard, operator_key(request_id, stock_key))
    if entry is None:
        return None
    if entry.digest != digest:
        return error(ErrorReason.REQUEST_ID_REUSED, f"request_id {request_id!r} was already used for other content")
    actor = shard.stock.get(stock_key)
    assert actor is not None, "a stock key is never removed"
    return ok(stock_view(turn, actor), True)


def _spend(turn: Turn, actor: StockActor, request_id: str, digest: bytes) -> Reply:
    turn.emit(actor.shard, EntrySpent(operator_key(request_id, actor.key), digest, (ANSWER_DONE,)))
    return ok(stock_view(turn, actor))


def _unknown(stock_key: str) -> Reply:
    parts = split_stock_key(stock_key)
    detail = f"stock_key: SKU {parts.sku!r} in warehouse {parts.warehouse_id!r} is not registered"
    return error(ErrorReason.STOCK_KEY_NOT_FOUND, detail)


def _set(turn: Turn, actor: StockActor, given: RegisterStock | SetStockPolicy) -> None:
    """Set what is given of a policy."""
    safety_stock, limit, lots = given.safety_stock_quantity, given.max_quantity_per_order, given.recalled_lot_ids
    gate = actor.gate or DEFAULT_GATE
    _become(
        turn,
        actor,
        (
            safety_stock if safety_stock >= 0 else actor.safety_stock,
            given.selling_state or actor.selling_state,
            limit if limit >= 0 else actor.max_quantity_per_order,
            given.base_unit or actor.base_unit,
        ),
        SaleGate(
            given.item_state or gate.item_state,
            given.receipt_disposition or gate.receipt_disposition,
            tuple(sorted(set(lots[0]))) if lots else gate.recalled_lot_ids,
        ),
    )


def change_selling(turn: Turn, actor: StockActor, selling_state: int) -> None:
    """Suspend or resume selling, because somebody or a rule says so."""
    parts = (actor.safety_stock, selling_state, actor.max_quantity_per_order, actor.base_unit)
    _become(turn, actor, parts, actor.gate or DEFAULT_GATE)


def _become(turn: Turn, actor: StockActor, parts: tuple[int, int, int, str], gate: SaleGate) -> None:
    """Journal the whole policy when that changes anything. ``parts``: safety stock, selling state, limit, base unit."""
    before = (actor.safety_stock, actor.selling_state, actor.max_quantity_per_order, actor.base_unit)
    if before != parts or gate != (actor.gate or DEFAULT_GATE):
        turn.emit(actor.shard, StockPolicySet(actor.key, *parts, actor.policy_version + 1, *gate))
        watch_shortage(turn, actor)


def register_stock(turn: Turn, shard: ShardState, command: RegisterStock) -> Reply:
    """Create the stock actor when absent, and set what is given of its policy. OK payload: ``StockView``."""
    again = _again(turn, shard, command.request_id, command.digest, command.stock_key)
    if again is not None:
        return again
    if command.stock_key not in shard.stock:
        turn.emit(shard, StockKeyRegistered(command.stock_key))
    actor = shard.stock[command.stock_key]
    _set(turn, actor, command)
    return _spend(turn, actor, command.request_id, command.digest)


def set_stock_policy(turn: Turn, shard: ShardState, command: SetStockPolicy) -> Reply:
    """Change the policy of a known stock key. OK payload: ``StockView``."""
    again = _again(turn, shard, command.request_id, command.digest, command.stock_key)
    if again is not None:
        return again
    actor = shard.stock.get(command.stock_key)
    if actor is None:
        return _unknown(command.stock_key)
    if command.expected_version not in (0, actor.policy_version):
        return refused(RefusalReason.VERSION_MISMATCH, turn.position(shard), version=actor.policy_version)
    _set(turn, actor, command)
    return _spend(turn, actor, command.request_id, command.digest)


def set_selling(turn: Turn, shard: ShardState, command: SetSelling) -> Reply:
    """Suspend or resume selling of a known stock key. OK payload: ``StockView``."""
    again = _again(turn, shard, command.request_id, command.digest, command.stock_key)
    if again is not None:
        return again
    actor = shard.stock.get(command.stock_key)
    if actor is None:
        return _unknown(command.stock_key)
    change_selling(turn, actor, command.selling_state)
    return _spend(turn, actor, command.request_id, command.digest)
