"""The schedule of a chaos run: a seed is a schedule, and of every sort of fault there comes one before any comes again."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from tests.chaos.schedule import (
    DELAY,
    HOLD,
    KILL,
    LASTING,
    LINK,
    LINK_FAULTS,
    PAUSE,
    PROCESSES,
    STOP,
    STRAND,
    TOGETHER,
    endless_faults,
    ten_faults,
)

SORTS = 2 * len(PROCESSES) + len(TOGETHER) + 1 + len(LINK_FAULTS)


def test_the_same_seed_is_the_same_schedule(seed):
    assert ten_faults(seed) == ten_faults(seed)
    assert list(islice(endless_faults(seed), 100)) == list(islice(endless_faults(seed), 100))


def test_another_seed_is_another_schedule(seed):
    assert ten_faults(seed) != ten_faults(seed + 1)


def test_the_ten_kill_pause_and_spoil_the_link(seed):
    faults = ten_faults(seed)

    assert Counter(fault.kind for fault in faults) == {KILL: 5, PAUSE: 2, LINK: 3}
    assert {fault.targets for fault in faults if fault.kind == KILL} >= {("host",), ("serve",)}
    assert len([fault for fault in faults if fault.how in (HOLD, STRAND)]) == 1


def test_every_sort_comes_once_before_any_comes_again(seed):
    faults = list(islice(endless_faults(seed), 2 * SORTS))

    for half in (faults[:SORTS], faults[SORTS:]):
        assert len({fault.name for fault in half}) == SORTS
    assert Counter(fault.kind for fault in faults)[STOP] == 2


def test_what_lasts_lasts_and_what_strikes_does_not(seed):
    for fault in islice(endless_faults(seed), 3 * SORTS):
        lasts = fault.kind == PAUSE or fault.how in LASTING
        assert (fault.seconds > 0) == lasts
        assert fault.seconds <= 90
        assert (fault.delay_ms > 0) == (fault.how == DELAY)
