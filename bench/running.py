"""Runs one scenario on a service of its own: stock, warm-up, repetitions beside its rivals, and the proof at the end.

Every scenario has a fresh data directory, so its journal holds what it did and nothing else. The proof compares that
journal, judged by ``verify``, with what the callers were told.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvloop

from bench.arrivals import due_times, lag_findings
from bench.load import Generator, Told, beside, connected, connections_for
from bench.metering import Meter, journal_facts, scrape_node
from bench.noop import CHANNEL, WAREHOUSE
from bench.noop_process import noop_gateways
from bench.outcome import Outcome
from bench.peers.catalog import Peer
from bench.peers.company import Company
from bench.results import Proof, Run, ScenarioResult, run_of
from bench.rivals import GatewayRival, Rival
from bench.scenario import Scenario
from bench.streaming import StreamLoop
from bench.traffic import SOURCE, Shot, shots_ahead, shots_for, skus
from gateway.cli.local_service import local_service, write_settings
from gateway.cli.verify_command import run_verify
from stockade import Client
from stockade.client import facts

EVENTS_PER_CALL = 500
SAMPLE_INTERVAL_S = 1.0
SEARCH_GAIN_MIN = 1.03  # doubling the calls in flight must bring as much, or the maximum was there
DAY_MS = 24 * 3600 * 1000

Say = Callable[[str], None]


class ScenarioRunner:
    """One scenario and everything it told the service."""

    def __init__(self, scenario: Scenario, data_dir: Path, target: str, say: Say, seed: int) -> None:
        self.scenario = scenario
        self._data_dir = data_dir
        self._target = target
        self._say = say
        self._seed = seed
        self._events = itertools.count(1)
        self.told = Told()
        self.units_stocked = 0
        self.sold_out = False
        self.notes: list[str] = []

    def stock_up(self, skip: int = 0) -> None:
        """Units for every stock key but the first ``skip``, as receipts."""
        scenario, now_ms = self.scenario, time.time_ns() // 1_000_000
        with Client(self._target, channel_id=CHANNEL) as client:
            keys = skus(scenario.keys)[skip:]
            for start in range(0, len(keys), EVENTS_PER_CALL):
                events = [
                    facts.receipt(
                        facts.Told(SOURCE, f"stock-{next(self._events)}", key, now_ms), scenario.units_per_key
                    )
                    for key in keys[start : start + EVENTS_PER_CALL]
                ]
                results = client.ingest(events, timeout_s=120.0)
                assert all(result.outcome == "APPLIED" for result in results), "stock was not applied"
        self.told.facts += len(keys)
        self.units_stocked += len(keys) * scenario.units_per_key

    def run(self, scenario: Scenario, label: str, seconds: float, seed: int) -> Run:
        """One counted run of that scenario against the service, whatever it was of before."""
        self.scenario = scenario
        return self._one_run(label, scenario.load.in_flight, scenario.load.rate_per_second, seconds, seed, counted=True)

    def measure(self, rivals: Sequence[Rival]) -> tuple[list[Run], dict[str, list[Run]]]:
        """Warm-up, then the repetitions of service and rivals in turn; the rivals' by name."""
        load, runs = self.scenario.load, list[Run]()
        others: dict[str, list[Run]] = {rival.name: [] for rival in rivals}
        self.stock_up()
        in_flight, rate = load.in_flight, load.rate_per_second
        if load.warm_up_seconds:
            self._one_run("warm-up", load.in_flight, None, load.warm_up_seconds, self._seed)
            for rival in rivals:
                rival.warm_up(load.warm_up_seconds, self._seed)
        if load.share_of_peak is not None:
            peak = self._one_run("peak", load.in_flight, None, load.seconds, self._seed)
            peak_calls = peak.calls / peak.seconds
            rate = max(1.0, load.share_of_peak * peak_calls)
            self.notes.append(f"peak {peak_calls:,.0f} calls/s in a closed loop; offered {rate:,.0f} calls/s")
        if load.mode == "search":
            in_flight = self._search()
        for repetition in range(load.repetitions):
            for phase, factor in enumerate(load.factors, 1):
                if self.scenario.restock:
                    self.stock_up()
                label = f"phase {phase}: {factor:g} ×" if len(load.factors) > 1 else ""
                seed = self._seed + repetition
                flying = max(1, round(in_flight * factor))
                runs.append(self._one_run(label, flying, rate, load.seconds, seed, counted=True))
                self._report(runs[-1], repetition)
            for rival in rivals:
                others[rival.name].append(rival.run(load.seconds, self._seed + repetition))
                self._say(
                    f"{self.scenario.name} {repetition + 1} {rival.name}: {self._figures(others[rival.name][-1])}"
                )
        return runs, others

    def _figures(self, run: Run) -> str:
        latency = run.latency_ms
        said = f"{run.per_second:,.0f} {self.scenario.unit}/s, p50 {latency.get('p50', 0)} ms, p99 {latency.get('p99', 0)} ms"
        return said + (f", {run.failed:,} failed: {run.errors}" if run.failed else "")

    def _report(self, run: Run, repetition: int) -> None:
        said = self._figures(run)
        if run.first_acknowledged_s is not None:
            said += f", first acknowledged {run.first_acknowledged_s} s after the kill"
        for why in run.invalid:
            said += f"; INVALID: {why}"
        self._say(f"{self.scenario.name} {repetition + 1}{' ' + run.label if run.label else ''}: {said}")

    def _search(self) -> int:
        load = self.scenario.load
        best, best_rate, in_flight = load.in_flight, 0.0, load.in_flight
        while in_flight <= load.in_flight_max:
            run = self._one_run("search", in_flight, None, load.seconds, self._seed)
            self.notes.append(
                f"{in_flight} in flight: {run.per_second:,.0f} {self.scenario.unit}/s, p99 {run.latency_ms.get('p99')} ms"
            )
            self._say(f"{self.scenario.name}: {self.notes[-1]}")
            if run.per_second <= best_rate * SEARCH_GAIN_MIN:
                break
            best, best_rate, in_flight = in_flight, run.per_second, in_flight * 2
        self.notes.append(f"maximum at {best} in flight")
        return best

    def _one_run(
        self, label: str, in_flight: int, rate: float | None, seconds: float, seed: int, *, counted: bool = False
    ) -> Run:
        """One run against the service; what it was told is added up, whether the run counts or not."""
        load = self.scenario.load
        draw = random.Random(seed)
        shots, live = shots_for(self.scenario, draw)
        if live is None:
            shots = shots_ahead(self.scenario, draw, seconds, in_flight)
        due = due_times(rate, seconds, load.arrivals, draw) if rate is not None else None
        before = scrape_node(self._data_dir)
        meter = Meter(self._data_dir)
        kill_at_s = seconds * load.kill_host_at_share if counted and load.kill_host_at_share else None
        sold_out = counted and load.until_sold_out
        outcome = uvloop.run(
            self._drive(self._target, shots, live, in_flight, due, seconds, meter, kill_at_s, sold_out=sold_out)
        )
        after = scrape_node(self._data_dir)
        self.sold_out = outcome.first_refusal_s is not None
        counted_by = journal_facts(before, after)
        run = run_of(outcome, label, meter.cpu(), meter.memory_mib_max, counted_by, until_sold_out=sold_out)
        run.memory_series = meter.memory_series
        if due is not None:
            run.invalid = lag_findings(
                lag_ms_p99=run.lag_ms.get("p99", 0.0),
                lag_ms_p99_max=load.lag_ms_p99_max,
                planned=outcome.planned,
                sent=outcome.sent,
            )
        if kill_at_s is not None and outcome.acknowledged_s is None:
            run.invalid.append("nothing was acknowledged after the kill")
        if not outcome.granted and not outcome.refused:
            run.invalid.append("nothing was answered")
        return run

    async def _drive(
        self,
        target: str,
        shots: Iterator[Shot],
        live: Any,
        in_flight: int,
        due: Iterable[float] | None,
        seconds: float,
        meter: Meter,
        kill_at_s: float | None,
        *,
        sold_out: bool,
    ) -> Outcome:
        async with connected(target, connections_for(in_flight)) as channels:
            generator = Generator(channels, live)
            run: Coroutine[Any, Any, Outcome]
            if self.scenario.streamed:
                run = StreamLoop(channels, generator.outcome).run(shots, streams=in_flight, seconds=seconds)
            elif due is not None:
                run = generator.open(shots, due)
            else:
                run = generator.closed(shots, in_flight=in_flight, seconds=seconds, sold_out=sold_out)

            async def sample() -> None:
                while True:
                    await asyncio.sleep(SAMPLE_INTERVAL_S)
                    meter.sample()

            async def strike() -> None:
                if kill_at_s is not None:
                    await asyncio.sleep(kill_at_s)
                    ready = json.loads((self._data_dir / "ready.json").read_text())
                    generator.outcome.struck_s = generator.now_s()
                    os.kill(ready["host_pid"], signal.SIGKILL)

            outcome = await beside(run, sample, strike)
            meter.sample()
            await self.told.add(channels, outcome)
            return outcome

    def prove(self) -> Proof:
        """Judge the journal of the stopped service against the answers."""
        report = run_verify(self._data_dir, progress=False)
        proof = Proof(
            claims_in_the_journal=report.claims_granted,
            claims_answered=self.told.claims,
            facts_in_the_journal=report.facts,
            facts_answered=self.told.facts,
            asked_again=self.told.asked_again,
            left_unknown=self.told.left_unknown,
            oversells=report.oversells,
            violations=report.violation_count,
            units_stocked=self.units_stocked,
            sold_out=self.sold_out and self.scenario.load.until_sold_out,
        )
        proof.findings = proof_findings(proof, units_granted=report.units_granted)
        return proof


