"""The examples of docs/change-feed.md run as they stand there."""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.integration.change_world import ChangeWorld, change_world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "change-feed.md").read_text(encoding="utf-8")


def example(name: str) -> Any:
    """The function of that name from the block that defines it."""
    (block,) = [one for one in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if f"def {name}(" in one]
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102  that is what this test is for
    return names[name]


def declared() -> Any:
    """The settings of the page, but for the principal, which needs credentials."""
    (block,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    consumers = tomllib.loads(block)["consumers"]
    return {name: {key: value for key, value in one.items() if key != "principal"} for name, one in consumers.items()}


class Shop:
    def __init__(self) -> None:
        self.cursor = ""
        self.quantities: dict[str, tuple[int, int]] = {}

    def show(self, sku: str, quantity: int, seen: int) -> None:
        self.quantities[sku] = max(self.quantities.get(sku, (-1, 0)), (seen, quantity))

    def clear(self) -> None:
        self.quantities = {}

    @property
    def shown(self) -> dict[str, int]:
        return {sku: quantity for sku, (_, quantity) in self.quantities.items()}


async def stocked(world: ChangeWorld) -> str:
    await world.receive("A", 9)
    await world.receive("B", 5)
    return world.node.target


async def test_the_shop_follows_and_comes_back() -> None:
    async with change_world() as world:
        target, shop, follow = await stocked(world), Shop(), example("follow")
        await asyncio.to_thread(follow, target, shop, lambda batch: batch.as_of_ms > 0)
        assert shop.shown == {"A": 9, "B": 5}

        await world.reserve("A", 4)
        await asyncio.to_thread(follow, target, shop, lambda _: shop.shown["A"] == 5)
        assert shop.shown == {"A": 5, "B": 5}


async def test_the_marketplace_takes_and_refuses() -> None:
    async with change_world(consumers=declared()) as world:
        target, deliver = await stocked(world), example("deliver")
        taken: list[str] = []

        def take(change: Any) -> str:
            taken.append(change.change_id)
            return "no such article" if change.stock_key.sku == "B" else ""

        await asyncio.to_thread(deliver, target, take, lambda batch: batch.as_of_ms > 0)
        exceptions, _ = await world.client.list_exceptions(kinds=["CHANGE_REJECTED"])
        (consumer,) = await world.client.list_consumers()

        assert len(exceptions) == consumer.rejected_count >= 1
        assert consumer.lag_events == 0
        before = list(taken)
        await world.receive("A", 1)
        await asyncio.to_thread(deliver, target, take, lambda batch: len(batch) > 0)
        assert not set(taken[len(before) :]) & set(before), "what is acknowledged is not sent again"


async def test_the_cache_knows_how_fresh_it_is() -> None:
    async with change_world() as world:
        target, values = await stocked(world), dict[str, Any]()
        await asyncio.to_thread(example("cache"), target, values, lambda update: update.as_of_ms > 0)

        assert (values["A"], values["B"]) == ((9, False), (5, False))
        assert values["as of"] > 0
