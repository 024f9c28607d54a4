"""Reading changes and watching availability, blocking and for asyncio: iterators that come back by their cursor.

Each change is yielded once as long as the iterator lives; a process that starts again begins at the cursor that it kept, and sees
what came after it again, with the same ids. Nothing is kept here but the cursor.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import grpc

from stockade.client import reading
from stockade.client.calls import AVAILABILITY, Call, Key, key_message
from stockade.client.change_results import (
    Acknowledged,
    ChangeBatch,
    Consumer,
    ResyncNeeded,
    WatchUpdate,
    consumer,
    enum_name,
)
from stockade.client.errors import StockadeError, from_call_error
from stockade.v1 import availability_service_pb2
from stockade.v1 import change_feed_service_pb2 as pb

FEED = "/stockade.v1.ChangeFeedService/"
PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 2.0
PATIENCE_S = 60.0

T = TypeVar("T")


class Course(ABC, Generic[T]):
    """One reader's course over the breaks of its connection: what to ask next, and how long to pause."""

    method = ""
    response_type: Any = None

    def __init__(self, patience_s: float | None) -> None:
        self._patience_s = patience_s
        self._failures = 0
        self._silent_since_s: float | None = None

    @abstractmethod
    def request(self) -> Any:
        """What to ask now."""

    @abstractmethod
    def take(self, message: Any) -> T | None:
        """What a message tells the caller."""

    def heard(self) -> None:
        """A message came."""
        self._failures = 0
        self._silent_since_s = None

    def pause_s(self, error: StockadeError | None, now_s: float) -> float:
        """How long to wait before asking again; raises the error when it makes no sense, or went on for too long."""
        self._failures += 1
        if self._silent_since_s is None:
            self._silent_since_s = now_s
        if error is not None:
            lost_patience = self._patience_s is not None and now_s - self._silent_since_s > self._patience_s
            if not error.retryable or lost_patience:
                raise error from None
        ceiling: float = min(PAUSE_S_MAX, PAUSE_S_MIN * 2 ** min(self._failures, 10))
        return max(error.retry_after_ms / 1000 if error is not None else 0.0, ceiling * random.random())


class ChangeCourse(Course[ChangeBatch]):
    """ReadChanges. ``start``: "oldest", "now" or "snapshot", where neither a cursor nor a consumer's place says where."""

    method = FEED + "ReadChanges"
    response_type = pb.ReadChangesResponse

    def __init__(  # noqa: PLR0913  what one may want of a stream
        self,
        *,
        cursor: str = "",
        start: str = "",
        consumer_id: str = "",
        kinds: Iterable[str] = (),
        channel_ids: Iterable[str] = (),
        warehouse_ids: Iterable[str] = (),
        skus: Iterable[str] = (),
        changes_per_message_max: int = 0,
        heartbeat_s: float | None = None,
        on_resync: str = "raise",
        patience_s: float | None = PATIENCE_S,
    ) -> None:
        super().__init__(patience_s)
        if start not in ("", "oldest", "now", "snapshot"):
            raise ValueError(f"start: {start!r} is none of oldest, now, snapshot")
        if on_resync not in ("raise", "snapshot"):
            raise ValueError(f"on_resync: {on_resync!r} is none of raise, snapshot")
        self.cursor = cursor
        self._start = start
        self._on_resync = on_resync
        self._resynced = ""
        self._wanted = pb.ReadChangesRequest(
            consumer_id=consumer_id,
            prefer_acknowledged=bool(consumer_id and start),
            changes_per_message_max=changes_per_message_max,
            filter=pb.ChangeFilter(
                kinds=[pb.ChangeKind.Value(f"CHANGE_KIND_{kind.upper()}") for kind in kinds],
                channel_ids=channel_ids,
                warehouse_ids=warehouse_ids,
                skus=skus,
            ),
        )
        if heartbeat_s is not None:
            self._wanted.heartbeat_interval.FromMilliseconds(round(heartbeat_s * 1000))

    def request(self) -> pb.ReadChangesRequest:
        """See ``Course``: from the last cursor, or from the start when there was none yet."""
        request = pb.ReadChangesRequest()
        request.CopyFrom(self._wanted)
        if self.cursor:
            request.cursor = self.cursor
        elif self._start == "snapshot":
            request.from_snapshot = True
        elif self._start == "oldest":
            request.from_oldest = True
        elif self._start == "now":
            request.from_now = True
        return request

    def take(self, message: pb.ReadChangesResponse) -> ChangeBatch | None:
        """See ``Course``. Raises ResyncNeeded, or begins anew."""
        if message.resync:
            reason = enum_name(pb.ResyncReason, message.resync)
            if self._on_resync == "raise":
                raise ResyncNeeded(reason)
            self.cursor, self._start, self._resynced = "", "snapshot", reason
            self._wanted.prefer_acknowledged = False
            return None
        self.cursor = message.cursor or self.cursor
        resynced, self._resynced = self._resynced, ""
        as_of_ms = reading.time_ms(message.as_of_time)
        return ChangeBatch(message.changes, message.cursor, message.delivery_id, as_of_ms, message.snapshot, resynced)


