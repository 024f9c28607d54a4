"""The service's change feed as the source of one webhook: reads and acknowledges by the calls that every consumer has."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc

from gateway.webhooks.cloud_events import change_event, restarted_event
from gateway.webhooks.config import WebhookConfig
from gateway.webhooks.outbox import Settlement
from gateway.webhooks.source import FeedBegunAnew, Read, SourceUnavailable
from stockade.client.errors import from_call_error
from stockade.client.transport import call_metadata
from stockade.v1 import change_feed_service_pb2 as pb
from stockade.v1 import change_feed_service_pb2_grpc

CHANGES_PER_MESSAGE = 500
CALL_WITHIN_S = 10.0
KINDS = {
    "availability": pb.CHANGE_KIND_AVAILABILITY,
    "reservation": pb.CHANGE_KIND_RESERVATION,
    "warehouse": pb.CHANGE_KIND_WAREHOUSE,
}


class ChangeFeed:
    """See ``source.ChangeSource``. The consumer's id is the webhook's."""

    def __init__(
        self, config: WebhookConfig, channel: grpc.aio.Channel, token: str, wall_s: Callable[[], float]
    ) -> None:
        self._config = config
        self._calls: Any = change_feed_service_pb2_grpc.ChangeFeedServiceStub(channel)
        self._token = token
        self._wall_s = wall_s
        self._begin_from = ""  # after the feed began anew: "snapshot" until a cursor was read

    async def read(self, cursor: str) -> AsyncIterator[Read]:
        """Changes from a cursor, as CloudEvents."""
        filters = self._config.filters
        wanted = pb.ChangeFilter(
            kinds=[KINDS[kind] for kind in filters.kinds],
            channel_ids=filters.channels,
            warehouse_ids=filters.warehouses,
            skus=filters.skus,
        )
        with told_as_unavailable():
            begin = cursor or self._begin_from or await self._acknowledged_cursor()
            start = {f"from_{begin or self._config.start}": True} if begin in ("", "snapshot") else {"cursor": begin}
            request = pb.ReadChangesRequest(
                consumer_id=self._config.webhook_id,
                filter=wanted,
                changes_per_message_max=CHANGES_PER_MESSAGE,
                **start,
            )
            async for message in self._calls.ReadChanges(request, metadata=call_metadata(self._token)):
                if message.resync:
                    raise self._begun_anew(pb.ResyncReason.Name(message.resync))
                if message.cursor:
                    self._begin_from = ""
                yield Read(
                    tuple(change_event(change, snapshot=message.snapshot) for change in message.changes), message.cursor
                )

    async def acknowledge(self, settlement: Settlement) -> None:
        """Tell how far it is, what was given up, and what keeps it from going on."""
        request = pb.AcknowledgeChangesRequest(
            consumer_id=self._config.webhook_id,
            cursor=settlement.cursor,
            rejections=[
                pb.ChangeRejection(change_id=change_id, reason=reason) for change_id, reason in settlement.rejections
            ],
            error=settlement.error,
        )
        with told_as_unavailable():
            await self._calls.AcknowledgeChanges(request, timeout=CALL_WITHIN_S, metadata=call_metadata(self._token))

    async def _acknowledged_cursor(self) -> str:
        request = pb.ListConsumersRequest()
        answer = await self._calls.ListConsumers(request, timeout=CALL_WITHIN_S, metadata=call_metadata(self._token))
        for consumer in answer.consumers:
            if consumer.consumer_id == self._config.webhook_id:
                return str(consumer.cursor)
        return ""

    def _begun_anew(self, reason: str) -> FeedBegunAnew:
        why = reason.removeprefix("RESYNC_REASON_")
        self._begin_from = "snapshot"
        return FeedBegunAnew(f"the feed begins anew: {why}", restarted_event(why, uuid.uuid4().hex, self._wall_s()))


@contextlib.contextmanager
def told_as_unavailable() -> Iterator[None]:
    """A call that failed, in the port's words."""
    try:
        yield
    except grpc.RpcError as failure:
        error = from_call_error(failure)
        raise SourceUnavailable(f"{error.code.name}: {error}") from None
