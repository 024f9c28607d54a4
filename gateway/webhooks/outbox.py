"""What one webhook still has to deliver: batches, retries, splitting, giving up, and how far all of it is settled.

Sans-IO: changes, verdicts, time and chance come in; requests to make and positions to acknowledge go out.

Order: a change's key (its stock key or reservation) always goes to the same lane; a lane has one batch under way, and
begins the next when that one was accepted or given up. So of one key a receiver sees changes in their order, except
that a batch whose answer was lost comes again. Lanes do not wait for each other.

A batch that the endpoint refuses for its content is sent again in halves, so that only the change that it will not
have is given up. A change is settled when it was accepted or given up; what may be acknowledged is the cursor up to
which all is settled.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.webhooks.config import PIECE_ATTEMPTS_MAX, REJECTIONS_PER_ACKNOWLEDGEMENT_MAX, WebhookConfig
from gateway.webhooks.patience import Circuit, Draw, backoff_ms
from gateway.webhooks.verdicts import Outcome, Verdict


@dataclass(frozen=True, slots=True)
class Change:
    """One change as it goes out. ``change_id``: as the feed names it, "" for a notice that is none of its changes;
    ``order_key``: what its order is kept for; ``event``: its CloudEvent as JSON.
    """

    change_id: str
    order_key: str
    event: bytes


@dataclass(slots=True)
class Chunk:
    """Changes that were read together. ``cursor``: behind the last of them."""

    cursor: str
    unsettled: int
    read_at_ms: int


@dataclass(frozen=True, slots=True)
class Waiting:
    change: Change
    chunk: Chunk


@dataclass(slots=True)
class Batch:
    """What one request carries. ``first_try_ms`` is -1 before it."""

    batch_id: str
    items: tuple[Waiting, ...]
    attempts_max: int
    attempts: int = 0
    first_try_ms: int = -1
    accepted_before: int = 0  # requests the endpoint had accepted when this batch failed first
    retry_at_ms: int = 0
    in_flight: bool = False

    def body(self) -> bytes:
        """A CloudEvents batch."""
        return b"[" + b",".join(item.change.event for item in self.items) + b"]"


@dataclass(slots=True)
class Lane:
    waiting: deque[Waiting] = field(default_factory=deque)
    batch: Batch | None = None
    pieces: deque[Batch] = field(default_factory=deque)  # of a batch that was split; before what waits


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to acknowledge: everything up to ``cursor`` ("": no news of it), (change id, reason) of what was given up,
    and what keeps the webhook from going on ("": nothing).
    """

    cursor: str
    rejections: tuple[tuple[str, str], ...] = ()
    error: str = ""


