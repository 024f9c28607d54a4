"""The exception queue through the whole service: rejected, kept, looked at, resolved; over a restart, and sound in the journal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stockade import Client, StockadeError
from stockade.client import facts
from tests.integration.withstand_world import Service, service

pytestmark = pytest.mark.timeout(180)
CLOSED = {"catalog": "closed", "exception_teams": {"event_rejected": "night_shift"}}


async def rejected(shop: Service, sku: str, quantity: int, event_id: str) -> str:
    (told,) = await shop.ingest(facts.receipt(shop.told(sku, event_id), quantity))
    assert told.outcome == "REJECTED"
    return told.exception_id


async def test_a_rejected_event_is_kept_over_a_restart_and_booked_once(tmp_path: Path) -> None:
    async with service(tmp_path, **CLOSED) as shop:
        client = shop.client
        told = facts.receipt(shop.told("A", "e1"), 5)
        (first,) = await shop.ingest(told)
        assert (first.outcome, first.reason) == ("REJECTED", "UNKNOWN_STOCK_KEY")
        found = await client.get_exception(first.exception_id)
        assert (found.state, found.priority, found.owning_team) == ("OPEN", "NORMAL", "night_shift")
        assert found.event["receipt"] == {"quantity": "5", "disposition": "DISPOSITION_SELLABLE"}
        assert (found.cause_verb, found.event_id) == ("ingest", "e1")

        still = await client.resolve_exception(first.exception_id, action="retry", note="try", resolver="ann")
        assert still.result is not None
        assert (still.result.outcome, still.exception.state) == ("REJECTED", "OPEN")

        await client.register_stock([("A", "main")])
        await shop.restart_host()
        words: dict[str, Any] = {"action": "retry", "note": "registered now", "resolver": "ann", "request_id": "r-1"}
        done = await client.resolve_exception(first.exception_id, **words)
        assert done.result is not None
        assert (done.result.outcome, done.exception.state, done.replayed) == ("APPLIED", "RESOLVED", False)
        await shop.restart_host()
        again = await client.resolve_exception(first.exception_id, **words)
        assert (again.result, again.replayed) == (done.result, True)
        assert [(one.action, one.resolver, one.note) for one in again.exception.handlings] == [
            ("RETRY", "ann", "try"),
            ("RETRY", "ann", "registered now"),
        ]
        assert (await shop.stock("A")).on_hand == {"SELLABLE": 5}
        (repeat,) = await shop.ingest(told)
        assert repeat.outcome == "DUPLICATE"
        (feed,), _ = await client.feed_status()
        (part,) = feed.warehouses
        assert (part.applied_count, part.rejected_count) == (1, 0)


async def test_a_blocking_client_corrects_an_event_and_is_told_what_is_wrong_with_it(tmp_path: Path) -> None:
    async with service(tmp_path, **CLOSED) as shop:
        await shop.client.register_stock([("A", "main")])
        exception_id = await rejected(shop, "AA", 5, "e1")

        def correct() -> None:
            with Client(shop.target) as client:
                event = dict(client.get_exception(exception_id).event)
                told: dict[str, Any] = {"action": "correct_and_retry", "note": "a misspelt SKU", "resolver": "ann"}
                other = {**event, "event_id": "e2"}
                with pytest.raises(StockadeError, match=r"corrected_event\.event_id"):
                    client.resolve_exception(exception_id, corrected_event=other, **told)
                event["stock_key"] = {"sku": "A", "warehouse_id": "main"}
                done = client.resolve_exception(exception_id, corrected_event=event, **told)
                assert done.result is not None
                assert done.result.outcome == "APPLIED"

        await asyncio.to_thread(correct)
        assert (await shop.stock("A")).on_hand == {"SELLABLE": 5}


async def test_the_queue_is_filtered_paged_and_emptied(tmp_path: Path) -> None:
    async with service(tmp_path, **CLOSED) as shop:
        client = shop.client
        opened = [await rejected(shop, f"S{number}", 1, f"e{number}") for number in range(12)]
        found: list[str] = []
        token = ""
        while True:
            page, token = await client.list_exceptions(newest_first=True, page_size=5, page_token=token)
            found += [one.exception_id for one in page]
            if not token:
                break
        assert sorted(found) == sorted(opened)
        assert len((await client.list_exceptions(priorities=["normal"], owning_team="night_shift"))[0]) == 12
        assert (await client.list_exceptions(owning_team="warehouse"))[0] == []
        assert (await client.list_exceptions(source_id="another"))[0] == []
        (one,), _ = await client.list_exceptions(stock_key=("S3", "main"))
        assert one.exception_id == opened[3]
        for exception_id in opened:
            await client.resolve_exception(exception_id, action="discard", note="a test", resolver="ann")
        assert (await client.list_exceptions(states=["open"]))[0] == []
        with pytest.raises(StockadeError, match="is resolved"):
            await client.resolve_exception(opened[0], action="discard", note="a test", resolver="ann")


async def test_what_cannot_be_is_an_error_that_says_so(tmp_path: Path) -> None:
    async with service(tmp_path, **CLOSED) as shop:
        exception_id = await rejected(shop, "A", 5, "e1")
        for wrong, said in (
            ({"exception_id": "x-nobody-5-1", "action": "discard"}, "no exception"),
            ({"exception_id": "no id of ours", "action": "discard"}, "no exception"),
            ({"exception_id": exception_id, "action": "correct_and_retry"}, "corrected_event"),
            ({"exception_id": exception_id, "action": "discard", "note": " "}, "note"),
            ({"exception_id": exception_id, "action": "discard", "resolver": ""}, "resolver"),
        ):
            options: dict[str, Any] = {"note": "why", "resolver": "ann", **wrong}
            with pytest.raises(StockadeError, match=said):
                await shop.client.resolve_exception(options.pop("exception_id"), **options)
