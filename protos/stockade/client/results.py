"""What calls answer, as plain frozen dataclasses. Quantities are base units, times Unix milliseconds (0: none)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StockKey:
    """What is sold and where it lies."""

    sku: str
    warehouse_id: str


@dataclass(frozen=True, slots=True)
class LineWanted:
    """One line to reserve. ``line_id`` empty: its index. ``minimum_quantity`` 0: any part is of use."""

    sku: str
    warehouse_id: str
    quantity: int
    line_id: str = ""
    minimum_quantity: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """How far an answer had seen a shard."""

    timeline: str
    shard: int
    epoch: int
    sequence: int
    time_ms: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of a line."""

    line_id: str
    stock_key: StockKey
    requested_quantity: int
    granted_quantity: int
    fulfilled_quantity: int
    released_quantity: int
    expired_quantity: int
    picked_quantity: int
    uncovered_quantity: int
    imposed: bool

    @property
    def open_quantity(self) -> int:
        """Units not ended yet."""
        return self.granted_quantity - self.fulfilled_quantity - self.released_quantity - self.expired_quantity


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation. ``state``: HELD, CONFIRMED, FULFILLED, RELEASED or EXPIRED."""

    reservation_id: str
    channel_id: str
    customer_id: str
    order_reference: str
    state: str
    version: int
    lines: tuple[Line, ...]
    labels: Mapping[str, str]
    create_time_ms: int
    expire_time_ms: int
    confirm_time_ms: int
    end_time_ms: int
    position: Position
    other_positions: tuple[Position, ...] = ()
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Shortage:
    """A line that could not be had."""

    line_id: str
    stock_key: StockKey
    requested_quantity: int
    available_quantity: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A business "no": it changed nothing. ``reason``: INSUFFICIENT_STOCK, RESERVATION_EXPIRED, …"""

    reason: str
    shortages: tuple[Shortage, ...]
    state: str
    version: int
    position: Position
    replayed: bool = False
    other_positions: tuple[Position, ...] = ()


@dataclass(frozen=True, slots=True)
class Granted:
    """A lean yes of a batch. ``lines`` is None when every line was granted as asked."""

    reservation_id: str
    expire_time_ms: int
    position: Position
    lines: tuple[Line, ...] | None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """One item of a batch failed. ``outcome``: not_done or unknown."""

    code: str
    reason: str
    message: str
    outcome: str
    retryable: bool
    violations: Mapping[str, str] = field(default_factory=dict)


BatchResult = Granted | Refused | Failed


@dataclass(frozen=True, slots=True)
class Availability:
    """What a channel may promise now. ``answered_by``: STOCK_ACTOR, or GATEWAY_VIEW when a little staleness was allowed; then
    it was true as of ``as_of_ms``, shard time."""

    stock_key: StockKey
    channel_id: str
    available_quantity: int
    known: bool
    stale: bool
    position: Position
    answered_by: str = ""
    as_of_ms: int = 0


@dataclass(frozen=True, slots=True)
class Stock:
    """Every quantity of a stock key. ``on_hand``: disposition → units."""

    stock_key: StockKey
    on_hand: Mapping[str, int]
    held_quantity: int
    confirmed_quantity: int
    picked_quantity: int
    picked_adrift_quantity: int
    safety_stock_quantity: int
    shortage_quantity: int
    available_quantity: int
    selling_state: str
    max_quantity_per_order: int
    base_unit: str
    policy_version: int
    position: Position
    item_state: str = "ACTIVE"
    receipt_disposition: str = "SELLABLE"
    recalled_lot_ids: tuple[str, ...] = ()
    in_transit_quantity: int = 0
    transfers: tuple[Transfer, ...] = ()


@dataclass(frozen=True, slots=True)
class Transfer:
    """One line of a transfer, at the stock key it goes to. Base units."""

    stock_key: StockKey
    transfer_id: str
    transfer_line: str
    from_warehouse_id: str
    dispatched_quantity: int
    received_quantity: int
    in_transit_quantity: int
    lost_quantity: int
    exception_id: str
    last_time_ms: int


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a warehouse event. ``outcome``: APPLIED, DUPLICATE, DEFERRED, REJECTED or FAILED (send it again)."""

    event_id: str
    outcome: str
    reason: str = ""
    shortage_quantity: int = 0
    exception_id: str = ""
    position: Position | None = None
    retryable: bool = False
    retry_after_ms: int = 0
    booked_disposition: str = ""  # where its units start, when the sale gate held them back
    gate_reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WarehouseFeed:
    """What a stream told of one warehouse. ``received_count`` = applied + duplicate + waiting + rejected."""

    warehouse_id: str
    last_received_time_ms: int
    last_occur_time_ms: int
    last_heard_time_ms: int
    lag_ms: int
    stale: bool
    expected_interval_ms: int
    received_count: int
    applied_count: int
    duplicate_count: int
    waiting_count: int
    rejected_count: int


@dataclass(frozen=True, slots=True)
class Feed:
    """One stream of one source. ``missing``: (first, last) of the lowest ranges that were not received."""

    source_id: str
    stream_id: str
    watermark: int
    highest_sequence: int
    missing: tuple[tuple[int, int], ...]
    waiting_count: int
    warehouses: tuple[WarehouseFeed, ...]


@dataclass(frozen=True, slots=True)
class HeartbeatTaken:
    """How far the service is with a feed that lives. ``reason``: why it was not taken, empty when it was."""

    watermark: int
    highest_sequence: int
    waiting_count: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Handling:
    """What somebody did about an exception. ``reject_reason``: why its event was rejected again."""

    action: str
    resolver: str
    note: str
    time_ms: int
    reject_reason: str = ""


@dataclass(frozen=True, slots=True)
class StockException:
    """What somebody must look at."""

    exception_id: str
    kind: str
    state: str
    stock_key: StockKey
    message: str
    quantity: int
    reservation_ids: tuple[str, ...]
    source_id: str
    event_id: str
    request_id: str
    channel_id: str
    open_time_ms: int
    end_time_ms: int
    reject_reason: str
    priority: str = ""
    owning_team: str = ""
    suggested_action: str = ""
    actions: tuple[str, ...] = ()  # what ends it, beside ACKNOWLEDGE, which does not
    event: Mapping[str, Any] = field(default_factory=dict)  # its event as it was sent, in protobuf's JSON
    cause_verb: str = ""
    cause_principal: str = ""
    cause_correlation_id: str = ""
    cause_stream_id: str = ""
    cause_sequence: int = 0
    cause_occur_time_ms: int = 0
    handlings: tuple[Handling, ...] = ()  # the last ten; of a resolved one the last is its resolution


@dataclass(frozen=True, slots=True)
class Resolved:
    """What ResolveException did. ``result``: what became of the exception's event, where it was decided again."""

    exception: StockException
    result: Ingested | None = None
    replayed: bool = False
