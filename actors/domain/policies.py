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


def _set(  # noqa: PLR0913  the parts of a policy
    turn: Turn,
    actor: StockActor,
    *,
    safety_stock_quantity: int = -1,
    selling_state: int = 0,
    max_quantity_per_order: int = -1,
    base_unit: str = "",
) -> None:
    event = StockPolicySet(
        actor.key,
        safety_stock_quantity if safety_stock_quantity >= 0 else actor.safety_stock,
        selling_state or actor.selling_state,
        max_quantity_per_order if max_quantity_per_order >= 0 else actor.max_quantity_per_order,
        base_unit or actor.base_unit,
        actor.policy_version + 1,
    )
    before = (actor.safety_stock, actor.selling_state, actor.max_quantity_per_order, actor.base_unit)
    if before != event[1:5]:
        turn.emit(actor.shard, event)
        watch_shortage(turn, actor)


def change_selling(turn: Turn, actor: StockActor, selling_state: int) -> None:
    """Suspend or resume selling because a rule says so."""
    _set(turn, actor, selling_state=selling_state)


def register_stock(turn: Turn, shard: ShardState, command: RegisterStock) -> Reply:
    """Create the stock actor when absent, and set what is given of its policy. OK payload: ``StockView``."""
    again = _again(turn, shard, command.request_id, command.digest, command.stock_key)
    if again is not None:
        return again
    if command.stock_key not in shard.stock:
        turn.emit(shard, StockKeyRegistered(command.stock_key))
    actor = shard.stock[command.stock_key]
    _set(
        turn,
        actor,
        safety_stock_quantity=command.safety_stock_quantity,
        selling_state=command.selling_state,
        max_quantity_per_order=command.max_quantity_per_order,
        base_unit=command.base_unit,
    )
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
    _set(
        turn,
        actor,
        safety_stock_quantity=command.safety_stock_quantity,
        selling_state=command.selling_state,
        max_quantity_per_order=command.max_quantity_per_order,
        base_unit=command.base_unit,
    )
    return _spend(turn, actor, command.request_id, command.digest)


def set_selling(turn: Turn, shard: ShardState, command: SetSelling) -> Reply:
    """Suspend or resume selling of a known stock key. OK payload: ``StockView``."""
    again = _again(turn, shard, command.request_id, command.digest, command.stock_key)
    if again is not None:
        return again
    actor = shard.stock.get(command.stock_key)
    if actor is None:
        return _unknown(command.stock_key)
    _set(turn, actor, selling_state=command.selling_state)
    return _spend(turn, actor, command.request_id, command.digest)
