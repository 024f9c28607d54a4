"""What every peer is asked, and the port it is asked through: orders of one line, a decision each.

The orders are drawn like the scenario's own: as many stock keys, as many orders a call, fresh request ids. Owns no network
and no database.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from actors.domain.keys import stock_key
from bench.scenario import Scenario
from bench.traffic import skus
from stockade.client.ids import new_request_id

HOLD_MS = 15 * 60 * 1000  # as long as Stockade holds by default


class Order(NamedTuple):
    """``key``: a stock key as Stockade spells it; to a peer it is just text."""

    request_id: str
    key: str
    quantity: int


class Decision(NamedTuple):
    """``granted``: until ``expire_time_ms``. ``replayed``: the first decision of this request id, given again."""

    granted: bool
    expire_time_ms: int = 0
    replayed: bool = False


REFUSED = Decision(granted=False)


class OtherContent(Exception):
    """A request id came again with another stock key or quantity: neither granted nor refused."""


class Store(Protocol):
    """A peer as its caller sees it. ``reserve`` returns after everything it grants is durable."""

    async def open(self) -> None:
        """Connect."""

    async def reserve(self, orders: Sequence[Order], expire_time_ms: int) -> Sequence[Decision]:
        """Decide orders, each alone; their decisions in the same order."""

    async def close(self) -> None:
        """Disconnect."""


def keys_of(scenario: Scenario) -> list[str]:
    """The stock keys of a scenario."""
    return [stock_key(warehouse, sku) for sku, warehouse in skus(scenario.keys)]


def orders_of(scenario: Scenario, draw: random.Random) -> Iterator[list[Order]]:
    """Calls without end, each of as many orders as the scenario's."""
    keys = keys_of(scenario)
    while True:
        yield [Order(new_request_id(), key, 1) for key in draw.choices(keys, k=scenario.batch)]
