"""The story of ``stockade demo sync`` in one process: it holds, and it says so when it does not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.runtime.settings import load_settings
from actors.runtime.wiring import open_data_journal, start_in_process
from gateway.trading.sync_story import SETTINGS, WEB, SyncReport, SyncStory
from stockade import AsyncClient

pytestmark = pytest.mark.timeout(120)


@contextlib.asynccontextmanager
async def shop(directory: Path) -> AsyncIterator[AsyncClient]:
    """The story's own settings, on a small disk."""
    file = directory / "stockade.toml"
    file.write_text(SETTINGS)
    small = {"disk_floor_bytes": 2**20, "ballast_bytes": 2**20, "data_dir": directory}
    settings = load_settings(file, overrides=small, environment={}).settings
    node = await start_in_process(settings, lambda: open_data_journal(settings, directory, print))
    try:
        async with AsyncClient(node.target, channel_id=WEB) as client:
            yield client
    finally:
        await node.stop()


async def tell(directory: Path, kind: type[SyncStory] = SyncStory) -> tuple[SyncReport, list[str]]:
    said: list[str] = []
    async with shop(directory) as client:
        report = await kind(client, said.append).run()
    return report, said


async def test_every_chapter_is_told_and_every_check_holds(tmp_path: Path):
    report, said = await tell(tmp_path)
    assert report.failures == []
    assert len(report.chapters) == 9
    assert sum(line.startswith("   ✓") for line in said) == len(report.checks) > 40
    assert report.seconds < 60
    for sku, figures in report.stock.items():
        assert figures["on the floor"] == figures["in the books"], sku
        assert figures["for sale"] == figures["marketplace shows"], sku


class AnotherLampFell(SyncStory):
    """After the count one more lamp is gone, and nobody tells."""

    async def _proof(self) -> None:
        self._wms.loses("LAMP", 1)
        await super()._proof()


async def test_books_that_are_not_what_lies_on_the_floor_fail_the_story(tmp_path: Path):
    report, _ = await tell(tmp_path, AnotherLampFell)
    assert any("LAMP: the books are what lies on the floor" in failure for failure in report.failures)
