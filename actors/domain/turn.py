"""One turn's desk: the books, the time, what was looked up, and what was decided so far.

Deciding functions read the books, decide without changing anything, and only then ``emit``: each event is applied at once and
kept, with its cause, for the shard's record. A function that raises before its first emit leaves no trace; after it, the
host ends (an applied event cannot be undone).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors.domain.answers import Reply
from actors.domain.apply import APPLY
from actors.domain.commands import Cause
from actors.domain.errand_state import Errand
from actors.domain.events import KIND_OF
from actors.domain.identity import reservation_row_key, uuid7_text_ceiling
from actors.domain.operation_state import Operation
from actors.domain.state import Books, Entry, Reservation, ShardState

make: Callable[[type[Any], tuple[Any, ...]], Any] = tuple.__new__  # a NamedTuple without its own slow constructor
Group = tuple[Any, list[tuple[Any, ...]]]  # a cause or, of ``fact_runs``, a run's header
NO_CAUSE = Cause(0, "", "")


class Turn:
    """Mutable, lives for one step. ``groups``: per shard, [(cause, [(kind, *fields), …]), …] in order."""

    __slots__ = (
        "_current",
        "accept_claims",
        "books",
        "cause",
        "emitted",
        "errands",
        "expire_time_ms",
        "finished",
        "first",
        "found",
        "groups",
        "now_ms",
        "oldest_uuid7",
        "read_entry",
        "read_reservation",
        "reads",
        "remote",
        "retirable",
        "told",
        "ttl_ms",
    )

    def __init__(
        self,
        books: Books,
        now_ms: int,
        found: Mapping[str, Any],
        read_reservation: Callable[[Any], Reservation],
        read_entry: Callable[[Any], Entry],
    ) -> None:
        self.books = books
        self.now_ms = now_ms
        self.found = found  # rows of the entries table by key, looked up before the turn
        self.read_reservation = read_reservation  # how such a row is decoded
        self.read_entry = read_entry
        self.cause = NO_CAUSE
        self.oldest_uuid7 = uuid7_text_ceiling(now_ms - books.rules.dedupe_window_ms)
        self.groups: dict[int, list[Group]] = {}
        self.first: dict[int, int] = {}  # shard → the sequence of its first event of the turn
        self.reads: set[int] = set()
        self.emitted = 0  # events of the command at hand
        self.accept_claims = True  # False: the journal's disk is nearly full
        self.errands: list[tuple[int, int, int, Errand | None]] = []  # (from shard, to, number, what; None: settled)
        self.finished: list[tuple[str, Reply]] = []  # (token, what those get who were told PENDING with it)
        self.told: Sequence[Any] = ()  # what other hosts answered to the command's asks
        self.ttl_ms = -1  # of the last hold granted, and when it ends: the holds of a turn share that number
        self.expire_time_ms = 0
        # reservation id → (rows of its claims by (line id, stock key), positions by shard), as other hosts told
        self.remote: dict[str, tuple[dict[tuple[str, str], Sequence[Any]], dict[int, tuple[int, ...]]]] = {}
        self.retirable: list[tuple[str, bool]] = []  # (reservation id, picked units are left): asked for elsewhere
        self._current: dict[int, list[tuple[Any, ...]]] = {}

    def begin(self, cause: Cause) -> None:
        """What follows is because of ``cause``."""
        self.cause = cause
        self.emitted = 0
        if self._current:
            self._current = {}

    def here(self, shard_id: int) -> bool:
        """Whether a shard is this host's, so that it can be decided in this turn."""
        return shard_id in self.books.shards

    def finish(self, token: str, reply: Reply) -> None:
        """What began with ``(PENDING, token)`` ends in this turn, with this reply."""
        self.finished.append((token, reply))

    def emit(self, shard: ShardState, event: Any) -> None:
        """Apply an event and keep it for the shard's record."""
        self.emitted += 1
        shard.sequence += 1
        event_type = type(event)
        APPLY[event_type](self.books, shard, event, self.now_ms)
        kept = (KIND_OF[event_type], *event)
        shard_id = shard.id
        events = self._current.get(shard_id)
        if events is not None:
            events.append(kept)
            return
        events = self._current[shard_id] = [kept]
        groups = self.groups.get(shard_id)
        if groups is None:
            self.groups[shard_id] = [(self.cause, events)]
            self.first[shard_id] = shard.sequence
        else:
            groups.append((self.cause, events))

    def emit_pair(self, shard: ShardState, first: Any, second: Any) -> None:
        """Two events of one shard: ``emit`` twice, written out because every single grant comes through here."""
        self.emitted += 2
        books, now_ms = self.books, self.now_ms
        first_type, second_type = type(first), type(second)
        shard.sequence += 1
        APPLY[first_type](books, shard, first, now_ms)
        shard.sequence += 1
        APPLY[second_type](books, shard, second, now_ms)
        pair = [(KIND_OF[first_type], *first), (KIND_OF[second_type], *second)]
        events = self._current.get(shard.id)
        if events is not None:
            events += pair
            return
        self._current[shard.id] = pair
        groups = self.groups.get(shard.id)
        if groups is None:
            self.groups[shard.id] = [(self.cause, pair)]
            self.first[shard.id] = shard.sequence - 1
        else:
            groups.append((self.cause, pair))

    def events_of(self, shard: ShardState) -> list[tuple[Any, ...]]:
        """The kept events of the cause at hand, for who applies many of one kind itself: each (kind, *fields), in the order of
        their sequences."""
        events = self._current.get(shard.id)
        if events is None:
            events = []
            self.add_group(shard, self.cause, events)
            self._current[shard.id] = events
        return events

    def add_group(self, shard: ShardState, header: Any, rows: list[tuple[Any, ...]]) -> None:
        """Keep a run's rows for the shard's record. What they stand for is applied by who adds them, from here on; what is
        emitted later begins a group of its own."""
        shard_id = shard.id
        self._current.pop(shard_id, None)
        groups = self.groups.get(shard_id)
        if groups is None:
            self.groups[shard_id] = [(header, rows)]
            self.first[shard_id] = shard.sequence + 1
        else:
            groups.append((header, rows))

    def changed_beside(self, home: ShardState) -> list[int]:
        """The other shards that the command at hand has changed so far."""
        current = self._current
        if not current or (len(current) == 1 and home.id in current):
            return []
        return [shard_id for shard_id in current if shard_id != home.id]

    def position(self, shard: ShardState) -> tuple[int, int, int, int]:
        """[shard, epoch, sequence, time]: what an answer given now includes of that shard."""
        self.reads.add(shard.id)
        return (shard.id, shard.epoch, shard.sequence, self.now_ms)

    def reservation(self, reservation_id: str) -> Reservation | None:
        """The reservation in memory, or read back from the entries table (then ``final_lines`` is not None)."""
        reservation = self.books.reservations.get(reservation_id)
        if reservation is not None:
            return reservation
        row = self.found.get(reservation_row_key(reservation_id))
        return self.read_reservation(row) if row is not None else None

    def spender(self, key: str) -> Reservation | Entry | Operation | None:
        """Who spent this id (an ``identity`` key): in memory, or read back from the entries table."""
        spender: Reservation | Entry | Operation | None
        if key[0] == "c":
            spender = self.books.request_ids.get(key)
            if spender is not None:
                return spender
        row = self.found.get(key)
        if row is None:
            return None
        if row.reservation_id:
            return self.reservation(row.reservation_id)
        return self.read_entry(row)

    def entry(self, shard: ShardState, key: str) -> Entry | None:
        """An entry of that shard, or (a warehouse event's id is one for all) of any here, in memory or read back."""
        known = self.books.request_ids.get(key) if key[0] == "e" else shard.entries.get(key)
        if isinstance(known, Entry):
            return known
        row = self.found.get(key)
        return self.read_entry(row) if row is not None else None
