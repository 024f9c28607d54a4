"""``verify``'s own rules about stock keys and claims: plain dictionaries and sums, no code of the domain.

The formula, written anew from its definition: cover = on hand sellable − picked adrift − safety stock; a claim that
needs cover may be granted when cover − claims is at least what is decided. Everything is in base units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

SELLABLE = 1
SELLING_OPEN = 1
WHEN_COVERED, ALWAYS = 1, 2
REPLACED, AMENDED = 7, 9
RECEIPT, SHIPMENT, ADJUSTMENT, STOCK_COUNT, DISPOSITION_CHANGE = 1, 4, 5, 6, 7
TRANSFER_DISPATCH, TRANSFER_RECEIPT, CUSTOMER_RETURN = 8, 9, 10
INCOMING = (RECEIPT, TRANSFER_RECEIPT, CUSTOMER_RETURN)
OUTGOING = (SHIPMENT, TRANSFER_DISPATCH)
EITHER = (ADJUSTMENT, STOCK_COUNT, DISPOSITION_CHANGE)
ON_HAND_MAX = 10**15

Fault = Callable[[str, str, str], None]  # rule, key, message


class Line:
    """One reservation line's claim."""

    __slots__ = ("expired", "fulfilled", "granted", "imposed", "picked", "released", "uncovered")

    def __init__(self) -> None:
        self.granted = self.fulfilled = self.released = self.expired = self.picked = self.imposed = self.uncovered = 0

    @property
    def open(self) -> int:
        return self.granted - self.fulfilled - self.released - self.expired

    @property
    def adrift(self) -> int:
        return max(0, self.picked - self.open)


class Claims:
    """What one reservation has on one stock key, by line id."""

    __slots__ = ("confirmed", "lines")

    def __init__(self, confirmed: bool) -> None:  # noqa: FBT001  a fact, not a switch
        self.confirmed = confirmed
        self.lines: dict[str, Line] = {}

    @property
    def open(self) -> int:
        return sum(line.open for line in self.lines.values())


class Stock:
    """One stock key."""

    __slots__ = (
        "adrift",
        "adrift_units",
        "claims",
        "on_hand",
        "open_units",
        "safety",
        "selling",
        "shortage_id",
        "version",
    )

    def __init__(self) -> None:
        self.on_hand: dict[int, int] = {}
        self.safety = 0
        self.selling = SELLING_OPEN
        self.version = 1
        self.claims: dict[str, Claims] = {}
        self.adrift: dict[str, int] = {}
        self.open_units = 0  # sums over claims and adrift, kept up
        self.adrift_units = 0
        self.shortage_id = ""

    @property
    def headroom(self) -> int:
        """cover − claims."""
        return self.on_hand.get(SELLABLE, 0) - self.adrift_units - self.safety - self.open_units

    @property
    def shortage(self) -> int:
        return max(0, self.open_units - (self.on_hand.get(SELLABLE, 0) - self.adrift_units))

    def sum_up(self) -> None:
        """Make the sums anew."""
        lines = [line for claims in self.claims.values() for line in claims.lines.values()]
        self.open_units = sum(line.open for line in lines)
        self.adrift_units = sum(line.adrift for line in lines) + sum(self.adrift.values())


class Group:
    """What one cause did to the stock keys of one shard, to be balanced when it is over."""

    __slots__ = (
        "carry",
        "disposition_changes",
        "imposed",
        "shipment_entries",
        "shipped_for_claims",
        "shipped_out",
        "touched",
    )

    def __init__(self) -> None:
        self.touched: set[str] = set()
        self.carry: dict[str, int] = {}  # stock key → units released to be carried over, not carried yet
        self.disposition_changes: dict[str, int] = {}
        self.shipped_out: dict[str, int] = {}
        self.shipped_for_claims: dict[str, int] = {}
        self.shipment_entries: dict[str, int] = {}
        self.imposed: dict[str, list[int]] = {}  # stock key → [headroom before the first, decided, uncovered, carried]


class Judged:
    """A claim's units that changed, told to whoever compares them with the reservation's home: granted, fulfilled, …"""

    __slots__ = ("expired", "fulfilled", "granted", "oversold", "released", "reservation_id")

    def __init__(self, reservation_id: str) -> None:
        self.reservation_id = reservation_id
        self.granted = self.fulfilled = self.released = self.expired = self.oversold = 0


