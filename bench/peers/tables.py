"""The tables of the two PostgreSQL peers that are our own: stock, and a row a reservation. Stocked and audited by psycopg."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.peers.postgres import Postgres

SCHEMA = """
create table stock (
  key        text collate "C" primary key,
  available  bigint not null check (available >= 0)  -- the last line of defence
) with (fillfactor = 50);                            -- room for a new version of a row beside the old one
create table reservation (
  request_id   text collate "C" primary key,         -- an order is recorded once, however often it comes
  key          text collate "C" not null,
  quantity     bigint not null check (quantity > 0),
  expire_time  bigint not null                       -- Unix milliseconds
);
"""


class Recorded(NamedTuple):
    """What a peer holds at the end. ``oversold``: stock keys whose reservations exceed their units, or whose count of what
    is left does not fit.
    """

    claims: int
    units: int
    oversold: int


def stock_up(server: Postgres, keys: Sequence[str], units_per_key: int, functions: str = "") -> None:
    """Make the tables and fill the shelf."""
    with server.connected() as connection:
        connection.execute(SCHEMA + functions)
        connection.execute("insert into stock select unnest(%s::text[]), %s", (list(keys), units_per_key))


def audit(server: Postgres, units_per_key: int) -> Recorded:
    """Count reservations and hold them against the shelf."""
    with server.connected() as connection:
        claims, units = connection.execute("select count(*), coalesce(sum(quantity), 0) from reservation").fetchone()
        (oversold,) = connection.execute(
            """
            select count(*) from stock left join (select key, sum(quantity) as units from reservation group by key) taken
              using (key)
            where available + coalesce(units, 0) <> %s
            """,
            (units_per_key,),
        ).fetchone()
    return Recorded(claims, int(units), oversold)