class Outbox:
    """See the module. ``new_id`` makes ids of batches, ``draw`` numbers in [0, 1)."""

    def __init__(self, config: WebhookConfig, draw: Draw, new_id: Callable[[], str]) -> None:
        self._config = config
        self._draw = draw
        self._new_id = new_id
        self._lanes = [Lane() for _ in range(config.lanes)]
        self._chunks: deque[Chunk] = deque()
        self._rejections: list[tuple[str, str]] = []
        self._told_error = ""
        self.circuit = Circuit(
            config.circuit_failures_max, config.circuit_pause_ms_min, config.circuit_pause_ms_max, draw
        )
        self.paused_until_ms = 0  # the endpoint asked for it
        self.disabled = False
        self._held = False
        self._first_lane = 0
        self.in_flight = 0
        self.unsettled = 0
        self.accepted_requests = 0
        self.accepted_changes = 0
        self.given_up_changes = 0
        self.last_error = ""

    # --- in ---------------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many more changes may be taken in."""
        return self._config.unsettled_changes_max - self.unsettled

    @property
    def chunks_held(self) -> int:
        """How many parts of the feed wait until all before them is settled."""
        return len(self._chunks)

    def take(self, changes: Sequence[Change], cursor: str, now_ms: int) -> None:
        """Changes in the order of the feed, and the cursor behind them; also none, when only the cursor moved."""
        if not changes and self._chunks:
            self._chunks[-1].cursor = cursor or self._chunks[-1].cursor
            return
        chunk = Chunk(cursor, len(changes), now_ms)
        self._chunks.append(chunk)
        self.unsettled += len(changes)
        for change in changes:
            lane = zlib.crc32(change.order_key.encode()) % len(self._lanes)
            self._lanes[lane].waiting.append(Waiting(change, chunk))

    def hold(self) -> None:
        """Begin no request until ``forget``."""
        self._held = True

    def forget(self) -> None:
        """Drop all: the feed began anew, nothing of this can be acknowledged any more. Nothing may be under way."""
        assert self.in_flight == 0
        self._held = False
        self._lanes = [Lane() for _ in self._lanes]
        self._chunks.clear()
        self._rejections.clear()
        self.unsettled = 0

    # --- out --------------------------------------------------------------------------------------------------------

    def due(self, now_ms: int) -> list[Batch]:
        """Batches to send now; they count as under way until ``ended``."""
        started: list[Batch] = []
        if self.disabled or self._held or now_ms < self.paused_until_ms:
            return started
        for lane in self._lanes[self._first_lane :] + self._lanes[: self._first_lane]:
            if not self.circuit.allows(now_ms, self.in_flight):
                break
            batch = lane.batch = lane.batch or self._next_batch(lane)
            if batch is None or batch.in_flight or now_ms < batch.retry_at_ms:
                continue
            batch.in_flight = True
            batch.attempts += 1
            if batch.first_try_ms < 0:
                batch.first_try_ms = now_ms
            self.in_flight += 1
            started.append(batch)
        self._first_lane = (self._first_lane + 1) % len(self._lanes)  # while the circuit is open each lane gets its try
        return started

    def wake_at_ms(self) -> int | None:
        """When something that waits for time is due next; None: only news can change anything."""
        if self.disabled or self._held:
            return None
        times = [lane.batch.retry_at_ms for lane in self._lanes if lane.batch and not lane.batch.in_flight]
        if not times and not any(lane.waiting or lane.pieces for lane in self._lanes if lane.batch is None):
            return None
        if not self.circuit.closed and self.in_flight:
            return None  # the request that tries
        return max(min(times, default=0), self.paused_until_ms, self.circuit.try_at_ms)

    def _next_batch(self, lane: Lane) -> Batch | None:
        if lane.pieces:
            return lane.pieces.popleft()
        items: list[Waiting] = []
        size = 2
        while lane.waiting and len(items) < self._config.batch_events_max:
            size += len(lane.waiting[0].change.event) + 1
            if items and size > self._config.batch_bytes_max:
                break
            items.append(lane.waiting.popleft())
        return Batch(self._new_id(), tuple(items), self._config.attempts_max) if items else None

    # --- what became of it ------------------------------------------------------------------------------------------

    def ended(self, batch: Batch, verdict: Verdict, now_ms: int) -> None:
        """A request ended."""
        lane = next(lane for lane in self._lanes if lane.batch is batch)
        batch.in_flight = False
        self.in_flight -= 1
        if verdict.outcome is not Outcome.ACCEPTED:
            self.last_error = verdict.reason
        match verdict.outcome:
            case Outcome.ACCEPTED:
                self.circuit.succeeded()
                self.accepted_requests += 1
                self.accepted_changes += len(batch.items)
                self._settle(lane, batch)
            case Outcome.REJECTED:
                self.circuit.succeeded()
                if len(batch.items) > 1:
                    self._split(lane, batch, self._config.attempts_max)
                else:
                    self._give_up(lane, batch, verdict.reason)
            case Outcome.PAUSED:
                wait_ms = verdict.retry_after_ms or self._backoff_ms(batch)
                self.paused_until_ms = max(self.paused_until_ms, now_ms + wait_ms)
                batch.retry_at_ms = self.paused_until_ms
            case Outcome.GONE:
                self.disabled = True
            case Outcome.FAILED:
                self.circuit.failed(now_ms)
                self._failed(lane, batch, verdict, now_ms)

    def _failed(self, lane: Lane, batch: Batch, verdict: Verdict, now_ms: int) -> None:
        """Try again later, unless it is this batch's fault or its time is over."""
        if batch.attempts == 1:
            batch.accepted_before = self.accepted_requests
        others_are_accepted = self.accepted_requests > batch.accepted_before
        if now_ms - batch.first_try_ms >= self._config.give_up_after_ms:
            self._give_up(lane, batch, f"not delivered within {self._config.give_up_after_ms} ms: {verdict.reason}")
        elif batch.attempts < batch.attempts_max or not others_are_accepted:
            batch.retry_at_ms = now_ms + self._backoff_ms(batch)
        elif len(batch.items) > 1:
            self._split(lane, batch, PIECE_ATTEMPTS_MAX)
        else:
            self._give_up(lane, batch, f"{batch.attempts} attempts while others were accepted: {verdict.reason}")

    def _backoff_ms(self, batch: Batch) -> int:
        return backoff_ms(batch.attempts, self._config.backoff_ms_min, self._config.backoff_ms_max, self._draw)

    def _split(self, lane: Lane, batch: Batch, attempts_max: int) -> None:
        """Both halves before everything else of the lane, the first one first."""
        middle = len(batch.items) // 2
        for items in (batch.items[middle:], batch.items[:middle]):
            piece = Batch(self._new_id(), items, attempts_max, first_try_ms=batch.first_try_ms)
            lane.pieces.appendleft(piece)
        lane.batch = None

    def _give_up(self, lane: Lane, batch: Batch, reason: str) -> None:
        self._rejections += [(item.change.change_id, reason) for item in batch.items if item.change.change_id]
        self.given_up_changes += len(batch.items)
        self._settle(lane, batch)

    def _settle(self, lane: Lane, batch: Batch) -> None:
        for item in batch.items:
            item.chunk.unsettled -= 1
        self.unsettled -= len(batch.items)
        lane.batch = None

    # --- how far ----------------------------------------------------------------------------------------------------

    def settlement(self) -> Settlement | None:
        """What may be acknowledged and was not asked for yet; the caller keeps it until it is acknowledged.

        A cursor is never told before the rejections that it covers: whoever ended between the two would lose them.
        """
        rejections = tuple(self._rejections[:REJECTIONS_PER_ACKNOWLEDGEMENT_MAX])
        del self._rejections[: len(rejections)]
        cursor = ""
        while self._chunks and self._chunks[0].unsettled == 0 and not self._rejections:
            cursor = self._chunks.popleft().cursor or cursor
        error = self.trouble
        if not cursor and not rejections and error == self._told_error:
            return None
        self._told_error = error
        return Settlement(cursor, rejections, error)

    @property
    def trouble(self) -> str:
        """What keeps this webhook from going on; empty: nothing."""
        if self.disabled:
            return f"disabled: {self.last_error}"
        return "" if self.circuit.closed else f"circuit open: {self.last_error}"

    @property
    def oldest_unsettled_ms(self) -> int | None:
        """When the oldest change that is not settled was read; None when all are."""
        return next((chunk.read_at_ms for chunk in self._chunks if chunk.unsettled), None)
