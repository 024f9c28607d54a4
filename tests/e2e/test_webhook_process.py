"""The process that delivers to webhooks, under ``serve``: killed under traffic, and with its host, it leaves nothing out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from stockade import Client, Reservation
from stockade.client import facts
from tests.e2e.conftest import StartServe
from tests.e2e.serving import Serve

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a-secret-of-thirty-two-characters"
WITHIN_S = 60.0


@pytest.fixture
def receiver() -> Iterator[str]:
    """The address of the documentation's receiver."""
    command = [sys.executable, str(ROOT / "docs/examples/webhook_receiver.py"), "0", SECRET]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip().rpartition(':')[2]}/"
    finally:
        process.kill()
        process.wait()


def ask(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return json.load(answer)


def wait(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def process_of_webhooks(serve: Serve) -> dict[str, Any]:
    """What ``ready.json`` says of it, once it delivers."""
    found: dict[str, Any] = {}

    def delivers() -> bool:
        state = serve.ready()
        found.update((state or {}).get("processes", {}).get("webhooks", {}))
        return "metrics" in found and found["state"] == "serving"

    wait(delivers, "the process of webhooks did not begin")
    return dict(found)


def test_a_killed_deliverer_and_a_killed_host_leave_nothing_out(make_serve: StartServe, receiver: str) -> None:
    webhook = {
        "url": receiver,
        "secrets": [{"id": "k1", "secret": SECRET}],
        "kinds": ["reservation"],
        "allow_plain_http": True,
        "allowed_networks": ["127.0.0.0/8"],
        "batch_events_max": 5,
    }
    serve = make_serve(environment={"STOCKADE_GATEWAYS": "1", "STOCKADE_WEBHOOKS": json.dumps({"shop": webhook})})
    serve.start()
    state = serve.wait_serving()
    pid = process_of_webhooks(serve)["pid"]
    with Client(state["grpc"], channel_id="web", timeout_s=30) as client:
        wait(lambda: bool(client.list_consumers()[0].cursor), "its place is not on record")
        told = facts.Told("wms", "e-1", ("A", "main"), time.time_ns() // 1_000_000)
        client.ingest([facts.receipt(told, 1_000)])
        for number in range(200):
            assert isinstance(client.reserve([("A", "main", 1)]), Reservation)
            if number in (60, 120):
                os.kill(process_of_webhooks(serve)["pid"], signal.SIGKILL)
            if number == 90:
                serve.kill("host")
        wait(lambda: ask(receiver)["events"] >= 200, "not all reservations arrived")
        wait(lambda: client.list_consumers()[0].lag_events == 0, "not all is acknowledged")

    assert ask(receiver)["events"] == 200, "one event each, however often it came"
    assert process_of_webhooks(serve)["pid"] != pid
    words = ["webhooks", "status", "--data-dir", str(serve.data_dir), "--json"]
    (status,) = json.loads(CliRunner().invoke(app, words).stdout)
    assert (status["webhook_id"], status["state"], status["given_up_changes"]) == ("shop", "delivering", 0)
    assert serve.terminate() == 0
