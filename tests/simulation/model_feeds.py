"""The model's rules of streams of events: sequences received, the watermark, what waits and when its time comes.

A fact that has no place among others is decided at once, whatever is missing. A count as of n, and a shipment that closes the
rest of its order, wait until everything before their place was received, or until their time is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation import model_warehouse
from tests.simulation.model_state import Outcome, failed, told

if TYPE_CHECKING:
    from tests.simulation.model import Model

Identity = tuple[Any, ...]


@dataclass(slots=True)
class Waiting:
    """An event whose place was not reached."""

    place: int
    until_ms: int
    event: Mapping[str, Any]
    shard: int


@dataclass(slots=True)
class Feed:
    """One stream of one source."""

    received: set[int] = field(default_factory=set)
    whole_to: int = 0  # everything up to it was received, or declared lost
    waiting: dict[Identity, Waiting] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)

    def receive(self, sequence: int) -> None:
        """That event came."""
        if sequence:
            self.received.add(sequence)
            self._move()

    def with_one_more(self, sequence: int) -> int:
        """Up to where it were whole if that came."""
        whole_to = self.whole_to
        while whole_to + 1 in self.received or whole_to + 1 == sequence:
            whole_to += 1
        return whole_to

    def close(self, up_to: int) -> None:
        """What is missing up to there is lost."""
        self.whole_to = max(self.whole_to, up_to)
        self._move()

    def _move(self) -> None:
        while self.whole_to + 1 in self.received:
            self.whole_to += 1

    def has(self, sequence: int) -> bool:
        """Whether that sequence came, or was given up."""
        return sequence <= self.whole_to or sequence in self.received


def feed_of(model: Model, event: Mapping[str, Any]) -> Feed:
    """The stream that an event is of."""
    return model.feeds.setdefault((event["source_id"], event["stream_id"]), Feed())


def ingest(model: Model, event: Mapping[str, Any], now_ms: int, shard: int) -> Outcome:
    """An event whose id is new."""
    if not model.settings.feeds:
        return _without_order(model, event, now_ms, shard)
    feed, sequence = feed_of(model, event), event["source_sequence"]
    if sequence and feed.has(sequence):
        if event["occur_time_ms"] < now_ms - model.settings.dedupe_window_ms:
            again = told("DUPLICATE")
            again.changed, again.replayed = False, True
            return again
        return _received(feed, event, model_warehouse.reject(model, "SEQUENCE_REUSED", shard))
    reason = event["reject_reason"] or model_warehouse.misunderstood(model, event, now_ms)
    if reason:
        return _received(feed, event, model_warehouse.reject(model, reason, shard))
    place = model_warehouse.awaited(event)
    if place > feed.with_one_more(sequence):
        identity = ("event", event["source_id"], event["event_id"])
        feed.waiting[identity] = Waiting(place, now_ms + model.settings.deferral_ms_max, event, shard)
        return _received(feed, event, told("DEFERRED"))
    return _received(feed, event, model_warehouse.decide(model, event, now_ms, shard))


def _without_order(model: Model, event: Mapping[str, Any], now_ms: int, shard: int) -> Outcome:
    """For a search that knows no order of streams: what waited and what was rejected for its place is told with the event."""
    if event.get("waits"):
        identity = ("event", event["source_id"], event["event_id"])
        feed_of(model, event).waiting[identity] = Waiting(0, 0, event, shard)
        return told("DEFERRED")
    reason = event["reject_reason"] or model_warehouse.misunderstood(model, event, now_ms)
    return (
        model_warehouse.reject(model, reason, shard) if reason else model_warehouse.decide(model, event, now_ms, shard)
    )


def _received(feed: Feed, event: Mapping[str, Any], outcome: Outcome) -> Outcome:
    if outcome.changed:
        feed.receive(event["source_sequence"])
        count(feed, outcome)
    return outcome


def count(feed: Feed, outcome: Outcome) -> Outcome:
    """One more with that outcome; the answer says where the stream stands."""
    name = outcome.answer["outcome"]
    feed.outcomes[name] = feed.outcomes.get(name, 0) + 1
    outcome.answer["watermark"] = feed.whole_to
    return outcome


def settle(model: Model, identity: Identity, now_ms: int) -> Outcome:
    """Decide an event that waited: in its place, or because its time is over. An error: it is not its turn."""
    feed = model.feeds.get(next((name for name, one in model.feeds.items() if identity in one.waiting), ("", "")))
    if feed is None or identity not in feed.waiting:
        return failed("it does not wait")
    waiting = feed.waiting[identity]
    if waiting.place <= feed.whole_to:
        earlier = [one for one in feed.waiting.values() if one.place < waiting.place]
        if earlier:
            return failed(f"one of place {earlier[0].place} waits longer than it, of {waiting.place}")
        reason = "" if model.settings.feeds else waiting.event["reject_reason"]
        decide = model_warehouse.decide
        outcome = (
            model_warehouse.reject(model, reason, waiting.shard, waited=True)
            if reason
            else decide(model, waiting.event, now_ms, waiting.shard, waited=True)
        )
    elif now_ms >= waiting.until_ms:
        outcome = model_warehouse.reject(model, "DEFERRED_TOO_LONG", waiting.shard, waited=True)
    else:
        return failed(f"its place is {waiting.place}, the stream is whole up to {feed.whole_to}")
    del feed.waiting[identity]
    feed.outcomes["DEFERRED"] = feed.outcomes.get("DEFERRED", 0) - 1
    count(feed, outcome)
    spent = model.spent[identity]
    spent.earlier, spent.answer = spent.answer, outcome.answer
    return outcome


def overdue(model: Model) -> list[str]:
    """What waits though everything before its place came."""
    return [
        f"{identity} for {one.place}; whole up to {feed.whole_to}"
        for feed in model.feeds.values()
        for identity, one in feed.waiting.items()
        if one.place <= feed.whole_to
    ]
