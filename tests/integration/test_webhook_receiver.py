"""The receiver of the documentation, as a process; ``stockade webhooks`` against it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.main import app
from gateway.webhooks.cloud_events import change_event, restarted_event
from stockade.client.webhooks import signature_headers
from stockade.v1 import change_feed_service_pb2 as pb
from stockade.v1.stock_key_pb2 import StockKey

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "an-old-secret-of-thirty-characters", "a-new-secret-of-thirty-characters"


class Receiver:
    """The example, running."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hook"

    def has(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url, timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def post(self, body: bytes, secret: str = NEW) -> int:
        headers = signature_headers("d-1", int(time.time()), body, [("k", secret.encode())])
        try:
            request = urllib.request.Request(self.url, body, headers, method="POST")
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    command = [sys.executable, str(ROOT / "docs/examples/webhook_receiver.py"), "0", OLD, NEW]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Receiver(int(process.stdout.readline().rpartition(":")[2]))
    finally:
        process.kill()
        process.wait()


def available(quantity: int, seen: int, sequence: int = 0, *, snapshot: bool = False) -> bytes:
    said = pb.AvailabilityChange(
        stock_key=StockKey(sku="A", warehouse_id="main"), available_quantity=quantity, seen_sequence=seen
    )
    change = pb.Change(change_id=f"t1-7-{sequence or seen}", shard=7, sequence=sequence or seen, availability=said)
    return change_event(change, snapshot=snapshot).event


def test_it_takes_every_event_once_and_keeps_the_newest_value(receiver: Receiver):
    assert receiver.post(b"[" + available(5, 10) + b"," + available(3, 12) + b"]") == 200
    assert receiver.post(b"[" + available(5, 10) + b"]") == 200  # again
    assert receiver.post(b"[" + available(9, 11) + b"]") == 200  # late

    has = receiver.has()
    assert has["events"] == 3
    assert [(one["sku"], one["available_quantity"]) for one in has["available"]] == [("A", 3)]


def test_it_believes_only_its_secrets_and_begins_anew_when_told(receiver: Receiver):
    assert receiver.post(b"[" + available(5, 10) + b"]", secret=OLD) == 200
    assert receiver.post(b"[" + available(1, 20) + b"]", secret="somebody else's, of some length") == 401
    assert [one["available_quantity"] for one in receiver.has()["available"]] == [5]

    anew = b"[" + restarted_event("TOO_OLD", "n-1", 0.0).event + b"," + available(8, 2, snapshot=True) + b"]"
    assert receiver.post(anew) == 200
    assert [one["available_quantity"] for one in receiver.has()["available"]] == [8]


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def settings_file(folder: Path, url: str, secret: str = NEW, **more: Any) -> str:
    path = folder / "stockade.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in more.items()]
    secrets = f'secrets = [{{id = "k1", secret = "{secret}"}}]'
    path.write_text("\n".join([f'data_dir = "{folder}"', "[webhooks.erp]", f'url = "{url}"', secrets, *lines]))
    return str(path)


LOCAL: dict[str, Any] = {"allow_plain_http": True, "allowed_networks": ["127.0.0.0/8"]}


def test_a_ping_says_whether_the_endpoint_takes_what_it_will_be_sent(receiver: Receiver, tmp_path: Path):
    ended = run("webhooks", "test", "erp", "--config", settings_file(tmp_path, receiver.url, **LOCAL))
    assert ended.exit_code == 0, ended.output
    assert "erp: accepted with 200" in ended.output
    assert receiver.has()["events"] == 1

    wrong = settings_file(tmp_path, receiver.url, secret="not-what-the-receiver-expects", **LOCAL)
    ended = run("webhooks", "test", "erp", "--config", wrong, "--json")
    assert ended.exit_code == 3
    assert json.loads(ended.stdout.splitlines()[0])["status"] == 401
    assert "no signature is of a known secret" in ended.output


@pytest.mark.parametrize(
    ("words", "more", "exit_code", "says"),
    [
        (["test", "other"], LOCAL, 4, "there are: erp"),
        (["test", "erp"], {"allow_plain_http": True}, 3, "is not a public address"),
        (["test", "erp"], {}, 2, "allow_plain_http"),
        (["status"], LOCAL, 5, "nobody serves"),
    ],
)
def test_what_does_not_work_is_said_in_one_line(
    tmp_path: Path, words: list[str], more: dict[str, Any], exit_code: int, says: str
):
    ended = run("webhooks", *words, "--config", settings_file(tmp_path, "http://127.0.0.1:9/", **more))
    assert (ended.exit_code, says in " ".join(ended.output.split())) == (exit_code, True), ended.output
