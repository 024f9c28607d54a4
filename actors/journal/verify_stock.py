"""``verify``'s own rules about stock keys and claims: plain dictionaries and sums, no code of the domain.

The formula, written anew from its definition: cover = on hand sellable − picked adrift − safety stock; a claim that
needs cover may be granted when cover − claims is at least what is decided. Everything is in base units.

Each handler takes one event, a tuple; it judges and applies it. These are the hot loop of ``verify``: fields are taken by
unpacking (a wrong number of fields raises ``ValueError`` before anything was changed), and nothing is written in words
before something is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.journal.verify_format import RESERVE, cause_text, event_text
from actors.journal.verify_ledger import ALL_LINES, SUM_MASK, Ledger, LineOf, violation_at
from actors.journal.verify_report import VerifyReport, Where
from actors.journal.verify_state import SELLABLE, SELLING_OPEN, Claim, Stock

WHEN_COVERED, ALWAYS = 1, 2
REPLACED, AMENDED, ABORTED = 7, 9, 10
RECEIPT, SHIPMENT, ADJUSTMENT, STOCK_COUNT, DISPOSITION_CHANGE = 1, 4, 5, 6, 7
TRANSFER_DISPATCH, TRANSFER_RECEIPT, CUSTOMER_RETURN = 8, 9, 10
INCOMING = (RECEIPT, TRANSFER_RECEIPT, CUSTOMER_RETURN)
OUTGOING = (SHIPMENT, TRANSFER_DISPATCH)
EITHER = (ADJUSTMENT, STOCK_COUNT, DISPOSITION_CHANGE)
ON_HAND_MAX = 10**15
GRANTED, FULFILLED, RELEASED, EXPIRED = range(4)

Event = Sequence[Any]
Units = tuple[int, int, int, int]


class StockRules:
    """Judges and applies the events of kinds 10–26 of one shard; and says where something is wrong.

    A group is what one cause did: ``cause``, its ``mark`` (a hash of time and cause) and what must balance when it is over
    are set by the walk. ``strict``: all entities stand at one sequence, so that everything can be judged. ``balanced``: as
    all shards can, so that it is balanced against them.
    """

    def __init__(self, shard: int, report: VerifyReport, ledger: Ledger) -> None:
        self.shard = shard
        self.report = report
        self.ledger = ledger
        self.number = 0
        self.time_ms = 0
        self.trusted = True  # False after damage: what follows cannot be judged
        self.strict = True
        self.balanced = True
        self.stocks: dict[str, Stock] = {}
        self.cause: Any = ()
        self.mark = 0
        self.balance_ms = 0  # the record's time, or 0 where shards follow one after another
        self.first_sequence = 1
        self.groups: Sequence[Any] = ()
        self.facts = self.claims_granted = 0
        self.units = [0, 0, 0, 0]
        self.suspects = ledger.suspects
        self.granted_sums, self.fulfilled_sums, self.released_sums, self.expired_sums = ledger.sums
        self.touched: dict[str, Stock] = {}
        # to be balanced at the end of a group, by stock key; ``due``: there is something in them
        self.due = False
        self.carry: dict[str, int] = {}  # units released to be carried over, not carried yet
        self.disposition_changes: dict[str, int] = {}
        self.shipped_out: dict[str, int] = {}
        self.shipped_for_claims: dict[str, int] = {}
        self.shipment_entries: dict[str, int] = {}
        self.imposed: dict[str, list[int]] = {}  # [headroom before the first, decided, uncovered, carried]

    # --- saying where -------------------------------------------------------------------------------------------------

    def where(self, event: Any = ()) -> Where:
        """The place of an event of this record: the very object, so that nothing has to count them while all is well."""
        sequence = self.first_sequence
        for _, events in self.groups if event != () else ():
            for one in events:
                if one is event:
                    return Where(self.shard, self.number, sequence, self.time_ms)
                sequence += 1
        return Where(self.shard, self.number, 0, self.time_ms)

    def did(self, event: Any = ()) -> tuple[str, str]:
        """Cause and event in words."""
        return (cause_text(self.cause) if self.cause else "", event_text(event) if event != () else "")

    def fault(self, event: Any, rule: str, key: str, message: str, *, expected: Any = "", found: Any = "") -> None:
        """Something is wrong with this event; (): with the record or the group as a whole."""
        if self.trusted:
            words = {"expected": str(expected), "found": str(found)}
            self.report.add(violation_at(self.where(event), rule, key, message, self.did(event), **words))

    # --- balances -----------------------------------------------------------------------------------------------------

    def suspect(self, event: Event, reservation_id: str, line: LineOf, units: Units, *, home: bool = False) -> None:
        """Second round: gather by name what the first round found uneven in that bucket."""
        where = self.where(event)
        balance = self.ledger.balance(reservation_id, line, self.cause, self.balance_ms)
        if home:
            balance.home_at = where
        else:
            balance.claims_at[self.shard] = where
        for kind in range(4):
            balance.units[kind] += -units[kind] if home else units[kind]

    def end_group(self) -> None:
        """Balance what the cause did, and begin anew."""
        if self.strict:
            fault = self.fault
            for key, units in self.disposition_changes.items():
                if units:
                    text = f"a disposition change made {units:+} units out of nothing"
                    fault((), "conservation", key, text, expected=0, found=units)
            for key, booked in self.shipment_entries.items():
                out = self.shipped_out.get(key, 0)
                if booked != out:
                    text = f"{out} units left on hand by shipments that say {booked}"
                    fault((), "conservation", key, text, expected=booked, found=out)
            for key, units in self.shipped_for_claims.items():
                out = self.shipped_out.get(key, 0)
                if units != out:
                    text = f"{units} units were shipped for claims and {out} left on hand"
                    fault((), "conservation", key, text, expected=units, found=out)
            for key, (headroom, decided, uncovered, carried) in self.imposed.items():
                expected = max(0, decided - max(0, headroom))
                if not carried and uncovered != expected and self.stocks[key].selling == SELLING_OPEN:
                    text = f"{decided} units imposed, {uncovered} marked uncovered; {expected} were"
                    fault((), "imposed", key, text, expected=expected, found=uncovered)
        self.due = False
        for sums in (self.carry, self.disposition_changes, self.shipped_out, self.shipped_for_claims):
            sums.clear()
        self.shipment_entries.clear()
        self.imposed.clear()

    # --- stock keys ---------------------------------------------------------------------------------------------------

    def registered(self, event: Event) -> None:
        """[stock_key]"""
        _, key = event
        if key in self.stocks:
            self.fault(event, "stock key", key, "registered twice")
            return
        self.touched[key] = self.stocks[key] = Stock()

    def policy_set(self, event: Event) -> None:
        """[stock_key, safety_stock, selling_state, limit, base_unit, version]"""
        _, key, safety, selling, _, _, version, *_ = event
        stock = self.touched[key] = self.stocks.get(key) or self._unregistered(event, key)
        if self.strict and version != stock.version + 1:
            text = f"policy version {version} follows {stock.version}"
            self.fault(event, "stock key", key, text, expected=stock.version + 1, found=version)
        if safety < 0:
            self.fault(event, "stock key", key, f"safety stock {safety}", expected="0 or more", found=safety)
        stock.safety, stock.selling, stock.version = safety, selling, version

    def on_hand_changed(self, event: Event) -> None:
        """[stock_key, fact, disposition, delta, …]"""
        if not 5 <= len(event) <= 15:
            raise ValueError("number of fields")
        _, key, fact, disposition, delta = event[:5]
        stock = self.touched[key] = self.stocks.get(key) or self._unregistered(event, key)
        self.facts += 1
        if disposition == SELLABLE:
            units = stock.sellable = stock.sellable + delta
        else:
            units = stock.others[disposition] = stock.others.get(disposition, 0) + delta
        if not self.strict:
            return
        if fact == SHIPMENT and delta <= 0:
            self.shipped_out[key] = self.shipped_out.get(key, 0) - delta
            self.due = True
        else:
            self._judge_fact(event, key, fact, delta)
        if not -ON_HAND_MAX <= units <= ON_HAND_MAX:
            text = f"{units} units on hand in disposition {disposition}"
            self.fault(event, "conservation", key, text, expected=f"at most {ON_HAND_MAX}", found=units)

    def _judge_fact(self, event: Event, key: str, fact: int, delta: int) -> None:
        wrong_way = (fact in INCOMING and delta < 0) or (fact in OUTGOING and delta > 0)
        if wrong_way or fact not in INCOMING + OUTGOING + EITHER:
            way = "0 or more" if fact in INCOMING else "0 or less" if fact in OUTGOING else "a known fact"
            text = f"fact {fact} cannot change on hand by {delta:+}"
            self.fault(event, "conservation", key, text, expected=way, found=f"{delta:+}")
        if fact == DISPOSITION_CHANGE:
            self.disposition_changes[key] = self.disposition_changes.get(key, 0) + delta
            self.due = True
        elif fact == SHIPMENT:
            self.shipped_out[key] = self.shipped_out.get(key, 0) - delta
            self.due = True

    def adrift_picked(self, event: Event) -> None:
        """[stock_key, promise, delta, was]: the net, which is below 0 while a pick is still to come"""
        _, key, promise, delta, *_ = event
        stock = self.touched[key] = self.stocks.get(key) or self._unregistered(event, key)
        before = stock.adrift.get(promise, 0)
        units = stock.adrift[promise] = before + delta
        if not units:
            del stock.adrift[promise]
        stock.adrift_units += max(0, units) - max(0, before)

    # --- claims -------------------------------------------------------------------------------------------------------

    def granted(self, event: Event) -> None:
        """[stock_key, reservation_id, line_id, quantity, carried, admission, imposed, uncovered, confirmed, …]"""
        _, key, reservation_id, line_id, quantity, carried, admission, imposed, uncovered, confirmed, _, _ = event
        stock = self.touched[key] = self.stocks.get(key) or self._unregistered(event, key)
        headroom = stock.sellable - stock.adrift_units - stock.safety - stock.open_units
        plain = admission == WHEN_COVERED and not carried and not imposed and not uncovered
        if not plain or not 0 < quantity <= headroom or stock.selling != SELLING_OPEN:
            self._judge_grant(event, stock, headroom)
        first = stock.claims.get(reservation_id)
        if first is None:
            stock.claims[reservation_id] = Claim(line_id, quantity, imposed, uncovered, confirmed)
        else:
            self._grant_more(stock, first, event)
        stock.open_units += quantity
        self.claims_granted += 1
        self.units[GRANTED] += quantity
        if self.balanced:
            # What a reserve granted its home says line by line; what an amend added, only in all.
            by_line = self.cause[0] == RESERVE
            mark = hash((self.mark, reservation_id, key, line_id)) if by_line else hash((self.mark, reservation_id))
            self.granted_sums[mark & SUM_MASK] += mark * quantity
            if mark & SUM_MASK in self.suspects.balances:
                line = (key, line_id) if by_line else ALL_LINES
                self.suspect(event, reservation_id, line, (quantity, 0, 0, 0))

    def _grant_more(self, stock: Stock, first: Claim, event: Event) -> None:
        """Of a reservation that has a claim here already."""
        line_id, quantity, imposed, uncovered, confirmed = event[3], event[4], event[7], event[8], event[9]
        first.confirmed = first.confirmed or confirmed  # it was confirmed while it had nothing here
        claim = first.line(line_id)
        if claim is None:
            first.lines()[-1].also = Claim(line_id, quantity, imposed, uncovered, first.confirmed)
            return
        before = claim.adrift
        claim.granted += quantity
        claim.open += quantity
        claim.imposed += imposed
        claim.uncovered += uncovered
        stock.adrift_units += claim.adrift - before

    def _judge_grant(self, event: Event, stock: Stock, headroom: int) -> None:
        """The whole rule; what is plain and covered never comes here."""
        _, key, _, line_id, quantity, carried, admission, imposed, uncovered = event[:9]
        report = self.report
        if admission == ALWAYS:
            report.imposed_units += imposed
            report.imposed_uncovered_units += uncovered
            self.due = True
            tally = self.imposed.setdefault(key, [headroom, 0, 0, 0])
            tally[1] += quantity - carried
            tally[2] += uncovered
            tally[3] += carried
        if not self.strict:
            return
        decided = quantity - carried
        if quantity <= 0 or not 0 <= carried <= quantity or not 0 <= uncovered <= imposed <= quantity:
            parts = f"{quantity} units, {carried} carried, {imposed} imposed, {uncovered} uncovered"
            expected = "0 <= uncovered <= imposed <= units, 0 <= carried <= units, 0 < units"
            self.fault(event, "grant", key, f"line {line_id!r}: {parts}", expected=expected, found=parts)
        if carried:
            left = self.carry.get(key, 0) - carried
            self.carry[key] = left
            self.due = True
            if left < 0:
                text = f"line {line_id!r}: {carried} units carried over, {-left} of them were not released before"
                self.fault(event, "cover", key, text, expected=f"{carried} released", found=left + carried)
        if admission == WHEN_COVERED and decided > 0:
            suspended = stock.selling != SELLING_OPEN
            available = carried if suspended else max(0, headroom)
            if available < quantity:
                report.oversells += 1
                report.oversold_units += quantity - available
                why = " while selling was suspended" if suspended else ""
                text = f"OVERSELL: line {line_id!r} got {quantity} units of {available} available{why}"
                self.fault(event, "cover", key, text, expected=f"at most {available}", found=quantity)
        elif admission == ALWAYS and imposed < decided:
            text = f"line {line_id!r}: {decided} units were decided without cover, {imposed} are marked imposed"
            self.fault(event, "grant", key, text, expected=decided, found=imposed)
        elif admission not in (WHEN_COVERED, ALWAYS):
            self.fault(event, "grant", key, f"line {line_id!r}: unknown admission {admission}")

    def confirmed(self, event: Event) -> None:
        """[stock_key, reservation_id, order_reference]"""
        _, key, reservation_id, _ = event
        stock = self.touched[key] = self.stocks.get(key) or self._unregistered(event, key)
        claim = stock.claims.get(reservation_id)
        if claim is None:
            self._no_claim(event, key, reservation_id)
        else:
            claim.confirmed = True

    def released(self, event: Event) -> None:
        """[stock_key, reservation_id, line_id, quantity, reason]"""
        _, key, reservation_id, line_id, quantity, reason = event
        stock = self.touched[key] = self.stocks.get(key) or self._unregistered(event, key)
        if quantity <= 0:
            text = f"line {line_id!r}: {quantity} units released"
            self.fault(event, "units end once", key, text, expected="1 or more", found=quantity)
        claim = self._claim(event, stock, key, reservation_id, line_id)
        if claim is not None:
            claim.released += quantity
            self._end(event, stock, claim, quantity)
        if reason in (REPLACED, AMENDED):
            self.carry[key] = self.carry.get(key, 0) + quantity
            self.due = True
        self.units[RELEASED] += quantity
        if self.balanced and reason == ABORTED:
            self._ungrant(event, reservation_id, key, line_id, quantity)
        elif self.balanced:
            mark = hash((self.mark, reservation_id))
            self.released_sums[mark & SUM_MASK] += mark * quantity
            if mark & SUM_MASK in self.suspects.balances:
                self.suspect(event, reservation_id, ALL_LINES, (0, 0, quantity, 0))

    def _ungrant(self, event: Event, reservation_id: str, key: str, line_id: str, quantity: int) -> None:
        """What an order over several shards claimed before it came to nothing: no home says so, and none need."""
        by_line = self.cause[0] == RESERVE
        mark = hash((self.mark, reservation_id, key, line_id)) if by_line else hash((self.mark, reservation_id))
        self.granted_sums[mark & SUM_MASK] -= mark * quantity
        if mark & SUM_MASK in self.suspects.balances:
            self.suspect(event, reservation_id, (key, line_id) if by_line else ALL_LINES, (-quantity, 0, 0, 0))

    def expired(self, event: Event) -> None:
        """[stock_key, reservation_id]"""
        _, key, reservation_id = event
        stock = self.touched[key] = self.stocks.get(key) or self._unregistered(event, key)
        first = stock.claims.get(reservation_id)
        if first is None:
            self._no_claim(event, key, reservation_id)
        ended = 0
        for claim in first.lines() if first is not None else ():
            units = claim.open
            ended += units
            claim.expired += units
            self._end(event, stock, claim, units)
        if self.strict and first is not None and not ended:
            text = f"{reservation_id} expired here, and had nothing open"
            self.fault(event, "units end once", key, text, expected="1 or more open", found=ended)
        self.units[EXPIRED] += ended
        if self.balanced:
            mark = hash((self.mark, reservation_id))
            self.expired_sums[mark & SUM_MASK] += mark * ended
            if mark & SUM_MASK in self.suspects.balances:
                self.suspect(event, reservation_id, ALL_LINES, (0, 0, 0, ended))

    def fulfilled(self, event: Event) -> None:
        """[stock_key, reservation_id, line_id, quantity, shipped, signed]"""
        _, key, reservation_id, line_id, quantity, shipped, *signed = event
        stock = self.touched[key] = self.stocks.get(key) or self._unregistered(event, key)
        if shipped < quantity:
            text = f"line {line_id!r}: {quantity} units fulfilled of {shipped} shipped"
            self.fault(event, "units end once", key, text, expected=f"at most {shipped}", found=quantity)
        self.shipped_for_claims[key] = self.shipped_for_claims.get(key, 0) + shipped
        self.due = True
        claim = self._claim(event, stock, key, reservation_id, line_id)
        if claim is not None:
            adrift = claim.adrift
            claim.picked -= shipped
            if not any(signed):  # as an older version meant it
                claim.picked = max(0, claim.picked)
            stock.adrift_units += claim.adrift - adrift
            claim.fulfilled += quantity
            self._end(event, stock, claim, quantity)
        self.units[FULFILLED] += quantity
        if self.balanced:
            mark = hash((self.mark, reservation_id))
            self.fulfilled_sums[mark & SUM_MASK] += mark * quantity
            if mark & SUM_MASK in self.suspects.balances:
                self.suspect(event, reservation_id, ALL_LINES, (0, quantity, 0, 0))

    def picked(self, event: Event) -> None:
        """[stock_key, reservation_id, line_id, delta]"""
        _, key, reservation_id, line_id, delta = event
        stock = self.touched[key] = self.stocks.get(key) or self._unregistered(event, key)
        claim = self._claim(event, stock, key, reservation_id, line_id)
        if claim is None:
            return
        before = claim.adrift
        claim.picked += delta
        stock.adrift_units += claim.adrift - before

    def forgotten(self, event: Event) -> None:
        """[stock_key, reservation_id]"""
        _, key, reservation_id = event
        stock = self.touched[key] = self.stocks.get(key) or self._unregistered(event, key)
        first = stock.claims.pop(reservation_id, None)
        if first is None:
            self._no_claim(event, key, reservation_id)
        elif self.strict and any(claim.open or claim.picked > 0 for claim in first.lines()):
            text = f"claims of {reservation_id} with open or picked units were forgotten"
            self.fault(event, "units end once", key, text, expected="nothing open or picked")

    def _end(self, event: Event, stock: Stock, claim: Claim, units: int) -> None:
        """Units of a claim ended."""
        was_open = claim.open
        claim.open = is_open = was_open - units
        stock.open_units -= units
        if claim.picked or is_open < 0 or was_open < 0:
            stock.adrift_units += max(0, claim.picked - is_open) - max(0, claim.picked - was_open)
        if (units < 0 or is_open < 0) and self.strict:
            text = f"{units} units ended, which leaves {is_open} open"
            self.fault(event, "units end once", event[1], text, expected=f"0 to {was_open}", found=units)

    def _claim(self, event: Event, stock: Stock, key: str, reservation_id: str, line_id: str) -> Claim | None:
        claim: Claim | None = stock.claims.get(reservation_id)
        if claim is None:
            self._no_claim(event, key, reservation_id)
        elif claim.line_id != line_id:
            claim = claim.line(line_id)
            if claim is None:
                self.fault(event, "units end once", key, f"{reservation_id} has no line {line_id!r} here")
        return claim

    def _no_claim(self, event: Event, key: str, reservation_id: str) -> None:
        self.fault(event, "units end once", key, f"{reservation_id} has no claim here")

    def _unregistered(self, event: Event, key: str) -> Stock:
        self.fault(event, "stock key", key, "was never registered")
        return self.stocks.setdefault(key, Stock())
