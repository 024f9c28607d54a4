"""The page for whoever is called at night: its commands run as they stand, and it leaves out no kind and no reason."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from actors.domain.exception_kinds import KINDS, REASONS
from actors.domain.outcomes import ExceptionKind, RejectReason
from tests.integration.test_cli import NOT_FOUND, OK, REFUSED, terminal

pytestmark = pytest.mark.timeout(180)
PAGE = (Path(__file__).parents[2] / "docs" / "exceptions.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    block = re.search(r"```sh\n(.*?)```", PAGE, re.S)
    assert block is not None
    return [shlex.split(line, comments=True)[1:] for line in block.group(1).splitlines()]


def rows(heading: str) -> dict[str, list[str]]:
    found = {}
    for line in PAGE.partition(f"## {heading}")[2].partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            found[cells[0].strip("`")] = cells
    return found


def test_every_kind_and_every_reason_has_a_row_with_its_priority_and_team() -> None:
    page = rows("Kinds")
    for kind in ExceptionKind:
        cells = page[kind.name.lower()]
        if kind is not ExceptionKind.EVENT_REJECTED:
            assert (cells[1], cells[2]) == (KINDS[kind].priority.name.lower(), KINDS[kind].team), kind
    page = rows("Why an event is rejected")
    for reason in RejectReason:
        cells = page[reason.name.lower()]
        if reason in REASONS:
            assert cells[1] == REASONS[reason][0].name.lower(), reason


async def test_its_commands_run_as_they_stand(tmp_path: Path) -> None:
    rejected = {"event_id": "e1", "occur_time": "2026-11-24T10:00:00Z", "receipt": {"quantity": 7}}
    rejected["stock_key"] = {"sku": "B", "warehouse_id": "mian"}
    file, corrected = tmp_path / "events.jsonl", tmp_path / "event.json"
    file.write_text(json.dumps(rejected) + "\n")
    async with terminal(tmp_path / "data") as shell:
        await shell.json("events", "push", str(file), "--source", "wms", ends=REFUSED)
        (listed,) = await shell.json("exceptions", "list")
        run = commands()
        assert len(run) == 8
        for words in run:
            told = [listed["exception_id"] if word == "EXCEPTION" else word for word in words]
            told = [str(corrected) if word == "event.json" else word for word in told]
            if ">" in told:  # what the shell would write
                event = await shell.json(*told[: told.index(">")])
                event["stock_key"]["warehouse_id"] = "main"
                corrected.write_text(json.dumps(event))
                continue
            ends = REFUSED if "--retry" in told else 2 if "--discard" in told else OK  # it ended by then
            if words[1] == "resolve":
                told += ["--by", "ann"]
            await shell.says(*told, ends=ends)
        assert (await shell.json("stock", "B", "main"))["on_hand"] == {"SELLABLE": 7}
        await shell.says("exceptions", "show", "EXCEPTION", ends=NOT_FOUND)
