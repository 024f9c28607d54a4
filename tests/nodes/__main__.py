"""``python -m tests.nodes``: three nodes and PostgreSQL on this machine, every fault of a cluster under load, the judges,
and the table. ``--short``: as in CI; ``--fault NAME`` (again and again): only these. Exit code 1 when not green."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.nodes import table
from tests.nodes.faults import FAULTS, LONG, Lengths
from tests.nodes.run import Load, NodesRun

SHORT = (
    "kill a host process",
    "cut a node from PostgreSQL",
    "pause a host",
    "kill the directory",
    "restart PostgreSQL",
)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.nodes", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the faults of CI, with short cuts and pauses")
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), help="only this one; may be given again")
    parser.add_argument("--rounds", type=int, default=1, help="how often all of them (default: 1)")
    parser.add_argument("--seed", type=int, default=None, help="what callers wish")
    parser.add_argument("--shoppers", type=int, default=Load.shoppers, help="callers beside the pulses")
    parser.add_argument("--place", type=Path, default=None, help="made anew; default: a temporary one")
    parser.add_argument("--json", type=Path, default=None, help="the table as JSON; default: in the place")
    parser.add_argument("--keep", action="store_true", help="keep everything of a green run, too")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    place = options.place or Path(tempfile.mkdtemp(prefix="stockade-nodes-")) / "run"
    place.parent.chmod(0o755)  # PostgreSQL runs as another user
    if place.exists():
        print(f"{place} exists; the run wants a place of its own", file=sys.stderr)
        return 2
    names = options.fault or (SHORT if options.short else tuple(FAULTS))
    say(f"seed {seed}, in {place}")
    run = NodesRun(place, seed, Load(options.shoppers), Lengths() if options.short else LONG, say)
    result = asyncio.run(run.run([FAULTS[name] for _ in range(options.rounds) for name in names]))
    json_path = options.json or place / "result.json"
    json_path.write_text(json.dumps(result.plain(), indent=2, default=str) + "\n", encoding="utf-8")
    say("")
    say(table.HEADING)
    for measured in result.measured:
        say(table.row(measured))
    say(f"outcome over all of them: {table.outcome(result.figures)}")
    for name, value in result.figures.items():
        say(f"{name:<24} {value}")
    for problem in result.problems:
        say(f"PROBLEM {problem}")
    if result.problems:
        say(f"NOT GREEN (kept: {place})")
        return 1
    if not options.keep and options.place is None:
        shutil.rmtree(place.parent, ignore_errors=True)
    say("green")
    return 0


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
