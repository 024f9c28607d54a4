"""Lives of a journal's owner: the real engine over the real SQLite journal, driven by seeded orders and warehouse facts.

A life opens the journal, recovers, serves some turns with snapshots, checkpoints, compactions and backups between them, and ends:
closed in order, killed, or because something failed. As the shard host does, it ends when an append fails and goes on when
housekeeping does. It notes in the recorder's log what was asked of the journal and what was answered.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw

from actors.domain.answers import OK
from actors.domain.commands import Verb
from actors.domain.keys import parse_reservation_id, stock_key
from actors.domain.outcomes import Admission, Disposition, Fact, FillPolicy
from actors.domain.rules import Rules
from actors.journal import sqlite as sqlite_module
from actors.journal import sqlite_backup
from actors.journal.lock import JournalLock, take_lock
from actors.journal.port import JournalError, JournalFull, SnapshotSlice
from actors.journal.sqlite import SqliteJournal
from actors.journal.sqlite_open import Wanted, open_journal, open_read_only
from actors.shard import snapshot as snapshot_module
from actors.shard.encoding import canonical_state
from actors.shard.engine import Engine, TurnResult
from actors.shard.filter import EntryFilter
from actors.shard.placement import feed_shard_of, shard_of
from actors.shard.recovery import recover
from actors.shard.snapshot import Snapshotter
from tests.power_loss.disk_recording import Recorder
from tests.power_loss.expectation import Append, Compact, Expectation, Nothing, Operation, Publish, TakeOver, digest_of

SHARD_COUNT = 8
START_MS = 1_700_000_000_000
TICK_MS = 600
WANTED = Wanted(SHARD_COUNT, placement_version=1, cluster_id="c0ffee")
WINDOW_MS = 40_000
RETENTION_MS = 12_000
RULES = Rules(dedupe_window_ms=WINDOW_MS, dedupe_memory_ms=4_000, lifetime_ms_max=WINDOW_MS)
WAREHOUSES = ("east", "west")
SKUS = tuple(f"sku-{number}" for number in range(8))
SMALL_BOUNDS = {  # so that a life of seconds does all that one of days does
    (sqlite_module, "CHECKPOINT_WAL_PAGES"): 60,
    (sqlite_module, "ROWS_PER_DELETE"): 9,
    (sqlite_module, "VACUUM_PAGES_MAX"): 3,
    (sqlite_module, "VACUUM_FREE_SHARE"): 30,
    (snapshot_module, "ENTITIES_PER_SLICE"): 6,
    (sqlite_backup, "PAGES_PER_STEP"): 16,
}


class WentOn(AssertionError):
    """An append was acknowledged after a write or a sync of the journal's own files had failed."""


class NotServed(AssertionError):
    """Something that must work did not."""


@contextlib.contextmanager
def small_bounds() -> Iterator[None]:
    """The journal's bounds made small, put back afterwards."""
    before = {place: getattr(*place) for place in SMALL_BOUNDS}
    try:
        for (module, name), value in SMALL_BOUNDS.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def locked(directory: Path) -> JournalLock:
    """The lock, at once or not at all."""
    return take_lock(directory, role="power loss", wait_s=0, kill_holder_after_s=None, say=print)


