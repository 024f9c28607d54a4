"""The command line as a person and as a script meets it: what it prints where, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from gateway.cli.main import app
from tests.integration.withstand_world import FULFILLED_BY_ORDER_MANAGEMENT, service

pytestmark = pytest.mark.timeout(120)

OK, FAILED, USAGE, REFUSED, NOT_FOUND, UNAVAILABLE, UNKNOWN, VERIFY_FAILED = range(8)


def run(*words: str, stdin: str = "") -> Result:
    """One command, as if typed; nobody looks at a terminal."""
    return CliRunner().invoke(app, list(words), input=stdin or None)


class Terminal:
    """Commands against a running service, in a thread while this loop serves."""

    def __init__(self, target: str) -> None:
        self._target = target

    async def says(self, *words: str, ends: int = OK, stdin: str = "") -> Result:
        result = await asyncio.to_thread(run, *words, "--target", self._target, stdin=stdin)
        assert result.exit_code == ends, (words, result.exit_code, result.stdout, result.stderr, result.exception)
        assert "Traceback" not in result.stderr
        return result

    async def json(self, *words: str, ends: int = OK) -> Any:
        return json.loads((await self.says(*words, "--json", ends=ends)).stdout)


@contextlib.asynccontextmanager
async def terminal(directory: Path, **settings: Any) -> AsyncIterator[Terminal]:
    async with service(directory, **settings) as shop:
        await shop.receive("A", 10)
        yield Terminal(shop.target)


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if hasattr(command, "commands") else [(*path, name)]
    return found


ALL_COMMANDS = commands(get_command(app))


@pytest.mark.parametrize("command", ALL_COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == OK
    assert "Usage" in result.stdout
    assert len(result.stdout.splitlines()) > 5


async def test_the_life_of_an_order_typed_by_hand(tmp_path: Path) -> None:
    async with terminal(tmp_path, warehouses=FULFILLED_BY_ORDER_MANAGEMENT) as shell:
        assert "10" in (await shell.says("ats", "A@main")).stdout
        held = (await shell.json("reserve", "A@main=4", "--channel", "web", "--order", "SO-1", "--ttl", "600"))[
            "reservation"
        ]
        one = held["reservation_id"]
        assert (held["state"], held["lines"][0]["granted_quantity"]) == ("HELD", 4)
        await shell.says("extend", one, "900")
        (line,) = (await shell.json("amend", one, "0:A@main=3"))["reservation"]["lines"]
        assert line["granted_quantity"] - line["released_quantity"] == 3
        assert (await shell.json("confirm", one))["reservation"]["state"] == "CONFIRMED"
        assert "refused" in (await shell.says("confirm", one, "--expected-version", "1", ends=REFUSED)).stdout
        await shell.says("fulfill", one, "ship-1", "--line", "0=2")
        assert (await shell.json("release", one, "--reason", "shipped_short"))["reservation"]["state"] == "FULFILLED"
        stock = await shell.json("stock", "A", "main")
        assert (stock["on_hand"], stock["confirmed_quantity"], stock["available_quantity"]) == ({"SELLABLE": 8}, 0, 8)
        shown = await shell.says("explain", "A", "main", "9")
        assert "9 units would be refused" in shown.stdout
        assert "fulfill" in shown.stdout
        listed = await shell.json("reservations", "list", "--channel", "web", "--order", "SO-1")
        assert [found["reservation_id"] for found in listed] == [one]


async def test_a_no_is_exit_3_with_what_there_is(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shell:
        result = await shell.says("reserve", "A@main=11", "--channel", "web", ends=REFUSED)
        assert "INSUFFICIENT_STOCK" in result.stdout
        assert "11" in result.stdout
        assert "10" in result.stdout
        refusal = (await shell.json("reserve", "A@main=11", "--channel", "web", ends=REFUSED))["refusal"]
        assert refusal["shortages"][0]["available_quantity"] == 10


@pytest.mark.parametrize(
    ("words", "ends", "told"),
    [
        (("reserve", "A-main-1", "--channel", "web"), USAGE, "SKU@WAREHOUSE=QUANTITY"),
        (("reserve", "A@main=0", "--channel", "web"), USAGE, "lines[0].quantity"),
        (("reserve", "A@mian=1", "--channel", "web"), USAGE, "mian"),
        (("reserve", "A@main=1", "--channel", "wbe"), USAGE, "wbe"),
        (("reserve", "A@main=1", "--channel", "web", "--fill", "some"), USAGE, "ALL_OR_NOTHING"),
        (("reserve", "A@main=1", "--channel", "web", "--admission", "always"), USAGE, "admission"),
        (("reserve", f"A@main={10**18}", "--channel", "web"), USAGE, "at most 18 digits"),
        (("reserve", "A@main=²", "--channel", "web"), USAGE, "a whole number"),
        (("reserve", "A@main=1", "--channel", "web", "--ttl", "1e300"), USAGE, "--ttl"),
        (("reserve", "A@main=1", "--channel", "web", "--ttl", "nan"), USAGE, "--ttl"),
        (("extend", "1-nope-0-1", "1e300"), USAGE, "ttl"),
        (("status", "--timeout", "0"), USAGE, "--timeout"),
        (("status", "--token", "two\nlines"), USAGE, "--token"),
        (("policy", "set", "B", "mian", "--register"), USAGE, "mian"),
        (("events", "push", "-", "--errors", "/nowhere/errors.jsonl"), USAGE, "cannot write"),
        (("confirm", "1-nope-0-1"), NOT_FOUND, "1-nope-0-1"),
        (("release", "no id at all"), NOT_FOUND, "no id at all"),
        (("stock", "A"), USAGE, "warehouse"),
        (("stock", "nope", "main"), NOT_FOUND, "nope"),
        (("ats", "A"), USAGE, "SKU@WAREHOUSE"),
        (("events", "push", "/nowhere/events.jsonl"), USAGE, "cannot read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
async def test_a_mistake_is_named_with_its_exit_code(
    tmp_path: Path, words: tuple[str, ...], ends: int, told: str
) -> None:
    async with terminal(tmp_path) as shell:
        result = await shell.says(*words, ends=ends)
        assert told in result.stderr, result.stderr


def test_a_service_that_is_not_there_is_exit_5_for_reads_and_asks_to_look_for_it() -> None:
    result = run("ats", "A@main", "--channel", "web", "--target", "127.0.0.1:1", "--timeout", "0.5")
    assert result.exit_code == UNAVAILABLE
    assert "is the service running at 127.0.0.1:1?" in result.stderr


def test_a_service_that_is_not_there_has_done_nothing() -> None:
    result = run("reserve", "A@main=1", "--target", "127.0.0.1:1", "--timeout", "0.5")
    assert result.exit_code == UNAVAILABLE
    assert "may have happened" not in result.stderr


def test_an_empty_target_is_a_mistake_of_the_caller() -> None:
    assert run("status", "--target", "").exit_code == USAGE


def test_a_day_begins_in_a_directory_and_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    result = run("demo", "--data-dir", str(file))
    assert (result.exit_code, str(file) in result.stderr) == (USAGE, True)


async def test_a_host_that_does_not_answer_is_said_and_its_figures_are_not_taken_for_true(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        shell = Terminal(shop.target)
        await shop.node.stop_host()
        result = await shell.says("status", "--timeout", "1", ends=UNAVAILABLE)
        assert "no answer from" in result.stderr
        assert "refuses new claims" not in result.stdout
        await shop.node.start_host()
        await shell.says("status")


async def test_a_sku_may_look_like_markup(tmp_path: Path) -> None:
    async with service(tmp_path) as shop:
        shell = Terminal(shop.target)
        for sku in ("A[/]B", "[bold]C", ":smile:"):
            await shop.receive(sku, 2)
            for words in (("ats", f"{sku}@main"), ("stock", sku, "main"), ("explain", sku, "main", "5")):
                assert sku in (await shell.says(*words)).stdout
            assert sku in (await shell.says("reserve", f"0:{sku}@main=1", "--order", sku)).stdout
            assert sku in (await shell.says("reserve", f"0:{sku}@main=9", ends=REFUSED)).stdout
            assert sku in (await shell.says("reservations", "list")).stdout
            await shop.count(sku, 0)
            assert sku in (await shell.says("exceptions", "list")).stdout


async def test_an_explanation_says_why_it_would_be_no(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shell:
        assert "10 units would be granted" in (await shell.says("explain", "A", "main", "10")).stdout
        assert (
            "11 units would be refused: INSUFFICIENT_STOCK" in (await shell.says("explain", "A", "main", "11")).stdout
        )
        await shell.says("suspend", "A", "main")
        told = (await shell.says("explain", "A", "main", "1")).stdout
        assert "1 units would be refused: SELLING_SUSPENDED" in told
        assert "selling is suspended" in told


async def test_lines_that_are_no_events_come_back_with_their_number(tmp_path: Path) -> None:
    lines = ["null", "[1]", "7", '"text"', "{", "", '{"event_id": 5}', '{"bogus": 1}', "[" * 10_000]
    async with terminal(tmp_path) as shell:
        result = await shell.says("events", "push", "-", "--source", "wms", stdin="\n".join(lines) + "\n", ends=REFUSED)
        assert [line.split()[:3] for line in result.stderr.splitlines() if line.startswith("line")] == [
            ["line", f"{number}:", "UNREADABLE"] for number, line in enumerate(lines, 1) if line
        ]


async def test_a_repeated_request_id_repeats_its_answer(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shell:
        words = ("reserve", "A@main=2", "--channel", "web", "--request-id", "by-hand-1")
        first, again = await shell.json(*words), await shell.json(*words)
        assert first["reservation"]["reservation_id"] == again["reservation"]["reservation_id"]
        other = await shell.says("reserve", "A@main=3", "--channel", "web", "--request-id", "by-hand-1", ends=USAGE)
        assert "REQUEST_ID_REUSED" in other.stderr


async def test_events_from_a_file_are_applied_once_and_bad_lines_come_back(tmp_path: Path) -> None:
    def event(number: int, **fields: Any) -> str:
        key = {"sku": "B", "warehouse_id": "main"}
        return json.dumps(
            {
                "event_id": f"e{number}",
                "occur_time": "2026-11-24T10:00:00Z",
                "stock_key": key,
                "receipt": {"quantity": 5},
            }
            | fields
        )

    lines = [
        event(1),
        "not json {",
        event(2, stock_key={"sku": "B", "warehouse_id": "nowhere"}),
        event(3, colour="blue"),
        "",
        event(4, receipt={"quantity": 2}),
        event(5, occur_time=None),
    ]
    file, errors = tmp_path / "events.jsonl", tmp_path / "errors.jsonl"
    file.write_text("\n".join(lines) + "\n")
    async with terminal(tmp_path / "data") as shell:
        words = ("events", "push", str(file), "--source", "wms", "--errors", str(errors))
        found = await shell.json(*words, ends=REFUSED)
        assert found["outcomes"] == {"APPLIED": 2, "UNREADABLE": 3, "REJECTED": 1}
        reasons = {one["line"]: one["reason"] for one in found["failed"]}
        assert sorted(reasons) == [2, 3, 4, 7]
        assert "colour" in reasons[4]
        assert "occur_time" in reasons[7]
        assert {json.loads(line)["line"] for line in errors.read_text().splitlines()} == set(reasons)
        again = await shell.json(*words, ends=REFUSED)
        assert again["outcomes"] == {"DUPLICATE": 2, "REJECTED": 1, "UNREADABLE": 3}, "a file sent again does no harm"
        assert len(await shell.json("exceptions", "list")) == 1
        assert (await shell.json("stock", "B", "main"))["on_hand"] == {"SELLABLE": 7}
        piped = await shell.says("events", "push", "-", "--source", "wms", stdin=event(9) + "\n")
        assert "APPLIED" in piped.stdout


async def test_a_rejected_event_is_looked_at_corrected_and_booked(tmp_path: Path) -> None:
    file, corrected = tmp_path / "events.jsonl", tmp_path / "corrected.json"
    key = {"sku": "B", "warehouse_id": "mian"}
    sent = {"event_id": "e1", "occur_time": "2026-11-24T10:00:00Z", "stock_key": key, "receipt": {"quantity": 7}}
    file.write_text(json.dumps(sent) + "\n")
    async with terminal(tmp_path / "data") as shell:
        await shell.json("events", "push", str(file), "--source", "wms", ends=REFUSED)
        (listed,) = await shell.json("exceptions", "list", "--priority", "normal", "--newest-first")
        exception_id = listed["exception_id"]
        shown = await shell.says("exceptions", "show", exception_id)
        assert "declare the warehouse" in shown.stdout
        sent = await shell.json("exceptions", "show", exception_id, "--event")
        sent["stock_key"]["warehouse_id"] = "main"
        corrected.write_text(json.dumps(sent))
        words = ("exceptions", "resolve", exception_id, "--note", "a typo", "--by", "ann")
        again = await shell.says(*words, "--retry", ends=REFUSED)
        assert "stays open" in again.stdout
        resolved = await shell.says(*words, "--correct", str(corrected))
        assert "applied" in resolved.stdout
        assert (await shell.json("exceptions", "list")) == []
        (ended,) = await shell.json("exceptions", "list", "--state", "resolved")
        assert [one["action"] for one in ended["handlings"]] == ["RETRY", "CORRECT_AND_RETRY"]
        assert (await shell.json("stock", "B", "main"))["on_hand"] == {"SELLABLE": 7}
        await shell.says(*words, "--discard", ends=USAGE)
        await shell.says("exceptions", "show", "x-nobody-1-1", ends=NOT_FOUND)


async def test_an_operator_suspends_resumes_limits_and_looks(tmp_path: Path) -> None:
    async with terminal(tmp_path) as shell:
        await shell.says("suspend", "A", "main", "--note", "recall")
        refused = await shell.json("reserve", "A@main=1", "--channel", "web", ends=REFUSED)
        assert refused["refusal"]["reason"] == "SELLING_SUSPENDED"
        await shell.says("resume", "A", "main")
        await shell.says("policy", "set", "A", "main", "--safety-stock", "3", "--limit-per-order", "2")
        assert (await shell.json("ats", "A@main"))[0]["available_quantity"] == 7
        refused = await shell.json("reserve", "A@main=3", "--channel", "web", ends=REFUSED)
        assert refused["refusal"]["shortages"][0]["reason"] in ("LIMIT_PER_ORDER", "ORDER_LIMIT_EXCEEDED")
        status = await shell.says("status", "--shards")
        assert "oversells" in status.stdout
        assert (await shell.json("status"))["shard_count"] == 64
        assert (await shell.json("exceptions", "list")) == []


def test_settings_are_shown_with_their_origin_and_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "stockade.toml"
    file.write_text('cluster_token = "very secret"\ngateways = 3\n')
    result = run("config", "--config", str(file), "--json")
    values = {one["name"]: one for one in json.loads(result.stdout)}
    assert (values["gateways"]["value"], "very secret" in result.stdout) == (3, False)
    assert "stockade.toml" in values["gateways"]["origin"]
    file.write_text("gatways = 3\n")
    wrong = run("config", "--config", str(file))
    assert wrong.exit_code == USAGE
    assert "gatways" in wrong.stderr


async def test_a_journal_is_verified_described_copied_and_put_back(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "backup.db"
    async with terminal(data) as shell:
        await shell.says("reserve", "A@main=2", "--channel", "web")
        beside = run("verify", "--data-dir", str(data), "--json")
        assert (beside.exit_code, json.loads(beside.stdout)["oversells"]) == (OK, 0)
        assert run("backup", str(file), "--data-dir", str(data)).exit_code == OK
        busy = run("restore", str(file), "--data-dir", str(data))
        assert busy.exit_code == UNAVAILABLE
        await shell.says("reserve", "A@main=5", "--channel", "web")
    info = json.loads(run("journal", "info", "--data-dir", str(data), "--json").stdout)
    assert info["records"] > 0
    assert run("journal", "compact", "--data-dir", str(data)).exit_code == OK
    assert run("backup", str(file), "--data-dir", str(data)).exit_code == USAGE, "a backup never overwrites"
    there = run("restore", str(file), "--data-dir", str(data))
    assert there.exit_code == USAGE
    cluster = info["header"]["cluster_id"]
    assert cluster in there.stderr, "the error says what --replace wants"
    restored = run("restore", str(file), "--data-dir", str(data), "--replace", cluster, "--json")
    assert restored.exit_code == OK
    assert json.loads(restored.stdout.splitlines()[-1])["timeline"] != info["header"]["timeline"]
    assert run("verify", "--data-dir", str(data)).exit_code == OK
    nothing = run("verify", "--data-dir", str(tmp_path / "nothing"))
    assert nothing.exit_code == NOT_FOUND
    assert "nothing" in nothing.stderr


def test_a_damaged_journal_is_exit_7_and_the_record_is_named(tmp_path: Path) -> None:
    import apsw  # noqa: PLC0415  only to break the file

    asyncio.run(_one_sale(tmp_path))
    (file,) = (tmp_path / "journal").glob("*.sqlite3")
    with contextlib.closing(apsw.Connection(str(file))) as connection:
        connection.execute("DELETE FROM records WHERE number = (SELECT MAX(number) - 1 FROM records)")
    result = run("verify", "--data-dir", str(tmp_path))
    assert result.exit_code == VERIFY_FAILED
    assert "record" in result.stdout + result.stderr


async def _one_sale(directory: Path) -> None:
    async with service(directory) as shop:
        await shop.receive("A", 10)
        for _ in range(3):
            await shop.held("A")


def csv_events(first: int, count: int, fact: str = "receipt") -> str:
    rows = ["source_id,stream_id,source_sequence,event_id,occur_time,sku,warehouse_id,fact,quantity"]
    for number in range(first, first + count):
        rows.append(f"wms,day,{number},d{number},2026-11-24T10:00:00Z,C,main,{fact},1")
    return "\n".join(rows) + "\n"


async def test_a_csv_file_is_pushed_resumed_and_its_failed_rows_are_mended(tmp_path: Path) -> None:
    file, errors = tmp_path / "day.csv", tmp_path / "errors.csv"
    async with terminal(tmp_path / "data") as shell:
        file.write_text(csv_events(1, 1_500) + "wms,day,1501,d1501,2026-11-24T10:00:00Z,C,main,gift,1\n")
        push = ("events", "push", str(file), "--errors", str(errors))
        found = await shell.json(*push, ends=REFUSED)
        assert found["outcomes"] == {"APPLIED": 1_500, "UNREADABLE": 1}
        file.write_text(csv_events(1_001, 1_000))
        found = await shell.json(*push)
        assert found["outcomes"] == {"RECEIVED BEFORE": 500, "APPLIED": 500}
        assert found["feeds"] == [
            {"source_id": "wms", "stream_id": "day", "rows": 1_000, "first_sequence": 1_001, "last_sequence": 2_000}
        ]
        found = await shell.json(*push, "--all")
        assert found["outcomes"] == {"DUPLICATE": 1_000}
        assert (await shell.json("stock", "C", "main"))["on_hand"] == {"SELLABLE": 2_000}


async def test_a_dry_run_finds_what_is_wrong_and_asks_nobody(tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    file.write_text(csv_events(1, 10) + "wms,day,11,,2026-11-24T10:00:00Z,C,main,receipt,-1\n")
    words = ("events", "push", str(file), "--dry-run", "--json", "--target", "127.0.0.1:1")
    result = await asyncio.to_thread(run, *words)
    found = json.loads(result.stdout)
    assert (result.exit_code, found["outcomes"]) == (REFUSED, {"VALID": 10, "INVALID": 1})
    assert {"event_id", "receipt.quantity"} <= set(found["failed"][0]["reason"].replace(":", ";").split("; "))


async def test_feeds_show_gaps_and_a_script_learns_of_them_by_the_exit_code(tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    async with terminal(tmp_path / "data") as shell:
        file.write_text(csv_events(1, 3))
        await shell.says("events", "push", str(file))
        await shell.says("feeds", "--check")
        file.write_text(csv_events(7, 2))
        await shell.says("events", "push", str(file))
        shown = await shell.says("feeds", "--source", "wms", "--stream", "day", "--check", ends=REFUSED)
        assert "4-6" in shown.stdout
        (feed,) = await shell.json("feeds", "--stream", "day")
        assert (feed["watermark"], feed["highest_sequence"], feed["missing"], feed["broken"]) == (3, 8, [[4, 6]], True)
        assert feed["warehouses"][0]["received_count"] == 5


async def test_a_service_that_is_not_there_ends_a_push_with_exit_5(tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    file.write_text(csv_events(1, 3))
    words = ("events", "push", str(file), "--target", "127.0.0.1:1", "--timeout", "0.5")
    result = await asyncio.to_thread(run, *words)
    assert result.exit_code == UNAVAILABLE, result.stderr
