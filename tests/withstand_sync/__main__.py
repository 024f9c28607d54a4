"""``python -m tests.withstand_sync --file retail.csv.gz``: the whole year; without a file a small one is made up.

Exit code 1 when the books of the disturbed run are not those of the clean run, or not the oracle's.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.withstand_sync.plan import make_sync_plan
from tests.withstand_sync.running import SHOWN_MAX, clean, disturbed, judge


def main(arguments: list[str] | None = None) -> int:
    """Two runs, one judgement."""
    parser = argparse.ArgumentParser(prog="python -m tests.withstand_sync", description=__doc__)
    parser.add_argument("--file", type=Path, default=None, help='in the layout of the UCI "Online Retail" set')
    parser.add_argument("--lines", type=int, default=0, help="lines of the file (default: all; 3000 when made up)")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="keep the data directories of a green run, too")
    asked = parser.parse_args(arguments)
    seed = random.randrange(2**32) if asked.seed is None else asked.seed
    lines = asked.lines or (0 if asked.file is not None else 3_000)
    again = f"--file {asked.file} " if asked.file is not None else ""
    say(f"python -m tests.withstand_sync {again}--lines {lines} --seed {seed}")
    plan = make_sync_plan(asked.file, lines, seed, time.time_ns() // 1_000_000)
    say(f"{len(plan.orders)} orders, {len(plan.events)} events")
    parent = Path(tempfile.mkdtemp(prefix="stockade-withstand-"))
    undisturbed = asyncio.run(clean(parent / "clean", plan, say))
    tell("clean", undisturbed.told.outcomes, undisturbed.seconds)
    run = asyncio.run(disturbed(parent / "disturbed", plan, seed, say))
    tell("disturbed", run.told.outcomes, run.seconds)
    say(f"{run.kills} kills, {run.told.reconnects} connections, {run.told.asked_again} asked again")
    problems = judge(plan, undisturbed, run)
    for problem in problems[:SHOWN_MAX]:
        say(problem)
    if problems:
        say(f"NOT GREEN: {len(problems)} problems; kept: {parent}")
        return 1
    if not asked.keep:
        shutil.rmtree(parent)
    say(f"green: {len(run.books)} stock keys are as told once and in order, and as the oracle says")
    return 0


def tell(name: str, outcomes: dict[str, int], seconds: float) -> None:
    """What became of the copies."""
    copies = sum(outcomes.values())
    told = ", ".join(f"{count} {outcome.lower()}" for outcome, count in sorted(outcomes.items()))
    say(f"{name}: {copies} copies in {seconds:.1f} s ({copies / max(seconds, 0.001):.0f}/s): {told}")


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
