"""What comes out of the change feed and of watches, typed, and how it is read from messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from stockade.client import reading
from stockade.client.results import Availability, StockKey
from stockade.v1 import change_feed_service_pb2 as pb
from stockade.v1 import stock_key_pb2


class ResyncNeeded(Exception):
    """The changes after the cursor cannot be told: begin anew, from a snapshot. ``reason``: OTHER_TIMELINE, TOO_OLD, …"""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the reader must begin anew from a snapshot: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class AvailabilityChanged:
    """What may be promised of a stock key. Of each stock key keep the one with the highest ``seen_sequence``."""

    change_id: str
    shard: int
    sequence: int
    time_ms: int
    stock_key: StockKey
    available_quantity: int
    stale: bool
    seen_sequence: int


@dataclass(frozen=True, slots=True)
class ReservationChanged:
    """Something happened to a reservation: OPENED, CONFIRMED, EXTENDED, AMENDED, UNITS_ENDED or ENDED (``what``).

    ``lines``: (line_id, stock key, requested, granted), of an OPENED or AMENDED one.
    """

    change_id: str
    shard: int
    sequence: int
    time_ms: int
    what: str
    reservation_id: str
    channel_id: str
    order_reference: str = ""
    state: str = ""
    expire_time_ms: int = 0
    lines: tuple[tuple[str, StockKey, int, int], ...] = ()
    fulfilled_quantity: int = 0
    released_quantity: int = 0
    expired_quantity: int = 0
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class WarehouseChanged:
    """A warehouse's feed fell silent (``stale``) or came back: so for every availability of it."""

    change_id: str
    shard: int
    sequence: int
    time_ms: int
    warehouse_id: str
    stale: bool
    requested_reconciliation_id: str = ""  # the service asks for a reconciliation


Changed = AvailabilityChanged | ReservationChanged | WarehouseChanged


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Changes that came together, perhaps none. Iterate for typed ones; ``messages`` are as they came.

    ``cursor``: covers all of them; empty while a snapshot is under way. ``snapshot``: the state of now, not what happened.
    ``as_of_ms``: all that was durable by then was sent; 0 while catching up. ``resynced``: why the reader began anew just now.
    """

    messages: Sequence[pb.Change]
    cursor: str
    delivery_id: str
    as_of_ms: int
    snapshot: bool
    resynced: str = ""

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Changed]:
        return map(changed, self.messages)


@dataclass(frozen=True, slots=True)
class WatchUpdate:
    """The latest values of what changed, perhaps nothing. ``snapshot``: current values of everything watched.

    ``as_of_ms``: everything that changed until then was sent; 0 before all current values were.
    """

    availabilities: list[Availability]
    cursor: str
    as_of_ms: int
    snapshot: bool


@dataclass(frozen=True, slots=True)
class Consumer:
    """A named reader and where it stands. ``cursor`` empty: it never acknowledged. ``resync``: why it must begin anew."""

    consumer_id: str
    cursor: str
    lag_events: int
    lag_ms: int
    lagging: bool
    acknowledge_time_ms: int
    last_error: str
    rejected_count: int
    connected_streams: int
    resync: str
    lag_events_max: int
    lag_ms_max: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Where the consumer stands now, and an exception for each change that it did not take."""

    consumer: Consumer
    exception_ids: list[str] = field(default_factory=list)


def changed(change: pb.Change) -> Changed:
    """A change, typed."""
    head = (change.change_id, change.shard, change.sequence, change.time_ms)
    which = change.WhichOneof("change")
    if which == "availability":
        told = change.availability
        return AvailabilityChanged(
            *head, reading.stock_key(told.stock_key), told.available_quantity, told.stale, told.seen_sequence
        )
    if which == "warehouse":
        told_of = change.warehouse
        return WarehouseChanged(*head, told_of.warehouse_id, told_of.stale, told_of.requested_reconciliation_id)
    said = change.reservation
    return ReservationChanged(
        *head,
        enum_name(pb.ReservationChangeKind, said.kind),
        said.reservation_id,
        said.channel_id,
        said.order_reference,
        enum_name(stock_key_pb2.ReservationState, said.state),
        said.expire_time_ms,
        tuple(
            (line.line_id, reading.stock_key(line.stock_key), line.requested_quantity, line.granted_quantity)
            for line in said.lines
        ),
        said.fulfilled_quantity,
        said.released_quantity,
        said.expired_quantity,
        said.request_id,
    )


def consumer(message: pb.Consumer) -> Consumer:
    """A consumer, typed."""
    return Consumer(
        message.consumer_id,
        message.cursor,
        message.lag_events,
        message.lag_ms,
        message.lagging,
        reading.time_ms(message.acknowledge_time),
        message.last_error,
        message.rejected_count,
        message.connected_streams,
        enum_name(pb.ResyncReason, message.resync),
        message.lag_events_max,
        message.lag_ms_max,
    )


def enum_name(enum: Any, number: int) -> str:
    """The short name of an enum value; empty for 0, the number for one of a newer service."""
    if not number:
        return ""
    if number not in enum.values():
        return str(number)
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    return str(enum.Name(number)).removeprefix(prefix)
