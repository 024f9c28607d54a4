"""The commands of docs/stock.md run as they stand, in their order, and come to what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.integration.test_cli import Terminal
from tests.integration.withstand_world import service

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "stock.md").read_text(encoding="utf-8")


def blocks() -> list[list[list[str]]]:
    """The page's commands by block, without the word `stockade`; paths as from the root of the project."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL):
        commands = [shlex.split(line, comments=True) for line in block.splitlines()]
        assert all(command[0] == "stockade" for command in commands)
        found.append([[str(ROOT / word) if word.startswith("docs/") else word for word in one[1:]] for one in commands])
    return found


async def test_the_page_comes_to_what_it_says(tmp_path: Path) -> None:
    async with service(tmp_path / "data") as shop:
        shell = Terminal(shop.target)
        inspection, transfer = blocks()

        *before, stock, explain = inspection
        for command in before:
            await shell.says(*command)
        held = await shell.json(*stock)
        assert held["on_hand"] == {"SELLABLE": 8, "DAMAGED": 2, "RECALLED": 4}
        assert (held["receipt_disposition"], held["recalled_lot_ids"]) == ("QUALITY_HOLD", ["L-6"])
        assert "receipts on hold" in (await shell.says(*stock)).stdout
        said = " ".join((await shell.says(*explain)).stdout.split())
        for words in ("refused: INSUFFICIENT_STOCK", "recalled lots: L-6", "starts in quality hold until"):
            assert words in said
        behind = (await shell.json(*explain))["events"]
        assert ["DN-502", "L-6"] in [[event.get("document_id"), event.get("lot_id")] for event in behind]

        policy, push, transfers, exceptions, rest, at_target = transfer
        await shell.says(*policy)
        await shell.says(*push)
        (line,) = await shell.json(*transfers)
        assert (line["dispatched_quantity"], line["received_quantity"], line["lost_quantity"]) == (6, 4, 2)
        assert [one["quantity"] for one in await shell.json(*exceptions)] == [2]
        await shell.says(*rest)
        assert await shell.json(*exceptions) == []
        there = await shell.json(*at_target)
        assert (there["on_hand"], there["in_transit_quantity"], there["transfers"]) == ({"SELLABLE": 6}, 0, [])
        assert (await shell.json(*stock))["on_hand"]["SELLABLE"] == 2