class WatchCourse(Course[WatchUpdate]):
    """WatchAvailability of some stock keys, or of a whole warehouse."""

    method = AVAILABILITY + "WatchAvailability"
    response_type = availability_service_pb2.WatchAvailabilityResponse

    def __init__(
        self,
        keys: Iterable[Key] = (),
        *,
        warehouse_id: str = "",
        channel_id: str = "",
        cursor: str = "",
        heartbeat_s: float | None = None,
        patience_s: float | None = PATIENCE_S,
    ) -> None:
        super().__init__(patience_s)
        self.cursor = cursor
        self._wanted = availability_service_pb2.WatchAvailabilityRequest(
            stock_keys=map(key_message, keys), warehouse_id=warehouse_id, channel_id=channel_id
        )
        if heartbeat_s is not None:
            self._wanted.heartbeat_interval.FromMilliseconds(round(heartbeat_s * 1000))

    def request(self) -> availability_service_pb2.WatchAvailabilityRequest:
        """See ``Course``."""
        request = availability_service_pb2.WatchAvailabilityRequest()
        request.CopyFrom(self._wanted)
        request.cursor = self.cursor
        return request

    def take(self, message: availability_service_pb2.WatchAvailabilityResponse) -> WatchUpdate:
        """See ``Course``."""
        self.cursor = message.cursor or self.cursor
        return WatchUpdate(
            [reading.availability(one) for one in message.availabilities],
            message.cursor,
            reading.time_ms(message.as_of_time),
            message.snapshot,
        )


def follow(open_stream: Callable[[Any], Any], course: Course[T]) -> Iterator[T]:
    """Yield what comes, for ever; broken connections are made anew. ``open_stream``: a blocking call."""
    while True:
        stream = open_stream(course.request())
        error: StockadeError | None = None
        try:
            for message in stream:
                course.heard()
                told = course.take(message)
                if told is not None:
                    yield told
        except grpc.RpcError as failure:
            error = from_call_error(failure)
        finally:
            stream.cancel()
        time.sleep(course.pause_s(error, time.monotonic()))


async def follow_async(open_stream: Callable[[Any], Any], course: Course[T]) -> AsyncIterator[T]:
    """As ``follow``, over an asyncio call."""
    while True:
        stream = open_stream(course.request())
        error: StockadeError | None = None
        try:
            async for message in stream:
                course.heard()
                told = course.take(message)
                if told is not None:
                    yield told
        except grpc.RpcError as failure:
            error = from_call_error(failure)
        finally:
            stream.cancel()
        await asyncio.sleep(course.pause_s(error, time.monotonic()))


def acknowledge_call(
    consumer_id: str, cursor: str = "", *, rejections: Iterable[tuple[str, str]] = (), error: str = ""
) -> Call[Acknowledged]:
    """AcknowledgeChanges; rejections are (change id, reason). It may be said twice."""
    message = pb.AcknowledgeChangesRequest(consumer_id=consumer_id, cursor=cursor, error=error)
    for change_id, reason in rejections:
        message.rejections.add(change_id=change_id, reason=reason)
    return Call(
        FEED + "AcknowledgeChanges",
        message,
        pb.AcknowledgeChangesResponse,
        lambda response, _: Acknowledged(consumer(response.consumer), list(response.exception_ids)),
    )


def consumers_call() -> Call[list[Consumer]]:
    """ListConsumers."""
    return Call(
        FEED + "ListConsumers",
        pb.ListConsumersRequest(),
        pb.ListConsumersResponse,
        lambda response, _: [consumer(one) for one in response.consumers],
    )
