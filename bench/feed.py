"""``python -m bench feed``: how fast changes go out: to a reader that catches up, to one that follows, to a watcher.

On a service of its own, with real processes, over loopback; the readers are processes of their own, with the client that callers
use. Everything shares the processors it is pinned to, the generator too, and says so. Figures:

* catch up from the journal: a reader from the oldest change on while nothing else reads, so that all is read back from SQLite;
* from memory: a second reader of the last changes, which the gateway still holds;
* follow: a reader while batches are reserved as fast as they go; what it lags is read off at the end;
* cost: claims a second of the same load without a reader, with one that keeps up, and with eight that take one message a second;
* watch: orders of one line at a steady rate, and how long after its order's answer a watcher hears of it. The answer leaves when
  the commit is durable, so this is the time from commit to watcher less the answer's own way (about a millisecond); the time from
  the order's request on is printed beside it, as the upper bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from bench.load import Generator, connected
from bench.machine import describe
from bench.metering import Meter
from bench.noop import CHANNEL, WAREHOUSE
from bench.scenario import Scenario, chosen
from bench.traffic import reserves, skus
from gateway.cli.local_service import local_service, write_settings
from gateway.cli.showing import console, table
from stockade import AsyncClient, Client
from stockade.client import facts

KEYS = 1_000
UNITS_PER_KEY = 10_000_000
IN_FLIGHT = 16
SLOW_READERS = 8
SLOW_PAUSE_S = 1.0
LOAD_SECONDS = 8.0
CHANGES_PER_MESSAGE = 2_000
WATCHED_PER_SECOND = 500  # orders: each is two changes
WAIT_S_MAX = 300.0


class Figure(NamedTuple):
    """One line of the result."""

    what: str
    value: str
    conditions: str


# --- readers, each a process of its own -----------------------------------------------------------------------------------


CAUGHT_UP, TOLD_TO = "caught up", "told to"  # when a reader stops


def _reader(target: str, wanted: dict[str, Any], until: str, typed: bool, told: Connection) -> None:
    uvloop.run(_read(target, wanted, until, typed, told))


async def _read(target: str, wanted: dict[str, Any], until: str, typed: bool, told: Connection) -> None:
    """Read until everything is read, or until told to stop, and tell how long that took."""
    async with AsyncClient(target, channel_id=CHANNEL) as client:
        count = 0
        began_s = first_s = time.perf_counter()
        cpu_s = time.process_time()
        cursor = ""
        told.send({"ready": True})
        async for batch in client.changes(changes_per_message_max=CHANGES_PER_MESSAGE, heartbeat_s=0.2, **wanted):
            if typed:
                for _ in batch:
                    count += 1
            else:
                count += len(batch)
            if count and first_s == began_s:
                first_s = time.perf_counter()
            cursor = batch.cursor or cursor
            if batch.as_of_ms and (until == CAUGHT_UP or told.poll()):
                break
        seconds = time.perf_counter() - began_s
        told.send({"changes": count, "seconds": seconds, "cursor": cursor, "cpu_s": time.process_time() - cpu_s})


def _slow_reader(target: str, told: Connection) -> None:
    uvloop.run(_read_slowly(target, told))


async def _read_slowly(target: str, told: Connection) -> None:
    """Take a message a second, until told to stop."""
    async with AsyncClient(target, channel_id=CHANNEL) as client:
        told.send({"ready": True})
        count = 0
        async for batch in client.changes(start="now", changes_per_message_max=100, heartbeat_s=1.0):
            count += len(batch)
            if told.poll():
                break
            await asyncio.sleep(SLOW_PAUSE_S)
        told.send({"changes": count})


@contextlib.contextmanager
def _beside(run: Callable[..., None], *arguments: Any) -> Any:
    """A process beside this one, and the connection to it; it is ready."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=run, args=(*arguments, there), daemon=True)
    process.start()
    assert here.recv() == {"ready": True}
    try:
        yield here
    finally:
        process.join(10.0)
        if process.is_alive():
            process.kill()


def _result(connection: Any) -> dict[str, Any]:
    if not connection.poll(WAIT_S_MAX):
        raise TimeoutError("a reader said nothing")
    answer: dict[str, Any] = connection.recv()
    return answer


# --- the measurements -----------------------------------------------------------------------------------------------------


