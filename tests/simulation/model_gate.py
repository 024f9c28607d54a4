"""The model's sale gate and transfers: where units that come in start, and what is on its way between two warehouses.

A transfer's line is known at the stock key its units go to. Dispatched and received only grow, so their order does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulation.model_state import SELLABLE, Stock

if TYPE_CHECKING:
    from tests.simulation.history import Key
    from tests.simulation.model import Model

BRINGS_IN = ("RECEIPT", "TRANSFER_RECEIPT", "CUSTOMER_RETURN")
SUPPLIER = "supplier_id"


@dataclass(slots=True)
class Transfer:
    """One line of a transfer."""

    dispatched: int = 0
    received: int = 0
    last: bool = False
    exception: str = ""

    @property
    def in_transit(self) -> int:
        return 0 if self.last else max(0, self.dispatched - self.received)

    @property
    def lost(self) -> int:
        return max(0, self.dispatched - self.received) if self.last else 0


# --- the gate -------------------------------------------------------------------------------------------------------------


def held_back(model: Model, stock: Stock | None, event: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Where units that come in as sellable start instead, and why; ("", ()): as they are told."""
    if event["fact"] not in BRINGS_IN or event["details"]["disposition"] != SELLABLE:
        return "", ()
    reasons = []
    if stock is not None and event["lot_id"] and event["lot_id"] in stock.recalled_lots:
        reasons.append("LOT_RECALLED")
    if stock is not None and stock.receipt_disposition != SELLABLE:
        reasons.append("RECEIPT_POLICY")
    if dict(event["attributes"]).get(SUPPLIER, "") in model.settings.quality_hold_suppliers:
        reasons.append("SUPPLIER_POLICY")
    if stock is not None and stock.item_state == "INACTIVE":
        reasons.append("ITEM_INACTIVE")
    if event["key"][0] in model.settings.not_selling:
        reasons.append("WAREHOUSE_NOT_ELIGIBLE")
    if not reasons:
        return "", ()
    return ("RECALLED" if reasons[0] == "LOT_RECALLED" else "QUALITY_HOLD"), tuple(reasons)


def lifts_recalled(stock: Stock | None, event: Mapping[str, Any]) -> bool:
    """Whether it would make units of a recalled lot sellable."""
    return (
        event["fact"] == "DISPOSITION_CHANGE"
        and event["details"]["to_disposition"] == SELLABLE
        and stock is not None
        and event["lot_id"] != ""
        and event["lot_id"] in stock.recalled_lots
    )


# --- transfers ------------------------------------------------------------------------------------------------------------


def dispatched(model: Model, event: Mapping[str, Any]) -> str:
    """Noted where the units go to. The exception when that is nowhere."""
    details, origin = event["details"], model.stock[event["key"]]
    key: Key = (details["to_warehouse_id"], event["key"][1])
    target = model.stock.get(key)
    if target is None:
        if not model.settings.catalog_open:
            return model.new_exception(origin.shard)
        target = model.stock[key] = model.new_stock(key)
    transfer = target.transfers.setdefault((details["transfer_id"], details["transfer_line"]), Transfer())
    transfer.dispatched += details["quantity"]
    _watch(model, target, details)
    return ""


def received(model: Model, event: Mapping[str, Any]) -> str:
    """Noted where it is. The exception of what was lost, while it is open."""
    details, stock = event["details"], model.stock[event["key"]]
    transfer = stock.transfers.setdefault((details["transfer_id"], details["transfer_line"]), Transfer())
    transfer.received += details["quantity"]
    transfer.last = transfer.last or details["final"]
    return _watch(model, stock, details)


def _watch(model: Model, stock: Stock, details: Mapping[str, Any]) -> str:
    name = (details["transfer_id"], details["transfer_line"])
    transfer = stock.transfers[name]
    if transfer.lost and not transfer.exception:
        transfer.exception = model.new_exception(stock.shard)
    elif transfer.exception and not transfer.lost:
        transfer.exception = ""
        model.exceptions_open[stock.shard] -= 1
    if transfer.dispatched == transfer.received and not transfer.last:
        del stock.transfers[name]
    return transfer.exception
