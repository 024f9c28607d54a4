"""Ten faults to the real processes under load through the real client, then every judge: the chaos run, in small.

Which ten, and in which order, is up to the seed; of each sort there is one. The long form: ``python -m tests.chaos``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import ChaosRun, Load
from tests.chaos.schedule import ten_faults

pytestmark = [pytest.mark.timeout(600)]


async def test_ten_faults_of_every_sort_cost_time_and_nothing_else(tmp_path: Path, seed: int) -> None:
    print(f"or: python -m tests.chaos --ten --seed {seed}")
    result = await ChaosRun(tmp_path / "data", seed, Load(), print).run(ten_faults(seed))

    assert result.problems == []
    assert len(result.measured) == 10
    assert result.figures["shards_with_snapshot"] > 0
