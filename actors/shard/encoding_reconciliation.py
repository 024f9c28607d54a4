"""The canonical encoding of reconciliations and findings, as ``actors.shard.encoding`` does it for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from actors.domain.reconciliation_state import Finding, Reconciliation

_RUN = (
    "id", "warehouse_id", "state", "kind", "reason", "source_id", "stream_id", "request_id", "digest", "header", "counts",
    "note", "exception_id", "request_time_ms", "begin_time_ms", "end_time_ms",
)  # fmt: skip
_FINDING = (
    "key", "kind", "state", "found", "expected", "booked", "includes_picked", "suspends", "exception_id", "place",
    "suspects", "number", "time_ms",
)  # fmt: skip
encode_reconciliation = attrgetter(*_RUN)
encode_finding = attrgetter(*_FINDING)


def decode_reconciliation(fields: Sequence[Any]) -> Reconciliation:
    """A reconciliation from ``encode_reconciliation``."""
    run = Reconciliation(fields[0], fields[1])
    for name, value in zip(_RUN[2:], fields[2:], strict=True):
        setattr(run, name, value)
    return run


def decode_finding(fields: Sequence[Any]) -> Finding:
    """A finding from ``encode_finding``."""
    finding = Finding(fields[0])
    for name, value in zip(_FINDING[1:], fields[1:], strict=True):
        setattr(finding, name, value)
    return finding
