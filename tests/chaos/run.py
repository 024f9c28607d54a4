"""One chaos run from the first start of ``serve`` to the last word of the judges."""

from __future__ import annotations

import asyncio
import gzip
import pickle
import random
import subprocess
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.runtime.processes import find_marked
from actors.runtime.settings import load_settings
from stockade import AsyncClient
from tests.chaos import table
from tests.chaos.asking import ANSWERED_WITHIN_S, Connection, GivenUp, Memory
from tests.chaos.faults import Injector, Measured, passing
from tests.chaos.judging import Say, judge
from tests.chaos.proxy import LinkProxy
from tests.chaos.schedule import Fault
from tests.chaos.shoppers import KEYS, WAREHOUSES, Market, Shopper
from tests.chaos.warehouses import Warehouse
from tests.e2e.serving import Serve
from tests.simulation.history import Operation
from tests.simulation.model import Settings

CONNECTIONS = 4
PULSE_PAUSE_S = 0.1
PROGRESS_INTERVAL_S = 60.0
ASKED_AGAIN = 200  # of the last reserves, when all is over
ENVIRONMENT = {
    "STOCKADE_GATEWAYS": "2",
    "STOCKADE_SNAPSHOT_AFTER_EVENTS": "500",
    "STOCKADE_DEDUPE_MEMORY_MS": "2s",  # repeats are found in the table, not only in memory
    "STOCKADE_WAREHOUSES": '{"main": {}, "overflow": {"fulfilment_door": "order_management"}}',
}
MODEL = Settings(order_management_ships=frozenset(("overflow",)))
# What callers may be told besides yes and no: an ended reservation is forgotten after a while, a policy's key must be known.
ERRORS_ALLOWED = frozenset(("RESERVATION_NOT_FOUND", "STOCK_KEY_NOT_FOUND"))


@dataclass(frozen=True)
class Load:
    """How much is asked: so many shoppers, and how long each thinks on average between two wishes."""

    shoppers: int = 8
    pause_s: float = 0.3


@dataclass
class Result:
    """What a run found. ``problems``: empty when it is green."""

    seed: int
    measured: list[Measured] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "seed": self.seed,
            "green": not self.problems,
            "problems": self.problems,
            "figures": self.figures,
            "by_kind": table.by_kind(self.measured),
            "faults": [table.plain(measured) for measured in self.measured],
        }


