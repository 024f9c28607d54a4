"""Webhooks from the journal to the endpoint: a real host and gateway, the real feed, a real endpoint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.runtime import wiring
from gateway.changes.cursors import cursor_text
from gateway.webhooks.change_feed import ChangeFeed
from gateway.webhooks.service import RunningWebhooks
from gateway.webhooks.source import FeedBegunAnew
from tests.integration.change_world import ChangeWorld, change_world
from tests.integration.webhook_world import WITHIN_S, Answer, Endpoint, SystemTime, say, until

SECRET_SETTING = {"id": "k1", "secret": "a-secret-of-thirty-two-characters"}


def webhook(endpoint: Endpoint, **more: Any) -> str:
    settings = {
        "url": f"http://127.0.0.1:{endpoint.port}/",
        "secrets": [SECRET_SETTING],
        "allow_plain_http": True,
        "allowed_networks": ["127.0.0.0/8"],
        "backoff_ms_min": 10,
        "backoff_ms_max": 20,
        **more,
    }
    return json.dumps({"shop": settings})


class World:
    """A node, its webhook and the webhook's endpoint."""

    def __init__(self, changes: ChangeWorld, endpoint: Endpoint) -> None:
        self.changes = changes
        self.endpoint = endpoint
        self.webhooks: RunningWebhooks | None = None

    async def begin(self) -> None:
        """As the process of webhooks does when it starts."""
        node = self.changes.node
        configs = wiring.webhook_configs(node.settings)
        self.webhooks = await wiring.start_webhooks(node.gateways[0].config, configs, node.directory)

    async def end(self, grace_s: float) -> None:
        """As that process does when it is told to stop within this time."""
        if self.webhooks is not None:
            await self.webhooks.stop(grace_s)
            self.webhooks = None

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [
            event for request in self.endpoint.requests for event in request.events if event["type"].startswith(kind)
        ]

    async def consumer(self, reached: Callable[[Any], bool]) -> Any:
        """The consumer, once it is as said."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                (found,) = await self.changes.client.list_consumers()
                if reached(found):
                    return found
                await asyncio.sleep(0.005)

    async def has_begun(self) -> Any:
        """Its place is on record."""
        return await self.consumer(lambda found: bool(found.cursor))

    async def acknowledged(self) -> Any:
        """The consumer, once nothing waits for it."""
        return await self.consumer(lambda found: bool(found.cursor) and not (found.lag_events or found.last_error))


@asynccontextmanager
async def webhook_world(*, begin: bool = True, **more: Any) -> AsyncIterator[World]:
    endpoint = Endpoint(SystemTime())
    await endpoint.start()
    async with change_world(webhooks=json.loads(webhook(endpoint, **more))) as changes:
        world = World(changes, endpoint)
        if begin:
            await world.begin()
        try:
            yield world
        finally:
            await world.end(0.2)
            await endpoint.stop()


async def test_what_is_reserved_reaches_the_endpoint_and_is_acknowledged():
    async with webhook_world() as world:
        await world.has_begun()
        await world.changes.receive("A", 10)
        reservation = await world.changes.reserve("A", 4)
        await until(lambda: len(world.events("stockade.reservation.opened")) == 1)
        await world.acknowledged()

    (opened,) = world.events("stockade.reservation.opened")
    assert opened["data"]["reservation_id"] == reservation.reservation_id
    newest = max(world.events("stockade.availability"), key=lambda event: int(event["data"]["seen_sequence"]))
    assert newest["data"]["available_quantity"] == 6
    ids = [event["id"] for request in world.endpoint.requests for event in request.events]
    assert len(set(ids)) == len(ids)


async def test_what_happened_while_nobody_delivered_is_delivered_after():
    async with webhook_world() as world:
        await world.changes.receive("A", 100)
        await world.acknowledged()
        await world.end(1.0)
        for _ in range(20):
            await world.changes.reserve("A")
        before = len(world.endpoint.requests)
        await world.begin()
        await until(lambda: len(world.events("stockade.reservation.opened")) == 20)
        await world.acknowledged()

    assert not [event for request in world.endpoint.requests[before:] for event in request.events
                if event["type"] == "stockade.availability.current.v1"], "it goes on, it does not begin anew"  # fmt: skip


async def test_a_change_that_the_endpoint_refuses_becomes_an_exception():
    async with webhook_world(kinds=["reservation"]) as world:
        refuse_orders_of(world, "UNWANTED")
        await world.has_begun()
        await world.changes.receive("UNWANTED", 10)
        await world.changes.receive("WANTED", 10)
        await world.changes.reserve("UNWANTED")
        await world.changes.reserve("WANTED")
        await world.acknowledged()
        exceptions, _ = await world.changes.client.list_exceptions()

    assert [exception.kind for exception in exceptions] == ["CHANGE_REJECTED"]
    assert "422 no such thing" in exceptions[0].message
    assert "WANTED" in [event["data"]["lines"][0]["sku"] for event in world.events("stockade.reservation.opened")]


def refuse_orders_of(world: World, sku: str) -> None:
    async def answer(writer: Any, request: Any) -> None:
        refused = sku in request.body.decode()
        chosen: Answer = say(422, b"no such thing") if refused else say(204)
        await chosen(writer, request)

    world.endpoint.otherwise = answer


async def test_a_new_webhook_begins_with_current_values():
    async with webhook_world(begin=False) as world:
        for sku in ("A", "B", "C"):
            await world.changes.receive(sku, 5)
        await world.begin()
        await until(lambda: len(world.events("stockade.availability.current")) == 3)
        await world.acknowledged()

    assert {event["data"]["sku"] for event in world.events("stockade.availability.current")} == {"A", "B", "C"}


async def test_one_that_is_killed_before_its_first_success_leaves_nothing_out():
    """Its endpoint is down from the beginning: neither current values nor what happened meanwhile are lost."""
    async with webhook_world(begin=False, circuit_pause_ms_max=20, circuit_pause_ms_min=10) as world:
        await world.changes.receive("A", 50)
        await world.changes.receive("B", 50)
        world.endpoint.otherwise = say(500)
        for number in range(3):
            await world.begin()
            await world.has_begun()
            await world.changes.reserve("A", order_reference=f"o-{number}")
            await until(lambda: len(world.endpoint.requests) > 3)
            await world.end(0)
        world.endpoint.requests.clear()
        world.endpoint.otherwise = say(204)
        await world.begin()
        await world.acknowledged()

    assert {event["data"]["sku"] for event in world.events("stockade.availability.current")} == {"A", "B"}
    opened = [event["data"]["order_reference"] for event in world.events("stockade.reservation.opened")]
    assert sorted(opened) == ["o-0", "o-1", "o-2"]


async def test_an_endpoint_that_is_down_is_told_of_in_the_consumer():
    async with webhook_world(circuit_failures_max=1, circuit_pause_ms_min="1m") as world:
        world.endpoint.otherwise = say(500, b"no database")
        await world.changes.receive("A", 5)
        consumer = await world.consumer(lambda found: "circuit open" in found.last_error)
        assert world.webhooks is not None
        (status,) = world.webhooks.status()

    assert consumer.last_error.endswith("circuit open: 500 no database")
    assert status["state"] == "circuit open"


async def test_after_a_restore_the_feed_is_begun_anew_with_current_values():
    async with webhook_world(begin=False) as world:
        await world.changes.receive("A", 5)
        (config,) = wiring.webhook_configs(world.changes.node.settings)
        feed = ChangeFeed(config, world.changes.client, SystemTime().wall_s)
        of_another_timeline = cursor_text("elsewhere", 0, {0: 1})

        with pytest.raises(FeedBegunAnew) as told:
            await anext(feed.read(of_another_timeline))
        first = await anext(feed.read(""))
        consumer = await world.has_begun()

    assert json.loads(told.value.notice.event)["data"] == {"reason": "OTHER_TIMELINE"}
    assert [json.loads(change.event)["type"] for change in first.changes] == ["stockade.availability.current.v1"]
    assert consumer.last_error == "current values are not delivered yet"
