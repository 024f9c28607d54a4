"""The model's rules of orders: reserve and replace, confirm, extend, release. Which answer is right, and what it does.

Amounts are decided by stock key on the sum of its lines; what an order has there already carries over undecided and keeps its
mark (granted, or imposed and so far uncovered). When units move between lines of one key the imposed ones move first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tests.simulation.history import Key
from tests.simulation.model_state import (
    CONFIRMED,
    HELD,
    RELEASED,
    Claim,
    Outcome,
    Reservation,
    Stock,
    failed,
    first_reason,
    refused,
)

if TYPE_CHECKING:
    from tests.simulation.model import Model

Marks = list[int]  # units that carry over, how many of them are imposed, how many of those uncovered


# --- reserve --------------------------------------------------------------------------------------------------------------


def reserve(model: Model, asked: Mapping[str, Any], now_ms: int, new_id: str) -> Outcome:
    """All lines, whole lines, or parts; in place of an old hold or not."""
    old: Reservation | None = None
    if asked["replaces_reservation_id"]:
        old = model.reservations.get(asked["replaces_reservation_id"])
        if old is None or old.channel_id != asked["channel_id"]:
            return failed("RESERVATION_NOT_FOUND")
        if old.state == CONFIRMED:
            return _spent_if_confirmed(asked, refused("RESERVATION_ALREADY_CONFIRMED", old))
        if old.state != HELD:
            old = None  # it has ended and contributes nothing
    own: dict[Key, Marks] = {}
    wanted: dict[Key, int] = {}
    free: dict[Key, int] = {}
    for _, key, quantity, _ in asked["lines"]:
        wanted[key] = wanted.get(key, 0) + quantity
        own[key] = _units_of(model, old, key)
        free[key] = _free(model, old, key)
    granted, shortages = _allot(model, asked, wanted, own, free)
    always = asked["admission"] == "ALWAYS"
    whole = always or asked["fill_policy"] == "ALL_OR_NOTHING"
    if shortages and (whole or not any(granted)):
        reason = first_reason([shortage[4] for shortage in shortages])
        return _spent_if_confirmed(asked, refused(reason, shortages=shortages))
    return _grant(model, asked, now_ms, new_id, old, granted, own, free)


def _spent_if_confirmed(asked: Mapping[str, Any], refusal: Outcome) -> Outcome:
    """Where nothing would lapse by itself a refusal spends the id."""
    refusal.changed = bool(asked["confirm"])
    return refusal


def _units_of(model: Model, old: Reservation | None, key: Key) -> Marks:
    marks = [0, 0, 0]
    stock = model.stock.get(key)
    if old is not None and stock is not None:
        for claim in stock.claims.get(old.id, {}).values():
            marks[0] += claim.open
            marks[1] += min(claim.imposed, claim.open)
            marks[2] += min(claim.uncovered, claim.open)
    return marks


def _free(model: Model, old: Reservation | None, key: Key) -> int:
    """ATS for more than the old hold has. What was picked for it is adrift as soon as it is replaced."""
    stock = model.stock.get(key)
    if stock is None:
        return 0
    picked = [min(one.picked, one.open) for one in stock.claims.get(old.id, {}).values()] if old is not None else []
    return max(0, stock.headroom() - sum(picked))


def _most(stock: Stock | None, wanted: int, own: int, free: int) -> tuple[int, str]:
    """The most an order may have on a stock key, and why not more."""
    if stock is None:
        return 0, "UNKNOWN_STOCK_KEY"
    if stock.selling_state != "OPEN":
        return own, "SELLING_SUSPENDED"
    most = own + free
    if stock.max_quantity_per_order:
        limit = max(stock.max_quantity_per_order, own)
        if wanted > limit or limit < most:
            return min(most, limit), "LIMIT_PER_ORDER"
    return most, "INSUFFICIENT_STOCK"


def _allot(
    model: Model, asked: Mapping[str, Any], wanted: dict[Key, int], own: dict[Key, Marks], free: dict[Key, int]
) -> tuple[list[int], list[tuple[Any, ...]]]:
    """Granted units by line, and the lines that fell short, a stock key after the other."""
    granted = [0] * len(asked["lines"])
    shortages = []
    always = asked["admission"] == "ALWAYS"
    policy = "ALL_OR_NOTHING" if always else asked["fill_policy"]
    for key, in_all in wanted.items():
        stock = model.stock.get(key)
        left, reason = _most(stock, in_all, own[key][0], free[key])
        too_much = policy == "ALL_OR_NOTHING" and in_all > left
        for index, (line_id, line_key, quantity, minimum) in enumerate(asked["lines"]):
            if line_key != key:
                continue
            if always and stock is not None:
                granted[index] = quantity
                continue
            units = quantity
            if quantity > left:
                part = policy == "PARTIAL_QUANTITIES" and left >= max(1, minimum)
                units = left if part else 0
            if too_much:
                units = 0
            if units < quantity:
                shortages.append((line_id, key, quantity, left, reason))
            granted[index] = units
            left -= units
    return granted, shortages


def _grant(
    model: Model,
    asked: Mapping[str, Any],
    now_ms: int,
    new_id: str,
    old: Reservation | None,
    granted: list[int],
    own: dict[Key, Marks],
    free: dict[Key, int],
) -> Outcome:
    always = asked["admission"] == "ALWAYS"
    covered = {}
    for key in own:
        decided = sum(granted[index] for index, line in enumerate(asked["lines"]) if line[1] == key) - own[key][0]
        covered[key] = min(max(0, decided), free[key])
    touched: list[Stock] = []
    if old is not None:
        touched += _release_all(model, old, now_ms)
    state = CONFIRMED if asked["confirm"] else HELD
    made = Reservation(new_id, asked["channel_id"], asked["request_id"], state)
    made.customer_id = asked["customer_id"]
    made.order_reference = asked["order_reference"]
    made.create_time_ms = now_ms
    made.confirm_time_ms = now_ms if state == CONFIRMED else 0
    made.expire_time_ms = 0 if state == CONFIRMED else now_ms + (asked["ttl_ms"] or model.settings.ttl_ms_default)
    for index, (line_id, key, quantity, _) in enumerate(asked["lines"]):
        units = granted[index]
        made.lines.append((line_id, key, quantity, units))
        if not units:
            continue
        stock = model.stock[key]
        carried, imposed, uncovered = take_marks(own[key], units)
        if always:
            decided = units - carried
            with_cover = min(decided, covered[key])
            covered[key] -= with_cover
            imposed += decided
            uncovered += decided - with_cover
        add_units(stock, made, line_id, units, imposed, uncovered)
        touched.append(stock)
    model.reservations[new_id] = made
    for stock in touched:
        model.watch(stock)
    answer = model.seen(made)
    told = ("reservation_id", "state", "version", "create_time_ms", "expire_time_ms", "lines")
    return Outcome("ok", {name: answer[name] for name in told}, changed=True)


def take_marks(marks: Marks, units: int) -> tuple[int, int, int]:
    """Units that carry over, and how many of them are imposed and uncovered; they are taken out of ``marks``."""
    carried = min(units, marks[0])
    imposed = min(carried, marks[1])
    uncovered = min(imposed, marks[2])
    marks[0] -= carried
    marks[1] -= imposed
    marks[2] -= uncovered
    return carried, imposed, uncovered


def add_units(stock: Stock, reservation: Reservation, line_id: str, units: int, imposed: int, uncovered: int) -> Claim:
    """Units become claimed; the warehouse can name them by their order."""
    lines = stock.claims.setdefault(reservation.id, {})
    stock.arrivals.setdefault(reservation.id, len(stock.arrivals))
    claim = lines.get(line_id)
    if claim is None:
        claim = lines[line_id] = reservation.claims[(line_id, stock.key)] = Claim(reservation, line_id)
    for other in lines.values():
        other.confirmed = reservation.state == CONFIRMED
        if other.order_reference != reservation.order_reference:  # the order got it while it had nothing here
            stock.orders.get((other.channel_id, other.order_reference), set()).discard(reservation.id)
            other.order_reference = reservation.order_reference
    claim.granted += units
    claim.imposed += imposed
    claim.uncovered += uncovered
    stock.touched(claim)
    remember_order(stock, claim)
    return claim


def remember_order(stock: Stock, claim: Claim) -> None:
    """Make the claim findable as its channel's order."""
    if claim.order_reference:
        stock.orders.setdefault((claim.channel_id, claim.order_reference), set()).add(claim.reservation_id)


