"""Lists among shuffled events, many times over: what is on hand in the end is what was counted and what happened after it."""

from __future__ import annotations

import random

import pytest

from actors.domain.outcomes import Fact
from actors.domain.reconciliation_words import FindingKind, FindingState
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from tests.unit.test_domain_reconciling import Desk
from tests.unit.world import World

STEP_MS = 1_000
EVENTS = 14


@pytest.mark.parametrize("round_number", range(60))
def test_the_order_of_events_and_list_does_not_matter(seed, round_number):
    draw = random.Random(seed + round_number)
    world = World()
    world.pass_ms(EVENTS * STEP_MS)
    deltas = [draw.choice((5, 3, 1, -1, -2)) for _ in range(EVENTS)]
    events = [event(world, sequence, delta) for sequence, delta in enumerate(deltas, 1)]
    as_of = draw.randint(1, EVENTS)
    truth = sum(deltas[:as_of])
    counted = max(0, truth + draw.choice((0, 0, 1, -1, 4)))
    draw.shuffle(events)
    cut = draw.randint(0, EVENTS)
    for one in events[:cut]:
        world.one(one)
    desk = Desk(world, as_of=as_of, time_ms=happened_ms(world, as_of), units=10**6)
    result = desk.count("A", counted)
    for one in events[cut:]:
        world.one(one)
    if result != 0 and result.kind == FindingKind.TIMING:
        assert (result.state, world.on_hand("A")) == (FindingState.REPORTED, sum(deltas))
    else:
        assert world.on_hand("A") == counted + sum(deltas[as_of:]), (result, as_of, deltas)
    again = desk.count("A", counted)
    assert again == result or again == 0
    assert verify(MemoryJournal(world.store)).violations == []
    world.restart()


def test_a_list_that_agrees_with_books_that_heard_nothing_yet_is_found_by_what_comes_late():
    world = World()
    world.pass_ms(EVENTS * STEP_MS)
    desk = Desk(world, as_of=2, time_ms=happened_ms(world, 2), units=10**6)
    assert desk.count("A", 0) == 0
    for sequence, delta in enumerate((3, -2, 5), 1):
        world.one(event(world, sequence, delta))
    assert world.on_hand("A") == 5
    assert verify(MemoryJournal(world.store)).violations == []
    world.restart()


def happened_ms(world, sequence):
    return world.now_ms - (EVENTS - sequence) * STEP_MS


def event(world, sequence, delta):
    age_ms = (EVENTS - sequence) * STEP_MS
    return world.event(Fact.ADJUSTMENT, "A", delta, 1, "why", "", sequence=sequence, age_ms=age_ms)
