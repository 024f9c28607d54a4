"""Lists to be reconciled, in files: each row becomes a line that can be sent, or says what is wrong with it.

CSV has a column for each field of the line by its name, JSON lines are the messages in protobuf's JSON. It sends nothing;
``stockade reconcile`` does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from gateway.cli.row_files import ERROR_COLUMNS, CsvRows, Row
from stockade.v1 import reconciliation_service_pb2 as pb
from stockade.v1 import stock_key_pb2

MESSAGES: dict[str, Any] = {
    "STOCK": pb.StockLine,
    "OPEN_ORDERS": pb.OpenOrderLine,
    "CHANNEL_AVAILABILITY": pb.ChannelLine,
}
REQUIRED = {
    "STOCK": ("sku", "quantity"),
    "OPEN_ORDERS": ("channel_id", "order_reference", "sku", "quantity"),
    "CHANNEL_AVAILABILITY": ("sku", "quantity"),
}
YES, NO = ("true", "yes", "y", "1"), ("false", "no", "n", "0", "")
DIGITS_MAX = 16  # quantities go to 10^15


@dataclass(frozen=True, slots=True)
class ListLine:
    """One row that is not blank. ``message`` is None when there is a ``problem``."""

    number: int
    text: str
    message: Any
    problem: str = ""


def read_list(rows: Iterable[Row], kind: str) -> Iterator[ListLine]:
    """Every row in order. Raises ValueError for a CSV header without a column that is needed, or with an unknown one."""
    if isinstance(rows, CsvRows):
        check_columns(rows.columns, kind)
    return _lines(rows, kind)


def _lines(rows: Iterable[Row], kind: str) -> Iterator[ListLine]:
    for row in rows:
        if row.problem:
            yield ListLine(row.number, row.text, None, row.problem)
            continue
        try:
            message = _from_cells(row.values, kind) if row.values else json_format.Parse(row.text, MESSAGES[kind]())
            if not message.sku:
                raise ValueError("sku: is required")
        except (ValueError, TypeError, AttributeError, json_format.ParseError, RecursionError) as error:
            yield ListLine(row.number, row.text, None, str(error) or "is no line")
            continue
        yield ListLine(row.number, row.text, message)


def check_columns(columns: Iterable[str], kind: str) -> None:
    """Raises ValueError for a column that such a list has not, and for one that is missing."""
    known = [field.name for field in MESSAGES[kind].DESCRIPTOR.fields]
    names = [name for name in columns if name and name not in ERROR_COLUMNS]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ValueError(f"column {name!r} is none of {', '.join(known)}" + (f"; {near[0]!r}?" if near else ""))
    for name in REQUIRED[kind]:
        if name not in names:
            raise ValueError(f"there must be a column {name!r}")


def _from_cells(values: dict[str, str], kind: str) -> Any:
    """Raises ValueError that names the column."""
    message = MESSAGES[kind]()
    for name in REQUIRED[kind]:
        if name not in values:
            raise ValueError(f"{name}: is required")
    for column, text in values.items():
        if column not in ERROR_COLUMNS:
            setattr(message, column, _value(message.DESCRIPTOR.fields_by_name[column], column, text))
    return message


def _value(field: FieldDescriptor, column: str, text: str) -> Any:
    if field.enum_type is not None:
        name = f"DISPOSITION_{text.upper().removeprefix('DISPOSITION_')}"
        values = dict(stock_key_pb2.Disposition.items())
        if name not in values:
            known = ", ".join(other.removeprefix("DISPOSITION_") for other in list(values)[1:])
            raise ValueError(f"{column}: {text!r} is none of {known}")
        return values[name]
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text.lower() not in (*YES, *NO):
            raise ValueError(f"{column}: {text!r} is neither true nor false")
        return text.lower() in YES
    if field.type == FieldDescriptor.TYPE_INT64:
        if not (text.isascii() and text.isdigit()) or len(text) > DIGITS_MAX:
            raise ValueError(f"{column}: {text!r} is no whole number from 0")
        return int(text)
    return text
