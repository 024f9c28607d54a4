"""The service's change feed as the source of one webhook: read and acknowledged by the client, as every consumer does.

A webhook that begins (or begins anew) with a snapshot first acknowledges the place where it stands, marked in what it
says of itself: whatever happens before the snapshot is delivered, the next process knows that it must be sent again,
and which changes come behind it. So from its first moment on no change is left out.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from gateway.webhooks.cloud_events import change_event, restarted_event
from gateway.webhooks.config import WebhookConfig
from gateway.webhooks.outbox import Settlement
from gateway.webhooks.source import FeedBegunAnew, Read, SourceUnavailable
from stockade.client.asynchronous import AsyncClient
from stockade.client.change_results import ChangeBatch, ResyncNeeded
from stockade.client.errors import StockadeError

CHANGES_PER_MESSAGE = 500
HEARTBEAT_S = 1.0  # how soon there is a place to acknowledge while the filters let nothing through
PATIENCE_S = 2.0  # of the client; beyond it the deliverer is told, and asks again
MARK = "current values are not delivered yet"


class ChangeFeed:
    """See ``source.ChangeSource``. The consumer's id is the webhook's."""

    def __init__(self, config: WebhookConfig, client: AsyncClient, wall_s: Callable[[], float]) -> None:
        self._config = config
        self._client = client
        self._wall_s = wall_s
        self._anew = False  # the place that is on record means nothing any more
        self._snapshot_waits = False  # it was not settled yet

    async def read(self, cursor: str) -> AsyncIterator[Read]:
        """Changes from a cursor, as CloudEvents."""
        with self._told():
            if not cursor:
                cursor, with_snapshot = await self._beginning()
                if with_snapshot:
                    async for batch in self._changes("", start="snapshot"):
                        if not batch.snapshot:
                            break
                        yield self._read(batch)
            start = "" if cursor else "oldest"
            async for batch in self._changes(self._config.webhook_id, cursor=cursor, start=start):
                yield self._read(batch)

    async def acknowledge(self, settlement: Settlement) -> None:
        """Tell how far it is, what was given up, and what keeps it from going on."""
        error = settlement.error
        if self._snapshot_waits and not settlement.cursor:
            error = f"{MARK}; {error}" if error else MARK
        with self._told():
            await self._client.acknowledge_changes(
                self._config.webhook_id, settlement.cursor, rejections=settlement.rejections, error=error
            )
        if settlement.cursor:
            self._snapshot_waits = False

    async def _beginning(self) -> tuple[str, bool]:
        """The place to read changes from ("": the oldest that is kept), and whether a snapshot comes before them."""
        webhook_id = self._config.webhook_id
        known = [one for one in await self._client.list_consumers() if one.consumer_id == webhook_id]
        if known and known[0].cursor and not self._anew:
            self._snapshot_waits = known[0].last_error.startswith(MARK)
            return known[0].cursor, self._snapshot_waits
        if self._config.start == "oldest" and not self._anew:
            return "", False
        with_snapshot = self._anew or self._config.start == "snapshot"
        cursor = await self._cursor_of_now()
        await self._client.acknowledge_changes(webhook_id, cursor, error=MARK if with_snapshot else "")
        self._anew, self._snapshot_waits = False, with_snapshot
        return cursor, with_snapshot

    async def _cursor_of_now(self) -> str:
        async for batch in self._changes("", start="now", heartbeat_s=0.1):
            if batch.cursor:
                return batch.cursor
        raise SourceUnavailable("the feed ended")

    async def _changes(
        self, consumer_id: str, *, heartbeat_s: float = HEARTBEAT_S, **begin: str
    ) -> AsyncIterator[ChangeBatch]:
        """What the filters let through. ``consumer_id``: "" for what is not behind the consumer's place."""
        filters = self._config.filters
        batches: Any = self._client.changes(
            **begin,
            consumer_id=consumer_id,
            kinds=filters.kinds,
            channel_ids=filters.channels,
            warehouse_ids=filters.warehouses,
            skus=filters.skus,
            changes_per_message_max=CHANGES_PER_MESSAGE,
            heartbeat_s=heartbeat_s,
            patience_s=PATIENCE_S,
        )
        async with contextlib.aclosing(batches):
            async for batch in batches:
                yield batch

    def _read(self, batch: ChangeBatch) -> Read:
        events = tuple(change_event(change, snapshot=batch.snapshot) for change in batch.messages)
        return Read(events, batch.cursor)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What went wrong, in the port's words."""
        try:
            yield
        except ResyncNeeded as error:
            self._anew = True
            notice = restarted_event(error.reason, uuid.uuid4().hex, self._wall_s())
            raise FeedBegunAnew(f"the feed begins anew: {error.reason}", notice) from None
        except StockadeError as error:
            raise SourceUnavailable(f"{error.code.name}: {error}") from None
