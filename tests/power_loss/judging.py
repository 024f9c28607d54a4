"""Judges what was found after a power cut: opened as a successor would, compared with what must and may be there.

It looks at records, heads, entries, snapshots and backups, asks SQLite and ``verify`` for their opinion, and recovers: from snapshots
and, where all records are kept, from them alone. All of it must come to the states that the owners had.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.domain.apply import rebuild_indices
from actors.domain.state import Books
from actors.journal.port import EntryRow, Record
from actors.journal.sqlite import SqliteJournal
from actors.journal.sqlite_backup import _sha256, read_manifest
from actors.journal.sqlite_open import open_journal
from actors.journal.verify import verify
from actors.shard.encoding import canonical_state
from actors.shard.placement import shard_of
from actors.shard.recovery import load_shard, recover
from tests.power_loss.disk import Files
from tests.power_loss.expectation import Expectation, View, digest_of
from tests.power_loss.life import RULES, SHARD_COUNT, START_MS, WANTED, WINDOW_MS, locked

RECORDS_MAX = 100_000
LATER_MS = START_MS + 10**9


class Lost(AssertionError):
    """What was found is not what must or may be there."""


def put(files: Files, root: Path) -> None:
    """Write the files below a root, and remove everything else there."""
    root.mkdir(parents=True, exist_ok=True)
    for path in sorted(root.rglob("*"), reverse=True):  # what lies in a directory before it
        name = str(path)[len(str(root)) :]
        if not path.is_dir():
            path.unlink()
        elif name not in files:
            path.rmdir()  # only then: it is slow
    for name, content in sorted(files.items()):
        path = Path(f"{root}{name}")
        if content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)


def judge(root: Path, expectation: Expectation) -> int:
    """Judge what lies below ``root``; how many of the unanswered operations happened. Raises ``Lost``."""
    happened = 0
    with opened(root) as journal:
        if expectation.made or journal.info().record_count:
            happened, view = _matching(journal, expectation)
            _judge_contents(journal, expectation, view)
            _judge_states(journal, expectation, view)
    for name in expectation.backups:
        _judge_backup(Path(f"{root}{name}"))
    with opened(root) as journal:  # closed in order once; and now the life after it
        recovered = recover(journal, range(SHARD_COUNT), RULES, LATER_MS)
        own = recovered.ownership
        journal.append(own.records, own.entries, own.read_heads)
        journal.checkpoint()
    return happened


@contextmanager
def opened(root: Path) -> Iterator[SqliteJournal]:
    """The journal below a root as its next owner opens it."""
    lock = locked(root / "data" / "journal")
    ids = (f"later{number:011x}" for number in itertools.count())
    try:
        journal = open_journal(lock, WANTED, now_ms=LATER_MS, new_id=lambda: next(ids), ballast_bytes=0)
    except BaseException:
        lock.release()
        raise
    try:
        yield journal
    finally:
        journal.close()


def _matching(journal: SqliteJournal, expectation: Expectation) -> tuple[int, View]:
    heads = {head.shard: (head.epoch, head.record_number, head.sequence) for head in journal.all_heads()}
    snapshots = {shard: journal.snapshots(shard) for shard in range(SHARD_COUNT)}
    views = list(expectation.views())
    for happened, view in reversed(list(enumerate(views))):
        if view.heads == heads and snapshots == {n: [one for one, _ in kept] for n, kept in view.snapshots.items()}:
            return happened, view
    must = {shard: head for shard, head in views[0].heads.items() if heads[shard] != head}
    kept = {n: [one.snapshot_id for one, _ in kept] for n, kept in views[0].snapshots.items()}
    raise Lost(
        f"heads (epoch, record, sequence) { ({shard: heads[shard] for shard in must}) } where {must} was acknowledged; snapshots "
        f"{ ({n: [one.snapshot_id for one in found] for n, found in snapshots.items()}) } of {kept}; under way: "
        f"{[type(operation).__name__ for operation in expectation.pending]}"
    )


def _judge_contents(journal: SqliteJournal, expectation: Expectation, view: View) -> None:
    for shard in range(SHARD_COUNT):
        expected = expectation.records[shard] + [
            one for append in view.appends for one in append.records if one.shard == shard
        ]
        first = journal.first_number(shard)
        if first > expectation.may_drop_to[shard] + 1:
            raise Lost(f"shard {shard} begins with record {first}; dropped up to {expectation.may_drop_to[shard]} only")
        _compare_records(shard, journal.read(shard, 0, RECORDS_MAX), expected[first - 1 :])
        for snapshot, slices in view.snapshots[shard]:
            if journal.read_slices(snapshot) != list(slices):
                raise Lost(f"snapshot {snapshot.snapshot_id} of shard {shard} has other slices than were written")
    _compare_entries(journal, expectation, view)
    if problems := journal.file_problems():
        raise Lost(f"SQLite finds the file unsound: {problems}")
    report = verify(journal, dedupe_window_ms=WINDOW_MS)
    if report.violation_count:
        raise Lost(f"verify: {[str(one) for one in report.violations[:3]]}")


def _compare_records(shard: int, found: list[Record], expected: list[Record]) -> None:
    for at, record in enumerate(expected):
        if at >= len(found):
            raise Lost(f"shard {shard}: the acknowledged record {record.number} is gone")
        if found[at] != record:
            raise Lost(f"shard {shard}: record {record.number} is not as it was acknowledged")
    if len(found) > len(expected):
        raise Lost(f"shard {shard}: record {found[len(expected)].number} was never written")


def _compare_entries(journal: SqliteJournal, expectation: Expectation, view: View) -> None:
    expected: dict[str, EntryRow] = dict(expectation.entries)
    for append in view.appends:
        expected.update({entry.key: entry for entry in append.entries})
    found = journal.find_entries(list(journal.entry_keys()))
    for key, entry in found.items():
        if expected.get(key) != entry:
            raise Lost(f"the entry {key!r} is not as it was acknowledged")
    for key in expected.keys() - found.keys():
        if expected[key].end_time_ms >= expectation.entries_may_end_ms:
            raise Lost(f"the acknowledged entry {key!r} is gone")


def _judge_states(journal: SqliteJournal, expectation: Expectation, view: View) -> None:
    """Snapshot plus tail, and all records where they are kept, make the state that the owner had after the last record."""
    digests = dict(expectation.digests)
    for append in view.appends:
        digests.update({(one.shard, one.number): append.digests[one.shard] for one in append.records})
    for use_snapshots in (True, False):
        shards = [one for one in range(SHARD_COUNT) if use_snapshots or journal.first_number(one) == 1]
        books = Books(RULES, lambda key: shard_of(key, SHARD_COUNT))
        for shard in shards:
            load_shard(journal, books, shard, use_snapshots=use_snapshots)
        rebuild_indices(books)
        for shard in shards:
            number = view.heads[shard][1]
            if number and digest_of(canonical_state(books, shard)) != digests[shard, number]:
                how = "snapshot and tail" if use_snapshots else "all records"
                raise Lost(f"shard {shard} recovered from {how} is not the state that was after record {number}")


def _judge_backup(path: Path) -> None:
    if not path.exists():
        raise Lost(f"the backup {path.name} was reported and is gone")
    manifest = read_manifest(path)
    if (path.stat().st_size, _sha256(path)) != (manifest.size_bytes, manifest.sha256):
        raise Lost(f"the backup {path.name} is not what its manifest says")
