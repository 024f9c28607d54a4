"""One call of StreamEvents: reads events, sends what has arrived to its shards, writes results in the order of the events.

Owns batching and flow control of one stream. It has no timer: while a few batches are under way, what arrives gathers into the
next. It reads no further than its bound of events without a result, so gRPC stops the sender. What an event means is the
shard's; how a batch travels is ``gateway.servicers.warehouse_events``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from actors.domain.outcomes import ErrorReason
from gateway.config import (
    STREAM_BATCH_EVENTS_MAX,
    STREAM_BATCHES_MAX,
    STREAM_BYTES_MAX,
    STREAM_EVENTS_MAX,
)
from gateway.errors import CallFailed
from gateway.streams import Stream
from stockade.v1 import warehouse_event_service_pb2 as pb

# Events and their bytes → a StreamEventsResponse with one result each, in their order, serialized. Put one behind the other such
# bytes are the message of both: repeated fields are added up, of others the last counts.
Ingest = Callable[[Sequence[pb.WarehouseEvent], int], Coroutine[Any, Any, bytes]]
Check = Callable[[pb.StreamEventsRequest], None]


class EventStream:
    """Runs one stream after its opening.

    ``check``: raises CallFailed for a message that ends the stream. ``closing``: set when the gateway stops. In both cases
    what was read before is answered first.
    """

    def __init__(self, stream: Stream, ingest: Ingest, check: Check, closing: asyncio.Event) -> None:
        self._stream = stream
        self._ingest = ingest
        self._check = check
        self._closing = closing
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[tuple[pb.WarehouseEvent, int]] = deque()  # with its share of the message's bytes
        self._under_way: deque[_Batch] = deque()  # in the order sent
        self._unanswered = self._unanswered_bytes = 0
        self._woken = asyncio.Event()  # something arrived, or nothing more will
        self._answered = asyncio.Event()

    async def run(self) -> None:
        """Until the caller has said all and has all its results. Raises CallFailed."""
        reader, closing = self._loop.create_task(self._read()), self._loop.create_task(self._closing.wait())
        closing.add_done_callback(lambda _: reader.cancel())
        reader.add_done_callback(lambda _: self._woken.set())
        try:
            while not reader.done() or self._arrived or self._under_way:
                self._send()
                if self._under_way:
                    await self._answer()
                else:
                    self._woken.clear()
                    if not reader.done():
                        await self._woken.wait()
            if reader.cancelled():
                raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, "the gateway stops: open the stream anew")
            reader.result()
        finally:
            reader.cancel()
            closing.cancel()
            for batch in self._under_way:
                batch.task.cancel()

    async def _read(self) -> None:
        while True:
            while self._unanswered >= STREAM_EVENTS_MAX or self._unanswered_bytes >= STREAM_BYTES_MAX:
                self._answered.clear()
                await self._answered.wait()
            message = await self._stream.read()
            if message is None:
                return
            self._check(message)
            events = message.events
            share = message.ByteSize() // max(1, len(events)) + 1
            self._unanswered += len(events)
            self._unanswered_bytes += share * len(events)
            self._arrived.extend([(event, share) for event in events])
            self._send()
            self._woken.set()

    def _send(self) -> None:
        """Whatever has arrived, in batches, while there may be more of them under way. Half a batch is worth the second
        half of the places, one event is not: a frame costs a host the same whether it brings one event or hundreds.
        """
        while self._arrived:
            few = len(self._arrived) < STREAM_BATCH_EVENTS_MAX // 2
            if len(self._under_way) >= (STREAM_BATCHES_MAX // 2 if few else STREAM_BATCHES_MAX):
                return
            taken = [self._arrived.popleft() for _ in range(min(len(self._arrived), STREAM_BATCH_EVENTS_MAX))]
            size = sum(share for _, share in taken)
            asked = self._loop.create_task(self._ingest([event for event, _ in taken], size))
            self._under_way.append(_Batch(asked, len(taken), size))

    async def _answer(self) -> None:
        """The results of the oldest batch, and of those behind it that are there as well."""
        response = await self._under_way[0].task
        self._end_batch()
        while self._under_way and self._under_way[0].task.done():
            response += self._under_way[0].task.result()
            self._end_batch()
        self._answered.set()
        self._send()  # before writing, which may have to wait for the caller
        await self._stream.write(response)

    def _end_batch(self) -> None:
        batch = self._under_way.popleft()
        self._unanswered -= batch.events
        self._unanswered_bytes -= batch.size


class _Batch:
    """Events on their way."""

    __slots__ = ("events", "size", "task")

    def __init__(self, task: asyncio.Task[bytes], events: int, size: int) -> None:
        self.task = task
        self.events = events
        self.size = size
