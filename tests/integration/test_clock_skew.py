"""A host whose journal lies on a machine with another clock: it measures that, shows it and warns of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from actors.journal.memory import MemoryJournal, memory_store
from actors.runtime.host_metrics import host_metrics_text
from actors.runtime.wiring import make_host
from actors.shard.placement import PLACEMENT_VERSION
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
