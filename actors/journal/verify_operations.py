"""``verify``'s own rules about orders over several shards: an intent is begun once and ended once, and only while it is under
way may its claims and its home say different things.

Handlers as in ``verify_stock``, of the events of kinds 110–113. What belongs to one cause is balanced over time here, because
its shards follow one after another: ``is_over_time`` says of which causes. At the end of a journal the reservations of
operations under way, and those whose shipments their homes have not heard of, are left out (``Ledger.under_way``); at rest
there are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.journal.verify_errands import ErrandRules
from actors.journal.verify_format import RESERVE
from actors.journal.verify_ledger import Ledger
from actors.journal.verify_report import VerifyReport
from actors.journal.verify_stock import Event

EXPIRE = 100
HELD = 1
OUTCOMES = (1, 2, 3)
FIRST_KIND, LAST_KIND = 100, 119


def is_over_time(events: Sequence[Any]) -> bool:
    """Whether what these events do is part of something that other shards do earlier or later."""
    return any(
        type(event) is tuple and event and type(event[0]) is int and FIRST_KIND <= event[0] <= LAST_KIND
        for event in events
    )


class UnderWay:
    """One operation. ``legs``: the shards that have not answered in this phase."""

    __slots__ = ("legs", "phase", "reservation_ids", "verb")

    def __init__(self, verb: int, reservation_ids: Sequence[str], legs: Sequence[int], phase: int = 1) -> None:
        self.verb = verb
        self.reservation_ids = [reservation_id for reservation_id in reservation_ids if reservation_id]
        self.legs = set(legs)
        self.phase = phase


class OperationRules(ErrandRules):
    """Judges and applies the events of kinds 110–113 of one shard."""

    def __init__(self, shard: int, report: VerifyReport, ledger: Ledger) -> None:
        super().__init__(shard, report, ledger)
        self.operations: dict[str, UnderWay] = {}
        self.busy: set[str] = set()  # the reservations they are about

    def operation_begun(self, event: Event) -> None:
        """[operation_id, verb, command, reservation_id, replaced_id, until_ms, legs, kept, cause]"""
        _, operation_id, verb, _, reservation_id, replaced_id, _, legs, _, _ = event
        if self.strict:
            self._judge_begun(event, operation_id, verb, reservation_id)
        if verb == RESERVE:
            self.reservation_number = max(self.reservation_number, int(reservation_id.rpartition("-")[2]))
        self.enter(operation_id, UnderWay(verb, (reservation_id, replaced_id), legs))

    def enter(self, operation_id: str, operation: UnderWay) -> None:
        """It is under way."""
        self.operations[operation_id] = operation
        self.busy.update(operation.reservation_ids)

    def _judge_begun(self, event: Event, operation_id: str, verb: int, reservation_id: str) -> None:
        if operation_id in self.operations:
            self._operation_fault(event, operation_id, "is begun again while it is under way")
        if verb == RESERVE:
            number = reservation_id.rpartition("-")[2]
            known = not number.isdigit() or int(number) <= self.reservation_number
            if known or reservation_id != f"{self.id_prefix}{number}":
                text = f"begins {reservation_id!r} after number {self.reservation_number}"
                self._operation_fault(event, operation_id, text)
            return
        reservation = self.reservations.get(reservation_id)
        if reservation is None:
            self._operation_fault(event, operation_id, f"is about {reservation_id!r}, which is not known")
        elif verb == EXPIRE and (reservation.state != HELD or self.time_ms < self._deadline(reservation)):
            text = f"expires {reservation_id!r} at {self.time_ms}, its deadline is {reservation.expire_ms}"
            expected = f"held, not before {self._deadline(reservation)}"
            self.fault(event, "expiry", reservation_id, text, expected=expected, found=self.time_ms)

    def leg_answered(self, event: Event) -> None:
        """[operation_id, shard, reply]"""
        _, operation_id, shard, _ = event
        operation = self._under_way(event, operation_id)
        if operation is None:
            return
        if self.strict and shard not in operation.legs:
            self._operation_fault(event, operation_id, f"shard {shard} answers, which is not waited for")
        operation.legs.discard(shard)

    def operation_moved(self, event: Event) -> None:
        """[operation_id, phase, legs, kept]"""
        _, operation_id, phase, legs, _ = event
        operation = self._under_way(event, operation_id)
        if operation is None:
            return
        if self.strict and (len(operation.legs) > 1 or phase != operation.phase + 1):
            text = f"phase {phase} begins, {len(operation.legs)} shards of phase {operation.phase} have not answered"
            self._operation_fault(event, operation_id, text)
        operation.legs, operation.phase = set(legs), phase

    def operation_ended(self, event: Event) -> None:
        """[operation_id, outcome]"""
        _, operation_id, outcome = event
        operation = self._under_way(event, operation_id)
        if operation is None:
            return
        del self.operations[operation_id]
        self.busy.difference_update(operation.reservation_ids)
        if not self.strict:
            return
        if outcome not in OUTCOMES:
            self._operation_fault(event, operation_id, f"ends with outcome {outcome}")
        if operation.verb == RESERVE and (outcome == 1) != (operation.reservation_ids[0] in self.reservations):
            self._operation_fault(
                event, operation_id, f"ends with outcome {outcome}; {operation.reservation_ids[0]!r} says otherwise"
            )

    def _under_way(self, event: Event, operation_id: str) -> UnderWay | None:
        operation = self.operations.get(operation_id)
        if operation is None:
            self._operation_fault(event, operation_id, "is not under way")
        return operation

    def _operation_fault(self, event: Event, operation_id: str, text: str) -> None:
        expected = "begun once, answered by those asked, ended once"
        self.fault(event, "operation", operation_id, f"the operation {text}", expected=expected)

    def is_busy(self, reservation_id: str) -> bool:
        """Whether an operation on it is under way: its deadline was judged when that began."""
        return reservation_id in self.busy

    def sum_up_operations(self) -> None:
        """At the end of the shard: what is under way is not told by all of its shards yet."""
        self.report.operations_open += len(self.operations)
        for operation in self.operations.values():
            self.ledger.under_way.update(operation.reservation_ids)
        for sent in self.sent.values():
            self.ledger.under_way.update(sent.telling.values())


def read_operation(fields: Any) -> UnderWay:
    """One under way, from a snapshot's fields."""
    legs = [shard for shard, told in fields[10] if not told]
    return UnderWay(fields[1], (fields[3], fields[4]), legs, fields[9])


def describe_operation(operation: UnderWay) -> dict[str, Any]:
    """What is compared of it."""
    return {
        "verb": operation.verb,
        "reservations": operation.reservation_ids,
        "waiting for": sorted(operation.legs),
        "phase": operation.phase,
    }
