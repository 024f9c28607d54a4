"""``verify`` in several processes finds what it finds in one, and the command says it, on journals of SQLite and in memory."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import apsw
import pytest
from typer.testing import CliRunner, Result

from actors.journal.codec import decode_groups, encode_groups, record_checksum
from actors.journal.memory import MemoryJournal, MemoryStore, copy_store
from actors.journal.port import JournalError, Record, ShardHead
from actors.journal.verify import VerifyReport, verify
from actors.journal.verify_ledger import Ledger
from actors.journal.verify_workers import Workers
from bench.verify_journal import make_journal
from gateway.cli.main import app
from tests.unit.test_verify_random import Day, events_of, honest_store, sealed

pytestmark = pytest.mark.timeout(120)

OK, VERIFY_FAILED = 0, 7
NOT_ALIKE = {"seconds", "cpu_seconds", "jobs", "events_per_second"}


def found(report: VerifyReport) -> dict[str, Any]:
    return {name: value for name, value in report.plain().items() if name not in NOT_ALIKE}


def both(store: MemoryStore) -> VerifyReport:
    """Judged in two processes; as in one."""
    alone, together = verify(MemoryJournal(store)), verify(MemoryJournal(store), jobs=2)
    assert found(together) == found(alone)
    assert (alone.jobs, together.jobs) == (1, 2)
    return together


def test_an_honest_journal_is_judged_alike_whole_and_compacted(run_seed: int) -> None:
    world = Day(run_seed).pass_turns(80)
    assert both(world.store).ok
    for _ in range(2):
        world.receive("A", 1)
        world.receive("B", 1, warehouse="om")
        world.snapshot(between=lambda: world.reserve(("A", 1), ("B", 1, "1", "om")))
    world.journal.compact(world.now_ms + 1, 0)
    compacted = both(world.store)
    assert compacted.ok
    assert compacted.from_snapshot_shards > 0


@pytest.mark.parametrize(("kind", "field"), [(20, 4), (34, 3), (22, 4), (12, 4), (30, 1)])
def test_what_was_changed_is_found_alike(kind: int, field: int, run_seed: int) -> None:
    draw = random.Random(run_seed)
    store = copy_store(honest_store(run_seed))
    for _ in range(3):
        shard, at, group, index = draw.choice(list(events_of(store, kind)))
        groups = decode_groups(store.records[shard][at][0].payload)
        event = groups[group][1][index]
        event[field] = event[field] + 1 if isinstance(event[field], int) else event[field] + "x"
        sealed(store, shard, at, groups)
    report = both(store)
    assert not report.ok
    assert report.rounds == 2 or kind not in (20, 22, 34), "what home and claims say differs: it is named"


def test_an_id_spent_twice_in_the_shards_of_two_processes_is_found(run_seed: int) -> None:
    store = copy_store(honest_store(run_seed))
    first, *_, last = (place for place in events_of(store, 30))
    opened = decode_groups(store.records[first[0]][first[1]][0].payload)[first[2]][1][first[3]]
    groups = decode_groups(store.records[last[0]][last[1]][0].payload)
    groups[last[2]][1][last[3]][3:5] = groups[last[2]][0][1:3] = opened[3:5]
    report = both(sealed(store, last[0], last[1], groups))
    assert "request id" in report.violations_by_rule


def test_damage_is_found_alike(run_seed: int) -> None:
    store = copy_store(honest_store(run_seed))
    for shard in sorted(store.records, key=lambda one: len(store.records[one]))[-3:]:
        record, checksum = store.records[shard][3]
        store.records[shard][3] = (record, checksum ^ 1)
    assert both(store).violations_by_rule == {"record": 3}


class Unreadable(MemoryJournal):
    """A journal whose disk fails after a while."""

    reads = 0

    def read(self, shard: int, after_number: int, limit: int) -> list[Record]:
        self.reads += 1
        if self.reads > 3:
            raise JournalError("the disk has gone")
        return super().read(shard, after_number, limit)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_journal_that_cannot_be_read_is_an_error_and_no_verdict(jobs: int, run_seed: int) -> None:
    with pytest.raises(JournalError, match="the disk has gone"):
        verify(Unreadable(honest_store(run_seed)), jobs=jobs)


def test_a_process_that_dies_is_an_error_and_no_verdict(run_seed: int) -> None:
    journal = MemoryJournal(honest_store(run_seed))

    class Killer(Workers):
        def _answer(self, what: str, arguments: Any, heads: Any) -> Any:
            if what == "read":
                self.started[0].kill()
            return super()._answer(what, arguments, heads)

        def _start(self) -> Any:
            process = super()._start()
            self.started.append(process)
            return process

        def __init__(self, heads: tuple[ShardHead, ...]) -> None:
            super().__init__(journal, heads, 0)
            self.started: list[Any] = []

    with pytest.raises(JournalError, match="could not be verified"):
        Killer(journal.info().heads).round([Ledger(1_000)])


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal as the benchmark makes it."""
    directory = tmp_path_factory.mktemp("verified")
    make_journal(directory, "mixed", 6_000, seed=1)
    return directory


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["verify", *words])


