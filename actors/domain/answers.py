"""What a decision answers: replies and their payloads, one NamedTuple each, in the order in which they travel.

Field order is wire format (msgpack arrays): append only, and only with a default. A reply is
``[OK, replayed, payload] | [REFUSED, replayed, RefusalView] | [ERROR, reason, detail, retry_after_ms]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from actors.domain.outcomes import ErrorReason, RefusalReason

Reply = Sequence[Any]


class ReplyStatus(IntEnum):
    """First element of a reply."""

    OK = 0
    REFUSED = 1
    ERROR = 2
    PENDING = 3  # [PENDING, token]: under way over several hosts; the answer comes later


OK = int(ReplyStatus.OK)
REFUSED = int(ReplyStatus.REFUSED)
ERROR = int(ReplyStatus.ERROR)
PENDING = int(ReplyStatus.PENDING)


def ok(payload: Sequence[Any], replayed: bool = False) -> Reply:  # noqa: FBT001, FBT002  the hot path, three callers
    """A yes. ``replayed``: the first decision, given again."""
    return (OK, replayed, payload)


def pending(token: str) -> Reply:
    """Begun, and other hosts must answer first: whoever asked waits for ``turn.finish(token, …)``. Inside a host only."""
    return (PENDING, token)


def error(reason: ErrorReason, detail: str = "", retry_after_ms: int = 0) -> Reply:
    """The call failed; ``detail`` is for people and may name a field."""
    return (ERROR, int(reason), detail, retry_after_ms)


def refused(
    reason: RefusalReason,
    position: Sequence[int],
    *,
    shortages: Sequence[Sequence[Any]] = (),
    state: int = 0,
    version: int = 0,
    replayed: bool = False,
    other_positions: Sequence[Sequence[int]] = (),
) -> Reply:
    """A business "no"."""
    return (REFUSED, replayed, RefusalView(int(reason), shortages, state, version, position, other_positions))


# --- payloads of OK replies, by verb -------------------------------------------------------------------------------------
# A position is [shard, epoch, sequence, time_ms]; its timeline is the link's (WELCOME).


class Granted(NamedTuple):
    """RESERVE. ``lines`` is None when every line was granted as asked, under WHEN_COVERED, once per line id; else the full lines."""

    reservation_id: str
    state: int
    version: int
    create_time_ms: int
    expire_time_ms: int  # 0 when confirmed at once
    position: Sequence[int]
    lines: Sequence[Sequence[Any]] | None  # LineView
    other_positions: Sequence[Sequence[int]]


class LineView(NamedTuple):
    """One entry of a line. Several may share a line_id (an amended line that moved)."""

    line_id: str
    stock_key: str
    requested_quantity: int
    granted_quantity: int
    fulfilled_quantity: int
    released_quantity: int
    expired_quantity: int
    picked_quantity: int
    uncovered_quantity: int
    imposed: bool


class ReservationView(NamedTuple):
    """CONFIRM, RELEASE, EXTEND, AMEND, FULFILL, GET_RESERVATION: the reservation after it. Times 0: not (yet)."""

    reservation_id: str
    channel_id: str
    customer_id: str
    order_reference: str
    state: int
    version: int
    lines: Sequence[Sequence[Any]]  # LineView
    labels: Sequence[Sequence[str]]
    create_time_ms: int
    expire_time_ms: int
    confirm_time_ms: int
    end_time_ms: int
    position: Sequence[int]
    other_positions: Sequence[Sequence[int]]


class Page(NamedTuple):
    """LIST_*, GET_FEED_STATUS: ``items`` are ReservationView, StockView, ExceptionView, FeedView; ``next_page_token`` empty at the end."""

    items: Sequence[Sequence[Any]]
    next_page_token: str


class AvailabilityView(NamedTuple):
    """GET_AVAILABILITY: [[available_quantity, known, stale], …] in the order asked, and one position."""

    items: Sequence[Sequence[Any]]
    position: Sequence[int]


class ConsumerView(NamedTuple):
    """ATTACH_CONSUMER, LIST_CONSUMERS. ``positions`` empty: it never acknowledged. ``resync``: why it must begin anew, or 0."""

    consumer_id: str
    timeline: str
    cursor_time_ms: int
    positions: Sequence[Sequence[int]]
    lag_events: int
    lag_ms: int
    lagging: bool
    acknowledge_time_ms: int
    last_error: str
    rejected: int
    resync: int
    lag_events_max: int
    lag_ms_max: int


class AcknowledgedView(NamedTuple):
    """ACKNOWLEDGE_CHANGES. ``exception_ids``: one for each rejection, in order."""

    consumer: Sequence[Any]
    exception_ids: Sequence[str]


class AvailabilityPage(NamedTuple):
    """LIST_AVAILABILITY: [[stock_key, available_quantity, stale], …]; ``next_start`` 0 at the end."""

    items: Sequence[Sequence[Any]]
    next_start: int
    position: Sequence[int]


class StockView(NamedTuple):
    """GET_STOCK, LIST_STOCK, REGISTER_STOCK, SET_STOCK_POLICY, SET_SELLING."""

    stock_key: str
    on_hand: Sequence[Sequence[int]]  # [[disposition, quantity], …] non-zero, by disposition
    held_quantity: int
    confirmed_quantity: int
    picked_quantity: int
    picked_adrift_quantity: int
    shortage_quantity: int
    safety_stock_quantity: int
    selling_state: int
    max_quantity_per_order: int
    base_unit: str
    policy_version: int
    available_quantity: int
    position: Sequence[int]
    item_state: int = 1
    receipt_disposition: int = 1
    recalled_lot_ids: Sequence[str] = ()
    in_transit_quantity: int = 0
    transfers: Sequence[Sequence[Any]] = ()  # of ``TransferView``, bounded


class TransferView(NamedTuple):
    """LIST_TRANSFERS, and within a StockView: one line of a transfer, at the stock key it goes to."""

    stock_key: str
    transfer_id: str
    transfer_line: str
    from_warehouse_id: str
    dispatched_quantity: int
    received_quantity: int
    in_transit_quantity: int
    lost_quantity: int
    exception_id: str
    last_time_ms: int


class ExceptionView(NamedTuple):
    """LIST_EXCEPTIONS, GET_EXCEPTION. ``payload``: the body of its event; ``cause`` and ``handlings``: as its events say."""

    exception_id: str
    kind: int
    state: int
    stock_key: str
    message: str
    quantity: int
    reservation_ids: Sequence[str]
    source_id: str
    event_id: str
    request_id: str
    channel_id: str
    open_time_ms: int
    end_time_ms: int
    reject_reason: int
    priority: int = 0
    owning_team: str = ""
    suggested_action: str = ""
    actions: Sequence[int] = ()  # that end it
    payload: Sequence[Any] = ()
    cause: Sequence[Any] = ()
    handlings: Sequence[Sequence[Any]] = ()  # [[time ms, action, who, why, reject reason], …]


class ResolutionView(NamedTuple):
    """RESOLVE_EXCEPTION: the exception after it, and what became of its event (``outcome`` 0: none was decided)."""

    exception: Sequence[Any]  # ExceptionView
    outcome: int
    place: Sequence[int]
    shortage_quantity: int
    opened: str
    reject_reason: int
    booked_disposition: int
    gate_reasons: Sequence[int]


class ExplanationView(NamedTuple):
    """EXPLAIN_AVAILABILITY. ``events`` newest first: [sequence, time_ms, kind_name, quantity, cause_text, document_id,
    document_line, lot_id, reference, disposition, note] (filled by the shell)."""

    stock: Sequence[Any]  # StockView
    known: bool
    cover_quantity: int
    claims_quantity: int
    available_quantity: int
    largest_quantity_now: int  # what one order may get now: ATS, suspension and limit per order applied
    would_succeed: bool  # for the quantity asked
    refusal_reason: int  # 0 or a RefusalReason, for the quantity asked
    next_hold_expire_time_ms: int  # 0: no hold
    next_hold_expire_quantity: int
    events: Sequence[Sequence[Any]]


class IngestView(NamedTuple):
    """INGEST. ``outcome``: an IngestOutcome. ``position``: of the stock key's shard, where the event touched it.

    ``deferred_place``: the sequence that the watermark must reach, ``deferred_until_ms``: how long that is waited for (both 0
    unless DEFERRED). ``watermark``: of the event's stream, now.
    """

    event_id: str
    outcome: int
    position: Sequence[int]
    shortage_quantity: int
    exception_id: str
    reject_reason: int
    booked_disposition: int = 0
    gate_reasons: Sequence[int] = ()
    deferred_place: int = 0
    deferred_until_ms: int = 0
    watermark: int = 0


class HeartbeatView(NamedTuple):
    """HEARTBEAT. ``highest``: the highest sequence heard of; from ``watermark`` + 1 on the source may send again."""

    watermark: int
    highest: int
    waiting: int
    position: Sequence[int]


class FeedView(NamedTuple):
    """GET_FEED_STATUS. ``missing``: [[first, last], …] of what was not received below ``highest``, the lowest ones."""

    source_id: str
    stream_id: str
    watermark: int
    highest: int
    missing: Sequence[Sequence[int]]
    waiting: int
    warehouses: Sequence[Sequence[Any]]  # FeedWarehouseView


class FeedWarehouseView(NamedTuple):
    """A stream in one warehouse. ``lag_ms``: from occurrence to application, of the last event. ``expected_interval_ms`` 0:
    none. ``received`` = applied + rejected + duplicates + waiting; repeats count since the process began.
    """

    warehouse_id: str
    last_received_ms: int
    last_occur_ms: int
    lag_ms: int
    applied: int
    rejected: int
    duplicates: int
    waiting: int
    stale: bool
    expected_interval_ms: int
    received: int
    last_heard_ms: int


class RefusalView(NamedTuple):
    """A refusal. ``shortages``: [[line_id, stock_key, requested_quantity, available_quantity, reason], …]; state 0: no reservation.

    ``other_positions``: one for every shard but the position's whose claims or stock it looked at.
    """

    reason: int
    shortages: Sequence[Sequence[Any]]
    state: int
    version: int
    position: Sequence[int]
    other_positions: Sequence[Sequence[int]] = ()
