"""``stockade reconcile`` and ``reconciliations`` as a person and a nightly job meet them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.test_cli import NOT_FOUND, OK, REFUSED, UNAVAILABLE, USAGE, run, terminal

pytestmark = pytest.mark.timeout(120)


async def test_a_nightly_count_from_csv_with_its_errors_and_findings(tmp_path: Path) -> None:
    counted = tmp_path / "count.csv"
    counted.write_text("sku;quantity;disposition\nA;9;sellable\nB;x;\n;3;\nC;0;damaged\nA;9;\n", encoding="utf-8")
    errors, findings = tmp_path / "errors.csv", tmp_path / "findings.jsonl"
    async with terminal(tmp_path) as here:
        words = ("reconcile", str(counted), "--warehouse", "main", "--tolerance", "1", "--errors", str(errors))
        dry = await here.json(*words, "--dry-run", ends=REFUSED)
        assert [one["state"] for one in dry["findings"]] == ["WOULD_BOOK"]
        done = await here.json(*words, "--findings", str(findings), ends=REFUSED)
        assert done["reconciliation"]["counts"]["booked"] == 1
        assert [(one["line"], one["outcome"]) for one in done["failed"]] == [
            (3, "UNREADABLE"),
            (4, "UNREADABLE"),
            (6, "LISTED_TWICE"),
        ]
        written = errors.read_text(encoding="utf-8").splitlines()
        assert written[0] == "error_row;error_outcome;error_reason;sku;quantity;disposition"
        assert [line.split(";")[3] for line in written[1:]] == ["B", "", "A"]
        (finding,) = [json.loads(line) for line in findings.read_text(encoding="utf-8").splitlines()]
        assert (finding["stock_key"]["sku"], finding["booked_delta"]) == ("A", -1)
        shown = await here.says("reconciliations", "get", done["reconciliation"]["reconciliation_id"])
        assert "booked" in shown.stdout
        assert "DONE" in (await here.says("reconciliations", "list")).stdout


async def test_a_list_sent_again_under_its_request_id_changes_nothing(tmp_path: Path) -> None:
    counted = tmp_path / "count.jsonl"
    counted.write_text('{"sku": "A", "quantity": "9"}\n', encoding="utf-8")
    async with terminal(tmp_path) as here:
        words = ("reconcile", str(counted), "--warehouse", "main", "--tolerance", "1", "--request-id", "night-1")
        first = await here.json(*words, ends=OK)
        again = await here.json(*words, ends=OK)
        assert again["reconciliation"] == first["reconciliation"]
        assert (await here.json("ats", "A@main"))[0]["available_quantity"] == 9


async def test_orders_and_channels_from_files(tmp_path: Path) -> None:
    orders, shown = tmp_path / "orders.csv", tmp_path / "shown.csv"
    orders.write_text("channel_id,order_reference,sku,quantity\nweb,o-1,A,2\n", encoding="utf-8")
    shown.write_text("sku,quantity\nA,12\n", encoding="utf-8")
    async with terminal(tmp_path) as here:
        found = await here.json("reconcile", str(orders), "--warehouse", "main", "--kind", "open-orders")
        assert [one["kind"] for one in found["findings"]] == ["CLAIM_MISSING"]
        table = await here.says("reconcile", str(shown), "--warehouse", "main", "--kind", "channel-availability")
        assert "channel shows more" in table.stdout


async def test_what_cannot_be_is_said_plainly(tmp_path: Path) -> None:
    counted = tmp_path / "count.csv"
    counted.write_text("sku,quantity\nA,10\n", encoding="utf-8")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("sku,quantty\nA,10\n", encoding="utf-8")
    async with terminal(tmp_path) as here:
        said = await here.says("reconcile", str(wrong), "--warehouse", "main", ends=USAGE)
        assert "'quantity'?" in said.stderr
        said = await here.says("reconcile", str(counted), "--warehouse", "mian", ends=USAGE)
        assert "'mian' is not declared" in said.stderr
        said = await here.says("reconcile", str(counted), "--warehouse", "main", "--as-of", "7", ends=USAGE)
        assert "as_of_time" in said.stderr
        await here.says("reconcile", str(counted), "--warehouse", "main", "--kind", "bins", ends=USAGE)
        await here.says("reconciliations", "get", "rc-1-1-1", ends=NOT_FOUND)
    said = run("reconcile", str(counted), "--warehouse", "main", "--target", "127.0.0.1:9", "--timeout", "1")
    assert said.exit_code == UNAVAILABLE, said.stderr
