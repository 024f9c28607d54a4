"""Plain warehouse events that follow each other: decided and booked in one loop, as ``actors.domain.feeds`` and
``actors.domain.warehouse`` would one by one, to the same state and the same answers.

Plain is a receipt, an adjustment or a count taken as now, of sellable units, right behind the last of its stream that was received
(or without a sequence), with
an id that nobody knows, for a stock actor that is here, about which nothing is open and whose counts all lie before it. Whatever
is not goes the long way; nothing is decided here that is not decided there. What is booked is kept as a run: a header, which says
once what its events have in common, and a row for each side of an event. ``actors.journal.codec`` spells both, and gives a reader
the events back as they would have been journaled one by one, so replay knows no runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from actors.domain.answers import OK, IngestView, Reply
from actors.domain.apply_feeds import note_moved
from actors.domain.commands import Ingest, Verb
from actors.domain.counting import is_after
from actors.domain.feed_state import Feed
from actors.domain.handed_on import shards_followed
from actors.domain.history import WORDS, History, Place
from actors.domain.identity import ANSWER_INGEST
from actors.domain.outcomes import Disposition, Fact, IngestOutcome
from actors.domain.state import Entry, ShardState
from actors.domain.turn import Turn, make
from actors.domain.warehouse import fits_on_hand

FACT_RUN = 140  # the first element of a header, where a cause has its verb
MOVED = 12  # the first element of a row: an OnHandChanged of sellable units …
RECEIVED = 69  # … or a FeedReceived, and behind it the EntrySpent of its id: two events

INGEST, FIELDS = int(Verb.INGEST), len(Ingest._fields)
FIELDS_MIN = FIELDS - len(Ingest._field_defaults)  # of an event without papers: most are
APPLIED = int(IngestOutcome.APPLIED)
SELLABLE = int(Disposition.SELLABLE)
MOVES = (int(Fact.RECEIPT), int(Fact.ADJUSTMENT))  # units come or go, no more
STOCK_COUNT = int(Fact.STOCK_COUNT)
NOT_TOLD = ("", "", "")

Item = Sequence[Any]
Row = tuple[Any, ...]


class RunHeader(NamedTuple):
    """What the events of a run have in common. ``time_ms``: of its record."""

    kind: int
    time_ms: int
    principal: str
    correlation_id: str
    traceparent: str
    source_id: str
    stream_id: str


def book_run(  # noqa: PLR0912, PLR0915  one loop over what is hot, and a way out for whatever is not plain
    turn: Turn, shard: ShardState, items: Sequence[Item], start: int, replies: list[Reply]
) -> int:
    """Decide items from ``start`` on while they are plain events of one stream; how many. ``shard``: their feed shard."""
    _, shard_id, _, _, told, body = items[start]
    source_id, stream_id = body[0], body[1]
    feed_key, key_prefix = f"{source_id}\x1f{stream_id}", f"e\x1f{source_id}\x1f"
    feed = shard.feeds.get(feed_key)
    if feed is None or not _is_quiet(turn, feed):
        return 0
    books, now_ms, found = turn.books, turn.now_ms, turn.found
    stock, request_ids, entries, spent = books.stock, books.request_ids, shard.entries, books.entries_spent
    followed = shards_followed(shard) if shard.outbound else ()
    epoch, oldest_ms = shard.epoch, now_ms - books.rules.dedupe_window_ms
    sequences = feed.sequences
    watermark, beyond_hole, following = sequences.watermark, bool(sequences.starts), sequences.received + 1
    groups = Groups(turn, make(RunHeader, (FACT_RUN, now_ms, *(told or NOT_TOLD), source_id, stream_id)))
    rows_of = groups.rows
    warehouse_id, in_warehouse, part = "", "", None  # of the event before, and how its stock key begins
    count = 0
    for item in items if not start else islice(items, start, None):
        verb, shard_wanted, _, _, cause, body = item
        if verb != INGEST or shard_wanted != shard_id or cause != told:
            break
        if len(body) == FIELDS_MIN:
            source, stream, event_id, sequence, occur_ms, stock_key, digest, fact, details = body
            document_id = document_line = lot_id = ""
            lot_ms, attributes, reject_reason = 0, (), 0
        elif len(body) == FIELDS:
            (
                source, stream, event_id, sequence, occur_ms, stock_key, digest, fact, details,
                document_id, document_line, lot_id, lot_ms, attributes, reject_reason,
            ) = body  # fmt: skip
        else:
            break
        key = key_prefix + event_id
        if source != source_id or stream != stream_id or reject_reason or key in request_ids or found.get(key):
            break
        if sequence != following if sequence else occur_ms < oldest_ms:
            break
        actor = stock.get(stock_key)
        if (
            actor is None
            or (followed and actor.shard.id in followed)
            or actor.gate is not None
            or actor.shortage_exception_id
        ):
            break
        if part is None or not stock_key.startswith(in_warehouse):
            in_warehouse = stock_key[: stock_key.rindex("\x1f") + 1]
            warehouse_id = stock_key.split("\x1f")[1]
            part = feed.warehouses.get(warehouse_id)
            if part is None:
                break
        history = actor.history
        if fact in MOVES:
            delta, disposition, reference, note = details
            if history is None or not _is_remembered_as_is(history, feed_key, sequence, occur_ms):
                break
        elif fact == STOCK_COUNT and details[3]:
            history = None  # it is no fact of the history
            delta, disposition, reference, note = details[0] - actor.sellable, details[1], document_id, ""
            if not details[4]:  # what is picked was left out
                delta += actor.picked
        else:
            break
        sellable = actor.sellable + delta
        if (
            disposition != SELLABLE
            or not fits_on_hand(actor, details[0])
            or actor.held + actor.confirmed > sellable - actor.picked_adrift
        ):
            break
        # It is plain. What follows is what applying its three events does.
        there = actor.shard
        there_id, there_epoch = there.id, there.epoch
        rows = rows_of.get(there_id) or groups.begin(there)
        there.sequence = placed = there.sequence + 1
        actor.sellable = sellable
        if history is not None:
            history.note(feed_key, sequence, occur_ms, SELLABLE, delta, 0, "")
        if note or document_id or document_line or lot_id or lot_ms or attributes:
            rows.append(
                (
                    MOVED, stock_key, event_id, sequence, occur_ms, fact, delta, reference,
                    document_id, document_line, lot_id, lot_ms, note, attributes,
                )
            )  # fmt: skip
        else:
            rows.append((MOVED, stock_key, event_id, sequence, occur_ms, fact, delta, reference))
        rows = rows_of.get(shard_id) or groups.begin(shard)
        rows.append((RECEIVED, event_id, sequence, occur_ms, digest, warehouse_id, there_id, there_epoch, placed))
        shard.sequence = last = shard.sequence + 2
        if sequence:
            following = sequence + 1
            if beyond_hole:
                sequences.ends[-1] = sequence
            else:
                sequences.watermark = watermark = sequence
        part.last_received_ms = part.heard_ms = now_ms
        part.last_occur_ms = occur_ms
        part.applied += 1
        place = (there_id, there_epoch, placed, now_ms)
        entry = Entry(key, digest, (ANSWER_INGEST, APPLIED, 0, "", 0, *place), shard_id, now_ms, epoch, last)
        entries[key] = request_ids[key] = entry
        spent.append((now_ms, shard_id, key))
        replies.append((OK, False, make(IngestView, (event_id, APPLIED, place, 0, "", 0, 0, (), 0, 0, watermark))))
        count += 1
    if count and feed_key in books.waiting:
        note_moved(books, feed)
    return count


def _is_quiet(turn: Turn, feed: Feed) -> bool:
    """Whether the next event of this stream moves nothing but its sequences, and no rule looks at every receipt."""
    books, rules = turn.books, turn.books.rules
    if books.stale_feeds or rules.quality_hold_suppliers or rules.warehouses_not_selling:
        return False
    if feed.gap_exception_id:  # somebody knows of its hole, which stays
        return feed.sequences.missing_since_ms() + rules.gap_patience_ms <= turn.now_ms and bool(feed.sequences.starts)
    return not feed.sequences.starts or feed.key in books.gaps_watched


def _is_remembered_as_is(history: History, feed_key: str, sequence: int, occur_ms: int) -> bool:
    """Whether a fact is only to be noted: no booked count had seen it, and nothing need be forgotten to make room."""
    if len(history.facts) + WORDS >= history.words_to_check:
        return False
    count = history.newest_count(SELLABLE) if history.markers else None
    return count is None or is_after(Place(feed_key, sequence, occur_ms), count.place)


class Groups:
    """The groups of a run, one a shard, made when they get their first row."""

    __slots__ = ("_header", "_turn", "rows")

    def __init__(self, turn: Turn, header: RunHeader) -> None:
        self._turn = turn
        self._header = header
        self.rows: dict[int, list[Row]] = {}

    def begin(self, shard: ShardState) -> list[Row]:
        """The rows of that shard's group, which is its record's last one now; its events come next."""
        rows: list[Row] = []
        self._turn.add_group(shard, self._header, rows)
        self.rows[shard.id] = rows
        return rows
