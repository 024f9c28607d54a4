"""What a change says: the rows that travel between host and gateway as msgpack arrays. Append only, and only with a default.

Which events are changes, and when, is ``actors.domain.changes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple


class ChangeKind(IntEnum):
    """First element of a row."""

    AVAILABILITY = 1
    RESERVATION = 2
    WAREHOUSE = 3


class ReservationChangeKind(IntEnum):
    """What happened to a reservation."""

    OPENED = 1
    CONFIRMED = 2
    EXTENDED = 3
    AMENDED = 4
    UNITS_ENDED = 5
    ENDED = 6


class AvailabilityChange(NamedTuple):
    """What may be promised of a stock key changed, or something behind it. ``seen_sequence`` ≥ ``sequence``: what the value
    includes of the shard."""

    kind: int
    sequence: int
    time_ms: int
    stock_key: str
    available_quantity: int
    stale: bool
    seen_sequence: int


class ReservationChange(NamedTuple):
    """Something happened to a reservation; what does not apply is empty or 0. ``lines``: [[line_id, stock_key, requested,
    granted], …] of an OPENED or AMENDED one."""

    kind: int
    sequence: int
    time_ms: int
    what: int
    reservation_id: str
    channel_id: str
    order_reference: str = ""
    state: int = 0
    expire_time_ms: int = 0
    lines: Sequence[Sequence[Any]] = ()
    fulfilled: int = 0
    released: int = 0
    expired: int = 0
    request_id: str = ""


class WarehouseChange(NamedTuple):
    """A warehouse's feed fell silent or came back: every availability of that warehouse is stale, or no longer. Or a
    reconciliation of it is requested."""

    kind: int
    sequence: int
    time_ms: int
    warehouse_id: str
    stale: bool
    requested_reconciliation_id: str = ""