class FeedBench:
    """One service under measurement."""

    def __init__(self, data_dir: Path, target: str, scenario: Scenario, seed: int, say: Callable[[str], None]) -> None:
        self._data_dir = data_dir
        self._target = target
        self._scenario = scenario
        self._draw = random.Random(seed)
        self._say = say
        self.figures: list[Figure] = []

    def note(self, what: str, value: str, conditions: str = "") -> None:
        """A figure."""
        self.figures.append(Figure(what, value, conditions))
        self._say(f"{what}: {value}  {conditions}")

    def stock_up(self) -> None:
        """Units for every key."""
        now_ms = time.time_ns() // 1_000_000
        with Client(self._target, channel_id=CHANNEL) as client:
            events = [
                facts.receipt(facts.Told("bench", f"stock-{number}", key, now_ms), UNITS_PER_KEY)
                for number, key in enumerate(skus(KEYS))
            ]
            for start in range(0, len(events), 500):
                client.ingest(events[start : start + 500], timeout_s=60.0)

    def load(self, seconds: float) -> float:
        """Batches of a hundred claims as fast as they go; claims a second."""

        async def run() -> float:
            async with connected(self._target, 1) as channels:
                shots = reserves(self._scenario, self._draw)
                outcome = await Generator(channels).closed(shots, in_flight=IN_FLIGHT, seconds=seconds)
                return outcome.claims / outcome.seconds

        rate: float = _run(run())
        return rate

    def produce(self, changes: int) -> None:
        """Make about so many changes."""
        while self.head() < changes:
            self.load(2.0)

    def head(self) -> int:
        """Changes so far, about: a claim is a change of its reservation and one of its stock key, which it shares with the others
        of its turn."""
        with Client(self._target, channel_id=CHANNEL) as client:
            held: int = sum(shard.reservations for shard in client.cluster_status(timeout_s=30.0).shards)
            return 2 * held

    def read_all(self, what: str, wanted: dict[str, Any], *, typed: bool, conditions: str) -> str:
        """One reader on its own; its last cursor."""
        meter = Meter(self._data_dir)
        with _beside(_reader, self._target, wanted, CAUGHT_UP, typed) as reader:
            found = _result(reader)
        meter.sample()
        cpu = meter.cpu()
        costs = ", ".join(
            f"{role} {1e6 * seconds / found['changes']:.1f}"
            for role, seconds in (("host", cpu["host"]), ("gateway", cpu["gateway"]), ("reader", found["cpu_s"]))
        )
        rate = found["changes"] / found["seconds"]
        self.note(
            what, f"{rate:,.0f} changes/s", f"{found['changes']:,} changes; µs of CPU a change: {costs}{conditions}"
        )
        return str(found["cursor"])

    def from_memory(self, changes: int) -> None:
        """A second reader of what the gateway still holds, because a first one follows."""
        with _beside(_reader, self._target, {"start": "now"}, TOLD_TO, False) as first:
            time.sleep(1.0)
            with _beside(_reader, self._target, {"start": "now"}, CAUGHT_UP, False) as marker:
                begin = _result(marker)["cursor"]
            before = self.head()
            while self.head() - before < changes:
                self.load(1.0)
            self.read_all("from the gateway's memory", {"cursor": begin}, typed=False, conditions="")
            first.send("stop")
            _result(first)

    def follow(self) -> None:
        """A reader that keeps up, and what it and slow ones cost the claims."""
        alone = self.load(LOAD_SECONDS)
        with _beside(_reader, self._target, {"start": "now"}, TOLD_TO, False) as reader:
            time.sleep(1.0)
            began_s = time.perf_counter()
            followed = self.load(LOAD_SECONDS)
            load_s = time.perf_counter() - began_s
            reader.send("stop")
            found = _result(reader)
            tail_s = time.perf_counter() - began_s - load_s
        rate = found["changes"] / load_s
        self.note(
            "follow at full load",
            f"{rate:,.0f} changes/s",
            f"{found['changes']:,} changes in {load_s:.1f} s of load; caught up {tail_s:.2f} s after it",
        )
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(_beside(_slow_reader, self._target)) for _ in range(SLOW_READERS)]
            time.sleep(2.0)
            beside_slow = self.load(LOAD_SECONDS)
            for reader in slow:
                reader.send("stop")
        again = self.load(LOAD_SECONDS)
        self.note("claims without a reader", f"{alone:,.0f} and {again:,.0f} claims/s", "before and after the rest")
        self.note(
            "claims beside one reader",
            f"{followed:,.0f} claims/s",
            "the reader's own CPU is taken from the same two processors",
        )
        self.note(
            f"claims beside {SLOW_READERS} slow readers",
            f"{beside_slow:,.0f} claims/s",
            "a message of 100 changes a second each",
        )

    def watch(self, seconds: float) -> None:
        """A watcher's delay at a steady rate."""
        after_answer, after_request = _run(self._watch(seconds))
        for what, delays in (("after the answer", after_answer), ("after the request", after_request)):
            delays.sort()
            shown = ", ".join(
                f"p{100 * part:g} {1000 * delays[min(len(delays) - 1, int(part * len(delays)))]:.1f} ms"
                for part in (0.5, 0.99, 0.999)
            )
            self.note(
                f"watcher {what}",
                shown,
                f"{WATCHED_PER_SECOND * 2:,} changes/s, {len(delays):,} orders; generator and watcher are one process",
            )

    async def _watch(self, seconds: float) -> tuple[list[float], list[float]]:
        keys = skus(KEYS)
        answered: dict[str, dict[int, tuple[float, float]]] = {}  # SKU → sequence of its shard → (sent, answered)
        heard: dict[str, list[tuple[int, float]]] = {}
        async with AsyncClient(self._target, channel_id=CHANNEL) as client:
            watching = asyncio.Event()

            async def watch() -> None:
                async for update in client.watch(keys, heartbeat_s=1.0):
                    now_s = time.perf_counter()
                    for one in update.availabilities:
                        heard.setdefault(one.stock_key.sku, []).append((one.position.sequence, now_s))
                    if update.as_of_ms:
                        watching.set()

            watcher = asyncio.create_task(watch())
            await watching.wait()
            tasks: set[asyncio.Task[None]] = set()

            async def order(key: tuple[str, str]) -> None:
                sent_s = time.perf_counter()
                reservation: Any = await client.reserve([(*key, 1)])
                sequence = reservation.position.sequence
                answered.setdefault(key[0], {})[sequence] = (sent_s, time.perf_counter())

            began_s = time.perf_counter()
            for number in range(round(seconds * WATCHED_PER_SECOND)):
                wait_s = began_s + number / WATCHED_PER_SECOND - time.perf_counter()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                task = asyncio.create_task(order(keys[number % KEYS]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)
            await asyncio.sleep(1.0)
            watcher.cancel()
        after_answer, after_request = [], []
        for sku, orders in answered.items():
            arrivals = heard.get(sku, [])
            for sequence, (sent_s, answer_s) in orders.items():
                at_s = next((at_s for seen, at_s in arrivals if seen >= sequence), None)
                assert at_s is not None, "a watcher was not told"
                after_answer.append(max(0.0, at_s - answer_s))
                after_request.append(at_s - sent_s)
        return after_answer, after_request


def _run(what: Coroutine[Any, Any, Any]) -> Any:
    return uvloop.run(what)


def run_feed(*, changes: int, watch_seconds: float, seed: int, output: Path | None) -> int:
    """Measure, print; 0."""
    (scenario,) = chosen(["spread-batch"])
    scenario = scenario.adapted(keys=KEYS)
    with tempfile.TemporaryDirectory(dir=os.environ.get("STOCKADE_BENCH_DIR")) as made:
        data_dir = Path(made)
        settings = write_settings(data_dir, [CHANNEL], [], [WAREHOUSE], 1)
        machine = describe(data_dir)
        with local_service(settings, data_dir) as target:
            bench = FeedBench(data_dir, target, scenario, seed, lambda line: print(line, flush=True))
            bench.stock_up()
            bench.produce(changes)
            oldest = {"start": "oldest"}
            bench.read_all("catch up from the journal", oldest, typed=False, conditions="")
            time.sleep(30.0)  # nobody reads: the host and the gateway let go of everything
            bench.read_all("the same, each change as a typed value", oldest, typed=True, conditions="")
            bench.from_memory(changes // 4)
            bench.follow()
            bench.watch(watch_seconds)
    table("change feed", Figure._fields, bench.figures)
    console().print(machine)
    if output is not None:
        output.write_text(
            json.dumps({"figures": [one._asdict() for one in bench.figures], "machine": machine}, indent=2)
        )
    return 0
