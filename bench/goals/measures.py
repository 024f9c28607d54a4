"""What has to run for the goals: scenarios with the rivals beside them, and figures of one process. Each runs once, for all its goals.

Knows how long a run is; what the figures mean is ``catalog``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.goals.table import Figures
from bench.peers.catalog import PEERS
from bench.results import ScenarioResult
from bench.running import Say, run_scenario
from bench.scenario import chosen

QUICK_SECONDS = 2.0
QUICK_REPETITIONS = 3


@dataclass(frozen=True, slots=True)
class ScenarioMeasure:
    """A scenario. ``peers``: those any goal compares with; ``beside``: a scenario that takes turns on the same service;
    ``changes``: instead of the file's values; ``quick``: the same for a quick run, beside shorter runs.
    """

    scenario: str
    peers: tuple[str, ...] = ()
    beside: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    quick: dict[str, Any] = field(default_factory=dict)

    def run(self, peers: Iterable[str], *, quick: bool, seed: int, say: Say) -> ScenarioResult:
        """Measure it beside these of its peers."""
        shorter = {"seconds": QUICK_SECONDS, "repetitions": QUICK_REPETITIONS, **self.quick} if quick else {}
        scenario = chosen([self.scenario])[0].adapted(**{**self.changes, **shorter})
        beside = chosen([self.beside])[0].adapted(keys=scenario.keys) if self.beside else None
        return run_scenario(
            scenario,
            gateways=1,
            noop=True,
            say=say,
            seed=seed,
            peers=[PEERS[name] for name in self.peers if name in set(peers)],
            beside=beside,
        )


@dataclass(frozen=True, slots=True)
class FiguresMeasure:
    """Something else that is measured, in processes of its own."""

    run: Callable[[bool, int, Say], Figures]


SCENARIO_MEASURES: dict[str, ScenarioMeasure] = {
    "hot": ScenarioMeasure("hot", peers=("neveroversell", "asyncpg", "ray")),
    "hot-batch": ScenarioMeasure("hot-batch", peers=("neveroversell", "asyncpg", "plpgsql")),
    "hot-batch-1000": ScenarioMeasure("hot-batch-1000", peers=("plpgsql",)),
    "spread-batch": ScenarioMeasure("spread-batch"),
    "idle": ScenarioMeasure("idle"),
    "half-peak": ScenarioMeasure("half-peak", changes={"seconds": 8.0}, quick={"seconds": 5.0}),
    "orders": ScenarioMeasure("orders"),
    "flash-sale": ScenarioMeasure("flash-sale"),
    "recovery": ScenarioMeasure(
        "recovery", changes={"keys": 100_000, "repetitions": 5}, quick={"seconds": 9.0, "repetitions": 3}
    ),
    "overload": ScenarioMeasure("overload", quick={"seconds": 3.0}),
    "overload-batch": ScenarioMeasure("overload-batch", quick={"seconds": 3.0}),
    "availability": ScenarioMeasure("availability", beside="spread-batch"),
}
