"""Compares two results: ratios with their spread, and what makes the two incomparable. Says no more than repetitions allow.

A change counts only when every repetition of one side lies beyond every one of the other. Differences of the conditions
are told, not hidden in the ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.machine import is_busy
from bench.results import Result, Run, ScenarioResult, middle

FSYNC_RATIO_MAX = 1.25  # two disks, or a disk under other load
SAME_CONDITIONS = ("cpu", "cores_allowed", "cores", "kernel", "python", "versions")
REPETITIONS_MIN = 3  # fewer say little about spread

# metric: how it reads in a run, whether more is better
METRICS: dict[str, tuple[Callable[[Run], float | None], bool]] = {
    "a second": (lambda run: run.per_second or None, True),
    "refused/s": (lambda run: run.refused_per_second or None, True),
    "p50 ms": (lambda run: run.latency_ms.get("p50"), False),
    "p99 ms": (lambda run: run.latency_ms.get("p99"), False),
    "host CPU µs": (lambda run: run.cpu_us_per_unit.get("host") or None, False),
    "gateway CPU µs": (lambda run: run.cpu_us_per_unit.get("gateway") or None, False),
    "host MiB": (lambda run: run.memory_mib_max.get("host") or None, False),
    "acknowledged s": (lambda run: run.first_acknowledged_s, False),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one scenario. ``ratio``: of the medians; ``least``, ``greatest``: of any two repetitions."""

    scenario: str
    metric: str
    before: float
    after: float
    ratio: float
    least: float
    greatest: float
    verdict: str

    @property
    def before_text(self) -> str:
        return number_text(self.before)

    @property
    def after_text(self) -> str:
        return number_text(self.after)

    @property
    def ratio_text(self) -> str:
        """The ratio and its spread."""
        return f"{self.ratio:.3f} × ({self.least:.3f} … {self.greatest:.3f})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """``differences``: of the conditions; ``missing``: what only one of the two has, or has no valid run of."""

    changes: list[Change]
    differences: list[str]
    missing: list[str]


def number_text(value: float) -> str:
    """Three figures that matter, thousands in groups."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def compare(before: Result, after: Result) -> Comparison:
    """``after`` (B) against ``before`` (A)."""
    old = {one.name: one for one in before.scenarios}
    new = {one.name: one for one in after.scenarios}
    changes: list[Change] = []
    differences = condition_differences(before.machine, after.machine)
    missing = [f"{name}: only in A" for name in old if name not in new]
    missing += [f"{name}: only in B" for name in new if name not in old]
    for name, one in old.items():
        if name in new:
            differences += settings_differences(one, new[name])
            changes += scenario_changes(one, new[name], missing)
    return Comparison(changes, differences, missing)


def condition_differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is not the same about the two machines, in words."""
    found = []
    for name in SAME_CONDITIONS:
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
            found += [f"{key} {old.get(key)} in A, {new.get(key)} in B" for key in changed]
        else:
            found.append(f"{name} {old} in A, {new} in B")
    old_ms, new_ms = (side.get("fsync_ms", {}).get("p50", 0.0) for side in (before, after))
    if old_ms and new_ms and max(old_ms, new_ms) / min(old_ms, new_ms) > FSYNC_RATIO_MAX:
        found.append(f"an fsync took {old_ms} ms in A, {new_ms} ms in B (median)")
    for side, machine in (("A", before), ("B", after)):
        if machine.get("load_average") and is_busy(machine):
            found.append(f"the machine of {side} was busy: load average {machine['load_average']} before it began")
    return found


def settings_differences(old: ScenarioResult, new: ScenarioResult) -> list[str]:
    """Settings of a scenario that are not the same."""
    before, after = flat(old.settings), flat(new.settings)
    return [
        f"{old.name}: {key} {before.get(key)} in A, {after.get(key)} in B"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def scenario_changes(old: ScenarioResult, new: ScenarioResult, missing: list[str]) -> list[Change]:
    """Every metric that both have valid runs of; a scenario without any is noted in ``missing``."""
    changes: list[Change] = []
    before_ratios, after_ratios = old.noop_ratios(), new.noop_ratios()
    if before_ratios and after_ratios:
        changes.append(change(old.title, "÷ no-op", before_ratios, after_ratios, more_is_better=True))
    peers_after = {peer.name: peer for peer in new.peers}
    for peer in old.peers:
        other = peers_after.get(peer.name)
        before_ratios = old.ratios_to(peer.runs)
        after_ratios = new.ratios_to(other.runs) if other is not None else []
        if before_ratios and after_ratios:
            changes.append(change(old.title, f"÷ {peer.title}", before_ratios, after_ratios, more_is_better=True))
    for label in old.labels:
        name = f"{old.title}{', ' + label if label else ''}"
        before_runs, after_runs = old.valid(label), new.valid(label)
        if not before_runs or not after_runs:
            missing.append(f"{name}: no valid run in {'A' if not before_runs else 'B'}")
            continue
        for metric, (read, more_is_better) in METRICS.items():
            before = [value for run in before_runs if (value := read(run)) is not None]
            after = [value for run in after_runs if (value := read(run)) is not None]
            if before and after and min(before) > 0:
                changes.append(change(name, metric, before, after, more_is_better=more_is_better))
    return changes


def change(scenario: str, metric: str, before: list[float], after: list[float], *, more_is_better: bool) -> Change:
    """One metric: the ratio of medians and what may be said of it."""
    ratio = middle(after) / middle(before)
    least, greatest = min(after) / max(before), max(after) / min(before)
    if least <= 1 <= greatest:
        verdict = "no difference to be seen"
    else:
        verdict = "better" if (least > 1) == more_is_better else "worse"
        if min(len(before), len(after)) < REPETITIONS_MIN:
            verdict += f" (of only {len(before)} and {len(after)} runs)"
    return Change(scenario, metric, middle(before), middle(after), ratio, least, greatest, verdict)
