"""``python -m bench``: hot and spread stock keys, single and batched, alternating with the no-op; idle latency; the proof."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.load import Outcome, drive, make_requests
from bench.machine import cpu_seconds, describe, memory_mib
from bench.noop import CHANNEL, WAREHOUSE
from gateway.cli.local_service import local_service, write_settings
from gateway.cli.showing import console, table
from gateway.cli.verify_command import run_verify
from stockade import Client
from stockade.client import facts

RESULTS = Path(__file__).parent / "results"
SPREAD_KEYS = 1_000
UNITS = 10**9
WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """``batch`` claims a call, ``in_flight`` calls at once, over ``keys`` stock keys; ``ceiling``: claims/s to encode for."""

    name: str
    batch: int
    in_flight: int
    keys: int
    ceiling: int


SCENARIOS = (
    Scenario("hot SKU, single", 1, 128, 1, 12_000),
    Scenario("spread, single", 1, 128, SPREAD_KEYS, 12_000),
    Scenario("hot SKU, batches of 100", 100, 16, 1, 200_000),
    Scenario("spread, batches of 100", 100, 16, SPREAD_KEYS, 200_000),
    Scenario("idle, one caller", 1, 1, 1, 3_000),
)


def skus(count: int) -> list[tuple[str, str]]:
    """Stock keys of a scenario."""
    return [(f"SKU-{number:05d}", WAREHOUSE) for number in range(count)]


@contextlib.contextmanager
def noop_gateways(count: int) -> Iterator[tuple[str, list[int]]]:
    """So many no-op gateways behind one port; the target and their pids."""
    processes: list[subprocess.Popen[str]] = []
    port = 0
    try:
        for _ in range(count):
            command = [sys.executable, "-m", "bench.noop", str(port)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            processes.append(process)
            assert process.stdout is not None
            port = next(int(line) for line in process.stdout if line.strip().isdigit())
        yield f"127.0.0.1:{port}", [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def stock_up(target: str) -> None:
    """More units than any run can sell."""
    now_ms = time.time_ns() // 1_000_000
    with Client(target, channel_id=CHANNEL) as client:
        keys = skus(SPREAD_KEYS)
        events = [
            facts.receipt(facts.Told("bench", f"opening-{at}", key, now_ms), UNITS) for at, key in enumerate(keys)
        ]
        results = client.ingest(events, timeout_s=60.0)
        assert all(result.outcome == "APPLIED" for result in results), "opening stock was not applied"


def run_once(
    target: str, scenario: Scenario, seconds: float, seed: int, pids: dict[str, list[int]]
) -> tuple[Outcome, dict[str, float]]:
    """One run and the CPU seconds a claim that each kind of process spent, in microseconds."""
    draw = random.Random(seed)
    calls = int(scenario.ceiling * seconds / scenario.batch)
    requests = make_requests(calls, scenario.batch, skus(scenario.keys), CHANNEL, draw)
    before = {name: sum(map(cpu_seconds, those)) for name, those in pids.items()}
    outcome = uvloop.run(drive(target, requests, scenario.batch, scenario.in_flight, seconds))
    after = {name: sum(map(cpu_seconds, those)) for name, those in pids.items()}
    claims = max(1, outcome.granted + outcome.refused)
    return outcome, {name: (after[name] - before[name]) / claims * 1e6 for name in pids}


def measure(
    service: str, noop: str, pids: dict[str, list[int]], noop_pids: list[int], arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], int]:
    """All scenarios, the service and the no-op in turn; rows, and how many claims were granted in all."""
    rows = []
    granted = 0
    me = [os.getpid()]
    for scenario in SCENARIOS:
        if arguments.only and arguments.only not in scenario.name:
            continue
        pairs = []
        for repetition in range(-1, arguments.repetitions):
            seconds = WARM_UP_S if repetition < 0 else arguments.seconds
            ours, cpu = run_once(service, scenario, seconds, repetition, {**pids, "generator": me})
            theirs, noop_cpu = run_once(noop, scenario, seconds, repetition, {"gateway": noop_pids})
            granted += ours.granted
            if repetition >= 0:
                pairs.append((ours, theirs, cpu, noop_cpu))
            if ours.failed:
                print(f"{scenario.name}: {ours.failed} failed: {ours.errors}", file=sys.stderr)
        ratios = [ours.claims_per_second / theirs.claims_per_second for ours, theirs, _, _ in pairs]
        rates = [ours.claims_per_second for ours, _, _, _ in pairs]
        middle = sorted(pairs, key=lambda pair: pair[0].claims_per_second)[len(pairs) // 2]
        rows.append(
            {
                "scenario": scenario.name,
                "in_flight": scenario.in_flight,
                "claims_per_second": round(statistics.median(rates)),
                "spread": [round(min(rates)), round(max(rates))],
                "noop_per_second": round(statistics.median(theirs.claims_per_second for _, theirs, _, _ in pairs)),
                "ratio": round(statistics.median(ratios), 3),
                "p50_ms": round(statistics.median(ours.percentile_ms(50) for ours, _, _, _ in pairs), 2),
                "p99_ms": round(statistics.median(ours.percentile_ms(99) for ours, _, _, _ in pairs), 2),
                "noop_p50_ms": round(statistics.median(theirs.percentile_ms(50) for _, theirs, _, _ in pairs), 2),
                "cpu_us_per_claim": {name: round(value, 1) for name, value in middle[2].items()},
                "noop_cpu_us_per_claim": round(middle[3]["gateway"], 1),
                "failed": sum(ours.failed for ours, _, _, _ in pairs),
            }
        )
    return rows, granted


def main() -> int:
    """Measure, print, verify, write; 1 when the journal and the answers disagree."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run (default 4)")
    parser.add_argument("--repetitions", type=int, default=3, help="counted runs of each scenario (default 3)")
    parser.add_argument("--gateways", type=int, default=1, help="gateway processes, on both sides (default 1)")
    parser.add_argument(
        "--cpus", default=None, help="processors for everything, generator included (default the first two; '' for all)"
    )
    parser.add_argument("--only", default="", help="only scenarios whose name contains this")
    parser.add_argument("--output", type=Path, default=None, help="JSON results (default bench/results/<time>.json)")
    arguments = parser.parse_args()
    if arguments.cpus is None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    elif arguments.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in arguments.cpus.split(",")})
    with tempfile.TemporaryDirectory(prefix="stockade-bench-", dir=os.environ.get("STOCKADE_BENCH_DIR")) as made:
        directory = Path(made)
        machine = describe(directory)
        settings = write_settings(directory, (CHANNEL,), (), (WAREHOUSE,), arguments.gateways)
        with noop_gateways(arguments.gateways) as (noop, noop_pids), local_service(settings, directory) as service:
            ready = json.loads((directory / "ready.json").read_text())
            pids = {"gateway": ready["gateway_pids"], "host": [ready["host_pid"]]}
            stock_up(service)
            rows, granted = measure(service, noop, pids, noop_pids, arguments)
            memory = {name: round(sum(map(memory_mib, those)), 1) for name, those in pids.items()}
        verified = run_verify(directory)
    agrees = verified.ok and verified.claims_granted == granted
    result = {
        "machine": machine,
        "conditions": {
            "seconds": arguments.seconds,
            "repetitions": arguments.repetitions,
            "gateways": arguments.gateways,
        },
        "rows": rows,
        "memory_mib": memory,
        "proof": {
            "claims_in_the_journal": verified.claims_granted,
            "granted_answers": granted,
            "oversells": verified.oversells,
            "violations": verified.violation_count,
        },
    }
    show(result)
    output = arguments.output or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {output}")
    if not agrees:
        print("FAILED: the journal and the answers disagree", file=sys.stderr)
        return 1
    return 0


