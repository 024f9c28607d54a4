"""``serve`` as a whole: starts, answers, refuses a second one, stops cleanly, comes back with everything it had."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.runtime.processes import find_marked
from tests.e2e.conftest import StartServe
from tests.e2e.shopping import Memory, Shop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


LISTENING = "0A"  # a state in /proc/net/tcp
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def addresses_open_beyond_loopback(pids: list[int]) -> set[str]:
    """What these processes listen on that others than this machine may reach, as /proc/net/tcp spells it."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(str(descriptor.readlink()))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1])
    assert found
    return {address for address in found if address.partition(":")[0] not in LOOPBACK}


def test_every_port_of_ours_and_of_rays_is_on_loopback(make_serve: StartServe) -> None:
    serve = make_serve()
    serve.start()
    serve.wait_serving()
    pids = [process.pid for process in find_marked(str(serve.data_dir))]
    assert addresses_open_beyond_loopback([serve.pid, *pids]) == set()
    assert serve.terminate() == 0


async def test_what_was_acknowledged_is_there_after_a_restart(make_serve: StartServe) -> None:
    serve = make_serve(environment={"STOCKADE_GATEWAYS": "2"})
    memory = Memory()
    serve.start()
    state = serve.wait_serving()
    shop = Shop(state["grpc"], memory, seed=1, skus=["A", "B"])
    await shop.receive(quantity=10)
    held = await shop.reserve("r-1", "A", 4)
    assert held.reservation_id
    assert (await shop.reserve("r-2", "A", 7)).reservation_id == ""
    await shop.confirm(held)
    await shop.close()

    assert get(state["http"], "/livez")[0] == 200
    assert get(state["http"], "/readyz") == (200, "ready\n")
    metrics = get(state["http"], "/metrics")[1]
    for wanted in (
        'process="host"',
        'process="gateway-0"',
        'process="gateway-1"',
        "stockade_node_serving",
        "stockade_oversell",
    ):
        assert wanted in metrics
    assert serve.terminate() == 0
    assert "stopped cleanly" in serve.said()
    assert find_marked(str(serve.data_dir)) == []
    assert not (serve.data_dir / "ready.json").exists()

    serve.start()
    state = serve.wait_serving()
    shop = Shop(state["grpc"], memory, seed=1, skus=["A", "B"])
    assert (await shop.reserve("r-1", "A", 4)).reservation_id == held.reservation_id
    assert (await shop.reserve("r-3", "A", 7)).reservation_id == ""
    assert (await shop.reserve("r-4", "A", 6)).reservation_id
    await shop.close()
    assert serve.terminate() == 0


def test_a_second_serve_on_the_same_data_directory_is_refused(make_serve: StartServe) -> None:
    first, second = make_serve(), make_serve()
    first.start()
    first.wait_serving()
    second.start()
    assert second.wait_exit() == 5
    assert f"pid {first.pid} already serves" in second.said()
    assert first.ready() is not None
    assert first.terminate() == 0


def test_a_port_in_use_is_a_clear_error(make_serve: StartServe) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for setting in ("STOCKADE_GRPC_PORT", "STOCKADE_HTTP_PORT"):
            serve = make_serve(environment={setting: str(port)})
            serve.start()
            assert serve.wait_exit() == 5
            assert f"port {port} on 127.0.0.1 is in use" in serve.said()


def test_a_data_directory_that_cannot_be_written_is_a_clear_error(make_serve: StartServe, tmp_path: Path) -> None:
    serve = make_serve(environment={})
    serve.data_dir = Path("/proc/sys/stockade")  # nobody can write there, root included
    serve.start()
    assert serve.wait_exit() == 5
    assert "cannot be written" in serve.said()


