"""The host's snapshots: which shard is due, a slice at a time between turns, published once all it saw is durable.

Owns when a snapshot is begun and what is under way; what a slice holds is ``actors.shard.snapshot``. It never holds up a turn:
encoding is bounded a slice, writing is the journal thread's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from actors.journal.port import Journal, Record
from actors.shard.engine import Engine
from actors.shard.host_config import HostConfig
from actors.shard.journal_thread import JournalThread
from actors.shard.snapshot import Snapshotter
from actors.shard.statistics import HostStatistics

log = logging.getLogger(__name__)


class Turns(Protocol):
    """What the host tells of its turns."""

    @property
    def ended(self) -> bool: ...

    @property
    def applied_turns(self) -> int: ...

    @property
    def durable_turns(self) -> int: ...

    @property
    def quiet(self) -> bool: ...


class HostSnapshots:
    """All snapshots of one host, one under way at a time."""

    def __init__(  # noqa: PLR0913  the parts of a host
        self,
        engine: Engine,
        journal: Journal,
        thread: JournalThread,
        loop: asyncio.AbstractEventLoop,
        config: HostConfig,
        statistics: HostStatistics,
        turns: Turns,
        now_ms: Callable[[], int],
        sequences: dict[int, int],
    ) -> None:
        """``sequences``: per shard, the highest sequence of its newest published snapshot."""
        self._engine = engine
        self._journal = journal
        self._thread = thread
        self._loop = loop
        self._config = config
        self._statistics = statistics
        self._turns = turns
        self._now_ms = now_ms
        self._sequences = sequences
        self._under_way: Snapshotter | None = None
        self._due: deque[int] = deque()

    def note(self, records: Sequence[Record]) -> None:
        """Records became durable: begin a snapshot where enough have gathered since the last."""
        here = self._engine.books.shards
        for record in records:
            if record.shard not in here:
                continue  # it has left since
            last = record.first_sequence + record.event_count - 1
            since = last - self._sequences[record.shard]
            if since >= self._config.snapshot_after_events and since >= self._worth(record.shard):
                self._sequences[record.shard] = last
                self._due.append(record.shard)
        if self._due and self._under_way is None:
            self._under_way = Snapshotter(
                self._engine, self._due.popleft(), self._now_ms(), self._config.snapshot_entities_per_slice
            )
            self._loop.call_soon(self._slice, self._under_way)

    def attach(self, shard_id: int, sequence: int) -> None:
        """A shard is here from now on. ``sequence``: the highest of its newest published snapshot, as far as is known."""
        self._sequences[shard_id] = max(sequence, self._sequences.get(shard_id, 0))

    def detach(self, shard_id: int) -> None:
        """A shard is not here any more: its snapshot is its new owner's business."""
        if shard_id in self._due:
            self._due.remove(shard_id)
        if self._under_way is not None and self._under_way.shard_id == shard_id:
            self._under_way = None
            self.note(())

    def _worth(self, shard_id: int) -> int:
        """Events after which a snapshot pays: as many as it would encode entities (a reservation comes with its claims), so
        that its cost an event is bounded however many there are, and a growing shard is snapshot each time it doubled."""
        shard = self._engine.books.shards[shard_id]
        return len(shard.stock) + 2 * len(shard.reservations) + len(shard.entries)

    def _slice(self, snapshotter: Snapshotter) -> None:
        """One slice, then a pause for turns; the journal's thread writes it."""
        if snapshotter is not self._under_way or self._turns.ended:
            return
        part = snapshotter.next_slice()
        if part is None:
            self._publish(snapshotter, self._turns.applied_turns)
            return
        journal = self._journal

        def written(_nothing: Any, failed: BaseException | None) -> None:
            if failed is not None:
                log.warning("a snapshot was given up: %r", failed)
                if self._under_way is snapshotter:
                    self._under_way = None
                return
            self._loop.call_later(self._config.snapshot_pause_ms / 1000, self._slice, snapshotter)

        self._thread.submit(lambda: journal.write_slice(part, snapshotter.epoch), written)

    def _publish(self, snapshotter: Snapshotter, after_turn: int) -> None:
        """Publish once everything its slices saw is durable."""
        if snapshotter is not self._under_way or self._turns.ended:
            return
        if self._turns.durable_turns < after_turn and not self._turns.quiet:
            self._loop.call_later(self._config.snapshot_pause_ms / 1000, self._publish, snapshotter, after_turn)
            return
        journal = self._journal
        snapshot = snapshotter.snapshot()

        def published(_nothing: Any, failed: BaseException | None) -> None:
            if self._under_way is snapshotter:
                self._under_way = None
            if failed is not None:
                log.warning("a snapshot was not published: %r", failed)
            else:
                self._statistics.snapshots += 1
            self.note(())

        self._thread.submit(lambda: journal.publish_snapshot(snapshot), published)
