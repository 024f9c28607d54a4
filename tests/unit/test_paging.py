"""Lists page by page, however the service came to what it lists: nothing is left out, nothing comes twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors.domain import reading
from actors.domain.commands import Verb
from tests.unit.world import World

SKUS = [f"SKU-{number}" for number in range(40)]  # of one warehouse: eight shards, five of them in each


def pages(world: World, verb: Verb, *filters: Any, size: int) -> Iterator[Any]:
    """Every element of a list, asked for by pages of ``size``."""
    token = ""
    while True:
        page = world.one([int(verb), -1, 0, 1, [], [*filters, size, token]]).payload
        assert len(page.items) <= size
        yield from page.items
        token = page.next_page_token
        if not token:
            return


LISTS: dict[str, Callable[[World, int], list[str]]] = {
    "reservations": lambda world, size: [
        one.reservation_id for one in pages(world, Verb.LIST_RESERVATIONS, "", "", "", [], size=size)
    ],
    "exceptions": lambda world, size: [
        one.exception_id for one in pages(world, Verb.LIST_EXCEPTIONS, [], "", "", [], size=size)
    ],
    "stock": lambda world, size: [one.stock_key for one in pages(world, Verb.LIST_STOCK, "", False, size=size)],
    "stock of a warehouse with a shortage": lambda world, size: [
        one.stock_key for one in pages(world, Verb.LIST_STOCK, "main", True, size=size)
    ],
}


def traded() -> World:
    """Two reservations and a shortage of every SKU, the second half of it made while snapshots were taken."""
    world = World()
    todo = [(trade, sku) for sku in SKUS for trade in ("ship", "reserve", "reserve")]  # taken from the end

    def trade() -> None:
        if todo:
            what, sku = todo.pop()
            world.receive(sku, 5)
            if what == "reserve":
                world.reserve((sku, 1))
            else:
                world.ship(sku, 20, f"ship-{sku}")

    for _ in range(len(todo) // 2):
        trade()
    world.snapshot(between=trade)
    while todo:
        trade()
    return world


@pytest.mark.parametrize("listed", LISTS)
@pytest.mark.parametrize("recovered", [False, True], ids=["as it lived", "after a restart"])
def test_pages_of_every_size_hold_everything_once(listed: str, recovered: bool) -> None:
    world = traded()
    if recovered:
        world.restart()
    whole = LISTS[listed](world, 1000)
    assert len(whole) == len(set(whole)) >= len(SKUS)
    for size in (1, 3, 7):
        assert LISTS[listed](world, size) == whole


@pytest.mark.parametrize("listed", LISTS)
def test_a_page_looks_at_a_bounded_number_of_things(listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = traded()
    whole = LISTS[listed](world, 1000)
    monkeypatch.setattr(reading, "SCANNED_PER_PAGE_MAX", 2)
    assert LISTS[listed](world, 1000) == whole


def test_a_sparse_filter_gets_a_short_page_and_a_place_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SCANNED_PER_PAGE_MAX", 4)
    page = traded().one([int(Verb.LIST_STOCK), -1, 0, 1, [], ["elsewhere", False, 10, ""]]).payload
    assert (list(page.items), page.next_page_token != "") == ([], True)


def test_long_orders_come_in_shorter_pages() -> None:
    world = World()
    world.receive("A", 100_000)
    orders = [world.reserve(*[("A", 1, str(line)) for line in range(1_500)]).id for _ in range(5)]
    first = world.one([int(Verb.LIST_RESERVATIONS), -1, 0, 1, [], ["", "", "", [], 1000, ""]]).payload
    assert [one.reservation_id for one in first.items] == orders[:3]
    assert LISTS["reservations"](world, 1000) == orders


@pytest.mark.parametrize("verb", [Verb.LIST_RESERVATIONS, Verb.LIST_EXCEPTIONS, Verb.LIST_STOCK])
@pytest.mark.parametrize("token", ["nonsense", "0:nonsense", "99999:1", ":", "-1:-1", "0:²"])
def test_a_place_that_no_page_ended_at_is_no_bug(verb: Verb, token: str) -> None:
    filters: dict[Verb, list[Any]] = {
        Verb.LIST_RESERVATIONS: ["", "", "", []],
        Verb.LIST_EXCEPTIONS: [[], "", "", []],
        Verb.LIST_STOCK: ["", False],
    }
    assert traded().one([int(verb), -1, 0, 1, [], [*filters[verb], 10, token]]).ok
