"""The strongest peer inside a database: PL/pgSQL functions that decide one order, or a whole batch set by set.

Called straight from the application by ``asyncpg``: no gateway, no validation but the tables'. A batch locks its stock rows in the
order of their keys, reads which ids are known already, and grants the orders of each stock key up to the first that does not
fit; one commit a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.peers.orders import REFUSED, Decision, Order, OtherContent
from bench.peers.waiting import Shared

# Plans are made once a connection, while the table of reservations is small; these keep them right when it has grown.
PLANNER = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}

# They return the time a hold expires; negative: granted before, until then; 0: refused; null: the id had other content.
FUNCTIONS = """
create function reserve_one(p_id text, p_key text, p_quantity bigint, p_expire bigint) returns bigint language plpgsql as $$
declare
  prior reservation;
begin
  update stock set available = available - p_quantity
   where key = p_key and available >= p_quantity and not exists (select from reservation where request_id = p_id);
  if found then
    insert into reservation values (p_id, p_key, p_quantity, p_expire) on conflict do nothing;
    if found then
      return p_expire;
    end if;
    update stock set available = available + p_quantity where key = p_key;  -- the id came twice at once
  end if;
  select * into prior from reservation where request_id = p_id;
  if not found then
    return 0;
  end if;
  return case when (prior.key, prior.quantity) = (p_key, p_quantity) then -prior.expire_time end;
end $$;

create function reserve_batch(p_ids text[], p_keys text[], p_quantities bigint[], p_expire bigint)
returns bigint[] language plpgsql as $$
declare
  answers bigint[];
begin
  perform 1 from stock where key in (select distinct unnest(p_keys)) order by key for no key update;
  with asked as (
    select * from unnest(p_ids, p_keys, p_quantities) with ordinality as asked (request_id, key, quantity, place)
  ), told as (
    select asked.*, prior.key as prior_key, prior.quantity as prior_quantity, prior.expire_time as prior_expire
      from asked left join reservation prior using (request_id)
  ), summed as (
    select told.*, sum(quantity) filter (where prior_key is null) over (partition by key order by place) as running from told
  ), decided as (
    select summed.*, prior_key is null and running <= stock.available as granted from summed left join stock using (key)
  ), written as (
    insert into reservation select request_id, key, quantity, p_expire from decided where granted
  ), taken as (
    update stock set available = available - units
      from (select key, sum(quantity) as units from decided where granted group by key) sums where stock.key = sums.key
  )
  select array_agg(
           case when granted then p_expire
                when prior_key is null then 0
                when (prior_key, prior_quantity) = (key, quantity) then -prior_expire end order by place)
    into answers from decided;
  return answers;
end $$;
"""
ONE = "select reserve_one($1, $2, $3, $4)"
BATCH = "select reserve_batch($1, $2, $3, $4)"


class BatchFunction:
    """A store of the functions."""

    def __init__(self, uri: str, connections: int) -> None:
        self._uri = uri
        self._count = connections
        self._shared: Shared[tuple[Any, Any]] = Shared()
        self._all: list[Any] = []

    async def open(self) -> None:
        import asyncpg

        for _ in range(self._count):
            connection = await asyncpg.connect(self._uri, server_settings=PLANNER)
            self._all.append(connection)
            self._shared.give((await connection.prepare(ONE), await connection.prepare(BATCH)))

    async def close(self) -> None:
        for connection in self._all:
            await connection.close()

    async def reserve(self, orders: Sequence[Order], expire_time_ms: int) -> Sequence[Decision]:
        one, batch = held = await self._shared.take()
        try:
            if len(orders) == 1:
                answers = [await one.fetchval(*orders[0], expire_time_ms)]
            else:
                ids, keys, quantities = zip(*orders, strict=True)
                answers = await batch.fetchval(ids, keys, quantities, expire_time_ms)
        finally:
            self._shared.give(held)
        return [_decision(answer, order) for answer, order in zip(answers, orders, strict=True)]


def _decision(answer: int | None, order: Order) -> Decision:
    if answer is None:
        raise OtherContent(order.request_id)
    return Decision(answer != 0, abs(answer), replayed=answer < 0) if answer else REFUSED
