"""What the events of errands do, live and in replay; deciding is ``actors.domain.errands``'s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.domain.errand_events import ErrandSent, ErrandSettled, ErrandTaken
from actors.domain.errand_state import Errand, Inbound, Outbound
from actors.domain.state import Books, ShardState


def _sent(_books: Books, shard: ShardState, event: ErrandSent, time_ms: int) -> None:
    outbound = shard.outbound.get(event.to_shard)
    if outbound is None:
        outbound = shard.outbound[event.to_shard] = Outbound(event.to_shard)
    assert event.number == outbound.next_number, "errands are numbered without a gap"
    outbound.open[event.number] = Errand(*event, time_ms)
    outbound.next_number += 1


def _taken(_books: Books, shard: ShardState, event: ErrandTaken, _time_ms: int) -> None:
    inbound = shard.inbound.get(event.from_shard)
    if inbound is None:
        inbound = shard.inbound[event.from_shard] = Inbound(event.from_shard)
    assert event.number == inbound.last + 1, "errands are taken in order, once each"
    assert event.settled_below <= event.number, "what was not taken is not settled"
    inbound.last = event.number
    for number in range(inbound.settled_below, event.settled_below):
        inbound.replies.pop(number, None)
    inbound.settled_below = max(inbound.settled_below, event.settled_below)
    inbound.replies[event.number] = event.reply


def _settled(_books: Books, shard: ShardState, event: ErrandSettled, _time_ms: int) -> None:
    outbound = shard.outbound[event.to_shard]
    assert event.number == outbound.settled_below, "errands are settled in order, once each"
    del outbound.open[event.number]


APPLY_ERRANDS: dict[type[Any], Callable[[Books, ShardState, Any, int], None]] = {
    ErrandSent: _sent,
    ErrandTaken: _taken,
    ErrandSettled: _settled,
}
