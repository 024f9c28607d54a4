"""``serve`` as a whole: starts, answers, refuses a second one, stops cleanly, comes back with everything it had."""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
import urllib.request
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


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/proc/sys").exists(), reason="needs a directory that cannot be written"
)
def test_a_data_directory_that_cannot_be_written_is_a_clear_error(make_serve: StartServe, tmp_path: Path) -> None:
    serve = make_serve(environment={})
    serve.data_dir = Path("/proc/sys/stockade")  # nobody can write there, root included
    serve.start()
    assert serve.wait_exit() == 5
    assert "cannot be written" in serve.said()


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
    while "Stockade starts" not in serve.said():
        pass
    os.kill(serve.pid, signal.SIGINT)
    assert serve.wait_exit() == 0
    assert find_marked(str(serve.data_dir)) == []
