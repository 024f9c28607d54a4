"""Events in: each is decided once, by its id and its sequence, at its source's feed shard; what it does is booked in the stock
key's shard in the same turn. Facts that do not commute wait until everything before them was received.

What a fact does to the stock is ``actors.domain.warehouse``'s; which sequences are missing ``actors.domain.sequences``'s.
Silent feeds and gaps are ``actors.domain.feed_watch``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop
from typing import Any

from actors.domain.alarms import raise_alarm
from actors.domain.answers import OK, IngestView, Reply, error, ok, pending
from actors.domain.commands import Cause, Ingest, Verb
from actors.domain.errand_registry import ANSWERS
from actors.domain.errand_state import Errand
from actors.domain.errands import has_room
from actors.domain.events import EntrySpent
from actors.domain.feed_events import DeferredEnded, EntrySettled, EventDeferred, FeedReceived, FeedSettled
from actors.domain.feed_state import Deferred, Feed
from actors.domain.feed_watch import gap_moved, heard
from actors.domain.handed_on import ANSWER as HANDED_ON_ANSWER
from actors.domain.handed_on import PURPOSE as HANDED_ON_PURPOSE
from actors.domain.handed_on import hand_on, is_elsewhere
from actors.domain.identity import ANSWER_INGEST
from actors.domain.outcomes import ErrorReason, ExceptionKind, Fact, IngestOutcome, RejectReason
from actors.domain.sequences import Sequences
from actors.domain.state import Books, Entry, ShardState
from actors.domain.turn import Turn, make
from actors.domain.warehouse import FACTS, HANDED_ON, Decided, as_of, cannot_be_understood, decide, rejected

APPLIED = int(IngestOutcome.APPLIED)
DUPLICATE = int(IngestOutcome.DUPLICATE)
DEFERRED = int(IngestOutcome.DEFERRED)
REJECTED = int(IngestOutcome.REJECTED)
SHIPMENT = int(Fact.SHIPMENT)
STOCK_COUNT = int(Fact.STOCK_COUNT)
INGEST = int(Verb.INGEST)
MAY_WAIT = frozenset((SHIPMENT, STOCK_COUNT))
PLAIN = frozenset(FACTS) - MAY_WAIT  # facts that are understood by themselves
NOTHING_RECEIVED = Sequences()

FEEDS_PER_SHARD_MAX = 10_000  # streams: they are never forgotten, so nobody may make them at will
WAITING_PER_FEED_MAX = 10_000  # events of a stream that wait: a night's counts behind one hole; a kilobyte each
DECIDED_PER_TURN_MAX = 1_000  # of those whose time came; the next turn takes the rest
REJECTED_RETRY_MS = 60_000  # somebody must resolve exceptions first
OVERLOADED_RETRY_MS = 1_000  # a hole is filled, or given up, in seconds at the earliest

MESSAGES = {
    RejectReason.UNKNOWN_FACT: "the kind of fact is not known to this version",
    RejectReason.UNKNOWN_WAREHOUSE: "the warehouse is not declared in the settings",
    RejectReason.UNKNOWN_STOCK_KEY: "the catalog is closed and the stock key is not registered",
    RejectReason.AS_OF_MISSING: "a count says as of which source sequence it was taken, has one itself, or is taken as now",
    RejectReason.FULFILLED_BY_ORDER_MANAGEMENT: "order management tells of shipments from this warehouse, not the warehouse",
    RejectReason.TOO_OLD: "it occurred before the dedupe window: it cannot be told from one applied before",
    RejectReason.SOURCE_NOT_ALLOWED: "the source may not send this kind of fact for this warehouse",
    RejectReason.EVENT_ID_REUSED: "the event id was already used for other content",
    RejectReason.SHIPMENT_MISMATCH: "the shipment was already booked with another quantity",
    RejectReason.QUANTITY_OUT_OF_RANGE: "on hand would leave the range of ±10^15 units",
    RejectReason.SEQUENCE_REUSED: "another event of this stream already had its source sequence",
    RejectReason.DEFERRED_TOO_LONG: "it waited too long for what its source sent before it",
    RejectReason.LOT_RECALLED: "units of a recalled lot are not made sellable again",
    RejectReason.BEFORE_HISTORY: "it was counted before what is still remembered of this stock key",
}


def ingest(turn: Turn, shard: ShardState, command: Ingest) -> Reply:
    """Decide one warehouse event at its feed shard. OK payload: ``IngestView``."""
    source_id, stream_id, event_id, sequence, _, stock_key, _, fact = command[:8]
    books = turn.books
    feed_key = f"{source_id}\x1f{stream_id}"  # identity.feed_key and event_key, without the calls
    key = f"e\x1f{source_id}\x1f{event_id}"
    feed = shard.feeds.get(feed_key)
    if key in books.request_ids or key in turn.found:
        entry = turn.entry(shard, key)
        if entry is not None:
            return _id_again(turn, shard, feed, command, key, entry)
    if feed is None:
        if len(shard.feeds) >= FEEDS_PER_SHARD_MAX:
            return error(ErrorReason.OVERLOADED, "too many streams of events", OVERLOADED_RETRY_MS)
    elif sequence and sequence != feed.sequences.watermark + 1:
        if feed.sequences.has(sequence):
            return _sequence_again(turn, shard, feed, command, key)
        if not feed.sequences.fits(sequence):
            return error(ErrorReason.OVERLOADED, "too much is missing in this stream", OVERLOADED_RETRY_MS)
    if not sequence or fact not in PLAIN or command.reject_reason:
        reason = cannot_be_understood(turn, command)
        if reason is not None:
            return _answer(turn, shard, command, key, rejected(reason))
    actor = books.stock.get(stock_key)
    there = actor.shard if actor is not None else books.shards.get(books.shard_of(stock_key))
    if fact in MAY_WAIT:
        place = place_awaited(command)
        if place and place > (feed.sequences if feed is not None else NOTHING_RECEIVED).watermark_with(sequence):
            return _defer(turn, shard, feed, command, key, place)
    if there is None or (shard.outbound and is_elsewhere(turn, shard, stock_key)):
        return _hand_on(turn, shard, command, key)
    return _answer(turn, shard, command, key, decide(turn, there, actor, command))


def _hand_on(turn: Turn, shard: ShardState, command: Ingest, key: str) -> Reply:
    """Its stock key's shard is on another host: that is told, and whoever asks waits for what it says."""
    if not has_room(shard, turn.books.shard_of(command.stock_key)):
        return error(ErrorReason.OVERLOADED, "too many events are under way to another host", OVERLOADED_RETRY_MS)
    feed_key, warehouse_id = f"{command.source_id}\x1f{command.stream_id}", warehouse_counted(command)
    turn.emit(shard, FeedReceived(feed_key, command.source_sequence, warehouse_id, command.occur_time_ms, HANDED_ON))
    turn.emit(shard, EntrySpent(key, command.digest, HANDED_ON_ANSWER))
    reply = hand_on(turn, shard, command, key, warehouse_id)
    heard(turn, shard, command.source_id, warehouse_id)
    feed = shard.feeds[feed_key]
    if feed.gap_exception_id:
        gap_moved(turn, shard, feed)
    return reply


