"""What reconciliations answer, as plain frozen dataclasses. Quantities are base units, times Unix milliseconds (0: none)."""

from __future__ import annotations

from dataclasses import dataclass

from stockade.client.results import StockKey


@dataclass(frozen=True, slots=True)
class ReconciliationCounts:
    """lines = matches + timing + missed_event_suspected + genuine_drift + other + failed."""

    lines: int = 0
    matches: int = 0
    timing: int = 0
    missed_event_suspected: int = 0
    genuine_drift: int = 0
    other: int = 0
    booked: int = 0
    quarantined: int = 0
    failed: int = 0

    @property
    def differences(self) -> int:
        """Lines that differ from the books."""
        return self.timing + self.missed_event_suspected + self.genuine_drift + self.other


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One comparison of a list with the books. Enum values by their short names."""

    reconciliation_id: str
    warehouse_id: str
    kind: str
    state: str
    request_reason: str
    request_id: str
    source_id: str
    stream_id: str
    as_of_source_sequence: int
    as_of_time_ms: int
    counts: ReconciliationCounts
    note: str
    exception_id: str
    request_time_ms: int
    begin_time_ms: int
    end_time_ms: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A line that differs from the books."""

    stock_key: StockKey
    disposition: str
    channel_id: str
    order_reference: str
    kind: str
    state: str
    found_quantity: int
    expected_quantity: int
    booked_delta: int
    suspects: tuple[str, ...]
    exception_id: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class FailedLine:
    """A line that could not be compared. ``line_index``: from 0; -1: made up for something that was not listed."""

    line_index: int
    problem: str
    description: str


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What became of a list: the first findings, and the first lines that failed."""

    reconciliation: Reconciliation
    findings: tuple[Finding, ...]
    failed_lines: tuple[FailedLine, ...]
