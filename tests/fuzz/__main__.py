"""Long runs: ``python -m tests.fuzz [TARGET…] --seconds N --seed K``; one input again: ``python -m tests.fuzz TARGET --replay FILE``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz import running
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Exit code 1 when something broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; none: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=Path, help="run this one input and show what happens")
    parser.add_argument(
        "--found", type=Path, default=running.FOUND, help="where inputs that broke something are written"
    )
    given = parser.parse_args()
    unknown = [name for name in given.targets if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    chosen = [TARGETS[name] for name in given.targets or TARGETS]
    if given.replay is not None:
        if len(given.targets) != 1:
            parser.error("--replay needs the one target that the file is for")
        with running.quiet():
            failure = running.attempt(chosen[0], given.replay.read_bytes())
        print(failure.told if failure is not None else "nothing broke")
        return int(failure is not None)
    broken = 0
    for target in chosen:
        outcome = running.run(target, given.seed, seconds=given.seconds)
        rate = outcome.executions / max(outcome.seconds, 1e-9)
        verdict = "broken" if outcome.failure else "clean"
        print(
            f"{target.name:<18} {outcome.executions:>9,} inputs  {outcome.seconds:>7.1f} s  {rate:>9,.0f}/s  {verdict}",
            flush=True,
        )
        if outcome.failure is not None:
            broken += 1
            path = running.keep(outcome.failure, given.found)
            print(outcome.failure.told)
            print(f"replay with: python -m tests.fuzz {target.name} --replay {path}   (seed {given.seed})", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
