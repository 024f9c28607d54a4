"""How a run of plain warehouse events is spelled in a record, and how a reader gets its events back.

A run is a group whose first element is no cause but a header ``[140, time ms, principal, correlation id, traceparent, source id,
stream id]``, with rows in the place of events, in the order in which they were booked:

* ``[12, stock key, event id, sequence, occur ms, fact, delta, reference(, document id, document line, lot id, lot's end ms, note,
  attributes)]`` is an ``OnHandChanged`` of sellable units, noted in the history at its event's place unless it is a count;
* ``[69, event id, sequence, occur ms, digest, warehouse id, shard, epoch, sequence there]`` is a ``FeedReceived`` with outcome
  APPLIED, and the ``EntrySpent`` of its id with the position of the stock key's shard.

Each becomes a group of its own with its event's cause, or one group where both sides are in this record; nothing of what was
journaled one by one is lost. A row that does not hold together raises ValueError, as any other damage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

FACT_RUN, MOVED, RECEIVED = 140, 12, 69
INGEST = 40  # the verb of their causes
FEED_RECEIVED, ENTRY_SPENT = 60, 40
SELLABLE, APPLIED, ANSWER_INGEST, STOCK_COUNT = 1, 1, 3, 6
NOT_NOTED = ("", 0, -1)

_HEADER = (int, int, str, str, str, str, str)
_MOVED = (int, str, str, int, int, int, int, str)
_MOVED_WITH_DOCUMENT = {sequence: (*_MOVED, str, str, str, int, str, sequence) for sequence in (list, tuple)}
_RECEIVED = (int, str, int, int, bytes, str, int, int, int)


def without_runs(groups: Any, sequence: type) -> Any:
    """Groups with every run written out. ``sequence``: list or tuple, what groups are made of."""
    for group in groups:
        if is_run(group):
            return sequence(each for one in groups for each in (_written_out(one, sequence) if is_run(one) else (one,)))
    return groups


def is_run(group: Any) -> bool:
    """Whether a group is a run's."""
    return (
        isinstance(group, list | tuple)
        and len(group) == 2  # noqa: PLR2004  header and rows
        and isinstance(group[0], list | tuple)
        and bool(group[0])
        and group[0][0] == FACT_RUN
    )


def _written_out(group: Any, sequence: type) -> Iterator[Any]:
    """The groups that a run stands for."""
    header, rows = group
    if _types(header) != _HEADER or not isinstance(rows, list | tuple):
        raise ValueError("a run of warehouse events without a header and rows")
    time_ms, told, source_id, stream_id = header[1], header[2:5], header[5], header[6]
    feed_key = f"{source_id}\x1f{stream_id}"
    cause: Any = None
    events: list[Any] = []
    for row in rows:
        types = _types(row) if isinstance(row, list | tuple) else ()
        if types == _RECEIVED and row[0] == RECEIVED:
            _, event_id, number, occur_ms, digest, warehouse_id, shard, epoch, placed = row
            answer = sequence((ANSWER_INGEST, APPLIED, 0, "", 0, shard, epoch, placed, time_ms))
            made = [
                sequence((FEED_RECEIVED, feed_key, number, warehouse_id, occur_ms, APPLIED)),
                sequence((ENTRY_SPENT, f"e\x1f{source_id}\x1f{event_id}", digest, answer)),
            ]
            if cause is not None and cause[2] == event_id and events[-1][0] == MOVED:  # both sides of one event
                events += made
                continue
        elif types and row[0] == MOVED and (types in (_MOVED, _MOVED_WITH_DOCUMENT[list], _MOVED_WITH_DOCUMENT[tuple])):
            _, key, event_id, number, occur_ms, fact, delta, reference, *more = row
            place = NOT_NOTED if fact == STOCK_COUNT else (feed_key, number, occur_ms)
            document = more or ("", "", "", 0, "", sequence())
            made = [sequence((MOVED, key, fact, SELLABLE, delta, reference, *document, *place))]
        else:
            raise ValueError(f"a row of a run of warehouse events that cannot be understood: {repr(row)[:200]}")
        if cause is not None:
            yield sequence((cause, sequence(events)))
        cause = sequence((INGEST, "", event_id, *told, source_id, stream_id, number, occur_ms))
        events = made
    if cause is not None:
        yield sequence((cause, sequence(events)))


def _types(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(map(type, values))
