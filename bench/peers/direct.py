"""Rivals that are called by their own client from the generator's process: as the application that needs the stock would do it.

``ClientRival``: as many callers as the scenario has in flight, over a store. ``ThreadsRival``: some threads that call a blocking
client. Calls that failed are asked again after the run with the same ids, outside of any rate, as for Stockade.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvloop

from bench.load import Told
from bench.metering import Meter
from bench.outcome import Outcome
from bench.peers.orders import HOLD_MS, Decision, Order, Store, orders_of
from bench.results import Run, run_of
from bench.rivals import Pids
from bench.scenario import Scenario
from bench.traffic import calls_ahead

ENDED_WITHIN_S = 60.0  # beyond the run: a peer that hangs must not hang the benchmark
ATTEMPTS_MAX = 20
PAUSE_S = 0.01


def ordered_ahead(scenario: Scenario, draw: random.Random, seconds: float, in_flight: int) -> Iterator[list[Order]]:
    """Orders made before the run, as many as Stockade's generator encodes before it; the rest as they are sent."""
    orders = orders_of(scenario, draw)
    ahead = calls_ahead(scenario, seconds, in_flight)
    return itertools.chain(list(itertools.islice(orders, ahead)), orders)


def count(outcome: Outcome, decisions: Sequence[Decision]) -> None:
    """A call's answers; a replay counts as the grant that it repeats."""
    granted = sum(decision.granted for decision in decisions)
    outcome.grant(granted, claims=granted)
    outcome.refuse(len(decisions) - granted)


class ClientRival:
    """A store, called by coroutines."""

    def __init__(self, name: str, scenario: Scenario, make_store: Callable[[], Store], pids: Pids) -> None:
        self.name = name
        self.told = Told()
        self._scenario = scenario
        self._make_store = make_store
        self._pids = pids

    def warm_up(self, seconds: float, seed: int) -> None:
        self.run(seconds, seed)

    def run(self, seconds: float, seed: int) -> Run:
        in_flight = self._scenario.load.in_flight
        orders = ordered_ahead(self._scenario, random.Random(seed), seconds, in_flight)
        outcome, meter = uvloop.run(self._drive(orders, in_flight, seconds))
        run = run_of(outcome, "", meter.cpu(), meter.memory_mib_max, {})
        if not run.granted and not run.refused:
            run.invalid.append("nothing was answered")
        return run

    async def _drive(self, orders: Iterator[list[Order]], in_flight: int, seconds: float) -> tuple[Outcome, Meter]:
        store = self._make_store()
        await store.open()
        try:
            meter = Meter(None, self._pids())
            outcome, unknown = Outcome(), list[list[Order]]()
            started = time.perf_counter()
            callers = [self._caller(store, outcome, unknown, orders, started, seconds) for _ in range(in_flight)]
            await asyncio.wait_for(asyncio.gather(*callers), seconds + ENDED_WITHIN_S)
            outcome.seconds = time.perf_counter() - started
            meter.sample()
            self.told.claims += outcome.claims
            await self._settle(store, unknown)
        finally:
            await store.close()
        return outcome, meter

    async def _caller(
        self,
        store: Store,
        outcome: Outcome,
        unknown: list[list[Order]],
        orders: Iterator[list[Order]],
        started: float,
        seconds: float,
    ) -> None:
        for call in orders:
            sent_s = time.perf_counter() - started
            if sent_s >= seconds:
                return
            outcome.planned += 1
            outcome.sent += 1
            try:
                decisions = await store.reserve(call, time.time_ns() // 1_000_000 + HOLD_MS)
            except Exception as error:  # whatever a client may raise: it is no answer
                outcome.at_s = time.perf_counter() - started
                outcome.fail(type(error).__name__, len(call))
                unknown.append(call)
                await asyncio.sleep(PAUSE_S)
                continue
            outcome.answered(sent_s, sent_s, time.perf_counter() - started)
            count(outcome, decisions)

    async def _settle(self, store: Store, unknown: list[list[Order]]) -> None:
        self.told.asked_again += len(unknown)
        for call in unknown:
            for _ in range(ATTEMPTS_MAX):
                try:
                    decisions = await store.reserve(call, time.time_ns() // 1_000_000 + HOLD_MS)
                except Exception:  # asked again
                    await asyncio.sleep(PAUSE_S)
                    continue
                self.told.claims += sum(decision.granted for decision in decisions)
                break
            else:
                self.told.left_unknown += 1


class ThreadsRival:
    """A blocking client, called by threads, an order a call however large the scenario's batches are. ``reserve``: whether it
    was granted.
    """

    def __init__(
        self, name: str, scenario: Scenario, threads: int, reserve: Callable[[Order], bool], pids: Pids
    ) -> None:
        self.name = name
        self.told = Told()
        self._scenario = scenario.adapted(batch=1)
        self._threads = threads
        self._reserve = reserve
        self._pids = pids
        self._lock = threading.Lock()

    def warm_up(self, seconds: float, seed: int) -> None:
        self.run(seconds, seed)

    def run(self, seconds: float, seed: int) -> Run:
        orders = ordered_ahead(self._scenario, random.Random(seed), seconds, self._threads)
        meter, outcome, unknown = Meter(None, self._pids()), Outcome(), list[Order]()
        started = time.perf_counter()
        threads = [
            threading.Thread(target=self._caller, args=(outcome, unknown, orders, started, seconds), daemon=True)
            for _ in range(self._threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + ENDED_WITHIN_S)
        outcome.seconds = time.perf_counter() - started
        meter.sample()
        self.told.claims += outcome.claims
        self.told.asked_again += len(unknown)
        for order in unknown:
            self._settle(order)
        run = run_of(outcome, "", meter.cpu(), meter.memory_mib_max, {})
        if any(thread.is_alive() for thread in threads):
            run.invalid.append("a thread did not come back")
        if not run.granted and not run.refused:
            run.invalid.append("nothing was answered")
        return run

    def _caller(
        self, outcome: Outcome, unknown: list[Order], orders: Iterator[Any], started: float, seconds: float
    ) -> None:
        while True:
            with self._lock:
                (order,) = next(orders)
            sent_s = time.perf_counter() - started
            if sent_s >= seconds:
                return
            try:
                granted = self._reserve(order)
            except Exception as error:  # whatever a client may raise: it is no answer
                with self._lock:
                    outcome.at_s = time.perf_counter() - started
                    outcome.fail(type(error).__name__, 1)
                    unknown.append(order)
                continue
            with self._lock:
                outcome.planned += 1
                outcome.sent += 1
                outcome.answered(sent_s, sent_s, time.perf_counter() - started)
                count(outcome, [Decision(granted)])

    def _settle(self, order: Order) -> None:
        for _ in range(ATTEMPTS_MAX):
            try:
                self.told.claims += self._reserve(order)
                return
            except Exception:  # asked again
                time.sleep(PAUSE_S)
        self.told.left_unknown += 1
