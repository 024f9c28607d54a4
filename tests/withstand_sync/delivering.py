"""Delivers events to a running service through the real client: in batches and over event streams, over and over until each
was answered, with connections that are closed and opened again all the time. Which events, in which order, is the caller's.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stockade import AsyncClient, StockadeError
from stockade.client import facts
from stockade.client.results import Ingested
from tests.simulation.feed_oracle import WarehouseEvent

BATCH_MAX = 1_000
RECONNECT_AFTER_BATCHES = 20
STREAMED_BEFORE_RECONNECT = 4_000
PATIENCE_S = 180.0


def message(event: WarehouseEvent) -> Any:
    """As the client sends it."""
    warehouse, sku = event.key
    told = facts.Told(
        event.source_id, event.event_id, (sku, warehouse), event.occur_time_ms, event.stream_id, event.source_sequence,
        document_line=event.document_line,
    )  # fmt: skip
    details = event.details
    if event.fact == "RECEIPT":
        return facts.receipt(told, details["quantity"], into=details["disposition"])
    if event.fact == "ADJUSTMENT":
        return facts.adjustment(told, details["delta"], reason=details["reason"][:100])
    if event.fact == "STOCK_COUNT":
        return facts.stock_count(
            told,
            details["quantity"],
            as_of=details["as_of_source_sequence"],
            includes_picked=details["includes_picked"],
        )
    if event.fact == "CUSTOMER_RETURN":
        return facts.customer_return(told, details["quantity"], into=details["disposition"])
    _, channel, reference, line_id = details["promise"]
    promised = facts.promise(channel_id=channel, order_reference=reference, line_id=line_id)
    if event.fact == "PICK":
        return facts.pick(told, details["quantity"], promised)
    return facts.shipment(told, details["quantity"], details["shipment_id"], promised)


@dataclass
class Told:
    """What became of what was sent. ``final``: event id → its last answer; ``sent``: copies answered so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    rejected: dict[str, str] = field(default_factory=dict)  # event id → reason
    answered: set[str] = field(default_factory=set)
    sent: int = 0
    asked_again: int = 0
    reconnects: int = 0

    def take(self, event_id: str, result: Ingested) -> None:
        """A result that is final for this copy."""
        self.sent += 1
        self.outcomes[result.outcome] += 1
        self.answered.add(event_id)
        if result.outcome == "REJECTED":
            self.rejected[event_id] = result.reason


class Deliverer:
    """Sends copies in order, several batches at a time. ``progress(copies answered)`` is called as it goes."""

    def __init__(self, target: str, progress: Callable[[int], None] = lambda sent: None, connections: int = 4) -> None:
        self._target = target
        self._progress = progress
        self._connections = connections
        self.told = Told()

    async def batches(self, copies: Sequence[Any]) -> None:
        """By IngestEvents."""
        queue: asyncio.Queue[list[Any]] = asyncio.Queue()
        for first in range(0, len(copies), BATCH_MAX):
            queue.put_nowait(list(copies[first : first + BATCH_MAX]))

        async def work() -> None:
            while not queue.empty():
                async with AsyncClient(self._target) as client:
                    self.told.reconnects += 1
                    for _ in range(RECONNECT_AFTER_BATCHES):
                        if queue.empty():
                            return
                        await self._batch(client, queue.get_nowait())

        async with asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(work())

    async def _batch(self, client: AsyncClient, events: list[Any]) -> None:
        left = events
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + PATIENCE_S
        while left:
            try:
                results = await client.ingest(left, timeout_s=20.0)
            except StockadeError as error:
                if loop.time() > give_up_s:
                    raise
                self.told.asked_again += 1
                await asyncio.sleep(max(0.05, error.retry_after_ms / 1000))
                continue
            again = []
            for event, result in zip(left, results, strict=True):
                if result.outcome == "FAILED":
                    again.append(event)
                else:
                    self.told.take(event.event_id, result)
            self.told.asked_again += len(again)
            left = again
            self._progress(self.told.sent)
            if left:
                if loop.time() > give_up_s:
                    raise AssertionError(f"an event is not answered: {left[0]}")
                await asyncio.sleep(0.05)

    async def streams(self, copies: Sequence[Any]) -> None:
        """By StreamEvents, one stream a source and stream; each is closed and opened again now and then."""
        by_stream: dict[tuple[str, str], list[Any]] = {}
        for event in copies:
            by_stream.setdefault((event.source_id, event.stream_id), []).append(event)
        async with asyncio.TaskGroup() as group:
            for (source, stream), events in by_stream.items():
                group.create_task(self._stream(source, stream, events))

    async def _stream(self, source: str, stream: str, events: Sequence[Any]) -> None:
        def take(event: Any, result: Ingested) -> None:
            self.told.take(event.event_id, result)
            if self.told.sent % BATCH_MAX == 0:
                self._progress(self.told.sent)

        for first in range(0, len(events), STREAMED_BEFORE_RECONNECT):
            async with AsyncClient(self._target) as client:
                self.told.reconnects += 1
                async with client.event_stream(source, stream, take, patience_s=PATIENCE_S) as told:
                    for event in events[first : first + STREAMED_BEFORE_RECONNECT]:
                        await told.send(event)


def shuffled(events: Sequence[Any], draw: random.Random, times: int = 3) -> list[Any]:
    """Each so many times, out of order by up to some minutes of the compressed year, and all copies of 5 % later still."""
    near = max(300, len(events) // 400)
    late = max(1_000, len(events) // 100)
    copies = []
    for place, event in enumerate(events):
        held_back = draw.randint(late, 3 * late) if draw.random() < 0.05 else 0
        copies += [(place + held_back + draw.random() * near, draw.random(), place, event) for _ in range(times)]
    copies.sort(key=lambda copy: copy[:3])
    return [event for _, _, _, event in copies]
