"""One call of WatchAvailability: current values first, then what changed, with how fresh all of it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason
from gateway.changes.cursors import Cursor, cursor_text
from gateway.changes.reader import ChangeReader, RowBatch
from gateway.changes.rows import WAREHOUSE, RowFilter
from gateway.changes.watching import Watch, WatchBoard
from gateway.errors import CallFailed
from gateway.servicers.desk import Desk
from gateway.streams import Stream
from gateway.translate import answers
from stockade.v1 import availability_service_pb2 as pb

VALUES_PER_MESSAGE = 1_000
PAGE_SIZE = 500
CATCH_UP_COUNT = 10_000


class WatchStream:
    """Runs one watch. ``shard_of``: stock key → shard, of the keys watched (none: all of ``warehouse_id``)."""

    def __init__(  # noqa: PLR0913  what one watch is made of
        self,
        desk: Desk,
        board: WatchBoard,
        stream: Stream,
        *,
        shard_of: dict[str, int],
        warehouse_id: str,
        channel_id: str,
        heartbeat_s: float,
        cause: Sequence[str],
    ) -> None:
        self._desk = desk
        self._hub = desk.changes
        self._board = board
        self._stream = stream
        self._shard_of = shard_of
        self._warehouse_id = warehouse_id
        self._channel_id = channel_id
        self._heartbeat_s = heartbeat_s
        self._cause = cause
        self._watch = Watch(shard_of, warehouse_id)

    async def run(self, cursor: Cursor | None) -> None:
        """Until the caller goes or the gateway stops."""
        watch = self._watch
        resumed = cursor is not None and await self._resume(cursor)
        self._board.add(watch)  # without a pause since the resumed reader stood at the tails
        try:
            watch.again = watch.again or not resumed
            while not self._desk.closing.is_set():
                if watch.again:
                    await self._read_anew()
                    if self._hub.closed:
                        break
                await self._send_pending()
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        await watch.woken.wait()
                except TimeoutError:
                    continue
        finally:
            self._board.remove(watch)
        raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, "the gateway stops: go on from your cursor", retry_after_ms=100)

    # --- how it begins ---------------------------------------------------------------------------------------------------

    async def _resume(self, cursor: Cursor) -> bool:
        """Send what changed since the cursor; False when that cannot be told, or is more than the current values."""
        watch = self._watch
        wanted = RowFilter(warehouse_ids=watch.warehouses)
        places = {shard: cursor.sequences.get(shard, 0) for shard in self._hub.shards}
        reader = ChangeReader(self._hub, cursor.timeline, places, wanted, cursor.time_ms)
        try:
            return await self._catch_up(reader)
        finally:
            reader.close()

    async def _catch_up(self, reader: ChangeReader) -> bool:
        watch = self._watch
        latest: dict[str, tuple[int, Any]] = {}
        while True:
            batch = await reader.next(CATCH_UP_COUNT, self._heartbeat_s, RowBatch)
            assert isinstance(batch, RowBatch)
            if batch.resync:
                return False
            for shard, row in batch.rows:
                if row[0] == WAREHOUSE:
                    return False
                if row[0] == 1 and (not watch.keys or row[3] in watch.keys):
                    known = latest.get(row[3])
                    if known is None or row[6] >= known[1][6]:
                        latest[row[3]] = (shard, row)
            if batch.as_of_ms:
                break
        for shard, row in latest.values():
            watch.take(shard, row, reader.places[shard])
        return True

    async def _read_anew(self) -> None:
        """Send the current value of everything watched. What changes meanwhile is pending, and sent when the feed has come
        past what these values had seen: so nothing older than they are follows them."""
        watch = self._watch
        watch.again = False
        highest: dict[int, int] = {}
        async for values, shard, position in self._current():
            highest[shard] = max(highest.get(shard, 0), position[2])
            await self._send([(shard, key, *value, position[2]) for key, *value in values], snapshot=True)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._desk.config.route_patience_ms / 1000
        while any(self._known(shard) < sequence for shard, sequence in highest.items()) and not watch.again:
            if loop.time() > end_s:
                raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, "the change feed stands still", retry_after_ms=500)
            await self._hub.wait(0.1)

    def _known(self, shard: int) -> int:
        tail = self._hub.tails.by_shard.get(shard)
        return tail.upto if tail is not None else -1

    async def _current(self) -> AsyncIterator[tuple[list[Any], int, Sequence[int]]]:
        """([(key, available, known, stale), …], shard, position) a page, from the stock actors."""
        if not self._shard_of:
            for shard in self._hub.shards:
                start = 0
                while True:
                    body = [self._warehouse_id, PAGE_SIZE, start]
                    item = [int(Verb.LIST_AVAILABILITY), shard, 0, PAGE_SIZE, self._cause, body]
                    (page,) = await self._desk.ask_now([item])
                    if page[0]:
                        yield [(key, available, True, stale) for key, available, stale in page[0]], shard, page[2]
                    start = page[1]
                    if not start:
                        break
            return
        by_shard: dict[int, list[str]] = {}
        for key, shard in self._shard_of.items():
            by_shard.setdefault(shard, []).append(key)
        verb = int(Verb.GET_AVAILABILITY)
        items = [[verb, shard, 0, len(keys), self._cause, [self._channel_id, keys]] for shard, keys in by_shard.items()]
        for (shard, keys), (views, position) in zip(by_shard.items(), await self._desk.ask_now(items), strict=True):
            yield [(key, *view[:3]) for key, view in zip(keys, views, strict=True)], shard, position

    # --- what is sent ----------------------------------------------------------------------------------------------------

    async def _send_pending(self) -> None:
        """What changed since the last message, or that nothing did."""
        places = self._hub.places()
        as_of_ms = self._hub.as_of()[1]
        rows = self._watch.taken(places)
        if self._watch.again:
            return
        values = [(shard, row[3], row[4], True, row[5], row[6]) for shard, row in rows]
        cursor = cursor_text(self._hub.timeline, as_of_ms, places) if self._hub.ready else ""
        while len(values) > VALUES_PER_MESSAGE:
            await self._send(values[:VALUES_PER_MESSAGE])
            values = values[VALUES_PER_MESSAGE:]
        await self._send(values, cursor=cursor, as_of_ms=as_of_ms)

    async def _send(
        self, values: Sequence[Any], *, snapshot: bool = False, cursor: str = "", as_of_ms: int = 0
    ) -> None:
        timeline, epochs = self._hub.timeline, self._hub.epochs
        by = pb.ANSWERED_BY_STOCK_ACTOR if snapshot else pb.ANSWERED_BY_GATEWAY_VIEW
        message = pb.WatchAvailabilityResponse(cursor=cursor, as_of_time=answers.timestamp(as_of_ms), snapshot=snapshot)
        for shard, key, available, known, stale, seen in values:
            message.availabilities.add(
                stock_key=answers.stock_key(key),
                channel_id=self._channel_id,
                available_quantity=available,
                known=known,
                stale=stale,
                position=answers.position(timeline, (shard, epochs.get(shard, 0), seen, 0)),
                answered_by=by,
            )
        await self._stream.write(message)
