"""The independent oracle: from requests and answers alone it says what every stock key must hold.

The plainest bookkeeping there is: no rule of the service is in it, only what was asked and what was answered. It decides
nothing; where the service said yes it books the yes, and at the end both must agree to the unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stockade.client.results import Reservation, Stock

Key = tuple[str, str]  # (sku, warehouse id)


@dataclass(slots=True)
class KeyBooks:
    """What one stock key must hold."""

    on_hand: dict[str, int] = field(default_factory=dict)
    held: int = 0
    confirmed: int = 0
    picked: int = 0


@dataclass(slots=True)
class LineBooks:
    """What one reservation line must have."""

    key: Key
    granted: int
    ended: int = 0
    picked: int = 0

    @property
    def open(self) -> int:
        """Units not ended."""
        return self.granted - self.ended


@dataclass(slots=True)
class OrderBooks:
    """What one reservation must be."""

    lines: dict[str, LineBooks]
    confirmed: bool
    fulfilled: int = 0


class Oracle:
    """Told of every answer, in the order in which its own client got them."""

    def __init__(self) -> None:
        self.keys: dict[Key, KeyBooks] = {}
        self.orders: dict[str, OrderBooks] = {}

    def _books(self, key: Key) -> KeyBooks:
        books = self.keys.get(key)
        if books is None:
            books = self.keys[key] = KeyBooks()
        return books

    # --- reservations ----------------------------------------------------------------------------------------------------------

    def reserved(self, reservation_id: str, lines: Iterable[tuple[str, Key, int]], *, confirmed: bool = False) -> None:
        """Granted: (line id, stock key, units)."""
        kept = {line_id: LineBooks(key, units) for line_id, key, units in lines if units}
        self.orders[reservation_id] = OrderBooks(kept, confirmed)
        for line in kept.values():
            books = self._books(line.key)
            if confirmed:
                books.confirmed += line.granted
            else:
                books.held += line.granted

    def confirmed(self, reservation_id: str) -> None:
        """The hold became an order."""
        order = self.orders[reservation_id]
        for line in order.lines.values():
            books = self._books(line.key)
            books.held -= line.open
            books.confirmed += line.open
        order.confirmed = True

    def ended(self, reservation_id: str, parts: Mapping[str, int] | None = None) -> None:
        """Units were released, expired or replaced: by line id, or all that is open."""
        order = self.orders[reservation_id]
        for line_id, line in order.lines.items():
            units = line.open if parts is None else parts.get(line_id, 0)
            self._end(order, line, units)

    def _end(self, order: OrderBooks, line: LineBooks, units: int) -> None:
        books = self._books(line.key)
        if order.confirmed:
            books.confirmed -= units
        else:
            books.held -= units
        line.ended += units

    def now_is(self, reservation: Reservation) -> None:
        """An amended order as the service answered it: granted units, line by line."""
        order = self.orders[reservation.reservation_id]
        self.ended(reservation.reservation_id)
        order.lines = {}
        self.reserved(
            reservation.reservation_id,
            [
                (line.line_id, (line.stock_key.sku, line.stock_key.warehouse_id), line.open_quantity)
                for line in reservation.lines
            ],
            confirmed=order.confirmed,
        )
        self.orders[reservation.reservation_id].fulfilled = order.fulfilled

    # --- warehouse facts -----------------------------------------------------------------------------------------------------

    def moved(self, key: Key, delta: int, disposition: str = "SELLABLE") -> None:
        """On hand changed by so many units."""
        on_hand = self._books(key).on_hand
        on_hand[disposition] = on_hand.get(disposition, 0) + delta

    def counted(self, key: Key, quantity: int) -> None:
        """The shelf was counted, without what is picked."""
        books = self._books(key)
        books.on_hand["SELLABLE"] = quantity + books.picked

    def picked(self, reservation_id: str, line_id: str, units: int) -> None:
        """Units of a line are off the shelf."""
        line = self.orders[reservation_id].lines[line_id]
        line.picked += units
        self._books(line.key).picked += units

    def shipped(self, reservation_id: str, line_id: str, units: int) -> None:
        """Units of a line left the building."""
        order = self.orders[reservation_id]
        line = order.lines[line_id]
        self._end(order, line, min(units, line.open))
        order.fulfilled += units
        self.moved(line.key, -units)
        off_shelf = min(units, line.picked)
        line.picked -= off_shelf
        self._books(line.key).picked -= off_shelf

    # --- judgement -----------------------------------------------------------------------------------------------------------

    def differences(self, stocks: Iterable[Stock]) -> list[str]:
        """Every quantity on which the service and the oracle differ, in words; empty when they agree."""
        found = []
        seen = set()
        for stock in stocks:
            key = (stock.stock_key.sku, stock.stock_key.warehouse_id)
            seen.add(key)
            books = self.keys.get(key, KeyBooks())
            expected = {name: units for name, units in books.on_hand.items() if units}
            pairs: list[tuple[str, object, object]] = [
                ("on hand", dict(stock.on_hand), expected),
                ("held", stock.held_quantity, books.held),
                ("confirmed", stock.confirmed_quantity, books.confirmed),
                ("picked", stock.picked_quantity, books.picked),
            ]
            found += [f"{key}: {what} is {is_now}, must be {must}" for what, is_now, must in pairs if is_now != must]
        for key, books in self.keys.items():
            if key not in seen and (any(books.on_hand.values()) or books.held or books.confirmed):
                found.append(f"{key}: the service does not know it")
        return found
