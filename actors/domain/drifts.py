"""Differences beyond the tolerance, from their quarantine to their end: accepted, discarded, or superseded by a later list.

A stock key is sold again when the last of its differences has ended, unless somebody else had suspended it before.
"""

from __future__ import annotations

from actors.domain.alarms import watch_shortage
from actors.domain.events import ExceptionHealed, OnHandChanged
from actors.domain.exception_state import StockException
from actors.domain.fulfilling import in_bounds
from actors.domain.history import Place
from actors.domain.outcomes import ExceptionState, Fact, SellingState
from actors.domain.placed_counts import book_at, expected_at
from actors.domain.policies import change_selling
from actors.domain.reconciliation_events import FindingResolved
from actors.domain.reconciliation_state import Finding, what_of_finding
from actors.domain.reconciliation_words import FindingState
from actors.domain.state import ShardState, StockActor
from actors.domain.turn import Turn

OPEN = int(ExceptionState.OPEN)
SUSPENDED = int(SellingState.SUSPENDED)


def quarantine(turn: Turn, actor: StockActor) -> bool:
    """Suspend selling of a stock key; whether its end may resume it: not when an operator had suspended it."""
    suspends = actor.selling_state != SUSPENDED or any(one.suspends for one in quarantined(turn, actor))
    change_selling(turn, actor, SUSPENDED)
    return suspends


def quarantined(turn: Turn, actor: StockActor) -> list[Finding]:
    """Its differences that nobody decided."""
    keys = turn.books.reconciliations.quarantined.get(actor.key, ())
    return sorted((actor.shard.findings[key] for key in keys), key=lambda one: one.number)


def accept_count(turn: Turn, shard: ShardState, exception: StockException) -> str:
    """The count is right: book it at its place, sell again. Empty, or why it cannot be."""
    actor = shard.stock.get(exception.fields[1])
    finding = _finding_of(turn, actor, exception)
    if actor is None or finding is None:
        return "its difference was decided already"
    disposition = int(what_of_finding(finding.key)[0])
    place = Place(*finding.place) if finding.place else None
    includes_picked = finding.includes_picked
    expected = None
    if place is not None:
        expected = expected_at(turn, actor, disposition, place, includes_picked=includes_picked)
    if not in_bounds(actor, disposition, finding.found - (finding.expected if expected is None else expected)):
        return "on hand would leave the range of ±10^15 units"
    if expected is not None:
        counted = (disposition, finding.found, place, finding.reconciliation_id)
        booked = book_at(turn, actor, *counted, includes_picked=includes_picked)
    else:  # the books of then are gone, or were those of now: what differed then
        booked = finding.found - finding.expected
        reference = finding.reconciliation_id
        turn.emit(shard, OnHandChanged(actor.key, int(Fact.STOCK_COUNT), disposition, booked, reference))
    _end(turn, actor, finding, FindingState.ACCEPTED, booked)
    watch_shortage(turn, actor)
    return ""


def discard_count(turn: Turn, shard: ShardState, exception: StockException) -> str:
    """The books are right: nothing is booked, sell again. Empty, or why it cannot be."""
    actor = shard.stock.get(exception.fields[1])
    finding = _finding_of(turn, actor, exception)
    if actor is None or finding is None:
        return "its difference was decided already"
    _end(turn, actor, finding, FindingState.DISCARDED, 0)
    return ""


def supersede(turn: Turn, actor: StockActor, disposition: int, as_of_ms: int, *, but: str = "") -> None:
    """A later list was compared: what earlier ones said of this disposition is out of date. ``but``: its own finding."""
    if actor.key not in turn.books.reconciliations.quarantined:
        return
    for finding in quarantined(turn, actor):
        of_ms = finding.place[2] if finding.place else finding.time_ms
        if finding.key == but or what_of_finding(finding.key) != [str(disposition)] or of_ms > as_of_ms:
            continue
        exception = actor.shard.exceptions.get(finding.exception_id)
        if exception is not None and exception.state == OPEN:
            turn.emit(actor.shard, ExceptionHealed(exception.id))
        _end(turn, actor, finding, FindingState.SUPERSEDED, 0)


def _finding_of(turn: Turn, actor: StockActor | None, exception: StockException) -> Finding | None:
    found = quarantined(turn, actor) if actor is not None else []
    return next((one for one in found if one.exception_id == exception.id), None)


def _end(turn: Turn, actor: StockActor, finding: Finding, state: FindingState, booked: int) -> None:
    turn.emit(actor.shard, FindingResolved(finding.key, int(state), booked))
    others = any(one.suspends for one in quarantined(turn, actor))
    if finding.suspends and not others and actor.selling_state == SUSPENDED:
        change_selling(turn, actor, int(SellingState.OPEN))