def show(result: dict[str, Any]) -> None:
    """The tables for people."""
    machine = result["machine"]
    console().print(
        f"{machine['cpu']}, processors {machine['cores_allowed']} of {machine['cores']}, load {machine['load_average']}, "
        f"fsync p50 {machine['fsync_ms']['p50']} ms, Python {machine['python']}, {result['conditions']}"
    )
    columns = (
        "scenario",
        "claims/s",
        "min … max",
        "no-op/s",
        "ratio",
        "p50 ms",
        "p99 ms",
        "no-op p50",
        "CPU µs a claim: gateway, host, generator",
    )
    rows = []
    for row in result["rows"]:
        cpu = row["cpu_us_per_claim"]
        spent = f"{cpu['gateway']}, {cpu['host']}, {cpu['generator']} (no-op {row['noop_cpu_us_per_claim']})"
        spread = f"{row['spread'][0]:,} … {row['spread'][1]:,}"
        rows.append(
            (
                row["scenario"],
                row["claims_per_second"],
                spread,
                row["noop_per_second"],
                row["ratio"],
                row["p50_ms"],
                row["p99_ms"],
                row["noop_p50_ms"],
                spent,
            )
        )
    table("durable claims, closed loop", columns, rows)
    proof = result["proof"]
    console().print(
        f"{proof['claims_in_the_journal']:,} claims in the journal, {proof['granted_answers']:,} granted answers, "
        f"{proof['oversells']} oversells; memory {result['memory_mib']} MiB"
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
