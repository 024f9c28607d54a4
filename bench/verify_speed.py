"""``python -m bench.verify_speed``: how many events ``stockade verify`` judges a second, and the conditions of it.

Makes journals of a million events each (see ``bench.verify_journal``), or takes a data directory, and judges each in one
process and in as many as verify would take. Wall time is what a user waits; CPU time does not change when the machine has
other things to do.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from actors.runtime.offline import verify_journal
from bench.machine import describe
from bench.verify_journal import SHAPES
from gateway.cli.showing import console, table


def measure(data_dir: Path, name: str, jobs: int) -> dict[str, Any]:
    """One verifying."""
    report = verify_journal(data_dir, jobs=jobs)
    memory_kib = resource.getrusage(resource.RUSAGE_SELF if report.jobs == 1 else resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "journal": name,
        "events": report.events,
        "records": report.records,
        "processes": report.jobs,
        "wall_s": round(report.seconds, 2),
        "cpu_s": round(report.cpu_seconds, 2),
        "events_per_wall_second": round(report.events / report.seconds),
        "events_per_cpu_second": round(report.events / report.cpu_seconds),
        "memory_mib_peak": memory_kib // 1024,  # of this process so far, or of the largest that it started
        "snapshots_compared": report.snapshots_compared,
        "violations": report.violation_count,
    }


def main() -> int:
    """Measure, print; 1 when a journal is not correct."""
    parser = argparse.ArgumentParser(prog="python -m bench.verify_speed", description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="judge this journal instead of making some")
    parser.add_argument("--events", type=int, default=1_000_000, help="of each journal made")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="stockade-verify-speed-") as made:
        journals = {str(options.data_dir): options.data_dir} if options.data_dir else {}
        for shape in SHAPES if not journals else ():
            journals[shape] = Path(made) / shape
        for name, data_dir in journals.items():
            if options.data_dir is None:
                started = time.monotonic()
                command = [sys.executable, "-m", "bench.verify_journal", str(data_dir), name]
                subprocess.run(
                    [*command, str(options.events), str(options.seed)], check=True, stdout=subprocess.DEVNULL
                )
                print(f"{name}: made {options.events:,} events in {time.monotonic() - started:.0f} s", file=sys.stderr)
            results += [measure(data_dir, name, jobs) for jobs in (1, 0)]
        conditions = describe(Path(made))
    if options.json:
        print(json.dumps({"results": results, "conditions": conditions}))
    else:
        table("verify", list(results[0]), [list(map(str, one.values())) for one in results])
        console().print(conditions)
    return int(any(one["violations"] for one in results))


if __name__ == "__main__":
    sys.exit(main())
