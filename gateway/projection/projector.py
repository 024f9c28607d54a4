"""Builds the projection and keeps it up: all is listed once, then what the change feed names is read again.

A change says that something is different, not how a row looks; so the values written are read after it, strongly, and are
never older than the change. Values and the cursor that leads to them are one transaction: a projector that dies goes on where
it was, and says the same again at worst.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from gateway.projection.store import Place, ProjectionStore, ProjectionUnusable
from stockade import AsyncClient
from stockade.client.change_results import AvailabilityChanged, ChangeBatch, ReservationChanged, ResyncNeeded
from stockade.client.errors import StockadeError
from stockade.client.results import Stock, StockKey

T = TypeVar("T")
W = TypeVar("W")

PAGE_SIZE = 1_000
READS_UNDER_WAY_MAX = 64
LISTED_RATHER_FROM = 20_000  # changed stock keys in one go from which listing all is cheaper than reading each
HEARTBEAT_S = 1.0
PAUSE_S_MAX = 15.0

Told = Callable[[str, int], Any]  # what is written, and how many so far


class Written(NamedTuple):
    """What one step wrote; ``as_of_ms``: everything that was durable by then is in the projection, 0 while it catches up."""

    stocks: int
    reservations: int
    as_of_ms: int


class Projector:
    """One reader of changes and the one writer of its store. ``consumer_id``: acknowledge as this one, so that its lag is seen."""

    def __init__(
        self,
        client: AsyncClient,
        store: ProjectionStore,
        target: str,
        *,
        consumer_id: str = "",
        told: Told | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self._target = target
        self._consumer_id = consumer_id
        self._told = told or (lambda _what, _count: None)
        self._reads = asyncio.Semaphore(READS_UNDER_WAY_MAX)

    async def run(self) -> AsyncGenerator[Written, None]:
        """Build it when it is new or useless, then follow for ever. Raises ``ProjectionUnusable``, ``StockadeError``."""
        place = self._store.place()
        if place is not None:
            await self._same_cluster(place)
        while True:
            if place is None or not place.as_of_ms:
                place = await self._build(place.generation + 1 if place is not None else 1)
                yield Written(*self._store.counts(), place.as_of_ms)
            try:
                async for reached, written in self._follow(place):
                    place = reached
                    yield written
            except ResyncNeeded as needed:
                self._told(f"begins anew: {needed.reason}", 0)
                place = place._replace(as_of_ms=0)

    async def _same_cluster(self, place: Place) -> None:
        status = await self._client.cluster_status()
        if place.cluster_id and place.cluster_id != status.cluster_id:
            raise ProjectionUnusable(
                f"the projection is of cluster {place.cluster_id}, {self._target} is {status.cluster_id}: use another place"
            )

    async def _build(self, generation: int) -> Place:
        """Everything now. The cursor is from before it, so nothing that changes meanwhile is missed."""
        status = await self._client.cluster_status()
        batch = await self._now()
        place = Place(status.cluster_id, status.timeline, batch.cursor, 0, generation, self._target)
        count = 0
        async for stocks in self._pages(self._client.list_stock):
            self._store.write(place, stocks, ())
            count += len(stocks)
            self._told("stock keys", count)
        count = 0
        async for reservations in self._pages(self._client.list_reservations):
            self._store.write(place, (), reservations)
            count += len(reservations)
            self._told("reservations", count)
        place = place._replace(as_of_ms=batch.as_of_ms)
        self._store.write(place, (), (), forget_older=True)
        return place

    async def _now(self) -> ChangeBatch:
        async for batch in self._client.changes(start="now", heartbeat_s=HEARTBEAT_S):
            if batch.cursor and batch.as_of_ms:
                return batch
        raise AssertionError("changes end by an error only")

    async def _pages(self, listing: Callable[..., Awaitable[tuple[list[T], str]]]) -> AsyncIterator[list[T]]:
        token = ""
        while True:
            found, token = await listing(page_size=PAGE_SIZE, page_token=token)
            if found:
                yield found
            if not token:
                return

    async def _follow(self, place: Place) -> AsyncIterator[tuple[Place, Written]]:
        batches = self._client.changes(
            cursor=place.cursor, kinds=["availability", "reservation"], heartbeat_s=HEARTBEAT_S, patience_s=None
        )
        async for batch in batches:
            if not batch.cursor:
                continue
            keys: dict[StockKey, None] = {}
            reservation_ids: dict[str, None] = {}
            for change in batch:
                if isinstance(change, AvailabilityChanged):
                    keys[change.stock_key] = None
                elif isinstance(change, ReservationChanged):
                    reservation_ids[change.reservation_id] = None
                    keys.update(dict.fromkeys(key for _, key, _, _ in change.lines))
            stocks = await self._stocks(keys)
            reservations = await self._read(self._client.get_reservation, reservation_ids)
            place = place._replace(cursor=batch.cursor, as_of_ms=batch.as_of_ms or place.as_of_ms)
            self._store.write(place, stocks, reservations)
            if self._consumer_id:
                await self._client.acknowledge_changes(self._consumer_id, batch.cursor)
            yield place, Written(len(stocks), len(reservations), batch.as_of_ms)

    async def _stocks(self, keys: dict[StockKey, None]) -> list[Stock]:
        if len(keys) < LISTED_RATHER_FROM:
            return await self._read(self._client.get_stock, keys)
        listed = [stock async for page in self._pages(self._client.list_stock) for stock in page]
        return [stock for stock in listed if stock.stock_key in keys]

    async def _read(self, reading: Callable[[W], Awaitable[T]], wanted: Iterable[W]) -> list[T]:
        """Each now, some at a time. What is not known any more left memory with its window: its row stays as it was."""

        async def one(key: W) -> T | None:
            pause_s = 0.1
            while True:
                try:
                    async with self._reads:
                        return await reading(key)
                except StockadeError as error:
                    if error.code.name == "NOT_FOUND":
                        return None
                    if error.code.name not in ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"):
                        raise
                await asyncio.sleep(pause_s)  # nothing is lost by waiting: the cursor has not moved
                pause_s = min(PAUSE_S_MAX, 2 * pause_s)

        found = await asyncio.gather(*(one(key) for key in wanted))
        return [one for one in found if one is not None]
