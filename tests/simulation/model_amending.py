"""The model's rules of amending: target quantities by line, all or nothing.

Units up to what the order has on a stock key carry over undecided and keep their mark; decreases come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.simulation.history import Key
from tests.simulation.model_orders import Marks, add_units, refused_version, take_marks
from tests.simulation.model_state import (
    LINES_MAX,
    RELEASED,
    Outcome,
    Reservation,
    Stock,
    failed,
    first_reason,
    refused,
)

if TYPE_CHECKING:
    from tests.simulation.model import Model


def amend(model: Model, asked: Mapping[str, Any], now_ms: int) -> Outcome:
    """Target quantities by line, all or nothing. A refusal spends the id, unless the reservation has left memory."""
    reservation = model.reservations[asked["reservation_id"]]
    outcome = _amend(model, asked, now_ms, reservation)
    if outcome.status == "refused":
        outcome.changed = reservation.in_memory
    return outcome


def _amend(model: Model, asked: Mapping[str, Any], now_ms: int, reservation: Reservation) -> Outcome:
    no = model.ended(reservation) or refused_version(asked, reservation)
    if no:
        return no
    line_ids = {line_id for line_id, _, _, _ in reservation.lines}
    targets = {line_id: (key, quantity) for line_id, key, quantity, _ in asked["target_lines"]}
    removed = asked["removed_line_ids"]
    if any(line_id not in line_ids or line_id in targets for line_id in removed):
        return failed("INVALID_FIELD")
    fulfilled: dict[str, int] = {}
    for _, claim in model.claims_of(reservation):
        fulfilled[claim.line_id] = fulfilled.get(claim.line_id, 0) + claim.fulfilled
    below = [line_id for line_id, (_, quantity) in targets.items() if quantity < fulfilled.get(line_id, 0)]
    below += [line_id for line_id in removed if fulfilled.get(line_id, 0)]
    if below:
        told = [(line_id, ("", ""), fulfilled[line_id], 0, "BELOW_FULFILLED") for line_id in below]
        return refused("BELOW_FULFILLED", reservation, told)
    requested, before, after = _plan(model, reservation, targets, removed, fulfilled)
    if len(requested) > LINES_MAX:
        return failed("INVALID_FIELD")
    shortages = _amend_shortages(model, reservation, before, after)
    if shortages:
        return refused(first_reason([shortage[4] for shortage in shortages]), reservation, shortages)
    touched = _carry_over(model, reservation, before, after)
    reservation.lines = []
    for (line_id, key), quantity in requested.items():
        stock = model.stock.get(key)
        claim = stock.claim(reservation.id, line_id) if stock is not None else None
        reservation.lines.append((line_id, key, quantity, claim.granted if claim is not None else 0))
    reservation.version += 1
    model.end_if_nothing_is_open(reservation, RELEASED, now_ms)
    for stock in touched:
        model.watch(stock)
    return Outcome("ok", model.seen(reservation), changed=True)


Units = dict[tuple[str, Key], int]


def _plan(
    model: Model,
    reservation: Reservation,
    targets: Mapping[str, tuple[Key, int]],
    removed: tuple[str, ...],
    fulfilled: Mapping[str, int],
) -> tuple[Units, Units, Units]:
    """By (line, key): the quantity requested after the amend; open units before and after it."""
    requested: Units = {(line_id, key): quantity for line_id, key, quantity, _ in reservation.lines}
    claims = {(claim.line_id, stock.key): claim for stock, claim in model.claims_of(reservation)}
    before: Units = {entry: claims[entry].open if entry in claims else 0 for entry in requested}
    after = dict(before)
    changed: dict[str, tuple[Key | None, int]] = {**targets, **dict.fromkeys(removed, (None, 0))}
    for line_id, (key, quantity) in changed.items():
        for entry in [entry for entry in requested if entry[0] == line_id and entry[1] != key]:
            after[entry] = 0
            shipped = claims[entry].fulfilled if entry in claims else 0
            if shipped:  # a moved line keeps its fulfilled units as an entry at the old stock key
                requested[entry] = shipped
            else:
                del requested[entry]
        if key is not None:
            entry = (line_id, key)
            still = quantity - fulfilled.get(line_id, 0)
            after[entry] = still
            requested[entry] = still + (claims[entry].fulfilled if entry in claims else 0)
            if not requested[entry]:
                del requested[entry]
    return requested, before, after


def _amend_shortages(model: Model, reservation: Reservation, before: Units, after: Units) -> list[tuple[Any, ...]]:
    shortages = []
    for key in {key: None for _, key in after}:
        had = sum(units for entry, units in before.items() if entry[1] == key)
        wanted = sum(units for entry, units in after.items() if entry[1] == key)
        if wanted <= had:
            continue
        stock = model.stock.get(key)
        reason, available = "", 0
        if stock is None:
            reason = "UNKNOWN_STOCK_KEY"
        elif stock.selling_state != "OPEN":
            reason = "SELLING_SUSPENDED"
        else:
            available = max(0, stock.headroom() - _set_adrift(reservation, key, before, after))
            shipped = sum(claim.fulfilled for there, claim in model.claims_of(reservation) if there is stock)
            limit = stock.max_quantity_per_order
            if limit and wanted + shipped > limit:
                reason, available = "LIMIT_PER_ORDER", min(available, max(0, limit - had - shipped))
            elif wanted - had > available:
                reason = "INSUFFICIENT_STOCK"
        if reason:
            line_id = next(entry[0] for entry, units in after.items() if entry[1] == key and units)
            shortages.append((line_id, key, wanted, had + available, reason))
    return shortages


def _set_adrift(reservation: Reservation, key: Key, before: Units, after: Units) -> int:
    """Units picked for what is taken away on that key: they are off the shelf, so they cover nothing else."""
    adrift = 0
    for entry, had in before.items():
        claim = reservation.claims.get(entry)
        if entry[1] == key and claim is not None and after[entry] < had:
            adrift += max(0, claim.picked - after[entry]) - max(0, claim.picked - had)
    return adrift


def _carry_over(model: Model, reservation: Reservation, before: Units, after: Units) -> list[Stock]:
    """Decreases first; what they free goes to increases on the same key with its mark."""
    freed: dict[Key, Marks] = {}
    touched = []
    for (line_id, key), units in after.items():
        fewer = before.get((line_id, key), 0) - units
        if fewer > 0:
            stock = model.stock[key]
            claim = stock.claim(reservation.id, line_id)
            assert claim is not None, "open units without a claim"
            imposed = min(fewer, claim.imposed)
            marks = freed.setdefault(key, [0, 0, 0])
            marks[0] += fewer
            marks[1] += imposed
            marks[2] += min(imposed, claim.uncovered)
            claim.released += fewer
            stock.touched(claim)
            touched.append(stock)
    for (line_id, key), units in after.items():
        more = units - before.get((line_id, key), 0)
        if more > 0:
            stock = model.stock[key]
            _, imposed, uncovered = take_marks(freed.setdefault(key, [0, 0, 0]), more)
            add_units(stock, reservation, line_id, more, imposed, uncovered)
            touched.append(stock)
    return touched
