"""Many seeds on several cores, with progress, and the line that replays each failure."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator

from tests.simulation.simulation import Outcome, simulate

SEEDS_PER_CHUNK = 10
PROGRESS_S = 5.0


def many(seeds: range, jobs: int, *, until_failure: bool = False) -> int:
    """All of the seeds, or all until one fails; failures are told at once."""
    started_s = told_s = time.monotonic()
    done = turns = 0
    cpu_s = 0.0
    failed: list[int] = []
    for outcome in _outcomes(seeds, jobs):
        done += 1
        turns += outcome.turns
        cpu_s += outcome.cpu_s
        if outcome.problems:
            failed.append(outcome.seed)
            print(f"seed {outcome.seed} failed; replay with: python -m tests.simulation --seed {outcome.seed} --trace")
            for problem in outcome.problems[:5]:
                print(f"  {problem[:400]}")
            if until_failure:
                break
        if time.monotonic() - told_s > PROGRESS_S:
            told_s = time.monotonic()
            _tell(done, len(seeds), turns, cpu_s, told_s - started_s, failed)
    _tell(done, len(seeds), turns, cpu_s, time.monotonic() - started_s, failed)
    return 1 if failed else 0


def _tell(done: int, seeds: int, turns: int, cpu_s: float, seconds: float, failed: list[int]) -> None:
    print(
        f"{done}/{seeds} seeds, {len(failed)} failed, {turns} turns; {done / seconds:.1f} seeds/s, "
        f"{turns / max(cpu_s, 0.001):.0f} turns a CPU second, {cpu_s / max(done, 1):.3f} CPU seconds a seed",
        file=sys.stderr,
        flush=True,
    )


def _outcomes(seeds: range, jobs: int) -> Iterator[Outcome]:
    chunks = [seeds[at : at + SEEDS_PER_CHUNK] for at in range(0, len(seeds), SEEDS_PER_CHUNK)]
    if jobs == 1:
        for seed in seeds:
            yield from _run_chunk([seed])
        return
    with multiprocessing.get_context("spawn").Pool(jobs, gc.freeze) as pool:  # modules are not walked after each seed
        for outcomes in pool.imap_unordered(_run_chunk, chunks):
            yield from outcomes


def _run_chunk(seeds: Iterable[int]) -> list[Outcome]:
    outcomes = []
    for seed in seeds:
        outcome = simulate(seed)
        outcome.recording = None
        outcomes.append(outcome)
        gc.collect()
    return outcomes
