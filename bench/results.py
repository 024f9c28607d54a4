"""Results as JSON: one file a benchmark, complete enough to be compared and drawn later. Read back with a check.

Owns the format; ``bench.running`` fills it, ``comparing``, ``tables`` and ``report`` read it.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.outcome import Outcome, histogram

FORMAT = 1
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


class ResultError(Exception):
    """A file that is no result; says which and why."""


class Run(BaseModel):
    """One counted repetition. ``latency_ms``: percentiles of answered calls; ``histogram``: all of them, as HdrHistogram
    encodes (microseconds). ``cpu_us_per_unit``: by role. ``series``: granted, refused, failed units each half second.
    ``invalid``: why the run does not count.
    """

    model_config = ConfigDict(extra="forbid")

    label: str = ""
    seconds: float
    calls: int
    granted: int
    refused: int
    failed: int
    per_second: float
    refused_per_second: float
    errors: dict[str, int] = Field(default_factory=dict)
    latency_ms: dict[str, float]
    histogram: str = ""
    failed_latency_ms: dict[str, float] = Field(default_factory=dict)
    lag_ms: dict[str, float] = Field(default_factory=dict)
    cpu_us_per_unit: dict[str, float] = Field(default_factory=dict)
    cpu_seconds: dict[str, float] = Field(default_factory=dict)
    memory_mib_max: dict[str, float] = Field(default_factory=dict)
    memory_series: list[dict[str, float]] = Field(default_factory=list)
    journal: dict[str, float] = Field(default_factory=dict)
    series: list[list[int]] = Field(default_factory=list)
    first_acknowledged_s: float | None = None
    struck_s: float | None = None
    invalid: list[str] = Field(default_factory=list)


class Proof(BaseModel):
    """The journal against the answers. ``agrees``: everything that must hold does."""

    model_config = ConfigDict(extra="forbid")

    claims_in_the_journal: int
    claims_answered: int
    facts_in_the_journal: int
    facts_answered: int
    asked_again: int
    left_unknown: int
    oversells: int
    violations: int
    units_stocked: int
    sold_out: bool
    findings: list[str] = Field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Nothing is wrong."""
        return not self.findings


class PeerProof(BaseModel):
    """What a peer recorded against what it answered, read after its server was crashed or stopped. ``oversold``: stock keys."""

    model_config = ConfigDict(extra="forbid")

    claims_recorded: int
    claims_answered: int
    units_granted: int
    units_stocked: int
    oversold: int
    asked_again: int
    left_unknown: int
    findings: list[str] = Field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing is wrong."""
        return not self.findings


class PeerResult(BaseModel):
    """A peer in one scenario. ``configuration``: as its server said it; ``absent``: why it did not run, then it has no runs."""

    model_config = ConfigDict(extra="forbid")

    name: str
    title: str
    summary: str
    configuration: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    runs: list[Run] = Field(default_factory=list)
    proof: PeerProof | None = None
    absent: str = ""


class ScenarioResult(BaseModel):
    """One scenario: its settings as run, its repetitions, the no-op's, the peers' and those of another scenario on the same
    service (``beside``) in turn with them, the proof.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    title: str
    unit: str
    settings: dict[str, Any]
    load_average: list[float] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    runs: list[Run]
    noop: list[Run] = Field(default_factory=list)
    beside: list[Run] = Field(default_factory=list)
    peers: list[PeerResult] = Field(default_factory=list)
    proof: Proof | None = None

    def valid(self, label: str = "") -> list[Run]:
        """The runs that count, of one phase."""
        return [run for run in self.runs if not run.invalid and run.label == label]

    def noop_ratios(self) -> list[float]:
        """Service over no-op: each repetition against the no-op that ran right after it. Steadier than either rate."""
        return self.ratios_to(self.noop)

    def ratios_to(self, others: list[Run]) -> list[float]:
        """Service over another: each repetition against the other's of the same round, where both count."""
        if len(self.runs) != len(others):
            return []
        pairs = zip(self.runs, others, strict=True)
        return [
            ours.per_second / other.per_second
            for ours, other in pairs
            if other.per_second and not ours.invalid and not other.invalid
        ]

    @property
    def labels(self) -> list[str]:
        """The phases a repetition has, in their order; one nameless phase for most scenarios."""
        return list(dict.fromkeys(run.label for run in self.runs))


class Result(BaseModel):
    """A file."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    began: str
    machine: dict[str, Any]
    conditions: dict[str, Any] = Field(default_factory=dict)
    scenarios: list[ScenarioResult]

    @property
    def agrees(self) -> bool:
        """Every proof is whole."""
        return all(one.proof is None or one.proof.agrees for one in self.scenarios)


def run_of(
    outcome: Outcome,
    label: str,
    cpu: dict[str, float],
    memory: dict[str, float],
    journal: dict[str, float],
    *,
    until_sold_out: bool = False,
) -> Run:
    """A repetition from what the generator and the meters saw. ``until_sold_out``: grants are counted up to the last one,
    refusals from there on; each has its own rate.
    """
    units = max(1, outcome.granted + outcome.refused)
    granting_s = outcome.last_grant_s if until_sold_out and outcome.refused else outcome.seconds
    refusing_s = outcome.seconds - granting_s
    return Run(
        label=label,
        seconds=round(outcome.seconds, 3),
        calls=outcome.calls,
        granted=outcome.granted,
        refused=outcome.refused,
        failed=outcome.failed,
        per_second=round(outcome.granted / granting_s, 1) if granting_s else 0.0,
        refused_per_second=round(outcome.refused / refusing_s, 1) if refusing_s > 0 else 0.0,
        errors=outcome.errors,
        latency_ms=percentiles_ms(outcome.latency_us),
        histogram=outcome.latency_us.encode().decode() if outcome.calls else "",
        failed_latency_ms=percentiles_ms(outcome.failed_us),
        lag_ms=percentiles_ms(outcome.lag_us),
        cpu_us_per_unit={role: round(seconds / units * 1e6, 2) for role, seconds in cpu.items()},
        cpu_seconds={role: round(seconds, 3) for role, seconds in cpu.items()},
        memory_mib_max=memory,
        journal=journal,
        series=outcome.series,
        struck_s=None if outcome.struck_s is None else round(outcome.struck_s, 3),
        first_acknowledged_s=None if outcome.acknowledged_s is None else round(outcome.acknowledged_s, 3),
    )


def percentiles_ms(of: HdrHistogram) -> dict[str, float]:
    """The percentiles that tables show; empty when nothing was recorded."""
    if not of.get_total_count():
        return {}
    return {name: round(of.get_value_at_percentile(share) / 1000, 3) for name, share in PERCENTILES.items()}


def merged(runs: list[Run]) -> HdrHistogram:
    """The latencies of several runs together, in microseconds."""
    whole = histogram()
    for run in runs:
        if run.histogram:
            whole.add(HdrHistogram.decode(run.histogram))
    return whole


def middle(values: list[float]) -> float:
    """The median; 0 of nothing."""
    return statistics.median(values) if values else 0.0


def save(result: Result, path: Path) -> None:
    """Write a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def load_result(path: Path) -> Result:
    """Read a result; ResultError says what is wrong with the file."""
    try:
        result = Result.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValidationError, UnicodeDecodeError) as error:
        first = str(error).splitlines()
        raise ResultError(f"{path}: not a result of `python -m bench run`: {' '.join(first[:3])}") from None
    if result.format != FORMAT:
        raise ResultError(f"{path}: format {result.format}; this benchmark reads {FORMAT}")
    return result
