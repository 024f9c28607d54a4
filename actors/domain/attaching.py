"""Shards that come to a host and leave it while it serves: what of the books is derived from them comes and leaves with them.

``attach`` takes over the books of one shard whose indices were made elsewhere (off the loop), so that most of it is joining
tables; ``detach`` takes a shard out as if it had never been there. Who owns a shard is not decided here.

Whoever adds an index to ``Books`` adds it here: a test compares every one of them with those of a fresh recovery.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappush
from operator import itemgetter
from typing import Any

from actors.domain.apply import HELD, rebuild_indices, unindex_reservation
from actors.domain.apply_exceptions import OPEN, SHORTAGE, count_open
from actors.domain.apply_feeds import rebuild_feeds
from actors.domain.identity import request_key
from actors.domain.reconciliation_state import ReconciliationIndex
from actors.domain.reconciliation_words import FindingState
from actors.domain.state import Books, ShardState

PUSHED_ONE_BY_ONE = 16  # a heap that many times as large as what joins it: pushing is cheaper than making it anew
_time = itemgetter(0)


def index_again(part: Books) -> Books:
    """What ``detach`` left, with every index of it: ``attach`` takes it back. Costs as much as the shard is large."""
    for shard in part.shards.values():
        part.stock.update(shard.stock)
        part.reservations.update(shard.reservations)
    rebuild_indices(part)
    return part


def trim(part: Books) -> None:
    """Take out what replay leaves behind in the indices of a shard that was followed: live, a queue's first is taken from it
    by who decides, not by the event that says so."""
    reservations, shards = part.reservations, part.shards
    part.ended = deque([one for one in part.ended if one[1] in reservations])
    part.entries_spent = deque([one for one in part.entries_spent if one[2] in shards[one[1]].entries])
    part.exceptions_healed = deque([one for one in part.exceptions_healed if one[2] in shards[one[1]].exceptions])
    index = part.reconciliations
    index.ended = deque([one for one in index.ended if one[2] in shards[one[1]].reconciliations])
    index.findings = deque([one for one in index.findings if one[2] in shards[one[1]].findings])
    rebuild_feeds(part)


def attach(books: Books, part: Books) -> None:
    """The shards of ``part`` are here from now on. ``part`` must not be used any more."""
    assert not books.shards.keys() & part.shards.keys(), "a shard is attached twice"
    books.shards.update(part.shards)
    books.stock.update(part.stock)
    books.reservations.update(part.reservations)
    books.request_ids.update(part.request_ids)
    for order, ids in part.orders.items():
        books.orders.setdefault(order, []).extend(ids)
    _join_heap(books.deadlines, part.deadlines)
    _join_heap(books.operations_due, part.operations_due)
    _join_in_order(books.ended, part.ended)
    _join_in_order(books.entries_spent, part.entries_spent)
    _join_in_order(books.exceptions_healed, part.exceptions_healed)
    for kind, count in part.exceptions_open.items():
        books.exceptions_open[kind] = books.exceptions_open.get(kind, 0) + count
    books.held_reservations += part.held_reservations
    books.shortage_units += part.shortage_units
    books.imposed_uncovered_units += part.imposed_uncovered_units
    books.changed.update(part.changed)
    books.consumers.update(part.consumers)
    _attach_feeds(books, part)
    _attach_reconciliations(books.reconciliations, part.reconciliations)


def _attach_feeds(books: Books, part: Books) -> None:
    for feed_key, heap in part.waiting.items():
        _join_heap(books.waiting.setdefault(feed_key, []), heap)
    _join_heap(books.waiting_until, part.waiting_until)
    for source_id, feeds in part.feeds_of.items():
        books.feeds_of.setdefault(source_id, []).extend(feeds)
    books.feeds_moved.update(part.feeds_moved)
    _join_heap(books.gaps, part.gaps)
    books.gaps_watched |= part.gaps_watched
    for source_id, warehouse_id in part.stale_feeds:
        books.set_stale(source_id, warehouse_id, stale=True)
    books.silence_look_ms = 0


def _attach_reconciliations(index: ReconciliationIndex, part: ReconciliationIndex) -> None:
    index.requested.update(part.requested)
    for warehouse_id, done_ms in part.done_ms.items():
        index.done_ms[warehouse_id] = max(done_ms, index.done_ms.get(warehouse_id, 0))
    _join_in_order(index.ended, part.ended)
    _join_in_order(index.findings, part.findings)
    for key, findings in part.quarantined.items():
        index.quarantined.setdefault(key, set()).update(findings)
    index.look_ms = min(index.look_ms, part.look_ms)


def detach(books: Books, shard_id: int) -> Books:
    """The shard is not here any more; its state as it is now, in books of its own without indices. Deadlines that it leaves
    behind are cleaned up lazily."""
    part = Books(books.rules, books.shard_of, books.feed_shard_of)
    part.shards[shard_id] = shard = books.shards.pop(shard_id)
    _detach_stock(books, shard)
    _detach_reservations(books, shard)
    for key, entry in shard.entries.items():
        if books.request_ids.get(key) is entry:
            del books.request_ids[key]
    for key, operation in shard.operations.items():
        if books.request_ids.get(key) is operation:
            del books.request_ids[key]
    books.operations_due = _heap_without(books.operations_due, shard_id)
    books.entries_spent = _without(books.entries_spent, shard_id)
    books.exceptions_healed = _without(books.exceptions_healed, shard_id)
    for exception in shard.exceptions.values():
        if exception.state == OPEN:
            count_open(books, exception, -1)
            if exception.fields[0] == SHORTAGE:
                books.shortage_units -= exception.quantity
    if shard_id in books.changed:
        part.changed[shard_id] = books.changed.pop(shard_id)
    for consumer_id in shard.consumers:
        books.consumers.pop(consumer_id, None)
    _detach_feeds(books, shard)
    _detach_reconciliations(books, shard)
    return part


def _detach_stock(books: Books, shard: ShardState) -> None:
    stock = books.stock
    imposed = 0
    for key, actor in shard.stock.items():
        del stock[key]
        for first in actor.claims.values():
            claim = first
            imposed += claim.uncovered
            while claim.next is not None:
                claim = claim.next
                imposed += claim.uncovered
    books.imposed_uncovered_units -= imposed


def _detach_reservations(books: Books, shard: ShardState) -> None:
    here, request_ids = books.reservations, books.request_ids
    held = ended = 0
    for reservation_id, reservation in shard.reservations.items():
        del here[reservation_id]
        held += reservation.state == HELD
        ended += reservation.end_time_ms > 0
        if reservation.order_reference:
            unindex_reservation(books, reservation)
        channel_id = reservation.channel_id
        for request_id in (reservation.request_id, *[spent.request_id for spent in reservation.spent or ()]):
            key = request_key(channel_id, request_id)
            if request_ids.get(key) is reservation:
                del request_ids[key]
    books.held_reservations -= held
    if ended:
        gone = shard.reservations
        books.ended = deque([one for one in books.ended if one[1] not in gone])


def _detach_feeds(books: Books, shard: ShardState) -> None:
    shard_id = shard.id
    for feed_key, heap in list(books.waiting.items()):
        left = [one for one in heap if one[3] != shard_id]
        if not left:
            del books.waiting[feed_key]
        elif len(left) < len(heap):
            heapify(left)
            books.waiting[feed_key] = left
    books.waiting_until = _heap_without(books.waiting_until, shard_id)
    books.gaps = _heap_without(books.gaps, shard_id)
    for key, feed in shard.feeds.items():
        source_id = key.partition("\x1f")[0]
        books.gaps_watched.discard(key)
        books.feeds_moved.pop(key, None)
        feeds = [other for other in books.feeds_of.get(source_id, ()) if other is not feed]
        if feeds:
            books.feeds_of[source_id] = feeds
        else:
            books.feeds_of.pop(source_id, None)
        for warehouse_id in feed.stale:
            books.set_stale(source_id, warehouse_id, stale=False)


def _detach_reconciliations(books: Books, shard: ShardState) -> None:
    index = books.reconciliations
    index.requested = {key: asked for key, asked in index.requested.items() if asked[0] != shard.id}
    index.ended = _without(index.ended, shard.id)
    index.findings = _without(index.findings, shard.id)
    if shard.reconciliations:
        index.done_ms = {}
        for _, shard_id, run_id in list(index.ended):
            run = books.shards[shard_id].reconciliations.get(run_id)
            if run is not None:
                index.note_done(run)
    for finding in shard.findings.values():
        if finding.state == FindingState.QUARANTINED:
            index.release(finding)


def _join_heap(heap: list[Any], joining: list[Any]) -> None:
    if len(joining) * PUSHED_ONE_BY_ONE < len(heap):
        for one in joining:
            heappush(heap, one)
    elif joining:
        heap += joining
        heapify(heap)


def _join_in_order(queue: deque[Any], joining: deque[Any]) -> None:
    """Both are in order of time, or nearly (what was looked at too early is queued again)."""
    if not joining:
        return
    if not queue or queue[-1][0] <= joining[0][0]:
        queue.extend(joining)
        return
    joined = [*queue, *joining]
    joined.sort(key=_time)  # two runs in order: sorting them is joining them
    queue.clear()
    queue.extend(joined)


def _without(queue: deque[Any], shard_id: int) -> deque[Any]:
    return deque([one for one in queue if one[1] != shard_id])


def _heap_without(heap: Iterable[Any], shard_id: int) -> list[Any]:
    left = [one for one in heap if one[1] != shard_id]
    heapify(left)
    return left
