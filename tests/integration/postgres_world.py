"""A database of a journal's own, a proxy before it, and work in threads: what tests of the PostgreSQL journal share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from actors.journal.postgres import PostgresJournal
from actors.journal.postgres_link import Link, LinkOptions
from actors.journal.postgres_open import open_postgres
from tests.postgres_proxy import TcpProxy, proxied
from tests.postgres_server import PostgresServer
from tests.unit.journal_places import NOW_MS, WANTED, Owner, PostgresPlace

DEADLINE_MS = 1_500
WITHIN_S = 20.0


@pytest.fixture
def place(postgres: PostgresServer) -> Iterator[PostgresPlace]:
    """A database of its own."""
    made = PostgresPlace(postgres)
    yield made
    made.close()


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[TcpProxy]:
    with proxied(postgres.port) as made:
        yield made


def through(proxy: TcpProxy, place: PostgresPlace) -> LinkOptions:
    """The database behind the proxy."""
    return LinkOptions(place.server.url_of(place.database, port=proxy.port), DEADLINE_MS)


def owner_through(proxy: TcpProxy, place: PostgresPlace) -> Owner:
    journal = open_postgres(through(proxy, place), WANTED, now_ms=NOW_MS)
    place.journals.append(journal)
    return Owner(journal)


def link_of(owner: Owner) -> Link:
    """The connection that it has now."""
    assert isinstance(owner.journal, PostgresJournal)
    return owner.journal._link


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.01)


class InThread:
    """Something that blocks, done elsewhere. ``error``: what it raised."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as caught:
            self.error = caught

    def join(self) -> BaseException | None:
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive(), "it hangs"
        return self.error


__all__ = ["DEADLINE_MS", "InThread", "link_of", "owner_through", "place", "proxy", "through", "wait_until"]
