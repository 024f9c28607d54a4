"""Damage at rest: bits that flip, sectors that are zeros or another's, in a journal that was sound. Nothing wrong is ever served.

A damaged journal is refused when it is opened or recovered, by an error that says where; or the damage lies where nothing serves
from (free pages, old records, old snapshots, rows of ended reservations), and what is asked of it is answered right or refused, and
the file check or ``verify`` finds it. Damage to the very last commit in the WAL is as a torn tail: that commit alone is dropped.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from actors.domain.apply import rebuild_indices
from actors.domain.state import Books
from actors.journal.port import JournalDamaged, JournalError
from actors.journal.sqlite import SqliteJournal
from actors.journal.verify import verify
from actors.shard.encoding import canonical_state
from actors.shard.placement import shard_of
from actors.shard.recovery import load_shard, recover
from tests.power_loss.disk import SECTOR_BYTES, Files
from tests.power_loss.disk_recording import Recorder
from tests.power_loss.expectation import Expectation, View, digest_of
from tests.power_loss.judging import LATER_MS, Lost, opened, put
from tests.power_loss.life import RULES, SHARD_COUNT, WINDOW_MS, Life, small_bounds

DATABASE, WAL = "/data/journal/journal.sqlite3", "/data/journal/journal.sqlite3-wal"
DAMAGES_PER_JOURNAL = 100


@dataclass(slots=True)
class DamageFigures:
    """``outcomes``: what became of how many damaged journals; ``failures``: those that served something wrong."""

    damages: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def damage_sweep(seed: int, damages: int, work: Path) -> DamageFigures:
    """Journals of seeds ``seed``, ``seed + 1``, …, each damaged many times, one damage at a time."""
    figures = DamageFigures()
    with small_bounds():
        for number in itertools.count(seed):
            if figures.damages >= damages:
                return figures
            draw = random.Random(number)
            files, expectation = _lived(work / "live", draw)
            for _ in range(min(DAMAGES_PER_JOURNAL, damages - figures.damages)):
                figures.damages += 1
                name, at, damaged = _damaged(files, draw)
                put({**files, name: damaged}, work / "cut")
                try:
                    figures.outcomes[_outcome(work / "cut", expectation, name)] += 1
                except (AssertionError, Exception) as error:
                    where = f"--damages {damages} --seed {number}: {name}, byte {at}"
                    figures.failures.append(f"{where}: {type(error).__name__}: {error}")
    raise AssertionError("unreachable")


def _lived(root: Path, draw: random.Random) -> tuple[Files, Expectation]:
    """A sound journal that has been through some lives, the last of them killed half of the time; and what it holds."""
    files: Files = {"/backups": None}
    put(files, root)
    expectation = Expectation(SHARD_COUNT)
    clock = itertools.count(1)
    with Recorder(root, files, draw) as recorder:
        for _ in range(3):
            life = Life(recorder, expectation, draw, clock, ballast_bytes=0, after_opening=lambda journal: None)
            life.run(40)
    found = {f"/{path.relative_to(root)}": path for path in sorted(root.rglob("*")) if not path.name.endswith("-shm")}
    return {name: None if path.is_dir() else path.read_bytes() for name, path in found.items()}, expectation


def _damaged(files: Files, draw: random.Random) -> tuple[str, int, bytes]:
    name = WAL if files.get(WAL) and draw.random() < 0.4 else DATABASE
    content = bytearray(files[name] or b"")
    at = draw.randrange(len(content))
    how = draw.choice(("bit", "bit", "byte", "zeros", "other"))
    if how == "bit":
        content[at] ^= 1 << draw.randrange(8)
    elif how == "byte":
        content[at] = (content[at] + draw.randint(1, 255)) % 256
    else:
        at -= at % SECTOR_BYTES
        other = draw.randrange(len(content)) // SECTOR_BYTES * SECTOR_BYTES
        new = bytes(SECTOR_BYTES) if how == "zeros" else bytes(content[other : other + SECTOR_BYTES])
        length = min(len(new), len(content) - at)
        content[at : at + length] = new[:length]
    return name, at, bytes(content)


def _outcome(root: Path, expectation: Expectation, name: str) -> str:
    try:
        with opened(root) as journal:
            return _served(journal, expectation, name)
    except JournalError as refusal:
        kind = "refused" if isinstance(refusal, JournalDamaged) else "refused, not as damage"
        if str(root) not in str(refusal) and "shard" not in str(refusal):
            raise Lost(f"refused without saying where: {refusal}") from refusal
        return kind


def _served(journal: SqliteJournal, expectation: Expectation, name: str) -> str:
    heads = {head.shard: (head.epoch, head.record_number, head.sequence) for head in journal.all_heads()}
    view = next(iter(expectation.views()))
    if heads != view.heads:
        if name == WAL and _is_one_commit_less(journal, expectation):
            return "its last commit dropped as a torn tail"
        raise Lost(f"served with heads {heads} instead of {view.heads}")
    if not _recovers(journal, expectation, view):
        return "refused in recovery"
    harmed = _harmed_rows(journal, expectation, view)
    noticed = bool(journal.file_problems()) or bool(verify(journal, dedupe_window_ms=WINDOW_MS).violation_count)
    if harmed.get("gone without a word") and not noticed:
        raise Lost(f"rows that were acknowledged are not found, and no check tells: {harmed}")
    if harmed:
        return (
            "old rows refused or gone; serving unharmed, found by the checks"
            if noticed
            else "old rows refused when asked for"
        )
    return "unharmed, found by the checks" if noticed else "unharmed"


def _is_one_commit_less(journal: SqliteJournal, expectation: Expectation) -> bool:
    """Whether some shards stand one record, or one epoch, behind and everything before it is there."""
    for head in journal.all_heads():
        records = expectation.records[head.shard]
        found = journal.read(head.shard, 0, 100_000)
        if head.record_number < len(records) - 1 or found != records[: head.record_number][-len(found) :]:
            return False
    return True


def _recovers(journal: SqliteJournal, expectation: Expectation, view: View) -> bool:
    """Whether it can be recovered from; then the states must be those that were."""
    books = Books(RULES, lambda key: shard_of(key, SHARD_COUNT))
    try:
        for shard in range(SHARD_COUNT):
            load_shard(journal, books, shard)
        rebuild_indices(books)
        recover(journal, range(SHARD_COUNT), RULES, LATER_MS)
    except JournalDamaged:
        return False
    for shard in range(SHARD_COUNT):
        if digest_of(canonical_state(books, shard)) != expectation.digests[shard, view.heads[shard][1]]:
            raise Lost(f"shard {shard} was recovered to another state, and nothing was said")
    return True


def _harmed_rows(journal: SqliteJournal, expectation: Expectation, view: View) -> Counter[str]:
    """Rows that are refused or gone; a row that is other than it was raises ``Lost``."""
    harmed: Counter[str] = Counter()
    for shard in range(SHARD_COUNT):
        expected = {one.number: one for one in expectation.records[shard]}
        for number in range(expectation.may_drop_to[shard] + 1, view.heads[shard][1] + 1):
            try:
                found = journal.read(shard, number - 1, 1)
            except JournalError:
                harmed["refused"] += 1
                continue
            if found and found[0] not in (expected[number], expected.get(found[0].number)):
                raise Lost(f"record {number} of shard {shard} is read as another")
            harmed["gone without a word"] += not found or found[0].number != number
    for key, entry in copy.copy(expectation.entries).items():
        try:
            row = journal.find_entries([key]).get(key)
        except JournalError:
            harmed["refused"] += 1
            continue
        if row is not None and row != entry:
            raise Lost(f"the entry {key!r} is read as another")
        harmed["gone without a word"] += row is None and entry.end_time_ms >= expectation.entries_may_end_ms
    return +harmed
