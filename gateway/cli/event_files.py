"""Warehouse events in files: each row becomes an event that can be sent, or says what is wrong with it.

JSON lines are WarehouseEvent messages in protobuf's JSON. CSV has a column for each field by its name: ``fact`` names the
fact, other columns fill the event's field of that name, else the fact's. It sends nothing; ``stockade events push`` does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.cli.row_files import ERROR_COLUMNS, CsvRows, Row, json_rows
from stockade.v1 import stock_key_pb2
from stockade.v1 import warehouse_event_service_pb2 as pb

NO_TIME = 'occur_time: missing; write it like "2026-11-24T10:00:00Z", or give --occur-time'
NO_SOURCE = "source_id: missing; write it, or give --source"
FACTS = {
    field.name: field.message_type
    for field in pb.WarehouseEvent.DESCRIPTOR.oneofs_by_name["fact"].fields
    if field.message_type is not None  # each fact is a message
}
ATTRIBUTE = "attribute:"  # before the name of an attribute, in a CSV column's name
_YES, _NO = ("true", "yes", "y", "1"), ("false", "no", "n", "0")


@dataclass(frozen=True, slots=True)
class EventLine:
    """One row that is not blank. ``event`` is None when there is a ``problem``."""

    number: int
    text: str
    event: pb.WarehouseEvent | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """What rows get that lack it; empty: nothing."""

    source_id: str = ""
    stream_id: str = ""
    occur_time: Timestamp | None = None


def read_event_lines(lines: Iterable[bytes], source_id: str, occur_time: Timestamp | None) -> Iterator[EventLine]:
    """Every JSON line in order. ``source_id``, ``occur_time``: of lines that have none."""
    return read_events(json_rows(lines), Given(source_id, "", occur_time))


def read_events(rows: Iterable[Row], given: Given) -> Iterator[EventLine]:
    """Every row in order. Raises ValueError for a CSV header with a column that no event has."""
    if isinstance(rows, CsvRows):
        check_columns(rows.columns)
    for row in rows:
        if row.problem:
            yield EventLine(row.number, row.text, None, row.problem)
            continue
        try:
            event = _from_cells(row.values) if row.values else json_format.Parse(row.text, pb.WarehouseEvent())
            problem = _complete(event, given)
        except (ValueError, TypeError, AttributeError, json_format.ParseError, RecursionError) as error:
            yield EventLine(row.number, row.text, None, str(error) or "is no event")
            continue
        yield EventLine(row.number, row.text, None if problem else event, problem)


def _complete(event: pb.WarehouseEvent, given: Given) -> str:
    """Fill in what is given for all rows; what is still missing, or empty."""
    event.source_id = event.source_id or given.source_id
    event.stream_id = event.stream_id or given.stream_id
    if not event.source_id:
        return NO_SOURCE
    if not event.HasField("occur_time"):
        # not "now": the file sent again would be other content under the same event ids
        if given.occur_time is None:
            return NO_TIME
        event.occur_time.CopyFrom(given.occur_time)
    return ""


# --- CSV ----------------------------------------------------------------------------------------------------------------

_OWN = {
    field.name: field
    for field in pb.WarehouseEvent.DESCRIPTOR.fields
    if field.message_type is None or field.message_type.name == "Timestamp"
}
_PROMISE = ("reservation_id", "channel_id", "order_reference", "line_id")
_KEY = ("sku", "warehouse_id")
COLUMNS = frozenset(
    (*_OWN, *_KEY, *_PROMISE, "fact", "quantity", *ERROR_COLUMNS)
    + tuple(field.name for fact in FACTS.values() for field in fact.fields if field.message_type is None)
)


def check_columns(columns: Iterable[str]) -> None:
    """Raises ValueError for a column that no event has."""
    for name in columns:
        if name and name not in COLUMNS and not name.startswith(ATTRIBUTE):
            near = difflib.get_close_matches(name, COLUMNS, 1)
            raise ValueError(f"column {name!r} is none of an event" + (f"; do you mean {near[0]!r}?" if near else ""))
    if "fact" not in columns:
        raise ValueError(f"there must be a column 'fact', of {', '.join(FACTS)}")


def _from_cells(values: dict[str, str]) -> pb.WarehouseEvent:
    """Raises ValueError that names the column."""
    event = pb.WarehouseEvent()
    name = values.get("fact", "").lower()
    if name not in FACTS:
        raise ValueError(f"fact: {name!r} is none of {', '.join(FACTS)}")
    fact = getattr(event, name)
    fact.SetInParent()
    fields = FACTS[name].fields_by_name
    for column, text in values.items():
        if column == "fact" or column in ERROR_COLUMNS:
            continue
        if column.startswith(ATTRIBUTE):
            event.attributes[column.removeprefix(ATTRIBUTE)] = text
        elif column in _OWN:
            _set(event, _OWN[column], column, text)
        elif column in _KEY:
            setattr(event.stock_key, column, text)
        elif column in fields:
            _set(fact, fields[column], column, text)
        elif column == "quantity" and name == "adjustment":
            _set(fact, fields["delta"], column, text)
        elif column in _PROMISE and "promise" in fields:
            _promise(fact.promise, column, text)
        else:
            raise ValueError(f"{column}: a {name} has none")
    return event


def _promise(promise: Any, column: str, text: str) -> None:
    if column in ("channel_id", "order_reference"):
        setattr(promise.order, column, text)
    else:
        setattr(promise, column, text)


def _set(message: Any, field: FieldDescriptor, column: str, text: str) -> None:
    try:
        if field.message_type is not None:
            getattr(message, field.name).FromJsonString(text)
        else:
            setattr(message, field.name, _value(field, text))
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def _value(field: FieldDescriptor, text: str) -> Any:
    if field.enum_type is not None:
        return _disposition(text)
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text.lower() not in (*_YES, *_NO):
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() in _YES
    if field.type == FieldDescriptor.TYPE_INT64:
        if not (text.lstrip("+-").isascii() and text.lstrip("+-").isdigit()) or len(text) > 20:  # noqa: PLR2004
            raise ValueError(f"{text!r} is no whole number")
        return int(text)
    return text


def _disposition(text: str) -> int:
    name = f"DISPOSITION_{text.upper().removeprefix('DISPOSITION_')}"
    if name not in stock_key_pb2.Disposition.keys():  # noqa: SIM118  an enum wrapper, no dictionary
        known = ", ".join(other.removeprefix("DISPOSITION_") for other in stock_key_pb2.Disposition.keys()[1:])
        raise ValueError(f"{text!r} is none of {known}")
    return int(stock_key_pb2.Disposition.Value(name))
