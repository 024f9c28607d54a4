"""``verify``'s own rules about reservations at their homes, about spent ids and about exceptions of one shard.

What a home says that claims in other shards must say too is added to the ``Ledger``. Handlers as in ``verify_stock``.
"""

from __future__ import annotations

from typing import Any

from actors.journal.verify_ledger import ALL_LINES, ID_MASK, SUM_MASK, Ledger
from actors.journal.verify_report import VerifyReport
from actors.journal.verify_state import Claim, Reservation
from actors.journal.verify_stock import Event, StockRules

HELD, CONFIRMED, FULFILLED, RELEASED, EXPIRED = 1, 2, 3, 4, 5
LIVE = (HELD, CONFIRMED)
RESOLVE_EXCEPTION = 43
SHORTAGE, EXCEPTION_OPEN, EXCEPTION_HEALED = 1, 1, 2
ANSWER_SHIPMENT = 5


class HomeRules(StockRules):
    """Judges and applies the events of kinds 30–53 of one shard, over the books of its stock keys."""

    def __init__(self, shard: int, report: VerifyReport, ledger: Ledger) -> None:
        super().__init__(shard, report, ledger)
        self.timeline = ""
        self.id_prefix = ""
        self.owned_ms = 0
        self.grace_until_ms = 0
        self.reservations: dict[str, Reservation] = {}
        self.reservation_number = 0
        self.entries: set[str] = set()
        self.exceptions: dict[str, list[Any]] = {}  # id → [kind, stock key, quantity, state]
        self.exception_number = 0
        self._wrongly_short: set[str] = set()
        self._ids = ledger.ids

    def judge_shortages(self) -> None:
        """After every cause, a stock key is short exactly when an open exception says by how much."""
        for key, stock in self.touched.items():
            short = stock.open_units - stock.sellable + stock.adrift_units
            if short <= 0 and not stock.shortage_id and not self._wrongly_short:
                continue
            said = self.exceptions[stock.shortage_id][2] if stock.shortage_id in self.exceptions else 0
            if said == max(0, short):
                self._wrongly_short.discard(key)
            elif key not in self._wrongly_short:  # once, not after every event from then on
                self._wrongly_short.add(key)
                text = f"{max(0, short)} promised units are missing; the exception says {said}"
                self.fault((), "shortage", key, text, expected=max(0, short), found=said)

    # --- reservations -------------------------------------------------------------------------------------------------

    def opened(self, event: Event) -> None:
        if not 9 <= len(event) <= 13:
            raise ValueError("number of fields")
        _, reservation_id, number, channel_id, request_id, _, state, expire_ms, lines = event[:9]
        self.report.reservations += 1
        self._judge_whose(event, channel_id, request_id)
        if self.strict:
            self._judge_opened(event, reservation_id, number, state, expire_ms)
        balanced = self.balanced
        units = 0
        for line_id, key, requested, granted in lines:
            units += granted
            if not self.strict:
                continue
            if not 0 <= granted <= requested:
                text = f"line {line_id!r} asked for {requested} and got {granted}"
                self.fault(event, "reservation", reservation_id, text, expected=f"0 to {requested}", found=granted)
            stock = self.stocks.get(key)
            if stock is not None:
                claim = stock.claims.get(reservation_id)
                if claim is None or claim.line_id != line_id or claim.granted != granted:
                    self._judge_line(event, reservation_id, line_id, claim, granted)
            if granted and balanced:
                mark = hash((self.mark, reservation_id, key, line_id))
                self.granted_sums[mark & SUM_MASK] -= mark * granted
                if mark & SUM_MASK in self.suspects.balances:
                    self.suspect(event, reservation_id, (key, line_id), (granted, 0, 0, 0), home=True)
        self.reservation_number = max(self.reservation_number, number)
        self.reservations[reservation_id] = Reservation(state, channel_id, expire_ms, lines, units)
        self._spend(event, f"c\x1f{channel_id}\x1f{request_id}")

    def _judge_opened(self, event: Event, reservation_id: str, number: int, state: int, expire_ms: int) -> None:
        if reservation_id != f"{self.id_prefix}{number}":
            text = f"is number {number} of timeline {self.timeline} by its record"
            self.fault(event, "reservation", reservation_id, text, expected=f"{self.id_prefix}{number}")
        late = number <= self.reservation_number and not self.is_busy(reservation_id)  # else it was judged when begun
        if late or reservation_id in self.reservations:
            text = f"number {number} after number {self.reservation_number}"
            expected = f"more than {self.reservation_number}"
            self.fault(event, "reservation", reservation_id, text, expected=expected, found=number)
        if state not in LIVE or (state == HELD) != (expire_ms > 0) or (state == HELD and expire_ms < self.time_ms):
            text = f"begins in state {state} with deadline {expire_ms}"
            expected = "held with a deadline to come, or confirmed without one"
            self.fault(event, "reservation", reservation_id, text, expected=expected, found=text)

    def _judge_line(self, event: Event, reservation_id: str, line_id: str, claim: Claim | None, granted: int) -> None:
        """The home's line says what the claim got: compared here where the stock key is of this shard."""
        line = claim.line(line_id) if claim is not None else None
        claimed = line.granted if line is not None else 0
        if claimed != granted:
            text = f"line {line_id!r} has {granted} units by its home and {claimed} by its claim"
            self.fault(event, "units match", reservation_id, text, expected=f"{granted} by its claim", found=claimed)

    def _home(self, event: Event, reservation_id: str, units: tuple[int, int, int, int]) -> None:
        """Its home says that claims changed by these units, in all."""
        mark = hash((self.mark, reservation_id))
        bucket = mark & SUM_MASK
        for sums, changed in zip(self.ledger.sums, units, strict=True):
            if changed:
                sums[bucket] -= mark * changed
        if bucket in self.suspects.balances:
            self.suspect(event, reservation_id, ALL_LINES, units, home=True)

    def reservation_confirmed(self, event: Event) -> None:
        _, reservation_id, _ = event[:3]
        reservation = self._live(event, reservation_id, HELD)
        if reservation is not None:
            self._judge_deadline(event, reservation_id, reservation)
            reservation.state = CONFIRMED

    def extended(self, event: Event) -> None:
        _, reservation_id, expire_ms = event[:3]
        reservation = self._live(event, reservation_id, HELD)
        if reservation is None:
            return
        self._judge_deadline(event, reservation_id, reservation)
        if expire_ms < reservation.expire_ms and self.strict:
            text = f"its deadline {reservation.expire_ms} moved back to {expire_ms}"
            expected = f"at least {reservation.expire_ms}"
            self.fault(event, "reservation", reservation_id, text, expected=expected, found=expire_ms)
        reservation.expire_ms = expire_ms

    def amended(self, event: Event) -> None:
        _, reservation_id, lines, added, released = event[:5]
        reservation = self._live(event, reservation_id, *LIVE)
        if reservation is None:
            return
        self._judge_deadline(event, reservation_id, reservation)
        reservation.lines = lines
        reservation.open += added - released
        if not self.strict:
            return
        for line_id, key, _, granted in lines:
            stock = self.stocks.get(key)
            if stock is not None:
                self._judge_line(event, reservation_id, line_id, stock.claims.get(reservation_id), granted)
        if self.balanced:
            self._home(event, reservation_id, (added, 0, released, 0))

    def units_ended(self, event: Event) -> None:
        _, reservation_id, fulfilled, released, expired = event[:5]
        reservation = self.reservations.get(reservation_id)
        if reservation is None or reservation.state not in LIVE:
            reservation = self._live(event, reservation_id, *LIVE)
            if reservation is None:
                return
        reservation.open -= fulfilled + released + expired
        reservation.fulfilled += fulfilled
        if not self.strict:
            return
        if reservation.open < 0 or min(fulfilled, released, expired) < 0:
            text = f"{reservation.open} units open by its home"
            self.fault(event, "units end once", reservation_id, text, expected="0 or more", found=reservation.open)
        if expired and (
            reservation.state != HELD
            or (self.time_ms < self._deadline(reservation) and not self.is_busy(reservation_id))
        ):
            text = f"expired at {self.time_ms}, its deadline is {reservation.expire_ms}"
            expected = f"held, not before {self._deadline(reservation)}"
            self.fault(event, "expiry", reservation_id, text, expected=expected, found=self.time_ms)
        if self.balanced:
            self._home(event, reservation_id, (0, fulfilled, released, expired))

    def ended(self, event: Event) -> None:
        _, reservation_id, state = event[:3]
        reservation = self._live(event, reservation_id, *LIVE)
        if reservation is None:
            return
        allowed = (FULFILLED,) if reservation.fulfilled else (RELEASED, EXPIRED)
        if self.strict and (reservation.open or state not in allowed):
            text = f"ended in state {state} with {reservation.open} units open and {reservation.fulfilled} fulfilled"
            expected = f"0 open, state {' or '.join(map(str, allowed))}"
            found = f"{reservation.open} open, state {state}"
            self.fault(event, "reservation", reservation_id, text, expected=expected, found=found)
        if state == EXPIRED:
            self.report.reservations_expired += 1
        reservation.state = state

    def retired(self, event: Event) -> None:
        _, reservation_id = event
        reservation = self.reservations.pop(reservation_id, None)
        if reservation is None or reservation.state in LIVE:
            text = "left memory, and is " + ("unknown" if reservation is None else "alive")
            self.fault(event, "reservation", reservation_id, text, expected="one that ended")

    def verb_spent(self, event: Event) -> None:
        if not 5 <= len(event) <= 6:
            raise ValueError("number of fields")
        reservation = self.reservations.get(event[1])
        if reservation is None:
            text = f"request {event[2]!r} was spent on a reservation that is not known"
            self.fault(event, "request id", event[1], text)
            return
        self._judge_whose(event, None, event[2])
        self._spend(event, f"c\x1f{reservation.channel_id}\x1f{event[2]}")

    def _judge_whose(self, event: Event, channel_id: str | None, request_id: str) -> None:
        """An event that names the request it came of names its cause."""
        if self.cause[2] != request_id or (channel_id is not None and self.cause[1] != channel_id):
            text = f"is of request {request_id!r}, its cause is another"
            self.fault(event, "cause", event[1], text, expected=request_id, found=self.cause[2])

    def _live(self, event: Event, reservation_id: str, *states: int) -> Reservation | None:
        reservation = self.reservations.get(reservation_id)
        if reservation is None:
            self.fault(event, "reservation", reservation_id, "is not known")
        elif reservation.state not in states and self.strict:
            text = f"is in state {reservation.state}: this may not happen to it any more"
            expected = f"state {' or '.join(map(str, states))}"
            self.fault(event, "reservation", reservation_id, text, expected=expected, found=reservation.state)
        return reservation

    def _deadline(self, reservation: Reservation) -> int:
        overdue_at_takeover = reservation.expire_ms < self.owned_ms
        return max(reservation.expire_ms, self.grace_until_ms) if overdue_at_takeover else reservation.expire_ms

    def is_busy(self, _reservation_id: str) -> bool:
        """Whether an operation on it is under way; see ``verify_operations``."""
        return False

    def _judge_deadline(self, event: Event, reservation_id: str, reservation: Reservation) -> None:
        over = self.strict and reservation.state == HELD and self.time_ms >= self._deadline(reservation)
        if over and not self.is_busy(reservation_id):
            text = f"at {self.time_ms}, its deadline {reservation.expire_ms} had come: it was expired"
            expected = f"before {self._deadline(reservation)}"
            self.fault(event, "expiry", reservation_id, text, expected=expected, found=self.time_ms)

    # --- ids and exceptions -------------------------------------------------------------------------------------------

    def _spend(self, event: Event, key: str) -> None:
        mark = hash(key)
        self._ids[mark & ID_MASK].append(mark)
        if mark in self.suspects.ids:
            self.ledger.spent.setdefault(key, []).append((self.where(event), self.did(event), b""))

    def _spend_event_id(self, event: Event, key: str, digest: bytes) -> None:
        """A source that uses an id again for another event of another shard is not at odds with anything: its id is known at
        its stock key's shard, and the other event is another fact. So neither of these stands twice then.
        """
        here, same = hash((key, self.shard)), hash((key, digest))
        self._ids[here & ID_MASK].append(here)
        self._ids[same & ID_MASK].append(same)
        if here in self.suspects.ids or same in self.suspects.ids:
            self.ledger.spent.setdefault(key, []).append((self.where(event), self.did(event), digest))

    def entry_spent(self, event: Event) -> None:
        _, key, digest, answer = event
        self.entries.add(key)
        kind = key[0]
        if kind == "e":
            if self.cause[0] != RESOLVE_EXCEPTION:  # decided once more, as somebody asked
                self._spend_event_id(event, key, digest)
            if not key.startswith(f"e\x1f{self.cause[6]}\x1f{self.cause[2]}"):
                found = f"{self.cause[6]} {self.cause[2]}"
                self.fault(event, "cause", key, "is of another warehouse event than its cause", found=found)
            return
        self._spend(event, key)
        if kind == "s" and answer and answer[0] == ANSWER_SHIPMENT:
            stock_key = "\x1f".join(key.split("\x1f")[1:4])
            self.shipment_entries[stock_key] = self.shipment_entries.get(stock_key, 0) + answer[1]
            self.due = True

    def entry_retired(self, event: Event) -> None:
        _, key = event
        if key in self.entries:
            self.entries.remove(key)
        else:
            self.fault(event, "request id", key, "left memory, and was never spent")

    def exception_opened(self, event: Event) -> None:
        if not 12 <= len(event) <= 15:
            raise ValueError("number of fields")
        _, exception_id, number, kind, key, _, quantity = event[:7]
        if self.strict and (number <= self.exception_number or exception_id in self.exceptions):
            text = f"number {number} after number {self.exception_number}"
            expected = f"more than {self.exception_number}"
            self.fault(event, "exception", exception_id, text, expected=expected, found=number)
        self.exception_number = max(self.exception_number, number)
        self.exceptions[exception_id] = [kind, key, quantity, EXCEPTION_OPEN]
        if kind == SHORTAGE:
            self.report.shortages_opened += 1
            if key in self.stocks:
                self.stocks[key].shortage_id = exception_id

    def exception_changed(self, event: Event) -> None:
        _, exception_id, quantity, _ = event
        exception = self.exceptions.get(exception_id)
        if exception is None or exception[3] != EXCEPTION_OPEN:
            self.fault(event, "exception", exception_id, "changed, and is not open")
            return
        exception[2] = quantity

    def exception_healed(self, event: Event) -> None:
        _, exception_id = event
        self._exception_ended(event, exception_id, "healed")

    def exception_resolved(self, event: Event) -> None:
        _, exception_id, _, _, _ = event
        self._exception_ended(event, exception_id, "resolved")

    def exception_handled(self, event: Event) -> None:
        _, exception_id, _, _, _, *_ = event
        exception = self.exceptions.get(exception_id)
        if exception is None or exception[3] != EXCEPTION_OPEN:
            self.fault(event, "exception", exception_id, "handled, and is not open")

    def _exception_ended(self, event: Event, exception_id: str, how: str) -> None:
        exception = self.exceptions.get(exception_id)
        if exception is None or exception[3] != EXCEPTION_OPEN:
            self.fault(event, "exception", exception_id, f"{how}, and is not open")
            return
        exception[3] = EXCEPTION_HEALED
        if exception[0] == SHORTAGE:
            self.report.shortages_healed += 1
            if exception[1] in self.stocks:
                self.stocks[exception[1]].shortage_id = ""

    def exception_retired(self, event: Event) -> None:
        _, exception_id = event
        exception = self.exceptions.pop(exception_id, None)
        if exception is None or exception[3] == EXCEPTION_OPEN:
            self.fault(event, "exception", exception_id, "retired, and is not a healed one")
