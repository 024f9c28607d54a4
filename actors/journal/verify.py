"""``verify``: reads a whole journal and judges it by rules of its own, apart from the code that wrote it.

It says whether anything was granted without cover, any unit ended twice or came from nowhere, any id was spent twice,
any record is missing, damaged or out of order; and names shard, record, sequence and key each time. It uses the
journal's port and the codec, and none of the domain's deciding or applying code: event kinds and fields are known from
the format alone.

A journal whose first records were dropped is judged from its oldest usable snapshot on. A journal that is being written
is judged up to where it stood when verifying began.

How: shards are walked one after the other (``verify_shard``), in one process or several; sums of hashes show whether what
concerns several shards comes out even, and only when it does not a second round says where (``verify_ledger``). Memory:
what is alive in one shard a process (see ``verify_state``), a few MiB of records, 8 bytes for every line of a live
reservation whose claim is in another shard, and 32 MiB of ids a process; more ids go to a temporary file, 8 bytes each.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from actors.journal.port import Journal, Record, ShardHead, Snapshot, SnapshotSlice
from actors.journal.verify_errands import judge_pairs
from actors.journal.verify_ledger import Ledger, Suspects
from actors.journal.verify_report import VerifyReport, Violation
from actors.journal.verify_round import judge_shards, whole_from
from actors.journal.verify_workers import Workers

__all__ = ["DAY_MS", "Done", "Progress", "VerifyReport", "Violation", "verify"]

DAY_MS = 24 * 3600 * 1000
EVENTS_A_PROCESS_MIN = 250_000  # under a second of judging: starting one more process would not pay
JOBS_MAX = 8  # one process reads for all of them


class Done(NamedTuple):
    """How far a round is: records and events read so far, and in all."""

    records: int
    records_total: int
    events: int
    events_total: int
    round: int


Progress = Callable[[Done], None]


def verify(
    journal: Journal, progress: Progress | None = None, *, dedupe_window_ms: int = DAY_MS, jobs: int = 1
) -> VerifyReport:
    """Judge all shards. Reads every record once, or twice when sums over shards do not come out even; what is wrong in
    the journal does not raise, it is in the report.

    ``dedupe_window_ms``: the cluster's setting; within it no id may be spent twice. ``jobs``: processes to judge in; 1:
    this one; 0: one a core, as long as the journal is worth it. ``progress`` may be called from threads, one at a time.
    Raises ``JournalError`` only when the journal cannot be read at all.
    """
    started, started_cpu = time.monotonic(), time.process_time()
    heads = journal.info().heads
    report = VerifyReport(journal.header.cluster_id, journal.header.timeline, shards=len(heads))
    source = CountedSource(journal, heads, progress)
    whole_from_ms = max((whole_from(journal, head) for head in heads), default=0)
    rounds = _Rounds(source, heads, dedupe_window_ms, whole_from_ms, jobs or _jobs_worth_it(heads))
    with tempfile.TemporaryDirectory(prefix="stockade-verify-") as spill:
        found, ledger = rounds.run(Path(spill))
        suspects = ledger.uneven()
    report.merge(found)
    judge_pairs(ledger, report)
    if suspects:
        report.rounds = 2
        source.begin_again()
        again, told = rounds.run_again(suspects)
        report.cpu_seconds += again.cpu_seconds
        told.tell(report)
    report.tell_the_first()
    report.jobs = rounds.jobs
    report.seconds = time.monotonic() - started
    own_cpu = time.process_time() - started_cpu
    report.cpu_seconds = own_cpu if rounds.jobs == 1 else report.cpu_seconds + own_cpu
    return report


def _jobs_worth_it(heads: Sequence[ShardHead]) -> int:
    events = sum(head.sequence for head in heads)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, JOBS_MAX, len(heads), events // EVENTS_A_PROCESS_MIN))


class CountedSource:
    """A journal that counts what is read of it, for whoever watches."""

    def __init__(self, journal: Journal, heads: Sequence[ShardHead], progress: Progress | None) -> None:
        self._journal = journal
        self._progress = progress
        self._records = self._events = self._records_total = self._events_total = 0
        self._round = 1
        for head in heads if progress is not None else ():
            first = journal.first_number(head.shard)
            oldest = journal.read(head.shard, first - 1, 1) if head.record_number >= first > 1 else []
            self._records_total += head.record_number - first + 1
            self._events_total += head.sequence - (oldest[0].first_sequence - 1 if oldest else 0)

    def begin_again(self) -> None:
        """The second round."""
        self._records = self._events = 0
        self._round = 2

    def first_number(self, shard: int) -> int:
        return self._journal.first_number(shard)

    def snapshots(self, shard: int) -> list[Snapshot]:
        return self._journal.snapshots(shard)

    def read_slices(self, snapshot: Snapshot) -> list[SnapshotSlice]:
        return self._journal.read_slices(snapshot)

    def read(self, shard: int, after_number: int, limit: int) -> list[Record]:
        records = self._journal.read(shard, after_number, limit)
        if self._progress is not None:
            self._records += len(records)
            self._events += sum(record.event_count for record in records)
            total = (self._records_total, self._events_total)
            self._progress(Done(self._records, total[0], self._events, total[1], self._round))
        return records


class _Rounds:
    """The rounds of one verifying: the second has to use the first one's hashes, so it runs in the same kind of process."""

    def __init__(
        self, source: CountedSource, heads: Sequence[ShardHead], window_ms: int, whole_from_ms: int, jobs: int
    ) -> None:
        self.jobs = jobs
        self._source = source
        self._heads = heads
        self._window_ms = window_ms
        self._whole_from_ms = whole_from_ms
        self._workers = Workers(source, heads, whole_from_ms) if jobs > 1 else None

    def run(self, spill: Path) -> tuple[VerifyReport, Ledger]:
        """Judge everything. ``spill``: a directory for ids that are too many for memory."""
        places = [spill / str(job) for job in range(self.jobs)]
        for place in places:
            place.mkdir()
        return self._round([Ledger(self._window_ms, spill=place) for place in places])

    def run_again(self, suspects: Suspects) -> tuple[VerifyReport, Ledger]:
        """Gather the suspects by name: in one place, as they may lie in several shards."""
        return self._round([Ledger(self._window_ms, suspects)])

    def _round(self, ledgers: list[Ledger]) -> tuple[VerifyReport, Ledger]:
        if self._workers is None:
            report = VerifyReport()
            judge_shards(self._source, iter(self._heads), report, ledgers[0], self._whole_from_ms)
            return report, ledgers[0]
        (report, ledger), *others = self._workers.round(ledgers)
        for other_report, other_ledger in others:
            report.merge(other_report)
            ledger.merge(other_ledger)
        return report, ledger
