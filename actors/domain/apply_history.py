"""What the events of a stock actor's history do, live and in replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.domain.feed_events import CountPlaced, FactNoted, HistoryForgotten
from actors.domain.history import History, Marker, Place
from actors.domain.state import Books, ShardState


def _history(shard: ShardState, key: str) -> History:
    actor = shard.stock[key]
    if actor.history is None:
        actor.history = History()
    return actor.history


def _fact_noted(_books: Books, shard: ShardState, event: FactNoted, _time_ms: int) -> None:
    key, stream_key, sequence, occur_time_ms, disposition, on_hand_delta, picked_delta, promise = event[:8]
    history = shard.stock[key].history or _history(shard, key)
    history.note(stream_key, sequence, occur_time_ms, disposition, on_hand_delta, picked_delta, promise)


def _count_placed(_books: Books, shard: ShardState, event: CountPlaced, _time_ms: int) -> None:
    key, stream_key, place, occur_time_ms, disposition, includes_picked, sequence, event_id = event
    marker = Marker(Place(stream_key, place, occur_time_ms), includes_picked, sequence, event_id)
    _history(shard, key).place_count(disposition, marker)


def _history_forgotten(_books: Books, shard: ShardState, event: HistoryForgotten, _time_ms: int) -> None:
    _history(shard, event.stock_key).forget(event.before_ms)


APPLY_HISTORY: dict[type[Any], Callable[[Books, ShardState, Any, int], None]] = {
    FactNoted: _fact_noted,
    CountPlaced: _count_placed,
    HistoryForgotten: _history_forgotten,
}
