"""The journal in simulation: the verified fake in memory, on virtual time, with the faults of a disk and a data base.

Owns when an append happens, whether it fails, and what a crash leaves of one that nobody was told of. Everything else, the fence
above all, is ``actors.journal.memory``'s own. ``Disk.archive`` keeps each record for ever, for the judges.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from actors.journal.codec import record_checksum
from actors.journal.memory import MemoryJournal, MemoryStore
from actors.journal.port import CompactResult, EntryRow, JournalError, Record, ShardHead, Snapshot, SnapshotSlice
from actors.shard.journal_thread import Done, JournalThread
from tests.simulation.loop import PROCESS, SimulatedLoop

TOLD_AFTER_S = (0.00005, 0.0003, 0.0003, 0.004)  # a busy loop hears late, when the next job may be done already


@dataclass(slots=True)
class DiskFaults:
    """Rates are chances a call."""

    fail: float = 0.0  # an append that writes nothing
    unknown: float = 0.0  # one that writes all and says that it failed
    slow: float = 0.0
    slow_ms: float = 300.0
    die_before: float = 0.0  # the process dies when it hands the journal something
    die_after: float = 0.0  # … when that is done, before it hears of it
    stop_after: float = 0.0  # … or stops there, while a successor takes over
    other: float = 0.0  # a look-up, a check, a slice or a compaction that fails


class Disk:
    """What outlives every process."""

    def __init__(
        self, store: MemoryStore, draw: random.Random, note: Callable[..., None], time_s: Callable[[], float]
    ) -> None:
        self.store = store
        self._time_s = time_s
        self._appended: dict[int, list[tuple[int, float]]] = {}  # shard → (last sequence, when) of each record
        self.archive = MemoryStore(store.header)
        self.draw = draw
        self.faults = DiskFaults()
        self.note = note
        self.appends = 0
        self.threads: list[SimulatedJournalThread] = []

    def keep(self, record: Record) -> None:
        """Archive a record that was appended just now."""
        self.archive.records[record.shard].append((record, record_checksum(record)))
        last = record.first_sequence + record.event_count - 1
        self._appended.setdefault(record.shard, []).append((last, self._time_s()))

    def appended_s(self, shard: int, sequence: int) -> float:
        """When the event of that sequence became durable."""
        rows = self._appended[shard]
        return rows[bisect_left(rows, (sequence, 0.0))][1]

    def others_may_land(self) -> None:
        """What other processes have under way may be done right now: within a takeover that is the last moment for it."""
        for thread in self.threads:
            if self.draw.random() < 0.5 and thread.hurry():
                self.note("lands at the last moment")

    def struck(self, chance: float) -> bool:
        return chance > 0 and self.draw.random() < chance

    def delay_s(self) -> float:
        """How long one call takes."""
        if self.struck(self.faults.slow):
            return self.draw.uniform(0, self.faults.slow_ms) / 1000
        return self.draw.uniform(0.0002, 0.002)

    def whole(self) -> MemoryStore:
        """The store as if nothing had ever been compacted and no snapshot been taken."""
        self.archive.heads = dict(self.store.heads)
        self.archive.entries = dict(self.store.entries)
        return self.archive


class SimulatedJournal(MemoryJournal):
    """One process's view of the disk."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk.store)
        self._disk = disk

    def append(self, records: Sequence[Record], entries: Sequence[EntryRow], read_heads: Sequence[ShardHead]) -> None:
        disk = self._disk
        disk.appends += 1
        faults = disk.store.faults
        if disk.struck(disk.faults.fail):
            disk.note("append fails")
            faults.fail_appends = 1
        elif disk.struck(disk.faults.unknown):
            disk.note("append unknown")
            faults.unknown_appends = 1
        before = [disk.store.heads[record.shard].record_number for record in records]
        try:
            super().append(records, entries, read_heads)
        finally:
            faults.fail_appends = faults.unknown_appends = 0
            for record, number in zip(records, before, strict=True):
                if disk.store.heads[record.shard].record_number > number:
                    disk.keep(record)

    def take_over(self, shards: Sequence[int]) -> dict[int, ShardHead]:
        self._disk.others_may_land()
        return super().take_over(shards)

    def check(self, heads: Sequence[ShardHead]) -> None:
        self._may_fail()
        super().check(heads)

    def find_entries(self, keys: Sequence[str]) -> dict[str, EntryRow]:
        self._may_fail()
        return super().find_entries(keys)

    def write_slice(self, part: SnapshotSlice, epoch: int) -> None:
        self._may_fail()
        super().write_slice(part, epoch)

    def publish_snapshot(self, snapshot: Snapshot) -> None:
        self._may_fail()
        super().publish_snapshot(snapshot)

    def compact(
        self,
        records_before_ms: int,
        entries_before_ms: int,
        rows_max: int | None = None,
        shards: Sequence[int] | None = None,
    ) -> CompactResult:
        self._may_fail()
        return super().compact(records_before_ms, entries_before_ms, rows_max, shards)

    def size_bytes(self) -> int:
        """Nobody decides by it, and counting every row costs more than a turn."""
        return 0

    def _may_fail(self) -> None:
        if self._disk.struck(self._disk.faults.other):
            self._disk.note("journal call fails")
            raise JournalError("the journal did not answer")


class SimulatedJournalThread(JournalThread):
    """Jobs one after the other as on the real thread, each at a moment of its own between being asked for and being told of."""

    def __init__(self, loop: SimulatedLoop, disk: Disk, die: Callable[[], None], stop: Callable[[], None]) -> None:
        self._loop: SimulatedLoop = loop
        self._disk = disk
        self._die = die
        self._stop = stop
        self._waiting: deque[tuple[Callable[[], Any], Done]] = deque()
        self._running: Callable[[], Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._told_s = 0.0
        disk.threads.append(self)

    def submit(self, work: Callable[[], Any], done: Done) -> None:
        self._waiting.append((work, done))
        if self._running is None:
            self._begin()

    def stop(self) -> None:
        """There is no thread to end."""

    def crash(self) -> None:
        """The process died: what the journal was just doing may have been done, what waited was not."""
        running, self._running = self._running, None
        self._disk.threads.remove(self)
        self._waiting.clear()
        if running is not None and self._disk.draw.random() < 0.5:
            self._disk.note("in flight at the crash, and done")
            with suppress(Exception):
                running()

    def hurry(self) -> bool:
        """Do at once what is under way, if anything is; whether it was done."""
        timer: Any = self._timer
        if timer is None:
            return False
        process = timer._context.get(PROCESS)
        if process is None or process.stopped:
            return False
        work, done = timer._args
        timer.cancel()
        timer._context.run(self._run_job, work, done)
        return True

    def _begin(self) -> None:
        work, done = self._waiting.popleft()
        self._running = work
        if self._disk.struck(self._disk.faults.die_before):
            self._die()
            return
        self._timer = self._loop.call_later(self._disk.delay_s(), self._run_job, work, done)

    def _run_job(self, work: Callable[[], Any], done: Done) -> None:
        self._timer = None
        result: Any = None
        error: BaseException | None = None
        try:
            result = work()
        except Exception as caught:
            error = caught
        self._running = None
        if self._disk.struck(self._disk.faults.die_after):
            self._die()
            return
        if self._disk.struck(self._disk.faults.stop_after):
            self._stop()
        self._told_s = max(self._told_s, self._loop.time() + self._disk.draw.choice(TOLD_AFTER_S))
        self._loop.call_at(self._told_s, done, result, error)
        if self._waiting:
            self._begin()
