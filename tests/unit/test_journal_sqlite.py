"""The SQLite journal beyond the port: which file it opens, what it survives, what lies beside it."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from actors.journal import sqlite as sqlite_module
from actors.journal.disk import Ballast
from actors.journal.lock import JournalLock
from actors.journal.port import EntryRow, Journal, JournalDamaged, JournalError, JournalFull, JournalMismatch
from actors.journal.sqlite import SqliteJournal
from actors.journal.sqlite_open import Wanted, open_journal, open_read_only
from actors.journal.sqlite_schema import DATABASE_FILE, pragma
from actors.journal.versions import MINIMUM_READER_VERSION, READER_VERSION
from actors.journal.witness import WITNESS_FILE, WitnessFile
from tests.unit.faulty_vfs import FaultyVfs, RecordingVfs, after_power_cut
from tests.unit.journal_places import NOW_MS, SHARD_COUNT, WANTED, Owner, contents, flipped, locked

BALLAST_BYTES = 64 * 1024


class Opener:
    """Opens journals and closes those a test left open."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / DATABASE_FILE
        self._open: list[SqliteJournal] = []
        self._locks: list[JournalLock] = []

    def __call__(self, wanted: Wanted = WANTED, **options: Any) -> SqliteJournal:
        lock = locked(self.directory)
        self._locks.append(lock)
        try:
            journal = open_journal(lock, wanted, now_ms=NOW_MS, **{"ballast_bytes": 0} | options)
        except BaseException:
            lock.release()
            raise
        self._open.append(journal)
        return journal

    def crash(self, journal: SqliteJournal) -> None:
        """The process ends without a word: no checkpoint, no witness."""
        journal._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        journal.detach()
        self._locks[-1].release()

    def close(self) -> None:
        for journal in self._open:
            journal.close()
        for lock in self._locks:
            lock.release()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    opener = Opener(tmp_path / "data" / "journal")
    yield opener
    opener.close()


@pytest.fixture(scope="module")
def faulty() -> FaultyVfs:
    return FaultyVfs("stockade-faulty")


@pytest.fixture
def disk(faulty: FaultyVfs) -> Iterator[FaultyVfs]:
    faulty.only = "-wal"
    yield faulty
    faulty.writes_left = faulty.syncs_left = None


# --- durability as read back ------------------------------------------------------------------------------------------


def test_it_says_how_durable_it_is(opened: Opener) -> None:
    assert opened().info().durability == "journal_mode=wal synchronous=full"


def test_a_pragma_that_reads_back_otherwise_is_refused() -> None:
    nowhere = apsw.Connection(":memory:")  # a database in memory cannot have a WAL
    with pytest.raises(JournalDamaged, match="journal_mode was set to wal and reads back 'memory'"):
        pragma(nowhere, "journal_mode", "wal", "wal")


def test_one_commit_is_one_sync_of_the_wal(opened: Opener, disk: FaultyVfs) -> None:
    owner = Owner(opened(vfs=disk.name))
    owner.append(0)
    disk.syncs_left = 100
    owner.append(*range(SHARD_COUNT), entries=(EntryRow("e\x1fa\x1fb", 0, "", b"x", 0),))
    assert disk.syncs_left == 99


# --- the right file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        (Wanted(SHARD_COUNT + 1, 1), "shard count 8, asked for was 9"),
        (Wanted(SHARD_COUNT, 2), "placement version 1, asked for was 2"),
        (Wanted(SHARD_COUNT, 1, "other"), "cluster id c0ffee, asked for was other"),
    ],
)
def test_another_journal_than_asked_for_is_refused(opened: Opener, wanted: Wanted, what: str) -> None:
    opened().close()
    with pytest.raises(JournalMismatch, match=what):
        opened(wanted)
    opened(Wanted(SHARD_COUNT, 1)).close()  # no cluster id asked for: whichever is there


