"""Every fact that a shard journals, past tense, one NamedTuple each. Replay applies them and never decides anything again.

Each event names exactly ONE entity of its shard (its first field; ``ShardOwned`` is about the shard itself): a stock actor,
the claims of one reservation on one stock actor, a reservation, a dedupe entry, a stock exception, a feed or a waiting event.
That is what lets a snapshot be taken in slices. ``EVENT_KINDS`` gives each its stable number in the journal. Field order is journal format:
append only, and only with a default; the numbers are never reused. Quantities are base units, times Unix milliseconds; an
event happened at its record's time. A reservation's events name its channel (``channel_id``), so that the change feed can be
filtered by it long after the reservation left memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from actors.domain.consumer_events import CONSUMER_KINDS
from actors.domain.errand_events import ERRAND_KINDS
from actors.domain.errand_events import Event as ErrandEvent
from actors.domain.exception_events import ExceptionHandled, ExceptionResolved, FeedCorrected
from actors.domain.feed_events import (
    CountPlaced,
    DeferredEnded,
    EntrySettled,
    EventDeferred,
    FactNoted,
    FeedGapClosed,
    FeedGapSet,
    FeedHeard,
    FeedReceived,
    FeedSettled,
    FeedStaleSet,
    HistoryForgotten,
)
from actors.domain.operation_events import OPERATION_KINDS
from actors.domain.operation_events import Event as OperationEvent
from actors.domain.reconciliation_events import RECONCILIATION_KINDS, ReconciliationEvent
from actors.domain.transfer_events import (
    TransferAlarmed,
    TransferDispatched,
    TransferForgotten,
    TransferReceived,
)


class ShardOwned(NamedTuple):
    """A new owner serves this shard, in this timeline. Deadlines before the record's time end at ``grace_until_ms``."""

    epoch: int
    timeline: str
    grace_until_ms: int


class StockKeyRegistered(NamedTuple):
    """The stock actor exists from now on, empty, with the default policy (no safety stock, OPEN, no limit, version 1)."""

    stock_key: str


class StockPolicySet(NamedTuple):
    """The whole policy after the change. ``max_quantity_per_order`` 0: no limit. The last three are the sale gate's."""

    stock_key: str
    safety_stock_quantity: int
    selling_state: int
    max_quantity_per_order: int
    base_unit: str
    version: int
    item_state: int = 1  # an ItemState
    receipt_disposition: int = 1  # where units that come in as sellable start
    recalled_lot_ids: Sequence[str] = ()  # sorted


class OnHandChanged(NamedTuple):
    """on_hand[disposition] += delta, because of ``fact`` (a Fact; SHIPMENT also when order management told it).

    A disposition change is two of these. A count's delta is counted minus booked. ``reference``: shipment, transfer, return
    or inbound id, or an adjustment's reason. The last three, when ``occur_time_ms`` is not below 0: the fact is noted in the
    history with this change and this place, as FactNoted does for what also changed picked units.
    """

    stock_key: str
    fact: int
    disposition: int
    delta: int
    reference: str = ""
    document_id: str = ""
    document_line: str = ""
    lot_id: str = ""
    lot_expire_time_ms: int = 0
    note: str = ""
    attributes: Sequence[Sequence[str]] = ()
    stream_key: str = ""
    sequence: int = 0
    occur_time_ms: int = -1


class AdriftPicked(NamedTuple):
    """Units picked (+) or unpicked or shipped (−) under a promise for which no claim is known here: picked adrift, when the
    net is above 0. ``was``: from now on the history keeps under ``promise`` what it kept under that name."""

    stock_key: str
    promise: str  # as spelled by ``identity.promise_text``
    delta: int
    was: str = ""


