"""After recovery: which shard's last change is where, and since when consumers have been behind. Derived, never journaled.

Only the newest records are looked at: what a consumer lacks beyond them is as old as the cursor that it acknowledged.
"""

from __future__ import annotations

from actors.domain.changes import changes_of, last_change
from actors.domain.consumers import lag_events
from actors.domain.state import Books
from actors.journal.codec import decode_groups
from actors.journal.port import Journal

RECORDS_LOOKED_AT = 8  # a shard's newest: nearly always the last one holds a change


def find_last_changes(journal: Journal, books: Books) -> None:
    """Fill ``books.changed`` and when each consumer fell behind. Costs nothing while no consumer is known."""
    consumers = [consumer for shard in books.shards.values() for consumer in shard.consumers.values()]
    if not books.rules.consumers and not consumers:
        return
    first_times: dict[int, list[tuple[int, int]]] = {}  # shard → (sequence, time) of changes, newest first
    for shard in books.shards.values():
        books.changed[shard.id] = shard.sequence
        found: list[tuple[int, int]] = []
        for record in journal.read_latest(shard.id, RECORDS_LOOKED_AT):
            groups = decode_groups(record.payload)
            last = last_change(groups, record.first_sequence + record.event_count - 1)
            if last and not found:
                books.changed[shard.id] = last
            if last:
                first = changes_of(groups, record.first_sequence, record.time_ms)[0][1]
                found.append((first, record.time_ms))
            elif not found:
                books.changed[shard.id] = record.first_sequence - 1  # nothing that new is a change
        first_times[shard.id] = found
    for consumer in consumers:
        consumer.behind_since_ms = 0
        if lag_events(books, consumer):
            times = [_waiting_since(first_times[shard], consumer.positions.get(shard, 0)) for shard in books.shards]
            known = [time_ms for time_ms in times if time_ms is not None]
            consumer.behind_since_ms = max(consumer.cursor_time_ms, min(known, default=consumer.cursor_time_ms))


def _waiting_since(found: list[tuple[int, int]], taken: int) -> int | None:
    """When the oldest change after a place happened, as far as the newest records tell; None: none waits. 0: before them."""
    waiting = [time_ms for first, time_ms in found if first > taken]
    if not waiting:
        return None
    return waiting[-1] if len(waiting) < len(found) or found[-1][0] <= taken + 1 else 0
