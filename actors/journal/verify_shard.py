"""``verify``'s walk through one shard: records, numbers, times, epochs and causes, in order.

What the events do is ``verify_stock``'s and ``verify_home``'s. What concerns several shards (units at a home against
units of its claims, ids spent twice) is added to the ``Ledger`` and settled when all shards were walked.

A walk keeps what is alive in its shard (stock keys, claims, reservations, ids and exceptions that have not left memory),
and is dropped when the shard is done: nothing grows with the number of records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actors.journal.port import Record
from actors.journal.verify_format import EVENTS, OWNED, TAKEOVER, WAREHOUSE_EVENT, WITHOUT_ID
from actors.journal.verify_home import EXCEPTION_OPEN, SHORTAGE
from actors.journal.verify_ledger import Ledger, violation_at
from actors.journal.verify_operations import OperationRules, is_over_time
from actors.journal.verify_report import VerifyReport, Where
from actors.journal.verify_stock import Event

CREATING = (10, 20, 30, 40, 50, 60, 61, 63, 67, 80, 90, 92, 95, 100, 101, 110, 121)
# of kinds whose entity's tag is not their tens
TAGS = (
    {61: 7, 62: 7, 74: 6, 68: 1, 70: 1, 71: 1, 72: 1, 73: 1}
    | dict.fromkeys(range(80, 84), 9)
    | dict.fromkeys(range(90, 95), 10)
    | dict.fromkeys(range(95, 98), 11)
    | {100: 12, 101: 13, 102: 12, 121: 4}
    | dict.fromkeys(range(110, 114), 14)
)
NOT_UNDERSTOOD = (TypeError, ValueError, KeyError, IndexError, AttributeError)


class ShardWalk(OperationRules):
    """One shard, record after record. ``placed``: from a snapshot, at which sequence each of its entities stands."""

    def __init__(self, shard: int, report: VerifyReport, ledger: Ledger, whole_from_ms: int = 0) -> None:
        super().__init__(shard, report, ledger)
        self.sequence = 0
        self.epoch = 0
        self.placed: dict[Any, int] = {}
        self.strict_from = 0  # sequence from which everything is judged
        self._whole_from_ms = whole_from_ms  # balances between shards are judged after it
        self._epoch_is_new = False
        self._rules: dict[int, Callable[[Event], None]] = {
            1: self._owned,
            10: self.registered,
            11: self.policy_set,
            12: self.on_hand_changed,
            13: self.adrift_picked,
            20: self.granted,
            21: self.confirmed,
            22: self.released,
            23: self.expired,
            24: self.fulfilled,
            25: self.picked,
            26: self.forgotten,
            30: self.opened,
            31: self.reservation_confirmed,
            32: self.extended,
            33: self.amended,
            34: self.units_ended,
            35: self.ended,
            36: self.verb_spent,
            37: self.retired,
            40: self.entry_spent,
            41: self.entry_retired,
            50: self.exception_opened,
            51: self.exception_changed,
            52: self.exception_healed,
            53: self.exception_retired,
            54: self.exception_resolved,
            55: self.exception_handled,
            74: self.feed_corrected,
            60: self.feed_received,
            61: self.event_deferred,
            62: self.deferred_ended,
            63: self.feed_stale_set,
            64: self.feed_gap_closed,
            65: self.feed_settled,
            66: self.feed_gap_set,
            67: self.feed_heard,
            70: self.transfer_dispatched,
            71: self.transfer_received,
            72: self.transfer_alarmed,
            73: self.transfer_forgotten,
            80: self.consumer_started,
            81: self.changes_acknowledged,
            82: self.consumer_lag_set,
            83: self.consumer_forgotten,
            90: self.reconciliation_requested,
            91: self.reconciliation_alerted,
            92: self.reconciliation_begun,
            93: self.reconciliation_ended,
            94: self.reconciliation_forgotten,
            95: self.finding_made,
            96: self.finding_resolved,
            97: self.finding_forgotten,
            100: self.errand_sent,
            121: self.entry_settled,
            101: self.errand_taken,
            102: self.errand_settled,
            110: self.operation_begun,
            111: self.operation_ended,
            112: self.leg_answered,
            113: self.operation_moved,
            **dict.fromkeys((14, 15, 68), self._read_only),
        }

    # --- records ------------------------------------------------------------------------------------------------------

    def record(self, record: Record, groups: Sequence[Any]) -> None:
        """Walk one record. Its CRC was checked by whoever read it."""
        _, number, epoch, self.first_sequence, event_count, time_ms, _ = record
        self.cause, self.groups = (), groups
        self._judge_record(record, groups)
        self.number, self.time_ms = number, max(self.time_ms, time_ms)
        self._epoch_is_new = epoch != self.epoch
        self.epoch = epoch
        self.report.records += 1
        counted = self.first_sequence + event_count - 1
        if self.trusted:
            self.balanced = self.strict and self.time_ms > self._whole_from_ms
            if self.strict:
                found = self._walk_groups(groups)
            else:
                found = self._walk_before_strict(groups)
            self.report.events += found
            if self.sequence + found != counted and self.trusted:
                self.cause = ()
                text = f"holds events up to sequence {self.sequence + found}; it counts up to {counted}"
                self.fault((), "record", "", text, expected=counted, found=self.sequence + found)
        else:
            self.report.events += event_count
        self.sequence = counted

    def end(self) -> None:
        """The shard is done. Breaks the only cycle, so that all of it is given back without a garbage collector."""
        self._rules.clear()

    def _walk_groups(self, groups: Sequence[Any]) -> int:
        """The hot loop; how many events they hold."""
        rules, touched = self._rules, self.touched
        count = 0
        for group in groups:
            if type(group) is not tuple or len(group) != 2 or type(group[1]) is not tuple:
                self.missing(self.number, f"record {self.number} cannot be understood: a group is not [cause, events]")
                return count
            self.cause = cause = group[0]
            events = group[1]
            if (
                type(cause) is not tuple
                or len(cause) < 7
                or not cause[0]
                or not cause[2]
                or (cause[0] == WAREHOUSE_EVENT and not cause[6])
            ):
                self._judge_cause(cause, events)
            if self.balanced:
                # a shard's first errand is the last event of its group
                is_spread = bool(self.sent or self.taken) or (len(events) > 1 and is_over_time(events[-1:]))
                self.balance_ms = 0 if is_spread and is_over_time(events) else self.time_ms
                self.mark = hash((self.balance_ms, self.cause))
            for event in events:
                try:
                    rules[event[0]](event)
                except NOT_UNDERSTOOD as error:
                    self._not_understood(event, error)
            count += len(events)
            if touched:
                self.judge_shortages()
                touched.clear()
            if self.due:
                self.end_group()
        return count

    def missing(self, number: int, why: str) -> None:
        """A record that cannot be walked: say so, and judge nothing of this shard after it."""
        where = Where(self.shard, number, 0, self.time_ms)
        self.report.add(violation_at(where, "record", "", why, expected=f"record {number}"))
        self._distrust(f"shard {self.shard} is not judged after record {number}: {why}")

    def _distrust(self, note: str) -> None:
        if self.trusted:
            self.trusted = self.strict = self.balanced = False
            self.ledger.distrusted = True
            self.report.notes.append(note)

    def _judge_record(self, record: Record, groups: Sequence[Any]) -> None:
        expected = self.number + 1
        number, epoch, first_sequence, time_ms = record.number, record.epoch, record.first_sequence, record.time_ms
        if number != expected:
            gone = f"{expected} is" if number == expected + 1 else f"{expected} to {number - 1} are"
            self.missing(number, f"record {gone} missing: record {number} follows record {self.number}")
        self.number = number
        if self.trusted and first_sequence != self.sequence + 1:
            text = f"begins with sequence {first_sequence}; the last one was {self.sequence}"
            self.fault((), "sequence", "", text, expected=self.sequence + 1, found=first_sequence)
            self._distrust(f"shard {self.shard} is not judged from record {number} on: its sequences have a gap")
        if epoch < self.epoch:
            text = f"epoch {epoch} after epoch {self.epoch}"
            self.fault((), "epoch", "", text, expected=f"at least {self.epoch}", found=epoch)
        if time_ms < self.time_ms:
            text = f"time {time_ms} after time {self.time_ms}: it went back"
            self.fault((), "time", "", text, expected=f"at least {self.time_ms}", found=time_ms)
        if epoch > self.epoch and self.strict and not _begins_with_its_owner(groups):
            text = f"epoch {epoch} begins without its owner saying so"
            self.fault((), "epoch", "", text, expected="ShardOwned first")

    def _not_understood(self, event: Any, error: Exception) -> None:
        known = EVENTS.get(event[0]) if isinstance(event, tuple) and event else None
        if known is not None and known[1] <= len(event) - 1 <= len(known[2]):
            self.fault(event, "event", "", f"cannot be understood: {error!r}")
            return
        kind, fields = (event[0], len(event) - 1) if isinstance(event, tuple) and event else (None, 0)
        expected = f"{known[1]} to {len(known[2])} fields" if known is not None else "a known kind"
        self.fault(event, "event", "", f"kind {kind} with {fields} fields is not known", expected=expected)

    def _judge_cause(self, cause: Any, events: Sequence[Any]) -> None:
        if type(cause) is not tuple or len(cause) < 3:
            self.cause = cause if type(cause) is tuple and cause else ("", "", "")
            self.fault((), "cause", "", "events without a cause", expected="verb, channel and id")
            return
        verb, _, request_id = cause[:3]
        if verb == TAKEOVER and not (len(events) == 1 and _is_owned(events[0]) and self._epoch_is_new):
            self.fault((), "cause", "", "a takeover's cause without a takeover, or the other way round")
        if verb not in WITHOUT_ID and not request_id:
            self.fault((), "cause", "", "events without a request id or event id")
        if verb == WAREHOUSE_EVENT and (len(cause) < 7 or not cause[6]):
            self.fault((), "cause", "", "a warehouse fact without its source")

    # --- from a snapshot on -------------------------------------------------------------------------------------------

    def begin_from_snapshot(self, lowest: tuple[int, int], highest: int) -> None:
        """Stand where a snapshot begins: (sequence, record number), and judge from ``highest`` on."""
        self.sequence, self.number = lowest
        self.strict_from = highest
        self.strict = self.balanced = False
        self.id_prefix = f"1-{self.timeline}-{self.shard}-"
        if self.sequence >= highest:
            self._begin_strict()

    def _walk_before_strict(self, groups: Sequence[Any]) -> int:
        """As ``_walk_groups``, of a record that has events before a snapshot's highest sequence: those that its entities
        have not seen are applied; what they balance to is not judged.
        """
        at = self.sequence
        for cause, events in groups if _shaped(groups) else ():
            whole = self.strict
            self.cause = cause
            self._judge_cause(cause, events)
            for event in events:
                at += 1
                try:
                    if at > self.strict_from or self._is_wanted(event, at):
                        self._rules[event[0]](event)
                except NOT_UNDERSTOOD as error:
                    self._not_understood(event, error)
                if at == self.strict_from:
                    self._begin_strict()
            if self.strict:
                self.judge_shortages()
            self.touched.clear()
            strict, self.strict = self.strict, whole
            self.end_group()
            self.strict = strict
        if not _shaped(groups):
            self.missing(self.number, f"record {self.number} cannot be understood: a group is not [cause, events]")
        return at - self.sequence

    def _begin_strict(self) -> None:
        for stock in self.stocks.values():
            stock.sum_up()
        for exception_id, (kind, key, _, state) in self.exceptions.items():
            if kind == SHORTAGE and state == EXCEPTION_OPEN and key in self.stocks:
                self.stocks[key].shortage_id = exception_id
        self.strict = True

    def _is_wanted(self, event: Event, sequence: int) -> bool:
        """Of the events before a snapshot's highest sequence, only those that its entities have not seen."""
        tag = TAGS.get(event[0], event[0] // 10)
        identity = (tag, event[1] if tag else "", event[2] if tag == 2 else "")
        stands_at = self.placed.get(identity)
        if stands_at is None:
            self.placed[identity] = sequence if event[0] in CREATING else 0
            return event[0] in CREATING
        return sequence > stands_at > 0

    # --- the shard ----------------------------------------------------------------------------------------------------

    def _read_only(self, event: Event) -> None:
        """Histories: read, not judged here."""
        _, fewest, fields = EVENTS[event[0]]
        if not fewest <= len(event) - 1 <= len(fields):
            raise ValueError("number of fields")

    def _owned(self, event: Event) -> None:
        if self.cause[0] != TAKEOVER:
            self.fault(event, "cause", "", "a takeover's cause without a takeover, or the other way round")
        _, epoch, self.timeline, self.grace_until_ms = event
        self.id_prefix = f"1-{self.timeline}-{self.shard}-"
        self.owned_ms = self.time_ms
        if epoch != self.epoch:
            text = f"an owner of epoch {epoch} in a record of epoch {self.epoch}"
            self.fault(event, "epoch", "", text, expected=self.epoch, found=epoch)


def _is_owned(event: Any) -> bool:
    return isinstance(event, tuple) and event[:1] == (OWNED,)


def _begins_with_its_owner(groups: Sequence[Any]) -> bool:
    return bool(_shaped(groups[:1]) and groups and groups[0][1] and _is_owned(groups[0][1][0]))


def _shaped(groups: Sequence[Any]) -> bool:
    """Whether all of them are (cause, events)."""
    return all(type(group) is tuple and len(group) == 2 and type(group[1]) is tuple for group in groups)
