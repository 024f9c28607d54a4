"""Shard time never goes back, follows the wall slowly, and ignores its jumps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.shard.clock import JUMP_MS, ShardClock

START_MS = 1_700_000_000_000


class Sources:
    """A wall and a monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.wall_ms = START_MS
        self.monotonic_ms = 5_000

    def pass_ms(self, milliseconds: int, *, wall: int | None = None) -> None:
        self.monotonic_ms += milliseconds
        self.wall_ms += milliseconds if wall is None else wall

    def clock(self, at_least_ms: int = 0) -> ShardClock:
        return ShardClock(lambda: self.wall_ms, lambda: self.monotonic_ms, at_least_ms)


def test_a_new_owner_accepts_the_wall():
    assert Sources().clock().now_ms() == START_MS


def test_a_new_owner_does_not_go_behind_what_is_journaled():
    sources = Sources()
    clock = sources.clock()
    clock.not_before(START_MS + 60_000)
    assert clock.now_ms() == START_MS + 60_000
    clock.not_before(START_MS)
    assert clock.now_ms() == START_MS + 60_000


def test_time_passes_as_the_monotonic_clock_does_when_both_agree():
    sources = Sources()
    clock = sources.clock()
    for milliseconds in (1, 7, 1_000, 90_000, 3_600_000):
        before = clock.now_ms()
        sources.pass_ms(milliseconds)
        assert clock.now_ms() - before == milliseconds
    assert clock.jumps == 0


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(-20_000, 20_000)), max_size=50))
def test_it_never_goes_back_and_runs_at_most_a_twentieth_fast_or_slow(steps):
    sources = Sources()
    clock = sources.clock()
    begun, now = clock.now_ms(), clock.now_ms()
    passed = 0
    for milliseconds, wall in steps:
        sources.pass_ms(milliseconds, wall=wall)
        passed += milliseconds
        later = clock.now_ms()
        assert later >= now
        now = later
        assert abs(now - begun - passed) <= passed / 20 + 1


def test_a_wall_that_is_a_little_ahead_or_behind_is_followed_by_a_twentieth_of_what_passes_however_often_one_asks():
    for ahead in (1_000, -1_000):
        for step in (1, 3, 10, 50, 1_000):
            sources = Sources()
            clock = sources.clock()
            sources.wall_ms += ahead
            for _ in range(10_000 // step):
                sources.pass_ms(step)
                clock.now_ms()
            slewed = abs(clock.now_ms() - START_MS - sources.monotonic_ms + 5_000)
            assert 400 <= slewed <= 501, (ahead, step, slewed)
            for _ in range(20_000 // step):
                sources.pass_ms(step)
                clock.now_ms()
            assert abs(clock.now_ms() - sources.wall_ms) <= 1
            assert clock.jumps == 0


def test_a_pause_without_difference_does_not_save_up_slew():
    sources = Sources()
    clock = sources.clock()
    for _ in range(1_000):
        sources.pass_ms(1_000)
        clock.now_ms()
    before = clock.now_ms()
    sources.pass_ms(20, wall=2_020)
    assert clock.now_ms() - before <= 22


def test_a_jump_is_ignored_and_counted_once_until_the_wall_comes_back():
    for jump in (JUMP_MS + 1_000, -3_600_000):
        sources = Sources()
        clock = sources.clock()
        sources.wall_ms += jump
        for _ in range(100):
            sources.pass_ms(10)
            clock.now_ms()
        assert clock.now_ms() == START_MS + 1_000
        assert clock.jumps == 1
        assert clock.offset_ms == jump
        sources.wall_ms -= jump
        sources.pass_ms(10)
        assert clock.now_ms() == START_MS + 1_010
        assert clock.offset_ms == 0
        sources.wall_ms += jump
        sources.pass_ms(10)
        clock.now_ms()
        assert clock.jumps == 2


def test_a_process_that_was_stopped_wakes_to_the_time_that_passed():
    sources = Sources()
    clock = sources.clock()
    sources.pass_ms(90_000)
    assert clock.now_ms() == START_MS + 90_000
    assert clock.jumps == 0
