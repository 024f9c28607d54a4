"""Processes, locks, ports and paths as the supervisor uses them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors.runtime.local_ray import SOCKET_PATH_BYTES_MAX, SOCKET_PATH_TAIL_BYTES, short_path_to
from actors.runtime.ports import ReservedPort
from actors.runtime.processes import (
    MARK_VARIABLE,
    ProcessId,
    end_processes,
    find_marked,
    is_running,
    process_id,
    wait_for_exit,
)
from actors.runtime.run_directory import (
    DataDirectoryUnusable,
    ServeLock,
    ServeLocked,
    prepare_data_dir,
    read_cluster_token,
    read_ready,
    write_ready,
)


def start_sleeper(mark: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], env={**os.environ, MARK_VARIABLE: mark})


async def test_the_end_of_a_process_is_noticed_although_nobody_waited_for_it() -> None:
    sleeper = start_sleeper("nobody")
    me = process_id(sleeper.pid)
    assert me is not None and is_running(me)
    watch = asyncio.create_task(wait_for_exit(sleeper.pid))
    await asyncio.sleep(0)
    assert not watch.done()
    sleeper.kill()
    await asyncio.wait_for(watch, 5)
    assert Path(f"/proc/{sleeper.pid}").exists()  # a zombie: kill(pid, 0) would still call it alive
    assert not is_running(me)
    sleeper.wait()
    await asyncio.wait_for(wait_for_exit(sleeper.pid), 5)


def test_marked_processes_are_found_and_ended_and_no_others(tmp_path: Path) -> None:
    mine, other = start_sleeper(str(tmp_path)), start_sleeper(f"{tmp_path}-other")
    try:
        found = find_marked(str(tmp_path))
        assert [process.pid for process in found] == [mine.pid]
        end_processes(found, within_s=5)
        assert mine.wait(5) == -9
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def start_parent(program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


PARENT = """
import subprocess, sys, time
from actors.runtime.processes import {how}
print(subprocess.Popen(["sleep", "60"], preexec_fn={how}).pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["die_with_parent", "stop_with_parent"])
async def test_a_child_does_not_outlive_a_killed_parent(how: str) -> None:
    parent = start_parent(PARENT.format(how=how))
    assert parent.stdout is not None
    child = process_id(int(parent.stdout.readline()))
    assert child is not None and is_running(child)
    parent.kill()
    parent.communicate()
    await asyncio.wait_for(wait_for_exit(child.pid), 5)
    assert not is_running(child)


def test_a_reused_pid_is_not_ended() -> None:
    sleeper = start_sleeper("reused")
    try:
        end_processes([ProcessId(sleeper.pid, start_time=1)], within_s=0.1)
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_second_serve_is_refused_by_name(tmp_path: Path) -> None:
    first, second = ServeLock(tmp_path), ServeLock(tmp_path)
    first.acquire()
    with pytest.raises(ServeLocked, match=f"pid {os.getpid()} already serves"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(DataDirectoryUnusable, match="cannot be written"):
        prepare_data_dir(tmp_path / "file" / "data")


def test_ready_of_a_dead_serve_counts_as_nobody(tmp_path: Path) -> None:
    assert read_ready(tmp_path) is None
    me = process_id(os.getpid())
    assert me is not None
    write_ready(tmp_path, {"serve_pid": me.pid, "serve_start_time": me.start_time, "state": "serving"})
    assert (read_ready(tmp_path) or {})["state"] == "serving"
    write_ready(tmp_path, {"serve_pid": me.pid, "serve_start_time": me.start_time + 1, "state": "serving"})
    assert read_ready(tmp_path) is None


def test_the_cluster_token_is_made_once_and_private(tmp_path: Path) -> None:
    token = read_cluster_token(tmp_path)
    assert len(token) >= 32
    assert read_cluster_token(tmp_path) == token
    assert (tmp_path / "cluster-token").stat().st_mode & 0o077 == 0


def test_a_reserved_port_is_refused_to_others_and_shared_with_gateways() -> None:
    reserved = ReservedPort("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        ReservedPort("127.0.0.1", reserved.port)
    code = (
        "import socket, sys; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1);"
        "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen()"
    )
    assert subprocess.run([sys.executable, "-c", code, str(reserved.port)], check=False).returncode == 0
    reserved.close()
    ReservedPort("127.0.0.1", reserved.port).close()


def test_a_long_data_directory_gets_a_short_link_for_sockets(tmp_path: Path) -> None:
    long = tmp_path / ("a-long-name-" * 15)
    long.mkdir()
    short = short_path_to(long)
    assert short.resolve() == long.resolve()
    assert len(os.fsencode(short)) + SOCKET_PATH_TAIL_BYTES <= SOCKET_PATH_BYTES_MAX
    assert short_path_to(long) == short
    short.unlink()
    assert short_path_to(Path("/d")) == Path("/d")
