"""The examples of docs/warehouse-events.md run as they stand and come to what the page says."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.test_cli import Terminal
from tests.integration.withstand_world import Service, service

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Service]:
    async with service(tmp_path / "data") as running:
        yield running


async def test_the_days_files_are_pushed_and_stand_in_the_books(shop: Service):
    shell = Terminal(shop.target)
    for name in ("warehouse_day.csv", "warehouse_day.jsonl"):
        checked = await shell.json("events", "push", str(EXAMPLES / name), "--dry-run")
        assert set(checked["outcomes"]) == {"VALID"}
        pushed = await shell.json("events", "push", str(EXAMPLES / name))
        assert set(pushed["outcomes"]) == {"APPLIED"}
        again = await shell.json("events", "push", str(EXAMPLES / name), "--all")
        assert set(again["outcomes"]) == {"DUPLICATE"}
    assert (await shop.stock("MUG")).on_hand == {"SELLABLE": 106}
    assert (await shop.stock("LAMP")).on_hand == {"SELLABLE": 40}
    (feed,) = await shell.json("feeds", "--source", "wms")
    assert (feed["watermark"], feed["missing"], feed["broken"]) == (8, [], False)


async def test_the_feed_goes_on_where_it_was(shop: Service):
    async def run(rows: int) -> str:
        command = [sys.executable, str(EXAMPLES / "warehouse_feed.py"), shop.target, str(rows)]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        assert process.returncode == 0
        return said.decode()

    assert "{'APPLIED': 250}" in await run(250)
    said = await run(300)
    assert "received up to 250, highest 250" in said
    assert "{'APPLIED': 50}" in said
    on_hand = (await shop.stock("MUG")).on_hand["SELLABLE"]
    assert on_hand == 1_000 - 2 * (300 - 1 - 3)
