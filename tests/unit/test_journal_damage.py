"""Damage at rest, in short (``python -m tests.power_loss --damages``), and the bugs that it found, told."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from actors.journal.port import EntryRow, JournalDamaged, Snapshot
from actors.journal.sqlite import SqliteJournal
from actors.journal.sqlite_open import open_journal
from actors.journal.sqlite_schema import DATABASE_FILE
from tests.power_loss.damage import damage_sweep
from tests.unit.journal_places import NOW_MS, SHARD_COUNT, WANTED, Owner, contents, locked

DAMAGES = 60
PARTS = 2


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_byte_is_damaged_nothing_wrong_is_served(tmp_path: Path, run_seed: int, part: int) -> None:
    figures = damage_sweep(run_seed + part * 1_000, DAMAGES // PARTS, tmp_path)

    assert figures.failures == []
    assert sum(figures.outcomes.values()) == DAMAGES // PARTS


def opened(directory: Path) -> SqliteJournal:
    lock = locked(directory)
    try:
        return open_journal(lock, WANTED, now_ms=NOW_MS, ballast_bytes=0)
    except BaseException:
        lock.release()
        raise


def killed(journal: SqliteJournal) -> None:
    lock = journal._lock
    journal._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    journal.detach()
    assert lock is not None
    lock.release()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE records SET epoch = 1 << 40",
        "UPDATE records SET event_count = -1",
        "UPDATE slices SET slice_number = slice_number - 7",
        "UPDATE snapshots SET lowest_sequence = -1",
        "UPDATE entries SET shard = 1 << 40",
        "UPDATE entries SET reservation_id = CAST(x'b7' AS TEXT)",
    ],
)
def test_a_column_that_no_row_can_have_is_damage_like_any_other(tmp_path: Path, change: str) -> None:
    """Found by the damage sweep, seeds 1, 1010 and 1019: a number beyond its field, a NULL or a text that is not UTF-8 ended the
    process by struct.error, TypeError or UnicodeDecodeError out of the checksum, which says neither what is damaged nor where; a
    snapshot so damaged was not passed over for the older one."""
    journal = opened(tmp_path)
    owner = Owner(journal)
    owner.append(*range(SHARD_COUNT), entries=(EntryRow("e\x1fwms\x1f1", 0, "", b"x", NOW_MS),))
    snapshot = owner.snapshot(0)
    apsw.Connection(str(tmp_path / DATABASE_FILE)).execute(change)

    if "snapshots" in change:
        assert journal.snapshots(0) == []
    else:
        with pytest.raises(JournalDamaged):
            read_all(journal, snapshot)
    journal.close()


def read_all(journal: SqliteJournal, snapshot: Snapshot) -> None:
    journal.read(0, 0, 10)
    journal.find_entries(["e\x1fwms\x1f1"])
    journal.read_slices(snapshot)


def wal_of_three_commits(directory: Path) -> tuple[Path, list[int]]:
    """A WAL that a killed owner left, and its size after each of its last three commits."""
    journal = opened(directory)
    owner = Owner(journal)
    wal = directory / f"{DATABASE_FILE}-wal"
    sizes = []
    for _ in range(3):
        owner.append(*range(SHARD_COUNT), events=20)
        sizes.append(wal.stat().st_size)
    killed(journal)
    return wal, sizes


@pytest.mark.parametrize("back", [1, 50, 4_000])
def test_a_damaged_commit_with_another_behind_it_is_no_torn_tail(tmp_path: Path, back: int) -> None:
    """Found by asking the damage sweep about the WAL. SQLite reads it up to the first wrong checksum and drops the rest without a
    word: one bad byte in the middle of it took every later commit away, acknowledged ones too. Opening refuses it now, and leaves
    the files as they are."""
    wal, (_, second, _) = wal_of_three_commits(tmp_path)
    content = bytearray(wal.read_bytes())
    content[second - back] ^= 1
    wal.write_bytes(content)

    for _ in range(2):
        with pytest.raises(JournalDamaged, match=r"sqlite3-wal: the commit from frame \d+ on \(byte \d+\) is damaged"):
            opened(tmp_path)
        assert wal.read_bytes() == content


@pytest.mark.parametrize("back", [1, 50, 4_000])
def test_the_last_commit_damaged_is_a_torn_tail(tmp_path: Path, back: int) -> None:
    wal, (_, _, third) = wal_of_three_commits(tmp_path)
    content = bytearray(wal.read_bytes())
    content[third - back] ^= 1
    wal.write_bytes(content)

    journal = opened(tmp_path)

    assert [head.record_number for head in journal.all_heads()] == [2] * SHARD_COUNT
    journal.close()


def test_what_an_earlier_use_of_the_wal_left_is_no_commit_behind(tmp_path: Path) -> None:
    """After a checkpoint the WAL begins anew and is written over from its start: what lies behind is old, not damaged."""
    journal = opened(tmp_path)
    owner = Owner(journal)
    for _ in range(10):
        owner.append(*range(SHARD_COUNT), events=20)
    journal._checkpoint_wal()
    owner.append(0)
    whole = contents(journal)
    killed(journal)

    again = opened(tmp_path)

    assert contents(again) == whole
    again.close()


def test_a_wal_whose_header_was_half_written_is_put_aside_before_it_is_used_again(tmp_path: Path) -> None:
    """Found by the long power-loss sweep, seed 200006, boot 1, moment 99: the check above refused a sound journal. The owner was
    killed half way through the header of a WAL that began anew. SQLite ignores such a WAL, rightly: all of it was in the file. But
    it takes the old salts from it for the new header, and then nothing tells what the earlier use left behind from commits of the
    present one. Opening empties it, keeping a copy for whoever wants to look."""
    journal = opened(tmp_path)
    owner = Owner(journal)
    for _ in range(10):
        owner.append(*range(SHARD_COUNT), events=20)
    journal._checkpoint_wal()
    killed(journal)
    wal = tmp_path / f"{DATABASE_FILE}-wal"
    content = bytearray(wal.read_bytes())
    content[15] ^= 3  # the number of checkpoints: new already; salts and checksum: old still
    wal.write_bytes(content)

    journal = opened(tmp_path)
    successor = Owner(journal)
    assert all(head.record_number == 10 for head in successor.heads.values())
    killed(journal)

    again = opened(tmp_path)
    assert again.all_heads() == list(successor.heads.values())
    again.close()
    assert (tmp_path / f"{DATABASE_FILE}-wal.unreadable").read_bytes().startswith(content)
