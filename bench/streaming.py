"""A closed loop over StreamEvents: each stream keeps as many events under way as the service allows, and counts its results.

What a broken stream left without a result is asked for again afterwards, as events of calls are. A message's latency runs from
its sending to its last result.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio

from bench.outcome import Outcome
from bench.traffic import SOURCE, Shot, count_ingested
from stockade.client.errors import from_call_error
from stockade.client.event_stream import STREAM_EVENTS
from stockade.v1 import warehouse_event_service_pb2 as pb


class StreamLoop:
    """So many streams over the connections, fed from one row of messages."""

    def __init__(self, channels: list[Any], outcome: Outcome) -> None:
        self._channels = channels
        self._outcome = outcome
        self._started = time.perf_counter()

    def now_s(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._started

    async def run(self, shots: Iterator[Shot], *, streams: int, seconds: float) -> Outcome:
        """Until the time is over and everything sent has its result. ``shots``: StreamEventsRequests with events."""
        self._started = time.perf_counter()
        await asyncio.gather(*[self._stream(number, shots, seconds) for number in range(streams)])
        self._outcome.seconds = self.now_s()
        return self._outcome

    async def _stream(self, number: int, shots: Iterator[Shot], seconds: float) -> None:
        outcome = self._outcome
        method = self._channels[number % len(self._channels)].stream_stream(
            STREAM_EVENTS, response_deserializer=pb.StreamEventsResponse.FromString
        )
        call = method()
        under_way: deque[tuple[Shot, float]] = deque()
        sender = None
        try:
            opening = pb.StreamEventsRequest(opening=pb.StreamOpening(source_id=SOURCE))
            await call.write(opening.SerializeToString())
            window = (await call.read()).opened.unacknowledged_events_max
            first = next(shots)
            room = asyncio.Semaphore(max(1, window // first.units))
            sender = asyncio.create_task(self._send(call, first, shots, under_way, room, seconds))
            results: list[Any] = []
            while (message := await call.read()) is not grpc.aio.EOF:
                results.extend(message.results)
                while under_way and len(results) >= under_way[0][0].units:
                    shot, sent_s = under_way.popleft()
                    room.release()
                    outcome.answered(sent_s, sent_s, self.now_s())
                    some = results[: shot.units]
                    if any(result.HasField("error") for result in some):
                        shot = as_call(shot)
                    count_ingested(outcome, shot, SimpleNamespace(results=some))
                    del results[: shot.units]
        except grpc.aio.AioRpcError as failure:
            error = from_call_error(failure)
            outcome.at_s = self.now_s()
            for shot, _ in under_way:
                outcome.fail(error.reason or error.code.name, shot.units)
                outcome.unknown.append(as_call(shot))
        finally:
            if sender is not None:
                sender.cancel()

    async def _send(  # noqa: PLR0913  the parts of one stream
        self,
        call: Any,
        first: Shot,
        shots: Iterator[Shot],
        under_way: deque[tuple[Shot, float]],
        room: asyncio.Semaphore,
        seconds: float,
    ) -> None:
        shot = first
        while True:
            await room.acquire()
            sent_s = self.now_s()
            if sent_s >= seconds:
                break
            self._outcome.planned += 1
            self._outcome.sent += 1
            under_way.append((shot, sent_s))
            await call.write(shot.request)
            shot = next(shots)
        await call.done_writing()


def as_call(shot: Shot) -> Shot:
    """The same events as one call of IngestEvents."""
    events = pb.StreamEventsRequest.FromString(shot.request).events
    return Shot("ingest", pb.IngestEventsRequest(events=events).SerializeToString(), shot.units)
