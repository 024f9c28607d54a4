"""Requests of ChangeFeedService and watches of availability → what is to be read, from where, how often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration

from actors.domain.answers import ConsumerView
from actors.domain.change_rows import ChangeKind
from actors.domain.commands import Verb
from gateway.access import Principal
from gateway.changes.cursors import Cursor, cursor_text, read_cursor
from gateway.changes.rows import RESERVATION, RowFilter
from gateway.translate.answers import timestamp
from gateway.validation import Findings, KnownNames
from stockade.v1 import change_feed_service_pb2 as pb

CHANGES_PER_MESSAGE_DEFAULT = 1_000
CHANGES_PER_MESSAGE_MAX = 10_000
HEARTBEAT_MS_MIN = 100
HEARTBEAT_MS_MAX = 60_000
FILTER_ENTRIES_MAX = 1_000
REJECTIONS_MAX = 1_000
CHANGE_KINDS = frozenset(map(int, ChangeKind))


class Reading(NamedTuple):
    """A checked ReadChangesRequest. ``start``: the oneof's name, empty when not given."""

    start: str
    cursor: Cursor | None
    row_filter: RowFilter
    count_max: int
    heartbeat_ms: int


def heartbeat_ms(field: str, interval: Duration | None, default: int, findings: Findings) -> int:
    """How often a message comes at least."""
    if interval is None:
        return default
    return findings.duration_ms(field, interval, HEARTBEAT_MS_MIN, HEARTBEAT_MS_MAX)


def cursor(field: str, text: str, findings: Findings) -> Cursor | None:
    """A cursor of ours."""
    found = read_cursor(text)
    if found is None:
        findings.add(field, "is not a cursor of this service, or was changed: keep cursors as they are")
    return found


class ChangeRequests:
    """Reads requests by the settings."""

    def __init__(self, names: KnownNames) -> None:
        self._names = names

    def read(self, request: pb.ReadChangesRequest, findings: Findings) -> Reading:
        """What somebody wants to read."""
        start = request.WhichOneof("start") or ""
        if start in ("from_snapshot", "from_oldest", "from_now") and not getattr(request, start):
            findings.add(start, "is false: set it to true, or choose another start")
        findings.optional_id("consumer_id", request.consumer_id)
        count_max = request.changes_per_message_max or CHANGES_PER_MESSAGE_DEFAULT
        if not 1 <= count_max <= CHANGES_PER_MESSAGE_MAX:
            findings.add("changes_per_message_max", f"is {count_max}; it must be between 1 and 10,000")
        interval = request.heartbeat_interval if request.HasField("heartbeat_interval") else None
        return Reading(
            start,
            cursor("cursor", request.cursor, findings) if start == "cursor" else None,
            self.row_filter(request.filter, findings),
            count_max,
            heartbeat_ms("heartbeat_interval", interval, 5_000, findings),
        )

    def acknowledge(self, request: pb.AcknowledgeChangesRequest, cause: Sequence[str], findings: Findings) -> list[Any]:
        """An ACKNOWLEDGE_CHANGES item."""
        consumer_id = request.consumer_id
        findings.id("consumer_id", consumer_id)
        place = cursor("cursor", request.cursor, findings) if request.cursor else None
        findings.text("error", request.error)
        if len(request.rejections) > REJECTIONS_MAX:
            findings.add("rejections", f"has {len(request.rejections)} entries; at most {REJECTIONS_MAX} are accepted")
        for index, rejection in enumerate(request.rejections[:REJECTIONS_MAX]):
            findings.id(f"rejections[{index}].change_id", rejection.change_id)
            findings.text(f"rejections[{index}].reason", rejection.reason)
            if not rejection.reason:
                findings.add(f"rejections[{index}].reason", "is required: why the change was not taken")
        rejections = [[each.change_id, each.reason] for each in request.rejections]
        timeline, time_ms, sequences = place if place is not None else ("", 0, {})
        body = [
            consumer_id,
            timeline,
            time_ms,
            [[*pair] for pair in sequences.items() if pair[1]],
            rejections,
            request.error,
        ]
        shard = self._names.consumer_shard(consumer_id)
        return [int(Verb.ACKNOWLEDGE_CHANGES), shard, 0, 1 + len(rejections), cause, body]

    def attach(self, consumer_id: str, cause: Sequence[str]) -> list[Any]:
        """An ATTACH_CONSUMER item."""
        return [int(Verb.ATTACH_CONSUMER), self._names.consumer_shard(consumer_id), 0, 1, cause, [consumer_id]]

    def row_filter(self, wanted: pb.ChangeFilter, findings: Findings) -> RowFilter:
        """A filter, its names known."""
        for index, kind in enumerate(wanted.kinds):
            findings.choice(f"filter.kinds[{index}]", kind, CHANGE_KINDS)
        for index, channel_id in enumerate(_bounded(wanted.channel_ids, "filter.channel_ids", findings)):
            self._names.channel(f"filter.channel_ids[{index}]", channel_id, findings)
        for index, warehouse_id in enumerate(_bounded(wanted.warehouse_ids, "filter.warehouse_ids", findings)):
            self._names.warehouse(f"filter.warehouse_ids[{index}]", warehouse_id, findings)
        for index, sku in enumerate(_bounded(wanted.skus, "filter.skus", findings)):
            findings.id(f"filter.skus[{index}]", sku)
        return RowFilter(wanted.kinds, wanted.channel_ids, wanted.warehouse_ids, wanted.skus)


def _bounded(entries: Iterable[str], field: str, findings: Findings) -> list[str]:
    listed = list(entries)
    if len(listed) > FILTER_ENTRIES_MAX:
        findings.add(field, f"has {len(listed)} entries; at most {FILTER_ENTRIES_MAX} are accepted: filter yourself")
        return []
    return listed


def require_channels(row_filter: RowFilter, principal: Principal) -> None:
    """Raises CallFailed PERMISSION_DENIED when the filter lets reservations of a channel through that the caller does not sell
    in."""
    if principal.sells_everywhere or (row_filter.kinds and RESERVATION not in row_filter.kinds):
        return
    for channel_id in row_filter.channel_ids or ("",):
        principal.require_channel(channel_id)


def acknowledged_cursor(view: Sequence[Any]) -> Cursor | None:
    """Where a ``ConsumerView`` says that the consumer stands; None when it never acknowledged."""
    timeline, time_ms, positions = view[1:4]
    return Cursor(timeline, time_ms, dict(positions)) if timeline else None


def consumer_message(view: Sequence[Any], connected_streams: int) -> pb.Consumer:
    """A ``ConsumerView``."""
    (
        consumer_id, timeline, cursor_time_ms, positions, lag_events, lag_ms, lagging, acknowledge_time_ms, last_error,
        rejected, resync, lag_events_max, lag_ms_max,
    ) = view[:_CONSUMER_SIZE]  # fmt: skip
    return pb.Consumer(
        consumer_id=consumer_id,
        cursor=cursor_text(timeline, cursor_time_ms, dict(positions)) if timeline else "",
        lag_events=lag_events,
        lag_ms=lag_ms,
        lagging=lagging,
        acknowledge_time=timestamp(acknowledge_time_ms),
        last_error=last_error,
        rejected_count=rejected,
        connected_streams=connected_streams,
        resync=resync,
        lag_events_max=lag_events_max,
        lag_ms_max=lag_ms_max,
    )


_CONSUMER_SIZE = len(ConsumerView._fields)
