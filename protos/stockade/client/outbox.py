"""Events on their way through a stream: given, sent, settled. Shared by both clients' event streams.

It knows no connection, thread or clock. An event stays here until its result is final, so that a stream that broke can be
opened anew and told everything again, in the same order and with the same ids.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stockade.client import reading
from stockade.client.results import Ingested

EVENTS_PER_MESSAGE_MAX = 500  # half of what a message may bring: the service answers in batches of about this size
BYTES_PER_MESSAGE_MAX = 1024 * 1024  # a quarter of what a message may have
UNSETTLED_MAX = 10_000  # given and without a final result: then ``send`` waits


@dataclass(frozen=True, slots=True)
class Settled:
    """An event and what became of it for good."""

    event: Any
    result: Ingested


class Outbox:
    """The events of one source and stream that have no final result yet, in the order given."""

    def __init__(self, source_id: str, stream_id: str, unsettled_max: int = UNSETTLED_MAX) -> None:
        self.source_id = source_id
        self.stream_id = stream_id
        self.outcomes: Counter[str] = Counter()
        self._unsettled_max = unsettled_max
        self._waiting: deque[Any] = deque()
        self._sent: deque[Any] = deque()
        self._window = 0

    @property
    def unsettled(self) -> int:
        """Events without a final result."""
        return len(self._waiting) + len(self._sent)

    @property
    def full(self) -> bool:
        """Whether another event must wait."""
        return self.unsettled >= self._unsettled_max

    def give(self, event: Any) -> None:
        """One more event. ValueError when it belongs to another stream; a source or stream that it lacks is filled in."""
        event.source_id = event.source_id or self.source_id
        event.stream_id = event.stream_id or self.stream_id
        if (event.source_id, event.stream_id) != (self.source_id, self.stream_id):
            raise ValueError(
                f"event {event.event_id!r} is of source {event.source_id!r}, stream {event.stream_id!r}; "
                f"this stream is of {self.source_id!r}, {self.stream_id!r}"
            )
        self._waiting.append(event)

    def opened(self, window: int) -> None:
        """A connection is ready for so many events without a result."""
        self._window = window

    def take(self) -> list[Any]:
        """The next events to send in one message; empty when there are none, or no more may be sent now."""
        room = min(self._window - len(self._sent), EVENTS_PER_MESSAGE_MAX)
        taken: list[Any] = []
        size = 0
        while self._waiting and len(taken) < room:
            size += self._waiting[0].ByteSize()
            if taken and size > BYTES_PER_MESSAGE_MAX:
                break
            taken.append(self._waiting.popleft())
        self._sent.extend(taken)
        return taken

    def settle(self, results: Iterable[Any]) -> tuple[list[Settled], int]:
        """Results as they came; what is final with them, and for how many milliseconds to send nothing.

        An event that the service could not decide now goes back to the front, to be sent again.
        """
        settled: list[Settled] = []
        again: list[Any] = []
        pause_ms = 0
        for message in results:
            event = self._sent.popleft()
            result = reading.ingested(message)
            if result.retryable:
                again.append(event)
                pause_ms = max(pause_ms, result.retry_after_ms)
                continue
            self.outcomes[result.outcome] += 1
            settled.append(Settled(event, result))
        self._waiting.extendleft(reversed(again))
        return settled, pause_ms

    def lost(self) -> None:
        """The connection is gone: what was sent without a result is to be sent again, first."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        self._window = 0
