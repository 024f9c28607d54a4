"""Made-up results of the benchmark, for tests that compare and draw them."""

from __future__ import annotations

from bench.outcome import Outcome
from bench.results import Proof, Result, Run, ScenarioResult, run_of

MACHINE = {
    "cpu": "Imaginary 9000",
    "cores_allowed": [0, 1],
    "cores": 2,
    "load_average": [0.1, 0.1, 0.1],
    "memory_gib": 8.0,
    "kernel": "6.1",
    "python": "3.11.7",
    "versions": {"grpcio": "1.85.1", "ray": "2.60.0"},
    "commit": "0123456789ab",
    "fsync_ms": {"p50": 0.5, "p99": 1.0},
}
PROOF = Proof(
    claims_in_the_journal=300,
    claims_answered=300,
    facts_in_the_journal=1,
    facts_answered=1,
    asked_again=0,
    left_unknown=0,
    oversells=0,
    violations=0,
    units_stocked=1_000,
    sold_out=False,
)


def run(per_second: float, *, latency_ms: float = 5.0, seconds: float = 1.0, label: str = "") -> Run:
    """A repetition with so many grants a second, each call one claim and of one latency."""
    outcome = Outcome(seconds=seconds)
    for number in range(50):
        now_s = (number + 1) * seconds / 50
        outcome.answered(now_s - latency_ms / 1000, now_s - latency_ms / 1000, now_s)
        outcome.grant(int(per_second * seconds / 50), claims=int(per_second * seconds / 50))
    cpu = {"host": 1e-5 * outcome.granted, "gateway": 2e-5 * outcome.granted, "generator": 1e-5 * outcome.granted}
    made = run_of(outcome, label, cpu, {"host": 100.0, "gateway": 50.0}, {"items_per_turn": 40.0})
    made.memory_series = [{"host": 90.0 + at, "gateway": 50.0} for at in range(4)]
    return made


def scenario_result(name: str, rates: list[float], noop: list[float] | None = None, **changes) -> ScenarioResult:
    """A scenario with these repetitions."""
    return ScenarioResult(
        name=name,
        title=f"the scenario {name}",
        unit="claims",
        settings={"keys": 1, "load": {"mode": "closed", "in_flight": 128}},
        runs=[run(rate, **changes) for rate in rates],
        noop=[run(rate) for rate in noop or []],
        proof=PROOF.model_copy(deep=True),
    )


def result(*scenarios: ScenarioResult, **machine) -> Result:
    """A result of these scenarios, on a machine that differs as said."""
    return Result(began="2026-01-01T00:00:00+00:00", machine={**MACHINE, **machine}, scenarios=list(scenarios))
