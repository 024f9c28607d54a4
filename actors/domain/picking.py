"""Picks: units taken off the shelf for a promise, put back, and shipped. What counts is their net, in whatever order it is told.

picked of a claim, or of a promise without one = max(0, picks − unpicks − shipped). The net itself is kept and may be below 0
for a while: a shipment that overtook its pick, which nothing will be left of when it comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.alarms import watch_shortage
from actors.domain.counting import NO_DOCUMENT, note_fact
from actors.domain.events import AdriftPicked, ClaimPicked
from actors.domain.history import Place
from actors.domain.identity import order_key, promise_text
from actors.domain.outcomes import Disposition
from actors.domain.state import Claim, StockActor
from actors.domain.turn import Turn

SELLABLE = int(Disposition.SELLABLE)


def promised_claims(actor: StockActor, promise: Sequence[Any]) -> list[Claim]:
    """The claims here that a promise means, oldest first; empty when none is known."""
    if not promise:
        return []
    reservation_id, channel_id, order_reference, line_id = promise
    ids = [reservation_id] if reservation_id else (actor.orders or {}).get(order_key(channel_id, order_reference), ())
    return [
        claim
        for promised in ids
        if promised in actor.claims
        for claim in actor.claims[promised].chain()
        if not line_id or claim.line_id == line_id
    ]


def pile_of(turn: Turn, promise: Sequence[Any]) -> str:
    """Under which name the units of a promise without a known claim are kept: that of its order, where it has one, so that
    it is the same one whichever way the warehouse names it."""
    if promise and promise[0]:
        reservation = turn.reservation(promise[0])
        if reservation is not None and reservation.order_reference:
            return f"o\x1f{reservation.channel_id}\x1f{reservation.order_reference}"
    return promise_text(promise)


def claim_pile(reservation_id: str) -> str:
    """Under which name the picked units of a reservation's claims stand in the history."""
    return f"r\x1f{reservation_id}"


def leave_net(turn: Turn, actor: StockActor, first: Claim) -> None:
    """A reservation's claims are about to leave memory: a pick that is still to come finds their net under the promise, and
    the history goes on under its name."""
    net = sum(claim.picked for claim in first.chain())
    was = claim_pile(first.reservation_id)
    pile = f"o\x1f{order_key(first.channel_id, first.order_reference)}" if first.order_reference else was
    renamed = was if pile != was and actor.history is not None and was in actor.history.promises else ""
    if net or renamed:
        turn.emit(actor.shard, AdriftPicked(actor.key, pile, net, renamed))


def pick(  # noqa: PLR0913  the parts of a pick
    turn: Turn,
    actor: StockActor,
    promise: Sequence[Any],
    quantity: int,
    place: Place,
    document: tuple[str, str, str] = NO_DOCUMENT,
) -> None:
    """Units of a claim are off the shelf; without a known claim they count wholly as adrift under the promise."""
    claims = promised_claims(actor, promise)
    picks: dict[str, int] = {}
    left = quantity
    for claim in claims:  # what was shipped or put back before it was told that it had been picked
        left -= _pick_for(turn, actor, claim, min(left, max(0, -claim.picked)), picks)
    for claim in claims[:-1]:
        left -= _pick_for(turn, actor, claim, min(left, max(0, claim.open - claim.picked)), picks)
    if claims:
        _pick_for(turn, actor, claims[-1], left, picks)
    else:
        pick_adrift(turn, actor, pile_of(turn, promise), left, picks)
    note_fact(turn, actor, place, SELLABLE, 0, picks, document)
    watch_shortage(turn, actor)


def unpick(  # noqa: PLR0913  the parts of a pick
    turn: Turn,
    actor: StockActor,
    promise: Sequence[Any],
    quantity: int,
    place: Place,
    document: tuple[str, str, str] = NO_DOCUMENT,
) -> None:
    """Back on the shelf."""
    claims = promised_claims(actor, promise)
    picks: dict[str, int] = {}
    left = quantity
    for claim in claims:
        left += _pick_for(turn, actor, claim, -min(left, max(0, claim.picked)), picks)
    if claims and left:
        pile = pile_of(turn, promise)
        there = min(left, max(0, (actor.adrift or {}).get(pile, 0)))
        pick_adrift(turn, actor, pile, -there, picks)
        _pick_for(turn, actor, claims[-1], there - left, picks)
    elif left:
        pick_adrift(turn, actor, pile_of(turn, promise), -left, picks)
    note_fact(turn, actor, place, SELLABLE, 0, picks, document)
    watch_shortage(turn, actor)


def _pick_for(turn: Turn, actor: StockActor, claim: Claim, units: int, picks: dict[str, int]) -> int:
    """Change the net of one claim; how much it was."""
    if units:
        turn.emit(actor.shard, ClaimPicked(actor.key, claim.reservation_id, claim.line_id, units))
        pile = claim_pile(claim.reservation_id)
        picks[pile] = picks.get(pile, 0) + units
    return units


def pick_adrift(turn: Turn, actor: StockActor, pile: str, units: int, picks: dict[str, int]) -> None:
    """Change the net of what is adrift under a promise."""
    if units:
        turn.emit(actor.shard, AdriftPicked(actor.key, pile, units))
        picks[pile] = picks.get(pile, 0) + units


def move_to_claim(turn: Turn, actor: StockActor, pile: str, claim: Claim, most: int, picks: dict[str, int]) -> None:
    """What was picked under the promise before its claim was known was picked for it."""
    units = min(most, max(0, (actor.adrift or {}).get(pile, 0)))
    if units > 0:
        pick_adrift(turn, actor, pile, -units, picks)
        _pick_for(turn, actor, claim, units, picks)
