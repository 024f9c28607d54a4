"""The arithmetic of available to sell, in one place: cover, ATS, shortage. Base units; a term is added here and nowhere else."""

from __future__ import annotations

from actors.domain.state import OPEN, StockActor


def cover(actor: StockActor) -> int:
    """What may be promised in all: sellable on hand, less what was picked for nobody's open claim, less safety stock."""
    return actor.sellable - actor.picked_adrift - actor.safety_stock


def claims(actor: StockActor) -> int:
    """Open units of all live claims."""
    return actor.held + actor.confirmed


def headroom(actor: StockActor) -> int:
    """cover − claims: what ATS would be, were it allowed below 0 and were nothing suspended."""
    return actor.sellable - actor.picked_adrift - actor.safety_stock - actor.held - actor.confirmed


def available_to_sell(actor: StockActor) -> int:
    """ATS: what a channel may still promise now; 0 while selling is suspended."""
    if actor.selling_state != OPEN:
        return 0
    return max(0, headroom(actor))


def shortage(actor: StockActor) -> int:
    """Units promised that are not there: visible, never hidden. Safety stock is no part of it."""
    return max(0, actor.held + actor.confirmed - (actor.sellable - actor.picked_adrift))
