"""Counts of a reconciliation: what the books said at their place, and booking what was counted instead.

A thin door to ``counting``, so that a reconciliation's line and a warehouse's count are one thing. It adds the count of now,
and whether what happened since makes up a difference.
"""

from __future__ import annotations

from actors.domain.counting import book_count, books_at, is_remembered
from actors.domain.events import OnHandChanged
from actors.domain.history import Place
from actors.domain.outcomes import Fact
from actors.domain.state import SELLABLE, StockActor
from actors.domain.turn import Turn


def place_of_list(source_id: str, stream_id: str, sequence: int, time_ms: int) -> Place | None:
    """Where a list stands. Without a sequence it is placed by its time alone, in no stream; without both it is of now."""
    if sequence:
        return Place(f"{source_id}\x1f{stream_id}", sequence, time_ms)
    return Place("", 0, time_ms) if time_ms else None


def expected_at(
    turn: Turn, actor: StockActor, disposition: int, place: Place | None, *, includes_picked: bool
) -> int | None:
    """What a count at ``place`` (None: now) should find; None when the history does not reach back so far."""
    if place is None:
        picked = 0 if includes_picked or disposition != SELLABLE else actor.picked
        return actor.on_hand_of(disposition) - picked
    if not is_remembered(turn, actor, place.occur_time_ms):
        return None
    return books_at(actor, disposition, place, includes_picked=includes_picked)


def is_made_up_since(
    actor: StockActor, disposition: int, place: Place | None, difference: int, *, includes_picked: bool
) -> bool:
    """Whether what happened after the place, up to some later moment, is just the difference: the count was taken then."""
    if place is None or actor.history is None:
        return False
    leaves_out = disposition == SELLABLE and not includes_picked
    since = 0
    for _, _, on_hand_delta, picked_delta in sorted(actor.history.facts_after(place, disposition)):
        since += on_hand_delta - (picked_delta if leaves_out else 0)
        if since == difference:
            return True
    return False


def book_at(  # noqa: PLR0913  what a count says
    turn: Turn,
    actor: StockActor,
    disposition: int,
    quantity: int,
    place: Place | None,
    reconciliation_id: str,
    *,
    includes_picked: bool,
) -> int:
    """Book what was counted; the units that were added or taken away. The caller has asked ``expected_at``."""
    if place is not None:
        return book_count(
            turn,
            actor,
            place,
            disposition,
            quantity,
            includes_picked=includes_picked,
            sequence=0,
            event_id=reconciliation_id,
            reference=reconciliation_id,
        )
    expected = expected_at(turn, actor, disposition, None, includes_picked=includes_picked)
    assert expected is not None, "the books of now are always known"
    turn.emit(
        actor.shard,
        OnHandChanged(actor.key, int(Fact.STOCK_COUNT), disposition, quantity - expected, reconciliation_id),
    )
    return quantity - expected
