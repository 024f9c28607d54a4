"""Events of feeds, of what waits in them, and of a stock actor's history. As in ``actors.domain.events``, which numbers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class FeedReceived(NamedTuple):
    """An event of this stream was received and decided. ``sequence`` 0: it has none. ``warehouse_id`` "": an unknown one."""

    feed_key: str
    sequence: int
    warehouse_id: str
    occur_time_ms: int
    outcome: int


class EventDeferred(NamedTuple):
    """An event waits until its stream's watermark reaches ``place``, at most until ``until_ms``. ``body``: an Ingest."""

    event_key: str
    feed_key: str
    place: int
    until_ms: int
    body: Sequence[Any]
    principal: str = ""
    correlation_id: str = ""
    traceparent: str = ""


class DeferredEnded(NamedTuple):
    """A waiting event was decided; what became of it."""

    event_key: str
    outcome: int


class FeedStaleSet(NamedTuple):
    """The source fell silent about that warehouse (in any stream), or is heard again. ``exception_id``: what was opened."""

    feed_key: str
    warehouse_id: str
    stale: bool
    exception_id: str = ""


class FeedGapClosed(NamedTuple):
    """What is missing up to that sequence is declared lost: the watermark moves on."""

    feed_key: str
    up_to: int


class FeedSettled(NamedTuple):
    """One event of this stream waits no longer; what became of it."""

    feed_key: str
    warehouse_id: str
    outcome: int


class EntrySettled(NamedTuple):
    """What was handed on to another host's shard was decided there: ``answer`` is what a repeat gets from now on."""

    entry_key: str
    digest: bytes
    answer: Sequence[Any]


class FeedGapSet(NamedTuple):
    """An exception is open about what is missing in this stream; empty: no more."""

    feed_key: str
    exception_id: str


class FeedHeard(NamedTuple):
    """The source said that it lives, and which sequence it gave out last (0: not said)."""

    feed_key: str
    warehouse_id: str
    last_source_sequence: int


class FactNoted(NamedTuple):
    """One fact's units in the stock actor's history: what a count as of an earlier place must add to or leave out.

    ``stream_key``: identity.feed_key of who told it and ``sequence`` its place there; "" and 0 when order management did.
    ``promise``: whose picked units it changed, if any: "r" US reservation id for those of its claims, else as in AdriftPicked.
    An event that changed those of several is noted once for each, its ``on_hand_delta`` with the first. The last three are a
    pick's or unpick's; facts that change on hand have theirs in OnHandChanged.
    """

    stock_key: str
    stream_key: str
    sequence: int
    occur_time_ms: int
    disposition: int
    on_hand_delta: int
    picked_delta: int
    promise: str = ""
    document_id: str = ""
    document_line: str = ""
    lot_id: str = ""


class CountPlaced(NamedTuple):
    """A count was taken at that place of its stream; what it corrected is OnHandChanged. ``sequence``: its event's own."""

    stock_key: str
    stream_key: str
    place: int
    occur_time_ms: int
    disposition: int
    includes_picked: bool
    sequence: int
    event_id: str


class HistoryForgotten(NamedTuple):
    """Facts of the history that occurred before ``before_ms`` are forgotten; a count that old is rejected from now on."""

    stock_key: str
    before_ms: int