def fact_booked(turn: Turn, shard: ShardState, errand: Errand, reply: Sequence[Any]) -> None:
    """The stock key's shard decided it: its feed counts it, a repeat gets this answer, and so does whoever waits."""
    command = Ingest(*errand.body[0])
    _, key, warehouse_id = errand.purpose
    decided = Decided(*reply)
    if decided.outcome == REJECTED and not decided.exception_id:
        decided = decided._replace(exception_id=open_rejection(turn, shard, command, decided.reject_reason))
    feed_key = f"{command.source_id}\x1f{command.stream_id}"
    turn.emit(shard, FeedSettled(feed_key, warehouse_id, decided.outcome))
    turn.emit(shard, EntrySettled(key, command.digest, entry_answer(*decided)))
    outcome, place, short, opened, reason, booked, gate_reasons = decided
    watermark = shard.feeds[feed_key].sequences.watermark
    view = IngestView(
        command.event_id, outcome, tuple(place) or turn.position(shard), short, opened, reason, booked, gate_reasons,
        0, 0, watermark,
    )  # fmt: skip
    turn.finish(key, ok(view))


ANSWERS[HANDED_ON_PURPOSE] = fact_booked


def _id_again(  # noqa: PLR0913  what the hot path knows already
    turn: Turn, shard: ShardState, feed: Feed | None, command: Ingest, key: str, entry: Entry
) -> Reply:
    """Its id was told before: with this content the first answer, with another one an exception."""
    if entry.digest == command.digest:
        return _again(command, feed, entry)
    # The id is taken: this content gets an entry of its own, so that its repeats do not open an exception each.
    key = f"{key}\x1f{command.digest.hex()}"
    own = turn.entry(shard, key)
    if own is not None:
        return _again(command, feed, own)
    return _answer(turn, shard, command, key, rejected(RejectReason.EVENT_ID_REUSED))


