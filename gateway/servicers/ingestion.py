"""One batch of warehouse events, from a call or a stream: checked, sent to its shards, answered, counted.

Every event that comes in is counted, and so is how it ended: received = applied + duplicate + deferred + rejected + error +
unanswered, where error means that it was not decided, and unanswered that its caller had gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from actors.domain.answers import OK
from gateway.errors import CallFailed, failure_of, status_of
from gateway.rpc import Rpc
from gateway.servicers.desk import FAILED, Desk, failed_check
from gateway.translate.event_results import ResultBytes
from gateway.translate.events import EventRequests
from gateway.validation import Findings
from stockade.v1 import warehouse_event_service_pb2 as pb

HEARD = ("applied", "duplicate")  # outcomes that say how far the source's feed has come
OTHER_STREAM = "is not that of the stream's opening: open a stream for it"
_SOURCE, _EVENT_ID, _OCCUR_TIME_MS, _STOCK_KEY = 0, 2, 4, 5  # of the body of an item
_BODY = 5
_WATERMARK = 10  # of an ``IngestView``

Item = list[Any]


class Ingestion:
    """Of one gateway."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = EventRequests(desk.config, desk.names)

    async def ingest(  # noqa: PLR0913  the parts of one batch
        self,
        events: Sequence[pb.WarehouseEvent],
        size: int,
        rpc: Rpc,
        field: int,
        opening: pb.StreamOpening | None = None,
    ) -> tuple[bytes, int]:
        """Ask the shards. Returns one result for each event, in their order, as the bytes of the field of that number, and the
        last watermark that a result told of. ``opening``: of the stream that they come by.
        """
        received = Counter([event.source_id for event in events])
        for source_id, count in received.items():
            self._desk.metrics.received(source_id, count)
        ended: Counter[tuple[str, str]] = Counter()
        try:
            items, failed = self._items(events, rpc, opening)
            replies: Iterator[Any] = iter(await self._ask(items, rpc, size, goes_on=opening is not None))
            return self._answer(items, replies, failed, field, ended)
        finally:
            for (source_id, outcome), count in ended.items():
                received[source_id] -= count
                self._desk.metrics.ingested(source_id, outcome, count)
            for source_id, count in received.items():
                if count:
                    self._desk.metrics.ingested(source_id, "unanswered", count)

    def _items(
        self, events: Sequence[pb.WarehouseEvent], rpc: Rpc, opening: pb.StreamOpening | None
    ) -> tuple[list[Item], dict[int, tuple[str, str, CallFailed]]]:
        """An item for each good event, and by index the bad ones' source, id and failure."""
        items: list[Item] = []
        failed: dict[int, tuple[str, str, CallFailed]] = {}
        make, cause, findings = self._requests.event, rpc.cause, Findings()
        may_tell = opening.source_id if opening is not None else ""  # the source that was looked at last
        for index, event in enumerate(events):
            source_id, event_id = event.source_id, event.event_id
            if opening is not None:
                if source_id != opening.source_id:
                    findings.add("source_id", OTHER_STREAM)
                if event.stream_id != opening.stream_id:
                    findings.add("stream_id", OTHER_STREAM)
            elif source_id != may_tell:
                try:
                    rpc.principal.require_source(source_id)
                    may_tell = source_id
                except CallFailed as failure:
                    failed[index] = (source_id, event_id, failure)
                    continue
            item = make(event, cause, findings)
            if findings:
                prefix = (
                    f"events[{index}]." if opening is None else ""
                )  # a result of a stream names its event by its id
                failed[index] = (source_id, event_id, failed_check(findings, prefix))
                findings = Findings()
            else:
                items.append(item)
        return items, failed

    async def _ask(self, items: list[Item], rpc: Rpc, size: int, *, goes_on: bool) -> Sequence[Any]:
        """One reply for each item. ``goes_on``: a batch that cannot be sent fails event by event, the stream does not."""
        try:
            return await self._desk.change_many(items, rpc, size)
        except CallFailed as failure:
            if not goes_on:
                raise
            return [(FAILED, failure)] * len(items)

    def _answer(
        self,
        items: list[Item],
        replies: Iterator[Any],
        failed: dict[int, tuple[str, str, CallFailed]],
        field: int,
        ended: Counter[tuple[str, str]],
    ) -> tuple[bytes, int]:
        results = ResultBytes(field, self._desk.hosts.timeline)
        newest: dict[tuple[str, str], int] = {}
        watermark = 0
        good = iter(items)
        for index in range(len(items) + len(failed)):
            if index in failed:
                source_id, event_id, failure = failed[index]
                outcome = _fail(results, event_id, failure)
            else:
                body, reply = next(good)[_BODY], next(replies)
                source_id = body[_SOURCE]
                if reply[0] == OK:
                    view = reply[2]
                    outcome = results.add(view)
                    watermark = view[_WATERMARK] if len(view) > _WATERMARK else 0  # an older host says nothing
                    if outcome in HEARD:
                        feed = (source_id, body[_STOCK_KEY].split("\x1f")[1])
                        newest[feed] = max(newest.get(feed, 0), body[_OCCUR_TIME_MS])
                else:
                    why = reply[1] if reply[0] == FAILED else failure_of(reply)
                    outcome = _fail(results, body[_EVENT_ID], why)
            ended[source_id, outcome] += 1
        for (source_id, warehouse_id), occur_time_ms in newest.items():
            self._desk.metrics.heard(source_id, warehouse_id, occur_time_ms // 1000)
        return b"".join(results.parts), watermark


def _fail(results: ResultBytes, event_id: str, failure: CallFailed) -> str:
    results.add_message(pb.IngestResult(event_id=event_id, error=status_of(failure)))
    return "error"
