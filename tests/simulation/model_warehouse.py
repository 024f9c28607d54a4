"""The model's rules of units that come and go: ten warehouse facts, picks, and shipments by either door.

A fact is applied even when it is inconvenient; rejected is only what cannot be understood. A shipment is known by warehouse,
shipment id, stock key and document line (or line id): told again with the same quantity it is a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.simulation import model_counts, model_gate
from tests.simulation.history import Key
from tests.simulation.model_counts import Pile
from tests.simulation.model_state import (
    HELD,
    ON_HAND_MAX,
    RELEASED,
    SELLABLE,
    Claim,
    Outcome,
    Reservation,
    Stock,
    failed,
    refused,
    told,
)

if TYPE_CHECKING:
    from tests.simulation.model import Model

FACTS = frozenset(
    (
        "RECEIPT", "PICK", "UNPICK", "SHIPMENT", "ADJUSTMENT", "STOCK_COUNT", "DISPOSITION_CHANGE", "TRANSFER_DISPATCH",
        "TRANSFER_RECEIPT", "CUSTOMER_RETURN",
    )
)  # fmt: skip
INTO = frozenset(("RECEIPT", "TRANSFER_RECEIPT", "CUSTOMER_RETURN"))
OUT_OF = frozenset(("TRANSFER_DISPATCH",))


def reject(model: Model, reason: str, shard: int, *, waited: bool = False) -> Outcome:
    """It cannot be understood: somebody must look. When too many things wait for that already its sender keeps it."""
    if model.exceptions_open.get(shard, 0) >= model.settings.exceptions_open_max and not waited:
        return failed("OVERLOADED")
    return told("REJECTED", 0, model.new_exception(shard), reason)


def decide(model: Model, event: Mapping[str, Any], now_ms: int, shard: int, *, waited: bool = False) -> Outcome:
    """A warehouse fact whose time has come."""
    key, fact, details = event["key"], event["fact"], event["details"]
    reason = ""
    stock = model.stock.get(key)
    if not reason and stock is None and not model.settings.catalog_open:
        reason = "UNKNOWN_STOCK_KEY"
    as_of = fact == "STOCK_COUNT" and not details["take_as_now"]
    if not reason and as_of and model_counts.too_old(stock, event, now_ms, model.settings.history_ms):
        reason = "BEFORE_HISTORY"
    if not reason and model_gate.lifts_recalled(stock, event):
        reason = "LOT_RECALLED"
    if not reason and stock is not None and not _fits(stock, details):
        reason = "QUANTITY_OUT_OF_RANGE"
    if reason:
        return reject(model, reason, shard, waited=waited)
    if stock is None:
        stock = model.stock[key] = model.new_stock(key, shard)
    exception = ""
    held = model_gate.held_back(model, stock, event)
    if held[0]:
        event = {**event, "details": {**details, "disposition": held[0]}}
    if fact == "SHIPMENT":
        promise = details["promise"]
        line = event["document_line"] or (promise[3] if promise else "")
        identity = (details["shipment_id"], line)
        quantity = details["quantity"]
        if identity in stock.booked:
            if stock.booked[identity] == quantity:
                return told("DUPLICATE", stock.shortage())
            return told("REJECTED", stock.shortage(), model.new_exception(shard), "SHIPMENT_MISMATCH")
        close, disposition = details["close_remainder"], details["disposition"]
        exception = ship(
            model, stock, promise, identity, quantity, now_ms, _where(event), close=close, disposition=disposition
        )
    elif fact == "PICK":
        _note(stock, event, SELLABLE, 0, _pick(model, stock, details["promise"], details["quantity"]))
    elif fact == "UNPICK":
        _note(stock, event, SELLABLE, 0, _unpick(model, stock, details["promise"], details["quantity"]))
    elif as_of:
        model_counts.book(stock, event)
    else:
        _move(stock, event)
    if fact == "TRANSFER_DISPATCH":
        exception = model_gate.dispatched(model, event)
    elif fact == "TRANSFER_RECEIPT":
        exception = model_gate.received(model, event)
    model.watch(stock)
    return told("APPLIED", stock.shortage(), exception or stock.shortage_exception, held=held)


def misunderstood(model: Model, event: Mapping[str, Any], now_ms: int) -> str:
    """Why it cannot be understood, or ""."""
    fact, details = event["fact"], event["details"]
    if fact not in FACTS:
        return "UNKNOWN_FACT"
    if not event["source_sequence"] and event["occur_time_ms"] < now_ms - model.settings.dedupe_window_ms:
        return "TOO_OLD"
    if fact == "STOCK_COUNT" and not details["take_as_now"] and model_counts.as_of(event) is None:
        return "AS_OF_MISSING"
    if fact == "SHIPMENT" and details["promise"] and _order_management_ships(model, event["key"]):
        return "FULFILLED_BY_ORDER_MANAGEMENT"
    return ""


def awaited(event: Mapping[str, Any]) -> int:
    """Up to where its stream must be whole before it may be decided; 0: it may be at once."""
    if event["fact"] == "STOCK_COUNT" and not event["details"]["take_as_now"]:
        return model_counts.as_of(event) or 0
    if event["fact"] == "SHIPMENT" and event["details"]["close_remainder"] and event["source_sequence"]:
        return int(event["source_sequence"]) - 1
    return 0


def _order_management_ships(model: Model, key: Key) -> bool:
    return key[0] in model.settings.order_management_ships


def _fits(stock: Stock, details: Mapping[str, Any]) -> bool:
    quantity = abs(details.get("quantity", details.get("delta", 0)))
    highest = max([0, *(abs(units) for units in stock.on_hand.values())])
    return highest + quantity <= ON_HAND_MAX


def _change(stock: Stock, disposition: str, delta: int) -> None:
    stock.on_hand[disposition] = stock.on_hand_of(disposition) + delta


def _move(stock: Stock, event: Mapping[str, Any]) -> None:
    fact, details = event["fact"], event["details"]
    if fact == "STOCK_COUNT":  # taken as now: whatever was, this is there
        counted = details["quantity"]
        if details["disposition"] == SELLABLE and not details["includes_picked"]:
            counted += stock.picked()
        stock.on_hand[details["disposition"]] = counted
        return
    if fact == "ADJUSTMENT":
        moved = [(details["disposition"], details["delta"])]
    elif fact == "DISPOSITION_CHANGE":
        moved = [
            (details["from_disposition"], -details["quantity"]),
            (details["to_disposition"], details["quantity"]),
        ]
    else:
        sign = 1 if fact in INTO else -1
        moved = [(details["disposition"], sign * details["quantity"])]
    for disposition, delta in moved:
        _change(stock, disposition, delta)
        _note(stock, event, disposition, delta, {})


Where = tuple[tuple[str, str], int, int]  # stream, sequence, time of occurrence


def _where(event: Mapping[str, Any]) -> Where:
    return ((event["source_id"], event["stream_id"]), event["source_sequence"], event["occur_time_ms"])


def _note(stock: Stock, event: Mapping[str, Any], disposition: str, delta: int, picks: dict[Pile, int]) -> None:
    model_counts.note(stock, *_where(event), disposition, delta, picks)


# --- picks and shipments ----------------------------------------------------------------------------------------------------


def _promised(stock: Stock, promise: tuple[str, ...]) -> list[Claim]:
    """The claims that a promise means, oldest first."""
    if not promise:
        return []
    reservation_id, channel_id, order_reference, line_id = promise
    ids = [reservation_id]
    if not reservation_id:
        ids = sorted(stock.orders.get((channel_id, order_reference), ()), key=stock.arrivals.__getitem__)
    claims = [claim for one in ids for claim in stock.claims.get(one, {}).values()]
    return [claim for claim in claims if not line_id or claim.line_id == line_id]


def _pile(model: Model, promise: tuple[str, ...]) -> Pile:
    """What is picked for no known claim lies under its promise, whatever the line: under its order, where it has one."""
    reservation = model.reservations.get(promise[0]) if promise else None
    if reservation is not None and reservation.order_reference:
        return ("", reservation.channel_id, reservation.order_reference)
    return promise[:3]


class Picks(dict[Pile, int]):
    """What one fact changed: nets of claims and piles, by whose they are."""

    def __init__(self, stock: Stock) -> None:
        super().__init__()
        self._stock = stock

    def claim(self, claim: Claim, units: int) -> int:
        """Change the net of a claim; by how much."""
        claim.net += units
        self._stock.touched(claim)
        return self._count((claim.reservation_id, "", ""), units)

    def pile(self, pile: Pile, units: int) -> int:
        """Change the net of what is adrift; by how much."""
        left = self._stock.adrift.get(pile, 0) + units
        self._stock.adrift[pile] = left
        if not left:
            del self._stock.adrift[pile]
        return self._count(pile, units)

    def _count(self, pile: Pile, units: int) -> int:
        if units:
            self[pile] = self.get(pile, 0) + units
        return units


def _pick(model: Model, stock: Stock, promise: tuple[str, ...], quantity: int) -> Picks:
    """First for what was shipped or put back before it was told that it was picked; then for what is open; the rest at last."""
    claims, picks, left = _promised(stock, promise), Picks(stock), quantity
    for claim in claims:
        left -= picks.claim(claim, min(left, max(0, -claim.net)))
    for claim in claims[:-1]:
        left -= picks.claim(claim, min(left, max(0, claim.open - claim.net)))
    if claims:
        picks.claim(claims[-1], left)
    else:
        picks.pile(_pile(model, promise), left)
    return picks


def _unpick(model: Model, stock: Stock, promise: tuple[str, ...], quantity: int) -> Picks:
    claims, picks, left = _promised(stock, promise), Picks(stock), quantity
    for claim in claims:
        left += picks.claim(claim, -min(left, claim.picked))
    pile = _pile(model, promise)
    if claims:
        left += picks.pile(pile, -min(left, max(0, stock.adrift.get(pile, 0))))
        picks.claim(claims[-1], -left)
    else:
        picks.pile(pile, -left)
    return picks


def ship(
    model: Model,
    stock: Stock,
    promise: tuple[str, ...],
    identity: tuple[str, str],
    quantity: int,
    now_ms: int,
    where: Where,
    *,
    close: bool = False,
    disposition: str = SELLABLE,
) -> str:
    """Units left the building: booked whatever the claims say; the exception that this opens, or "".

    Each claim gives what is open of it, and takes what was picked for it along; an excess leaves on account of the last.
    """
    claims = _promised(stock, promise)
    fulfilled: dict[str, int] = {}
    released: dict[str, int] = {}
    left, picks, pile = quantity, Picks(stock), _pile(model, promise)
    for claim in claims:
        units = min(left, claim.open)
        gone = left if claim is claims[-1] else min(left, max(units, claim.picked))
        if gone:
            before_known = min(gone - min(gone, claim.picked), max(0, stock.adrift.get(pile, 0)))
            picks.claim(claim, -picks.pile(pile, -before_known) - gone)
            claim.fulfilled += units
            stock.touched(claim)
            fulfilled[claim.reservation_id] = fulfilled.get(claim.reservation_id, 0) + units
            left -= gone
    if not claims:
        picks.pile(pile, -left)
    _change(stock, disposition, -quantity)
    model_counts.note(stock, *where, disposition, -quantity, picks)
    for claim in claims if close else ():
        if claim.open:
            released[claim.reservation_id] = released.get(claim.reservation_id, 0) + claim.open
            claim.released += claim.open
            stock.touched(claim)
    stock.booked[identity] = quantity
    exception = model.new_exception(stock.shard) if promise and sum(fulfilled.values()) < quantity else ""
    for reservation_id in {**fulfilled, **released}:
        tell_home(model, reservation_id, fulfilled.get(reservation_id, 0), released.get(reservation_id, 0), now_ms)
    model.watch(stock)
    return exception


def tell_home(model: Model, reservation_id: str, fulfilled: int, released: int, now_ms: int) -> None:
    """The home follows what its stock keys say."""
    if fulfilled + released:
        reservation = model.reservations[reservation_id]
        reservation.fulfilled_units += fulfilled
        reservation.version += 1
        model.end_if_nothing_is_open(reservation, RELEASED, now_ms)


# --- the order management's door --------------------------------------------------------------------------------------------


def fulfill(model: Model, asked: Mapping[str, Any], now_ms: int) -> Outcome:
    """A shipment told by order management."""
    reservation = model.reservations[asked["reservation_id"]]
    if not reservation.in_memory:
        return refused(f"RESERVATION_{reservation.state}", reservation)
    parts = _parts(model, asked, reservation)
    if parts is None:
        return failed("INVALID_FIELD")
    new, again, exceeding, wrong_door = [], 0, [], False
    mismatched: list[Stock] = []
    told_now: dict[tuple[Key, str], int] = {}
    open_left = {(stock.key, claim.line_id): claim.open for stock, claim in model.claims_of(reservation)}
    for stock, line_id, document_line, units in parts:
        if not _order_management_ships(model, stock.key):
            wrong_door = True
            continue
        identity = (asked["shipment_id"], document_line)
        booked = told_now.get((stock.key, document_line), stock.booked.get(identity))
        if booked is not None:
            again += booked == units
            mismatched += [stock] if booked != units else []
            continue
        told_now[(stock.key, document_line)] = units
        new.append((stock, line_id, identity, units))
        left = open_left[(stock.key, line_id)]
        open_left[(stock.key, line_id)] = left - units
        if units > left:
            exceeding.append((line_id, stock.key, units, left, "QUANTITY_EXCEEDS_OPEN"))
    only_again = again and not new and not mismatched and not wrong_door
    no = None if only_again else model.ended(reservation)
    if no is None and reservation.state == HELD:
        no = refused("RESERVATION_NOT_CONFIRMED", reservation)
    if no is None and wrong_door:
        no = refused("FULFILLED_BY_WAREHOUSE", reservation)
    if no is None and exceeding:
        no = refused("QUANTITY_EXCEEDS_OPEN", reservation, exceeding)
    if no is not None:
        return no
    for stock, line_id, identity, units in new:
        where = (("", ""), 0, asked["occur_time_ms"] or now_ms)
        ship(model, stock, (reservation.id, "", "", line_id), identity, units, now_ms, where)
    for stock in mismatched:
        model.new_exception(stock.shard)
    if asked["close_remainder"] and not mismatched:
        _close(model, reservation, now_ms)
    return Outcome("ok", model.seen(reservation), changed=True)


def _parts(
    model: Model, asked: Mapping[str, Any], reservation: Reservation
) -> list[tuple[Stock, str, str, int]] | None:
    """(stock, line id, document line, units) of every part; None for a line that the reservation has not."""
    claims = model.claims_of(reservation)
    if not asked["lines"]:
        return [(stock, claim.line_id, claim.line_id, claim.open) for stock, claim in claims if claim.open]
    parts = []
    for line_id, quantity, document_line in asked["lines"]:
        entries = [(stock, claim) for stock, claim in claims if claim.line_id == line_id]
        if not entries:
            return None
        left = quantity
        for place, (stock, claim) in enumerate(entries, 1):
            units = left if place == len(entries) else min(left, claim.open)
            if units:
                parts.append((stock, line_id, document_line or line_id, units))
                left -= units
    return parts


def _close(model: Model, reservation: Reservation, now_ms: int) -> None:
    released = 0
    touched = []
    for stock, claim in model.claims_of(reservation):
        if claim.open:
            released += claim.open
            claim.released += claim.open
            stock.touched(claim)
            touched.append(stock)
    tell_home(model, reservation.id, 0, released, now_ms)
    for stock in touched:
        model.watch(stock)
