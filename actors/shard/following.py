"""One shard loaded beside the loop, in books of its own, and kept up with its journal until it can be served.

Used for a shard that is taken from a dead host (its epoch is bumped first, then it is loaded) and for one that moves (it is
followed as a reader while its owner goes on, and only the last records are read when that has sealed it). Blocking, for a
thread that is not the loop's; it has a journal of its own and writes nothing but the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from actors.domain.apply import rebuild_indices
from actors.domain.attaching import trim
from actors.domain.events import EntryRetired, ReservationRetired
from actors.domain.identity import request_key, reservation_row_key
from actors.domain.rules import Rules
from actors.domain.state import Books
from actors.journal.port import Journal, ShardHead
from actors.shard.change_recovery import find_last_changes
from actors.shard.recovery import check_reached, load_shard, replay


class Arrival(NamedTuple):
    """A shard that may be attached: ``part`` has it and its indices, ``head`` the epoch in which it is owned from now on.

    ``snapshot_sequence``: of its newest snapshot. Before it is served every key of ``take_keys`` must be in the filter."""

    part: Books
    head: ShardHead
    snapshot_sequence: int

    @property
    def shard_id(self) -> int:
        """Which."""
        return self.head.shard


class Following:
    """Make it in the thread that uses it. ``stored_keys``: of its rows in the entries table, to be taken with ``take_keys``."""

    def __init__(
        self,
        journal: Journal,
        shard_id: int,
        rules: Rules,
        shard_of: Callable[[str], int],
        feed_shard_of: Callable[[str], int],
    ) -> None:
        self.shard_id = shard_id
        self.events = 0
        self._journal = journal
        self._part = Books(rules, shard_of, feed_shard_of)
        self._keys: list[str] = []
        self._stale = False

    def load(self) -> None:
        """Up to where its records end now. Raises ``JournalDamaged``."""
        self.events += load_shard(self._journal, self._part, self.shard_id)
        rebuild_indices(self._part)
        # after the records: every row that they wrote is there, what comes later is told by later records
        self._keys += self._journal.entry_keys((self.shard_id,))

    def catch_up(self) -> int:
        """Apply what came since; how many events."""
        part = self._part
        applied = replay(self._journal, part, part.shards[self.shard_id], on_event=self._note_keys)
        self.events += applied
        self._stale = self._stale or applied > 0
        return applied

    def arrive(self, head: ShardHead) -> Arrival:
        """Its epoch is bumped and nobody else writes any more: read the rest. Raises ``JournalDamaged`` when records lack."""
        part = self._part
        self.catch_up()
        if self._stale:
            trim(part)
        check_reached(part.shards[self.shard_id], head)
        find_last_changes(self._journal, part)
        newest = self._journal.snapshots(self.shard_id)[:1]
        return Arrival(part, head, newest[0].highest_sequence if newest else 0)

    def take_keys(self) -> list[str]:
        """Keys that came since the last time."""
        keys, self._keys = self._keys, []
        return keys

    def _note_keys(self, event: Any) -> None:
        """An event that says that something went into the entries table, before it is applied."""
        kind = type(event)
        if kind is EntryRetired:
            self._keys.append(event.entry_key)
        elif kind is ReservationRetired:
            reservation = self._part.shards[self.shard_id].reservations[event.reservation_id]
            self._keys.append(reservation_row_key(reservation.id))
            ids = (reservation.request_id, *(spent.request_id for spent in reservation.spent or ()))
            self._keys += [request_key(reservation.channel_id, request_id) for request_id in ids]
