"""What is journaled of reconciliations: the runs themselves, and a finding for every line that differs.

Part of ``actors.domain.events``: the same rules hold. A run is an entity of the shard ``H(reconciliation id)``, a finding one
of its stock key's shard. Lines that match leave nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class ReconciliationRequested(NamedTuple):
    """The service asks for one. ``reason``: a RequestReason; source and stream: of the feed that was broken, if one was."""

    reconciliation_id: str
    warehouse_id: str
    reason: int
    source_id: str = ""
    stream_id: str = ""


class ReconciliationAlerted(NamedTuple):
    """It was asked for long ago and nobody answered: an exception is open."""

    reconciliation_id: str
    exception_id: str


class ReconciliationBegun(NamedTuple):
    """Its lines come. ``header``: what they are compared with and what may be done about them, see ``Header``."""

    reconciliation_id: str
    request_id: str
    digest: bytes
    warehouse_id: str
    kind: int
    header: Sequence[Any]


class ReconciliationEnded(NamedTuple):
    """No more lines come. ``counts``: see ``Counts``."""

    reconciliation_id: str
    state: int
    counts: Sequence[int]
    note: str = ""


class ReconciliationForgotten(NamedTuple):
    """It ended long ago: memory forgets it, the journal keeps it."""

    reconciliation_id: str


class FindingMade(NamedTuple):
    """A line differs from the books, and what was done about it at once (``state``: a FindingState).

    ``finding_key``: reconciliation id, stock key and what of it was compared. ``found``: what the line says, ``expected``: the
    books. ``booked``: units booked. ``suspends``: selling of the stock key was suspended because of it. ``place``: of the count,
    [stream key, sequence, time] or [].
    """

    finding_key: str
    kind: int
    state: int
    found: int
    expected: int
    booked: int
    includes_picked: bool
    suspends: bool
    exception_id: str
    place: Sequence[Any]
    suspects: Sequence[str] = ()


class FindingResolved(NamedTuple):
    """Somebody decided about a quarantined difference: ACCEPTED (``booked`` units) or DISCARDED."""

    finding_key: str
    state: int
    booked: int


class FindingForgotten(NamedTuple):
    """Its reconciliation ended long ago."""

    finding_key: str


ReconciliationEvent = (
    ReconciliationRequested
    | ReconciliationAlerted
    | ReconciliationBegun
    | ReconciliationEnded
    | ReconciliationForgotten
    | FindingMade
    | FindingResolved
    | FindingForgotten
)

RECONCILIATION_KINDS: dict[int, type[Any]] = {
    90: ReconciliationRequested,
    91: ReconciliationAlerted,
    92: ReconciliationBegun,
    93: ReconciliationEnded,
    94: ReconciliationForgotten,
    95: FindingMade,
    96: FindingResolved,
    97: FindingForgotten,
}