def _release_all(model: Model, old: Reservation, now_ms: int) -> list[Stock]:
    touched = []
    for stock in {key: model.stock[key] for _, key, _, _ in old.lines if key in model.stock}.values():
        for claim in stock.claims.get(old.id, {}).values():
            if claim.open:
                claim.released += claim.open
                stock.touched(claim)
                touched.append(stock)
    old.version += 1
    model.end(old, RELEASED, now_ms)
    return touched


# --- confirm, extend, release -----------------------------------------------------------------------------------------------


def confirm(model: Model, asked: Mapping[str, Any], now_ms: int) -> Outcome:
    """A hold becomes an order."""
    reservation = model.reservations[asked["reservation_id"]]
    no = model.ended(reservation) or _if(reservation.state == CONFIRMED, "RESERVATION_ALREADY_CONFIRMED", reservation)
    no = no or refused_version(asked, reservation)
    if no:
        return no
    reservation.state = CONFIRMED
    reservation.confirm_time_ms = now_ms
    reservation.version += 1
    reservation.order_reference = asked["order_reference"] or reservation.order_reference
    for key in {key: None for _, key, _, _ in reservation.lines}:
        stock = model.stock.get(key)
        for claim in stock.claims.get(reservation.id, {}).values() if stock is not None else ():
            assert stock is not None
            claim.confirmed = True
            if asked["order_reference"]:
                stock.orders.get((claim.channel_id, claim.order_reference), set()).discard(reservation.id)
                claim.order_reference = asked["order_reference"]
        for claim in stock.claims.get(reservation.id, {}).values() if stock is not None else ():
            assert stock is not None
            remember_order(stock, claim)
    return Outcome("ok", model.seen(reservation), changed=True)


