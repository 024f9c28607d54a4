"""``verify``'s own rules about errands between shards: numbered without a gap, taken once and in order, answered once.

Handlers as in ``verify_stock``, of the events of kinds 100–102. What one shard sent against what the other took is judged by
``judge_pairs`` when all shards were walked: at the end of a journal some may be open, none may be answered that nobody took.
"""

from __future__ import annotations

from typing import Any

from actors.journal.verify_consumers import ConsumerRules
from actors.journal.verify_ledger import Ledger, violation_at
from actors.journal.verify_report import VerifyReport
from actors.journal.verify_stock import Event

TELL_HOME = 87  # verb of the errand by which a shard tells a home of units that were shipped there


class Sent:
    """To one other shard: numbers below ``next`` were sent, those below ``settled_below`` are answered."""

    __slots__ = ("next", "settled_below", "telling")

    def __init__(self, next_number: int = 1, settled_below: int = 1) -> None:
        self.next = next_number
        self.settled_below = settled_below
        self.telling: dict[int, str] = {}  # number → reservation whose home is not known to have heard of a shipment


class Taken:
    """From one other shard: numbers up to ``last`` were taken; replies below ``settled_below`` are forgotten."""

    __slots__ = ("last", "settled_below")

    def __init__(self, last: int = 0, settled_below: int = 1) -> None:
        self.last = last
        self.settled_below = settled_below


class ErrandRules(ConsumerRules):
    """Judges and applies the events of kinds 100–102 of one shard."""

    def __init__(self, shard: int, report: VerifyReport, ledger: Ledger) -> None:
        super().__init__(shard, report, ledger)
        self.sent: dict[int, Sent] = {}
        self.taken: dict[int, Taken] = {}

    def errand_sent(self, event: Event) -> None:
        """[to_shard, number, verb, body, purpose, cause]"""
        _, to_shard, number, verb, body, purpose, _ = event
        sent = self.sent.setdefault(to_shard, Sent())
        if self.strict and number != sent.next:
            self._errand_fault(event, to_shard, f"number {number} follows number {sent.next - 1}", sent.next, number)
        if self.strict and not purpose:
            self._errand_fault(event, to_shard, f"number {number} is for nothing", "a purpose", "none")
        sent.next = number + 1
        if verb == TELL_HOME:
            sent.telling[number] = body[0]

    def errand_taken(self, event: Event) -> None:
        """[from_shard, number, settled_below, reply]"""
        _, from_shard, number, settled_below, _ = event
        taken = self.taken.setdefault(from_shard, Taken())
        if self.strict and number != taken.last + 1:
            text = f"number {number} is taken after number {taken.last}"
            self._errand_fault(event, from_shard, text, taken.last + 1, number)
        if self.strict and settled_below > number:
            text = f"number {number} is taken and was answered before"
            self._errand_fault(event, from_shard, text, f"at most {number}", settled_below)
        taken.last = number
        taken.settled_below = max(taken.settled_below, settled_below)

    def errand_settled(self, event: Event) -> None:
        """[to_shard, number]"""
        _, to_shard, number = event
        sent = self.sent.setdefault(to_shard, Sent())
        if self.strict and not number == sent.settled_below < sent.next:
            text = f"number {number} is answered after number {sent.settled_below - 1}; {sent.next - 1} were sent"
            self._errand_fault(event, to_shard, text, sent.settled_below, number)
        sent.settled_below = number + 1
        sent.telling.pop(number, None)

    def sum_up_errands(self) -> None:
        """At the end of the shard: what is judged against other shards."""
        for other, sent in self.sent.items():
            self.ledger.errands_sent[self.shard, other] = (sent.next, sent.settled_below, self.where())
        for other, taken in self.taken.items():
            self.ledger.errands_taken[other, self.shard] = (taken.last, taken.settled_below, self.where())

    def _errand_fault(self, event: Event, other: int, text: str, expected: Any, found: Any) -> None:
        self.fault(event, "errand", f"shard {other}", f"errand {text}", expected=expected, found=found)


def judge_pairs(ledger: Ledger, report: VerifyReport) -> None:
    """What every shard sent, and has answered, against what the other one took. Not where a shard was not walked."""
    if ledger.distrusted:
        return
    for pair in sorted(ledger.errands_sent.keys() | ledger.errands_taken.keys()):
        next_number, settled_below, sent_at = ledger.errands_sent.get(pair, (1, 1, None))
        last, forgotten_below, taken_at = ledger.errands_taken.get(pair, (0, 1, None))
        where = taken_at or sent_at
        assert where is not None, "a pair that nobody told of"
        report.errands_open += max(0, next_number - settled_below)
        for wrong, text in (
            (last >= next_number, f"took {last} errands of shard {pair[0]}, which sent {next_number - 1}"),
            (
                settled_below > last + 1,
                f"took {last} errands of shard {pair[0]}, which has answers to {settled_below - 1}",
            ),
            (forgotten_below > settled_below, f"forgot answers below {forgotten_below} that shard {pair[0]} has not"),
        ):
            if wrong:
                text = f"shard {pair[1]} {text}"
                expected = "what was sent is taken, and what was taken is answered"
                report.add(violation_at(where, "errand", f"shard {pair[0]}", text, expected=expected))


def read_sent(fields: Any) -> Sent:
    """What is open to another shard, from a snapshot's fields."""
    _, next_number, errands = fields
    if any(errand[0] != next_number - len(errands) + at for at, errand in enumerate(errands)):
        raise ValueError("open errands whose numbers have a gap")
    sent = Sent(next_number, next_number - len(errands))
    sent.telling = {errand[0]: errand[2][0] for errand in errands if errand[1] == TELL_HOME}
    return sent


def read_taken(fields: Any) -> Taken:
    """What was taken of another shard, from a snapshot's fields."""
    return Taken(fields[1], fields[2])


def describe_sent(sent: Sent) -> dict[str, Any]:
    """What is compared of it."""
    return {"next errand": sent.next, "answered below": sent.settled_below}


def describe_taken(taken: Taken) -> dict[str, Any]:
    """What is compared of it."""
    return {"last errand": taken.last, "forgotten below": taken.settled_below}