def test_a_read_only_disk_is_a_clear_error_and_harms_nothing(
    make_serve: StartServe, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(100)
    serve = make_serve()
    serve.data_dir = disk / "data"
    serve.start()
    serve.wait_serving()
    assert serve.terminate() == 0
    remounted = ["mount", "-o", "remount,ro", str(disk)]
    subprocess.run(remounted, check=True)
    serve.start()
    assert serve.wait_exit() == 5
    assert "cannot be written: Read-only file system" in serve.said()
    subprocess.run([*remounted[:2], "remount,rw", str(disk)], check=True)
    serve.start()
    serve.wait_serving()
    assert serve.terminate() == 0


def test_wrong_settings_are_a_usage_error(make_serve: StartServe) -> None:
    serve = make_serve(environment={"STOCKADE_GATEWAYS": "none"})
    serve.start()
    assert serve.wait_exit() == 2
    assert "gateways (from environment STOCKADE_GATEWAYS)" in serve.said()


def test_an_address_open_to_the_network_without_protection_is_refused(make_serve: StartServe) -> None:
    serve = make_serve(environment={"STOCKADE_GRPC_HOST": "0.0.0.0"})
    serve.start()
    assert serve.wait_exit() == 5
    assert "allow_insecure_network" in serve.said()


def test_a_damaged_journal_ends_serve_and_says_where(make_serve: StartServe) -> None:
    serve = make_serve()
    serve.start()
    serve.wait_serving()
    assert serve.terminate() == 0
    (serve.data_dir / "journal" / "journal.sqlite3").unlink()
    serve.start()
    assert serve.wait_exit(60) == 5
    assert "is gone" in serve.said()
    assert find_marked(str(serve.data_dir)) == []


def test_interrupting_the_start_leaves_nothing_behind(make_serve: StartServe) -> None:
    serve = make_serve()
    serve.start()
    deadline = time.monotonic() + 10
    while "Stockade starts" not in serve.said():
        assert time.monotonic() < deadline, serve.said()
    os.kill(serve.pid, signal.SIGINT)
    assert serve.wait_exit() == 0
    assert find_marked(str(serve.data_dir)) == []


async def test_a_host_that_hangs_is_ended_and_replaced(make_serve: StartServe) -> None:
    serve = make_serve(environment={"STOCKADE_SILENCE_MS_MAX": "3s"})
    serve.start()
    state = await asyncio.to_thread(serve.wait_serving)
    shop = Shop(state["grpc"], Memory(), seed=1, skus=["A"])
    await shop.receive(quantity=10)
    stopped_pid = serve.pause("host")
    assert (await shop.reserve("r-1", "A", 1)).reservation_id
    state = await asyncio.to_thread(serve.wait_serving)
    assert state["host_pid"] != stopped_pid
    assert serve.said().count("mended:") == 1, "it was called mended before the host was replaced"
    await shop.close()
    assert serve.terminate() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of some MiB, where this machine lets us."""
    mounted: list[Path] = []

    def make(mebibytes: int) -> Path:
        directory = tmp_path / f"disk-{mebibytes}"
        directory.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(directory)]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            pytest.skip("this user may not mount a small file system")
        mounted.append(directory)
        return directory

    yield make
    for directory in mounted:
        subprocess.run(["umount", "--lazy", str(directory)], check=False)


def test_a_disk_too_small_to_start_on_is_a_clear_error(
    make_serve: StartServe, small_disk: Callable[[int], Path]
) -> None:
    serve = make_serve()
    serve.data_dir = small_disk(8) / "data"
    serve.start()
    assert serve.wait_exit() == 5
    assert "MiB free" in serve.said()


async def test_a_full_disk_refuses_claims_lets_releases_through_and_recovers(
    make_serve: StartServe, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(200)
    serve = make_serve(environment={"STOCKADE_DISK_FLOOR_BYTES": "40 MiB", "STOCKADE_BALLAST_BYTES": "4 MiB"})
    serve.data_dir = disk / "data"
    serve.start()
    state = await asyncio.to_thread(serve.wait_serving)
    memory = Memory()
    shop = Shop(state["grpc"], memory, seed=1, skus=["A"])
    await shop.receive(quantity=100)
    held = await shop.reserve("r-1", "A", 5)

    filler = disk / "filler"
    free = os.statvfs(disk)
    filler.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 20 * 1024**2))
    number = 0
    async with asyncio.timeout(20):
        while (reason := await shop.why_refused(f"f-{number}", "A", 1)) == "":
            number += 1
    assert reason == "JOURNAL_FULL"
    await shop.release(held)

    filler.unlink()
    assert (await shop.reserve("r-2", "A", 5)).reservation_id
    assert serve.ready() is not None
    assert serve.restarts() == {}
    await shop.close()
    assert serve.terminate() == 0
