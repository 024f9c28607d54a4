"""One flooded stock key and all the others: how long single reserves of other keys take beside a flood in batches, of one key and,
for comparison, the same flood spread over all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
from pathlib import Path

import uvloop

from bench.arrivals import due_times
from bench.goals.table import Figures
from bench.load import Generator, connected, connections_for
from bench.noop import CHANNEL, WAREHOUSE
from bench.outcome import Outcome
from bench.results import Proof, percentiles_ms
from bench.running import Say, ScenarioRunner
from bench.scenario import Scenario, chosen
from bench.traffic import shots_ahead, shots_for
from gateway.cli.local_service import local_service, write_settings

SINGLES_PER_SECOND = 300.0
KEYS = 1_000


def measure_flooded(*, seconds: float, repetitions: int, seed: int, say: Say) -> tuple[Figures, Proof]:
    """p99 of singles beside a spread flood and beside one of a single key, in turn."""
    singles = chosen(["spread"])[0].adapted(keys=KEYS)
    floods = {"spread": chosen(["overload-batch"])[0], "one_key": chosen(["hot-batch"])[0]}
    values: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="stockade-bench-", dir=os.environ.get("STOCKADE_BENCH_DIR")) as made:
        directory = Path(made)
        settings = write_settings(directory, (CHANNEL,), (), (WAREHOUSE,), 1)
        with contextlib.ExitStack() as held:
            target = held.enter_context(local_service(settings, directory))
            runner = ScenarioRunner(singles, directory, target, say, seed)
            runner.stock_up()
            for repetition in range(repetitions):
                for name, flood in floods.items():
                    one, many = uvloop.run(both(target, runner, singles, flood, seconds, seed + repetition))
                    values.setdefault(f"{name}_p99_ms", []).append(percentiles_ms(one.latency_us)["p99"])
                    values.setdefault(f"{name}_flood", []).append(many.granted / many.seconds)
                    say(
                        f"flooded: {name}: singles p99 {values[f'{name}_p99_ms'][-1]} ms, flood {many.granted:,} claims"
                    )
        proof = runner.prove()
    for finding in proof.findings:
        say(f"flooded: FAILED: {finding}")
    return Figures(name="flooded", values=values, notes=list(proof.findings)), proof


async def both(
    target: str, runner: ScenarioRunner, singles: Scenario, flood: Scenario, seconds: float, seed: int
) -> tuple[Outcome, Outcome]:
    """The singles in an open loop, the flood in a closed one, each over its own connections."""
    draw = random.Random(seed)
    async with connected(target, 4) as quiet, connected(target, connections_for(flood.load.in_flight)) as loud:
        due = due_times(SINGLES_PER_SECOND, seconds, "poisson", draw)
        one, many = Generator(quiet), Generator(loud)
        await asyncio.gather(
            one.open(shots_for(singles, draw)[0], due),
            many.closed(
                shots_ahead(flood, draw, seconds, flood.load.in_flight), in_flight=flood.load.in_flight, seconds=seconds
            ),
        )
        for generator, channels in ((one, quiet), (many, loud)):
            await runner.told.add(channels, generator.outcome)
        return one.outcome, many.outcome
