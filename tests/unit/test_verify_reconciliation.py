"""``verify`` and reconciliations: what the service wrote is in order, and what somebody changed afterwards is found."""

from __future__ import annotations

import pytest

from actors.domain.reconciliation_words import FindingState
from actors.domain.rules import Rules
from actors.journal.codec import decode_groups, encode_groups, record_checksum
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from tests.unit.test_domain_reconciling import DAY_MS, Desk, decide, pass_until_due, runs
from tests.unit.test_domain_resolving import DISCARD, RETRY
from tests.unit.world import World


def violations(world):
    return [(one.rule, one.message) for one in verify(MemoryJournal(world.store)).violations]


@pytest.fixture
def world():
    """A night with a match, a booking, quarantines that are accepted, discarded, superseded and open; then a week goes by."""
    made = World()
    for sku in "ABCDEF":
        made.receive(sku, 10)
    desk = Desk(made, units=2)
    desk.begin()
    desk.count("A", 10)
    desk.count("B", 9)
    found = [desk.count(sku, 1) for sku in "CDEF"]
    desk.finish()
    decide(made, RETRY, found[0])
    decide(made, DISCARD, found[1])
    made.pass_ms(1)
    Desk(made, run="rc-2-7-1").count("E", 10)
    return made


def test_a_night_is_in_order(world):
    assert violations(world) == []
    world.snapshot()
    world.receive("A", 1)
    assert violations(world) == []
    world.pass_ms(8 * DAY_MS)
    world.snapshot()
    assert violations(world) == []


def test_requests_alerts_and_answers_are_in_order():
    world = World(Rules(reconciliation_intervals_ms={"main": DAY_MS}, reconciliation_answer_ms_max=3_600_000))
    world.step()
    pass_until_due(world)
    (asked,) = runs(world)
    desk = Desk(world, run=asked.reconciliation_id)
    desk.begin()
    desk.finish(state=4)
    desk.begin()
    desk.finish()
    assert violations(world) == []


def tamper(world, kind, edit):
    """Change the first event of that kind, checksum and all; where it was."""
    for shard, records in world.store.records.items():
        for at, (record, _) in enumerate(records):
            groups = decode_groups(record.payload)
            for _, events in groups:
                for event in events:
                    if event[0] == kind and edit(event) is not False:
                        damaged = record._replace(payload=encode_groups(groups))
                        records[at] = (damaged, record_checksum(damaged))
                        return shard
    raise AssertionError(f"no event of kind {kind} to change")


def where(state, at, value):
    """Set a field of a finding that was made in that state."""

    def edit(event):
        if event[3] != state:
            return False
        event[at] = value
        return True

    return edit


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        (95, where(FindingState.BOOKED, 6, -3)),
        (95, where(FindingState.BOOKED, 3, int(FindingState.REPORTED))),
        (95, where(FindingState.QUARANTINED, 6, 4)),
        (95, where(FindingState.QUARANTINED, 9, "x-t1-0-999")),
        (95, where(FindingState.QUARANTINED, 4, 10)),
        (96, lambda event: event.__setitem__(2, int(FindingState.BOOKED))),
        (96, lambda event: event.__setitem__(3, 7)),
        (93, lambda event: event.__setitem__(3, [9, 1, 0, 0, 0, 0, 0, 0, 0])),
        (93, lambda event: event.__setitem__(2, 1)),
        (92, lambda event: event.__setitem__(1, "rc-9-7-1")),
    ],
)
def test_what_was_changed_afterwards_is_found(world, kind, edit):
    tamper(world, kind, edit)
    assert "reconciliation" in {rule for rule, _ in violations(world)}