def test_a_journal_of_a_later_format_is_refused(opened: Opener) -> None:
    opened().close()
    later = READER_VERSION + 1
    _execute(opened.path, f"UPDATE header SET minimum_reader_version = {later}")
    with pytest.raises(JournalMismatch, match=f"needs a reader of format {later}"):
        opened()


def test_a_journal_of_an_earlier_version_asks_for_this_one_before_anything_is_written(opened: Opener) -> None:
    opened().close()
    _execute(opened.path, "UPDATE header SET minimum_reader_version = 1")
    journal = opened()
    assert journal.header.minimum_reader_version == MINIMUM_READER_VERSION
    journal.close()
    journal = opened()
    assert journal.header.minimum_reader_version == MINIMUM_READER_VERSION
    journal.close()


def test_a_file_that_is_no_journal_is_refused(opened: Opener) -> None:
    opened.directory.mkdir(parents=True)
    opened.path.write_bytes(b"PK\x03\x04" * 1_000)
    with pytest.raises(JournalDamaged, match=r"journal\.sqlite3"):
        opened()
    opened.path.unlink()
    _execute(opened.path, "CREATE TABLE other (id)")
    with pytest.raises(JournalDamaged, match="is no Stockade journal"):
        opened()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("DELETE FROM shards WHERE shard = 3", "rows for 7 shards"),
        ("DELETE FROM header", "has 0 headers"),
        ("DELETE FROM records WHERE shard = 2 AND number = 2", "shard 2 ends with record 1"),
        ("UPDATE shards SET sequence = sequence + 1 WHERE shard = 2", "shard 2 ends with record 2, sequence 2"),
        ("UPDATE shards SET epoch = 0 WHERE shard = 2", "shard 2"),
        ("UPDATE records SET payload = x'90' WHERE shard = 2 AND number = 2", "shard 2: record 2 has a wrong CRC"),
        ("UPDATE records SET time_ms = 1 WHERE shard = 2 AND number = 2", "shard 2: record 2 has a wrong CRC"),
    ],
)
def test_damage_at_the_end_is_found_on_opening_and_says_where(opened: Opener, damage: str, what: str) -> None:
    owner = Owner(opened())
    owner.append(2)
    owner.append(2)
    owner.journal.close()
    _execute(opened.path, damage)
    with pytest.raises(JournalDamaged, match=what):
        opened()


def test_damaged_pages_are_named_by_the_file_check(opened: Opener) -> None:
    owner = Owner(opened())
    for number in range(200):
        owner.append(number % SHARD_COUNT, events=50)
    owner.journal.close()
    journal = opened()
    assert journal.file_problems() == []
    journal.close()
    content = bytearray(opened.path.read_bytes())
    page = len(content) // 4096 // 2
    content[page * 4096 : page * 4096 + 64] = bytes(64)
    opened.path.write_bytes(content)
    try:
        journal = opened()
    except JournalError:
        return  # it was a page that opening reads
    problems: list[str] = []
    try:
        problems = journal.file_problems()
        for shard in range(SHARD_COUNT):
            journal.read(shard, 0, 10_000)
    except JournalDamaged as damage:
        problems.append(str(damage))
    assert problems


def test_a_bare_directory_in_which_no_journal_can_be_made(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_open_unprivileged, args=(str(tmp_path),))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def _open_unprivileged(parent: str) -> None:
    """Exit 0 when opening in a read-only directory, unprivileged, raises a clear JournalError."""
    directory = Path(parent) / "journal"
    directory.mkdir()
    for path in (Path(parent), *Path(parent).parents):
        if os.stat(path).st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    directory.chmod(0o555)
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        open_journal(locked(directory), WANTED, now_ms=NOW_MS)
    except JournalError as error:
        os._exit(0 if str(directory) in str(error) and "ermission denied" in str(error) else 3)
    os._exit(4)


def test_a_half_made_journal_is_made_anew(opened: Opener) -> None:
    opened.directory.mkdir(parents=True)
    (opened.directory / f"{DATABASE_FILE}.new").write_bytes(b"half")
    assert Owner(opened()).heads[0].epoch == 1


