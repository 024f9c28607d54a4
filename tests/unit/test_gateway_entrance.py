"""The entrance of a gateway: who is sent away when more comes than is done, how many, and when they come again."""

from __future__ import annotations

import asyncio

import pytest

from gateway.config import AWAY_MS_MAX, AWAY_SHARE, RETRY_HINT_OVERLOADED_MS, WAITING_CALLS_MIN, WAITING_MS_MAX
from gateway.entrance import Entrance
from gateway.errors import CallFailed

PER_SECOND = 6_000
ROOM = PER_SECOND * WAITING_MS_MAX // 1000


class Gateway:
    """A entrance with so many calls before it, of a gateway that does ``PER_SECOND``."""

    def __init__(self, inside_max: int = 10_000) -> None:
        self.opened: int | None = 0
        self.entrance = Entrance(inside_max, lambda: self.opened)

    def look(self, waiting: int, done: int = PER_SECOND // 10) -> None:
        self.opened = self.entrance.inside + waiting
        for _ in range(done):
            self.entrance.inside += 1
            self.entrance.leave()
        self.entrance.look(0.1)

    def come(self, calls: int) -> list[CallFailed]:
        """So many calls come in one after the other; those that were sent away."""
        failures = []
        for _ in range(calls):
            try:
                self.entrance.enter()
            except CallFailed as failure:
                failures.append(failure)
            self.entrance.leave()
        return failures


@pytest.fixture
async def gateway() -> Gateway:
    asyncio.get_running_loop()  # a entrance looks at the clock of the loop that it is in
    return Gateway()


async def test_what_is_done_within_the_bound_is_let_in(gateway):
    gateway.look(waiting=ROOM)

    assert gateway.come(5_000) == []


async def test_a_burst_is_let_in_by_a_gateway_that_was_idle(gateway):
    gateway.look(waiting=WAITING_CALLS_MIN, done=0)

    assert gateway.come(1_000) == []


async def test_beyond_the_bound_as_many_are_sent_away_as_leave_half_of_it(gateway):
    gateway.look(waiting=3 * ROOM)

    assert len(gateway.come(20_000)) == 3 * ROOM - ROOM // 2


async def test_every_other_call_comes_in_while_others_are_sent_away(gateway):
    gateway.look(waiting=3 * ROOM)

    assert len(gateway.come(1_000)) == 500


async def test_those_sent_away_come_again_at_a_rate_that_costs_a_small_part(gateway):
    gateway.look(waiting=ROOM + 100)

    first, *_ = gateway.come(2)

    away = ROOM + 100 - ROOM // 2
    assert first.retry_after_ms == pytest.approx(away / (PER_SECOND * AWAY_SHARE) * 1000, abs=100)
    assert first.reason.name == "OVERLOADED"
    assert first.outcome == "not_done"


async def test_nobody_is_sent_away_for_longer_than_the_bound(gateway):
    gateway.look(waiting=1_000_000)

    assert gateway.come(1)[0].retry_after_ms == AWAY_MS_MAX


async def test_when_the_queue_has_gone_everybody_comes_in_again(gateway):
    gateway.look(waiting=3 * ROOM)
    gateway.look(waiting=0)

    assert gateway.come(5_000) == []


async def test_where_grpc_does_not_count_nobody_is_sent_away(gateway):
    gateway.look(waiting=0)
    gateway.opened = None
    gateway.entrance.look(0.1)

    assert gateway.come(5_000) == []


async def test_calls_beyond_the_bound_of_those_inside_are_sent_away_with_a_hint():
    entrance = Entrance(2, lambda: None)
    entrance.enter()
    entrance.enter()

    with pytest.raises(CallFailed) as raised:
        entrance.enter()

    assert raised.value.retry_after_ms == RETRY_HINT_OVERLOADED_MS
    entrance.leave()
    entrance.leave()
    entrance.enter()
