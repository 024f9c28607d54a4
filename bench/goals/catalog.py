"""The seventeen goals: what each wants, what it needs to be run, and how the figures become its rows.

All figures are of two processors, generator included, durable; a goal is a ratio to something measured in the same run
wherever there is something to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.goals.overload import flooded_rows, overload_rows
from bench.goals.table import Figures, Goal, Row, row
from bench.peers.standings import standings
from bench.results import Run, ScenarioResult, middle


@dataclass(slots=True)
class Found:
    """What was measured, by the names of ``measures``."""

    scenarios: dict[str, ScenarioResult] = field(default_factory=dict)
    figures: dict[str, Figures] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A goal. ``needs``: measures → peers of them; ``judge``: its rows, none when what it needs was not measured."""

    number: int
    work: str
    needs: Mapping[str, tuple[str, ...]]
    judge: Callable[[Found], list[Row]]
    note: str = ""

    def judged(self, found: Found) -> Goal:
        """The goal with what was found."""
        return Goal(number=self.number, work=self.work, rows=self.judge(found), note=self.note)


def rate_text(runs: list[Run], unit: str) -> str:
    """The median rate of these runs."""
    return f"{middle([run.per_second for run in runs]):,.0f} {unit}/s"


def against_noop(one: ScenarioResult, wanted: float) -> list[Row]:
    """The service over the no-op, round by round."""
    figure, comparison = rate_text(one.valid(), one.unit), "no-op " + rate_text(one.noop, one.unit)
    return row(one.title, one.noop_ratios(), figure=figure, comparison=comparison, unit="×", at_least=wanted)


def against_peer(found: Found, scenario: str, peer: str, wanted: float) -> list[Row]:
    """The service over a peer, round by round."""
    one = found.scenarios.get(scenario)
    if one is None:
        return []
    rows: list[Row] = []
    for standing in standings(one):
        if standing.peer.name == peer:
            proof = standing.peer.proof
            rows += row(
                one.title,
                standing.ratios,
                figure=rate_text(one.valid(), one.unit),
                comparison=f"{standing.peer.title} {standing.rate_text} {one.unit}/s",
                unit="×",
                at_least=wanted,
                note="" if proof is None or proof.sound else "the peer lost or oversold: see the report",
            )
    return rows


def rate(found: Found, scenario: str, wanted: float, unit: str = "") -> list[Row]:
    """So many a second, by itself."""
    one = found.scenarios.get(scenario)
    if one is None:
        return []
    runs = one.valid()
    unit = unit or one.unit
    rates = [run.per_second for run in runs]
    return row(one.title, rates, figure=rate_text(runs, unit), unit=f"{unit}/s", at_least=wanted)


def unary(found: Found) -> list[Row]:
    one = found.scenarios.get("hot")
    return against_noop(one, 0.85) if one is not None else []


def idle(found: Found) -> list[Row]:
    """The no-op's latency taken away, round by round."""
    one = found.scenarios.get("idle")
    if one is None or len(one.noop) != len(one.runs):
        return []
    pairs = [(run.latency_ms["p50"], noop.latency_ms["p50"]) for run, noop in zip(one.runs, one.noop, strict=True)]
    return row(
        one.title,
        [ours - noop for ours, noop in pairs],
        figure=f"p50 {middle([ours for ours, _ in pairs]):.2f} ms",
        comparison=f"no-op p50 {middle([noop for _, noop in pairs]):.2f} ms",
        unit="ms more",
        at_most=0.7,
    )


def half_peak(found: Found) -> list[Row]:
    one = found.scenarios.get("half-peak")
    if one is None:
        return []
    rows: list[Row] = []
    runs = one.valid()
    for percentile, bound in (("p99", 10.0), ("p99.9", 30.0)):
        values = [run.latency_ms[percentile] for run in runs]
        rows += row(percentile, values, figure=f"at {rate_text(runs, one.unit)}", unit="ms", at_most=bound)
    return rows


def refusals(found: Found) -> list[Row]:
    """In each repetition grants come until all is sold, then refusals."""
    one = found.scenarios.get("flash-sale")
    if one is None:
        return []
    runs = [run for run in one.valid() if run.refused_per_second and run.per_second]
    return row(
        one.title,
        [run.refused_per_second / run.per_second for run in runs],
        figure=f"{middle([run.refused_per_second for run in runs]):,.0f} refusals/s",
        comparison=f"{middle([run.per_second for run in runs]):,.0f} grants/s",
        unit="×",
        at_least=1.2,
    )


def reads(found: Found) -> list[Row]:
    one = found.scenarios.get("availability")
    if one is None:
        return []
    return row(
        one.title,
        one.ratios_to(one.beside),
        figure=rate_text(one.valid(), "stock keys"),
        comparison="BatchReserveStock " + rate_text(one.beside, "claims"),
        unit="×",
        at_least=1.5,
    )


def big_figure(found: Found, name: str, what: str, unit: str, at_most: float, note: str = "") -> list[Row]:
    """One figure of the service that grew."""
    figures = found.figures.get("big")
    values = figures.values.get(name, []) if figures is not None else []
    return row(what, values, figure=f"{middle(values):,.1f} {unit}", unit=unit, at_most=at_most, note=note)


