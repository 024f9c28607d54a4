"""Some hundred histories from drawn plans, each seed that ever found a bug, and that a seed is one history and no other."""

from __future__ import annotations

import gc
import tomllib
from pathlib import Path

import pytest

from tests.simulation.simulation import simulate

SEEDS = 300
CHUNK = 10
REGRESSIONS = Path(__file__).with_name("regressions.toml")


def told_seeds() -> list[int]:
    return [int(one["seed"]) for one in tomllib.loads(REGRESSIONS.read_text()).get("regression", [])]


def problems_of(seed: int) -> list[str]:
    outcome = simulate(seed)
    return [
        f"seed {seed}, replay with: python -m tests.simulation --seed {seed} --trace: {problem}"
        for problem in outcome.problems
    ]


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_oversells_and_everything_heals(first: int) -> None:
    gc.freeze()
    try:
        problems = [problem for seed in range(first, first + CHUNK) for problem in problems_of(seed)]
    finally:
        gc.unfreeze()
    assert problems == []


@pytest.mark.parametrize("seed", told_seeds())
def test_a_seed_that_found_a_bug_finds_it_no_more(seed: int) -> None:
    assert problems_of(seed) == []


@pytest.mark.parametrize("seed", [3, 12, 28])
def test_a_seed_is_one_history(seed: int) -> None:
    first, again = simulate(seed), simulate(seed)
    assert first.digest == again.digest
    assert first.recording is not None and again.recording is not None
    assert first.recording.text() == again.recording.text()
    assert first.turns > 0


def test_another_seed_is_another_history() -> None:
    assert simulate(1).digest != simulate(2).digest
