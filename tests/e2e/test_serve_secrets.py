"""A whole ``serve`` with planted secrets, Ray included: they stand in no log, no session file of Ray's, no page, no command line."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from pathlib import Path

import pytest

from actors.runtime.processes import find_marked
from stockade import Client
from stockade.client import facts
from tests.e2e.conftest import StartServe
from tests.integration.planted_secrets import MARK, secrets_below, secrets_in, write_settings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def command_lines(pids: list[int]) -> str:
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):  # it has just ended
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " "))
    return "\n".join(found)


def test_a_node_leaves_no_secret_anywhere(make_serve: StartServe, tmp_path: Path) -> None:
    file = write_settings(tmp_path, 'log_level = "debug"\nlog_format = "json"')
    serve = make_serve(environment={"STOCKADE_CONFIG": str(file), "STOCKADE_GATEWAYS": "1"})
    serve.start()
    state = serve.wait_serving()
    with Client(state["grpc"], channel_id="web", token=f"{MARK}-token-in-a-file", timeout_s=20) as client:
        client.ingest([facts.receipt(facts.Told("wms", "e-1", ("A", "main"), time.time_ns() // 1_000_000), 5)])
    serve.kill("host")  # what is said of a death and a start is looked through as well
    serve.wait_serving(lambda now: now["restarts"].get("host", 0) > 0)
    pages = ""
    for page in ("metrics", "readyz", "livez"):
        with urllib.request.urlopen(f"http://{state['http']}/{page}", timeout=10) as answer:
            pages += answer.read().decode()
    shown = command_lines([serve.pid, *(process.pid for process in find_marked(str(serve.data_dir)))])
    assert serve.terminate() == 0

    assert secrets_in(pages) == []
    assert "ray" in shown
    assert secrets_in(shown) == []
    assert secrets_in(serve.said()) == []
    assert (serve.data_dir / "logs" / "gateway-0.log").stat().st_size > 0
    assert secrets_below(serve.data_dir) == {}
