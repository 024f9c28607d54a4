"""What the host does beside its turns: checkpoints, retention, the floor of free space, and when garbage is collected.

Everything that touches the journal runs on its thread, a bounded piece at a time, so that turns are committed in between.
Whether new claims are accepted is decided here (``accept_claims``), by the space left.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Sequence

from actors.domain.rules import Rules
from actors.journal.port import Journal, JournalError
from actors.shard.filter import EntryFilter
from actors.shard.host_config import HostConfig
from actors.shard.journal_thread import JournalThread
from actors.shard.statistics import HostStatistics

log = logging.getLogger(__name__)

COMPACT_ROWS_PER_JOB = 500  # about 5 ms of the journal's thread
GC_OBJECTS_MAX = 100_000  # about 10 ms of collecting


class HostHousekeeping:
    """One host's rounds. ``records_before_ms``: the time before which records may go, given the one by retention alone.
    ``shards``: whose records and entries are this host's to let go; None: all.

    ``quiet``: nothing waits and nothing commits; ``ended``: the host is over.
    """

    def __init__(  # noqa: PLR0913  the parts of a host
        self,
        journal: Journal,
        thread: JournalThread,
        loop: asyncio.AbstractEventLoop,
        config: HostConfig,
        rules: Rules,
        entry_filter: EntryFilter,
        statistics: HostStatistics,
        *,
        now_ms: Callable[[], int],
        wall_ms: Callable[[], int],
        records_before_ms: Callable[[int], int],
        shards: Callable[[], Sequence[int] | None],
        quiet: Callable[[], bool],
        ended: Callable[[], bool],
        own_process: bool,
    ) -> None:
        self.accept_claims = True
        self._journal = journal
        self._thread = thread
        self._loop = loop
        self._config = config
        self._rules = rules
        self._filter = entry_filter
        self._statistics = statistics
        self._now_ms = now_ms
        self._wall_ms = wall_ms
        self._records_before_ms = records_before_ms
        self._shards = shards
        self._quiet = quiet
        self._ended = ended
        self._own_process = own_process
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._compacted_ms = 0
        self._under_way = False

    def arm(self) -> None:
        """Make the rounds from now on."""
        if not self._ended() and not self._stopped:
            self._timer = self._loop.call_later(self._config.housekeeping_interval_ms / 1000, self._keep_house)

    def stop(self) -> None:
        """No more rounds."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _keep_house(self) -> None:
        if self._own_process and self._quiet():
            if gc.get_count()[0] <= GC_OBJECTS_MAX:
                gc.collect(0)  # everything made since the last time; what is older is frozen
            gc.freeze()  # a burst that would take too long to walk is only frozen: live state is without cycles
        if not self._under_way:
            self._loop.create_task(self.look_after_journal())
        self.arm()

    async def look_after_journal(self) -> None:
        """Checkpoint, retention and the floor of free space, on the journal's thread between turns."""
        if self._ended():
            return
        now_ms = self._now_ms()
        compact = now_ms - self._compacted_ms >= self._config.compact_interval_ms and self._compacted_ms > 0
        if compact or not self._compacted_ms:
            self._compacted_ms = now_ms

        def work() -> tuple[int | None, int, tuple[int, int | None, int]]:
            self._journal.checkpoint()
            clocks = (self._wall_ms(), self._journal.wall_ms(), self._wall_ms())
            return self._journal.free_bytes(), self._journal.size_bytes(), clocks

        self._under_way = True
        try:
            if compact:
                await self._compact(now_ms)
            free, size, (asked_ms, journal_ms, answered_ms) = await self._thread.call(work)
        except (JournalError, OSError) as failed:
            if not self._ended():
                log.warning("looking after the journal failed: %r", failed)
            return
        finally:
            self._under_way = False
        if compact:
            self._filter.forget(now_ms=now_ms, window_ms=self._rules.dedupe_window_ms)
        self._statistics.journal_bytes = size
        self._statistics.free_bytes = free
        if journal_ms is not None:
            self._statistics.clock_skew.note_journal(asked_ms, journal_ms, answered_ms)
        floor = self._config.disk_floor_bytes
        if free is None or free >= floor + self._config.disk_floor_hysteresis_bytes:
            accept = True
        elif free < floor:
            accept = False
        else:
            accept = self.accept_claims
        if accept != self.accept_claims:
            log.warning("new claims are %s: %s bytes free", "accepted again" if accept else "refused", free)
        self.accept_claims = accept

    async def _compact(self, now_ms: int) -> None:
        """Drop what retention allows, a few rows at a time: turns are committed in between."""
        records_before_ms = self._records_before_ms(now_ms - self._config.records_retention_ms)
        entries_before_ms = now_ms - self._rules.dedupe_window_ms
        shards = self._shards()
        while not self._ended():
            dropped = await self._thread.call(
                lambda: self._journal.compact(records_before_ms, entries_before_ms, COMPACT_ROWS_PER_JOB, shards)
            )
            if dropped.records_dropped + dropped.entries_dropped < COMPACT_ROWS_PER_JOB:
                return
