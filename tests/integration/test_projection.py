"""The SQL projection: equal to the service after any day, over a dying projector, a new timeline, and in both databases."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.changes.cursors import Cursor, read_cursor
from gateway.cli.main import app
from gateway.projection.projector import Projector
from gateway.projection.store import Place, ProjectionStore, ProjectionUnusable
from gateway.projection.tables import TABLES
from stockade import Refused
from stockade.client.results import StockKey
from tests.integration.change_world import ChangeWorld, change_world
from tests.postgres_server import PostgresServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

SKUS = ("A", "B", "C")
PATIENCE_S = 20.0


@pytest.fixture(params=["sqlite", "postgres"])
def to(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "projection.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database(f"projection_{uuid.uuid4().hex}")


async def caught_up(world: ChangeWorld, to: str) -> ProjectionStore:
    """A projector runs until it has seen all that is durable now; its store, open."""
    store = ProjectionStore(to)
    began_ms = world.node.host.engine.now_ms
    steps = Projector(world.client, store, "test").run()
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for written in steps:
                if written.as_of_ms > began_ms:
                    return store
    finally:
        await steps.aclose()
    raise AssertionError("it follows for ever")


def rows(store: ProjectionStore, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in store._database.ask(query)]


async def some_orders(world: ChangeWorld, draw: random.Random, count: int) -> None:
    """A little of everything that changes stock or reservations."""
    held: list[str] = []
    for _ in range(count):
        sku = draw.choice(SKUS)
        if draw.random() < 0.2:
            await world.receive(sku, draw.randint(1, 5))
        elif held and draw.random() < 0.5:
            one = held.pop(draw.randrange(len(held)))
            if draw.random() < 0.5:
                await world.client.confirm(one)
            else:
                await world.client.release(one, reason="CUSTOMER_CANCELLED")
        else:
            lines = [(each, "main", draw.randint(1, 2)) for each in draw.sample(SKUS, draw.randint(1, 2))]
            made = await world.client.reserve(lines, order_reference=f"o{draw.randrange(10**6)}")
            if not isinstance(made, Refused):
                held.append(made.reservation_id)


async def assert_equal(world: ChangeWorld, store: ProjectionStore) -> None:
    """Every stock key and reservation stands in the tables as the service tells it."""
    stocks, _ = await world.client.list_stock(page_size=1000)
    told = {
        (
            one.stock_key.sku,
            one.on_hand.get("SELLABLE", 0),
            one.held_quantity,
            one.confirmed_quantity,
            one.available_quantity,
        )
        for one in stocks
    }
    columns = "sku, sellable_quantity, held_quantity, confirmed_quantity, available_quantity"
    assert set(rows(store, f"SELECT {columns} FROM stock")) == told
    reservations, _ = await world.client.list_reservations(page_size=1000)
    expected = {
        (one.reservation_id, one.state, one.version, line.stock_key.sku, line.granted_quantity, line.open_quantity)
        for one in reservations
        for line in one.lines
    }
    query = (
        "SELECT r.reservation_id, r.state, r.version, l.sku, l.granted_quantity, l.open_quantity FROM reservations r "
        "JOIN reservation_lines l ON l.reservation_id = r.reservation_id"
    )
    assert set(rows(store, query)) == expected


async def test_it_equals_the_service_after_any_day_and_a_projector_that_died(to: str, seed: int) -> None:
    draw = random.Random(seed)
    async with change_world() as world:
        for sku in SKUS:
            await world.receive(sku, 10)
        await some_orders(world, draw, 20)
        (await caught_up(world, to)).close()  # built, then gone
        await some_orders(world, draw, 20)  # nobody follows meanwhile
        store = await caught_up(world, to)
        await assert_equal(world, store)
        place = store.place()
        assert place is not None and place.generation == 1  # it went on, it was not built anew
        promised = sum(row[0] for row in rows(store, "SELECT open_quantity FROM open_lines"))
        stocks, _ = await world.client.list_stock(page_size=1000)
        assert promised == sum(one.held_quantity + one.confirmed_quantity for one in stocks)
        store.close()


async def test_values_and_cursor_move_together(to: str) -> None:
    async with change_world() as world:
        await world.receive("A", 10)
        store = await caught_up(world, to)
        before = store.place()
        assert before is not None

        class Stop(Exception):
            pass

        class Broken(list[Any]):
            def __iter__(self) -> Iterator[Any]:
                raise Stop

        with pytest.raises(Stop):
            store.write(before._replace(cursor="later"), Broken(), ())
        assert store.place() == before
        store.close()


async def test_a_useless_cursor_builds_anew_and_drops_what_is_gone(to: str) -> None:
    async with change_world() as world:
        await world.receive("A", 10)
        store = await caught_up(world, to)
        place = store.place()
        assert place is not None
        never = replace(await world.client.get_stock(("A", "main")), stock_key=StockKey("GHOST", "main"))
        cursor = read_cursor(place.cursor)
        assert cursor is not None
        other = Cursor("another-timeline", cursor.time_ms, cursor.sequences).text()
        store.write(place._replace(cursor=other), [never], ())
        store.close()
        store = await caught_up(world, to)
        await assert_equal(world, store)
        again = store.place()
        assert again is not None and again.generation == 2
        store.close()


async def test_it_is_refused_for_another_cluster_and_by_a_newer_format(tmp_path: Path) -> None:
    to = str(tmp_path / "p.db")
    async with change_world() as world:
        store = ProjectionStore(to)
        store.write(Place("another", "t", "c", 5, 1, ""), (), ())
        with pytest.raises(ProjectionUnusable, match="of cluster another"):
            await anext(Projector(world.client, store, "test").run())
        store.close()
    connection = sqlite3.connect(to)
    connection.execute("UPDATE projection SET format = 99")
    connection.commit()
    connection.close()
    with pytest.raises(ProjectionUnusable, match="format 99"):
        ProjectionStore(to)


async def test_the_command_builds_it_and_says_what_it_holds(tmp_path: Path) -> None:
    to = tmp_path / "projection.db"
    async with change_world() as world:
        await world.receive("A", 10)
        await world.reserve("A", 2, order_reference="o-1")
        words = ["project", str(to), "--until-now", "--target", world.node.target]
        result = await asyncio.to_thread(CliRunner().invoke, app, words)
        assert result.exit_code == 0, (result.stdout, result.stderr, result.exception)
        assert "1 stock keys, 1 reservations" in result.stdout
        found = sqlite3.connect(to).execute("SELECT order_reference, sku, open_quantity FROM open_lines").fetchall()
        assert found == [("o-1", "A", 2)]
        refused = await asyncio.to_thread(CliRunner().invoke, app, ["project", "mysql://u:secret@h/d"])
        assert refused.exit_code == 2
        assert "postgresql://" in refused.stderr and "secret" not in refused.stderr


def test_every_table_says_what_its_rows_have_seen_or_hangs_on_one_that_does() -> None:
    seen = [name for name, columns in TABLES.items() if "seen_sequence" in columns]
    assert seen == ["stock", "reservations"]
    assert "reservation_id" in TABLES["reservation_lines"]
