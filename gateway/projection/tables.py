"""The projection's tables, and the rows that views become. Append only: a reader's query must not break by an upgrade.

Quantities are base units; times Unix milliseconds (0: none) beside which the views have timestamps as text. Every row says
what it has seen: ``seen_sequence`` of its shard, in the timeline that ``projection`` names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stockade.client.results import Reservation, Stock

FORMAT = 1

DISPOSITIONS = ("sellable", "quality_hold", "damaged", "expired", "recalled")

# Column → type. SQLite and PostgreSQL understand all of it. The keys come first: see KEYS.
TABLES: Mapping[str, Mapping[str, str]] = {
    "projection": {
        "id": "INTEGER",  # 1: there is one row
        "format": "INTEGER",
        "cluster_id": "TEXT",
        "timeline": "TEXT",
        "cursor": "TEXT",  # what follows it is not in here yet
        "as_of_ms": "BIGINT",  # everything that was durable by then is in here; 0 while it is built
        "generation": "BIGINT",  # grows when all is read anew
        "target": "TEXT",
    },
    "stock": {
        "warehouse_id": "TEXT",
        "sku": "TEXT",
        **{f"{name}_quantity": "BIGINT" for name in DISPOSITIONS},
        "held_quantity": "BIGINT",
        "confirmed_quantity": "BIGINT",
        "picked_quantity": "BIGINT",
        "picked_adrift_quantity": "BIGINT",
        "safety_stock_quantity": "BIGINT",
        "shortage_quantity": "BIGINT",
        "available_quantity": "BIGINT",
        "in_transit_quantity": "BIGINT",
        "selling_state": "TEXT",
        "item_state": "TEXT",
        "max_quantity_per_order": "BIGINT",
        "base_unit": "TEXT",
        "policy_version": "BIGINT",
        "shard": "INTEGER",
        "seen_sequence": "BIGINT",
        "seen_time_ms": "BIGINT",
        "generation": "BIGINT",
    },
    "reservations": {
        "reservation_id": "TEXT",
        "channel_id": "TEXT",
        "order_reference": "TEXT",
        "customer_id": "TEXT",
        "state": "TEXT",
        "version": "BIGINT",
        "create_time_ms": "BIGINT",
        "expire_time_ms": "BIGINT",
        "confirm_time_ms": "BIGINT",
        "end_time_ms": "BIGINT",
        "shard": "INTEGER",
        "seen_sequence": "BIGINT",
        "seen_time_ms": "BIGINT",
        "generation": "BIGINT",
    },
    "reservation_lines": {
        "reservation_id": "TEXT",
        "line_id": "TEXT",
        "warehouse_id": "TEXT",
        "sku": "TEXT",
        "requested_quantity": "BIGINT",
        "granted_quantity": "BIGINT",
        "fulfilled_quantity": "BIGINT",
        "released_quantity": "BIGINT",
        "expired_quantity": "BIGINT",
        "open_quantity": "BIGINT",
        "uncovered_quantity": "BIGINT",
    },
}
KEYS: Mapping[str, Sequence[str]] = {
    "projection": ("id",),
    "stock": ("warehouse_id", "sku"),
    "reservations": ("reservation_id",),
    "reservation_lines": ("reservation_id", "line_id", "warehouse_id", "sku"),
}
INDICES: Mapping[str, tuple[str, Sequence[str]]] = {
    "stock_by_sku": ("stock", ("sku",)),
    "reservations_by_order": ("reservations", ("channel_id", "order_reference")),
    "reservations_by_state": ("reservations", ("state",)),
    "reservation_lines_by_stock_key": ("reservation_lines", ("warehouse_id", "sku")),
}
# What people ask first, so that they need not know the columns: units promised and not ended, with their order.
VIEWS: Mapping[str, str] = {
    "open_lines": """
        SELECT r.channel_id, r.order_reference, r.customer_id, r.state, r.reservation_id, l.line_id, l.warehouse_id, l.sku,
               l.open_quantity, l.uncovered_quantity, r.create_time_ms, r.expire_time_ms
        FROM reservation_lines l JOIN reservations r ON r.reservation_id = l.reservation_id
        WHERE l.open_quantity > 0""",
    "stock_by_product": """
        SELECT sku, SUM(sellable_quantity) AS sellable_quantity, SUM(held_quantity + confirmed_quantity) AS promised_quantity,
               SUM(available_quantity) AS available_quantity, SUM(in_transit_quantity) AS in_transit_quantity,
               COUNT(*) AS warehouses
        FROM stock GROUP BY sku""",
}


def statements() -> list[str]:
    """What makes the tables, indices and views where they are not there yet."""
    made = []
    for table, columns in TABLES.items():
        spelled = ", ".join(f"{name} {kind} NOT NULL" for name, kind in columns.items())
        made.append(f"CREATE TABLE IF NOT EXISTS {table} ({spelled}, PRIMARY KEY ({', '.join(KEYS[table])}))")
    made += [
        f"CREATE INDEX IF NOT EXISTS {name} ON {table} ({', '.join(columns)})"
        for name, (table, columns) in INDICES.items()
    ]
    for name, query in VIEWS.items():
        made += [f"DROP VIEW IF EXISTS {name}", f"CREATE VIEW {name} AS {query}"]
    return made


def upsert(table: str) -> str:
    """Insert a row or replace it; what was seen later stays."""
    columns = list(TABLES[table])
    keys = KEYS[table]
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in keys)
    newer = ""
    if "seen_sequence" in columns:
        # Of another generation: what it saw may never have happened.
        newer = f" WHERE {table}.generation <> excluded.generation OR {table}.seen_sequence <= excluded.seen_sequence"
    marks = ", ".join("?" for _ in columns)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}{newer}"
    )


def stock_row(stock: Stock, generation: int) -> tuple[Any, ...]:
    """A row of ``stock``, in the order of its columns."""
    on_hand = {name.lower(): units for name, units in stock.on_hand.items()}
    return (
        stock.stock_key.warehouse_id,
        stock.stock_key.sku,
        *(on_hand.get(name, 0) for name in DISPOSITIONS),
        stock.held_quantity,
        stock.confirmed_quantity,
        stock.picked_quantity,
        stock.picked_adrift_quantity,
        stock.safety_stock_quantity,
        stock.shortage_quantity,
        stock.available_quantity,
        stock.in_transit_quantity,
        stock.selling_state,
        stock.item_state,
        stock.max_quantity_per_order,
        stock.base_unit,
        stock.policy_version,
        stock.position.shard,
        stock.position.sequence,
        stock.position.time_ms,
        generation,
    )


def reservation_row(reservation: Reservation, generation: int) -> tuple[Any, ...]:
    """A row of ``reservations``, in the order of its columns."""
    return (
        reservation.reservation_id,
        reservation.channel_id,
        reservation.order_reference,
        reservation.customer_id,
        reservation.state,
        reservation.version,
        reservation.create_time_ms,
        reservation.expire_time_ms,
        reservation.confirm_time_ms,
        reservation.end_time_ms,
        reservation.position.shard,
        reservation.position.sequence,
        reservation.position.time_ms,
        generation,
    )


def line_rows(reservation: Reservation) -> list[tuple[Any, ...]]:
    """Its rows of ``reservation_lines``."""
    return [
        (
            reservation.reservation_id,
            line.line_id,
            line.stock_key.warehouse_id,
            line.stock_key.sku,
            line.requested_quantity,
            line.granted_quantity,
            line.fulfilled_quantity,
            line.released_quantity,
            line.expired_quantity,
            line.open_quantity,
            line.uncovered_quantity,
        )
        for line in reservation.lines
    ]