class ClaimGranted(NamedTuple):
    """granted += quantity on the claim (stock_key, reservation_id, line_id), made if absent.

    Of ``quantity``: ``carried`` units were claims of the same order on this stock key until this record (an amend or a
    replacement released them just before, reason AMENDED or REPLACED) and are not decided again; the rest was decided:
    with admission WHEN_COVERED it was covered: cover − claims ≥ quantity, claims and cover as they stood just before this
    event (unless the rest is 0); with ALWAYS it is imposed. ``imposed``: how many of ``quantity`` are imposed, carried
    ones included. ``uncovered``: how many of those were not covered when they were imposed.
    """

    stock_key: str
    reservation_id: str
    line_id: str
    quantity: int
    carried: int
    admission: int
    imposed: int
    uncovered: int
    confirmed: bool
    channel_id: str
    order_reference: str


class ClaimConfirmed(NamedTuple):
    """All lines of the reservation's claims on this stock key are confirmed. Empty ``order_reference``: unchanged."""

    stock_key: str
    reservation_id: str
    order_reference: str


class ClaimReleased(NamedTuple):
    """released += quantity on that line. ``reason``: a ReleaseReason."""

    stock_key: str
    reservation_id: str
    line_id: str
    quantity: int
    reason: int


class ClaimExpired(NamedTuple):
    """On every line of the reservation's claims on this stock key: expired += what was open."""

    stock_key: str
    reservation_id: str


class ClaimFulfilled(NamedTuple):
    """fulfilled += quantity on that line; picked −= shipped. ``shipped`` ≥ quantity left the building for it. Not ``signed``, as
    it was journaled once: picked stays 0 where it would fall below."""

    stock_key: str
    reservation_id: str
    line_id: str
    quantity: int
    shipped: int
    signed: bool = False


class ClaimPicked(NamedTuple):
    """picked += delta on that line (unpick: negative); below 0 afterwards where a pick is still to come."""

    stock_key: str
    reservation_id: str
    line_id: str
    delta: int


class ClaimsForgotten(NamedTuple):
    """The reservation's claims on this stock key, all ended and with nothing picked, leave memory. A net below 0 went to the
    promise's pile just before (AdriftPicked)."""

    stock_key: str
    reservation_id: str


class ReservationOpened(NamedTuple):
    """A reservation was decided. ``lines``: [[line_id, stock_key, requested, granted], …]; open units = sum of granted."""

    reservation_id: str
    number: int
    channel_id: str
    request_id: str
    digest: bytes
    state: int  # HELD or CONFIRMED
    expire_time_ms: int  # 0 when CONFIRMED
    lines: Sequence[Sequence[Any]]
    order_reference: str = ""
    customer_id: str = ""
    replaces_reservation_id: str = ""
    labels: Sequence[Sequence[str]] = ()


class ReservationConfirmed(NamedTuple):
    """HELD became CONFIRMED. Version + 1. Empty ``order_reference``: unchanged."""

    reservation_id: str
    order_reference: str
    channel_id: str = ""


class ReservationExtended(NamedTuple):
    """The deadline of a hold moved to a later time. Version + 1."""

    reservation_id: str
    expire_time_ms: int
    channel_id: str = ""


class ReservationAmended(NamedTuple):
    """The lines after an amend; open units += added − released. Version + 1."""

    reservation_id: str
    lines: Sequence[Sequence[Any]]
    added: int
    released: int
    channel_id: str = ""


class ReservationUnitsEnded(NamedTuple):
    """Open units ended, as the stock actors told. Version + 1."""

    reservation_id: str
    fulfilled: int
    released: int
    expired: int
    channel_id: str = ""


class ReservationEnded(NamedTuple):
    """No unit is open any more: FULFILLED (some unit fulfilled), RELEASED or EXPIRED."""

    reservation_id: str
    state: int
    channel_id: str = ""


class VerbSpent(NamedTuple):
    """A request id was spent on this reservation by ``verb``. ``refusal``: [] or [reason, shortages, state, version]."""

    reservation_id: str
    request_id: str
    digest: bytes
    verb: int
    refusal: Sequence[Any] = ()


class ReservationRetired(NamedTuple):
    """An ended reservation left memory for the entries table (its row is in the same transaction)."""

    reservation_id: str


class EntrySpent(NamedTuple):
    """An id was spent without (or before) a reservation; ``answer`` is what a repeat gets, see ``identity``."""

    entry_key: str
    digest: bytes
    answer: Sequence[Any]


