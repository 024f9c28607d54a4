"""``python -m bench reconcile``: a nightly count of very many lines while reservations go on: what it costs them, and that
nothing oversells.

Reservations come in an open loop, alone first and then beside ``stockade reconcile`` in a process of its own. Afterwards the
journal is judged. Part of the lines differ, within the tolerance and beyond it, so that counts are booked and selling is
suspended under the load; a second list under the same request id shows that nothing is done twice.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.arrivals import due_times
from bench.load import Generator, Told, connected, connections_for
from bench.metering import Meter
from bench.noop import CHANNEL, WAREHOUSE
from bench.outcome import Outcome
from bench.results import percentiles_ms
from bench.scenario import Load, Scenario
from bench.traffic import SOURCE, reserves, skus
from gateway.cli.local_service import local_service, write_settings
from gateway.cli.verify_command import run_verify
from stockade import Client
from stockade.client import facts

EVENTS_PER_CALL = 1_000
UNITS = 30
TOLERANCE = 2
WITHIN_PERMILLE, BEYOND_PER_MILLION = 5, 200  # of the lines: differ by one unit, and by all but one
IN_FLIGHT = 256
LONGEST_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """``seconds``: of the reservations alone, before and after."""

    lines: int
    rate: float
    seconds: float
    gateways: int
    seed: int


@dataclass(slots=True)
class Phase:
    """Reservations of one phase."""

    name: str
    outcome: Outcome
    cpu: dict[str, float]  # seconds by role

    def figures(self) -> dict[str, float]:
        """Milliseconds."""
        return percentiles_ms(self.outcome.latency_us)

    def line(self) -> str:
        """For people."""
        outcome, latency = self.outcome, self.figures()
        return (
            f"{self.name}: {outcome.calls / outcome.seconds:,.0f} reservations/s for {outcome.seconds:.0f} s, "
            f"p50 {latency.get('p50')} ms, p99 {latency.get('p99')} ms, max {latency.get('max')} ms; {outcome.granted:,} granted, "
            f"{outcome.refused:,} refused, {outcome.failed:,} failed {outcome.errors or ''}; CPU "
            + ", ".join(f"{role} {spent / outcome.seconds:.2f}" for role, spent in sorted(self.cpu.items()))
        )


def write_list(path: Path, wanted: Wanted) -> dict[str, int]:
    """A count of every stock key; how many lines differ and how."""
    draw = random.Random(wanted.seed)
    made = {"within": 0, "beyond": 0}
    with path.open("w", encoding="utf-8") as file:
        file.write("sku,quantity\n")
        for sku, _ in skus(wanted.lines):
            chance = draw.random()
            quantity = UNITS
            if chance < BEYOND_PER_MILLION / 1_000_000:
                made["beyond"] += 1
                quantity = 1
            elif chance < WITHIN_PERMILLE / 1_000:
                made["within"] += 1
                quantity = UNITS - 1
            file.write(f"{sku},{quantity}\n")
    return made


def stock_up(target: str, lines: int) -> None:
    """Units for every stock key."""
    now_ms = time.time_ns() // 1_000_000
    with Client(target, channel_id=CHANNEL) as client:
        keys = skus(lines)
        for start in range(0, len(keys), EVENTS_PER_CALL):
            some = keys[start : start + EVENTS_PER_CALL]
            events = [
                facts.receipt(facts.Told(SOURCE, f"s{start + at}", key, now_ms), UNITS) for at, key in enumerate(some)
            ]
            results = client.ingest(events, timeout_s=120.0)
            assert all(result.outcome == "APPLIED" for result in results), "stock was not applied"


class Reservations:
    """An open loop against one target."""

    def __init__(self, target: str, data_dir: Path, wanted: Wanted) -> None:
        self._target = target
        self._data_dir = data_dir
        self._wanted = wanted
        scenario = Scenario(title="reserve", about="beside a list", work="reserve", keys=wanted.lines, load=Load())
        self._shots = reserves(scenario, random.Random(wanted.seed))
        self.told = Told()

    def run(self, name: str, goes_on: Callable[[], bool], seconds: float) -> Phase:
        """As long as it should go on, at most so many seconds."""
        due = due_times(self._wanted.rate, seconds, "poisson", random.Random(self._wanted.seed))
        meter = Meter(self._data_dir)
        outcome = uvloop.run(self._drive(itertools.takewhile(lambda _: goes_on(), due)))
        meter.sample()
        return Phase(name, outcome, meter.cpu())

    async def _drive(self, due: Iterator[float]) -> Outcome:
        async with connected(self._target, connections_for(IN_FLIGHT)) as channels:
            outcome = await Generator(channels).open(self._shots, due)
            await self.told.add(channels, outcome)
            return outcome


def reconcile_command(path: Path, target: str) -> list[str]:
    """The nightly job."""
    words = [
        str(path),
        "--warehouse",
        WAREHOUSE,
        "--tolerance",
        str(TOLERANCE),
        "--request-id",
        "bench-night",
        "--json",
    ]
    return [sys.executable, "-m", "gateway.cli", "reconcile", *words, "--target", target]


def measure(wanted: Wanted, say: Callable[[str], None]) -> int:
    """All of it; 0 when nothing oversold and the journal is in order."""
    with tempfile.TemporaryDirectory(prefix="stockade-bench-", dir=os.environ.get("STOCKADE_BENCH_DIR")) as made:
        directory = Path(made)
        settings = write_settings(directory, (CHANNEL,), (), (WAREHOUSE,), wanted.gateways)
        path = directory / "count.csv"
        differ = write_list(path, wanted)
        say(f"{wanted.lines:,} lines, {differ['within']:,} differ by 1, {differ['beyond']:,} by {UNITS - 1}")
        with local_service(settings, directory) as target:
            began = time.monotonic()
            stock_up(target, wanted.lines)
            say(f"stocked in {time.monotonic() - began:.0f} s")
            load = Reservations(target, directory, wanted)
            load.run("warm-up", lambda: True, 3.0)
            alone = load.run("alone", lambda: True, wanted.seconds)
            say(alone.line())
            beside, done, took = run_beside(load, path, target)
            say(beside.line())
            counts = done["reconciliation"]["counts"]
            say(
                f"reconciled {counts['lines']:,} lines in {took:.1f} s, {counts['lines'] / took:,.0f} a second: {counts}"
            )
            again = subprocess.run(reconcile_command(path, target), capture_output=True, check=False, text=True)
            say(f"the same request again: {json.loads(again.stdout)['reconciliation'] == done['reconciliation']}")
            after = load.run("after", lambda: True, wanted.seconds)
            say(after.line())
        report = run_verify(directory, progress=False)
    say_ratio(alone, beside, say)
    say(
        f"verify: {report.oversells} oversells, {report.violation_count} violations; {load.told.claims:,} claims answered, "
        f"{report.claims_granted:,} in the journal"
    )
    as_listed = counts["booked"] == differ["within"] and counts["quarantined"] == differ["beyond"]
    say(f"booked and quarantined as listed: {as_listed}")
    good = not report.oversells and not report.violation_count and load.told.claims == report.claims_granted
    return 0 if good and as_listed else 1


def run_beside(load: Reservations, path: Path, target: str) -> tuple[Phase, Any, float]:
    """Reservations until the list was answered."""
    began = time.monotonic()
    said = path.with_suffix(".json")  # not a pipe: nobody reads it meanwhile
    with said.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(reconcile_command(path, target), stdout=file)
    phase = load.run("beside the list", lambda: process.poll() is None, LONGEST_S)
    process.wait(60.0)
    return phase, json.loads(said.read_text(encoding="utf-8")), time.monotonic() - began


def say_ratio(alone: Phase, beside: Phase, say: Callable[[str], None]) -> None:
    """The bound of the issue."""
    before, under = alone.figures().get("p99", 0.0), beside.figures().get("p99", 0.0)
    ratio = under / before if before else 0.0
    say(f"p99 {before} ms alone, {under} ms beside the list: {ratio:.2f} × (must be below 2)")
