"""An answer says how far it saw every shard that it looked at or changed, so that a cache never goes back in time."""

from __future__ import annotations

from actors.domain.keys import stock_key
from actors.shard.placement import shard_of
from tests.unit.world import SHARDS, Answer, World

HOME = shard_of(stock_key("main", "A"), SHARDS)
ELSEWHERE = shard_of(stock_key("other", "A"), SHARDS)


def world() -> World:
    made = World()
    made.receive("A", 10)
    made.receive("A", 10, warehouse="other")
    return made


def seen(answer: Answer) -> dict[int, int]:
    """Shard → the sequence that the answer had seen of it."""
    view = answer.payload
    return {place[0]: place[2] for place in (view.position, *view.other_positions)}


def now(made: World, *shards: int) -> dict[int, int]:
    return {shard: made.engine.books.shards[shard].sequence for shard in shards}


def test_a_line_moved_away_tells_of_the_shard_that_it_left() -> None:
    made = world()
    assert HOME != ELSEWHERE
    order = made.reserve(("A", 2, "0"), ("A", 2, "1", "other"), confirm=True)
    moved = made.amend(order, ("1", "A", 2))
    assert made.ats("A", "other") == 10
    assert seen(moved) == now(made, HOME, ELSEWHERE)


def test_a_replacement_tells_of_what_the_replaced_hold_gave_back() -> None:
    made = world()
    hold = made.reserve(("A", 2, "0"), ("A", 2, "1", "other"))
    cart = made.reserve(("A", 2), replaces=hold.id)
    assert made.ats("A", "other") == 10
    assert seen(cart) == now(made, HOME, ELSEWHERE)
    assert seen(made.release(cart)) == now(made, HOME)