def growth(found: Found) -> list[Row]:
    """CPU a claim, big over small: every pair of repetitions."""
    figures = found.figures.get("big")
    if figures is None or "cpu_big" not in figures.values:
        return []
    small, big = figures.values["cpu_small"], figures.values["cpu_big"]
    return row(
        "whole service",
        [large / little for large in big for little in small],
        figure=f"{middle(big):.1f} µs a claim when big",
        comparison=f"{middle(small):.1f} µs when small",
        unit="×",
        at_most=1.2,
    )


def killed(found: Found) -> list[Row]:
    """The slowest of all kills is what is judged: a 99th percentile needs a hundred."""
    one = found.scenarios.get("recovery")
    if one is None:
        return []
    times = [run.first_acknowledged_s for run in one.runs if run.first_acknowledged_s is not None]
    rows = row(one.title, times, figure=f"median {middle(times):.2f} s of {len(times)} kills", unit="s", at_most=3)
    for shown in rows:
        shown.value = shown.high
    return rows


def overload(found: Found) -> list[Row]:
    """Calls, batches, and one key among many."""
    rows: list[Row] = []
    for name, work in (("overload", "calls"), ("overload-batch", "batches")):
        if name in found.scenarios:
            rows += overload_rows(found.scenarios[name], work)
    return rows + (flooded_rows(found.figures["flooded"]) if "flooded" in found.figures else [])


GOALS: dict[int, Wanted] = {
    one.number: one
    for one in (
        Wanted(1, "ReserveStock, one hot SKU, 128 in flight, against the no-op", {"hot": ()}, unary),
        Wanted(
            2,
            "the same, and batches of 100, against neveroversell on PostgreSQL",
            {"hot": ("neveroversell",), "hot-batch": ("neveroversell",)},
            lambda found: (
                against_peer(found, "hot", "neveroversell", 5) + against_peer(found, "hot-batch", "neveroversell", 200)
            ),
        ),
        Wanted(
            3,
            "the same against an asyncpg conditional UPDATE behind the same kind of gateway",
            {"hot": ("asyncpg",), "hot-batch": ("asyncpg",)},
            lambda found: against_peer(found, "hot", "asyncpg", 2) + against_peer(found, "hot-batch", "asyncpg", 50),
        ),
        Wanted(
            4,
            "batches of 100 and of 1,000 against a PL/pgSQL batch function",
            {"hot-batch": ("plpgsql",), "hot-batch-1000": ("plpgsql",)},
            lambda found: (
                against_peer(found, "hot-batch", "plpgsql", 5) + against_peer(found, "hot-batch-1000", "plpgsql", 2)
            ),
        ),
        Wanted(
            5,
            "ReserveStock, one hot SKU, against one Ray actor a SKU",
            {"hot": ("ray",)},
            lambda found: against_peer(found, "hot", "ray", 2),
        ),
        Wanted(
            6,
            "BatchReserveStock, 100 a call, hot and spread",
            {"hot-batch": (), "spread-batch": ()},
            lambda found: rate(found, "hot-batch", 150_000) + rate(found, "spread-batch", 150_000),
        ),
        Wanted(7, "idle latency of ReserveStock, p50, above the no-op's", {"idle": ()}, idle),
        Wanted(8, "latency at half of the peak, open loop", {"half-peak": ()}, half_peak),
        Wanted(
            9,
            "25-line orders, all or none, batched",
            {"orders": ()},
            lambda found: rate(found, "orders", 120_000, "lines"),
        ),
        Wanted(10, "refusals of a sold-out SKU against grants", {"flash-sale": ()}, refusals),
        Wanted(11, "BatchGetAvailability, strong, against BatchReserveStock", {"availability": ()}, reads),
        Wanted(
            12,
            "memory of a million stock actors and a million open one-line holds",
            {"big": ()},
            lambda found: (
                big_figure(found, "bytes_per_stock_actor", "a stock actor", "B", 1024)
                + big_figure(found, "bytes_per_hold", "an open hold, dedupe included", "B", 820)
            ),
        ),
        Wanted(
            13,
            "recovery of a million stock actors and a million holds",
            {"big": ()},
            lambda found: big_figure(found, "recovery_s", "until the host serves", "s", 10),
        ),
        Wanted(14, "CPU a claim as keys and holds grow from a thousand to a million", {"big": ()}, growth),
        Wanted(15, "host killed under load, 100,000 stock keys: first acknowledged reserve", {"recovery": ()}, killed),
        Wanted(
            16,
            "ten times as much as it does",
            {"overload": (), "overload-batch": (), "flooded": ()},
            overload,
        ),
        Wanted(
            17,
            "CPU a claim of two hosts against one",
            {},
            lambda _: [],
            note="not measured: two hosts come with the cluster; then hot-batch in turn against one host and against two of the "
            "same journal, CPU of all processes over claims, at most 1.1 ×",
        ),
    )
}
