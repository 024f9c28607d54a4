"""Runs what the chosen goals need, one thing after the other, and keeps the table up to date in its file as it goes."""

from __future__ import annotations

import datetime
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.goals.catalog import GOALS, Found, Wanted
from bench.goals.measures import SCENARIO_MEASURES
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


def run_goals(goals: Sequence[Wanted], *, quick: bool, seed: int, output: Path, say: Say) -> GoalTable:
    """Measure, judge, save after each; what failed to run is told and leaves its goals unmeasured."""
    began = datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(dir=os.environ.get("STOCKADE_BENCH_DIR")) as made:
        machine = describe(Path(made))
    result = Result(
        began=began, machine=machine, conditions={"gateways": 1, "seed": seed, "quick": quick}, scenarios=[]
    )
    found = Found()
    table = GoalTable(quick=quick, goals=[], result=result)
    for name, peers in needed(goals).items():
        started = time.monotonic()
        try:
            MEASURES[name](found, peers, quick, seed, say)
        except Exception as error:  # the other goals are worth their figures
            say(f"{name}: FAILED: {type(error).__name__}: {error}")
        say(f"{name}: {time.monotonic() - started:.0f} s")
        result.scenarios = list(found.scenarios.values())
        table.figures = list(found.figures.values())
        table.goals = [goal.judged(found) for goal in goals]
        save_table(table, output)
    return table


Measure = Callable[[Found, set[str], bool, int, Say], None]


def _scenario(name: str) -> Measure:
    def measure(found: Found, peers: set[str], quick: bool, seed: int, say: Say) -> None:
        found.scenarios[name] = SCENARIO_MEASURES[name].run(peers, quick=quick, seed=seed, say=say)

    return measure


MEASURES: dict[str, Measure] = {name: _scenario(name) for name in SCENARIO_MEASURES}