class StockRules:
    """Judges and applies the events of kinds 10–26 of one shard."""

    def __init__(self, fault: Fault) -> None:
        self.stock: dict[str, Stock] = {}
        self.group = Group()
        self._fault = fault
        self.strict = True

    def end_group(self) -> None:
        """Balance what the cause did, and begin anew."""
        group = self.group
        if not group.touched:
            return
        if self.strict:
            self._balance(group)
        self.group = Group()

    def _balance(self, group: Group) -> None:
        fault = self._fault
        for key, units in group.disposition_changes.items():
            if units:
                fault("conservation", key, f"a disposition change made {units:+} units out of nothing")
        for key, booked in group.shipment_entries.items():
            out = group.shipped_out.get(key, 0)
            if booked != out:
                fault("conservation", key, f"{out} units left on hand by shipments that say {booked}")
        for key, units in group.shipped_for_claims.items():
            out = group.shipped_out.get(key, 0)
            if units != out:
                fault("conservation", key, f"{units} units were shipped for claims and {out} left on hand")
        for key, (headroom, decided, uncovered, carried) in group.imposed.items():
            expected = max(0, decided - max(0, headroom))
            if not carried and uncovered != expected and self.stock[key].selling == SELLING_OPEN:
                fault("imposed", key, f"{decided} units imposed, {uncovered} marked uncovered; {expected} were")

    # --- stock keys ---------------------------------------------------------------------------------------------------

    def registered(self, event: Sequence[Any]) -> None:
        """[stock_key]"""
        key = event[1]
        if key in self.stock:
            self._fault("stock key", key, "registered twice")
            return
        self.stock[key] = Stock()
        self.group.touched.add(key)

    def policy_set(self, event: Sequence[Any]) -> None:
        """[stock_key, safety_stock, selling_state, limit, base_unit, version]"""
        stock = self._stock(event[1])
        if self.strict and event[6] != stock.version + 1:
            self._fault("stock key", event[1], f"policy version {event[6]} follows {stock.version}")
        if event[2] < 0:
            self._fault("stock key", event[1], f"safety stock {event[2]}")
        stock.safety, stock.selling, stock.version = event[2], event[3], event[6]

    def on_hand_changed(self, event: Sequence[Any]) -> None:
        """[stock_key, fact, disposition, delta, …]"""
        _, key, fact, disposition, delta = event[:5]
        stock = self._stock(key)
        units = stock.on_hand.get(disposition, 0) + delta
        stock.on_hand[disposition] = units
        if not self.strict:
            return
        wrong_way = (fact in INCOMING and delta < 0) or (fact in OUTGOING and delta > 0)
        if wrong_way or fact not in INCOMING + OUTGOING + EITHER:
            self._fault("conservation", key, f"fact {fact} cannot change on hand by {delta:+}")
        if abs(units) > ON_HAND_MAX:
            self._fault("conservation", key, f"{units} units on hand in disposition {disposition}")
        if fact == DISPOSITION_CHANGE:
            _count(self.group.disposition_changes, key, delta)
        elif fact == SHIPMENT:
            _count(self.group.shipped_out, key, -delta)

    def adrift_picked(self, event: Sequence[Any]) -> None:
        """[stock_key, promise, delta]"""
        _, key, promise, delta = event
        stock = self._stock(key)
        units = stock.adrift.get(promise, 0) + delta
        if units < 0 and self.strict:
            self._fault("picked", key, f"{units} units adrift under a promise")
        stock.adrift[promise] = units
        if not units:
            del stock.adrift[promise]
        stock.adrift_units += delta

    # --- claims -------------------------------------------------------------------------------------------------------

    def granted(self, event: Sequence[Any]) -> Judged:
        """[stock_key, reservation_id, line_id, quantity, carried, admission, imposed, uncovered, confirmed, …]"""
        _, key, reservation_id, line_id, quantity, carried, admission, imposed, uncovered, confirmed = event[:10]
        stock = self._stock(key)
        judged = Judged(reservation_id)
        judged.granted = quantity
        if self.strict:
            self._judge_grant(stock, event, judged)
        headroom = stock.headroom
        claims = stock.claims.get(reservation_id)
        if claims is None:
            claims = stock.claims[reservation_id] = Claims(confirmed)
        line = claims.lines.get(line_id)
        if line is None:
            line = claims.lines[line_id] = Line()
        before = line.adrift
        line.granted += quantity
        line.imposed += imposed
        line.uncovered += uncovered
        stock.open_units += quantity
        stock.adrift_units += line.adrift - before
        if admission == ALWAYS:
            tally = self.group.imposed.setdefault(key, [headroom, 0, 0, 0])
            tally[1] += quantity - carried
            tally[2] += uncovered
            tally[3] += carried
        return judged

    def _judge_grant(self, stock: Stock, event: Sequence[Any], judged: Judged) -> None:
        _, key, _, line_id, quantity, carried, admission, imposed, uncovered = event[:9]
        fault = self._fault
        decided = quantity - carried
        if quantity <= 0 or not 0 <= carried <= quantity or not 0 <= uncovered <= imposed <= quantity:
            fault(
                "grant",
                key,
                f"line {line_id!r}: {quantity} units, {carried} carried, {imposed} imposed, {uncovered} uncovered",
            )
        if carried:
            left = self.group.carry.get(key, 0) - carried
            self.group.carry[key] = left
            if left < 0:
                fault(
                    "cover",
                    key,
                    f"line {line_id!r}: {carried} units carried over, {-left} of them were not released before",
                )
        if admission == WHEN_COVERED and decided > 0:
            suspended = stock.selling != SELLING_OPEN
            available = carried if suspended else max(0, stock.headroom)
            if available < quantity:
                judged.oversold = quantity - available
                why = " while selling was suspended" if suspended else ""
                fault("cover", key, f"OVERSELL: line {line_id!r} got {quantity} units of {available} available{why}")
        elif admission == ALWAYS and imposed < decided:
            fault(
                "grant",
                key,
                f"line {line_id!r}: {decided} units were decided without cover, {imposed} are marked imposed",
            )
        elif admission not in (WHEN_COVERED, ALWAYS):
            fault("grant", key, f"line {line_id!r}: unknown admission {admission}")

    def confirmed(self, event: Sequence[Any]) -> None:
        """[stock_key, reservation_id, order_reference]"""
        claims = self._claims(event[1], event[2])
        if claims is not None:
            claims.confirmed = True

    def released(self, event: Sequence[Any]) -> Judged:
        """[stock_key, reservation_id, line_id, quantity, reason]"""
        _, key, reservation_id, line_id, quantity, reason = event
        judged = Judged(reservation_id)
        judged.released = quantity
        if quantity <= 0:
            self._fault("units end once", key, f"line {line_id!r}: {quantity} units released")
        line = self._line(key, reservation_id, line_id)
        if line is not None:
            before = line.adrift
            line.released += quantity
            self._end(key, line, quantity, before)
        if reason in (REPLACED, AMENDED):
            _count(self.group.carry, key, quantity)
        return judged

    def expired(self, event: Sequence[Any]) -> Judged:
        """[stock_key, reservation_id]"""
        _, key, reservation_id = event
        judged = Judged(reservation_id)
        claims = self._claims(key, reservation_id)
        if claims is not None and self.strict and not claims.open:
            self._fault("units end once", key, f"{reservation_id} expired here, and had nothing open")
        for line in claims.lines.values() if claims is not None else ():
            units, before = line.open, line.adrift
            line.expired += units
            judged.expired += units
            self._end(key, line, units, before)
        return judged

    def fulfilled(self, event: Sequence[Any]) -> Judged:
        """[stock_key, reservation_id, line_id, quantity, shipped]"""
        _, key, reservation_id, line_id, quantity, shipped = event
        judged = Judged(reservation_id)
        judged.fulfilled = quantity
        if shipped < quantity:
            self._fault("units end once", key, f"line {line_id!r}: {quantity} units fulfilled of {shipped} shipped")
        _count(self.group.shipped_for_claims, key, shipped)
        line = self._line(key, reservation_id, line_id)
        if line is not None:
            before = line.adrift
            line.picked = max(0, line.picked - shipped)
            line.fulfilled += quantity
            self._end(key, line, quantity, before)
        return judged

    def picked(self, event: Sequence[Any]) -> None:
        """[stock_key, reservation_id, line_id, delta]"""
        _, key, reservation_id, line_id, delta = event
        line = self._line(key, reservation_id, line_id)
        if line is None:
            return
        before = line.adrift
        line.picked += delta
        if line.picked < 0 and self.strict:
            self._fault("picked", key, f"line {line_id!r} of {reservation_id}: {line.picked} units picked")
        self.stock[key].adrift_units += line.adrift - before

    def forgotten(self, event: Sequence[Any]) -> None:
        """[stock_key, reservation_id]"""
        claims = self._claims(event[1], event[2])
        if claims is None:
            return
        if self.strict and any(line.open or line.picked for line in claims.lines.values()):
            self._fault("units end once", event[1], f"claims of {event[2]} with open or picked units were forgotten")
        del self.stock[event[1]].claims[event[2]]

    def _end(self, key: str, line: Line, units: int, adrift_before: int) -> None:
        stock = self.stock[key]
        stock.open_units -= units
        stock.adrift_units += line.adrift - adrift_before
        if self.strict and (units < 0 or line.open < 0):
            self._fault("units end once", key, f"{units} units ended, which leaves {line.open} open")

    def _stock(self, key: str) -> Stock:
        self.group.touched.add(key)
        stock = self.stock.get(key)
        if stock is None:
            self._fault("stock key", key, "was never registered")
            stock = self.stock[key] = Stock()
        return stock

    def _claims(self, key: str, reservation_id: str) -> Claims | None:
        claims = self._stock(key).claims.get(reservation_id)
        if claims is None:
            self._fault("units end once", key, f"{reservation_id} has no claim here")
        return claims

    def _line(self, key: str, reservation_id: str, line_id: str) -> Line | None:
        claims = self._claims(key, reservation_id)
        line = claims.lines.get(line_id) if claims is not None else None
        if claims is not None and line is None:
            self._fault("units end once", key, f"{reservation_id} has no line {line_id!r} here")
        return line


def _count(sums: dict[str, int], key: str, units: int) -> None:
    sums[key] = sums.get(key, 0) + units
