"""One Ray actor a stock key and one Ray call a request, behind the gateway: the plainest way to serve stock from Ray.

Each actor keeps its reservations in an SQLite file of its own and answers after the commit's fsync; a restarted actor reads them back.
Durable is what SQLite holds. Not durable: calls on their way, and Ray's own tables (which actors there are).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.peers.orders import REFUSED, Decision, Order, OtherContent
from bench.peers.tables import Recorded

PRAGMAS = {"journal_mode": "wal", "synchronous": "full"}
SCHEMA = """
create table if not exists stock (one integer primary key check (one = 1), available integer not null check (available >= 0));
create table if not exists reservation (
  request_id text primary key, quantity integer not null, expire_time integer not null
) without rowid;
"""
STARTED_WITHIN_S = 120.0


def open_file(path: Path) -> sqlite3.Connection:
    """A stock key's file."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for name, value in PRAGMAS.items():
        connection.execute(f"pragma {name} = {value}")
    return connection


def file_of(directory: Path, number: int) -> Path:
    """The file of the stock key with this number."""
    return directory / f"{number}.sqlite"


class StockActor:
    """What Ray runs: one stock key."""

    def __init__(self, path: str) -> None:
        self._file = open_file(Path(path))
        (self._available,) = self._file.execute("select available from stock").fetchone()

    def reserve(self, request_id: str, quantity: int, expire_time_ms: int) -> int:
        """The time the hold expires; negative: granted before, until then; 0: refused."""
        prior = self._file.execute(
            "select quantity, expire_time from reservation where request_id = ?", (request_id,)
        ).fetchone()
        if prior is not None:
            if prior[0] != quantity:
                raise OtherContent(request_id)
            return -int(prior[1])
        if quantity > self._available:
            return 0
        self._file.execute("begin immediate")
        try:
            self._file.execute("insert into reservation values (?, ?, ?)", (request_id, quantity, expire_time_ms))
            self._file.execute("update stock set available = available - ?", (quantity,))
            self._file.execute("commit")
        except BaseException:
            self._file.execute("rollback")
            raise
        self._available -= quantity
        return expire_time_ms

    def settings(self) -> dict[str, str]:
        """As SQLite says them."""
        return {name: str(self._file.execute(f"pragma {name}").fetchone()[0]) for name in PRAGMAS}


class RayActors:
    """A store: starts Ray and the actors in this process, calls them."""

    def __init__(self, directory: str, ray_directory: str, keys: Sequence[str]) -> None:
        self._directory = Path(directory)
        self._ray_directory = ray_directory
        self._keys = keys
        self._actors: dict[str, Any] = {}

    async def open(self) -> None:
        import logging

        import ray

        ray.init(
            address="local",
            num_cpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=80 * 1024 * 1024,
            _temp_dir=self._ray_directory,
            _node_ip_address="127.0.0.1",
        )
        actor_class = ray.remote(num_cpus=0, max_restarts=-1)(StockActor)
        for number, key in enumerate(self._keys):
            self._actors[key] = actor_class.remote(str(file_of(self._directory, number)))
        ready = [actor.settings.remote() for actor in self._actors.values()]
        await asyncio.wait_for(asyncio.gather(*ready), STARTED_WITHIN_S)

    async def close(self) -> None:
        import ray

        ray.shutdown()

    async def reserve(self, orders: Sequence[Order], expire_time_ms: int) -> Sequence[Decision]:
        actors = self._actors
        if len(orders) == 1:
            order = orders[0]
            return [_decision(await actors[order.key].reserve.remote(order.request_id, order.quantity, expire_time_ms))]
        calls = [actors[each.key].reserve.remote(each.request_id, each.quantity, expire_time_ms) for each in orders]
        return [_decision(answer) for answer in await asyncio.gather(*calls)]


def _decision(answer: int) -> Decision:
    return Decision(True, abs(answer), replayed=answer < 0) if answer else REFUSED


def stock_up(directory: Path, keys: Sequence[str], units_per_key: int) -> None:
    """Make the files."""
    for number in range(len(keys)):
        connection = open_file(file_of(directory, number))
        connection.executescript(SCHEMA)
        connection.execute("insert into stock values (1, ?)", (units_per_key,))
        connection.close()


def audit(directory: Path, keys: Sequence[str], units_per_key: int) -> Recorded:
    """Count reservations in the files and hold them against the shelf."""
    claims = units = oversold = 0
    for number in range(len(keys)):
        connection = open_file(file_of(directory, number))
        count, taken = connection.execute("select count(*), coalesce(sum(quantity), 0) from reservation").fetchone()
        (left,) = connection.execute("select available from stock").fetchone()
        connection.close()
        claims, units = claims + count, units + taken
        oversold += left < 0 or left + taken != units_per_key
    return Recorded(claims, units, oversold)
