"""Counts as of a place in the past, and facts that come late: what is on hand does not depend on the order of arrival.

on hand of a disposition = its newest count (plus what was picked then, where it left that out) + all facts after it;
without a count, all facts. So a count books the difference to what the books said at its place, and a fact that turns out to
have happened before a booked count is booked and its effect booked back at once. Which count is newest, and what is after a
place, ``actors.domain.history`` says; pure arithmetic there, events here.
"""

from __future__ import annotations

from collections.abc import Mapping

from actors.domain.events import AdriftPicked, OnHandChanged
from actors.domain.feed_events import CountPlaced, FactNoted, HistoryForgotten
from actors.domain.history import FACTS_MAX, WORDS, History, Marker, Moved, Place
from actors.domain.outcomes import Disposition, Fact
from actors.domain.state import StockActor
from actors.domain.turn import Turn

SELLABLE = int(Disposition.SELLABLE)
STOCK_COUNT = int(Fact.STOCK_COUNT)
NOTHING = Moved({}, {})
NO_DOCUMENT = ("", "", "")


def note_fact(
    turn: Turn,
    actor: StockActor,
    place: Place,
    disposition: int,
    on_hand_delta: int,
    picks: Mapping[str, int] | None = None,
    document: tuple[str, str, str] = NO_DOCUMENT,
) -> None:
    """Remember a fact that was just booked, and book back what booked counts knew already. Call it last of a fact's events.

    ``picks``: by promise, by how many units the net of its picked ones changed. ``document``: id, line and lot, where no other
    event has them.
    """
    stream_key, sequence, occur_time_ms = place
    if not picks:
        noted = FactNoted(actor.key, stream_key, sequence, occur_time_ms, disposition, on_hand_delta, 0, "", *document)
        turn.emit(actor.shard, noted)
    else:
        left = on_hand_delta
        for promise, units in picks.items():
            noted = FactNoted(
                actor.key, stream_key, sequence, occur_time_ms, disposition, left, units, promise, *document
            )
            turn.emit(actor.shard, noted)
            left = 0
    _look_back(turn, actor, place, disposition, on_hand_delta, picks or {})


def note_move(turn: Turn, actor: StockActor, changed: OnHandChanged) -> None:
    """Book and remember a fact that is one change of on hand, which names its place: ``emit`` and ``note_fact`` in one."""
    turn.emit(actor.shard, changed)
    history = actor.history
    if history is None or history.markers or len(history.facts) >= history.words_to_check:
        _look_back(turn, actor, Place(*changed[11:14]), changed.disposition, changed.delta, {})


def _look_back(  # noqa: PLR0913  the parts of a fact
    turn: Turn, actor: StockActor, place: Place, disposition: int, on_hand_delta: int, picks: Mapping[str, int]
) -> None:
    """What a fact that was noted asks for: to be booked back, or that older ones are forgotten."""
    history = actor.history
    assert history is not None, "a fact was noted"
    if history.markers:
        _book_back(turn, actor, history, place, disposition, on_hand_delta, picks)
    if len(history.facts) >= history.words_to_check:
        _forget(turn, actor, history)


def _book_back(  # noqa: PLR0913  the parts of a fact
    turn: Turn,
    actor: StockActor,
    history: History,
    place: Place,
    disposition: int,
    on_hand_delta: int,
    picks: Mapping[str, int],
) -> None:
    count = history.newest_count(disposition)
    if count is not None and on_hand_delta and not is_after(place, count.place):
        _correct(turn, actor, disposition, -on_hand_delta, count.event_id)
    count = history.newest_count(SELLABLE)
    if picks and count is not None and not count.includes_picked and not is_after(place, count.place):
        after = history.moved_after(count.place).picked
        delta = 0
        for promise, units in picks.items():
            then = net_picked(actor, promise) - after.get(promise, 0)
            delta += max(0, then) - max(0, then - units)
        if delta:
            _correct(turn, actor, SELLABLE, delta, count.event_id)


def _correct(turn: Turn, actor: StockActor, disposition: int, delta: int, event_id: str) -> None:
    turn.emit(actor.shard, OnHandChanged(actor.key, STOCK_COUNT, disposition, delta, event_id, note="late fact"))