def place_awaited(command: Ingest) -> int:
    """The sequence up to which everything must have been received before this may be decided; 0: it commutes with the rest."""
    if command.fact == STOCK_COUNT and not command.details[3]:
        return as_of(command) or 0
    if command.fact == SHIPMENT and command.details[3] and command.source_sequence:
        return command.source_sequence - 1
    return 0


def _again(command: Ingest, feed: Feed | None, entry: Entry) -> Reply:
    """The first answer once more: nothing changes."""
    answer = entry.answer
    if answer[1] == HANDED_ON:
        return pending(entry.key)
    outcome, short, exception, reason = answer[1:5]
    place = tuple(answer[5:9]) if len(answer) > 5 and answer[5] >= 0 else _place_of(entry)  # noqa: PLR2004
    if outcome == APPLIED:
        outcome = DUPLICATE
    _count_repeat(feed, command)
    watermark = feed.sequences.watermark if feed is not None else 0
    booked, gate_reasons = (answer[9], answer[10]) if len(answer) > 9 else (0, ())  # noqa: PLR2004
    awaited, until_ms = (answer[11], answer[12]) if len(answer) > 11 and outcome == DEFERRED else (0, 0)  # noqa: PLR2004
    view = IngestView(
        command.event_id, outcome, place, short, exception, reason, booked, gate_reasons, awaited, until_ms, watermark
    )
    return ok(view, True)


def _place_of(entry: Entry) -> tuple[int, int, int, int]:
    return (entry.shard, entry.epoch, entry.sequence, entry.time_ms)


def _count_repeat(feed: Feed | None, command: Ingest) -> None:
    if feed is not None:
        part = feed.warehouses.get(warehouse_counted(command))
        if part is not None:
            part.repeats += 1


def warehouse_counted(command: Ingest) -> str:
    """The warehouse that a feed counts it under: unknown ones together, so that a typo makes nothing that stays."""
    return "" if command.reject_reason == RejectReason.UNKNOWN_WAREHOUSE else command.stock_key.split("\x1f")[1]


def _sequence_again(turn: Turn, shard: ShardState, feed: Feed, command: Ingest, key: str) -> Reply:
    """Its sequence was received, its id is not known: another event had it, or it is so old that its id was forgotten."""
    if command.occur_time_ms >= turn.now_ms - turn.books.rules.dedupe_window_ms:
        return _answer(turn, shard, command, key, rejected(RejectReason.SEQUENCE_REUSED))
    _count_repeat(feed, command)
    watermark = feed.sequences.watermark
    return ok(IngestView(command.event_id, DUPLICATE, turn.position(shard), 0, "", 0, watermark=watermark), True)


