"""The model's memory of what moved, and counts as of a place in it: what a late fact does, and what a late count does.

On hand of a condition = its newest count (and what was picked then, where it left that out) + all facts after it. A count books
what it takes to make that true; a fact that turns out to be older than the newest count is booked and booked back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulation.model_state import SELLABLE

if TYPE_CHECKING:
    from tests.simulation.model_state import Stock

Pile = tuple[str, ...]  # whose picked units: (reservation_id, "", "") or ("", channel_id, order_reference) or ()
Stream = tuple[str, str]  # ("", ""): order management
FACTS_MAX = 10_000  # of one stock key; beyond it what is young may be forgotten, too


@dataclass(slots=True)
class Note:
    """What one fact moved. ``picks``: by whom it was picked for, the change of the net."""

    stream: Stream
    sequence: int
    occur_time_ms: int
    disposition: str
    delta: int
    picks: dict[Pile, int]


@dataclass(frozen=True, slots=True)
class Count:
    """A count that was placed. ``place``: as of which sequence of its stream."""

    stream: Stream
    place: int
    occur_time_ms: int
    disposition: str
    with_picked: bool
    sequence: int
    event_id: str

    def follows(self, other: Count) -> bool:
        """Whether this is the newer one: in one stream by place, else by time."""
        mine: tuple[Any, ...] = (self.place, self.occur_time_ms, self.sequence, self.event_id)
        theirs: tuple[Any, ...] = (other.place, other.occur_time_ms, other.sequence, other.event_id)
        if self.stream != other.stream:
            mine = (self.occur_time_ms, self.stream, self.place, self.sequence, self.event_id)
            theirs = (other.occur_time_ms, other.stream, other.place, other.sequence, other.event_id)
        return mine > theirs


def as_of(event: Mapping[str, Any]) -> int | None:
    """The place of a count: what it says, or just before itself; None: it has none."""
    given = int(event["details"]["as_of_source_sequence"])
    return given or (event["source_sequence"] - 1 if event["source_sequence"] else None)


def is_after(note: Note, count: Count) -> bool:
    """Whether a fact happened after what was counted."""
    if note.sequence and note.stream == count.stream:
        return note.sequence > count.place
    return note.occur_time_ms > count.occur_time_ms


def newest(stock: Stock, disposition: str) -> Count | None:
    """The count that says what there is: the newest of those that are the newest of their streams."""
    of_streams: dict[Stream, Count] = {}
    for count in stock.counts:
        known = of_streams.get(count.stream)
        if count.disposition == disposition and (known is None or count.follows(known)):
            of_streams[count.stream] = count
    found = None
    for count in of_streams.values():
        found = count if found is None or count.follows(found) else found
    return found


def net_now(stock: Stock, pile: Pile) -> int:
    """Picks less unpicks less shipped of one promise."""
    of_claims = sum(claim.net for claim in stock.claims.get(pile[0], {}).values()) if pile and pile[0] else 0
    return of_claims + stock.adrift.get(pile, 0)


def nets_then(stock: Stock, count: Count) -> dict[Pile, int]:
    """The nets before everything that happened after a count, of all whom something after it concerns."""
    then: dict[Pile, int] = {}
    for note in stock.notes:
        if is_after(note, count):
            for pile, units in note.picks.items():
                then[pile] = then.get(pile, net_now(stock, pile)) - units
    return then


def note(
    stock: Stock, stream: Stream, sequence: int, occur_time_ms: int, disposition: str, delta: int, picks: dict[Pile, int]
) -> None:  # fmt: skip
    """A fact was booked: remember it, and take back what the newest count knew already."""
    fact = Note(stream, sequence, occur_time_ms, disposition, delta, picks)
    stock.notes.append(fact)
    count = newest(stock, disposition)
    if count is not None and not is_after(fact, count):
        stock.on_hand[disposition] = stock.on_hand_of(disposition) - delta
    count = newest(stock, SELLABLE)
    if count is not None and not count.with_picked and not is_after(fact, count):
        then = nets_then(stock, count)
        for pile, units in picks.items():
            net = then.get(pile, net_now(stock, pile))
            stock.on_hand[SELLABLE] = stock.on_hand_of(SELLABLE) + max(0, net) - max(0, net - units)


def book(stock: Stock, event: Mapping[str, Any]) -> None:
    """A count as of its place."""
    details, place = event["details"], as_of(event)
    assert place is not None
    disposition = details["disposition"]
    stream = (event["source_id"], event["stream_id"])
    count = Count(
        stream, place, event["occur_time_ms"], disposition, details["includes_picked"], event["source_sequence"],
        event["event_id"],
    )  # fmt: skip
    then = stock.on_hand_of(disposition)
    then -= sum(one.delta for one in stock.notes if one.disposition == disposition and is_after(one, count))
    should_be = details["quantity"]
    if disposition == SELLABLE and not count.with_picked:
        should_be += picked_then(stock, count)
    stock.counts.append(count)
    if newest(stock, disposition) == count:
        stock.on_hand[disposition] = stock.on_hand_of(disposition) + should_be - then


def picked_then(stock: Stock, count: Count) -> int:
    """Picked units when it was counted: those of now, with the nets of then for whom something changed since."""
    picked = stock.picked()
    for pile, net in nets_then(stock, count).items():
        picked += max(0, net) - shown_now(stock, pile)
    return picked


def shown_now(stock: Stock, pile: Pile) -> int:
    """What of the picked units is of one promise, each line's for itself."""
    of_claims = sum(claim.picked for claim in stock.claims.get(pile[0], {}).values()) if pile and pile[0] else 0
    return of_claims + max(0, stock.adrift.get(pile, 0))


def too_old(stock: Stock | None, event: Mapping[str, Any], now_ms: int, history_ms: int) -> bool:
    """Whether a count is older than what is remembered."""
    from_ms = max(now_ms - history_ms, stock.history_from_ms if stock is not None else 0)
    return bool(event["occur_time_ms"] < from_ms)


def forget(stock: Stock, before_ms: int) -> None:
    """Facts before that are forgotten, and what was shipped without a pick that ever came."""
    stock.history_from_ms = max(stock.history_from_ms, before_ms)
    stock.notes = [one for one in stock.notes if one.occur_time_ms >= before_ms]
    for pile, units in list(stock.adrift.items()):
        kept = sum(one.picks.get(pile, 0) for one in stock.notes)
        left = units if units > 0 else min(0, max(units, kept))
        stock.adrift[pile] = left
        if not left:
            del stock.adrift[pile]


def rename(stock: Stock, was: Pile, pile: Pile) -> None:
    """What a reservation's claims had is its promise's from now on."""
    for one in stock.notes:
        if was in one.picks and was != pile:
            one.picks[pile] = one.picks.get(pile, 0) + one.picks.pop(was)
