"""Event streams: StreamEvents kept open over broken connections, blocking and for asyncio.

Give events, get each one's final result by ``on_result``. Owns connecting, pausing and giving up; which events are to be sent
is ``stockade.client.outbox``. ``watermark`` and ``highest_sequence`` say how far the source had come when the stream was
opened: what lies at or below the watermark need not be told again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from stockade.client.errors import StockadeError, from_call_error
from stockade.client.outbox import Outbox, Settled
from stockade.client.results import Ingested
from stockade.client.retrying import RetryPolicy
from stockade.v1 import warehouse_event_service_pb2 as pb

STREAM_EVENTS = "/stockade.v1.WarehouseEventService/StreamEvents"
PATIENCE_S = 60.0  # without any answer while there is something to answer; then the stream gives up
# gRPC's own words, without a reason of the service, for a connection that broke while it was written to.
BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)

OnResult = Callable[[Any, Ingested], None]


class _Course:
    """What both kinds of stream know: the outbox, how far the source was, when something last happened."""

    def __init__(
        self,
        outbox: Outbox,
        on_result: OnResult | None,
        retry: RetryPolicy,
        patience_s: float,
    ) -> None:
        self.outbox = outbox
        self.error: Exception | None = None  # why it gave up, or what ``on_result`` raised
        self.opened: Any = None
        self.closing = False
        self._telling = 0  # results that ``on_result`` has not taken yet
        self._on_result = on_result
        self._retry = retry
        self.patience_s = patience_s
        self._failures = 0
        self._last_error: StockadeError | None = None
        self._moved_at_s = time.monotonic()

    def opening(self) -> Any:
        """The first message of a connection."""
        outbox = self.outbox
        return pb.StreamEventsRequest(opening=pb.StreamOpening(source_id=outbox.source_id, stream_id=outbox.stream_id))

    def given(self) -> None:
        """An event is about to be given: patience counts from here when nothing was waiting."""
        if not self.outbox.unsettled:
            self._moved_at_s = time.monotonic()

    def heard(self, message: Any) -> tuple[list[Settled], float]:
        """A message of the service: what is settled by it, and for how many seconds to send nothing."""
        if message.HasField("opened"):
            self._moved()
            self.opened = message.opened
            self.outbox.opened(message.opened.unacknowledged_events_max)
        settled, pause_ms = self.outbox.settle(message.results)
        if settled:
            self._moved()
        self._telling = len(settled)
        return settled, pause_ms / 1000

    def tell(self, settled: list[Settled]) -> None:
        """Hand results to who wants them."""
        if self._on_result is not None:
            for each in settled:
                self._on_result(each.event, each.result)
        self._telling = 0

    @property
    def idle(self) -> bool:
        """Whether every event has its final result, and its giver knows it."""
        return not (self.outbox.unsettled or self._telling)

    def failed(self, error: StockadeError) -> float:
        """The connection ended so. How long to wait before the next; raises the error when there is none."""
        self.outbox.lost()
        self._last_error = error
        self._failures += 1
        broken = not error.reason and error.code in BROKEN
        if not (error.retryable or broken) or (self.opened is None and self.impatient):
            raise error
        ceiling_ms = min(self._retry.pause_ms_max, self._retry.first_pause_ms * 2 ** min(self._failures, 16))
        pause_ms: float = max(error.retry_after_ms, ceiling_ms * random.random())  # noqa: S311  jitter, no secret
        return pause_ms / 1000

    def check(self) -> None:
        """Raises StockadeError when the stream gave up, or has to now."""
        if self.error is None and not self.idle and self.impatient:
            self.error = self.no_answer()
        if self.error is not None:
            raise self.error

    def no_answer(self) -> StockadeError:
        """Why patience ended: what went wrong last, or just that."""
        return self._last_error or StockadeError(
            f"no answer for {self.patience_s:g} seconds", code=grpc.StatusCode.DEADLINE_EXCEEDED
        )

    @property
    def impatient(self) -> bool:
        """Whether nothing has happened for too long."""
        return time.monotonic() - self._moved_at_s > self.patience_s

    def _moved(self) -> None:
        self._moved_at_s = time.monotonic()
        self._failures = 0
        self._last_error = None


class _Told:
    """What callers may ask of either kind of stream."""

    _course: _Course

    @property
    def outcomes(self) -> Counter[str]:
        """How many events ended how: APPLIED, DUPLICATE, DEFERRED, REJECTED, FAILED."""
        return self._course.outbox.outcomes

    @property
    def unsettled(self) -> int:
        """Events given that have no final result yet."""
        return self._course.outbox.unsettled

    @property
    def watermark(self) -> int:
        """Every event of the stream up to this sequence was received when the stream was opened."""
        return int(self._course.opened.watermark)

    @property
    def highest_sequence(self) -> int:
        """The highest sequence received when the stream was opened."""
        return int(self._course.opened.highest_sequence)


class AsyncEventStream(_Told):
    """For asyncio; made by ``AsyncClient.event_stream``. Use it as ``async with``: entering opens, leaving waits for all."""

    def __init__(self, connect: Callable[[], Any], course: _Course) -> None:
        self._connect = connect
        self._course = course
        self._changed = asyncio.Condition()
        self._ready_at_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncEventStream:
        self._task = asyncio.get_running_loop().create_task(self._run())
        course = self._course
        try:
            async with asyncio.timeout(course.patience_s), self._changed:
                await self._changed.wait_for(lambda: course.opened is not None or course.error is not None)
        except TimeoutError:
            course.error = course.no_answer()
        except BaseException:  # whoever waits here gave up: leaving is never called
            await self._end()
            raise
        if course.error is not None:
            await self._end()
            raise course.error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.flush()
        finally:
            await self._end()

    async def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def send(self, event: Any) -> None:
        """Give an event; waits while too many have no result. Raises StockadeError when the stream has given up."""
        course = self._course
        course.check()
        while course.outbox.full:
            await self._wait()
        course.given()
        course.outbox.give(event)
        async with self._changed:
            self._changed.notify_all()

    async def flush(self) -> None:
        """Wait until every event has its final result. Raises StockadeError when the stream has given up."""
        while not self._course.idle:
            await self._wait()

    async def _wait(self) -> None:
        """For anything to change, or for patience to end."""
        self._course.check()
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
        self._course.check()

    async def _run(self) -> None:
        course = self._course
        try:
            while True:
                try:
                    await self._talk()
                except grpc.RpcError as failure:
                    await asyncio.sleep(course.failed(from_call_error(failure)))
        except Exception as error:  # noqa: BLE001  also what on_result raised: it reaches the caller by ``check``
            course.error = error
        async with self._changed:
            self._changed.notify_all()

    async def _talk(self) -> None:
        """One connection, until it ends; a service that ends it well is asked again like one that fails."""
        call = self._connect()
        sender = None
        try:
            await call.write(self._course.opening())
            while (message := await call.read()) is not grpc.aio.EOF:
                settled, pause_s = self._course.heard(message)
                self._ready_at_s = max(self._ready_at_s, time.monotonic() + pause_s)
                self._course.tell(settled)
                async with self._changed:
                    self._changed.notify_all()
                if sender is None:
                    sender = asyncio.get_running_loop().create_task(self._send(call))
            await asyncio.sleep(self._course.failed(_ended()))
        finally:
            if sender is not None:
                sender.cancel()
            call.cancel()

    async def _send(self, call: Any) -> None:
        outbox = self._course.outbox
        while True:
            pause_s = self._ready_at_s - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            events = outbox.take()
            if events:
                await call.write(pb.StreamEventsRequest(events=events))
            else:
                async with self._changed:
                    await self._changed.wait()


class EventStream(_Told):
    """Blocking; made by ``Client.event_stream``. Use it as ``with``: entering opens, leaving waits for all.

    ``on_result`` is called from the stream's own thread. Give events from one thread.
    """

    def __init__(self, connect: Callable[[Iterator[Any]], Any], course: _Course) -> None:
        self._connect = connect
        self._course = course
        self._changed = threading.Condition()  # guards the course and its outbox
        self._ready_at_s = 0.0
        self._connection = 0
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name="stockade-event-stream", daemon=True)

    def __enter__(self) -> EventStream:
        course = self._course
        self._thread.start()
        with self._changed:
            known = self._changed.wait_for(
                lambda: course.opened is not None or course.error is not None, course.patience_s
            )
            if not known:
                course.error = course.no_answer()
        if course.error is not None:
            self._end()
            raise course.error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._course.closing = True
            self._connection += 1
            self._changed.notify_all()
        if self._call is not None:
            self._call.cancel()
        self._thread.join(5.0)

    def send(self, event: Any) -> None:
        """Give an event; waits while too many have no result. Raises StockadeError when the stream has given up."""
        course = self._course
        with self._changed:
            course.check()
            while course.outbox.full:
                self._changed.wait(1.0)
                course.check()
            course.given()
            course.outbox.give(event)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until every event has its final result. Raises StockadeError when the stream has given up."""
        with self._changed:
            while not self._course.idle:
                self._course.check()
                self._changed.wait(1.0)

    def _run(self) -> None:
        course = self._course
        try:
            while True:
                try:
                    self._talk()
                    error = _ended()
                except grpc.RpcError as failure:
                    error = from_call_error(failure)
                with self._changed:
                    if course.closing:
                        return
                    self._connection += 1  # ends the requests of the connection that is gone
                    pause_s = course.failed(error)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: course.closing, pause_s)
        except Exception as error:  # noqa: BLE001  also what on_result raised: it reaches the caller by ``check``
            with self._changed:
                course.error = error
                self._changed.notify_all()

    def _talk(self) -> None:
        with self._changed:
            if self._course.closing:
                return
            self._call = call = self._connect(self._requests(self._connection))
        for message in call:
            with self._changed:
                settled, pause_s = self._course.heard(message)
                self._ready_at_s = max(self._ready_at_s, time.monotonic() + pause_s)
            self._course.tell(settled)
            with self._changed:
                self._changed.notify_all()

    def _requests(self, connection: int) -> Iterator[Any]:
        """What one connection sends; gRPC asks for it from a thread of its own."""
        yield self._course.opening()
        while True:
            with self._changed:
                if connection != self._connection:
                    return
                pause_s = self._ready_at_s - time.monotonic()
                events = self._course.outbox.take() if pause_s <= 0 else []
                if not events:
                    self._changed.wait(pause_s if pause_s > 0 else None)
                    continue
            yield pb.StreamEventsRequest(events=events)


def _ended() -> StockadeError:
    """A service that ends a stream of which more is expected."""
    return StockadeError("the stream was ended by the service", code=grpc.StatusCode.UNAVAILABLE, outcome="unknown")


def course_of(  # noqa: PLR0913  what a caller may choose
    source_id: str,
    stream_id: str,
    on_result: OnResult | None,
    *,
    retry: RetryPolicy,
    unsettled_max: int,
    patience_s: float,
) -> _Course:
    """What a new stream begins with. Raises ValueError for a missing source."""
    if not source_id:
        raise ValueError("source_id: who tells the events?")
    return _Course(Outbox(source_id, stream_id, unsettled_max), on_result, retry, patience_s)