class ChaosRun:
    """One run on ``data_dir``, which must not exist. Beside it: what serve said, and the history."""

    def __init__(self, data_dir: Path, seed: int, load: Load, say: Say) -> None:
        self._data_dir = data_dir
        self._seed = seed
        self._load = load
        self._say = say
        self._memory = Memory()
        self._market = Market()
        self._result = Result(seed)
        self._told_at = 0.0

    async def run(self, faults: Iterable[Fault], seconds_max: float = 0.0) -> Result:
        """Serve, load, inflict, heal, stop, judge. What goes wrong is in the result.

        ``seconds_max``: no fault begins later; 0: all of them are inflicted.
        """
        result, memory = self._result, self._memory
        serve = Serve(self._data_dir, ENVIRONMENT)
        proxy = LinkProxy(lambda: host_port(serve), random.Random(self._seed))
        await proxy.start()
        serve.set("HOST_ADVERTISE_PORT", str(proxy.port))
        started_at = time.monotonic()
        try:
            serve.start()
            state = await asyncio.to_thread(serve.wait_serving)
            serve.keep_port(state["grpc"].rpartition(":")[2])
            async with self._loaded(state["grpc"]) as connections:
                injector = Injector(serve, proxy, memory, len(connections), started_at)
                await self._inflict(injector, faults, started_at, seconds_max)
                result.figures["faulty_s"] = round(time.monotonic() - started_at, 1)
            await self._stop(serve)
        except (AssertionError, GivenUp, TimeoutError, subprocess.TimeoutExpired) as error:
            result.problems.append(f"{type(error).__name__}: {error}")
        finally:
            proxy.close()
            await asyncio.to_thread(serve.end)
        self._note_answers(proxy)
        write_history(self._data_dir, memory.operations)
        await asyncio.to_thread(rejudge, self._data_dir, result, self._say)
        return result

    async def _inflict(
        self, injector: Injector, faults: Iterable[Fault], started_at: float, seconds_max: float
    ) -> None:
        self._say(table.HEADING)
        for number, fault in enumerate(faults, 1):
            if seconds_max and time.monotonic() - started_at + fault.quiet_s > seconds_max:
                return
            await passing(fault.quiet_s)
            measured = await injector.inflict(fault)
            self._result.measured.append(measured)
            self._say(table.row(number, measured))
            self._tell_progress(started_at)

    def _tell_progress(self, started_at: float) -> None:
        now = time.monotonic()
        if now - self._told_at < PROGRESS_INTERVAL_S:
            return
        self._told_at = now
        memory = self._memory
        self._say(
            f"     {(now - started_at) / 60:.1f} min, {len(self._result.measured)} faults, {sum(memory.calls.values())} calls,"
            f" {len(memory.operations)} operations, {memory.failures} calls made again, errors {dict(memory.errors)}"
        )

    @asynccontextmanager
    async def _loaded(self, target: str) -> AsyncIterator[list[Connection]]:
        """Callers at work for as long as the block lasts; then each finishes what it is at, and all is asked once more."""
        memory, seed, stop = self._memory, self._seed, asyncio.Event()
        async with AsyncExitStack() as held:
            clients = [await held.enter_async_context(AsyncClient(target)) for _ in range(CONNECTIONS)]
            connections = [Connection(number, client) for number, client in enumerate(clients)]
            some = iter(connections * (self._load.shoppers + len(WAREHOUSES)))
            warehouses = [Warehouse(name, next(some), memory, self._market, seed) for name in WAREHOUSES]
            for warehouse in warehouses:
                await warehouse.open_doors()
            pulses = [Shopper(f"pulse{one.number}", one, memory, self._market, seed) for one in connections]
            names = [f"shopper{number}" for number in range(self._load.shoppers)]
            shoppers = [Shopper(name, next(some), memory, self._market, seed) for name in names]
            working = [
                *(pulse.pulse(stop, PULSE_PAUSE_S) for pulse in pulses),
                *(shopper.shop(stop, self._load.pause_s) for shopper in shoppers),
                *(warehouse.work(stop, self._load.pause_s) for warehouse in warehouses),
            ]
            tasks = [asyncio.create_task(work) for work in working]
            try:
                yield connections
                stop.set()
                async with asyncio.timeout(ANSWERED_WITHIN_S):
                    await asyncio.gather(*tasks)
                await self._ask_everything(shoppers[0])
            finally:
                for task in tasks:
                    task.cancel()

    async def _ask_everything(self, shopper: Shopper) -> None:
        """Every stock key, and the last reserves again."""
        calls = shopper.calls
        for key in KEYS:
            await shopper.ask(calls.get_stock(key))
        await shopper.ask(calls.batch_availability(KEYS, channel_id="web"))
        for message in list(self._market.reserves)[-ASKED_AGAIN:]:
            await shopper.ask(shopper.reserve_call(message))

    async def _stop(self, serve: Serve) -> None:
        code = await asyncio.to_thread(serve.terminate)
        assert code == 0, f"the last stop ended with {code}:\n{serve.said()[-2000:]}"
        left = find_marked(str(self._data_dir.resolve()))
        assert not left, f"processes are left: {left}"

    def _note_answers(self, proxy: LinkProxy) -> None:
        memory, result = self._memory, self._result
        result.problems += [f"answered: {unanswered}" for unanswered in memory.given_up]
        strange = {what: count for what, count in memory.errors.items() if what.split()[1] not in ERRORS_ALLOWED}
        result.problems += [f"answered: {count} times {what}" for what, count in strange.items()]
        result.figures |= {
            "calls": sum(memory.calls.values()),
            "calls_by_method": dict(memory.calls),
            "calls_made_again": memory.failures,
            "errors": dict(memory.errors),
            "reserve_calls_answered": len(memory.reserves),
            "link_connections": proxy.connections,
            "link_spoilt": proxy.spoilt,
        }


def rejudge(data_dir: Path, result: Result, say: Say) -> None:
    """Ask the judges about a run whose data directory and history are there; what they say goes into ``result``."""
    rules = load_settings(environment=ENVIRONMENT).settings.rules()
    started = time.monotonic()
    judgement = judge(data_dir, read_history(data_dir), rules, MODEL, say)
    result.problems += judgement.problems
    result.figures |= judgement.figures
    result.figures["judged_s"] = round(time.monotonic() - started, 1)


def history_path(data_dir: Path) -> Path:
    """Where a run's history lies: beside the data directory."""
    return data_dir.with_name(f"{data_dir.name}.history")


def write_history(data_dir: Path, operations: list[Operation]) -> None:
    """Keep what was asked and answered, so that the judges can be asked again."""
    with gzip.open(history_path(data_dir), "wb", compresslevel=1) as file:
        pickle.dump(operations, file)


def read_history(data_dir: Path) -> list[Operation]:
    """What ``write_history`` wrote: a file of our own, never anybody else's."""
    with gzip.open(history_path(data_dir), "rb") as file:
        operations: list[Operation] = pickle.load(file)
    return operations


def host_port(serve: Serve) -> int | None:
    """Where the host itself listens now."""
    state = serve.ready()
    host = state["processes"].get("host") if state is not None else None
    return int(host["frame_port"]) if host is not None and "frame_port" in host else None
