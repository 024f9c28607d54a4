"""Amend: target quantities by line, up or down, another warehouse, lines added or removed; all or nothing.

A target counts open plus fulfilled units of a line id, all its entries together. A moved line keeps its fulfilled units as an
entry at the old stock key. Per stock key, units up to the old open quantity carry over undecided and keep their granted or
imposed mark; only the excess is decided; a decrease is never refused for stock.
"""

from __future__ import annotations

from actors.domain.alarms import watch_shortage
from actors.domain.answers import Reply, error, ok
from actors.domain.commands import Amend
from actors.domain.events import ClaimGranted, ClaimReleased, ReservationAmended, ReservationEnded, VerbSpent
from actors.domain.lifecycle import (
    claims_of,
    ended_refusal,
    expire_due_on,
    expire_if_due,
    final_state,
    not_found,
    version_refusal,
)
from actors.domain.outcomes import Admission, ErrorReason, RefusalReason, ReleaseReason, ReservationState
from actors.domain.quantities import headroom
from actors.domain.rules import LINES_PER_ORDER_MAX
from actors.domain.state import OPEN, Claim, Reservation, ShardState, StockActor
from actors.domain.turn import Turn
from actors.domain.views import refused_about, repeat, reservation_view

VERB_AMEND = 5
CONFIRMED = int(ReservationState.CONFIRMED)
AMENDED = int(ReleaseReason.AMENDED)
WHEN_COVERED = int(Admission.WHEN_COVERED)

Entry = tuple[str, str]  # (line id, stock key)


class AmendPlan:
    """The reservation's entries after the amend: requested quantity, and open units before and after, by entry."""

    __slots__ = ("claims", "open_after", "open_before", "requested")

    def __init__(self, reservation: Reservation, claims: dict[Entry, Claim]) -> None:
        self.requested: dict[Entry, int] = {(line[0], line[1]): line[2] for line in reservation.lines}
        self.claims = claims
        self.open_before = {entry: self.claims[entry].open if entry in self.claims else 0 for entry in self.requested}
        self.open_after = dict(self.open_before)

    def fulfilled(self, line_id: str) -> int:
        """Fulfilled units of a line id, all its entries together."""
        return sum(claim.fulfilled for entry, claim in self.claims.items() if entry[0] == line_id)

    def retarget(self, line_id: str, key: str, target: int) -> bool:
        """Set a line id's target; False when it is below what is fulfilled."""
        fulfilled = self.fulfilled(line_id)
        if target < fulfilled:
            return False
        for entry in [entry for entry in self.requested if entry[0] == line_id and entry[1] != key]:
            self.open_after[entry] = 0
            claim = self.claims.get(entry)
            if claim is not None and claim.fulfilled:
                self.requested[entry] = claim.fulfilled
            else:
                del self.requested[entry]
        if key and target - fulfilled + self._fulfilled_at(line_id, key):
            self.requested[(line_id, key)] = target - fulfilled + self._fulfilled_at(line_id, key)
        elif key:
            self.requested.pop((line_id, key), None)
        if key:
            self.open_after[(line_id, key)] = target - fulfilled
        return True

    def set_adrift(self, key: str) -> int:
        """Units on a stock key that were picked for what this amend takes away there: off the shelf, so no cover."""
        adrift = 0
        for entry, before in self.open_before.items():
            after = self.open_after[entry]
            if entry[1] == key and after < before and entry in self.claims:
                picked = self.claims[entry].picked
                adrift += max(0, picked - after) - max(0, picked - before)
        return adrift

    def _fulfilled_at(self, line_id: str, key: str) -> int:
        claim = self.claims.get((line_id, key))
        return claim.fulfilled if claim is not None else 0