def test_the_command_says_what_it_judged(data_dir: Path) -> None:
    result = run("--data-dir", str(data_dir))
    assert (result.exit_code, result.stderr) == (OK, "")
    for what in ("conservation", "snapshots compared", "oversells", "events/s", "correct"):
        assert what in result.stdout
    document = json.loads(run("--data-dir", str(data_dir), "--json", "--jobs", "2").stdout)
    assert (document["ok"], document["conserved"], document["jobs"], document["rounds"]) == (True, True, 2, 1)
    assert document["snapshots_compared"] > 0
    assert document["events"] >= 6_000


def test_the_command_says_where_and_why_and_ends_with_seven(data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "journal" / "journal.sqlite3"
    file.parent.mkdir()
    file.write_bytes((data_dir / "journal" / "journal.sqlite3").read_bytes())
    shard, number = grant_more(file)
    result = run("--data-dir", str(tmp_path))
    assert result.exit_code == VERIFY_FAILED
    assert f"shard {shard}, record {number}, sequence" in result.stdout
    assert "OVERSELL" in result.stdout
    for what in (
        "rule",
        "cover: a claim that needs cover",
        "expected",
        "found",
        "because of",
        "ClaimGranted(",
        "BROKEN",
    ):
        assert what in result.stdout, what
    as_json = run("--data-dir", str(tmp_path), "--json")
    assert as_json.exit_code == VERIFY_FAILED
    first = next(one for one in json.loads(as_json.stdout)["violations"] if one["rule"] == "cover")
    assert (first["shard"], first["record_number"]) == (shard, number)
    assert all(first[name] for name in ("rule_text", "message", "expected", "found", "cause", "event", "time_ms"))


def grant_more(file: Path) -> tuple[int, int]:
    """Change one grant in the file, with the checksum made anew; (shard, number) of its record."""
    connection = apsw.Connection(str(file))
    columns = "shard, number, epoch, first_sequence, event_count, time_ms, payload"
    for row in connection.execute(f"SELECT {columns} FROM records ORDER BY id DESC").fetchall():
        columns_of_row: Any = row
        record = Record(*columns_of_row)
        groups = decode_groups(record.payload)
        grants = [event for _, events in groups for event in events if event[0] == 20]
        if grants:
            grants[0][4] += 10**6
            changed = record._replace(payload=encode_groups(groups))
            connection.execute(
                "UPDATE records SET payload = ?, checksum = ? WHERE shard = ? AND number = ?",
                (changed.payload, record_checksum(changed), record.shard, record.number),
            )
            connection.close()
            return record.shard, record.number
    raise AssertionError("no grant")