# --- the witness ------------------------------------------------------------------------------------------------------


def test_an_old_copy_put_back_is_refused(opened: Opener, tmp_path: Path) -> None:
    owner = Owner(opened())
    owner.append(1)
    owner.journal.close()
    shutil.copy(opened.path, tmp_path / "old copy")
    owner = Owner(opened())
    owner.append(1)
    owner.journal.close()
    shutil.copy(tmp_path / "old copy", opened.path)
    with pytest.raises(JournalDamaged, match=r"is behind its witness.*`stockade restore`"):
        opened()


def test_another_clusters_file_is_refused(opened: Opener, tmp_path: Path) -> None:
    other = Opener(tmp_path / "other")
    other(Wanted(SHARD_COUNT, 1, "other")).close()
    opened().close()
    shutil.copy(other.path, opened.path)
    with pytest.raises(JournalDamaged, match=r"is of cluster other.*its witness knows cluster c0ffee"):
        opened(Wanted(SHARD_COUNT, 1))
    other.close()


def test_where_a_journal_was_and_is_gone_nothing_new_is_begun(opened: Opener) -> None:
    opened().close()
    opened.path.unlink()
    with pytest.raises(JournalDamaged, match="is gone, but its witness knows of it"):
        opened()
    assert not opened.path.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"witness": {}, "crc32c": 0}'])
def test_a_witness_that_cannot_be_understood_is_refused(opened: Opener, content: bytes) -> None:
    opened().close()
    (opened.directory / WITNESS_FILE).write_bytes(content)
    with pytest.raises(JournalDamaged, match=r"witness.json is damaged"):
        opened()


def test_the_witness_is_never_ahead_after_a_crash(opened: Opener) -> None:
    journal = opened()
    owner = Owner(journal)
    for _ in range(5):
        owner.append(0)
        journal.checkpoint()
    opened.crash(journal)
    assert opened().read_latest(0, 1)[0].number == 5


def test_the_witness_follows_at_most_once_a_second(tmp_path: Path) -> None:
    seconds = [100.0]
    witness = WitnessFile(tmp_path, lambda: seconds[0])
    assert not witness.is_due()
    seconds[0] += 1
    assert witness.is_due()


# --- crashes ----------------------------------------------------------------------------------------------------------


