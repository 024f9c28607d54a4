"""Runs what the chosen goals need, one thing after the other, and keeps the table up to date in its file as it goes."""

from __future__ import annotations

import datetime
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.goals.big import BIG, measure_big
from bench.goals.catalog import GOALS, Found, Wanted
from bench.goals.flooded import measure_flooded
from bench.goals.measures import QUICK_REPETITIONS, QUICK_SECONDS, SCENARIO_MEASURES
from bench.goals.table import GoalTable, save_table
from bench.machine import describe
from bench.results import Result
from bench.running import Say
from bench.scenario import ScenarioError


def chosen_goals(numbers: str | None) -> list[Wanted]:
    """Goals by number, parted by commas; None: all."""
    if numbers is None:
        return list(GOALS.values())
    wanted = []
    for text in (part.strip() for part in numbers.split(",") if part.strip()):
        if not text.isdigit() or int(text) not in GOALS:
            raise ScenarioError(f"there is no goal {text!r}; there are {min(GOALS)} to {max(GOALS)}")
        wanted.append(GOALS[int(text)])
    return wanted


def needed(goals: Iterable[Wanted]) -> dict[str, set[str]]:
    """Measures that these goals need, in the order of the goals, each with its peers."""
    found: dict[str, set[str]] = {}
    for goal in goals:
        for measure, peers in goal.needs.items():
            found.setdefault(measure, set()).update(peers)
    return found


@dataclass(frozen=True, slots=True)
class Conditions:
    """``quick``: shorter runs. ``keys``: stock keys, and holds, of a big service."""

    quick: bool = False
    seed: int = 1
    keys: int = BIG


def run_goals(goals: Sequence[Wanted], conditions: Conditions, *, output: Path, say: Say) -> GoalTable:
    """Measure, judge, save after each; what failed to run is told and leaves its goals unmeasured."""
    began = datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(dir=os.environ.get("STOCKADE_BENCH_DIR")) as made:
        machine = describe(Path(made))
    result = Result(began=began, machine=machine, conditions={"gateways": 1, **asdict(conditions)}, scenarios=[])
    found = Found()
    table = GoalTable(quick=conditions.quick, goals=[], result=result)
    for name, peers in needed(goals).items():
        started = time.monotonic()
        try:
            MEASURES[name](found, peers, conditions, say)
        except Exception as error:  # the other goals are worth their figures
            say(f"{name}: FAILED: {type(error).__name__}: {error}")
        say(f"{name}: {time.monotonic() - started:.0f} s")
        result.scenarios = list(found.scenarios.values())
        table.figures = list(found.figures.values())
        table.goals = [goal.judged(found) for goal in goals]
        save_table(table, output)
    return table


Measure = Callable[[Found, set[str], Conditions, Say], None]


def _scenario(name: str) -> Measure:
    def measure(found: Found, peers: set[str], conditions: Conditions, say: Say) -> None:
        found.scenarios[name] = SCENARIO_MEASURES[name].run(
            peers, quick=conditions.quick, seed=conditions.seed, say=say
        )

    return measure


def _big(found: Found, _: set[str], conditions: Conditions, say: Say) -> None:
    found.figures["big"], found.scenarios["big"] = measure_big(keys=conditions.keys, seed=conditions.seed, say=say)


def _flooded(found: Found, _: set[str], conditions: Conditions, say: Say) -> None:
    seconds, repetitions = (QUICK_SECONDS, QUICK_REPETITIONS) if conditions.quick else (4.0, 5)
    figures, proof = measure_flooded(seconds=seconds, repetitions=repetitions, seed=conditions.seed, say=say)
    if not proof.agrees:
        raise RuntimeError("its journal and its answers disagree")
    found.figures["flooded"] = figures


MEASURES: dict[str, Measure] = {
    **{name: _scenario(name) for name in SCENARIO_MEASURES},
    "big": _big,
    "flooded": _flooded,
}
