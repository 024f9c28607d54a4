"""Backups while a server writes, and putting one back: a new timeline, nothing overwritten by accident."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.journal.port import JournalDamaged, JournalError, JournalMismatch
from actors.journal.sqlite import SqliteJournal
from actors.journal.sqlite_backup import backup, manifest_path, read_manifest, restore
from actors.journal.sqlite_open import open_journal, open_read_only
from actors.journal.sqlite_schema import DATABASE_FILE
from tests.unit.journal_places import NOW_MS, SHARD_COUNT, WANTED, Owner, contents, flipped, locked


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    journal = open_journal(locked(tmp_path / "journal"), WANTED, now_ms=NOW_MS, ballast_bytes=0)
    made = Owner(journal)
    for number in range(50):
        made.append(number % SHARD_COUNT, events=3)
    made.snapshot(0)
    yield made
    journal.close()


def reopened(directory: Path) -> SqliteJournal:
    lock = locked(directory)
    try:
        return open_journal(lock, WANTED, now_ms=NOW_MS, ballast_bytes=0)
    except BaseException:
        lock.release()
        raise


def restored(source: Path, directory: Path, replace: str = "") -> str:
    """Restore and let go of the lock; the new timeline."""
    lock = locked(directory)
    try:
        return restore(source, lock, now_ms=NOW_MS, replace_existing=replace).timeline
    finally:
        lock.release()


def test_a_backup_is_the_journal_of_one_moment_and_one_file(owner: Owner, tmp_path: Path) -> None:
    before = contents(owner.journal)
    target = tmp_path / "backups" / "one.sqlite3"
    target.parent.mkdir()
    steps: list[tuple[int, int]] = []
    manifest = backup(
        tmp_path / "journal", target, now_ms=NOW_MS, progress=lambda done, all_: steps.append((done, all_))
    )
    owner.append(0)
    assert sorted(path.name for path in target.parent.iterdir()) == ["one.sqlite3", "one.sqlite3.manifest.json"]
    assert read_manifest(target) == manifest
    assert manifest.size_bytes == target.stat().st_size
    assert steps[-1][0] == steps[-1][1] > 0
    restored(target, tmp_path / "other")
    copy = reopened(tmp_path / "other")
    after = contents(copy)
    header = copy.header
    copy.close()
    assert header.timeline != manifest.timeline
    assert after | {"header": None} == before | {"header": None}


def test_a_backup_taken_while_appending_is_consistent(owner: Owner, tmp_path: Path) -> None:
    enough, turns = threading.Event(), 0

    def on_backup() -> None:
        for number in range(5):
            backup(tmp_path / "journal", tmp_path / f"backup-{number}", now_ms=NOW_MS)
        enough.set()

    backing_up = threading.Thread(target=on_backup)
    backing_up.start()
    while not enough.is_set():
        owner.append(*range(SHARD_COUNT))
        owner.journal.checkpoint()
        turns += 1
    backing_up.join()
    assert turns > 0
    last = 0
    for number in range(5):
        manifest = read_manifest(tmp_path / f"backup-{number}")
        numbers = {head[2] - len(owner.journal.read(head[0], 0, 50)) for head in manifest.heads}
        total = sum(head[2] for head in manifest.heads)
        assert total >= last
        assert (total - 50) % SHARD_COUNT == 0, numbers  # every turn wrote to all shards: none is there in part
        last = total


def test_a_restored_journal_is_a_new_timeline_that_old_copies_do_not_belong_to(owner: Owner, tmp_path: Path) -> None:
    backup(tmp_path / "journal", tmp_path / "backup", now_ms=NOW_MS)
    timelines = {owner.journal.header.timeline}
    for number in range(2):
        timelines.add(restored(tmp_path / "backup", tmp_path / f"other-{number}"))
    assert len(timelines) == 3
    assert all(len(timeline) == 16 for timeline in timelines)
    successor = Owner(reopened(tmp_path / "other-0"))
    assert successor.heads[0].epoch == owner.heads[0].epoch + 1
    successor.append(0)
    successor.journal.close()


def test_a_journal_that_is_there_is_put_aside_only_by_its_name(owner: Owner, tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    backup(directory, tmp_path / "backup", now_ms=NOW_MS)
    owner.append(0)
    newer = contents(owner.journal)
    timeline = owner.journal.header.timeline
    owner.journal.close()
    for replace in ("", "wrong"):
        with pytest.raises(JournalMismatch, match=r"holds a journal already.*--replace c0ffee"):
            restored(tmp_path / "backup", directory, replace)
    restored(tmp_path / "backup", directory, "c0ffee")
    journal = reopened(directory)
    assert len(journal.read(0, 0, 100)) == len(newer["records"][0]) - 1  # type: ignore[index]
    journal.close()
    aside = open_read_only(directory / f"replaced-{timeline}")
    assert contents(aside) == newer
    aside.close()


def test_where_only_the_witness_is_left_a_backup_can_be_put_back(owner: Owner, tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    backup(directory, tmp_path / "backup", now_ms=NOW_MS)
    owner.journal.close()
    (directory / DATABASE_FILE).unlink()
    with pytest.raises(JournalDamaged, match="is gone"):
        reopened(directory)
    restored(tmp_path / "backup", directory, "c0ffee")
    reopened(directory).close()


def test_a_backup_never_overwrites_anything(owner: Owner, tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("something dear")
    with pytest.raises(JournalError, match="exists already"):
        backup(tmp_path / "journal", tmp_path / "backup", now_ms=NOW_MS)
    with pytest.raises(JournalError, match="there is no directory"):
        backup(tmp_path / "journal", tmp_path / "nowhere" / "backup", now_ms=NOW_MS)
    assert (tmp_path / "backup").read_text() == "something dear"


@pytest.mark.parametrize("damage", ["flipped", "cut", "no manifest", "other manifest"])
def test_a_damaged_backup_is_not_put_back(owner: Owner, tmp_path: Path, damage: str) -> None:
    target = tmp_path / "backup"
    backup(tmp_path / "journal", target, now_ms=NOW_MS)
    content = target.read_bytes()
    if damage == "flipped":
        target.write_bytes(flipped(content))
    elif damage == "cut":
        target.write_bytes(content[:-4096])
    elif damage == "no manifest":
        manifest_path(target).unlink()
    else:
        document = json.loads(manifest_path(target).read_text())
        manifest_path(target).write_text(json.dumps(document | {"sha256": "0" * 64}))
    with pytest.raises(JournalDamaged):
        restored(target, tmp_path / "other")
    assert not (tmp_path / "other" / DATABASE_FILE).exists()
