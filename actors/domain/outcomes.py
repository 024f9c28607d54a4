"""Every word for how a command may end: refusals (business data), errors (about the call), states, reasons.

The numbers are wire and journal format: never reuse one. They equal the numbers of the enums of the same name in
``stockade.v1`` (a test compares the names). Refusals are listed in order of precedence: when several apply the first wins.
"""

from __future__ import annotations

from enum import IntEnum


class RefusalReason(IntEnum):
    """A business "no". Changes nothing; see ``Refusal`` in ``actors.domain.answers``."""

    UNKNOWN_STOCK_KEY = 1
    RESERVATION_EXPIRED = 2
    RESERVATION_RELEASED = 3
    RESERVATION_FULFILLED = 4
    RESERVATION_ALREADY_CONFIRMED = 5
    RESERVATION_NOT_CONFIRMED = 6
    VERSION_MISMATCH = 7
    FULFILLED_BY_WAREHOUSE = 8
    QUANTITY_EXCEEDS_OPEN = 9
    BELOW_FULFILLED = 10
    LIFETIME_EXCEEDED = 11
    SELLING_SUSPENDED = 12
    LIMIT_PER_ORDER = 13
    INSUFFICIENT_STOCK = 14


class ErrorReason(IntEnum):
    """Why a call failed, apart from business. The gateway's error table maps each to status code and ``outcome``."""

    INVALID_FIELD = 1
    REQUEST_ID_REUSED = 2
    REQUEST_ID_EXPIRED = 3
    RESERVATION_NOT_FOUND = 4
    OVERLOADED = 5
    SHARD_UNAVAILABLE = 6
    JOURNAL_FULL = 7
    DEADLINE_EXCEEDED = 8
    UNAUTHENTICATED = 9
    PERMISSION_DENIED = 10
    INTERNAL = 11
    WRONG_OWNER = 12  # between host and gateway only: the gateway asks the directory again
    STOCK_KEY_NOT_FOUND = 13  # GetStock, SetStockPolicy … of a key that nobody registered
    EXCEPTION_NOT_FOUND = 14
    EXCEPTION_ENDED = 15  # it healed, or somebody else was faster
    BUSY = 16  # another operation on this reservation is under way over several hosts: the gateway tries again soon
    OUT_OF_ORDER = 17  # between hosts only: an errand came before one that must come first; the detail is its number
    RECONCILIATION_NOT_FOUND = 20


class ReservationState(IntEnum):
    """Life of a reservation."""

    HELD = 1
    CONFIRMED = 2
    FULFILLED = 3
    RELEASED = 4
    EXPIRED = 5


class FillPolicy(IntEnum):
    """What to do when ATS does not cover every line."""

    ALL_OR_NOTHING = 1
    WHOLE_LINES = 2
    PARTIAL_QUANTITIES = 3


class Admission(IntEnum):
    """Whether a claim needs cover. ALWAYS records what was promised elsewhere; the channel must be allowed to."""

    WHEN_COVERED = 1
    ALWAYS = 2


class ReleaseReason(IntEnum):
    """Why units were released."""

    CART_ABANDONED = 1
    PAYMENT_FAILED = 2
    CUSTOMER_CANCELLED = 3
    SELLER_CANCELLED = 4
    SHORTAGE = 5
    SHIPPED_SHORT = 6
    REPLACED = 7
    OPERATOR = 8
    AMENDED = 9  # written by an amend's decrease; callers may not name it
    ABORTED = 10  # claimed by an order over several hosts that came to nothing; nor this one


class Disposition(IntEnum):
    """What condition units on hand are in; only SELLABLE counts for ATS."""

    SELLABLE = 1
    QUALITY_HOLD = 2
    DAMAGED = 3
    EXPIRED = 4
    RECALLED = 5


class SellingState(IntEnum):
    """Whether new claims are granted on a stock key at all."""

    OPEN = 1
    SUSPENDED = 2


class ItemState(IntEnum):
    """Whether the item of a stock key is traded; units of an inactive one that come in start in quality hold."""

    ACTIVE = 1
    INACTIVE = 2


class SaleGateReason(IntEnum):
    """Why units that came in as sellable do not start sellable."""

    LOT_RECALLED = 1
    RECEIPT_POLICY = 2
    SUPPLIER_POLICY = 3
    ITEM_INACTIVE = 4
    WAREHOUSE_NOT_ELIGIBLE = 5


class Fact(IntEnum):
    """What a warehouse event says happened."""

    RECEIPT = 1
    PICK = 2
    UNPICK = 3
    SHIPMENT = 4
    ADJUSTMENT = 5
    STOCK_COUNT = 6
    DISPOSITION_CHANGE = 7
    TRANSFER_DISPATCH = 8
    TRANSFER_RECEIPT = 9
    CUSTOMER_RETURN = 10


class IngestOutcome(IntEnum):
    """What became of a warehouse event."""

    APPLIED = 1
    DUPLICATE = 2
    DEFERRED = 3
    REJECTED = 4


class RejectReason(IntEnum):
    """Why a warehouse event was rejected: what cannot be understood. Each opens an exception."""

    UNKNOWN_FACT = 1
    UNKNOWN_WAREHOUSE = 2
    UNKNOWN_STOCK_KEY = 3
    AS_OF_MISSING = 4
    FULFILLED_BY_ORDER_MANAGEMENT = 5
    TOO_OLD = 6
    SOURCE_NOT_ALLOWED = 7
    EVENT_ID_REUSED = 8
    SHIPMENT_MISMATCH = 9
    QUANTITY_OUT_OF_RANGE = 10
    SEQUENCE_REUSED = 11
    DEFERRED_TOO_LONG = 12
    BEFORE_HISTORY = 13
    LOT_RECALLED = 14


class ExceptionKind(IntEnum):
    """What a stock exception is about."""

    SHORTAGE = 1
    SHIPMENT_MISMATCH = 2
    SHIPMENT_EXCEEDS_OPEN = 3
    SHIPMENT_WITHOUT_CLAIM = 4
    EVENT_REJECTED = 5
    FEED_GAP = 6
    FEED_STALE = 7
    EVENT_NOT_PLACED = 8
    TRANSFER_SHORT = 10
    TRANSFER_KEY_UNKNOWN = 11
    CHANGE_REJECTED = 15
    CONSUMER_LAGGING = 16
    RECONCILIATION_DRIFT = 20
    RECONCILIATION_REQUESTED = 21


class ExceptionState(IntEnum):
    """Open until it heals by itself or is resolved by somebody."""

    OPEN = 1
    HEALED = 2
    RESOLVED = 3


class ExceptionPriority(IntEnum):
    """How soon somebody must look."""

    LOW = 1
    NORMAL = 2
    HIGH = 3
    URGENT = 4


class ResolveAction(IntEnum):
    """What somebody does about an exception."""

    RETRY = 1
    CORRECT_AND_RETRY = 2
    DISCARD = 3
    ACKNOWLEDGE = 4  # it stays open: somebody looks after it


class Door(IntEnum):
    """Which side tells of shipments in a warehouse (setting)."""

    WAREHOUSE = 1
    ORDER_MANAGEMENT = 2
