"""Warehouse events as JSON lines: each line becomes an event that can be sent, or says what is wrong with it.

It sends nothing; ``stockade events push`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from stockade.v1 import warehouse_event_service_pb2


@dataclass(frozen=True, slots=True)
class EventLine:
    """One line that is not blank. ``event`` is None when there is a ``problem``."""

    number: int
    text: str
    event: warehouse_event_service_pb2.WarehouseEvent | None
    problem: str = ""


def read_event_lines(lines: Iterable[bytes], source_id: str, occur_time: Timestamp | None) -> Iterator[EventLine]:
    """Every line in order. ``source_id``, ``occur_time``: of lines that have none."""
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        text = raw.decode("utf-8", "replace").rstrip("\r\n")
        try:
            raw.decode("utf-8")
            event = json_format.Parse(text, warehouse_event_service_pb2.WarehouseEvent())
        except (ValueError, TypeError, AttributeError, json_format.ParseError, RecursionError) as error:
            yield EventLine(number, text, None, str(error) or "is no event")
            continue
        event.source_id = event.source_id or source_id
        if not event.HasField("occur_time"):
            # not "now": the file sent again would be other content under the same event ids
            if occur_time is None:
                problem = 'occur_time: missing; write it like "2026-11-24T10:00:00Z", or give --occur-time'
                yield EventLine(number, text, None, problem)
                continue
            event.occur_time.CopyFrom(occur_time)
        yield EventLine(number, text, event)
