"""A seeded trading day for the demo: channels, catalog, baskets and supply, shaped like a real gift-ware wholesaler's.

Shapes (measured on the UCI Online Retail set): baskets of 25 lines on average, median 15, 90 % at most 51, 99 % at most 197;
quantities with median 3, 90 % at most 24, 99 % at most 101; a line's SKU falls off with slope −0.5 over its rank.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum

from gateway.trading.oracle import Key

CHANNELS = ("web", "b2b", "marketplace", "edi", "call-center")
IMPOSING_CHANNEL = "edi"  # its partner sells by itself and tells afterwards: admission ALWAYS now and then
CHANNEL_WEIGHTS = (50, 20, 15, 10, 5)
WAREHOUSES = ("north", "south")
CATALOG_SKUS = 1_500
SKU_SLOPE = -0.5
BASKET_LOG_MEAN, BASKET_LOG_SIGMA = math.log(15.0), 1.0  # median 15, mean 25
QUANTITY_LOG_MEAN, QUANTITY_LOG_SIGMA = math.log(3.4), 1.5  # median 3, 90 % at most 24
LINES_PER_ORDER_MAX = 1_200
REFUSED_SHARE = 0.04  # of demanded lines, as the supply is planned
HELD_BACK_SHARE = 0.35  # of the supply, arriving during the day
BISECTIONS = 14


class Story(Enum):
    """What becomes of an order after its reserve."""

    ORDERED = "ordered"  # held, confirmed, picked, shipped
    ABANDONED = "abandoned"  # held and left to expire
    REPLACED = "replaced"  # the cart changed: a second reservation takes over the first, then it is ordered
    CANCELLED_IN_PART = "cancelled in part"
    AMENDED = "amended"
    ON_ACCOUNT = "on account"  # confirmed at once
    IMPOSED = "imposed"  # sold elsewhere, recorded whatever the stock


STORY_WEIGHTS = {
    Story.ORDERED: 66,
    Story.ABANDONED: 9,
    Story.REPLACED: 8,
    Story.CANCELLED_IN_PART: 6,
    Story.AMENDED: 5,
    Story.ON_ACCOUNT: 6,
}
IMPOSED_SHARE_OF_EDI = 0.15


@dataclass(frozen=True, slots=True)
class PlannedBasket:
    """One order of the day."""

    number: int
    channel: str
    story: Story
    lines: tuple[tuple[Key, int], ...]
    all_or_nothing: bool


@dataclass(slots=True)
class TradingDay:
    """The plan of a day. Receipts at the opening and, in waves, during it."""

    seed: int
    baskets: list[PlannedBasket]
    opening: list[tuple[Key, int]]
    waves: list[list[tuple[Key, int]]] = field(default_factory=list)

    @property
    def order_lines(self) -> int:
        """Lines of all orders."""
        return sum(len(basket.lines) for basket in self.baskets)


def make_day(orders: int, seed: int, waves: int = 6) -> TradingDay:
    """The day for a seed; the same seed makes the same day."""
    draw = random.Random(seed)
    skus = [f"SKU-{number:04d}" for number in range(1, CATALOG_SKUS + 1)]
    cumulative = list(itertools.accumulate((rank + 1) ** SKU_SLOPE for rank in range(CATALOG_SKUS)))
    baskets = []
    for number in range(orders):
        channel = draw.choices(CHANNELS, CHANNEL_WEIGHTS)[0]
        story = draw.choices(list(STORY_WEIGHTS), list(STORY_WEIGHTS.values()))[0]
        if channel == IMPOSING_CHANNEL and draw.random() < IMPOSED_SHARE_OF_EDI:
            story = Story.IMPOSED
        count = max(1, min(LINES_PER_ORDER_MAX, round(draw.lognormvariate(BASKET_LOG_MEAN, BASKET_LOG_SIGMA))))
        home = draw.choice(WAREHOUSES)
        lines = []
        for sku in draw.choices(skus, cum_weights=cumulative, k=count):
            warehouse = home if draw.random() < 0.9 else draw.choice(WAREHOUSES)
            quantity = max(1, min(2_000, int(draw.lognormvariate(QUANTITY_LOG_MEAN, QUANTITY_LOG_SIGMA))))
            lines.append(((sku, warehouse), quantity))
        baskets.append(PlannedBasket(number, channel, story, tuple(lines), all_or_nothing=draw.random() < 0.02))
    day = TradingDay(seed, baskets, [])
    _supply(day, draw, waves)
    return day


def _supply(day: TradingDay, draw: random.Random, waves: int) -> None:
    """Size opening stock and the day's receipts so that the planned share of lines finds too little."""
    demand: dict[Key, int] = defaultdict(int)
    for basket in day.baskets:
        for key, quantity in basket.lines:
            demand[key] += quantity
    uneven = {key: math.exp(draw.gauss(0.0, 0.3)) for key in demand}
    wave_of = {key: draw.randrange(waves) for key in demand}

    def supply(level: float) -> tuple[list[tuple[Key, int]], list[list[tuple[Key, int]]]]:
        opening = []
        arriving: list[list[tuple[Key, int]]] = [[] for _ in range(waves)]
        for key, units in demand.items():
            quantity = math.ceil(units * uneven[key] * level)
            later = int(quantity * HELD_BACK_SHARE)
            opening.append((key, quantity - later))
            if later:
                arriving[wave_of[key]].append((key, later))
        return opening, arriving

    low, high = 0.0, 8.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _refused_share(day, *supply(middle)) > REFUSED_SHARE:
            low = middle
        else:
            high = middle
    day.opening, day.waves = supply(high)


def _refused_share(day: TradingDay, opening: list[tuple[Key, int]], waves: list[list[tuple[Key, int]]]) -> float:
    """Refused lines / lines when the day goes one order after the other; abandoned carts give everything back."""
    shelf = dict(opening)
    lines = refused = arrived = 0
    for placed, basket in enumerate(day.baskets):
        while arrived < len(waves) and placed >= len(day.baskets) * (arrived + 1) // (len(waves) + 1):
            for key, units in waves[arrived]:
                shelf[key] += units
            arrived += 1
        for key, quantity in basket.lines:
            lines += 1
            if basket.story is Story.IMPOSED or shelf[key] >= quantity:
                shelf[key] -= 0 if basket.story is Story.ABANDONED else quantity
            else:
                refused += 1
    return refused / lines if lines else 0.0
