"""A stock exception. Data, no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class StockException:
    """A durable exception: somebody must look, until it heals or is resolved."""

    __slots__ = (
        "cause",
        "end_time_ms",
        "fields",
        "handlings",
        "id",
        "open_time_ms",
        "payload",
        "quantity",
        "reservation_ids",
        "state",
    )

    def __init__(self, exception_id: str, fields: Sequence[Any]) -> None:
        self.id = exception_id
        self.fields = fields  # kind, stock_key, message, source_id, event_id, request_id, channel_id, reject_reason
        self.quantity = 0
        self.reservation_ids: Sequence[str] = ()
        self.state = 1
        self.open_time_ms = 0
        self.end_time_ms = 0
        self.payload: Sequence[Any] = ()  # the body of the event it is about
        self.cause: Sequence[Any] = ()  # verb, principal, correlation id, stream id, source sequence, occur time
        self.handlings: Sequence[Sequence[Any]] = ()  # (time ms, action, who, why, reject reason), the last ones
