"""``verify``'s own rules about consumers of changes: a place in the feed belongs to one timeline, and within it only moves on.

Handlers as in ``verify_stock``, of the events of kinds 80–83.
"""

from __future__ import annotations

from typing import Any

from actors.journal.verify_home import EXCEPTION_OPEN
from actors.journal.verify_ledger import Ledger
from actors.journal.verify_reconciliation import ReconciliationRules
from actors.journal.verify_report import VerifyReport
from actors.journal.verify_stock import Event

LAGGING = 16  # kind of exception


class Reader:
    """One consumer: how far it acknowledged, by shard."""

    __slots__ = ("exception_id", "has_acknowledged", "places", "rejected", "timeline")

    def __init__(self, timeline: str, places: Any) -> None:
        self.timeline = timeline
        self.places: dict[int, int] = dict(places)
        self.has_acknowledged = False
        self.rejected = 0
        self.exception_id = ""


class ConsumerRules(ReconciliationRules):
    """Judges and applies the events of kinds 80–83 of one shard."""

    def __init__(self, shard: int, report: VerifyReport, ledger: Ledger) -> None:
        super().__init__(shard, report, ledger)
        self.readers: dict[str, Reader] = {}

    def consumer_started(self, event: Event) -> None:
        """[consumer_id, timeline, positions]"""
        _, consumer_id, timeline, places = event
        if self.strict and consumer_id in self.readers:
            self._out_of_place(event, consumer_id, "is seen for the first time, and was known already")
        self.readers[consumer_id] = Reader(timeline, places)

    def changes_acknowledged(self, event: Event) -> None:
        """[consumer_id, timeline, cursor_time, positions, error, rejected]"""
        _, consumer_id, timeline, _, places, *rest = event
        reader = self._reader(event, consumer_id)
        if timeline and (timeline != reader.timeline or not reader.has_acknowledged):
            reader.timeline, reader.places = timeline, {}
        for shard, sequence in places:
            before = reader.places.get(shard, sequence)
            if self.strict and sequence < before:
                self._out_of_place(event, consumer_id, f"goes back in shard {shard}, from {before} to {sequence}")
            reader.places[shard] = sequence
        reader.has_acknowledged = reader.has_acknowledged or bool(timeline)
        refused = rest[1] if len(rest) > 1 else 0
        if self.strict and refused < 0:
            self._out_of_place(event, consumer_id, f"refused {refused} changes")
        reader.rejected += refused

    def consumer_lag_set(self, event: Event) -> None:
        """[consumer_id, exception_id]"""
        _, consumer_id, exception_id = event
        reader = self._reader(event, consumer_id)
        if self.strict and exception_id:
            exception = self.exceptions.get(exception_id)
            if exception is None or exception[0] != LAGGING or exception[3] != EXCEPTION_OPEN:
                self._out_of_place(event, consumer_id, f"lags, and exception {exception_id!r} does not say so")
        reader.exception_id = exception_id

    def consumer_forgotten(self, event: Event) -> None:
        """[consumer_id]"""
        self._reader(event, event[1])
        self.readers.pop(event[1], None)

    def _reader(self, event: Event, consumer_id: str) -> Reader:
        reader = self.readers.get(consumer_id)
        if reader is None:
            if self.strict:
                self._out_of_place(event, consumer_id, "was never seen for a first time")
            reader = self.readers[consumer_id] = Reader("", ())
        return reader

    def _out_of_place(self, event: Event, consumer_id: str, text: str) -> None:
        self.fault(event, "consumer", "", f"consumer {consumer_id!r} {text}")


def read_reader(fields: Any) -> Reader:
    """A consumer from a snapshot's fields."""
    reader = Reader(fields[1], fields[2])
    reader.has_acknowledged, reader.rejected, reader.exception_id = bool(fields[5]), fields[7], fields[8]
    return reader


def describe_reader(reader: Reader) -> dict[str, Any]:
    """What is compared of it."""
    return {
        "timeline": reader.timeline,
        "acknowledged": dict(sorted(reader.places.items())),
        "has acknowledged": reader.has_acknowledged,
        "rejected": reader.rejected,
        "lag exception": reader.exception_id,
    }
