"""The peer most teams would write: a conditional UPDATE and an INSERT by ``asyncpg``, one statement, one commit a call.

A batch is one transaction of the same statement, pipelined, its orders sorted by stock key so that two batches cannot lock
each other out. What it promises: durable before answered, never below zero, a request id decides once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.peers.orders import REFUSED, Decision, Order, OtherContent
from bench.peers.waiting import Shared

RESERVE = """
with taken as (
  update stock set available = available - $3
  where key = $2 and available >= $3 and not exists (select from reservation where request_id = $1)
  returning key
)
insert into reservation select $1, key, $3, $4 from taken returning request_id
"""
PRIOR = "select key, quantity, expire_time from reservation where request_id = $1"


class ConditionalUpdate:
    """A store of it."""

    def __init__(self, uri: str, connections: int) -> None:
        self._uri = uri
        self._count = connections
        self._shared: Shared[tuple[Any, Any]] = Shared()
        self._all: list[Any] = []

    async def open(self) -> None:
        import asyncpg

        for _ in range(self._count):
            connection = await asyncpg.connect(self._uri)
            self._all.append(connection)
            self._shared.give((connection, await connection.prepare(RESERVE)))

    async def close(self) -> None:
        for connection in self._all:
            await connection.close()

    async def reserve(self, orders: Sequence[Order], expire_time_ms: int) -> Sequence[Decision]:
        from asyncpg import UniqueViolationError

        connection, statement = held = await self._shared.take()
        try:
            for _ in range(2):
                try:
                    if len(orders) == 1:
                        return [await self._one(connection, statement, orders[0], expire_time_ms)]
                    return await self._many(connection, orders, expire_time_ms)
                except UniqueViolationError:
                    continue  # the same id was granted by another call a moment ago: now it is there to be read
            raise RuntimeError("the same request id twice in one batch")
        finally:
            self._shared.give(held)

    async def _one(self, connection: Any, statement: Any, order: Order, expire_time_ms: int) -> Decision:
        if await statement.fetchval(*order, expire_time_ms) is not None:
            return Decision(True, expire_time_ms)
        return await self._prior(connection, order)

    async def _many(self, connection: Any, orders: Sequence[Order], expire_time_ms: int) -> Sequence[Decision]:
        in_order = sorted(orders, key=lambda order: order.key)
        async with connection.transaction():
            rows = await connection.fetchmany(RESERVE, [(*order, expire_time_ms) for order in in_order])
        granted = {row[0] for row in rows}
        yes = Decision(True, expire_time_ms)
        return [yes if order.request_id in granted else await self._prior(connection, order) for order in orders]

    async def _prior(self, connection: Any, order: Order) -> Decision:
        """Not granted now: granted before, or refused."""
        row = await connection.fetchrow(PRIOR, order.request_id)
        if row is None:
            return REFUSED
        if (row[0], row[1]) != (order.key, order.quantity):
            raise OtherContent(order.request_id)
        return Decision(True, row[2], replayed=True)
