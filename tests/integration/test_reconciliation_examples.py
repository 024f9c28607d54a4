"""The examples of docs/reconciliation.md run as they stand and come to what the page says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.integration.test_cli import OK, Terminal
from tests.integration.withstand_world import service

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
pytestmark = pytest.mark.timeout(120)


async def test_the_page_as_it_stands(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        here = Terminal(shop.target)
        for sku, units in (("GLASS-1", 10), ("GLASS-2", 10), ("MUG-7", 9)):
            await shop.receive(sku, units)
        await shop.reserve("GLASS-1", 2, confirm=True, order_reference="o-1")
        words = ("reconcile", str(EXAMPLES / "nightly_count.csv"), "--warehouse", "main", "--tolerance", "1")
        dry = await here.json(*words, "--dry-run", ends=OK)
        done = await here.json(*words, "--request-id", "night", ends=OK)
        assert dry["reconciliation"]["counts"] == done["reconciliation"]["counts"]
        states = {(one["stock_key"]["sku"], one["disposition"]): one["state"] for one in done["findings"]}
        assert states == {
            ("GLASS-1", "SELLABLE"): "BOOKED",
            ("MUG-7", "SELLABLE"): "QUARANTINED",
            ("MUG-7", "DAMAGED"): "BOOKED",
        }
        orders = await here.json(
            "reconcile", str(EXAMPLES / "open_orders.csv"), "--warehouse", "main", "--kind", "open-orders"
        )
        assert [one["kind"] for one in orders["findings"]] == ["CLAIM_MISSING"]
        listed = await here.json("reconciliations", "list")
        assert len(listed) == 2
        (drift,) = await here.json("exceptions", "list", "--kind", "reconciliation_drift")
        assert await shop.available("MUG-7") == 0
        resolve = ("exceptions", "resolve", drift["exception_id"], "--retry", "--note", "counted again", "--by", "ann")
        await here.says(*resolve, ends=OK)
        assert await shop.available("MUG-7") == 2
        assert await here.json("exceptions", "list", "--kind", "reconciliation_drift") == []
        (accepted,) = [one for one in await findings_of(here, done) if one["state"] == "ACCEPTED"]
        assert accepted["booked_delta"] == -7


async def findings_of(here: Terminal, done: Any) -> list[Any]:
    shown = await here.json("reconciliations", "get", done["reconciliation"]["reconciliation_id"])
    return list(shown["findings"])


@pytest.mark.parametrize(
    ("listed", "said"), [("now", "1 lines, 1 booked, 0 suspended, 0 failed"), ("2020-01-01T00:00:00Z", "1 failed")]
)
async def test_the_program_counts_and_may_be_repeated(tmp_path: Path, listed: str, said: str) -> None:
    async with service(tmp_path) as shop:
        await shop.receive("GLASS-1", 10)
        stamp = Timestamp()
        stamp.GetCurrentTime()
        time = stamp.ToJsonString() if listed == "now" else listed
        command = [sys.executable, str(EXAMPLES / "nightly_count.py"), shop.target, "main", "", "", "0", time]
        for _ in range(2):
            ended = await asyncio.to_thread(
                subprocess.run, command, input="GLASS-1 9\n", capture_output=True, text=True, check=False
            )
            assert said in ended.stdout, ended
        assert await shop.available("GLASS-1") == (9 if listed == "now" else 10)
