"""Calls of ExceptionService: listing, looking at and resolving what somebody must look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from stockade.client import reading
from stockade.client.calls import EXCEPTIONS, Call, Key, enum_number, key_message
from stockade.client.results import Resolved, StockException
from stockade.v1 import exception_service_pb2 as pb

Identify = Callable[[Any, "str | None"], Any]


def list_exceptions(  # noqa: PLR0913  the filters there are
    *,
    kinds: Iterable[str] = (),
    warehouse_id: str = "",
    stock_key: Key | None = None,
    states: Iterable[str] = (),
    priorities: Iterable[str] = (),
    owning_team: str = "",
    source_id: str = "",
    open_from_ms: int = 0,
    open_to_ms: int = 0,
    newest_first: bool = False,
    page_size: int = 0,
    page_token: str = "",
) -> Call[tuple[list[StockException], str]]:
    """ListExceptions: one page and the next one's token."""
    numbers: dict[str, Any] = {
        "kinds": [enum_number(pb.ExceptionKind, "EXCEPTION_KIND_", one, "kinds") for one in kinds],
        "states": [enum_number(pb.ExceptionState, "EXCEPTION_STATE_", one, "states") for one in states],
        "priorities": [
            enum_number(pb.ExceptionPriority, "EXCEPTION_PRIORITY_", one, "priorities") for one in priorities
        ],
    }
    message = pb.ListExceptionsRequest(
        **numbers,
        warehouse_id=warehouse_id,
        owning_team=owning_team,
        source_id=source_id,
        open_from_time=_time(open_from_ms),
        open_to_time=_time(open_to_ms),
        newest_first=newest_first,
        page_size=page_size,
        page_token=page_token,
    )
    if stock_key is not None:
        message.stock_key.CopyFrom(key_message(stock_key))
    return Call(
        EXCEPTIONS + "ListExceptions",
        message,
        pb.ListExceptionsResponse,
        lambda response, _: (
            [reading.stock_exception(one) for one in response.exceptions],
            response.next_page_token,
        ),
    )


def get_exception(exception_id: str) -> Call[StockException]:
    """GetException."""
    return Call(
        EXCEPTIONS + "GetException",
        pb.GetExceptionRequest(exception_id=exception_id),
        pb.GetExceptionResponse,
        lambda response, _: reading.stock_exception(response.exception),
    )


def resolve_exception(  # noqa: PLR0913  who, how, why
    identify: Identify,
    exception_id: str,
    *,
    action: str,
    note: str,
    resolver: str = "",
    corrected_event: Any = None,
    request_id: str | None = None,
) -> Call[Resolved]:
    """ResolveException. ``corrected_event``: a WarehouseEvent, or a mapping like ``StockException.event``."""
    number: Any = enum_number(pb.ResolveAction, "RESOLVE_ACTION_", action, "action")
    message = pb.ResolveExceptionRequest(exception_id=exception_id, action=number, note=note, resolver=resolver)
    if isinstance(corrected_event, Mapping):
        json_format.ParseDict(dict(corrected_event), message.corrected_event)
    elif corrected_event is not None:
        message.corrected_event.CopyFrom(corrected_event)
    return Call(
        EXCEPTIONS + "ResolveException",
        identify(message, request_id),
        pb.ResolveExceptionResponse,
        lambda response, replayed: Resolved(
            reading.stock_exception(response.exception),
            reading.ingested(response.result) if response.HasField("result") else None,
            replayed,
        ),
    )


def _time(milliseconds: int) -> Timestamp | None:
    if not milliseconds:
        return None
    time = Timestamp()
    time.FromMilliseconds(milliseconds)
    return time
