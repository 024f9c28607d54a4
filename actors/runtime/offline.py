"""What the command line does with a data directory's journal by itself: verify, compact, back up, restore.

Reading works beside a running server, of one moment. Writing takes the journal's lock and so refuses while one runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from actors.journal.lock import take_lock
from actors.journal.port import CompactResult
from actors.journal.sqlite_backup import Manifest, SqliteRestored
from actors.journal.sqlite_backup import backup as backup_sqlite
from actors.journal.sqlite_backup import restore as restore_sqlite
from actors.journal.verify import DAY_MS, Progress, VerifyReport, verify
from actors.runtime.settings import Settings
from actors.runtime.wiring import journal_directory, open_data_journal, read_data_journal

__all__ = ["backup_journal", "compact_journal", "restore_journal", "verify_journal"]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def verify_journal(
    data_dir: Path, progress: Progress | None = None, dedupe_window_ms: int = DAY_MS, jobs: int = 0
) -> VerifyReport:
    """Judge every record, as of one moment; within ``dedupe_window_ms`` no id may be spent twice. ``jobs``: processes; 0: as
    many as are worth it. JournalError when there is no journal.
    """
    journal = read_data_journal(data_dir)
    try:
        with journal.reading():
            return verify(journal, progress, dedupe_window_ms=dedupe_window_ms, jobs=jobs)
    finally:
        journal.close()


def compact_journal(settings: Settings, say: Callable[[str], None]) -> CompactResult:
    """Drop what retention allows. JournalLocked while a server runs: its holder is never killed from here."""
    read_data_journal(settings.data_dir).close()  # opening for writing would make one where there is none
    journal = open_data_journal(settings, settings.data_dir, say, end_holder=False)
    try:
        result = journal.compact(now_ms() - settings.retention_ms, now_ms() - settings.dedupe_window_ms)
        journal.checkpoint()
        return result
    finally:
        journal.close()


def backup_journal(data_dir: Path, destination: Path, progress: Callable[[int, int], None]) -> Manifest:
    """Copy the journal as it is now to a new file, with a manifest beside it."""
    return backup_sqlite(journal_directory(data_dir), destination, now_ms=now_ms(), progress=progress)


def restore_journal(
    settings: Settings, source: Path, progress: Callable[[int, int], None], *, replace: str, say: Callable[[str], None]
) -> SqliteRestored:
    """Put a backup back as a new timeline. ``replace``: the cluster id of the journal that may be put aside."""
    directory = journal_directory(settings.data_dir)
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    lock = take_lock(directory, role="restore", wait_s=0.0, kill_holder_after_s=None, say=say)
    try:
        return restore_sqlite(source, lock, now_ms=now_ms(), replace_existing=replace, progress=progress)
    finally:
        lock.release()
