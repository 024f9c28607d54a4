"""``stockade changes``, ``watch`` and ``consumers`` as a person and as a script meet them; and the metrics beside them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner, Result

from actors.runtime.host_metrics import host_metrics_text
from gateway.changes.cursors import cursor_text
from gateway.cli.main import app
from tests.integration.change_world import ChangeWorld, change_world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

OK, USAGE, REFUSED = 0, 2, 3


async def says(world: ChangeWorld, *words: str, ends: int = OK) -> Result:
    result = await asyncio.to_thread(CliRunner().invoke, app, [*words, "--target", world.node.target])
    assert result.exit_code == ends, (words, result.stdout, result.stderr, result.exception)
    return result


def lines(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


async def test_changes_are_told_in_words_and_go_on_from_the_cursor_shown() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        reservation = await world.reserve("A", 2, order_reference="o-1")
        first = await says(world, "changes", "--from", "oldest", "--until-now")
        await world.client.release(reservation.reservation_id, reason="CUSTOMER_CANCELLED")
        cursor = first.stderr.split()[-1]
        second = await says(world, "changes", "--cursor", cursor, "--until-now")

        assert "A @ main: 7 available" in first.stdout
        assert f"reservation {reservation.reservation_id} (web): opened, HELD, order o-1, 2 × A @ main" in first.stdout
        assert "units ended, 2 released" in second.stdout
        assert "opened" not in second.stdout


async def test_a_script_reads_as_a_consumer_and_acknowledges() -> None:
    async with change_world(consumers={"erp": {"lag_events_max": 1}}) as world:
        await world.receive("A", 9)
        told = lines(
            await says(
                world,
                "changes",
                "--consumer",
                "erp",
                "--acknowledge",
                "--until-now",
                "--json",
                "--kind",
                "availability",
            )
        )
        (erp,) = json.loads((await says(world, "consumers", "--json")).stdout)

        assert [(one["kind"], one["available_quantity"]) for one in told] == [("availability", 9)]
        assert (erp["consumer_id"], erp["lag_events"]) == ("erp", 0)
        assert erp["cursor"]

        for _ in range(3):
            await world.reserve("A")
        async with asyncio.timeout(10):
            while "LAGGING" not in (await says(world, "consumers")).stdout:
                await asyncio.sleep(0.1)
        await says(world, "consumers", "--check", ends=REFUSED)

        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(
                host_metrics_text(
                    world.node.host.status, world.node.host.engine.books, world.node.host.engine.now_ms
                ).decode()
            )
            for sample in family.samples
            if sample.labels.get("consumer") == "erp"
        }
        assert samples["stockade_consumer_lagging"] == 1
        assert samples["stockade_consumer_lag_events"] >= 6
        assert samples["stockade_consumer_lag_seconds"] > 0


async def test_what_may_be_promised_is_watched() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        told = await says(world, "watch", "A@main", "B@main", "--once")
        whole = lines(await says(world, "watch", "--warehouse", "main", "--once", "--json"))

        assert sorted(told.stdout.splitlines()) == ["A @ main: 9 available", "B @ main: not known"]
        assert [(one["stock_key"]["sku"], one["available_quantity"]) for one in whole] == [("A", 9)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("watch",), "give either stock keys"),
        (("watch", "A"), "SKU@WAREHOUSE"),
        (("changes", "--acknowledge"), "needs --consumer"),
        (("changes", "--from", "yesterday"), "'yesterday' is none of oldest, now, snapshot"),
    ],
)
async def test_a_mistake_is_named(words: tuple[str, ...], said: str) -> None:
    async with change_world() as world:
        assert said in (await says(world, *words, ends=USAGE)).stderr


async def test_a_cursor_that_leads_nowhere_is_exit_3_with_what_to_do() -> None:
    async with change_world() as world:
        await world.receive("A", 9)
        lost = cursor_text("before", 1, {0: 1})
        result = await says(world, "changes", "--cursor", lost, ends=REFUSED)

        assert "OTHER_TIMELINE; read on with --from snapshot" in result.stderr
