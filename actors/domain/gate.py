"""The sale gate: whether units that come in as sellable may be sold at once, or where they start instead, and why.

Decided at the stock actor when the units are booked, by the policy of that moment; told in the result. What was held back is
lifted by a disposition change; the units of a recalled lot are not.
"""

from __future__ import annotations

from actors.domain.commands import Ingest
from actors.domain.keys import split_stock_key
from actors.domain.outcomes import Disposition, Fact, ItemState, SaleGateReason
from actors.domain.state import SELLABLE, StockActor
from actors.domain.stock_parts import DEFAULT_GATE
from actors.domain.turn import Turn

SUPPLIER_ATTRIBUTE = "supplier_id"  # the attribute of an event that names whose units came in
QUALITY_HOLD, RECALLED = int(Disposition.QUALITY_HOLD), int(Disposition.RECALLED)
INACTIVE = int(ItemState.INACTIVE)

# Facts that bring units in, and where their details name the disposition. An adjustment is taken as said: somebody looked.
_DISPOSITION_AT = {int(Fact.RECEIPT): 1, int(Fact.TRANSFER_RECEIPT): 5, int(Fact.CUSTOMER_RETURN): 1}


def through_gate(turn: Turn, actor: StockActor | None, command: Ingest) -> tuple[Ingest, tuple[int, ...]]:
    """The fact as it is to be booked, and the reasons (``SaleGateReason``) why its units do not start sellable."""
    at = _DISPOSITION_AT.get(command.fact)
    if at is None or command.details[at] != SELLABLE:
        return command, ()
    reasons, disposition = _held_back(turn, actor, command)
    if not reasons:
        return command, ()
    details = list(command.details)
    details[at] = disposition
    return command._replace(details=details), reasons


def booked_as(command: Ingest) -> int:
    """The disposition in which a fact that brings units in books them."""
    return int(command.details[_DISPOSITION_AT[command.fact]])


def _held_back(turn: Turn, actor: StockActor | None, command: Ingest) -> tuple[tuple[int, ...], int]:
    rules = turn.books.rules
    gate = actor.gate if actor is not None and actor.gate is not None else DEFAULT_GATE
    reasons = []
    disposition = QUALITY_HOLD
    if command.lot_id and command.lot_id in gate.recalled_lot_ids:
        reasons.append(SaleGateReason.LOT_RECALLED)
        disposition = RECALLED
    if gate.receipt_disposition != SELLABLE:
        reasons.append(SaleGateReason.RECEIPT_POLICY)
    if rules.quality_hold_suppliers and _supplier(command) in rules.quality_hold_suppliers:
        reasons.append(SaleGateReason.SUPPLIER_POLICY)
    if gate.item_state == INACTIVE:
        reasons.append(SaleGateReason.ITEM_INACTIVE)
    if rules.warehouses_not_selling and split_stock_key(command.stock_key).warehouse_id in rules.warehouses_not_selling:
        reasons.append(SaleGateReason.WAREHOUSE_NOT_ELIGIBLE)
    return tuple(map(int, reasons)), disposition


def _supplier(command: Ingest) -> str:
    return next((value for name, value in command.attributes if name == SUPPLIER_ATTRIBUTE), "")


def lifts_recalled_lot(actor: StockActor | None, command: Ingest) -> bool:
    """Whether a disposition change would make units of a recalled lot sellable."""
    if command.fact != Fact.DISPOSITION_CHANGE or not command.lot_id or actor is None or actor.gate is None:
        return False
    return command.details[2] == SELLABLE and command.lot_id in actor.gate.recalled_lot_ids
