"""Runs one webhook: reads changes while there is room, makes the requests that are due, acknowledges what is settled.

What to do when is the outbox's decision; this is its shell of three tasks. It keeps nothing: what was not acknowledged
is read again by the next one, so every change is delivered at least once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from gateway.webhooks.clock import Clock
from gateway.webhooks.config import ACKNOWLEDGE_INTERVAL_MS, WebhookConfig
from gateway.webhooks.metrics import WebhookMetrics
from gateway.webhooks.outbox import Batch, Outbox, Settlement
from gateway.webhooks.patience import backoff_ms
from gateway.webhooks.source import ChangeSource, FeedBegunAnew, Read, SourceUnavailable
from gateway.webhooks.verdicts import Outcome, Verdict

SOURCE_BACKOFF_MS_MIN = 200
SOURCE_BACKOFF_MS_MAX = 10_000

log = logging.getLogger(__name__)


class Posts(Protocol):
    """What makes the requests (``sender.Sender``)."""

    async def post(self, delivery_id: str, attempt: int, body: bytes) -> Verdict: ...

    async def close(self) -> None: ...


class Deliverer:
    """One webhook's. ``run`` until cancelled."""

    def __init__(
        self,
        config: WebhookConfig,
        source: ChangeSource,
        sender: Posts,
        clock: Clock,
        metrics: WebhookMetrics,
        *,
        draw: Callable[[], float] = random.random,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self.config = config
        self.outbox = Outbox(config, draw, new_id)
        self.source_error = ""
        self._source = source
        self._sender = sender
        self._clock = clock
        self._metrics = metrics
        self._draw = draw
        self._new_work = asyncio.Event()  # for the requests: something was read, or ended
        self._ended = asyncio.Event()  # set, and another put into its place, when a request ended
        self._new_settled = asyncio.Event()  # for the acknowledger
        self._acknowledging = asyncio.Lock()
        self._beginnings = 0  # of the feed
        self._requests: set[asyncio.Task[None]] = set()
        metrics.watch(config.webhook_id, self.outbox, clock.now_ms)

    async def run(self) -> None:
        """Deliver for ever. Ends with an error only for a bug."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in (self._read(), self._send(), self._acknowledge()):
                    tasks.create_task(work)
        finally:
            for request in self._requests:
                request.cancel()
            await asyncio.gather(*self._requests, return_exceptions=True)
            await self._sender.close()

    async def drain(self) -> None:
        """Begin no more requests, wait for those under way, acknowledge; before ``run`` is cancelled. May be cut short:
        what was not acknowledged comes again.
        """
        self.outbox.hold()
        await self._until(lambda: self.outbox.in_flight == 0)
        await self._acknowledge_once()

    def status(self) -> dict[str, Any]:
        """Plain values for ``stockade webhooks``."""
        outbox, now_ms = self.outbox, self._clock.now_ms()
        oldest_ms = outbox.oldest_unsettled_ms
        return {
            "webhook_id": self.config.webhook_id,
            "url": self.config.shown_url,
            "state": state_of(outbox, now_ms),
            "unsettled_changes": outbox.unsettled,
            "oldest_unsettled_ms": 0 if oldest_ms is None else now_ms - oldest_ms,
            "requests_under_way": outbox.in_flight,
            "accepted_changes": outbox.accepted_changes,
            "given_up_changes": outbox.given_up_changes,
            "last_error": outbox.last_error,
            "source_error": self.source_error,
        }

    # --- reading ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        cursor, failures = "", 0
        while True:
            try:
                async with contextlib.aclosing(self._source.read(cursor)) as reads:  # type: ignore[type-var]
                    async for read in reads:
                        failures, self.source_error = 0, ""
                        cursor = read.cursor
                        await self._take(read)
                raise SourceUnavailable("the feed ended")
            except SourceUnavailable as error:
                failures += 1
                self._note_source(error)
                await self._pause(failures)
            except FeedBegunAnew as error:
                self._note_source(error)
                cursor = ""
                await self._begin_anew(error)

    async def _take(self, read: Read) -> None:
        self.outbox.take(read.changes, read.cursor, self._clock.now_ms())
        self._new_work.set()
        self._new_settled.set()
        await self._until(lambda: self.outbox.room > 0)

    async def _begin_anew(self, error: FeedBegunAnew) -> None:
        """What is under way ends, what waits is dropped (current values follow), the notice goes out alone."""
        self.outbox.hold()
        await self._until(lambda: self.outbox.in_flight == 0)
        self.outbox.forget()
        self._beginnings += 1
        self.outbox.take((error.notice,), "", self._clock.now_ms())
        self._new_work.set()
        await self._until(lambda: self.outbox.unsettled == 0)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            await self._ended.wait()

    def _note_source(self, error: Exception) -> None:
        self.source_error = str(error)
        self._metrics.source_failed(self.config.webhook_id)
        log.warning("webhook %s: %s", self.config.webhook_id, error)

    async def _pause(self, failures: int) -> None:
        pause_ms = backoff_ms(failures, SOURCE_BACKOFF_MS_MIN, SOURCE_BACKOFF_MS_MAX, self._draw)
        await self._clock.wait(asyncio.Event(), self._clock.now_ms() + pause_ms)

    # --- sending ----------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            self._new_work.clear()
            for batch in self.outbox.due(self._clock.now_ms()):
                request = asyncio.create_task(self._request(batch))
                self._requests.add(request)
                request.add_done_callback(self._requests.discard)
            await self._clock.wait(self._new_work, self.outbox.wake_at_ms())

    async def _request(self, batch: Batch) -> None:
        began_s = time.perf_counter()
        verdict = await self._sender.post(batch.batch_id, batch.attempts, batch.body())
        was_closed, given_up = self.outbox.circuit.closed, self.outbox.given_up_changes
        self.outbox.ended(batch, verdict, self._clock.now_ms())
        self._metrics.ended(self.config.webhook_id, verdict, len(batch.items), time.perf_counter() - began_s)
        self._metrics.given_up(self.config.webhook_id, self.outbox.given_up_changes - given_up)
        if verdict.outcome is not Outcome.ACCEPTED:
            log.info(
                "webhook %s: attempt %d of %s: %s", self.config.webhook_id, batch.attempts, batch.batch_id, verdict
            )
        if was_closed != self.outbox.circuit.closed:
            log.warning(
                "webhook %s: circuit %s: %s", self.config.webhook_id, "open" if was_closed else "closed", verdict
            )
        if verdict.outcome is Outcome.GONE:
            log.error("webhook %s: disabled until the next start: the endpoint says Gone", self.config.webhook_id)
        self._new_work.set()
        self._ended.set()
        self._ended = asyncio.Event()
        self._new_settled.set()

    # --- acknowledging ----------------------------------------------------------------------------------------------

    async def _acknowledge(self) -> None:
        """At most once an interval."""
        while True:
            await self._new_settled.wait()
            self._new_settled.clear()
            if await self._acknowledge_once():
                await self._clock.wait(asyncio.Event(), self._clock.now_ms() + ACKNOWLEDGE_INTERVAL_MS)
                self._new_settled.set()  # what did not fit into one

    async def _acknowledge_once(self) -> bool:
        """Whether there was anything to acknowledge; it is durable then."""
        async with self._acknowledging:
            settlement = self.outbox.settlement()
            if settlement is not None:
                await self._acknowledged(settlement)
            return settlement is not None

    async def _acknowledged(self, settlement: Settlement) -> None:
        """Until it is durable, or means nothing any more because the feed began anew."""
        failures, beginnings = 0, self._beginnings
        while beginnings == self._beginnings:
            try:
                await self._source.acknowledge(settlement)
                return
            except SourceUnavailable as error:
                failures += 1
                self._note_source(error)
                await self._pause(failures)


def state_of(outbox: Outbox, now_ms: int) -> str:
    """``delivering``, ``paused``, ``circuit open`` or ``disabled``."""
    if outbox.disabled:
        return "disabled"
    if not outbox.circuit.closed:
        return "circuit open"
    return "paused" if now_ms < outbox.paused_until_ms else "delivering"