def proof_findings(proof: Proof, *, units_granted: int) -> list[str]:
    """What is wrong between the journal and the answers; empty when nothing is."""
    found = []
    if proof.claims_in_the_journal != proof.claims_answered:
        found.append(
            f"{proof.claims_answered:,} claims were answered, {proof.claims_in_the_journal:,} are in the journal"
        )
    if proof.facts_in_the_journal != proof.facts_answered:
        found.append(f"{proof.facts_answered:,} facts were answered, {proof.facts_in_the_journal:,} are in the journal")
    if proof.oversells or proof.violations:
        found.append(f"verify found {proof.oversells:,} oversells, {proof.violations:,} violations")
    if proof.left_unknown:
        found.append(f"{proof.left_unknown:,} calls got no yes or no, however often they were asked again")
    if proof.sold_out and units_granted != proof.units_stocked:
        found.append(f"sold out, but {units_granted:,} of {proof.units_stocked:,} units were granted")
    return found


def run_scenario(
    scenario: Scenario,
    *,
    gateways: int,
    noop: bool,
    say: Say,
    seed: int = 1,
    peers: Sequence[Peer] = (),
    beside: Scenario | None = None,
) -> ScenarioResult:
    """Start a service, its rivals beside it, measure, stop them, judge what they recorded. ``beside``: another scenario of the
    same stock keys, in turn with it on the same service.
    """
    began_load = [round(value, 2) for value in os.getloadavg()]
    with tempfile.TemporaryDirectory(prefix="stockade-bench-", dir=os.environ.get("STOCKADE_BENCH_DIR")) as made:
        directory = Path(made)
        settings = write_settings(directory, (CHANNEL,), (), (WAREHOUSE,), gateways)
        with contextlib.ExitStack() as peers_held:
            company = peers_held.enter_context(Company(scenario, peers, directory, say))
            with contextlib.ExitStack() as held:
                rivals: list[Rival] = []
                if noop and scenario.noop:
                    noop_target, pids = held.enter_context(noop_gateways(gateways))
                    rivals.append(GatewayRival("no-op", scenario, noop_target, lambda: {"gateway": pids}))
                target = held.enter_context(local_service(settings, directory))
                runner = ScenarioRunner(scenario, directory, target, say, seed)
                if beside is not None:
                    rivals.append(GatewayRival(beside.name, beside, target, dict, told=runner.told))
                runs, others = runner.measure([*rivals, *company.rivals])
            peer_results = company.results(others)
        proof = runner.prove()
    for finding in proof.findings:
        say(f"{scenario.name}: FAILED: {finding}")
    return ScenarioResult(
        name=scenario.name,
        title=scenario.title,
        unit=scenario.unit,
        settings={
            **scenario.model_dump(mode="json", exclude={"name", "title", "about", "short"}),
            "gateways": gateways,
        },
        load_average=began_load,
        notes=runner.notes,
        runs=runs,
        noop=others.get("no-op", []),
        beside=others.get(beside.name, []) if beside is not None else [],
        peers=peer_results,
        proof=proof,
    )
