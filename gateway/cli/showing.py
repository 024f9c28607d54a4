"""Results as tables for people and as plain values for ``--json``."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stockade.client.results import Reservation, Stock, StockKey


def console() -> Console:
    """Standard output; wide enough for a table when it is no terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=160)


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, all the way down."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def when(time_ms: int) -> str:
    """Unix milliseconds as local time; empty for none."""
    if not time_ms:
        return ""
    try:
        return datetime.datetime.fromtimestamp(time_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # no time of this calendar: shown as it came
        return f"{time_ms} ms"


def key_text(key: StockKey) -> str:
    """A stock key as people write it."""
    return f"{key.sku} @ {key.warehouse_id}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table; numbers to the right."""
    rows = [list(row) for row in rows]
    # Text: a SKU may hold brackets or colons, which in a plain string would be markup
    drawn = Table(title=Text(title) if title else None, title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int) and not isinstance(row[index], bool) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(
            *[Text(f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)) for cell in row]
        )
    console().print(drawn)


def show_reservation(reservation: Reservation) -> None:
    """One reservation with its lines."""
    facts = [f"{reservation.state}, version {reservation.version}", f"channel {reservation.channel_id}"]
    if reservation.order_reference:
        facts.append(f"order {reservation.order_reference}")
    if reservation.state == "HELD":
        facts.append(f"until {when(reservation.expire_time_ms)}")
    if reservation.replayed:
        facts.append("(decided before: the same request id)")
    title = f"{reservation.reservation_id or '(not seen)'}  {', '.join(facts)}"
    columns = ("line", "stock key", "requested", "granted", "fulfilled", "released", "expired", "picked", "open")
    table(
        title,
        columns,
        [
            (
                line.line_id,
                key_text(line.stock_key) + (" (imposed)" if line.imposed else ""),
                line.requested_quantity,
                line.granted_quantity,
                line.fulfilled_quantity,
                line.released_quantity,
                line.expired_quantity,
                line.picked_quantity,
                line.open_quantity,
            )
            for line in reservation.lines
        ],
    )


STOCK_COLUMNS = (
    "stock key",
    "on hand",
    "held",
    "confirmed",
    "picked",
    "adrift",
    "safety",
    "shortage",
    "available",
    "in transit",
    "selling",
)


def stock_row(stock: Stock) -> tuple[Any, ...]:
    """One row of a table of stock."""
    others = ", ".join(f"{name.lower()} {units}" for name, units in stock.on_hand.items() if name != "SELLABLE")
    on_hand: Any = stock.on_hand.get("SELLABLE", 0)
    return (
        key_text(stock.stock_key),
        f"{on_hand:,} (+ {others})" if others else on_hand,
        stock.held_quantity,
        stock.confirmed_quantity,
        stock.picked_quantity,
        stock.picked_adrift_quantity,
        stock.safety_stock_quantity,
        stock.shortage_quantity,
        stock.available_quantity,
        stock.in_transit_quantity or "",
        ", ".join([stock.selling_state.lower(), *gate_words(stock)]),
    )


def gate_words(stock: Stock) -> list[str]:
    """What of a stock key's sale gate is not the default, in few words."""
    words = []
    if stock.item_state == "INACTIVE":
        words.append("item inactive")
    if stock.receipt_disposition == "QUALITY_HOLD":
        words.append("receipts on hold")
    if stock.recalled_lot_ids:
        words.append(f"lots recalled: {len(stock.recalled_lot_ids)}")
    return words
