"""``python -m tests.simulation``: any number of seeds on any number of cores, or one seed with its trace.

--seeds N [--from K] [--jobs J]     runs seeds K … K+N-1; exit code 1 when one fails, with the line that replays it
          [--until-failure]         … and ends there
--seed K [--trace]                  runs one seed twice: what it found, its digest, and what happened
"""

from __future__ import annotations

import argparse
import os
import sys
from pprint import pprint

from tests.simulation.many import many
from tests.simulation.plan import plan_of
from tests.simulation.simulation import simulate


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--until-failure", action="store_true", help="end at the first that fails")
    parser.add_argument("--seed", type=int, default=None, help="one seed alone, twice")
    parser.add_argument("--trace", action="store_true", help="with everything that happened")
    options = parser.parse_args()
    if options.seed is not None:
        return replay(options.seed, trace=options.trace)
    return many(range(options.first, options.first + options.seeds), options.jobs, until_failure=options.until_failure)


def replay(seed: int, *, trace: bool) -> int:
    """One seed, twice: the second history must be the first, byte for byte."""
    outcome, again = simulate(seed), simulate(seed)
    if trace and outcome.recording is not None:
        pprint(plan_of(seed), width=140)
        print("\n".join(outcome.recording.text()))
    print(
        f"seed {seed}: digest {outcome.digest}, {outcome.turns} turns, {outcome.attempts} attempts, "
        f"{outcome.virtual_s:.1f} s of virtual time, {outcome.cpu_s:.2f} s of CPU"
    )
    if again.digest != outcome.digest:
        outcome.problems.append(f"the second run is another history: digest {again.digest}")
    for problem in outcome.problems:
        print(f"  {problem}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