def test_a_torn_tail_leaves_a_whole_number_of_turns(opened: Opener, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    first = Owner(opened())
    first.journal.close()
    owner = Owner(opened())
    for _ in range(40):
        owner.append(*draw.sample(range(SHARD_COUNT), draw.randint(1, SHARD_COUNT)), events=draw.randint(0, 9))
    numbers = [record.number for record in owner.journal.read(0, 0, 100)]
    whole = contents(owner.journal)
    wal = Path(f"{opened.path}-wal").read_bytes()
    database = opened.path.read_bytes()
    for _ in range(60):
        cut = draw.randrange(len(wal))
        torn = wal[:cut] if draw.random() < 0.5 else wal[:cut] + draw.randbytes(len(wal) - cut)
        copy = tmp_path / f"torn-{cut}"
        copy.mkdir(exist_ok=True)
        (copy / DATABASE_FILE).write_bytes(database)
        (copy / f"{DATABASE_FILE}-wal").write_bytes(torn)
        journal = open_journal(locked(copy), WANTED, now_ms=NOW_MS, ballast_bytes=0)
        found = [record.number for record in journal.read(0, 0, 100)]
        assert found == numbers[: len(found)]
        _assert_prefix(journal, whole)
        journal.close()
        shutil.rmtree(copy)


def _assert_prefix(journal: Journal, whole: dict[str, Any]) -> None:
    """Every shard's records are the first ones of the whole journal's, and heads agree: no half turn."""
    for head in journal.info().heads:
        records = journal.read(head.shard, 0, 100)
        assert records == whole["records"][head.shard][: len(records)]
        assert head.record_number == len(records)
        assert head.sequence == sum(record.event_count for record in records)


CRASH_POINTS = 200


def test_a_power_cut_at_any_moment_keeps_what_was_acknowledged(opened: Opener, tmp_path: Path, seed: int) -> None:
    """``CRASH_POINTS`` moments among the writes and syncs of 60 turns with checkpoints between them."""
    draw = random.Random(seed)
    recorder = RecordingVfs(f"stockade-recording-{seed}")
    opened().close()  # made by other means: making it is a rename
    recorder.log.append((DATABASE_FILE, "write", 0, opened.path.read_bytes()))
    recorder.log.append((DATABASE_FILE, "sync"))
    begin = len(recorder.log)
    journal = opened(vfs=recorder.name)
    owner = Owner(journal)
    for turn in range(60):
        entry = EntryRow(f"e\x1fwms\x1f{turn}", 0, "", b"x" * draw.randint(0, 2_000), NOW_MS)
        owner.append(*draw.sample(range(SHARD_COUNT), draw.randint(1, SHARD_COUNT)), events=3, entries=(entry,))
        recorder.log.append(
            ("", "acknowledged", {shard: head.record_number for shard, head in owner.heads.items()}, turn)
        )
        if draw.random() < 0.2:
            journal._checkpoint_wal()
    whole = contents(journal)
    for cut in range(CRASH_POINTS):
        moment = draw.randrange(begin, len(recorder.log) + 1)
        copy = tmp_path / f"cut-{cut}"
        copy.mkdir()
        for name, content in after_power_cut(recorder.log, moment, draw).items():
            (copy / name).write_bytes(content)
        survivor = open_journal(locked(copy), WANTED, now_ms=NOW_MS, ballast_bytes=0)
        _assert_prefix(survivor, whole)
        told = [entry for entry in recorder.log[:moment] if entry[1] == "acknowledged"]
        if told:
            numbers, turn = told[-1][2:]
            assert all(head.record_number >= numbers[head.shard] for head in survivor.info().heads), (seed, moment)
            assert set(survivor.entry_keys()) >= {f"e\x1fwms\x1f{number}" for number in range(turn + 1)}
        assert survivor.file_problems() == []
        survivor.close()
        shutil.rmtree(copy)


@pytest.mark.parametrize("only", ["-wal", ".sqlite3"])
def test_a_disk_that_fills_up_leaves_all_or_nothing(opened: Opener, disk: FaultyVfs, only: str) -> None:
    disk.only = only
    journal = opened(vfs=disk.name)
    owner = Owner(journal)
    owner.append(0, 1)
    for writes_left in range(12):
        before = contents(owner.journal)
        disk.writes_left = writes_left
        try:
            owner.append(*range(SHARD_COUNT), events=20)
            journal._checkpoint_wal()
        except JournalFull:
            after = contents(owner.journal)
            if only == "-wal":
                assert after == before
        disk.writes_left = None
    owner.append(0)
    assert owner.journal.read_latest(0, 1)[0].number == owner.heads[0].record_number


def test_after_a_failed_sync_nothing_is_written_any_more(opened: Opener, disk: FaultyVfs) -> None:
    owner = Owner(opened(vfs=disk.name))
    owner.append(0)
    disk.syncs_left = 0
    with pytest.raises(JournalError, match="fsync failed"):
        owner.append(0)
    disk.syncs_left = None
    for _ in range(2):
        with pytest.raises(JournalError, match="nothing may be written any more"):
            owner.append(0)
    with pytest.raises(JournalError):
        owner.journal.checkpoint()
    owner.journal.close()
    successor = Owner(opened())
    assert successor.heads[0].record_number in (1, 2)  # its outcome was unknown; it is whole or not there
    successor.append(0)


# --- room on the disk -------------------------------------------------------------------------------------------------


def test_a_full_disk_gives_up_the_ballast_for_the_takeover(opened: Opener, disk: FaultyVfs, tmp_path: Path) -> None:
    journal = opened(vfs=disk.name, ballast_bytes=BALLAST_BYTES)
    ballast = opened.directory / "ballast"
    assert ballast.stat().st_size == BALLAST_BYTES
    assert ballast.stat().st_blocks * 512 >= BALLAST_BYTES  # real blocks, not a hole

    class Room:
        """The disk has room for the takeover once the ballast is gone."""

        def writes(self, path: str) -> None:
            if path.endswith("-wal") and ballast.exists():
                raise apsw.FullError("the disk is full")

    disk.writes = Room().writes  # type: ignore[method-assign]
    try:
        assert journal.take_over([0])[0].epoch == 1
        assert not ballast.exists()
    finally:
        del disk.writes
    journal.checkpoint()
    assert ballast.exists()


def test_without_room_for_it_there_is_no_ballast_and_no_error(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path, 2**60)
    ballast.restore()
    assert not (tmp_path / "ballast").exists()
    assert ballast.release() is False


def test_the_wal_stays_bounded(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "CHECKPOINT_WAL_PAGES", 50)
    owner = Owner(opened())
    for _ in range(300):
        owner.append(*range(SHARD_COUNT))
    assert Path(f"{opened.path}-wal").stat().st_size < 200 * 4096


def test_a_reader_that_stays_makes_the_wal_grow_only_while_it_stays(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "CHECKPOINT_WAL_PAGES", 50)
    journal = opened()
    owner = Owner(journal)
    reader = open_read_only(opened.directory)
    wal = Path(f"{opened.path}-wal")
    with reader.reading():
        for _ in range(100):
            owner.append(*range(SHARD_COUNT))
        grown = wal.stat().st_size
        assert grown > 300 * 4096  # nothing of it could be used again
    for _ in range(100):
        owner.append(*range(SHARD_COUNT))
    assert journal._wal_pages < 200
    assert wal.stat().st_size <= grown + 200 * 4096
    reader.close()


# --- looking at it ----------------------------------------------------------------------------------------------------


def test_a_reader_sees_what_is_durable_and_changes_nothing(opened: Opener) -> None:
    owner = Owner(opened())
    owner.append(0)
    reader = open_read_only(opened.directory)
    assert contents(reader) == contents(owner.journal)
    owner.append(0, 1)
    assert len(reader.read(0, 0, 10)) == 2
    for write in (
        lambda: reader.take_over([0]),
        lambda: Owner(reader),
        lambda: reader.compact(0, 0),
        lambda: reader.append([], [EntryRow("k", 0, "", b"", 0)], []),
    ):
        with pytest.raises(JournalError):
            write()
    reader.close()
    owner.append(0)


def test_a_reader_after_a_crash_sees_all_that_was_acknowledged(opened: Opener) -> None:
    journal = opened()
    owner = Owner(journal)
    owner.append(0, 1)
    before = contents(journal)
    opened.crash(journal)
    reader = open_read_only(opened.directory)
    assert contents(reader) == before
    reader.close()
    assert Owner(opened()).heads[0].record_number == 1


def test_of_one_moment_means_of_one_moment(opened: Opener) -> None:
    owner = Owner(opened())
    owner.append(0)
    reader = open_read_only(opened.directory)
    with reader.reading():
        owner.append(0)
        assert len(reader.read(0, 0, 10)) == 1
    assert len(reader.read(0, 0, 10)) == 2
    reader.close()


def test_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal at"):
        open_read_only(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_flipping_any_bit_of_a_row_is_noticed(opened: Opener) -> None:
    owner = Owner(opened())
    owner.append(0, entries=(EntryRow("e\x1fwms\x1f1", 0, "", b"answer", NOW_MS),))
    owner.journal.close()
    _execute(opened.path, "UPDATE entries SET payload = ?", (flipped(b"answer"),))
    with pytest.raises(JournalDamaged, match="the entry"):
        opened().find_entries(["e\x1fwms\x1f1"])


def _execute(path: Path, statement: str, bindings: tuple[Any, ...] = ()) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(statement, bindings)
    connection.close()
