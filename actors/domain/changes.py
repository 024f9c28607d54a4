"""Which events are changes that the outside is told of, and what each change says. Pure: events in, rows out.

A change's sequence is that of an event, so ``timeline-shard-sequence`` names it for ever, and the records of a shard give the
same changes whenever they are read. Per record and stock key it touched there is one availability change, at the last event
that touched it; reservation and warehouse changes are one per event. An availability change carries no quantity of its own:
``with_values`` gives it the stock actor's as it is then, with the sequence that this value had seen, so latest wins and
nothing need be kept to tell old changes again.

How rows are laid out is ``actors.domain.change_rows``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from actors.domain.change_rows import ChangeKind
from actors.domain.keys import split_stock_key
from actors.domain.quantities import available_to_sell
from actors.domain.state import Books, ShardState

AVAILABILITY = int(ChangeKind.AVAILABILITY)
RESERVATION = int(ChangeKind.RESERVATION)
WAREHOUSE = int(ChangeKind.WAREHOUSE)
_sequence_of = itemgetter(1)

# Kinds (``events.EVENT_KINDS``) whose first field is a stock key and that may change what can be promised of it: the key
# was registered, policy, on hand, picked adrift; claims granted, released, expired, fulfilled, picked.
TOUCHING_KINDS = frozenset((10, 11, 12, 13, 20, 22, 23, 24, 25))
OPENED_KIND, ENDED_KIND = 30, 35
RECEIVED = 69  # of ``fact_runs``: a row of a run that was just booked; it stands for two events, neither a change
FEED_STALE_KIND = 63  # feed_key, warehouse_id, stale, …
RECONCILIATION_REQUESTED_KIND = 90  # reconciliation_id, warehouse_id, …
CHANGE_KINDS = (
    TOUCHING_KINDS | set(range(OPENED_KIND, ENDED_KIND + 1)) | {FEED_STALE_KIND, RECONCILIATION_REQUESTED_KIND}
)


def changes_of(groups: Iterable[Sequence[Any]], first_sequence: int, time_ms: int) -> list[tuple[Any, ...]]:
    """The changes of one record in the order of their sequences. Availability changes still lack their values."""
    touched: dict[str, int] = {}
    rows: list[tuple[Any, ...]] = []
    touching = TOUCHING_KINDS
    sequence = first_sequence
    for group in groups:
        for event in group[1]:
            kind = event[0]
            if kind in touching:
                touched[event[1]] = sequence
            elif kind == OPENED_KIND and len(event) > 9:  # the most frequent of them, without a call
                rows.append(
                    (
                        RESERVATION, sequence, time_ms, 1, event[1], event[3], event[9], event[6], event[7], event[8],
                        0, 0, 0, event[4],
                    )
                )  # fmt: skip
            elif OPENED_KIND <= kind <= ENDED_KIND:
                rows.append(_reservation_change(kind, event, sequence, time_ms))
            elif kind == FEED_STALE_KIND:
                rows.append((WAREHOUSE, sequence, time_ms, event[2], bool(event[3])))
            elif kind == RECONCILIATION_REQUESTED_KIND:
                rows.append((WAREHOUSE, sequence, time_ms, event[2], False, event[1]))
            elif kind == RECEIVED:
                sequence += 1
            sequence += 1
    rows += [(AVAILABILITY, last, time_ms, key) for key, last in touched.items()]
    if len(rows) > 1:
        rows.sort(key=_sequence_of)
    return rows


def last_change(groups: Sequence[Sequence[Any]], last_sequence: int) -> int:
    """The sequence of the last change among a record's events; 0 when none is one. Looks no further back than it must."""
    sequence = last_sequence
    for group in reversed(groups):
        for event in reversed(group[1]):
            kind = event[0]
            if kind in CHANGE_KINDS:
                return sequence
            sequence -= 2 if kind == RECEIVED else 1
    return 0


def _reservation_change(kind: int, event: Sequence[Any], sequence: int, time_ms: int) -> tuple[Any, ...]:
    """By the places of ``events.Reservation…``; the last of each but OPENED's is the channel, absent in old records."""
    if kind == OPENED_KIND:
        return (
            RESERVATION, sequence, time_ms, 1, event[1], event[3], "", event[6], event[7], event[8], 0, 0, 0, event[4],
        )  # fmt: skip
    if kind == 31:
        return (RESERVATION, sequence, time_ms, 2, event[1], event[3] if len(event) > 3 else "", event[2], 2)
    if kind == 32:
        return (RESERVATION, sequence, time_ms, 3, event[1], event[3] if len(event) > 3 else "", "", 0, event[2])
    if kind == 33:
        channel = event[5] if len(event) > 5 else ""
        return (RESERVATION, sequence, time_ms, 4, event[1], channel, "", 0, 0, event[2], 0, event[4])
    if kind == 34:
        channel = event[5] if len(event) > 5 else ""
        return (RESERVATION, sequence, time_ms, 5, event[1], channel, "", 0, 0, (), event[2], event[3], event[4])
    return (RESERVATION, sequence, time_ms, 6, event[1], event[3] if len(event) > 3 else "", "", event[2])


def with_values(books: Books, shard: ShardState, rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows with what may be promised now: the shard as it stands, which has seen all of these changes."""
    stock = shard.stock
    seen = shard.sequence
    stale_warehouses = books.stale_warehouses
    finished = []
    for row in rows:
        if row[0] == AVAILABILITY:
            _, sequence, time_ms, key = row
            actor = stock.get(key)
            available = 0 if actor is None else available_to_sell(actor)
            stale = bool(stale_warehouses) and split_stock_key(key).warehouse_id in stale_warehouses
            row = (AVAILABILITY, sequence, time_ms, key, available, stale, seen)
        elif row[0] == WAREHOUSE:
            row = (*row[:4], row[3] in stale_warehouses, *row[5:])  # another of its feeds may be silent still
        finished.append(row)
    return finished


def weight_of(row: Sequence[Any]) -> int:
    """What a row counts against a limit: itself and its lines."""
    return 1 + len(row[9]) if len(row) > 9 else 1
