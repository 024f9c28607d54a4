"""The counts of a host's books that operators see: plain values, made when somebody scrapes or asks."""

from __future__ import annotations

from typing import Any

from actors.domain.exception_kinds import kind_name, meaning_of, priorities_of
from actors.domain.outcomes import ExceptionKind, ExceptionPriority, ExceptionState
from actors.domain.state import Books

OPEN = int(ExceptionState.OPEN)


def books_status(books: Books, now_ms: int) -> dict[str, Any]:
    """Counts by shard and in all. ``exceptions_open``: [kind, priority, how many]; ``exceptions_oldest``: [priority, seconds];
    ``resolution_times``: [kind, seconds in all, ended ones by bucket …] since the process began.
    """
    return {
        "oversells": books.oversells,
        "shortage_units": books.shortage_units,
        "imposed_uncovered_units": books.imposed_uncovered_units,
        "live_reservations": len(books.reservations) - len(books.ended),
        "dedupe_entries": len(books.reservations) + len(books.entries_spent),
        "exceptions_open": _exceptions_open(books),
        "exceptions_oldest": _oldest(books, now_ms),
        "resolution_times": [[kind_name(kind), *times] for kind, times in sorted(books.resolution_times.items())],
        "shards": [
            {
                "shard": shard.id,
                "epoch": shard.epoch,
                "record_number": shard.record_number,
                "sequence": shard.sequence,
                "stock_actors": len(shard.stock),
                "reservations": len(shard.reservations),
                "entries": len(shard.entries),
                "exceptions_open": shard.exceptions_open,
            }
            for shard in books.shards.values()
        ],
    }


def _priority(books: Books, kind: int, reject_reason: int) -> str:
    return meaning_of(books.rules, kind, reject_reason).priority.name.lower()


def _exceptions_open(books: Books) -> list[list[Any]]:
    """Every kind with each priority that it may have, those of which none is open too."""
    counts = {(kind_name(kind), priority.name.lower()): 0 for kind in ExceptionKind for priority in priorities_of(kind)}
    for (kind, reject_reason), count in books.exceptions_open.items():
        key = (kind_name(kind), _priority(books, kind, reject_reason))
        counts[key] = counts.get(key, 0) + count
    return [[*key, count] for key, count in sorted(counts.items())]


def _oldest(books: Books, now_ms: int) -> list[list[Any]]:
    """How long the oldest open one of each priority is open; 0: none is."""
    oldest = {priority.name.lower(): 0 for priority in ExceptionPriority}
    for shard in books.shards.values() if books.exceptions_open else ():
        for exception in shard.exceptions.values() if shard.exceptions_open else ():
            if exception.state == OPEN:
                priority = _priority(books, exception.fields[0], exception.fields[7])
                oldest[priority] = max(oldest[priority], now_ms - exception.open_time_ms)
    return [[priority, age_ms / 1000] for priority, age_ms in oldest.items()]
