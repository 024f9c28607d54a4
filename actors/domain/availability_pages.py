"""The availability of a shard's stock keys, a page at a time: what a reader of changes begins with. It changes nothing.

Pages go by the order in which the keys were made; a key is never taken away, so a page's place holds while others are added.
"""

from __future__ import annotations

from itertools import islice

from actors.domain.answers import AvailabilityPage, Reply, ok
from actors.domain.commands import ListAvailability
from actors.domain.keys import split_stock_key
from actors.domain.quantities import available_to_sell
from actors.domain.state import ShardState
from actors.domain.turn import Turn

SCANNED_PER_PAGE_MAX = 20_000


def list_availability(turn: Turn, shard: ShardState, command: ListAvailability) -> Reply:
    """OK payload: ``AvailabilityPage``."""
    stale_warehouses = turn.books.stale_warehouses
    wanted = command.warehouse_id
    items: list[tuple[str, int, bool]] = []
    scanned = 0
    for key, actor in islice(shard.stock.items(), command.start, command.start + SCANNED_PER_PAGE_MAX):
        if len(items) >= command.page_size:
            break
        scanned += 1
        warehouse_id = split_stock_key(key).warehouse_id
        if not wanted or warehouse_id == wanted:
            items.append((key, available_to_sell(actor), warehouse_id in stale_warehouses))
    next_start = command.start + scanned
    return ok(AvailabilityPage(items, next_start if next_start < len(shard.stock) else 0, turn.position(shard)))
