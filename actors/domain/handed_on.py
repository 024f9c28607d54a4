"""Warehouse events whose stock key lives on another host: handed on to its shard by an errand, booked there, counted here.

Its feed shard spends the id, the sequence and the watermark at once, as with any event; until the stock key's shard answered
the event counts as waiting. Errands keep their order, so a fact is booked after those before it of the same feed shard; while
one is under way, later ones of that pair of shards follow it the same way, also when the shard has come to this host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.answers import Reply, pending
from actors.domain.commands import Ingest
from actors.domain.errand_registry import ERRAND_KEYS, ERRANDS
from actors.domain.errands import send
from actors.domain.identity import ANSWER_INGEST, reservation_row_key, shipment_key
from actors.domain.outcomes import Fact
from actors.domain.state import Books, ShardState
from actors.domain.turn import Turn
from actors.domain.warehouse import HANDED_ON, decide

BOOK_FACT = 90
PURPOSE = "fact"
ANSWER: tuple[object, ...] = (ANSWER_INGEST, HANDED_ON, 0, "", 0)  # what its entry says meanwhile
_PROMISE_AT = {int(Fact.PICK): 1, int(Fact.UNPICK): 1, int(Fact.SHIPMENT): 2}


def is_elsewhere(turn: Turn, shard: ShardState, stock_key: str) -> bool:
    """Whether a fact must be handed on: its stock key's shard is on another host, or one before it is still under way."""
    books = turn.books
    actor = books.stock.get(stock_key)
    to_shard = actor.shard.id if actor is not None else books.shard_of(stock_key)
    if to_shard not in books.shards:
        return True
    outbound = shard.outbound.get(to_shard) if shard.outbound else None
    return outbound is not None and bool(outbound.open)


def shards_followed(shard: ShardState) -> set[int]:
    """Shards to which something is under way: facts for them are handed on, too."""
    return {to_shard for to_shard, outbound in shard.outbound.items() if outbound.open}


def hand_on(turn: Turn, shard: ShardState, command: Ingest, key: str, warehouse_id: str) -> Reply:
    """Send it to its stock key's shard. The caller has journaled that it was received."""
    to_shard = turn.books.shard_of(command.stock_key)
    send(turn, shard, to_shard, BOOK_FACT, [list(command)], [PURPOSE, key, warehouse_id])
    return pending(key)


def book_fact(turn: Turn, shard: ShardState, _from_shard: int, body: Sequence[Any]) -> Sequence[Any]:
    """BOOK_FACT: [Ingest]. The reply: a ``Decided``."""
    command = Ingest(*body[0])
    return list(decide(turn, shard, shard.stock.get(command.stock_key), command))


def fact_keys(books: Books, body: Sequence[Any]) -> list[str]:
    """What booking it may depend on in the entries table."""
    command = Ingest(*body[0])
    if command.fact not in _PROMISE_AT:
        return []
    promise = command.details[_PROMISE_AT[command.fact]]
    keys = [reservation_row_key(promise[0])] if promise and promise[0] not in books.reservations and promise[0] else []
    if command.fact == Fact.SHIPMENT:
        line = command.document_line or (promise[3] if promise else "")
        keys.append(shipment_key(command.stock_key, command.details[1], line))
    return keys


ERRANDS[BOOK_FACT] = book_fact
ERRAND_KEYS[BOOK_FACT] = fact_keys
