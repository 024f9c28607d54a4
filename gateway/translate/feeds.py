"""Heartbeats and feed status: requests → items and filters, views → messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from actors.domain.answers import FeedView, FeedWarehouseView
from actors.domain.commands import Verb
from gateway.translate.answers import timestamp
from gateway.validation import SEQUENCE_MAX, Findings, KnownNames
from stockade.v1 import warehouse_event_service_pb2 as pb

Item = list[Any]
_HEARTBEAT = int(Verb.HEARTBEAT)
_FEED_SIZE = len(FeedView._fields)
_WAREHOUSE_SIZE = len(FeedWarehouseView._fields)


def heartbeat_item(beat: pb.Heartbeat, names: KnownNames, cause: Sequence[str], findings: Findings) -> Item:
    """The item of one heartbeat; not to be used when there are findings."""
    findings.id("source_id", beat.source_id)
    findings.optional_id("stream_id", beat.stream_id)
    names.warehouse("warehouse_id", beat.warehouse_id, findings)
    findings.quantity("last_source_sequence", beat.last_source_sequence, 0, SEQUENCE_MAX)
    body = [beat.source_id, beat.stream_id, beat.warehouse_id, beat.last_source_sequence]
    return [_HEARTBEAT, names.feed_shard(beat.source_id), 0, 1, cause, body]


def fill_heartbeat(result: pb.HeartbeatResult, view: Sequence[Any]) -> None:
    """Put a ``HeartbeatView`` into a result."""
    result.watermark, result.highest_sequence, result.waiting_count = view[:3]


def feed_filters(request: pb.GetFeedStatusRequest, findings: Findings) -> tuple[list[Any], int]:
    """[source, stream, warehouse], and the page size."""
    for field in ("source_id", "stream_id", "warehouse_id"):
        findings.optional_id(field, getattr(request, field))
    filters = [request.source_id, request.stream_id, request.warehouse_id]
    return filters, findings.page_size("page_size", request.page_size)


def feed_status(view: Sequence[Any]) -> pb.FeedStatus:
    """A ``FeedView``."""
    source_id, stream_id, watermark, highest, missing, waiting, warehouses = view[:_FEED_SIZE]
    return pb.FeedStatus(
        source_id=source_id,
        stream_id=stream_id,
        watermark=watermark,
        highest_sequence=highest,
        missing=[pb.SequenceRange(first_sequence=first, last_sequence=last) for first, last in missing],
        waiting_count=waiting,
        warehouses=[_warehouse(each) for each in warehouses],
    )


def _warehouse(view: Sequence[Any]) -> pb.WarehouseFeedStatus:
    (
        warehouse_id, received_ms, occur_ms, lag_ms, applied, rejected, duplicates, waiting, stale, interval_ms, received,
        heard_ms,
    ) = view[:_WAREHOUSE_SIZE]  # fmt: skip
    return pb.WarehouseFeedStatus(
        warehouse_id=warehouse_id,
        last_received_time=timestamp(received_ms),
        last_occur_time=timestamp(occur_ms),
        last_heard_time=timestamp(heard_ms),
        lag=_duration(lag_ms),
        stale=stale,
        expected_interval=_duration(interval_ms) if interval_ms else None,
        received_count=received,
        applied_count=applied,
        duplicate_count=duplicates,
        waiting_count=waiting,
        rejected_count=rejected,
    )


def _duration(milliseconds: int) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(milliseconds)
    return duration