def _if(condition: bool, reason: str, reservation: Reservation) -> Outcome | None:
    return refused(reason, reservation) if condition else None


def refused_version(asked: Mapping[str, Any], reservation: Reservation) -> Outcome | None:
    return _if(asked["expected_version"] not in (0, reservation.version), "VERSION_MISMATCH", reservation)


def extend(model: Model, asked: Mapping[str, Any], now_ms: int) -> Outcome:
    """A later deadline, within the bound of a hold's life; never an earlier one."""
    reservation = model.reservations[asked["reservation_id"]]
    until = now_ms + asked["ttl_ms"]
    no = model.ended(reservation) or _if(reservation.state == CONFIRMED, "RESERVATION_ALREADY_CONFIRMED", reservation)
    too_long = until > reservation.create_time_ms + model.settings.lifetime_ms_max
    no = no or _if(too_long, "LIFETIME_EXCEEDED", reservation)
    if no:
        return no
    reservation.expire_time_ms = max(until, reservation.expire_time_ms)
    reservation.version += 1
    return Outcome("ok", model.seen(reservation), changed=True)


def release(model: Model, asked: Mapping[str, Any], now_ms: int) -> Outcome:
    """All that is open, or parts of lines."""
    reservation = model.reservations[asked["reservation_id"]]
    no = model.ended(reservation)
    if no:
        return no
    claims = model.claims_of(reservation)
    wanted: dict[str, int] = {}
    for line_id, quantity in asked["lines"]:
        wanted[line_id] = wanted.get(line_id, 0) + quantity
    plan = [] if wanted else [(stock, claim, claim.open) for stock, claim in claims]
    shortages = []
    for line_id, quantity in wanted.items():
        left, key = quantity, ("", "")
        for stock, claim in claims:
            if claim.line_id == line_id:
                key = stock.key
                plan.append((stock, claim, min(left, claim.open)))
                left -= min(left, claim.open)
        if left:
            shortages.append((line_id, key, quantity, quantity - left, "QUANTITY_EXCEEDS_OPEN"))
    if shortages:
        return refused("QUANTITY_EXCEEDS_OPEN", reservation, shortages)
    for stock, claim, units in plan:
        claim.released += units
        stock.touched(claim)
    reservation.version += 1
    model.end_if_nothing_is_open(reservation, RELEASED, now_ms)
    for stock, _, _ in plan:
        model.watch(stock)
    return Outcome("ok", model.seen(reservation), changed=True)


VERBS: dict[str, Callable[[Model, Mapping[str, Any], int], Outcome]] = {
    "confirm": confirm,
    "extend": extend,
    "release": release,
}