class EntryRetired(NamedTuple):
    """A dedupe entry left memory for the entries table (its row is in the same transaction)."""

    entry_key: str


class ExceptionOpened(NamedTuple):
    """Somebody must look. ``cause``: [verb, principal, correlation id, stream id, source sequence, occur time ms].

    ``payload``: the body of the event it is about, where that may be decided again.
    """

    exception_id: str
    number: int
    kind: int
    stock_key: str
    message: str
    quantity: int
    reservation_ids: Sequence[str]
    source_id: str
    event_id: str
    request_id: str
    channel_id: str
    reject_reason: int = 0
    payload: Sequence[Any] = ()
    cause: Sequence[Any] = ()


class ExceptionChanged(NamedTuple):
    """A shortage grew or shrank: the units short now, and the reservations concerned (newest claims first, bounded)."""

    exception_id: str
    quantity: int
    reservation_ids: Sequence[str]


class ExceptionHealed(NamedTuple):
    """What it was about is over."""

    exception_id: str


class ExceptionRetired(NamedTuple):
    """Healed long ago: memory forgets it, the journal keeps it."""

    exception_id: str


Event = (
    ShardOwned
    | StockKeyRegistered
    | StockPolicySet
    | OnHandChanged
    | AdriftPicked
    | FactNoted
    | CountPlaced
    | HistoryForgotten
    | ClaimGranted
    | ClaimConfirmed
    | ClaimReleased
    | ClaimExpired
    | ClaimFulfilled
    | ClaimPicked
    | ClaimsForgotten
    | ReservationOpened
    | ReservationConfirmed
    | ReservationExtended
    | ReservationAmended
    | ReservationUnitsEnded
    | ReservationEnded
    | VerbSpent
    | ReservationRetired
    | EntrySpent
    | EntryRetired
    | ExceptionOpened
    | ExceptionChanged
    | ExceptionHealed
    | ExceptionRetired
    | ExceptionResolved
    | ExceptionHandled
    | FeedCorrected
    | FeedReceived
    | EventDeferred
    | DeferredEnded
    | EntrySettled
    | FeedStaleSet
    | FeedGapClosed
    | FeedSettled
    | FeedGapSet
    | FeedHeard
    | ReconciliationEvent
    | ErrandEvent
    | OperationEvent
    | TransferDispatched
    | TransferReceived
    | TransferAlarmed
    | TransferForgotten
)

EVENT_KINDS: dict[int, type[Any]] = {
    1: ShardOwned,
    10: StockKeyRegistered,
    11: StockPolicySet,
    12: OnHandChanged,
    13: AdriftPicked,
    14: FactNoted,
    15: HistoryForgotten,
    20: ClaimGranted,
    21: ClaimConfirmed,
    22: ClaimReleased,
    23: ClaimExpired,
    24: ClaimFulfilled,
    25: ClaimPicked,
    26: ClaimsForgotten,
    30: ReservationOpened,
    31: ReservationConfirmed,
    32: ReservationExtended,
    33: ReservationAmended,
    34: ReservationUnitsEnded,
    35: ReservationEnded,
    36: VerbSpent,
    37: ReservationRetired,
    40: EntrySpent,
    41: EntryRetired,
    50: ExceptionOpened,
    51: ExceptionChanged,
    52: ExceptionHealed,
    53: ExceptionRetired,
    54: ExceptionResolved,
    55: ExceptionHandled,
    74: FeedCorrected,
    60: FeedReceived,
    61: EventDeferred,
    62: DeferredEnded,
    63: FeedStaleSet,
    64: FeedGapClosed,
    65: FeedSettled,
    66: FeedGapSet,
    67: FeedHeard,
    68: CountPlaced,
    121: EntrySettled,
    **CONSUMER_KINDS,
    **RECONCILIATION_KINDS,
    **ERRAND_KINDS,
    **OPERATION_KINDS,
    70: TransferDispatched,
    71: TransferReceived,
    72: TransferAlarmed,
    73: TransferForgotten,
}
KIND_OF: dict[type[Any], int] = {event_type: kind for kind, event_type in EVENT_KINDS.items()}