def amend(turn: Turn, home: ShardState, command: Amend, *, accept_claims: bool) -> Reply:
    """Decide an amend; a refusal spends the id (nothing would lapse by itself). OK payload: ``ReservationView``."""
    reservation = turn.reservation(command.reservation_id)
    if reservation is None:
        return not_found(command.reservation_id)
    again = repeat(turn, home, reservation.channel_id, command.request_id, command.digest, reservation=reservation)
    if again is not None:
        return again
    if not accept_claims:
        return error(ErrorReason.JOURNAL_FULL, "disk space is below the floor: new claims are refused", 5000)
    expire_if_due(turn, home, reservation)
    refusal = ended_refusal(turn, home, reservation)
    if refusal is not None:
        return spend_amend_refusal(turn, home, command, reservation, refusal)
    refusal = version_refusal(turn, home, reservation, command.expected_version)
    if refusal is not None:
        return spend_amend_refusal(turn, home, command, reservation, refusal)
    plan = AmendPlan(reservation, {(claim.line_id, actor.key): claim for actor, claim in claims_of(turn, reservation)})
    refusal = retarget_lines(turn, home, command, reservation, plan)
    if refusal is not None:
        return refusal
    shortages = _shortages(turn, plan)
    if shortages:
        reason = RefusalReason(min(shortage[4] for shortage in shortages))
        others = _positions(turn, plan, home)
        refusal = refused_about(turn, reservation, home, reason, shortages, others)
        return spend_amend_refusal(turn, home, command, reservation, refusal)
    _carry_out(turn, home, command, reservation, plan)
    return ok(reservation_view(turn, reservation, home))


def retarget_lines(
    turn: Turn, home: ShardState, command: Amend, reservation: Reservation, plan: AmendPlan
) -> Reply | None:
    """Set every target; why that cannot be."""
    invalid = _invalid(command, plan)
    if invalid:
        return error(ErrorReason.INVALID_FIELD, invalid)
    below = [line[0] for line in command.target_lines if not plan.retarget(line[0], line[1], line[2])]
    below += [line_id for line_id in command.removed_line_ids if not plan.retarget(line_id, "", 0)]
    if below:
        shortages = [(line_id, "", plan.fulfilled(line_id), 0, int(RefusalReason.BELOW_FULFILLED)) for line_id in below]
        refusal = refused_about(turn, reservation, home, RefusalReason.BELOW_FULFILLED, shortages)
        return spend_amend_refusal(turn, home, command, reservation, refusal)
    if len(plan.requested) > LINES_PER_ORDER_MAX:
        return error(ErrorReason.INVALID_FIELD, f"target_lines: more than {LINES_PER_ORDER_MAX} lines in all")
    return None


def _invalid(command: Amend, plan: AmendPlan) -> str:
    known = {line_id for line_id, _ in plan.requested}
    unknown = [line_id for line_id in command.removed_line_ids if line_id not in known]
    if unknown:
        return f"removed_line_ids: {unknown[0]!r} is not a line of this reservation"
    twice = set(command.removed_line_ids) & {line[0] for line in command.target_lines}
    if twice:
        return f"removed_line_ids: {min(twice)!r} is also among target_lines"
    return ""


def _positions(turn: Turn, plan: AmendPlan, home: ShardState) -> list[tuple[int, int, int, int]]:
    """One position for every shard but the home in which the amend looked for units or would have freed some."""
    books = turn.books
    shards = {books.shard_of(key) for _, key in plan.open_after} - {home.id}
    return [turn.position(books.shards[shard]) for shard in sorted(shards) if shard in books.shards]


def spend_amend_refusal(
    turn: Turn, home: ShardState, command: Amend, reservation: Reservation, refusal: Reply
) -> Reply:
    """A refused amend spends its id: nothing would lapse by itself."""
    if (
        reservation.final_lines is not None
    ):  # it left memory: nothing can change it any more, the refusal stands by itself
        return refusal
    view = refusal[2]
    kept = (view.reason, view.shortages, view.state, view.version)
    turn.emit(home, VerbSpent(reservation.id, command.request_id, command.digest, VERB_AMEND, kept))
    return (refusal[0], refusal[1], view._replace(position=turn.position(home)))


def by_key(units: dict[Entry, int]) -> dict[str, int]:
    """Sums over the lines of a stock key."""
    sums: dict[str, int] = {}
    for (_, key), quantity in units.items():
        sums[key] = sums.get(key, 0) + quantity
    return sums


