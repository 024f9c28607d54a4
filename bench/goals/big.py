"""A service that grows from a thousand stock keys to a million, with a million holds: memory of each, CPU a claim, recovery.

One service lives through all of it, as one would: measured while small, filled, measured again, killed. Its journal is proved
against every answer at the end, like any scenario's.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.goals.table import Figures
from bench.machine import memory_mib
from bench.metering import scrape_node
from bench.noop import CHANNEL, WAREHOUSE
from bench.results import Run, ScenarioResult
from bench.running import Say, ScenarioRunner
from bench.scenario import Scenario, chosen
from gateway.cli.local_service import local_service, write_settings

BIG = 1_000_000
SMALL_KEYS = 1_000
SMALL_SECONDS = 0.5  # a short run: the small state must not grow much by being measured
BIG_SECONDS = 2.0
FILL_SECONDS = 5.0
FILLED_WITHIN = 60  # runs of so long
RECOVERY_SECONDS = 30.0
RECOVERY_RATE = 200.0
SERVICE_ROLES = ("gateway", "host", "node", "serve", "directory", "ray")


def measure_big(*, keys: int, seed: int, say: Say) -> tuple[Figures, ScenarioResult]:
    """Grow, measure, kill, prove. ``keys``: as many stock keys and holds."""
    small = chosen(["spread-batch"])[0].adapted(keys=SMALL_KEYS)
    with tempfile.TemporaryDirectory(prefix="stockade-bench-", dir=os.environ.get("STOCKADE_BENCH_DIR")) as made:
        directory = Path(made)
        settings = write_settings(directory, (CHANNEL,), (), (WAREHOUSE,), 1)
        with contextlib.ExitStack() as held:
            target = held.enter_context(local_service(settings, directory))
            life = Life(ScenarioRunner(small, directory, target, say, seed), directory, seed, say)
            life.live(small, small.adapted(keys=keys), keys)
            runs, values = life.runs, life.values
        proof = life.runner.prove()
    for finding in proof.findings:
        say(f"big: FAILED: {finding}")
    result = ScenarioResult(
        name="big",
        title=f"from {SMALL_KEYS:,} stock keys to {keys:,} and as many holds",
        unit="claims",
        settings={"keys": keys, "load": {}, "gateways": 1},
        notes=life.notes,
        runs=runs,
        proof=proof,
    )
    return Figures(name="big", values=values, notes=life.notes), result


class Life:
    """The service's life, and what was seen of it."""

    def __init__(self, runner: ScenarioRunner, directory: Path, seed: int, say: Say) -> None:
        self.runner = runner
        self.runs: list[Run] = []
        self.values: dict[str, list[float]] = {}
        self.notes: list[str] = []
        self._directory = directory
        self._seed = seed
        self._say = say

    def live(self, small: Scenario, big: Scenario, holds: int) -> None:
        """From small to big to dead and back."""
        runner = self.runner
        runner.stock_up()
        self._run(small, "warm-up", SMALL_SECONDS)
        self._cpu("cpu_small", small, "small", SMALL_SECONDS)
        held_before = self._live_holds()
        self.note(f"while small: {small.keys:,} stock keys, at the end {held_before:,.0f} holds")
        before = self._host_mib()
        runner.scenario = big
        started = time.monotonic()
        runner.stock_up(skip=small.keys)
        self.note(f"{big.keys - small.keys:,} stock keys received their stock in {time.monotonic() - started:.0f} s")
        stocked = self._host_mib()
        self.values["bytes_per_stock_actor"] = [(stocked - before) * 2**20 / (big.keys - small.keys)]
        while self._live_holds() - held_before < holds and len(self.runs) < FILLED_WITHIN:
            self._run(big, "filling", FILL_SECONDS)
        grown = self._live_holds() - held_before
        self.values["bytes_per_hold"] = [(self._host_mib() - stocked) * 2**20 / grown]
        self._cpu("cpu_big", big, "big", BIG_SECONDS)
        self.note(f"while big: {big.keys:,} stock keys, {self._live_holds():,.0f} holds")
        self._recover(big)

    def note(self, text: str) -> None:
        """Tell, and keep."""
        self.notes.append(text)
        self._say(f"big: {text}")

    def _run(self, scenario: Scenario, label: str, seconds: float, seed: int = 0) -> Run:
        run = self.runner.run(scenario, label, seconds, self._seed + seed + len(self.runs))
        self.runs.append(run)
        self._say(f"big: {label}: {run.per_second:,.0f} claims/s, host {self._host_mib():,.0f} MiB")
        return run

    def _cpu(self, name: str, scenario: Scenario, label: str, seconds: float) -> None:
        """CPU a claim of the whole service, three times."""
        runs = [self._run(scenario, label, seconds) for _ in range(3)]
        self.values[name] = [sum(run.cpu_us_per_unit.get(role, 0.0) for role in SERVICE_ROLES) for run in runs]
        self.values[name + "_host"] = [run.cpu_us_per_unit.get("host", 0.0) for run in runs]

    def _recover(self, big: Scenario) -> None:
        """Kill the host under a small open load; how long until it answers again, and what it says of it itself."""
        load: dict[str, Any] = {"mode": "open", "rate_per_second": RECOVERY_RATE, "kill_host_at_share": 0.1}
        scenario = Scenario.model_validate(
            {**big.model_dump(), "batch": 1, "noop": False, "load": {**big.load.model_dump(), **load}}
        )
        run = self.runner.run(scenario, "killed", RECOVERY_SECONDS, self._seed)
        self.runs.append(run)
        said = scrape_node(self._directory)
        self.values["recovery_s"] = [said.get("recovery_seconds", 0.0)]
        if run.first_acknowledged_s is not None:
            self.values["first_acknowledged_s"] = [run.first_acknowledged_s]
        self.note(
            f"the host recovered in {said.get('recovery_seconds', 0.0):.1f} s ({said.get('recovered_events', 0):,.0f} events after "
            f"its snapshots); a reserve was acknowledged {run.first_acknowledged_s} s after the kill"
        )

    def _live_holds(self) -> float:
        return scrape_node(self._directory).get("live_reservations", 0.0)

    def _host_mib(self) -> float:
        ready = json.loads((self._directory / "ready.json").read_text())
        return memory_mib(ready["host_pid"])
