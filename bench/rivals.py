"""Whoever does a scenario's work in turn with Stockade: the no-op and the peers. Here are those behind a gateway, asked like it.

A rival runs a closed loop of the scenario's own calls for some seconds and adds up what it was told.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

import uvloop

from bench.load import Generator, Told, connected, connections_for
from bench.metering import Meter
from bench.outcome import Outcome
from bench.results import Run, run_of
from bench.scenario import Scenario
from bench.traffic import shots_ahead

Pids = Callable[[], dict[str, list[int]]]


class Rival(Protocol):
    """``told``: what its answers said, over all its runs."""

    name: str
    told: Told

    def warm_up(self, seconds: float, seed: int) -> None:
        """The same load, before anything counts."""

    def run(self, seconds: float, seed: int) -> Run:
        """The scenario's load for so long; seed by seed the same orders as Stockade's."""


class GatewayRival:
    """A rival that speaks Stockade's own contract. ``pids``: its processes by role, looked up before each run. ``told``: where to
    add up, when it asks a service that others ask as well.
    """

    def __init__(self, name: str, scenario: Scenario, target: str, pids: Pids, told: Told | None = None) -> None:
        self.name = name
        self.told = told or Told()
        self._scenario = scenario
        self._target = target
        self._pids = pids

    def warm_up(self, seconds: float, seed: int) -> None:
        self.run(seconds, seed)

    def run(self, seconds: float, seed: int) -> Run:
        load = self._scenario.load
        shots = shots_ahead(self._scenario, random.Random(seed), seconds, load.in_flight)
        meter = Meter(None, self._pids())

        async def drive() -> Outcome:
            async with connected(self._target, connections_for(load.in_flight)) as channels:
                outcome = await Generator(channels).closed(shots, in_flight=load.in_flight, seconds=seconds)
                meter.sample()
                await self.told.add(channels, outcome)
                return outcome

        run = run_of(uvloop.run(drive()), "", meter.cpu(), meter.memory_mib_max, {})
        if not run.granted and not run.refused:
            run.invalid.append("nothing was answered")
        return run