def _answer(turn: Turn, shard: ShardState, command: Ingest, key: str, decided: Decided) -> Reply:
    """It was decided: journal that it was received and what a repeat gets."""
    outcome, place, short, opened, reason, booked, gate_reasons = decided
    if outcome == REJECTED and not opened:
        if shard.exceptions_open >= turn.books.rules.exceptions_open_max:  # nothing is dropped: its sender keeps it
            return error(ErrorReason.OVERLOADED, "too many exceptions are open: resolve some", REJECTED_RETRY_MS)
        opened = open_rejection(turn, shard, command, reason)
    source_id, stream_id, event_id, sequence, occur_time_ms, stock_key = command[:6]
    feed_key = f"{source_id}\x1f{stream_id}"
    warehouse_id = warehouse_counted(command) if reason else stock_key.split("\x1f")[1]
    received = make(FeedReceived, (feed_key, sequence, warehouse_id, occur_time_ms, outcome))
    answer = entry_answer(outcome, place, short, opened, reason, booked, gate_reasons)
    turn.emit_pair(shard, received, make(EntrySpent, (key, command.digest, answer)))
    place = place or turn.position(shard)  # as a repeat tells it: before what else the event may end
    if turn.books.stale_feeds:
        heard(turn, shard, source_id, warehouse_id)
    feed = shard.feeds[feed_key]
    if feed.gap_exception_id:
        gap_moved(turn, shard, feed)
    watermark = feed.sequences.watermark
    turn.reads.add(shard.id)
    view = make(IngestView, (event_id, outcome, place, short, opened, reason, booked, gate_reasons, 0, 0, watermark))
    return (OK, False, view)


def entry_answer(  # noqa: PLR0913  the parts of a decision
    outcome: int,
    place: Sequence[int],
    short: int,
    opened: str,
    reason: int,
    booked: int,
    gate_reasons: Sequence[int],
) -> tuple[object, ...]:
    """What a repeat of the event gets from now on: the answer of its entry, see ``identity``."""
    if not place:
        return (ANSWER_INGEST, outcome, short, opened, reason)
    if booked:
        return (ANSWER_INGEST, outcome, short, opened, reason, *place, booked, gate_reasons)
    return (ANSWER_INGEST, outcome, short, opened, reason, *place)


def open_rejection(turn: Turn, shard: ShardState, command: Ingest, reason: int) -> str:
    """The exception of a rejected event, which is kept with it: somebody may want it booked."""
    message = f"event {command.event_id!r} of source {command.source_id!r} rejected: {MESSAGES[RejectReason(reason)]}"
    late = reason == RejectReason.DEFERRED_TOO_LONG
    kind = ExceptionKind.EVENT_NOT_PLACED if late else ExceptionKind.EVENT_REJECTED
    return raise_alarm(turn, shard, kind, command.stock_key, message, 0, [], reason, tuple(command))


# --- waiting -----------------------------------------------------------------------------------------------------------------


def _defer(turn: Turn, shard: ShardState, feed: Feed | None, command: Ingest, key: str, place: int) -> Reply:
    """Keep it until the watermark reaches its place, or its time is over."""
    if feed is not None and feed.waiting >= WAITING_PER_FEED_MAX:
        return error(ErrorReason.OVERLOADED, "too many events of this stream wait", OVERLOADED_RETRY_MS)
    until_ms = turn.now_ms + turn.books.rules.deferral_ms_max
    feed_key, warehouse_id = f"{command.source_id}\x1f{command.stream_id}", warehouse_counted(command)
    turn.emit(shard, FeedReceived(feed_key, command.source_sequence, warehouse_id, command.occur_time_ms, DEFERRED))
    cause = turn.cause
    told = (cause.principal, cause.correlation_id, cause.traceparent)
    turn.emit(shard, EventDeferred(key, feed_key, place, until_ms, list(command), *told))
    answer = (ANSWER_INGEST, DEFERRED, 0, "", 0, -1, 0, 0, 0, 0, (), place, until_ms)
    turn.emit(shard, EntrySpent(key, command.digest, answer))
    position = turn.position(shard)
    heard(turn, shard, command.source_id, warehouse_id)
    feed = shard.feeds[feed_key]
    if feed.gap_exception_id:
        gap_moved(turn, shard, feed)
    watermark = feed.sequences.watermark
    view = IngestView(command.event_id, DEFERRED, position, 0, "", 0, 0, (), place, until_ms, watermark)
    return ok(view)


