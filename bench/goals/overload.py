"""What goal 16 asks of a flood: goodput, bounded latency, clear answers, memory, and being as fast as before right after it."""

from __future__ import annotations

from collections.abc import Callable

from bench.goals.table import Figures, Row, row
from bench.results import Run, ScenarioResult, middle

CLEAR_ANSWER = "OVERLOADED"
P99_MS_MAX = 1_000.0
MEMORY_MIB_MAX = 64.0
SLOWER_MAX = 1.5


def overload_rows(one: ScenarioResult, work: str) -> list[Row]:
    """The phases of a scenario with factors 1, 10 and 1."""
    before, flood, after = ([run for run in one.runs if run.label == label] for label in one.labels[:3])
    rows = against(f"{work}: goodput at ten times as much", flood, before, lambda run: run.per_second, 0.9)
    rows += row(
        f"{work}: p99 of what was accepted then",
        [run.latency_ms.get("p99", 0.0) for run in flood],
        figure=f"p50 {middle([run.latency_ms.get('p50', 0.0) for run in flood]):.0f} ms",
        unit="ms",
        at_most=P99_MS_MAX,
    )
    rows += row(
        f"{work}: calls that got neither an answer nor {CLEAR_ANSWER}",
        [float(sum(count for what, count in run.errors.items() if what != CLEAR_ANSWER)) for run in flood],
        figure=f"{sum(run.errors.get(CLEAR_ANSWER, 0) for run in flood):,} were told {CLEAR_ANSWER}",
        unit="calls",
        at_most=0,
    )
    rows += row(
        f"{work}: memory of the gateway then, above that before",
        [
            loud.memory_mib_max.get("gateway", 0.0) - quiet.memory_mib_max.get("gateway", 0.0)
            for loud, quiet in zip(flood, before, strict=True)
        ],
        figure=f"{middle([run.memory_mib_max.get('gateway', 0.0) for run in flood]):.0f} MiB",
        unit="MiB more",
        at_most=MEMORY_MIB_MAX,
    )
    return rows + against(f"{work}: right after it", after, before, first_two_seconds, 0.9)


def against(what: str, runs: list[Run], others: list[Run], rate: Callable[[Run], float], at_least: float) -> list[Row]:
    """A phase over another of the same repetition."""
    return row(
        what,
        [rate(run) / rate(other) for run, other in zip(runs, others, strict=True) if rate(other)],
        figure=f"{middle([rate(run) for run in runs]):,.0f}/s",
        comparison=f"before {middle([rate(run) for run in others]):,.0f}/s",
        unit="×",
        at_least=at_least,
    )


def first_two_seconds(run: Run) -> float:
    """Grants a second in the first two seconds of a run."""
    seconds = min(2.0, run.seconds)
    return sum(bucket[0] for bucket in run.series[: int(seconds * 2)]) / seconds


def flooded_rows(figures: Figures) -> list[Row]:
    """Singles of other keys beside a flood of one key, over those beside the same flood of all keys."""
    one, spread = figures.values["one_key_p99_ms"], figures.values["spread_p99_ms"]
    return row(
        "p99 of other stock keys beside a flooded one",
        [hot / even for hot, even in zip(one, spread, strict=True)],
        figure=f"{middle(one):.0f} ms",
        comparison=f"beside as large a flood of all keys {middle(spread):.0f} ms",
        unit="×",
        at_most=SLOWER_MAX,
    )
