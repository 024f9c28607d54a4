"""Events told three times, in random order, some late, while processes are killed: the books are as told once, in small.

The long form, on a retailer's real year: ``python -m tests.withstand_sync --file …``.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.withstand_sync.plan import make_sync_plan
from tests.withstand_sync.running import clean, disturbed, judge

pytestmark = [pytest.mark.timeout(600)]

LINES = 1_200


async def test_events_told_three_times_late_and_over_killed_processes_are_the_events_told_once(
    tmp_path: Path, seed: int
) -> None:
    print(f"or: python -m tests.withstand_sync --lines {LINES} --seed {seed}")
    plan = make_sync_plan(None, LINES, seed, time.time_ns() // 1_000_000)

    undisturbed = await clean(tmp_path / "clean", plan, print)
    run = await disturbed(tmp_path / "disturbed", plan, seed, print)

    assert judge(plan, undisturbed, run) == []
    assert run.told.sent > 2 * len(plan.events)
    assert run.kills > 0
