"""The long run: ``python -m tests.power_loss --crash-points 20000 --seed 1``; exit code 1 when anything was lost.

A failing point is told by the one line that plays it again; ``--synchronous`` and ``--lies-about`` break the promise on purpose, to
see that the sweep says so.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.power_loss.damage import damage_sweep
from tests.power_loss.sweep import CrashPoint, Figures, Options, replay, sweep, with_synchronous

SAY_EVERY_S = 5.0


def main() -> int:
    """Run what the command line asks for."""
    given = _arguments()
    options = Options(points_per_boot=given.points_per_boot, lies_about=tuple(given.lies_about))
    if given.synchronous != "full":
        options.sabotage = with_synchronous(given.synchronous)
    broken = [f"--synchronous {given.synchronous}"] * (given.synchronous != "full")
    broken += [f"--lies-about={one}" for one in given.lies_about]
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    with tempfile.TemporaryDirectory(prefix="power-loss-") as scratch:
        work = given.keep or Path(scratch)
        if given.damages:
            return _damage(seed, given.damages, work)
        if given.boot is not None:
            figures = replay(CrashPoint(seed, given.boot, given.moment), work, options)
        else:
            print(f"{given.crash_points:,} crash points, histories from seed {seed} on", flush=True)
            figures = sweep(seed, given.crash_points, work, options, _Progress())
    _tell(figures)
    for failure in figures.failures:
        print(f"\nFAILED: {failure.what}")
        line = [f"python -m tests.power_loss {failure.point}", f"--points-per-boot {given.points_per_boot}", *broken]
        print(f"play it again: {' '.join(line)} --keep DIRECTORY")
    return 1 if figures.failures else 0


def _damage(seed: int, damages: int, work: Path) -> int:
    logging.disable(logging.WARNING)  # recovery tells of each snapshot it passes over
    figures = damage_sweep(seed, damages, work)
    print(f"{figures.damages:,} journals damaged in one place each, seeds from {seed} on")
    for outcome, count in figures.outcomes.most_common():
        print(f"  {count:7,}  {outcome}")
    for failure in figures.failures:
        print(f"FAILED: {failure}")
    return 1 if figures.failures else 0


class _Progress:
    def __init__(self) -> None:
        self._due = time.monotonic() + SAY_EVERY_S

    def __call__(self, figures: Figures) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + SAY_EVERY_S
            print(
                f"  {figures.crash_points:,} crash points, {figures.did['appends']:,} appends: nothing lost", flush=True
            )


def _tell(figures: Figures) -> None:
    cpu_s = max(time.process_time(), 0.001)
    print(
        f"{figures.crash_points:,} crash points in {figures.boots:,} boots of {figures.histories:,} histories; "
        f"{figures.operations:,} operations of the disk\n"
        f"what the owners did: {dict(figures.did.most_common())}\n"
        f"at {figures.under_way:,} of the points something that was not answered yet was found done, and whole\n"
        f"faults that struck: {dict(figures.faults.most_common())}\n"
        f"how lives ended: {dict(figures.ends.most_common())}\n"
        f"{cpu_s:.1f} s of CPU, {figures.crash_points / cpu_s:.0f} crash points a second of it; {len(figures.failures)} failed"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.power_loss", description=__doc__)
    parser.add_argument("--crash-points", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=None, help="of the first history; the next has the next number")
    parser.add_argument("--points-per-boot", type=int, default=100, help="crash points in each boot of a history")
    parser.add_argument("--boot", type=int, default=None, help="play one crash point again: which boot of the seed's")
    parser.add_argument("--moment", type=int, default=-1, help="… and after how many operations; -1: only live it")
    parser.add_argument("--damages", type=int, default=0, help="instead: damage sound journals, one place each")
    parser.add_argument("--keep", type=Path, default=None, help="work here; a failing point's files stay in cut/")
    parser.add_argument("--synchronous", choices=("off", "normal", "full"), default="full")
    parser.add_argument(
        "--lies-about", action="append", default=[], metavar="END", help="syncs of such files do nothing"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
