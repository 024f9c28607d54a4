"""Power loss: the short form of ``python -m tests.power_loss``, proof that the sweep can fail, and every bug it found, told.

A bug that was found stays here as a scenario of its own, with its story in the test's docstring: seeds change their histories with
every change of the code, scenarios do not.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from actors.journal import sqlite as sqlite_module
from actors.journal.port import JournalError, ShardHead
from actors.journal.sqlite import SqliteJournal
from actors.journal.sqlite_backup import backup, restore
from actors.journal.sqlite_open import open_journal
from tests.power_loss.disk import SECTOR_BYTES, Disk, Files, Operation
from tests.power_loss.disk_recording import Fault, Recorder
from tests.power_loss.judging import put
from tests.power_loss.sweep import Figures, Options, sweep, with_synchronous
from tests.unit.journal_places import NOW_MS, SHARD_COUNT, WANTED, Owner, locked

CRASH_POINTS = 200
PARTS = 4
POINTS_PER_BOOT = 20
CUTS = 40  # draws of what survives, at one moment
CUTS_PER_MOMENT = 3  # … where every moment of something is looked at


def swept(work: Path, seed: int, crash_points: int, options: Options | None = None) -> Figures:
    return sweep(seed, crash_points, work, options or Options(points_per_boot=POINTS_PER_BOOT), lambda figures: None)


@pytest.mark.parametrize("part", range(PARTS))
def test_at_every_crash_point_what_was_acknowledged_is_there_and_nothing_impossible(
    tmp_path: Path, run_seed: int, part: int
) -> None:
    figures = swept(tmp_path, run_seed + part * 1_000, CRASH_POINTS // PARTS)

    assert figures.failures == []
    assert figures.crash_points >= CRASH_POINTS // PARTS


# --- the sweep can fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(Options(sabotage=with_synchronous("off")), id="a journal that never syncs"),
        pytest.param(Options(sabotage=with_synchronous("normal")), id="a journal that syncs at checkpoints only"),
        pytest.param(Options(lies_about=("-wal",)), id="a drive that lies about syncs of the WAL"),
        pytest.param(Options(lies_about=(".sqlite3",)), id="a drive that lies about syncs of the database file"),
        pytest.param(Options(lies_about=(".witness.json.new",)), id="a witness that is renamed before it is synced"),
    ],
)
def test_a_sync_that_is_missing_is_found(tmp_path: Path, run_seed: int, options: Options) -> None:
    assert swept(tmp_path, run_seed, 3_000, options).failures != []


# --- the bugs it found ------------------------------------------------------------------------------------------------


class Boot:
    """A recorded disk from power on to power off, and owners on it."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.draw = random.Random(seed)
        put({}, root / "live")
        self.recorder = Recorder(root / "live", {}, self.draw)
        self._open: list[SqliteJournal] = []

    @property
    def directory(self) -> Path:
        return self.root / "live" / "data" / "journal"

    def open(self) -> SqliteJournal:
        journal = opened(self.directory)
        self._open.append(journal)
        return journal

    def crash(self) -> None:
        """The process that has the journal open is killed; the kernel goes on."""
        self.recorder.dead = True
        for journal in self._open:
            lock = journal._lock
            with contextlib.suppress(apsw.Error):
                journal._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            journal.detach()
            if lock is not None:
                lock.release()
        self._open.clear()
        self.recorder.dead = False

    def after_power_cuts(self) -> Iterator[SqliteJournal]:
        """The journal as it may be found when the power goes now, opened: again and again."""
        disk = Disk({})
        for operation in self.recorder.log:
            disk.advance(operation)
        for _ in range(CUTS):
            yield from self._found(disk.after_power_cut(self.draw))

    def with_a_torn_sector(self, begin: int) -> Iterator[SqliteJournal]:
        """The same for every moment right behind a write since the log had ``begin`` operations, a sector of that write torn."""
        disk = Disk({})
        for at, operation in enumerate(self.recorder.log):
            disk.advance(operation)
            if at < begin or operation[0] != "write":
                continue
            for _ in range(CUTS):
                torn = copy.deepcopy(disk)
                content = torn.inodes[operation[1]].content
                sector = operation[2] + self.draw.randrange(max(1, len(operation[3]) // SECTOR_BYTES)) * SECTOR_BYTES
                content[sector : sector + SECTOR_BYTES] = self.draw.randbytes(SECTOR_BYTES)
                torn.inodes[operation[1]].pending.clear()
                yield from self._found(torn.after_power_cut(self.draw))

    def cuts(self, begin: int) -> Iterator[Files]:
        """What may be found when the power goes at any moment since the log had ``begin`` operations."""
        disk = Disk({})
        for at, operation in enumerate(self.recorder.log):
            disk.advance(operation)
            for _ in range(CUTS_PER_MOMENT if at >= begin else 0):
                yield disk.after_power_cut(self.draw)

    def _found(self, files: Files) -> Iterator[SqliteJournal]:
        put(files, self.root / "cut")
        journal = opened(self.root / "cut" / "data" / "journal")
        try:
            yield journal
        finally:
            journal.close()


def opened(directory: Path) -> SqliteJournal:
    lock = locked(directory)
    try:
        return open_journal(lock, WANTED, now_ms=NOW_MS, ballast_bytes=0)
    except BaseException:
        lock.release()
        raise


@pytest.fixture
def boot(tmp_path: Path, seed: int) -> Iterator[Boot]:
    booted = Boot(tmp_path, seed)
    with booted.recorder:
        yield booted
        booted.crash()


def test_a_new_journal_is_there_together_with_the_directories_above_it(boot: Boot) -> None:
    """Found by the first sweep, seed 1. The journal made its own name and that of its directory durable, but the data directory
    above, which the server or the command line may just have made, was in nobody's sync: after a power cut in its first seconds the
    whole of it could be gone, acknowledged records and all. (File systems that sync a file's parents with it, as ext4 does, hide
    it.) Every opening now syncs all directories above the journal."""
    owner = Owner(boot.open())
    owner.append(0)

    for journal in boot.after_power_cuts():
        assert journal.all_heads()[0].record_number == 1


def test_what_only_the_kernel_had_is_made_durable_before_a_successor_builds_upon_it(boot: Boot) -> None:
    """Found by the second sweep, seed 1, as a journal "behind its witness" that would not start any more. An owner ended because a
    sync failed, as it must. But the kernel goes on to show what was never written, takes it for clean, and no later sync writes it
    (as Linux does): the successor took the unknown commit for one, appended behind it, acknowledged, and the next power cut took the
    unwritten part away and with it everything behind. Every opening now writes what is in the WAL once more."""
    owner = Owner(boot.open())
    owner.append(0)
    boot.recorder.fault = Fault("sync", 1)
    with pytest.raises(JournalError):
        owner.append(*range(SHARD_COUNT), events=200)
    boot.crash()
    boot.recorder.fault = None

    successor = Owner(boot.open())
    successor.append(0)

    for journal in boot.after_power_cuts():
        assert journal.all_heads()[0] == successor.heads[0]
        assert journal.file_problems() == []


def test_settling_survives_a_power_cut_in_its_middle(boot: Boot) -> None:
    """Found by the sweep, seed 9, in the first version of the mend above: the WAL was written over in place with nothing beside it,
    and a sector that a power cut left neither old nor new took acknowledged records away that had long been durable."""
    owner = Owner(boot.open())
    owner.append(*range(SHARD_COUNT), events=50)
    boot.crash()
    began = len(boot.recorder.log)

    boot.open()

    for journal in boot.with_a_torn_sector(began):
        assert journal.all_heads() == list(owner.heads.values())


def test_after_a_failed_sync_in_giving_back_pages_nothing_is_written_any_more(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by reading for what the sweep calls "went on": giving free pages back to the disk was run as a question, whose errors
    end nothing. The host only logs a failed compaction, so it would have gone on appending after a failed sync."""
    monkeypatch.setattr(sqlite_module, "VACUUM_FREE_SHARE", 10**9)
    journal = boot.open()
    owner = Owner(journal)
    for _ in range(20):
        owner.append(0, events=300)
    journal._connection.execute("DELETE FROM records WHERE number < 10")
    boot.recorder.fault = Fault("sync", 1)

    with pytest.raises(JournalError):
        owner.journal.compact(0, 0)

    assert boot.recorder.fault.struck
    with pytest.raises(JournalError, match="nothing may be written any more"):
        owner.append(0)


def test_a_restore_cut_short_leaves_the_old_journal_or_the_restored_one_or_says_so(boot: Boot) -> None:
    """Every moment of a restore that puts a killed owner's journal aside. Found by it: the witness was moved aside with the rest
    before the restored file was in place; cut short right there, even by a mere kill, nothing told that there ever was a journal,
    and the next start began an empty one. And the old WAL was moved without a sync before the restored file came: on a file system
    that does not keep the order of names it could lie beside it, and SQLite would have applied it. The witness goes last now."""
    owner = Owner(boot.open())
    owner.append(*range(SHARD_COUNT), events=5)
    backup_path = boot.root / "live" / "backup.sqlite3"
    backup(boot.directory, backup_path, now_ms=NOW_MS)
    in_backup = list(owner.journal.info().heads)
    owner.append(*range(SHARD_COUNT), events=50)
    before = list(owner.journal.info().heads)
    boot.crash()
    began = len(boot.recorder.log)

    restore_from(backup_path, boot.directory)

    outcomes = Counter(restored(boot.root / "cut", files, before, in_backup) for files in boot.cuts(began))
    assert set(outcomes) <= {"the old one", "the restored one", "refused, restored again"}
    assert outcomes["the old one"] and outcomes["the restored one"]
    assert {
        restored(boot.root / "cut", files, before, in_backup) for files in boot.cuts(len(boot.recorder.log) - 1)
    } == {"the restored one"}


def restore_from(source: Path, directory: Path) -> None:
    lock = locked(directory)
    try:
        restore(source, lock, now_ms=NOW_MS, replace_existing=WANTED.cluster_id)
    finally:
        lock.release()


def restored(root: Path, files: Files, before: list[ShardHead], in_backup: list[ShardHead]) -> str:
    """What is found after a power cut in a restore."""
    put(files, root)
    directory = root / "data" / "journal"
    told = ""
    try:
        journal = opened(directory)
    except JournalError:
        restore_from(root / "backup.sqlite3", directory)
        journal = opened(directory)
        told = "refused, restored again"
    heads, problems = journal.all_heads(), journal.file_problems()
    journal.close()
    assert problems == []
    if heads == before:
        return told or "the old one"
    assert heads == in_backup
    return told or "the restored one"


# --- the disk itself --------------------------------------------------------------------------------------------------


def found(operations: list[Operation], draw: random.Random) -> Files:
    disk = Disk({})
    for operation in operations:
        disk.advance(operation)
    return disk.after_power_cut(draw)


WRITTEN: list[Operation] = [("name", {"/file": 0}), ("write", 0, 0, b"a" * 1_000)]
SYNCED: list[Operation] = [*WRITTEN, ("sync", 0), ("sync directory", "")]


def test_what_was_synced_with_its_name_is_there(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        assert found(SYNCED, draw) == {"/file": b"a" * 1_000}


@pytest.mark.parametrize(
    ("operations", "possible"),
    [
        (WRITTEN, lambda files: files == {}),
        (WRITTEN, lambda files: files.get("/file") == b""),
        (WRITTEN, lambda files: files.get("/file") == b"a" * 1_000),
        (WRITTEN, lambda files: files.get("/file") == b"\0" * 512 + b"a" * 488),
        ([*WRITTEN, ("sync", 0)], lambda files: files == {}),
        ([*SYNCED, ("truncate", 0, 10)], lambda files: len(files["/file"]) == 10),
        ([*SYNCED, ("truncate", 0, 10)], lambda files: len(files["/file"]) == 1_000),
        ([*SYNCED, ("name", {"/file": None, "/other": 0})], lambda files: set(files) == {"/file"}),
        ([*SYNCED, ("name", {"/file": None, "/other": 0})], lambda files: set(files) == {"/other"}),
    ],
)
def test_what_was_not_synced_may_be_there_or_not(
    seed: int, operations: list[Operation], possible: Callable[[Files], bool]
) -> None:
    draw = random.Random(seed)
    assert any(possible(found(operations, draw)) for _ in range(2_000))


def test_what_a_failed_sync_forgot_no_later_sync_writes(seed: int) -> None:
    draw = random.Random(seed)
    contents = {
        found([*SYNCED, ("write", 0, 0, b"b"), ("failed sync", 0, number), ("sync", 0)], draw)["/file"]
        for number in range(100)
    }
    assert contents == {b"a" * 1_000, b"b" + b"a" * 999}


def test_every_history_is_the_same_again(tmp_path: Path, seed: int) -> None:
    first, second = (swept(tmp_path, seed, 20) for _ in range(2))
    for one in (first, second):
        one.judging_s = 0
    assert first == second


def test_draws_are_many(seed: int) -> None:
    draw = random.Random(seed)
    pages = [("write", 0, at * 512, bytes([at]) * 512) for at in range(20)]
    cuts = itertools.repeat([*SYNCED, *pages], 200)
    assert len({found(one, draw)["/file"] for one in cuts}) > 50
