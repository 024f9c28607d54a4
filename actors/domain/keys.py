"""Stock keys, reservation ids and exception ids: how they are spelled, compared and taken apart.

Owns the spelling. It does not know which shard a key lives in (``actors.shard.placement``) nor what lives under it.

A stock key is one string ``owner US warehouse US sku`` with US = U+001F. Ids may not contain control characters, and US
sorts before every character that they may contain, so comparing two such strings is comparing the tuples
(owner, warehouse_id, sku) byte by byte of their UTF-8: Python orders strings by code point, as UTF-8 does.
"""

from __future__ import annotations

from typing import NamedTuple, NewType

StockKey = NewType("StockKey", str)

UNIT_SEPARATOR = "\x1f"
RESERVATION_ID_VERSION = "1"


def stock_key(warehouse_id: str, sku: str, owner_id: str = "") -> StockKey:
    """Spell the key of one SKU in one warehouse. The ids must already be valid (no control characters)."""
    return StockKey(f"{owner_id}\x1f{warehouse_id}\x1f{sku}")


class StockKeyParts(NamedTuple):
    """A stock key taken apart."""

    owner_id: str
    warehouse_id: str
    sku: str


def split_stock_key(key: str) -> StockKeyParts:
    """Take a key apart. Raises ValueError when it is not one."""
    owner_id, warehouse_id, sku = key.split(UNIT_SEPARATOR)
    return StockKeyParts(owner_id, warehouse_id, sku)


class ReservationIdParts(NamedTuple):
    """What a reservation id carries: the timeline and home shard it was made in and its number there."""

    timeline: str
    shard: int
    number: int


def reservation_id(timeline: str, shard: int, number: int) -> str:
    """Spell a reservation id: ``version-timeline-shard-number``, shard and number decimal. At most 64 bytes."""
    return f"{RESERVATION_ID_VERSION}-{timeline}-{shard}-{number}"


def parse_reservation_id(text: str) -> ReservationIdParts | None:
    """Take a reservation id apart; None when it was not made by Stockade."""
    parts = text.split("-")
    if len(parts) != 4 or parts[0] != RESERVATION_ID_VERSION:
        return None
    _, timeline, shard, number = parts
    if not (shard.isascii() and shard.isdigit() and number.isascii() and number.isdigit() and timeline):
        return None
    if len(shard) > 5 or len(number) > 18 or str(int(shard)) != shard or str(int(number)) != number:
        return None
    return ReservationIdParts(timeline, int(shard), int(number))


def exception_id(timeline: str, shard: int, number: int) -> str:
    """Spell the id of a stock exception: ``x-timeline-shard-number``."""
    return f"x-{timeline}-{shard}-{number}"


def parse_exception_id(text: str) -> int | None:
    """The shard in an exception id; None when it was not made by Stockade."""
    parts = text.split("-")
    if len(parts) != 4 or parts[0] != "x" or not all(part.isascii() and part.isdigit() for part in parts[2:]):
        return None
    return int(parts[2]) if len(parts[2]) <= 5 else None
