"""A host whose journal lies on a machine with another clock: it measures that, shows it and warns of it."""

from __future__ import annotations

import asyncio
import time

import pytest
from typer.testing import CliRunner

from actors.journal.memory import MemoryJournal, memory_store
from actors.runtime.host_metrics import host_metrics_text
from actors.runtime.wiring import make_host, start_in_process
from actors.shard.placement import PLACEMENT_VERSION
from gateway.cli.main import app
from gateway.cli.server_commands import worst_clock_skew
from stockade import AsyncClient
from stockade.v1 import admin_service_pb2
from tests.integration.withstand_world import node_settings


class ElsewhereJournal(MemoryJournal):
    """A journal on a machine whose clock is two seconds slow."""

    def wall_ms(self) -> int | None:
        return time.time_ns() // 1_000_000 - 2_000


async def test_a_host_measures_shows_and_warns_of_the_journals_clock(caplog: pytest.LogCaptureFixture) -> None:
    store = memory_store("c", "t", 64, PLACEMENT_VERSION, time.time_ns() // 1_000_000)
    host = make_host(node_settings(), lambda: ElsewhereJournal(store), "token", 0)
    await host.start()
    try:
        async with asyncio.timeout(20):
            while not host.status()["clock_skews"]:
                await asyncio.sleep(0.01)
        ((against, skew_ms),) = host.status()["clock_skews"]
        text = host_metrics_text(host.status).decode()
    finally:
        await host.stop()
    assert against == "journal"
    assert 1_000 < skew_ms < 3_000
    assert f'stockade_clock_skew_seconds{{against="journal"}} {skew_ms / 1000}' in text
    assert "ahead of that of journal" in caplog.text


async def test_status_shows_whose_clock_is_how_far_away() -> None:
    """The figure travels from the host through a gateway to whoever asks."""
    settings = node_settings()
    store = memory_store("c", "t", 64, PLACEMENT_VERSION, time.time_ns() // 1_000_000)
    node = await start_in_process(settings, lambda: ElsewhereJournal(store))
    try:
        async with AsyncClient(node.target, channel_id="web", timeout_s=10) as client:
            async with asyncio.timeout(20):
                while not (found := (await client.cluster_status()).hosts[0]).clock_skews_ms:
                    await asyncio.sleep(0.01)
        shown = await asyncio.to_thread(CliRunner().invoke, app, ["status", "--target", node.target])
    finally:
        await node.stop()
    assert 1_000 < found.clock_skews_ms["journal"] < 3_000
    assert "ms (journal)" in shown.stdout
    assert "clocks differ" in " ".join(shown.stdout.replace("│", " ").split())


def test_the_clock_that_is_farthest_away_is_shown() -> None:
    host = admin_service_pb2.HostStatus(node_id="n", clock_skew_ms=-3, clock_skews_ms={"journal": 20, "host-b": -400})
    assert worst_clock_skew(host) == ("host-b", -400)
    assert worst_clock_skew(admin_service_pb2.HostStatus()) == ("", 0)
