"""Results as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.markup import escape

from bench.comparing import Comparison
from bench.machine import is_busy
from bench.peers.catalog import Peer
from bench.peers.standings import COLUMNS, own_row, standings, winners
from bench.results import Result, Run, ScenarioResult, middle
from bench.scenario import Scenario
from gateway.cli.showing import console, table

BUSY = "the machine was busy before the benchmark began: these figures are no measure of the service"


def show_scenarios(scenarios: list[Scenario]) -> None:
    """What there is to run."""
    rows = [
        (one.name, "short" if one.short else "", one.load.mode, one.keys, one.batch, one.about) for one in scenarios
    ]
    table("scenarios", ("name", "set", "loop", "stock keys", "a call", "what it does"), rows)


def show_peers(peers: Iterable[Peer]) -> None:
    """Who may take turns with it, and whether they can here."""
    rows = [(peer.name, peer.title, peer.summary, peer.missing() or "yes") for peer in peers]
    table("peers, of `python -m bench peers`", ("name", "what", "how", "runs here"), rows)


def show_result(result: Result) -> None:
    """Everything of a result that fits a terminal."""
    out = console()
    out.print(escape(machine_line(result)), highlight=False)
    if is_busy(result.machine):
        out.print(f"[bold red]{BUSY}[/]")
    rate_rows = [row for one in result.scenarios for row in _rate_rows(one)]
    table(
        "work answered yes, per second (median of the repetitions that count)",
        ("scenario", "a second", "min … max", "no-op", "ratio", "p50 ms", "p99 ms", "p99.9 ms", "refused/s", "failed"),
        rate_rows,
    )
    cost_rows = [(one.title, *_cost(one)) for one in result.scenarios]
    table(
        "what it cost (median; CPU in µs a unit of work)",
        (
            "scenario",
            "gateway",
            "host",
            "ray and rest",
            "generator",
            "no-op gw",
            "items/turn",
            "commit ms",
            "MiB host, gateway",
        ),
        cost_rows,
    )
    for one in result.scenarios:
        show_standings(one)
    for said in winners(result.scenarios):
        out.print(f"[bold yellow]a peer wins[/]: {escape(said)}", highlight=False)
    for one in result.scenarios:
        for note in [*one.notes, *sorted({why for run in one.runs for why in run.invalid})]:
            out.print(escape(f"{one.title}: {note}"), highlight=False)
    for one in result.scenarios:
        show_proof(one)


def machine_line(result: Result) -> str:
    """The conditions, in one line."""
    machine = result.machine
    return (
        f"{result.began}, commit {machine.get('commit') or '?'}: {machine['cpu']}, processors {machine['cores_allowed']} "
        f"of {machine['cores']}, load {machine['load_average']}, fsync p50 {machine['fsync_ms']['p50']} ms "
        f"p99 {machine['fsync_ms']['p99']} ms, Linux {machine['kernel']}, Python {machine['python']}"
    )


def _rate_rows(one: ScenarioResult) -> list[tuple[Any, ...]]:
    rows = []
    for label in one.labels:
        runs = one.valid(label)
        name = f"{one.title}{', ' + label if label else ''} ({one.unit})"
        if not runs:
            rows.append((name, "INVALID", *[""] * 8))
            continue
        rates = [run.per_second for run in runs]
        noop = middle([run.per_second for run in one.noop])
        rows.append(
            (
                name,
                f"{middle(rates):,.0f}",
                f"{min(rates):,.0f} … {max(rates):,.0f}",
                f"{noop:,.0f}" if noop else "",
                ratio_text(one),
                *[f"{middle([run.latency_ms.get(p, 0.0) for run in runs]):.2f}" for p in ("p50", "p99", "p99.9")],
                refused_text(runs),
                f"{sum(run.failed for run in runs):,}" if any(run.failed for run in runs) else "",
            )
        )
    return rows


def ratio_text(one: ScenarioResult) -> str:
    """Service over no-op, repetition by repetition; empty without a no-op."""
    ratios = one.noop_ratios()
    return f"{middle(ratios):.2f} × ({min(ratios):.2f} … {max(ratios):.2f})" if ratios else ""


def refused_text(runs: list[Run]) -> str:
    """Refusals a second once nothing more was granted."""
    rates = [run.refused_per_second for run in runs if run.refused_per_second]
    return f"{middle(rates):,.0f}" if rates else ""


def _cost(one: ScenarioResult) -> tuple[str, ...]:
    runs = [run for run in one.runs if not run.invalid]
    if not runs:
        return ("",) * 8

    def cpu(*roles: str) -> str:
        spent = middle([sum(run.cpu_us_per_unit.get(role, 0.0) for role in roles) for run in runs])
        return f"{spent:.1f}"

    noop = middle([run.cpu_us_per_unit.get("gateway", 0.0) for run in one.noop])
    memory = {
        role: max((run.memory_mib_max.get(role, 0.0) for run in runs), default=0.0) for role in ("host", "gateway")
    }
    return (
        cpu("gateway"),
        cpu("host"),
        cpu("ray", "node", "serve", "directory"),
        cpu("generator"),
        f"{noop:.1f}" if one.noop else "",
        f"{middle([run.journal.get('items_per_turn', 0.0) for run in runs]):,.0f}",
        f"{middle([run.journal.get('commit_ms_mean', 0.0) for run in runs]):.2f}",
        f"{memory['host']:.0f}, {memory['gateway']:.0f}",
    )


def show_proof(one: ScenarioResult) -> None:
    """Whether the journal and the answers agree."""
    proof = one.proof
    if proof is None:
        return
    said = (
        f"{one.title}: {proof.claims_in_the_journal:,} claims in the journal, {proof.claims_answered:,} in answers; "
        f"{proof.facts_in_the_journal:,} facts, {proof.facts_answered:,} in answers; {proof.oversells} oversells; verify: "
        f"{proof.violations} violations"
    )
    if proof.asked_again:
        said += f"; {proof.asked_again:,} calls asked again because their answer was lost"
    verdict = "[green]agrees[/]" if proof.agrees else f"[bold red]FAILED: {escape('; '.join(proof.findings))}[/]"
    console().print(f"{escape(said)}: {verdict}", highlight=False)


def show_standings(one: ScenarioResult) -> None:
    """Stockade and the peers of a scenario; nothing when there are none."""
    if one.peers:
        rows = [own_row(one), *[standing.cells() for standing in standings(one)]]
        table(f"{one.title}: in turn with the peers ({one.unit} answered yes, per second)", COLUMNS, rows)


def show_comparison(comparison: Comparison) -> None:
    """B against A."""
    out = console()
    for difference in comparison.differences:
        out.print(f"[yellow]conditions differ[/]: {escape(difference)}", highlight=False)
    if not comparison.differences:
        out.print("conditions: the same, as far as they were recorded")
    rows = [
        (one.scenario, one.metric, one.before_text, one.after_text, one.ratio_text, one.verdict)
        for one in comparison.changes
    ]
    table("B against A (ratio of medians; in brackets the least and greatest of any two repetitions)",
          ("scenario", "what", "A", "B", "B ÷ A", "verdict"), rows)  # fmt: skip
    for missing in comparison.missing:
        out.print(f"[yellow]not compared[/]: {escape(missing)}", highlight=False)
