"""Results as one HTML file that needs nothing else: conditions, figures with spread, plots, and the proof of each run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench import plots
from bench.machine import is_busy
from bench.outcome import BUCKET_S
from bench.peers.standings import COLUMNS, own_row, standings, winners
from bench.results import PeerResult, Result, Run, ScenarioResult, merged, middle
from bench.tables import BUSY, machine_line, ratio_text, refused_text

# what a plot of costs shows: name, the roles of bench.metering in it
PARTS = {
    "gateway": ("gateway",),
    "host": ("host",),
    "generator": ("generator",),
    "Ray": ("ray", "node"),
    "rest": ("serve", "directory"),
}
CURVE = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.99)
SAMPLE_S = 1.0

STYLE = """
:root{--ink:#1b1f24;--soft:#5b6570;--paper:#fff;--line:#d8dde3;--c0:#2f6fb3;--c1:#d9822b;--c2:#3f9463;--c3:#a54a8b;--c4:#8a6d3b;
--c5:#5c6bc0;--bad:#b3261e;--good:#2e7d32}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa5b1;--paper:#14181d;--line:#333b45;--c0:#6aa5e0;--c1:#f0a65a;--c2:#6cc08e;--c3:#d07fb8;--c4:#c0a26b;
--c5:#8f9be8;--bad:#ff8a80;--good:#81c784}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:980px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-top:1px solid var(--line);padding-top:1rem}h3{font-size:1rem}
table{border-collapse:collapse;width:100%;font-size:.86rem}th,td{padding:.3rem .5rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600}.scroll{overflow-x:auto}
svg{width:100%;height:auto;font:11px system-ui,sans-serif}svg text{fill:var(--soft)}svg .value{fill:var(--ink)}
.grid{stroke:var(--line);fill:none}.whisker{stroke:var(--ink);fill:none;stroke-width:1.2}.line{fill:none;stroke-width:1.8}
.mark{stroke:var(--bad);stroke-dasharray:4 3;fill:none}
.note{color:var(--soft)}.bad{color:var(--bad);font-weight:600}.good{color:var(--good)}
.legend span{margin-right:1rem;font-size:.85rem}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.35em;border-radius:2px}
""" + "".join(
    f".c{n}{{fill:var(--c{n})}}.s{n}{{stroke:var(--c{n})}}.b{n}{{background:var(--c{n})}}" for n in range(plots.COLOURS)
)  # fmt: skip


def write_html(results: Sequence[Result], path: Path) -> None:
    """One file for these results, each a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page("Stockade benchmark", parts_of(results)), encoding="utf-8")