def _shortages(turn: Turn, plan: AmendPlan) -> list[tuple[str, str, int, int, int]]:
    """What keeps the increases from being granted, by stock key; empty when nothing does."""
    before, after = by_key(plan.open_before), by_key(plan.open_after)
    fulfilled = by_key({entry: claim.fulfilled for entry, claim in plan.claims.items()})
    shortages = []
    for key, quantity in after.items():
        excess = quantity - before.get(key, 0)
        if excess <= 0:
            continue
        actor = turn.books.stock.get(key)
        adrift = plan.set_adrift(key)
        if actor is not None and excess > headroom(actor) - adrift:
            expire_due_on(turn, actor)
        reason, available = why_not(actor, excess, quantity + fulfilled.get(key, 0), adrift)
        if reason is not None:
            line_id = next(entry[0] for entry in plan.open_after if entry[1] == key and plan.open_after[entry])
            shortages.append((line_id, key, quantity, before.get(key, 0) + available, int(reason)))
    return shortages


def why_not(actor: StockActor | None, excess: int, ordered: int, adrift: int) -> tuple[RefusalReason | None, int]:
    """Why ``excess`` more units cannot be granted on a stock key, and how many could."""
    if actor is None:
        return RefusalReason.UNKNOWN_STOCK_KEY, 0
    if actor.selling_state != OPEN:
        return RefusalReason.SELLING_SUSPENDED, 0
    available = max(0, headroom(actor) - adrift)
    if actor.max_quantity_per_order and ordered > actor.max_quantity_per_order:
        return RefusalReason.LIMIT_PER_ORDER, min(available, max(0, actor.max_quantity_per_order - ordered + excess))
    if excess > available:
        return RefusalReason.INSUFFICIENT_STOCK, available
    return None, available


def _carry_out(turn: Turn, home: ShardState, command: Amend, reservation: Reservation, plan: AmendPlan) -> None:
    """Decreases first, so that what they free carries over to increases on the same stock key. Nothing here may fail."""
    stock = turn.books.stock
    touched: dict[str, StockActor] = {}
    pool: dict[str, list[int]] = {}  # stock key → [units, of them imposed, of them uncovered] freed and not carried yet
    added = released = 0
    for entry, after in plan.open_after.items():
        fewer = plan.open_before.get(entry, 0) - after
        if fewer <= 0:
            continue
        line_id, key = entry
        claim = plan.claims[entry]
        kept = pool.setdefault(key, [0, 0, 0])
        imposed = min(fewer, claim.imposed)
        kept[0] += fewer
        kept[1] += imposed
        kept[2] += min(imposed, claim.uncovered)
        released += fewer
        touched[key] = stock[key]
        turn.emit(stock[key].shard, ClaimReleased(key, reservation.id, line_id, fewer, AMENDED))
    for entry, after in plan.open_after.items():
        more = after - plan.open_before.get(entry, 0)
        if more <= 0:
            continue
        line_id, key = entry
        kept = pool.setdefault(key, [0, 0, 0])
        carried = min(more, kept[0])
        imposed = min(carried, kept[1])
        uncovered = min(imposed, kept[2])
        kept[0] -= carried
        kept[1] -= imposed
        kept[2] -= uncovered
        added += more
        touched[key] = stock[key]
        turn.emit(
            stock[key].shard,
            ClaimGranted(
                key,
                reservation.id,
                line_id,
                more,
                carried,
                WHEN_COVERED,
                imposed,
                uncovered,
                reservation.state == CONFIRMED,
                reservation.channel_id,
                reservation.order_reference,
            ),
        )
    lines = tuple(
        (*entry, requested, _granted(turn, reservation, entry)) for entry, requested in plan.requested.items()
    )
    turn.emit(home, ReservationAmended(reservation.id, lines, added, released, reservation.channel_id))
    if reservation.open_units == 0:
        turn.emit(
            home,
            ReservationEnded(
                reservation.id, final_state(reservation, ReservationState.RELEASED), reservation.channel_id
            ),
        )
    for actor in touched.values():
        watch_shortage(turn, actor)
    turn.emit(home, VerbSpent(reservation.id, command.request_id, command.digest, VERB_AMEND))


def _granted(turn: Turn, reservation: Reservation, entry: Entry) -> int:
    first = turn.books.stock[entry[1]].claims.get(reservation.id) if entry[1] in turn.books.stock else None
    claim = first.line(entry[0]) if first is not None else None
    return claim.granted if claim is not None else 0