class Life:
    """One owner from opening to its end. ``clock``: shard time, shared by the lives of one history."""

    def __init__(
        self,
        recorder: Recorder,
        expectation: Expectation,
        draw: random.Random,
        clock: itertools.count[int],
        *,
        ballast_bytes: int,
        after_opening: Callable[[SqliteJournal], None],
    ) -> None:
        self._recorder, self._expectation, self._draw, self._clock = recorder, expectation, draw, clock
        self._ballast_bytes = ballast_bytes
        self._after_opening = after_opening
        self.directory = Path(recorder.root) / "data" / "journal"
        self.now_ms = START_MS
        self.full = False
        self.did: Counter[str] = Counter()
        self._lock: JournalLock | None = None
        self._journal: SqliteJournal | None = None
        self._reader: SqliteJournal | None = None
        self._snapshotter: tuple[Snapshotter, list[SnapshotSlice]] | None = None
        self._live: list[str] = []

    # --- noting -------------------------------------------------------------------------------------------------------

    def _note(self, *what: Any) -> None:
        self._recorder.mark(*what)
        self._expectation.note(what)

    @contextlib.contextmanager
    def _noted(self, operation: Operation) -> Iterator[None]:
        self._note("begin", operation)
        yield
        self._note("done")

    # --- a life -------------------------------------------------------------------------------------------------------

    def run(self, turns: int) -> str:
        """Open, recover and serve; how it ended: "closed", or what failed. Never raises but for what must not happen."""
        try:
            engine = self._open()
            for _ in range(turns):
                self._turn(engine)
                self._housekeeping(engine)
        except (JournalError, OSError) as error:
            self.full = isinstance(error, JournalFull)
            self._end_badly()
            return repr(error)
        assert self._journal is not None
        gone = self._recorder.dead or self._journal._failed  # in its last chore: nothing that it does now is an answer
        self._end(orderly=self._draw.random() < 0.5 and not gone)
        return "closed"

    def _open(self) -> Engine:
        self._lock = locked(self.directory)
        ids = (f"{self._draw.randrange(2**64):016x}" for _ in itertools.count())
        journal = self._journal = open_journal(
            self._lock, WANTED, now_ms=self._now(), new_id=lambda: next(ids), ballast_bytes=self._ballast_bytes
        )
        witness = journal._witness
        if witness is not None:  # due by shard time, so that a history is the same every time
            witness._monotonic = lambda: self.now_ms / 1000
            witness._due = self.now_ms / 1000
        self._after_opening(journal)
        self._note("made")
        while self._expectation.pending and not _happened(journal, self._expectation):
            self._note("absent")
        self._note("begin", TakeOver())
        recovered = recover(journal, range(SHARD_COUNT), RULES, self._now())
        self._filter = EntryFilter(journal.entry_keys())
        self._append(recovered.engine, recovered.ownership)
        self._live = list(recovered.engine.books.reservations)
        return recovered.engine

    def _now(self) -> int:
        self.now_ms = START_MS + next(self._clock) * TICK_MS
        return self.now_ms

    def _append(self, engine: Engine, result: TurnResult) -> None:
        assert self._journal is not None
        digests = {one.shard: digest_of(canonical_state(engine.books, one.shard)) for one in result.records}
        self._note("begin", Append(result.records, result.entries, digests))
        self._journal.append(result.records, result.entries, result.read_heads)
        fault = self._recorder.fault
        if fault is not None and fault.struck and fault.kind in ("write", "sync") and fault.of_journal:
            raise WentOn(f"an append was acknowledged after a {fault.kind} of {fault.where} had failed")
        self._note("done")
        engine.durable(result)
        self.did["appends"] += 1
        self.did["records"] += len(result.records)
        self.did["entries"] += len(result.entries)

    def _end(self, *, orderly: bool) -> None:
        assert self._journal is not None
        self._close_reader()
        if orderly:
            with self._noted(Nothing("close")):
                self._journal.close()
        else:
            self._end_badly()

    def _end_badly(self) -> None:
        """The process is gone without a word: no checkpoint, no witness."""
        self._recorder.dead, dead = True, self._recorder.dead
        self._close_reader()
        if self._journal is not None:
            with contextlib.suppress(apsw.Error):
                self._journal._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._journal.detach()
        if self._lock is not None:
            self._lock.release()
        self._recorder.dead = False
        self._recorder.mark("ended", "killed" if dead else "failed")

    # --- turns --------------------------------------------------------------------------------------------------------

    def _turn(self, engine: Engine) -> None:
        assert self._journal is not None
        draw = self._draw
        items = [self._item() for _ in range(draw.choice((1, 1, 2, 6)))]
        found: dict[str, Any] = {}
        while wanted := engine.unresolved(items, found, self._filter):
            rows = self._journal.find_entries(wanted)
            found.update(dict.fromkeys(wanted))
            found.update(rows)
        result = engine.step(items, found, self._now())
        for row in result.entries:
            self._filter.add(row.key)
        if result.records or result.entries:
            self._append(engine, result)
        else:
            self._journal.check(result.read_heads)
        for item, reply in zip(items, result.replies, strict=True):
            if item[0] == Verb.RESERVE and reply[0] == OK:
                self._live.append(str(reply[2][0]))
                self.did["reservations"] += 1

    def _item(self) -> list[Any]:
        draw = self._draw
        name = f"{draw.randrange(2**48):012x}"
        kind = draw.random()
        if kind < 0.3:
            return self._fact(name)
        if kind < 0.65 or not self._live:
            return self._reserve(name)
        reservation_id = draw.choice(self._live[-20:])
        parts = parse_reservation_id(reservation_id)
        assert parts is not None
        verb, fields = draw.choice(
            (
                (Verb.CONFIRM, ("", 0)),
                (Verb.RELEASE, ("", "", [], 1)),
                (Verb.EXTEND, (draw.randint(1_000, 20_000),)),
                (Verb.FULFILL, (f"shipment-{name}", [], False, 0)),
            )
        )
        return [int(verb), parts.shard, 0, 1, [], [name, name.encode(), reservation_id, *fields]]

    def _fact(self, name: str) -> list[Any]:
        draw = self._draw
        key = stock_key(draw.choice(WAREHOUSES), draw.choice(SKUS))
        quantity = draw.randint(1, 50)
        if draw.random() < 0.8:
            fact, details = Fact.RECEIPT, [quantity, int(Disposition.SELLABLE), "", ""]
        else:
            fact, details = Fact.STOCK_COUNT, [quantity, int(Disposition.SELLABLE), 0, True, False]
        body = ["wms", "", name, 0, self.now_ms, key, name.encode(), int(fact), details, "", "", "", 0, [], 0]
        return [int(Verb.INGEST), feed_shard_of("wms", SHARD_COUNT), 0, 1, [], body]

    def _reserve(self, name: str) -> list[Any]:
        draw = self._draw
        keys = [stock_key(draw.choice(WAREHOUSES), sku) for sku in draw.sample(SKUS, draw.randint(1, 5))]
        lines = [[str(index), key, draw.randint(1, 4), 0] for index, key in enumerate(keys)]
        fill = draw.choice((FillPolicy.ALL_OR_NOTHING, FillPolicy.PARTIAL_QUANTITIES))
        admission = Admission.ALWAYS if draw.random() < 0.1 else Admission.WHEN_COVERED
        home = shard_of(min(keys), SHARD_COUNT)
        labels = [["note", "x" * draw.choice((0, 0, 10, 3_000))]]
        ttl_ms, confirm = draw.randint(500, 30_000), draw.random() < 0.3
        body = [name, name.encode(), "web", lines, ttl_ms, confirm, int(fill), int(admission), "", "", "", labels]
        return [int(Verb.RESERVE), home, 0, len(lines), [], body]

    # --- housekeeping -------------------------------------------------------------------------------------------------

    def _housekeeping(self, engine: Engine) -> None:
        """As the host does: what fails here ends nothing by itself; but a failed journal takes no further append."""
        draw = self._draw
        chores = (
            (0.60, lambda: self._snapshot(engine)),
            (0.10, self._checkpoint),
            (0.10, self._compact),
            (0.02, self._backup),
            (0.05, self._read_along),
        )
        for chance, chore in chores:
            if draw.random() < chance:
                try:
                    chore()
                except (JournalError, OSError):
                    self._see_what_became_of_it()

    def _see_what_became_of_it(self) -> None:
        """A chore failed. When the journal can be used on, whether the chore happened is to be seen in it."""
        assert self._journal is not None
        usable = not self._recorder.dead and not self._journal._failed
        if usable and self._expectation.pending and not _happened(self._journal, self._expectation):
            self._note("absent")

    def _snapshot(self, engine: Engine) -> None:
        assert self._journal is not None
        if self._snapshotter is None:
            shard = self._draw.choice((0, 0, 3, self._draw.randrange(SHARD_COUNT)))
            self._snapshotter = (Snapshotter(engine, shard, self.now_ms), [])
        under_way, parts = self._snapshotter
        part = under_way.next_slice()
        self._snapshotter = None
        if part is not None:
            with self._noted(Nothing("slice")):
                self._journal.write_slice(part, under_way.epoch)
            self._snapshotter = (under_way, [*parts, part])
            return
        with self._noted(Publish(under_way.snapshot(), parts)):
            self._journal.publish_snapshot(under_way.snapshot())
        self.did["snapshots"] += 1

    def _checkpoint(self) -> None:
        assert self._journal is not None
        with self._noted(Nothing("checkpoint")):
            self._journal._checkpoint_at = self._draw.choice((1, 20, 60))
            self._journal.checkpoint()
        self.did["checkpoints"] += 1

    def _compact(self) -> None:
        assert self._journal is not None
        before_ms = self.now_ms
        with self._noted(Compact(before_ms - RETENTION_MS, before_ms - WINDOW_MS)):
            dropped = self._journal.compact(before_ms - RETENTION_MS, before_ms - WINDOW_MS, self._draw.choice((5, 50)))
        self.did["records dropped"] += dropped.records_dropped
        self.did["entries dropped"] += dropped.entries_dropped

    def _backup(self) -> None:
        name = f"/backups/{self._draw.randrange(2**32):08x}.sqlite3"
        with self._noted(Nothing("backup")):
            sqlite_backup.backup(self.directory, Path(self._recorder.root + name), now_ms=self.now_ms)
        self._note("backup", name)
        self.did["backups"] += 1

    def _read_along(self) -> None:
        """Somebody reads for some turns: the WAL cannot start anew meanwhile."""
        if self._reader is not None:
            self._close_reader()
            return
        self._reader = open_read_only(self.directory)
        self._reader._rows("BEGIN", ())
        self._reader.all_heads()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader._roll_back()
            self._reader.close()
            self._reader = None


def _happened(journal: SqliteJournal, expectation: Expectation) -> bool:
    """Whether the last of the unanswered operations is in the journal, as its successor sees it."""
    found = {head.shard: (head.epoch, head.record_number, head.sequence) for head in journal.all_heads()}
    last = list(expectation.views())[-1]
    if found != last.heads:
        return False
    shards = range(SHARD_COUNT)
    return all(journal.snapshots(shard) == [one for one, _ in last.snapshots[shard]] for shard in shards)
