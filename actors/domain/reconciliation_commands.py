"""Commands and questions about reconciliations. Part of ``actors.domain.commands``: the same rules hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Header(NamedTuple):
    """What the lines of a reconciliation are compared with, and what may be done about them. Travels as a plain list.

    ``as_of_source_sequence`` 0: the books of now. Tolerance: the larger of both, of what the books say.
    """

    source_id: str
    stream_id: str
    as_of_source_sequence: int
    as_of_time_ms: int
    tolerance_units: int
    tolerance_permille: int
    beyond_tolerance: int  # a BeyondTolerance
    unlisted_keys: int  # an UnlistedKeys: the gateway's business
    channel_id: str = ""


class BeginReconciliation(NamedTuple):
    """Begin, or go on with, the reconciliation of this request. Item shard: that of the reconciliation id."""

    request_id: str
    digest: bytes
    reconciliation_id: str
    warehouse_id: str
    kind: int
    header: Sequence[Any]


class ReconcileLines(NamedTuple):
    """Compare lines of ONE shard with the books. By kind:

    STOCK [stock_key, disposition, quantity, includes_picked] · OPEN_ORDERS [stock_key, channel_id, order_reference, quantity] ·
    CHANNEL_AVAILABILITY [stock_key, quantity]. ``dry_run``: nothing is booked, quarantined or journaled.
    """

    request_id: str
    reconciliation_id: str
    kind: int
    header: Sequence[Any]
    dry_run: bool
    lines: Sequence[Sequence[Any]]


class FinishReconciliation(NamedTuple):
    """All its lines were compared (DONE), or it is given up (FAILED). ``counts``: see ``Counts``."""

    request_id: str
    reconciliation_id: str
    state: int
    counts: Sequence[int]
    note: str = ""


class GetReconciliation(NamedTuple):
    """Item shard: that of the reconciliation id."""

    reconciliation_id: str


class ListReconciliations(NamedTuple):
    """Item shard -1 (the whole host). Empty: all."""

    warehouse_id: str
    states: Sequence[int]
    page_size: int
    page_token: str = ""


class ListFindings(NamedTuple):
    """Item shard -1 (the whole host). Empty ``kinds``: all."""

    reconciliation_id: str
    kinds: Sequence[int]
    page_size: int
    page_token: str = ""


class ListComparable(NamedTuple):
    """What a warehouse has in ONE shard that a line could be about, from ``place`` on: see ``ComparableView``."""

    warehouse_id: str
    kind: int
    place: int
    limit: int
    as_of_time_ms: int = 0


RECONCILIATION_COMMANDS: dict[int, type[Any]] = {
    60: BeginReconciliation,
    61: ReconcileLines,
    62: FinishReconciliation,
    63: GetReconciliation,
    64: ListReconciliations,
    65: ListFindings,
    66: ListComparable,
}