def is_after(fact: Place, count: Place) -> bool:
    """Whether a fact happened after a count, as far as can be told: by the sequence in its own stream, else by the time."""
    if fact.sequence and fact.stream_key == count.stream_key:
        return fact.sequence > count.sequence
    return fact.occur_time_ms > count.occur_time_ms


def net_picked(actor: StockActor, promise: str) -> int:
    """Picks less unpicks less shipments under one promise, as noted in the history; may be below 0."""
    net = (actor.adrift or {}).get(promise, 0)
    if promise[:2] == "r\x1f":
        first = actor.claims.get(promise[2:])
        if first is not None:
            net += sum(claim.picked for claim in first.chain())
    return net


def shown_picked(actor: StockActor, promise: str) -> int:
    """What of ``actor.picked`` is under one promise: a line whose parcel overtook its pick hides no other line's."""
    shown = max(0, (actor.adrift or {}).get(promise, 0))
    if promise[:2] == "r\x1f":
        first = actor.claims.get(promise[2:])
        if first is not None:
            shown += sum(max(0, claim.picked) for claim in first.chain())
    return shown


def books_at(actor: StockActor, disposition: int, place: Place, *, includes_picked: bool) -> int:
    """What a count at that place should have found, by the books: on hand then, less what was picked where it left that out."""
    after = actor.history.moved_after(place) if actor.history is not None else NOTHING
    on_hand = actor.on_hand_of(disposition) - after.on_hand.get(disposition, 0)
    return on_hand if includes_picked or disposition != SELLABLE else on_hand - picked_at(actor, after)


def picked_at(actor: StockActor, after: Moved) -> int:
    """Picked units before what ``after`` sums up."""
    picked = actor.picked
    for promise, units in after.picked.items():
        now = net_picked(actor, promise)
        picked += max(0, now - units) - shown_picked(actor, promise)
    return picked


def is_remembered(turn: Turn, actor: StockActor | None, occur_time_ms: int) -> bool:
    """Whether the history reaches back to a count of that time."""
    from_ms = turn.now_ms - turn.books.rules.history_ms
    if actor is not None and actor.history is not None:
        from_ms = max(from_ms, actor.history.from_ms)
    return occur_time_ms >= from_ms


def book_count(  # noqa: PLR0913  the parts of a count
    turn: Turn,
    actor: StockActor,
    place: Place,
    disposition: int,
    quantity: int,
    *,
    includes_picked: bool,
    sequence: int,
    event_id: str,
    reference: str = "",
    document: tuple[str, str, str, int] = ("", "", "", 0),
) -> int:
    """Book the difference between what was counted at ``place`` and the books there; how much it was. A newer count that is
    booked already knows better: then nothing. The caller has asked ``is_remembered``.
    """
    marker = Marker(place, includes_picked, sequence, event_id)
    newest = actor.history.newest_count(disposition) if actor.history is not None else None
    difference = quantity - books_at(actor, disposition, place, includes_picked=includes_picked)
    turn.emit(
        actor.shard,
        CountPlaced(actor.key, *place, disposition, includes_picked, sequence, event_id),
    )
    assert actor.history is not None, "a count was placed"
    delta = difference if newest is None or actor.history.newest_count(disposition) == marker else 0
    turn.emit(actor.shard, OnHandChanged(actor.key, STOCK_COUNT, disposition, delta, reference, *document))
    return delta


def _forget(turn: Turn, actor: StockActor, history: History) -> None:
    """Facts beyond the horizon go when they are half of what is there; too many go however young they are."""
    before_ms = turn.now_ms - turn.books.rules.history_ms
    if len(history) > FACTS_MAX:
        before_ms = max(before_ms, history.median_time_ms())
    old = history.old_facts(before_ms)
    if 2 * old >= len(history) or len(history) > FACTS_MAX:
        turn.emit(actor.shard, HistoryForgotten(actor.key, before_ms))
        _forget_overdrawn(turn, actor, history)
    else:
        history.words_to_check = WORDS * (len(history) + max(len(history) // 2, 1))


def _forget_overdrawn(turn: Turn, actor: StockActor, history: History) -> None:
    """What was shipped or put back without a pick that ever came: what is forgotten of it is waited for no longer."""
    kept = history.picked_by_promise()
    for promise, units in list((actor.adrift or {}).items()):
        left = min(0, max(units, kept.get(promise, 0)))
        if units < left:
            turn.emit(actor.shard, AdriftPicked(actor.key, promise, left - units))
