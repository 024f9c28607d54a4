"""Every word about a reconciliation: kinds, states, reasons, what to do. Numbers are wire and journal format: never reuse one.

They equal the numbers of the enums of the same name in ``stockade.v1`` (a test compares the names).
"""

from __future__ import annotations

from enum import IntEnum


class ReconciliationKind(IntEnum):
    """What is compared."""

    STOCK = 1
    OPEN_ORDERS = 2
    CHANNEL_AVAILABILITY = 3


class ReconciliationState(IntEnum):
    """Life of a reconciliation."""

    REQUESTED = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4


class RequestReason(IntEnum):
    """Why the service asks for one."""

    SCHEDULE = 1
    FEED_STALE = 2
    FEED_GAP = 3


class BeyondTolerance(IntEnum):
    """What to do about a difference beyond the tolerance."""

    QUARANTINE = 1
    REPORT_ONLY = 2


class UnlistedKeys(IntEnum):
    """What it means that a stock key is in no line."""

    IGNORE = 1
    COUNT_AS_ZERO = 2


class FindingKind(IntEnum):
    """Why a line differs, as far as it can be told."""

    TIMING = 1
    MISSED_EVENT_SUSPECTED = 2
    GENUINE_DRIFT = 3
    CLAIM_MISSING = 4
    CLAIM_EXCESS = 5
    CLAIM_QUANTITY_DIFFERS = 6
    CHANNEL_SHOWS_MORE = 7
    CHANNEL_SHOWS_LESS = 8


class FindingState(IntEnum):
    """What was done about it."""

    REPORTED = 1
    BOOKED = 2
    QUARANTINED = 3
    ACCEPTED = 4
    DISCARDED = 5
    WOULD_BOOK = 6  # only in answers of a dry run
    WOULD_QUARANTINE = 7
    SUPERSEDED = 8  # quarantined, then a later list was compared


class LineProblem(IntEnum):
    """Why a line could not be compared."""

    UNKNOWN_STOCK_KEY = 1  # and the catalog is closed
    BEFORE_HISTORY = 2  # its place is older than the history that is kept
    LISTED_TWICE = 3  # with different quantities
    QUANTITY_OUT_OF_RANGE = 4
