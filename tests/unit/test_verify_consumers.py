"""``verify`` and consumers of changes: what the service wrote is in order, also from a snapshot, and what was changed is found."""

from __future__ import annotations

import pytest

from actors.domain.consumer_state import ConsumerLimits
from tests.unit.test_domain_consumers import Consumers
from tests.unit.test_verify_reconciliation import tamper, violations


@pytest.fixture
def world():
    """A consumer that acknowledged, refused a change, fell too far behind and caught up."""
    made = Consumers(ConsumerLimits(3, 60_000, 30 * 24 * 3600 * 1000))
    made.receive("A", 5)
    made.attach()
    made.acknowledge(reject=[("t1-1-1", "unknown article")])
    for _ in range(6):
        made.receive("A", 1)
    made.pass_ms(60_001)
    assert made.lagging(1)
    made.acknowledge()
    made.pass_ms(1_000)
    return made


def test_its_life_is_in_order_whole_and_from_a_snapshot(world):
    assert violations(world) == []
    world.snapshot()
    world.receive("A", 1)
    world.acknowledge()
    assert violations(world) == []


@pytest.mark.parametrize(
    ("kind", "edit", "says"),
    [
        (80, lambda event: event.__setitem__(1, "another"), "was never seen for a first time"),
        (82, lambda event: event.__setitem__(2, "x-t1-0-99") if event[2] else False, "does not say so"),
        (81, lambda event: event.__setitem__(6, -1), "refused -1 changes"),
    ],
)
def test_what_somebody_changed_is_found(world, kind, edit, says):
    tamper(world, kind, edit)
    assert any(says in message for rule, message in violations(world) if rule == "consumer")


def test_a_place_that_goes_back_is_found(world):
    world.receive("A", 1)
    world.acknowledge()
    seen = []

    def last_goes_back(event):
        seen.append(event)
        if len(seen) < 3 or not event[4]:
            return False
        event[4][0][1] = 0
        return None

    tamper(world, 81, last_goes_back)
    assert any("goes back" in message for rule, message in violations(world) if rule == "consumer")