def page(title: str, body: str) -> str:
    """A whole file around this."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width,initial-scale=1"><title>{escape(title)}</title><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def parts_of(results: Sequence[Result]) -> str:
    """Everything that was measured, result by result."""
    return "".join(_part(result) for result in results)


def _part(result: Result) -> str:
    parts = [f'<p class="note">{escape(machine_line(result))}<br>{escape(_versions(result.machine))}</p>']
    if is_busy(result.machine):
        parts.append(f'<p class="bad">{escape(BUSY)}</p>')
    parts.append(_summary(result.scenarios))
    parts.append(_peers(result.scenarios))
    parts.append(_rates(result.scenarios))
    parts.append(_costs(result.scenarios))
    parts += [_scenario(one) for one in result.scenarios]
    return "".join(parts)


def _versions(machine: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())


def table_html(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls where it is too wide."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _named(one: ScenarioResult, label: str) -> str:
    return one.title + (f", {label}" if label else "")


def _summary(scenarios: Sequence[ScenarioResult]) -> str:
    rows = []
    for one in scenarios:
        for label in one.labels:
            runs = one.valid(label)
            if not runs:
                rows.append([_named(one, label), "INVALID", *[""] * 7])
                continue
            rates = [run.per_second for run in runs]
            rows.append(
                [
                    f"{_named(one, label)} ({one.unit})",
                    f"{middle(rates):,.0f}",
                    f"{min(rates):,.0f} … {max(rates):,.0f}",
                    ratio_text(one),
                    *[f"{middle([run.latency_ms.get(p, 0.0) for run in runs]):.2f}" for p in ("p50", "p99", "p99.9")],
                    refused_text(runs),
                    f"{sum(run.failed for run in runs):,}",
                ]
            )
    columns = ("scenario", "a second", "min … max", "÷ no-op", "p50 ms", "p99 ms", "p99.9 ms", "refused/s", "failed")
    return "<h2>Figures</h2>" + table_html(columns, rows)


def _peers(scenarios: Sequence[ScenarioResult]) -> str:
    """Stockade beside the peers, scenario by scenario; where one of them is faster it is said first."""
    parts = [f'<p class="bad">A peer wins: {escape(said)}</p>' for said in winners(scenarios)]
    for one in scenarios:
        found = standings(one)
        if not found:
            continue
        parts.append(f"<h3>{escape(one.title)}</h3>")
        rows: list[tuple[str, float, float, float, int]] = []
        for name, runs, colour in (
            ("Stockade", one.valid(), 0),
            ("no-op (nothing behind the gateway)", one.noop, 1),
            *((standing.peer.title, standing.runs, 2) for standing in found),
        ):
            rates = [run.per_second for run in runs]
            if rates:
                rows.append((name, middle(rates), min(rates), max(rates), colour))
        parts.append(plots.bars(rows, f"{one.unit} answered yes, per second"))
        parts.append(table_html(COLUMNS, [own_row(one), *[standing.cells() for standing in found]]))
        parts += [
            f'<p class="bad">{escape(standing.peer.title)} is unsound: {escape("; ".join(standing.peer.proof.findings))}</p>'
            for standing in found
            if standing.peer.proof is not None and not standing.peer.proof.sound
        ]
        parts.append(f'<p class="note">{"<br>".join(escape(_configured(standing.peer)) for standing in found)}</p>')
    return f"<h2>In turn with the peers</h2>{''.join(parts)}" if parts else ""


def _configured(peer: PeerResult) -> str:
    """How a peer was run, as its server said it."""
    settings = ", ".join(f"{name} {value or 'none'}" for name, value in (peer.versions | peer.configuration).items())
    return f"{peer.title}: {peer.summary}" + (f" ({settings})" if settings else "")


def _rates(scenarios: Sequence[ScenarioResult]) -> str:
    rows: list[tuple[str, float, float, float, int]] = []
    for one in scenarios:
        for label in one.labels:
            for name, runs, colour in ((_named(one, label), one.valid(label), 0), ("no-op", one.noop, 1)):
                rates = [run.per_second for run in runs]
                if rates:
                    rows.append((name, middle(rates), min(rates), max(rates), colour))
    if not rows:
        return ""
    return (
        "<h2>Work answered yes, per second</h2>"
        + plots.legend(["Stockade, durable", "no-op behind the same gateway"])
        + plots.bars(rows, "work answered yes, per second")
    )


def _costs(scenarios: Sequence[ScenarioResult]) -> str:
    rows = []
    for one in scenarios:
        runs = [run for run in one.runs if not run.invalid]
        if runs:
            spent = {
                name: middle([sum(run.cpu_us_per_unit.get(role, 0.0) for role in roles) for run in runs])
                for name, roles in PARTS.items()
            }
            rows.append((one.title, spent))
    if not rows:
        return ""
    names, title = list(PARTS), "CPU a unit of work"
    return f"<h2>{title}</h2>" + plots.legend(names) + plots.stacked(rows, names, title, "µs")


def _scenario(one: ScenarioResult) -> str:
    parts = [f"<h2>{escape(one.title)}</h2>"]
    parts += [f'<p class="note">{escape(note)}</p>' for note in one.notes]
    parts += [
        f'<p class="bad">does not count: {escape(why)}</p>' for why in sorted({w for r in one.runs for w in r.invalid})
    ]
    curves = {_named(one, label): _curve(one.valid(label)) for label in one.labels if one.valid(label)}
    if one.noop:
        curves["no-op"] = _curve(one.noop)
    drawn = plots.latency_curves(curves, "latency by percentile")
    if drawn:
        parts += ["<h3>Latency by percentile</h3>", plots.legend(list(curves)), drawn]
    if one.runs:
        parts.append(_over_time(one.runs[-1]))
    errors = {name for run in one.runs for name in run.errors}
    if errors:
        counts = {name: sum(run.errors.get(name, 0) for run in one.runs) for name in sorted(errors)}
        parts.append(f'<p class="note">failed: {escape(", ".join(f"{n} {c:,}" for n, c in counts.items()))}</p>')
    parts.append(_proof(one))
    settings = ", ".join(f"{name} {value}" for name, value in one.settings.items() if name != "load")
    load = ", ".join(f"{name} {value}" for name, value in one.settings.get("load", {}).items() if value is not None)
    parts.append(
        f'<p class="note">{escape(settings)}; load: {escape(load)}; load average before {one.load_average}</p>'
    )
    return "".join(parts)


def _curve(runs: Sequence[Run]) -> list[tuple[float, float]]:
    whole = merged(list(runs))
    if not whole.get_total_count():
        return []
    return [(share, whole.get_value_at_percentile(share) / 1000) for share in CURVE]


def _over_time(run: Run) -> str:
    names = ("granted", "refused", "failed")
    whole = run.series[: max(1, int(run.seconds / BUCKET_S))]
    series = {
        name: [((at + 0.5) * BUCKET_S, row[number] / BUCKET_S) for at, row in enumerate(whole)]
        for number, name in enumerate(names)
        if any(row[number] for row in whole)
    }
    marks = [run.struck_s] if run.struck_s is not None else []
    parts = []
    drawn = plots.lines(series, "answers over time", "a second", marks)
    if drawn:
        parts += ["<h3>Last repetition over time</h3>", plots.legend(list(series)), drawn]
    memory = {
        role: [(at * SAMPLE_S, sample[role]) for at, sample in enumerate(run.memory_series) if role in sample]
        for role in ("host", "gateway", "generator")
    }
    memory = {role: points for role, points in memory.items() if len(points) > 2}
    drawn = plots.lines(memory, "memory over time", "MiB", marks) if memory else ""
    if drawn:
        parts += [plots.legend(list(memory)), drawn]
    return "".join(parts)


def _proof(one: ScenarioResult) -> str:
    proof = one.proof
    if proof is None:
        return ""
    said = (
        f"{proof.claims_in_the_journal:,} claims in the journal, {proof.claims_answered:,} in answers; "
        f"{proof.facts_in_the_journal:,} facts, {proof.facts_answered:,} in answers; {proof.oversells} oversells, "
        f"{proof.violations} violations; {proof.asked_again:,} calls asked again because their answer was lost."
    )
    if proof.agrees:
        return f'<p>The proof: {escape(said)} <span class="good">The journal agrees with every answer.</span></p>'
    return f'<p>The proof: {escape(said)} <span class="bad">{escape("; ".join(proof.findings))}</span></p>'
