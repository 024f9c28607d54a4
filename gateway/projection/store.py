"""Where the projection is kept: a SQLite file or a PostgreSQL database. Transactions of upserts, nothing else.

Both are asked in the same SQL; marks for parameters differ. A projection holds no truth: thrown away, it is built again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from gateway.projection.tables import FORMAT, line_rows, reservation_row, statements, stock_row, upsert
from stockade.client.results import Reservation, Stock

POSTGRES_SCHEMES = ("postgresql://", "postgres://")
BUSY_S = 30.0  # a reader of a SQLite file may hold it for so long


class ProjectionUnusable(Exception):
    """It cannot be opened, or is of another cluster or a newer version; says what to do."""


class Place(NamedTuple):
    """The row of ``projection``."""

    cluster_id: str
    timeline: str
    cursor: str
    as_of_ms: int
    generation: int
    target: str


class Database(Protocol):
    """A connection: one at a time, from one thread."""

    def run(self, statement: str, rows: Iterable[tuple[Any, ...]] = ((),)) -> None: ...

    def ask(self, query: str) -> list[tuple[Any, ...]]: ...

    def transaction(self) -> contextlib.AbstractContextManager[None]: ...

    def close(self) -> None: ...


class SqliteDatabase:
    """A file. Readers go on while it is written (WAL)."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")  # it holds no truth

    def run(self, statement: str, rows: Iterable[tuple[Any, ...]] = ((),)) -> None:
        self._connection.executemany(statement, rows) if "?" in statement else self._connection.execute(statement)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


class PostgresDatabase:
    """A database, in the schema that its connection finds first."""

    def __init__(self, url: str) -> None:
        import psycopg

        self._connection = psycopg.connect(url, autocommit=True, connect_timeout=10)

    def run(self, statement: str, rows: Iterable[tuple[Any, ...]] = ((),)) -> None:
        with self._connection.cursor() as cursor:
            if "?" in statement:
                cursor.executemany(statement.replace("?", "%s"), rows)
            else:
                cursor.execute(statement)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            yield

    def close(self) -> None:
        self._connection.close()


class ProjectionStore:
    """The projection in its database. Raises ``ProjectionUnusable`` when that cannot be opened or holds something else."""

    def __init__(self, to: str) -> None:
        self._database = _open(to)
        try:
            with self._database.transaction():
                for statement in statements():
                    self._database.run(statement)
                rows = self._database.ask("SELECT format FROM projection")
        except ProjectionUnusable:
            raise
        except Exception as error:
            self._database.close()
            raise ProjectionUnusable(f"the projection's tables cannot be made: {error}") from error
        if rows and rows[0][0] > FORMAT:
            self._database.close()
            raise ProjectionUnusable(
                f"the projection has format {rows[0][0]}, this version writes {FORMAT}: use the newer version, or another place"
            )

    def place(self) -> Place | None:
        """Where it stands; None: it is empty."""
        rows = self._database.ask("SELECT cluster_id, timeline, cursor, as_of_ms, generation, target FROM projection")
        return Place(*rows[0]) if rows else None

    def write(
        self, place: Place, stocks: Iterable[Stock], reservations: Iterable[Reservation], *, forget_older: bool = False
    ) -> None:
        """Everything of it at once, with the place that it leads to. ``forget_older``: rows of earlier generations go."""
        generation = place.generation
        reservations = list(reservations)
        with self._database.transaction():
            self._database.run(upsert("stock"), [stock_row(one, generation) for one in stocks])
            self._database.run(upsert("reservations"), [reservation_row(one, generation) for one in reservations])
            # An amend may have taken lines away.
            self._database.run(
                "DELETE FROM reservation_lines WHERE reservation_id = ?",
                [(one.reservation_id,) for one in reservations],
            )
            self._database.run(upsert("reservation_lines"), [row for one in reservations for row in line_rows(one)])
            if forget_older:
                self._forget_older(generation)
            self._database.run(upsert("projection"), [(1, FORMAT, *place)])

    def _forget_older(self, generation: int) -> None:
        for statement in (
            "DELETE FROM stock WHERE generation < ?",
            "DELETE FROM reservations WHERE generation < ?",
        ):
            self._database.run(statement, [(generation,)])
        self._database.run(
            "DELETE FROM reservation_lines WHERE reservation_id NOT IN (SELECT reservation_id FROM reservations)"
        )

    def counts(self) -> tuple[int, int]:
        """How many stock keys and reservations it holds."""
        ((stocks, reservations),) = self._database.ask(
            "SELECT (SELECT COUNT(*) FROM stock), (SELECT COUNT(*) FROM reservations)"
        )
        return stocks, reservations

    def close(self) -> None:
        self._database.close()


def _open(to: str) -> Database:
    if to.startswith(POSTGRES_SCHEMES):
        try:
            return PostgresDatabase(to)
        except Exception as error:
            raise ProjectionUnusable(f"the database does not answer: {str(error).strip()}") from error
    path = Path(to)
    if "://" in to:
        raise ProjectionUnusable(f"{to.partition('://')[0]}: give a file for SQLite, or a postgresql:// URL")
    try:
        return SqliteDatabase(path)
    except (sqlite3.Error, OSError) as error:
        raise ProjectionUnusable(f"{path} cannot be opened as a SQLite file: {error}") from error