def placed(books: Books) -> list[Deferred]:
    """What waited and whose place was reached: it is decided at the beginning of the next turn."""
    ready = []
    for feed_key in books.feeds_moved:
        for place, _, event_key, shard_id in books.waiting.get(feed_key, ()):
            shard = books.shards[shard_id]
            waiting = shard.deferred.get(event_key)
            if waiting is not None and place <= shard.feeds[feed_key].sequences.watermark:
                ready.append(waiting)
    return ready


def decide_waiting(turn: Turn) -> None:
    """Decide what waited and whose place was reached, in order of place; then what waited too long."""
    books = turn.books
    room = DECIDED_PER_TURN_MAX
    while books.feeds_moved and room > 0:
        feed_key = next(iter(books.feeds_moved))
        room -= _decide_placed(turn, feed_key, room)
    until = books.waiting_until
    while until and room > 0 and until[0][0] <= turn.now_ms:
        _, shard_id, event_key = heappop(until)
        shard = books.shards[shard_id]
        waiting = shard.deferred.get(event_key)
        if waiting is not None:
            room -= 1
            _settle(turn, shard, waiting, in_time=False)


def _decide_placed(turn: Turn, feed_key: str, room: int) -> int:
    """Of one stream, at most ``room``; how many."""
    books = turn.books
    heap = books.waiting.get(feed_key, [])
    count = 0
    while heap and count < room:
        place, _, event_key, shard_id = heap[0]
        shard = books.shards[shard_id]
        waiting = shard.deferred.get(event_key)
        if waiting is None:  # it waited too long
            heappop(heap)
            continue
        if place > shard.feeds[feed_key].sequences.watermark:
            break
        heappop(heap)
        _settle(turn, shard, waiting, in_time=True)
        count += 1
    if count < room:
        books.feeds_moved.pop(feed_key, None)
        if not heap:
            books.waiting.pop(feed_key, None)
    return count


def _settle(turn: Turn, shard: ShardState, waiting: Deferred, *, in_time: bool) -> None:
    """Decide an event whose time came, or give it up."""
    command = Ingest(*waiting.body)
    turn.begin(
        Cause(
            INGEST, "", command.event_id, waiting.principal, waiting.correlation_id, waiting.traceparent,
            command.source_id, command.stream_id, command.source_sequence, command.occur_time_ms,
        )
    )  # fmt: skip
    if in_time and is_elsewhere(turn, shard, command.stock_key):
        turn.emit(shard, DeferredEnded(waiting.event_key, HANDED_ON))
        turn.emit(shard, EntrySpent(waiting.event_key, command.digest, HANDED_ON_ANSWER))
        hand_on(turn, shard, command, waiting.event_key, warehouse_counted(command))
        return
    if in_time:
        decided = _decide_late(turn, command)
    else:
        decided = rejected(RejectReason.DEFERRED_TOO_LONG)
    if decided.outcome == REJECTED and not decided.exception_id:
        decided = decided._replace(exception_id=open_rejection(turn, shard, command, decided.reject_reason))
    turn.emit(shard, DeferredEnded(waiting.event_key, decided.outcome))
    turn.emit(shard, FeedSettled(waiting.feed_key, warehouse_counted(command), decided.outcome))
    turn.emit(shard, EntrySpent(waiting.event_key, command.digest, entry_answer(*decided)))


def _decide_late(turn: Turn, command: Ingest) -> Decided:
    books = turn.books
    actor = books.stock.get(command.stock_key)
    there = actor.shard if actor is not None else books.shards[books.shard_of(command.stock_key)]
    return decide(turn, there, actor, command)
