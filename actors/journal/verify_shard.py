"""``verify``'s walk through one shard: numbers, times, epochs, causes, reservations, spent ids and exceptions.

Stock keys and claims are ``verify_stock``'s. What concerns several shards (units at a home against units of its claims,
ids spent twice) is handed to the ``Ledger`` and settled when all shards were walked. Plain data, no code of the domain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actors.journal.port import Record
from actors.journal.verify_ledger import ALL_LINES, Ledger, LineOf, Units
from actors.journal.verify_report import EVENTS, VerifyReport, Where, cause_text, event_text
from actors.journal.verify_stock import ALWAYS, Judged, StockRules

HELD, CONFIRMED, FULFILLED, RELEASED, EXPIRED = 1, 2, 3, 4, 5
LIVE = (HELD, CONFIRMED)
SHORTAGE, EXCEPTION_OPEN, EXCEPTION_HEALED = 1, 1, 2
TAKEOVER, EXPIRY, HOUSEKEEPING, WAREHOUSE_EVENT, RESERVE = 0, 100, 101, 40, 1
ANSWER_SHIPMENT = 5
CREATING = (10, 20, 30, 40, 50)


class Reservation:
    """What its home says about one reservation."""

    __slots__ = ("channel_id", "expire_ms", "fulfilled", "lines", "moved", "open", "state")

    def __init__(self, state: int, channel_id: str, expire_ms: int, lines: Sequence[Sequence[Any]]) -> None:
        self.state = state
        self.channel_id = channel_id
        self.expire_ms = expire_ms
        self.lines = lines
        self.open = sum(line[3] for line in lines)
        self.fulfilled = 0
        self.moved = False  # an amend may have left claims on stock keys that are no longer among the lines


class ShardWalk:
    """One shard, record after record. ``placed``: from a snapshot, at which sequence each of its entities stands."""

    def __init__(self, shard: int, report: VerifyReport, ledger: Ledger) -> None:
        self.shard = shard
        self.number = 0
        self.sequence = 0
        self.epoch = 0
        self.time_ms = 0
        self.timeline = ""
        self.owned_ms = 0
        self.grace_until_ms = 0
        self.reservations: dict[str, Reservation] = {}
        self.reservation_number = 0
        self.entries: set[str] = set()
        self.exceptions: dict[str, list[Any]] = {}  # id → [kind, stock key, quantity, state]
        self.exception_number = 0
        self.placed: dict[Any, int] = {}
        self.strict_from = 0  # sequence from which everything is judged
        self.strict_from_ms = 0
        self.trusted = True  # False after damage: what follows cannot be judged
        self.stock = StockRules(self._fault)
        self._wrongly_short: set[str] = set()
        self._report = report
        self._ledger = ledger
        self._cause: Sequence[Any] = ()
        self._event: Sequence[Any] = ()
        self._rules: dict[int, Callable[[Sequence[Any]], None]] = {
            1: self._owned,
            10: self.stock.registered,
            11: self.stock.policy_set,
            12: self._on_hand_changed,
            13: self.stock.adrift_picked,
            20: self._claim_granted,
            21: self.stock.confirmed,
            22: lambda event: self._units(self.stock.released(event)),
            23: lambda event: self._units(self.stock.expired(event)),
            24: lambda event: self._units(self.stock.fulfilled(event)),
            25: self.stock.picked,
            26: self.stock.forgotten,
            30: self._opened,
            31: self._confirmed,
            32: self._extended,
            33: self._amended,
            34: self._units_ended,
            35: self._ended,
            36: self._verb_spent,
            37: self._retired,
            40: self._entry_spent,
            41: self._entry_retired,
            50: self._exception_opened,
            51: self._exception_changed,
            52: self._exception_healed,
            53: self._exception_retired,
        }

    # --- records ------------------------------------------------------------------------------------------------------

    @property
    def strict(self) -> bool:
        """Whether everything is judged: all entities stand at the same sequence, and nothing before was damaged."""
        return self.trusted and self.sequence >= self.strict_from

    def record(self, record: Record, groups: Sequence[Any]) -> None:
        """Walk one record. Its CRC was checked by whoever read it."""
        self._event = self._cause = ()
        self._judge_record(record, groups)
        new_epoch = record.epoch != self.epoch
        self.number, self.epoch, self.time_ms = record.number, record.epoch, max(self.time_ms, record.time_ms)
        self._report.records += 1
        if not self.trusted:
            self.sequence = record.first_sequence + record.event_count - 1
            self._report.events += record.event_count
            return
        for group in groups:
            self._walk_group(group[0], group[1], new_epoch=new_epoch)
            new_epoch = False
        self._event = self._cause = ()
        counted = record.first_sequence + record.event_count - 1
        if self.sequence != counted:
            self._fault("record", "", f"holds events up to sequence {self.sequence}; it counts up to {counted}")
            self.sequence = counted
        self.stock.strict = self.strict

    def missing(self, number: int, why: str) -> None:
        """A record that cannot be walked: say so, and judge nothing of this shard after it."""
        where = Where(self.shard, number, 0, self.time_ms)
        self._report.add("record", where, "", why)
        self._distrust(f"shard {self.shard} is not judged after record {number}: {why}")

    def _distrust(self, note: str) -> None:
        if self.trusted:
            self.trusted = self.stock.strict = False
            self._ledger.distrust(self.shard)
            self._report.notes.append(note)

    def _judge_record(self, record: Record, groups: Sequence[Any]) -> None:
        expected = self.number + 1
        if record.number != expected:
            gone = f"{expected} is" if record.number == expected + 1 else f"{expected} to {record.number - 1} are"
            self.missing(record.number, f"record {gone} missing: record {record.number} follows record {self.number}")
        elif record.first_sequence != self.sequence + 1:
            self.number = record.number
            self._fault(
                "sequence", "", f"begins with sequence {record.first_sequence}; the last one was {self.sequence}"
            )
            self._distrust(f"shard {self.shard} is not judged from record {record.number} on: its sequences have a gap")
        self.number = record.number
        if record.epoch < self.epoch:
            self._fault("epoch", "", f"epoch {record.epoch} after epoch {self.epoch}")
        if record.time_ms < self.time_ms:
            self._fault("time", "", f"time {record.time_ms} after time {self.time_ms}: it went back")
        if record.epoch > self.epoch and self.strict and (not groups or not groups[0][1] or groups[0][1][0][0] != 1):
            self._fault("epoch", "", f"epoch {record.epoch} begins without its owner saying so")

    def _walk_group(self, cause: Sequence[Any], events: Sequence[Any], *, new_epoch: bool) -> None:
        self._cause = cause
        self._event = ()
        self._judge_cause(cause, events, new_epoch=new_epoch)
        for event in events:
            self.sequence += 1
            self._report.events += 1
            self._event = event
            known = EVENTS.get(event[0]) if event else None
            if known is None or not known[1] <= len(event) - 1 <= known[2]:
                self._fault(
                    "event", "", f"kind {event[0] if event else None} with {len(event) - 1} fields is not known"
                )
            elif self.sequence > self.strict_from or self._is_wanted(event):
                try:
                    self._rules[event[0]](event)
                except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
                    self._fault("event", "", f"cannot be understood: {error!r}")
            if self.sequence == self.strict_from:
                self._begin_strict()
        if self.strict:
            self._judge_shortages()
        self.stock.end_group()
        self._ledger.end_group()

    def _begin_strict(self) -> None:
        for stock in self.stock.stock.values():
            stock.sum_up()
        for exception_id, (kind, key, _, state) in self.exceptions.items():
            if kind == SHORTAGE and state == EXCEPTION_OPEN and key in self.stock.stock:
                self.stock.stock[key].shortage_id = exception_id
        self.stock.strict = True
        self.strict_from_ms = self.time_ms

    def begin_from_snapshot(self, lowest: tuple[int, int], highest: int, time_ms: int) -> None:
        """Stand where a snapshot begins: (sequence, record number), and judge from ``highest`` on."""
        self.sequence, self.number = lowest
        self.strict_from = highest
        self.strict_from_ms = time_ms
        self.stock.strict = False
        if self.sequence >= highest:
            self._begin_strict()
            self.strict_from_ms = time_ms

    def _is_wanted(self, event: Sequence[Any]) -> bool:
        """Of the events before a snapshot's highest sequence, only those that its entities have not seen."""
        tag = event[0] // 10
        identity = (tag, event[1] if tag else "", event[2] if tag == 2 else "")
        stands_at = self.placed.get(identity)
        if stands_at is None:
            self.placed[identity] = self.sequence if event[0] in CREATING else 0
            return event[0] in CREATING
        return self.sequence > stands_at > 0

    def _judge_cause(self, cause: Sequence[Any], events: Sequence[Any], *, new_epoch: bool) -> None:
        if len(cause) < 3:
            self._fault("cause", "", "events without a cause")
            return
        verb, _, request_id = cause[:3]
        takeover = len(events) == 1 and events[0][:1] == [1]
        if takeover != (verb == TAKEOVER) or (takeover and not new_epoch):
            self._fault("cause", "", "a takeover's cause without a takeover, or the other way round")
        if verb not in (TAKEOVER, HOUSEKEEPING) and not request_id:
            self._fault("cause", "", "events without a request id or event id")
        if verb == WAREHOUSE_EVENT and (len(cause) < 7 or not cause[6]):
            self._fault("cause", "", "a warehouse fact without its source")

    # --- the shard ----------------------------------------------------------------------------------------------------

    def _owned(self, event: Sequence[Any]) -> None:
        _, epoch, self.timeline, self.grace_until_ms = event
        self.owned_ms = self.time_ms
        if epoch != self.epoch:
            self._fault("epoch", "", f"an owner of epoch {epoch} in a record of epoch {self.epoch}")

    def _on_hand_changed(self, event: Sequence[Any]) -> None:
        self._report.facts += 1
        self.stock.on_hand_changed(event)

    def _claim_granted(self, event: Sequence[Any]) -> None:
        judged = self.stock.granted(event)
        report = self._report
        report.claims_granted += 1
        if event[6] == ALWAYS:
            report.imposed_units += event[7]
            report.imposed_uncovered_units += event[8]
        if judged.oversold:
            report.oversells += 1
            report.oversold_units += judged.oversold
        # What a reserve granted its home says line by line; what an amend added, only in all.
        self._units(judged, (event[1], event[3]) if self._cause[:1] == [RESERVE] else ALL_LINES)

    def _units(self, judged: Judged, line: LineOf = ALL_LINES) -> None:
        report = self._report
        report.units_granted += judged.granted
        report.units_fulfilled += judged.fulfilled
        report.units_released += judged.released
        report.units_expired += judged.expired
        units = (judged.granted, judged.fulfilled, judged.released, judged.expired)
        if self.strict:
            self._ledger.claims(judged.reservation_id, line, self._cause, self._where(), units)

    def _judge_shortages(self) -> None:
        """After every cause, a stock key is short exactly when an open exception says by how much."""
        for key in self.stock.group.touched:
            stock = self.stock.stock[key]
            said = self.exceptions[stock.shortage_id][2] if stock.shortage_id else 0
            if said == stock.shortage:
                self._wrongly_short.discard(key)
            elif key not in self._wrongly_short:  # once, not after every event from then on
                self._wrongly_short.add(key)
                self._event = ()
                self._fault("shortage", key, f"{stock.shortage} promised units are missing; the exception says {said}")

    # --- reservations -------------------------------------------------------------------------------------------------

    def _opened(self, event: Sequence[Any]) -> None:
        _, reservation_id, number, channel_id, request_id, _, state, expire_ms, lines = event[:9]
        self._report.reservations += 1
        reservation = Reservation(state, channel_id, expire_ms, lines)
        if self.strict:
            if reservation_id != f"1-{self.timeline}-{self.shard}-{number}":
                self._fault(
                    "reservation", reservation_id, f"is number {number} of timeline {self.timeline} by its record"
                )
            if number <= self.reservation_number or reservation_id in self.reservations:
                self._fault("reservation", reservation_id, f"number {number} after number {self.reservation_number}")
            if state not in LIVE or (state == HELD) != (expire_ms > 0) or (state == HELD and expire_ms < self.time_ms):
                self._fault("reservation", reservation_id, f"begins in state {state} with deadline {expire_ms}")
            self._judge_lines(reservation_id, lines)
            for line_id, key, _, granted in lines:
                if granted:
                    self._home(reservation_id, reservation, (granted, 0, 0, 0), (key, line_id))
        self.reservation_number = max(self.reservation_number, number)
        self.reservations[reservation_id] = reservation
        self._spend(f"c\x1f{channel_id}\x1f{request_id}")

    def _home(self, reservation_id: str, reservation: Reservation, units: Units, line: LineOf = ALL_LINES) -> None:
        local = all(entry[1] in self.stock.stock for entry in reservation.lines)
        self._ledger.home(
            reservation_id, line, self._cause, self._where(), units, local=local and not reservation.moved
        )

    def _judge_lines(self, reservation_id: str, lines: Sequence[Sequence[Any]]) -> None:
        """The home's lines say what the claims got: compared here where the stock key is of this shard."""
        for line_id, key, requested, granted in lines:
            if not 0 <= granted <= requested and self._event[0] == 30:
                self._fault("reservation", reservation_id, f"line {line_id!r} asked for {requested} and got {granted}")
            stock = self.stock.stock.get(key)
            claims = stock.claims.get(reservation_id) if stock is not None else None
            line = claims.lines.get(line_id) if claims is not None else None
            claimed = line.granted if line is not None else 0
            if stock is not None and claimed != granted:
                text = f"line {line_id!r} has {granted} units by its home and {claimed} by its claim"
                self._fault("units match", reservation_id, text)

    def _confirmed(self, event: Sequence[Any]) -> None:
        reservation = self._live(event[1], HELD)
        if reservation is None:
            return
        self._judge_deadline(event[1], reservation)
        reservation.state = CONFIRMED

    def _extended(self, event: Sequence[Any]) -> None:
        reservation = self._live(event[1], HELD)
        if reservation is None:
            return
        self._judge_deadline(event[1], reservation)
        if event[2] < reservation.expire_ms and self.strict:
            self._fault("reservation", event[1], f"its deadline {reservation.expire_ms} moved back to {event[2]}")
        reservation.expire_ms = event[2]

    def _amended(self, event: Sequence[Any]) -> None:
        _, reservation_id, lines, added, released = event
        reservation = self._live(reservation_id, *LIVE)
        if reservation is None:
            return
        self._judge_deadline(reservation_id, reservation)
        reservation.lines = lines
        reservation.moved = True
        reservation.open += added - released
        if self.strict:
            self._judge_lines(reservation_id, lines)
            self._home(reservation_id, reservation, (added, 0, released, 0))

    def _units_ended(self, event: Sequence[Any]) -> None:
        _, reservation_id, fulfilled, released, expired = event
        reservation = self._live(reservation_id, *LIVE)
        if reservation is None:
            return
        reservation.open -= fulfilled + released + expired
        reservation.fulfilled += fulfilled
        if not self.strict:
            return
        if reservation.open < 0 or min(fulfilled, released, expired) < 0:
            self._fault("units end once", reservation_id, f"{reservation.open} units open by its home")
        if expired and (reservation.state != HELD or self.time_ms < self._deadline(reservation)):
            self._fault("expiry", reservation_id, f"expired at {self.time_ms}, its deadline is {reservation.expire_ms}")
        self._home(reservation_id, reservation, (0, fulfilled, released, expired))

    def _ended(self, event: Sequence[Any]) -> None:
        _, reservation_id, state = event
        reservation = self._live(reservation_id, *LIVE)
        if reservation is None:
            return
        allowed = (FULFILLED,) if reservation.fulfilled else (RELEASED, EXPIRED)
        if self.strict and (reservation.open or state not in allowed):
            text = f"ended in state {state} with {reservation.open} units open and {reservation.fulfilled} fulfilled"
            self._fault("reservation", reservation_id, text)
        if state == EXPIRED:
            self._report.reservations_expired += 1
        reservation.state = state

    def _retired(self, event: Sequence[Any]) -> None:
        reservation = self.reservations.pop(event[1], None)
        if reservation is None or reservation.state in LIVE:
            self._fault(
                "reservation", event[1], "left memory, and is " + ("unknown" if reservation is None else "alive")
            )

    def _verb_spent(self, event: Sequence[Any]) -> None:
        reservation = self.reservations.get(event[1])
        if reservation is None:
            self._fault("request id", event[1], f"request {event[2]!r} was spent on a reservation that is not known")
            return
        self._spend(f"c\x1f{reservation.channel_id}\x1f{event[2]}")

    def _live(self, reservation_id: str, *states: int) -> Reservation | None:
        reservation = self.reservations.get(reservation_id)
        if reservation is None:
            self._fault("reservation", reservation_id, "is not known")
        elif reservation.state not in states and self.strict:
            self._fault(
                "reservation", reservation_id, f"is in state {reservation.state}: this may not happen to it any more"
            )
        return reservation

    def _deadline(self, reservation: Reservation) -> int:
        overdue_at_takeover = reservation.expire_ms < self.owned_ms
        return max(reservation.expire_ms, self.grace_until_ms) if overdue_at_takeover else reservation.expire_ms

    def _judge_deadline(self, reservation_id: str, reservation: Reservation) -> None:
        if self.strict and reservation.state == HELD and self.time_ms >= self._deadline(reservation):
            text = f"at {self.time_ms}, its deadline {reservation.expire_ms} had come: it was expired"
            self._fault("expiry", reservation_id, text)

    # --- ids and exceptions -------------------------------------------------------------------------------------------

    def _spend(self, key: str, content: bytes = b"") -> None:
        before = self._ledger.spend(key, self._where(), content) if self.trusted else ""
        if before:
            self._fault("request id", key, f"was spent already, in {before}")

    def _entry_spent(self, event: Sequence[Any]) -> None:
        _, key, digest, answer = event
        self.entries.add(key)
        self._spend(key, digest if key[:1] == "e" else b"")
        if key[:1] == "s" and answer and answer[0] == ANSWER_SHIPMENT:
            stock_key = "\x1f".join(key.split("\x1f")[1:4])
            booked = self.stock.group.shipment_entries
            booked[stock_key] = booked.get(stock_key, 0) + answer[1]

    def _entry_retired(self, event: Sequence[Any]) -> None:
        if event[1] not in self.entries:
            self._fault("request id", event[1], "left memory, and was never spent")
        self.entries.discard(event[1])

    def _exception_opened(self, event: Sequence[Any]) -> None:
        _, exception_id, number, kind, key, _, quantity = event[:7]
        if self.strict and (number <= self.exception_number or exception_id in self.exceptions):
            self._fault("exception", exception_id, f"number {number} after number {self.exception_number}")
        self.exception_number = max(self.exception_number, number)
        self.exceptions[exception_id] = [kind, key, quantity, EXCEPTION_OPEN]
        if kind == SHORTAGE:
            self._report.shortages_opened += 1
            if key in self.stock.stock:
                self.stock.stock[key].shortage_id = exception_id

    def _exception_changed(self, event: Sequence[Any]) -> None:
        exception = self.exceptions.get(event[1])
        if exception is None or exception[3] != EXCEPTION_OPEN:
            self._fault("exception", event[1], "changed, and is not open")
            return
        exception[2] = event[2]

    def _exception_healed(self, event: Sequence[Any]) -> None:
        exception = self.exceptions.get(event[1])
        if exception is None or exception[3] != EXCEPTION_OPEN:
            self._fault("exception", event[1], "healed, and is not open")
            return
        exception[3] = EXCEPTION_HEALED
        if exception[0] == SHORTAGE:
            self._report.shortages_healed += 1
            if exception[1] in self.stock.stock:
                self.stock.stock[exception[1]].shortage_id = ""

    def _exception_retired(self, event: Sequence[Any]) -> None:
        exception = self.exceptions.pop(event[1], None)
        if exception is None or exception[3] == EXCEPTION_OPEN:
            self._fault("exception", event[1], "retired, and is not a healed one")

    # --- saying where -------------------------------------------------------------------------------------------------

    def _where(self) -> Where:
        return Where(self.shard, self.number, self.sequence if self._event else 0, self.time_ms)

    def _did(self) -> str:
        if not self._cause:
            return ""
        return f"{cause_text(self._cause)}: {event_text(self._event)}" if self._event else cause_text(self._cause)

    def _fault(self, rule: str, key: str, message: str) -> None:
        if self.trusted:
            self._report.add(rule, self._where(), key, message, self._did())
