"""One run over several nodes, from the first start to the last word of the judges."""

from __future__ import annotations

import asyncio
import gzip
import pickle
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.journal.verify import verify
from actors.runtime import wiring
from actors.runtime.settings import load_settings
from tests.chaos.asking import Memory
from tests.chaos.faults import passing
from tests.chaos.judging import judge_journal
from tests.chaos.shoppers import Market
from tests.nodes import table
from tests.nodes.faults import Fault, Injector, Lengths, Measured
from tests.nodes.load import Pulses, loaded, warehouses_apart
from tests.nodes.nodes import Nodes, NotServing, Say
from tests.postgres_server import PostgresServer, running_postgres
from tests.simulation.model import Settings as ModelSettings

WAREHOUSES = 6
SETTLED_S = 1.0  # quiet before a fault
# What callers may be told besides yes and no: an ended reservation is forgotten after a while, a policy's key must be known.
ERRORS_ALLOWED = frozenset(("RESERVATION_NOT_FOUND", "STOCK_KEY_NOT_FOUND"))


@dataclass(frozen=True)
class Load:
    """How much is asked beside the pulses."""

    shoppers: int = 6
    pause_s: float = 0.4


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
            "faults": table.plain(self.measured),
        }


class NodesRun:
    """One run in ``place``, which must not exist: data directories, logs, the database, the history."""

    def __init__(self, place: Path, seed: int, load: Load, lengths: Lengths, say: Say, nodes: int = 3) -> None:
        self._place = place
        self._seed = seed
        self._load = load
        self._lengths = lengths
        self._say = say
        self._count = nodes
        self._warehouses = warehouses_apart(WAREHOUSES)
        self._memory = Memory()
        self._market = Market(self._warehouses, one_warehouse=True)
        self._pulses = Pulses()
        self._result = Result(seed)
        self._environment = {
            "STOCKADE_GATEWAYS": "1",
            "STOCKADE_SNAPSHOT_AFTER_EVENTS": "500",
            "STOCKADE_DEDUPE_MEMORY_MS": "2s",  # repeats are found in the table, not only in memory
            "STOCKADE_WAREHOUSES": ",".join(self._warehouses),
            "STOCKADE_GRPC_PORT": "0",
            "STOCKADE_HTTP_PORT": "0",
        }

    async def run(self, faults: Iterable[Fault]) -> Result:
        """Start, load, inflict, heal, stop, judge. What goes wrong is in the result."""
        self._place.mkdir(parents=True)
        self._place.chmod(0o755)
        with running_postgres(self._place / "postgres") as postgres:
            nodes = Nodes(self._place, self._count, self._environment, postgres, self._say)
            try:
                await self._inflict(nodes, faults)
                await nodes.stop()
            except (NotServing, TimeoutError, ExceptionGroup) as error:
                self._result.problems.append(f"did not serve: {error!r}")
                await nodes.kill_everything()
            except BaseException:
                await nodes.kill_everything()
                raise
            self._keep_history()
            await asyncio.to_thread(self._judge, postgres, nodes.database)
        return self._result

    async def _inflict(self, nodes: Nodes, faults: Iterable[Fault]) -> None:
        started_at = time.monotonic()
        await nodes.start()
        self._say(f"{self._count} nodes serve after {time.monotonic() - started_at:.1f} s")
        targets = [nodes.target(number) for number in range(self._count)]
        load = self._load
        async with loaded(
            targets, self._market, self._memory, self._pulses,
            shoppers=load.shoppers, pause_s=load.pause_s, seed=self._seed,
        ):  # fmt: skip
            injector = Injector(nodes, self._pulses, self._warehouses, self._lengths, self._say)
            self._say(table.HEADING)
            for fault in faults:
                await passing(SETTLED_S)
                measured = await injector.inflict(fault)
                self._result.measured.append(measured)
                self._say(table.row(measured))
        memory, result = self._memory, self._result
        result.problems += [f"answered: {unanswered}" for unanswered in memory.given_up]
        strange = {what: count for what, count in memory.errors.items() if what.split()[1] not in ERRORS_ALLOWED}
        result.problems += [f"answered: {count} times {what}" for what, count in strange.items()]
        result.problems += [
            f"{one.fault}: served again after {one.silence_s:.1f} s, the goal is {one.goal_s:g} s"
            for one in result.measured
            if not one.within_goal
        ]
        result.figures |= {
            "calls": sum(memory.calls.values()),
            "calls_made_again": memory.failures,
            "errors": dict(memory.errors),
        }

    def _judge(self, postgres: PostgresServer, database: str) -> None:
        """The journal, read past every proxy."""
        environment = {**self._environment, "STOCKADE_JOURNAL_URL": postgres.url_of(database)}
        settings = load_settings(environment=environment).settings
        journal = wiring.read_journal(settings)
        try:
            report = verify(journal)
        finally:
            journal.close()
        judgement = judge_journal(
            lambda: wiring.read_journal(settings),
            report,
            self._memory.operations,
            settings.rules(),
            ModelSettings(),
            self._say,
        )
        self._result.problems += judgement.problems
        self._result.figures |= judgement.figures

    def _keep_history(self) -> None:
        with gzip.open(self._place / "history", "wb", compresslevel=1) as file:
            pickle.dump(self._memory.operations, file)
