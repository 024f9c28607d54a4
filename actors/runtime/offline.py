"""What the command line does with a data directory's journal by itself: verify, compact, back up, restore.

Reading works beside a running server, of one moment. Writing takes the journal's lock and so refuses while one runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from actors.journal.lock import take_lock
from actors.journal.port import CompactResult, Header, JournalMismatch
from actors.journal.postgres_open import begin_timeline
from actors.journal.sqlite_backup import Manifest, SqliteRestored
from actors.journal.sqlite_backup import backup as backup_sqlite
from actors.journal.sqlite_backup import restore as restore_sqlite
from actors.journal.verify import DAY_MS, Progress, VerifyReport, verify
from actors.runtime.settings import Settings
from actors.runtime.wiring import database, journal_directory, open_data_journal, read_data_journal, read_journal

__all__ = ["backup_journal", "begin_journal_timeline", "compact_journal", "restore_journal", "verify_journal"]


BACKUP_OF_A_DATABASE = (
    "is backed up by PostgreSQL's own means: pg_basebackup with an archive of its log for any point in time, or pg_dump for one "
    "moment (docs/operations.md)"
)
RESTORE_OF_A_DATABASE = (
    "is restored by PostgreSQL's own means; then `stockade journal begin-timeline` tells every cache and cursor that it is "
    "another history from there on, and fences hosts that still run (docs/operations.md)"
)


def refuse_database(settings: Settings, why: str) -> None:
    """Raise JournalMismatch for a journal in PostgreSQL."""
    if settings.journal.is_shared:
        raise JournalMismatch(f"the journal {', '.join(settings.journal.shown_urls)} {why}")


def begin_journal_timeline(settings: Settings, cluster_id: str) -> Header:
    """After a restore of its database: the journal goes on as a new timeline. ``cluster_id`` says which one is meant.

    JournalMismatch: it is another cluster's.
    """
    if not settings.journal.is_shared:
        raise JournalMismatch("a SQLite journal begins a new timeline by `stockade restore`")
    journal = read_journal(settings)
    try:
        found = journal.header.cluster_id
    finally:
        journal.close()
    if found != cluster_id:
        raise JournalMismatch(f"the journal is of cluster {found}, not of {cluster_id!r}")
    return begin_timeline(database(settings))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def verify_journal(
    place: Path | Settings, progress: Progress | None = None, dedupe_window_ms: int = DAY_MS, jobs: int = 0
) -> VerifyReport:
    """Judge the journal of a data directory, or of these settings: every record, as of one moment.

    Within ``dedupe_window_ms`` no id may be spent twice. ``jobs``: processes; 0: as many as are worth it. JournalError when
    there is no journal.
    """
    journal = read_journal(place) if isinstance(place, Settings) else read_data_journal(place)
    try:
        with journal.reading():
            return verify(journal, progress, dedupe_window_ms=dedupe_window_ms, jobs=jobs)
    finally:
        journal.close()


def compact_journal(settings: Settings, say: Callable[[str], None]) -> CompactResult:
    """Drop what retention allows. JournalLocked while a server of a SQLite journal runs: its holder is never killed from
    here. In PostgreSQL it works beside the hosts.
    """
    read_journal(settings).close()  # opening for writing would make one where there is none
    journal = open_data_journal(settings, settings.data_dir, say, end_holder=False)
    try:
        result = journal.compact(now_ms() - settings.retention_ms, now_ms() - settings.dedupe_window_ms)
        journal.checkpoint()
        return result
    finally:
        journal.close()


def backup_journal(settings: Settings, destination: Path, progress: Callable[[int, int], None]) -> Manifest:
    """Copy the journal as it is now to a new file, with a manifest beside it. JournalError for one in PostgreSQL."""
    refuse_database(settings, BACKUP_OF_A_DATABASE)
    return backup_sqlite(journal_directory(settings.data_dir), destination, now_ms=now_ms(), progress=progress)


def restore_journal(
    settings: Settings, source: Path, progress: Callable[[int, int], None], *, replace: str, say: Callable[[str], None]
) -> SqliteRestored:
    """Put a backup back as a new timeline. ``replace``: the cluster id of the journal that may be put aside."""
    refuse_database(settings, RESTORE_OF_A_DATABASE)
    directory = journal_directory(settings.data_dir)
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    lock = take_lock(directory, role="restore", wait_s=0.0, kill_holder_after_s=None, say=say)
    try:
        return restore_sqlite(source, lock, now_ms=now_ms(), replace_existing=replace, progress=progress)
    finally:
        lock.release()
