"""Planted secrets are looked for in everything that commands print, that goes wrong, and that a running service logs."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from actors.journal.memory import MemoryJournal
from actors.runtime import wiring
from actors.runtime.plan import NodePlan
from actors.runtime.settings import load_settings
from gateway.cli.main import app
from stockade import AsyncClient
from stockade.client import facts
from stockade.client.errors import StockadeError
from tests.integration.planted_secrets import DATABASE, MARK, secrets_in, write_settings
from tests.integration.webhook_world import until

pytestmark = pytest.mark.timeout(120)
SMALL = 'disk_floor_bytes = "1 MiB"\nballast_bytes = "1 MiB"\ngrpc_port = 0\nhttp_port = 0'
IN_A_DATABASE = f'journal.url = "{DATABASE}"\njournal.deadline_ms = 200'


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def printed(result: Result) -> str:
    return f"{result.stdout}\n{result.stderr}\n{result.exception!r}"


@pytest.mark.parametrize("form", [["--format", "table"], ["--format", "json"], ["--json"]], ids=" ".join)
@pytest.mark.parametrize("more", [SMALL, IN_A_DATABASE, f'journal.urls = ["{DATABASE}", "{DATABASE}2"]'])
def test_config_shows_every_setting_and_no_secret(tmp_path: Path, form: list[str], more: str) -> None:
    result = run("config", "--config", str(write_settings(tmp_path, more)), *form)

    assert result.exit_code == 0, printed(result)
    assert secrets_in(printed(result)) == []
    for name in ("cluster_token", "credentials", "webhooks", "journal.url", "cluster.host_dead_after_ms"):
        assert name in result.stdout
    assert "***" in result.stdout


def test_config_says_where_each_value_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_settings(tmp_path, f"gateways = 3\n{IN_A_DATABASE}")
    monkeypatch.setenv("STOCKADE_JOURNAL_DEADLINE_MS", "7s")
    result = run("config", "--config", str(file), "--data-dir", str(tmp_path), "--format", "json")
    found = {one["name"]: (one["value"], one["origin"]) for one in json.loads(result.stdout)}

    assert found["gateways"] == (3, f"{file}:3")
    assert found["journal.url"] == (
        "postgresql://stockade:***@127.0.0.1:9/stock?sslpassword=***",
        f"{file}:4",
    )
    assert found["journal.deadline_ms"] == (7_000, "environment STOCKADE_JOURNAL_DEADLINE_MS")
    assert found["data_dir"] == (str(tmp_path), "command line")
    assert found["cluster.node_heartbeat_ms"] == (500, "default")
    assert found["cluster_token"] == ("***", f"{file}:2")


@pytest.mark.parametrize(
    "command",
    [["doctor"], ["journal", "info"], ["journal", "compact"], ["verify"], ["backup", "copy.sqlite"], ["webhooks", "status"]],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("more", [SMALL, IN_A_DATABASE])
def test_no_command_tells_a_secret_though_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], more: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STOCKADE_CONFIG", str(write_settings(tmp_path, more)))

    assert secrets_in(printed(run(*command, "--data-dir", str(tmp_path / "data")))) == []


@pytest.mark.parametrize(
    "more",
    [
        "gateways = 0",
        f'gatways = "{MARK}-x"',
        f'journal.url = "mysql://u:{MARK}@h/d"',
        f'journal.url = "postgresql://u:{MARK}@h:{MARK}/d"',
        f'journal.url = ["{MARK}"]',
        f'journal = "{DATABASE}"',
        f'journal.urls = ["{DATABASE}", "{DATABASE}"]',
        f'journal.urls = ["{MARK}"]',
        f'cluster.frame_token = "{MARK}"',
        f'cluster.ray_address = "{MARK}"',
        f'cluster_tokn = "{MARK}"',
        f'tls = "{MARK}"',
        f'consumers = ["{MARK}", 1]',
    ],
)
def test_no_wrong_setting_is_quoted(tmp_path: Path, more: str) -> None:
    result = run("config", "--config", str(write_settings(tmp_path, more)))

    assert result.exit_code == 2
    assert secrets_in(printed(result)) == []
    assert more.partition(" ")[0].partition(".")[0] in result.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STOCKADE_CREDENTIALS", f'[{{"principal": "a", "token": {{"{MARK}": 1}}}}]'),
        ("STOCKADE_CREDENTIALS", f'[{{"principal": "a", "tokn": "{MARK}"}}]'),
        ("STOCKADE_CREDENTIALS", f'[{{"token": "{MARK}", '),
        ("STOCKADE_CREDENTIALS", f'{{"{MARK}": 1}}'),
        ("STOCKADE_WEBHOOKS", f'{{"erp": {{"url": "http://u:{MARK}@h/", "secrets": []}}}}'),
        ("STOCKADE_WEBHOOKS", f'{{"erp": {{"url": "https://h/?{MARK}", "secrets": ["{MARK}"]}}}}'),
        ("STOCKADE_JOURNAL_URL", f"u:{MARK}"),
        ("STOCKADE_JOURNAL_URLS", f'["postgresql://u:{MARK}@h/d"'),
        ("STOCKADE_CLUSTER_TOKN", MARK),
        ("STOCKADE_TLS", f'{{"private_key": "{MARK}"}}'),
    ],
)
def test_no_wrong_variable_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    result = run("config")

    assert result.exit_code == 2
    assert variable.removeprefix("STOCKADE_").lower().partition("_")[0] in result.stderr.lower()
    assert secrets_in(printed(result)) == []


async def test_a_running_service_logs_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Callers with the right token and with a wrong one, a delivery that fails, and every page of figures."""
    caplog.set_level(logging.DEBUG)
    loaded = load_settings(write_settings(tmp_path, SMALL), environment={})
    settings = loaded.settings
    assert settings.cluster_token is not None
    store, cluster_token = wiring.new_memory_store(settings), settings.cluster_token.get_secret_value()
    node = wiring.InProcessNode(settings, lambda: MemoryJournal(store), cluster_token)
    await node.start()
    config = wiring.gateway_config(settings, cluster_token, name="webhooks", grpc_port=0)
    webhooks = await wiring.start_webhooks(config, wiring.webhook_configs(settings), node.directory)
    plan = NodePlan(settings, tmp_path, 1, 1, 1, f"{MARK}-link", cluster_token, 1)
    said = [repr(one) for one in (loaded, settings, config, webhooks, plan, node.host.config)]
    try:
        async with AsyncClient(node.target, channel_id="web", token=f"{MARK}-token-in-a-file", timeout_s=10) as client:
            told = facts.Told("wms", "e-1", ("A", "main"), time.time_ns() // 1_000_000)
            await client.ingest([facts.receipt(told, 5)])
            said.append(str(await client.cluster_status()))
        async with AsyncClient(node.target, channel_id="web", token=f"{MARK}-token", timeout_s=10) as client:
            said.append(str(await client.reserve([("A", "main", 1)])))
        async with AsyncClient(node.target, channel_id="web", token=f"{MARK}-wrong", timeout_s=10) as client:
            with pytest.raises(StockadeError) as refused:
                await client.reserve([("A", "main", 1)])
            said.append(f"{refused.value} {refused.value!r}")
        await until(lambda: bool(webhooks.status()[0].get("last_error")))
        for port in (webhooks.http_port, node.gateways[0].http_port):
            pages = ("/metrics", "/webhooks", "/livez", "/readyz")
            said += [await asyncio.to_thread(get, f"http://127.0.0.1:{port}{page}") for page in pages]
    finally:
        await webhooks.stop(1.0)
        await node.stop()

    assert secrets_in("\n".join(said)) == []
    assert "erp" in "\n".join(said)
    assert secrets_in(caplog.text + "".join(str(vars(record)) for record in caplog.records)) == []


def get(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error)


def test_the_search_finds_what_a_table_broke_over_lines() -> None:
    assert secrets_in(f"│ {MARK[:2]}│\n│ {MARK[2:]}-token │") == [f"{MARK}-token"]
