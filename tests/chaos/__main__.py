"""``python -m tests.chaos --minutes 60 --seed 7``: the long form; ``--ten``: the short one of CI. Exit code 1 when not green."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos import table
from tests.chaos.run import ChaosRun, Load, Result, history_path, rejudge
from tests.chaos.schedule import endless_faults, ten_faults


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="no fault begins later (default: 10)")
    parser.add_argument(
        "--ten", action="store_true", help="ten faults with short pauses, as in CI, instead of --minutes"
    )
    parser.add_argument("--seed", type=int, default=None, help="which faults in which order, and what callers wish")
    parser.add_argument("--shoppers", type=int, default=Load.shoppers, help="callers beside the pulses")
    parser.add_argument("--pause-ms", type=float, default=Load.pause_s * 1000, help="a caller's thought, on average")
    parser.add_argument("--data-dir", type=Path, default=None, help="made anew; default: a temporary one")
    parser.add_argument("--json", type=Path, default=None, help="the table as JSON; default: beside the data directory")
    parser.add_argument("--keep", action="store_true", help="keep the data directory of a green run, too")
    parser.add_argument("--judge", action="store_true", help="only judge again what a run left at --data-dir")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    again = f"python -m tests.chaos {'--ten' if options.ten else f'--minutes {options.minutes:g}'} --seed {seed}"
    parent = Path(tempfile.mkdtemp(prefix="stockade-chaos-")) if options.data_dir is None else options.data_dir.parent
    data_dir = options.data_dir or parent / "data"
    if options.judge:
        judged = Result(seed)
        rejudge(data_dir, judged, say)
        tell(judged)
        return 1 if judged.problems else 0
    if data_dir.exists():
        print(f"{data_dir} exists; the run wants a data directory of its own", file=sys.stderr)
        return 2
    parent.mkdir(parents=True, exist_ok=True)
    say(f"{again}   data directory {data_dir}")
    run = ChaosRun(data_dir, seed, Load(options.shoppers, options.pause_ms / 1000), say)
    faults = ten_faults(seed) if options.ten else endless_faults(seed)
    result = asyncio.run(run.run(faults, 0.0 if options.ten else options.minutes * 60))
    json_path = options.json or data_dir.with_name(f"{data_dir.name}.json")
    json_path.write_text(json.dumps({"command": again, **result.plain()}, indent=2) + "\n", encoding="utf-8")
    tell(result)
    say(f"written to {json_path}")
    if result.problems:
        say(f"NOT GREEN; the same faults again: {again}   (kept: {data_dir})")
        return 1
    if not options.keep:
        shutil.rmtree(data_dir, ignore_errors=True)
        for beside in (data_dir.with_name(f"{data_dir.name}.out"), history_path(data_dir)):
            beside.unlink(missing_ok=True)
    say("green")
    return 0


def tell(result: Result) -> None:
    """The tables, the totals and what is wrong."""
    say("")
    for line in table.kinds_table(result.measured):
        say(line)
    say("")
    for name, value in result.figures.items():
        say(f"{name:<24} {value}")
    say(f"{'faults':<24} {len(result.measured)}")
    for problem in result.problems:
        say(f"PROBLEM {problem}")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
