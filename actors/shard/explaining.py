"""The events behind a stock key's availability, read back from its shard's last records. For people; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from actors.domain.commands import Verb
from actors.domain.events import EVENT_KINDS
from actors.domain.lifecycle import CAUSE_EXPIRE, CAUSE_RETIRE
from actors.journal.port import Journal, Record

# Where an event's quantity is, by kind: index among its fields (after the kind). Absent: it moved no units.
QUANTITY_FIELDS = {11: 1, 12: 3, 13: 2, 20: 3, 22: 3, 24: 3, 25: 3, 70: 4, 71: 4}
# Where its paper is: document id and line, lot, reference (of shipment, transfer, return …), disposition, note; -1: has none.
PAPER_FIELDS = {
    12: (5, 6, 7, 4, 2, 9),
    14: (8, 9, 10, -1, 4, -1),
    70: (-1, 2, -1, 1, -1, 3),
    71: (-1, 2, -1, 1, -1, 3),
    72: (-1, 2, -1, 1, -1, 3),
    73: (-1, 2, -1, 1, -1, -1),
}
NO_PAPER = ("", "", "", "", 0, "")
STOCK_KEY_KINDS = frozenset((*range(10, 30), 68, *range(70, 74)))
RECORDS_PER_READ = 8
EVENTS_LOOKED_THROUGH_MAX = 20_000  # some 20 ms of the journal's thread, which commits wait for


def newest_first(journal: Journal, shard: int, most: int) -> Iterator[Record]:
    """Up to ``most`` records of a shard, read a few at a time: a busy shard's record may hold a megabyte."""
    latest = journal.read_latest(shard, 1)
    yield from latest
    number = latest[0].number if latest else 1
    oldest = max(0, number - most)
    while number > oldest + 1:
        after = max(oldest, number - 1 - RECORDS_PER_READ)
        records = journal.read(shard, after, number - 1 - after)
        if not records:
            return
        yield from reversed(records)
        number = after + 1


def events_behind(
    records: Iterable[Record], stock_key: str, most: int, decode: Callable[[bytes], list[Any]]
) -> list[tuple[Any, ...]]:
    """Up to ``most`` events about a stock key, newest first: (sequence, time ms, kind, quantity, cause, document id, document
    line, lot, reference, disposition, note).

    ``records``: newest first.
    """
    found: list[tuple[Any, ...]] = []
    looked_through = 0
    for record in records:
        sequence = record.first_sequence
        here = []
        for cause, events in decode(record.payload):
            for kind, *fields in events:
                if kind in STOCK_KEY_KINDS and fields[0] == stock_key:
                    at = QUANTITY_FIELDS.get(kind)
                    quantity = fields[at] if at is not None else 0
                    name, because = EVENT_KINDS[kind].__name__, cause_text(cause)
                    here.append((sequence, record.time_ms, name, quantity, because, *_paper(kind, fields)))
                sequence += 1
        found += reversed(here)
        looked_through += record.event_count
        if len(found) >= most or looked_through >= EVENTS_LOOKED_THROUGH_MAX:
            break
    return found[:most]


def _paper(kind: int, fields: Sequence[Any]) -> tuple[Any, ...]:
    """What people look an event up by; an event of an older version has fewer fields."""
    places = PAPER_FIELDS.get(kind)
    if places is None:
        return NO_PAPER
    return tuple(fields[at] if 0 <= at < len(fields) else missing for at, missing in zip(places, NO_PAPER, strict=True))


def cause_text(cause: Sequence[Any]) -> str:
    """A cause in words."""
    verb, channel_id, request_id = cause[0], cause[1], cause[2]
    source_id = cause[6] if len(cause) > 6 else ""  # noqa: PLR2004  Cause.source_id
    if source_id:
        return f"event {request_id} of source {source_id}"
    if verb == CAUSE_EXPIRE:
        return f"deadline of {channel_id}/{request_id}"
    if verb == CAUSE_RETIRE:
        return "housekeeping"
    name = Verb(verb).name.lower() if verb in Verb._value2member_map_ else f"verb {verb}"
    return f"{name} {channel_id}/{request_id}" if channel_id else f"{name} {request_id}"
