"""The lock between real processes: who waits, who is refused, who is killed, and who is left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.journal.lock import LOCK_FILE, Clock, JournalLock, read_holder, start_time, take_lock
from actors.journal.port import JournalError, JournalLocked
from actors.journal.sqlite_open import open_journal
from tests.unit.journal_places import NOW_MS, WANTED, Owner

HOLDER = """
import sys, time
from pathlib import Path
from actors.journal.lock import take_lock
options = {"role": "shard host", "wait_s": 0, "kill_holder_after_s": None, "say": print, "cluster_id": sys.argv[2]}
lock = take_lock(Path(sys.argv[1]), **options)
print("held", flush=True)
sys.stdin.read()
"""
WRITER = """
import sys
from pathlib import Path
from tests.unit.journal_places import NOW_MS, WANTED, Owner, locked
from actors.journal.sqlite_open import open_journal
owner = Owner(open_journal(locked(Path(sys.argv[1])), WANTED, now_ms=NOW_MS, ballast_bytes=0))
while True:
    owner.append(0, 1)
    print(owner.heads[0].record_number, flush=True)
"""
ROOT = Path(__file__).resolve().parents[2]


class Processes:
    """Child processes, all ended with the test."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def holder(self, directory: Path, cluster_id: str = "c0ffee") -> subprocess.Popen[str]:
        process = self.start(HOLDER, str(directory), cluster_id)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.end()


def take(
    directory: Path, *, wait_s: float = 0, kill_after_s: float | None = None, cluster_id: str = ""
) -> tuple[JournalLock, list[str]]:
    """The lock and what was said while waiting for it."""
    said: list[str] = []
    lock = take_lock(
        directory,
        role="successor",
        wait_s=wait_s,
        kill_holder_after_s=kill_after_s,
        say=said.append,
        cluster_id=cluster_id,
    )
    return lock, said


def test_the_second_is_refused_and_told_who_holds_it(tmp_path: Path, processes: Processes) -> None:
    holder = processes.holder(tmp_path)
    with pytest.raises(JournalLocked, match=rf"is held by pid {holder.pid} \(shard host, cluster c0ffee\)"):
        take(tmp_path)
    assert holder.poll() is None


def test_the_lock_is_free_once_its_holder_ended(tmp_path: Path, processes: Processes) -> None:
    holder = processes.holder(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock, said = take(tmp_path)
    assert said == []
    assert read_holder(tmp_path / LOCK_FILE) == lock.holder
    lock.release()


def test_a_successor_waits_for_a_holder_that_ends_by_itself(tmp_path: Path, processes: Processes) -> None:
    holder = processes.holder(tmp_path)

    def end_holder(_seconds: float) -> None:
        holder.kill()
        holder.wait()

    said: list[str] = []
    clock = Clock(sleep=end_holder)
    lock = take_lock(tmp_path, role="successor", wait_s=30, kill_holder_after_s=None, say=said.append, clock=clock)
    assert f"pid {holder.pid}" in said[0]
    assert "until it ends" in said[0]
    lock.release()


def test_a_holder_that_stays_is_killed_after_the_bound(tmp_path: Path, processes: Processes) -> None:
    holder = processes.holder(tmp_path)
    holder.send_signal(signal.SIGSTOP)  # it can neither answer nor end by itself
    lock, said = take(tmp_path, wait_s=5, kill_after_s=0.2, cluster_id="c0ffee")
    assert holder.wait(10) == -signal.SIGKILL
    assert [f"pid {holder.pid}" in line for line in said] == [True, True]
    assert "killed" in said[1]
    lock.release()


def test_a_holder_of_another_cluster_is_left_alone(tmp_path: Path, processes: Processes) -> None:
    holder = processes.holder(tmp_path, "other")
    with pytest.raises(JournalLocked, match="which is not cluster c0ffee: it is left alone"):
        take(tmp_path, wait_s=0.1, kill_after_s=0, cluster_id="c0ffee")
    assert holder.poll() is None


@pytest.mark.parametrize(
    ("why", "field", "value"),
    [
        ("its pid was given to another process since", "start_time", 1),
        ("it runs since another boot, on another machine", "boot_id", "another"),
        ("no process has that pid here", "pid", 2**22 - 3),
    ],
)
def test_a_holder_that_is_not_surely_the_one_is_left_alone(
    tmp_path: Path, processes: Processes, why: str, field: str, value: object
) -> None:
    holder = processes.holder(tmp_path)
    _rewrite(tmp_path, {field: value})
    with pytest.raises(JournalLocked, match="cannot be seen from here: it is left alone"):
        take(tmp_path, wait_s=0.1, kill_after_s=0)
    assert holder.poll() is None, why


def test_a_process_that_does_not_have_the_file_open_is_left_alone(tmp_path: Path, processes: Processes) -> None:
    holder, stranger = processes.holder(tmp_path), processes.holder(tmp_path / "elsewhere")
    _rewrite(tmp_path, {"pid": stranger.pid, "start_time": start_time(stranger.pid)})
    with pytest.raises(JournalLocked, match="it is left alone"):
        take(tmp_path, wait_s=0.1, kill_after_s=0)
    assert (holder.poll(), stranger.poll()) == (None, None)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pid": "x"}'])
def test_a_lock_file_that_says_nothing_is_waited_for_but_nobody_killed(
    tmp_path: Path, processes: Processes, content: str
) -> None:
    holder = processes.holder(tmp_path)
    (tmp_path / LOCK_FILE).write_text(content)
    with pytest.raises(JournalLocked, match="is held by another process"):
        take(tmp_path, kill_after_s=0)
    assert holder.poll() is None


def test_this_very_process_is_not_killed(tmp_path: Path) -> None:
    lock, _ = take(tmp_path)
    with pytest.raises(JournalLocked, match="this very process"):
        take(tmp_path, wait_s=0.1, kill_after_s=0)
    lock.release()
    lock.release()


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JournalError, match="cannot be used"):
        take(tmp_path / "file" / "journal")


def test_a_successor_kills_a_writer_and_finds_all_it_acknowledged(tmp_path: Path, processes: Processes) -> None:
    writer = processes.start(WRITER, str(tmp_path))
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(50)][-1]
    lock, said = take(tmp_path, wait_s=10, kill_after_s=0, cluster_id=WANTED.cluster_id)
    assert writer.wait(10) == -signal.SIGKILL
    rest = [int(line) for line in writer.stdout.read().split("\n")[:-1] if line]
    acknowledged = rest[-1] if rest else acknowledged
    owner = Owner(open_journal(lock, WANTED, now_ms=NOW_MS, ballast_bytes=0))
    kept = owner.heads[0].record_number
    assert acknowledged <= kept <= acknowledged + 1  # at most the one whose answer was not out yet
    assert len(owner.journal.read(1, 0, 10**6)) == kept  # both shards of every turn, or none
    assert said
    owner.append(0, 1)
    owner.journal.close()


def test_waiting_has_an_end(tmp_path: Path, processes: Processes) -> None:
    processes.holder(tmp_path)
    began = time.monotonic()
    with pytest.raises(JournalLocked, match=r"waited 0\.[3-9] s"):
        take(tmp_path, wait_s=0.3)
    assert time.monotonic() - began < 5


def _rewrite(directory: Path, changes: dict[str, object]) -> None:
    path = directory / LOCK_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
