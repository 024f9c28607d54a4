"""A webhook against a real endpoint that fails in every way an endpoint can. The clock is turned, nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.webhooks.config import Secret, WebhookConfig
from gateway.webhooks.deliverer import Deliverer
from gateway.webhooks.metrics import WebhookMetrics
from gateway.webhooks.outbox import Change
from gateway.webhooks.sender import Sender
from gateway.webhooks.source import FeedBegunAnew
from gateway.webhooks.verdicts import Outcome
from stockade.client.webhooks import secret_bytes
from tests.integration.webhook_world import (
    SECRET,
    Answer,
    Endpoint,
    FeedInMemory,
    TurnedClock,
    drop,
    drop_in_the_head,
    endless,
    endless_head,
    make_certificate,
    never,
    no_http,
    say,
    until,
)

CONFIG = WebhookConfig(
    webhook_id="erp",
    url="",
    secrets=(Secret("k2", b"another-secret-of-some-length"), Secret("k1", secret_bytes(SECRET))),
    allowed_networks=("127.0.0.0/8",),
    batch_events_max=10,
    backoff_ms_min=100,
    backoff_ms_max=1_000,
    circuit_failures_max=5,
    circuit_pause_ms_min=1_000,
    circuit_pause_ms_max=8_000,
)


class World:
    """One webhook, its feed, its endpoint and the clock of all."""

    def __init__(self) -> None:
        self.clock = TurnedClock()
        self.feed = FeedInMemory()
        self.endpoint = Endpoint(self.clock)
        self.metrics = WebhookMetrics()
        self.deliverer: Deliverer
        self._running: asyncio.Task[None] | None = None

    async def begin(self, **settings: Any) -> None:
        config = replace(CONFIG, **{"url": f"http://127.0.0.1:{self.endpoint.port}/hook", **settings})
        sender = Sender(config, "0.1.0", self.clock.wall_s)
        self.deliverer = Deliverer(config, self.feed, sender, self.clock, self.metrics, draw=lambda: 0.5)
        self._running = asyncio.create_task(self.deliverer.run())

    async def end(self) -> None:
        """As a kill does: nothing more is acknowledged."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
            self._running = None

    async def until(self, reached: Callable[[], bool]) -> None:
        await until(reached, self.clock)

    async def until_acknowledged(self) -> None:
        await self.until(lambda: self.feed.acknowledged == len(self.feed.changes))

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"webhook": "erp", **labels}) or 0.0


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.endpoint.start()
    yield made
    await made.end()
    await made.endpoint.stop()


async def test_every_change_arrives_signed_in_batches_and_is_acknowledged(world: World):
    world.feed.add(100)
    await world.begin()
    await world.until_acknowledged()

    assert sorted(world.endpoint.ids) == sorted(f"c-{n}" for n in range(100))
    request = world.endpoint.requests[0]
    assert request.headers["content-type"] == "application/cloudevents-batch+json; charset=utf-8"
    assert request.headers["stockade-attempt"] == "1"
    assert request.headers["stockade-key-ids"] == "k2 k1"
    assert request.headers["user-agent"] == "stockade/0.1.0"
    assert request.events[0]["specversion"] == "1.0"
    assert len({request.headers["webhook-id"] for request in world.endpoint.requests}) == len(world.endpoint.requests)
    assert world.endpoint.connections <= CONFIG.lanes, "connections are kept"
    assert world.sample("stockade_webhook_changes_total", outcome="accepted") == 100


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (say(500, b"no database"), "500 no database"),
        (say(404), "404"),
        (say(401), "401"),
        (say(307, location="http://127.0.0.1:1/elsewhere"), "redirects are not followed"),
        (drop, "Server disconnected"),
        (drop_in_the_head, ""),
        (no_http, "not HTTP: Bad status line"),
        (never, "no answer within 200 ms"),
        (endless(500), "500 xxx"),
        (endless_head, "not HTTP"),
    ],
)
async def test_whatever_goes_wrong_is_tried_again_and_nothing_is_lost(world: World, answer: Answer, why: str):
    world.endpoint.answers = [answer] * 3
    world.feed.add(1)
    await world.begin(timeout_ms=200)
    await world.until_acknowledged()

    assert world.endpoint.ids == ["c-0"] * 4
    assert [request.headers["stockade-attempt"] for request in world.endpoint.requests] == ["1", "2", "3", "4"]
    assert len({request.headers["webhook-id"] for request in world.endpoint.requests}) == 1
    assert why in world.deliverer.outbox.last_error
    assert world.feed.rejections == {}
    waits = [b.at_ms - a.at_ms for a, b in itertools.pairwise(world.endpoint.requests)]
    assert waits[0] >= 50
    assert waits[1] >= 100
    assert waits[2] >= 200, "the pauses grow"


async def test_a_2xx_counts_whatever_comes_after_its_head(world: World):
    world.endpoint.answers = [endless(200)]
    world.feed.add(1)
    await world.begin()
    await world.until_acknowledged()

    assert world.endpoint.ids == ["c-0"]


async def test_retry_after_is_respected(world: World):
    world.endpoint.answers = [say(429, retry_after="30"), say(503, retry_after="20")]
    world.feed.add(1)
    await world.begin()
    await world.until_acknowledged()

    first, second, third = world.endpoint.requests
    assert second.at_ms - first.at_ms >= 30_000
    assert third.at_ms - second.at_ms >= 20_000
    assert world.sample("stockade_webhook_requests_total", outcome="paused") == 2


async def test_a_poisoned_change_becomes_an_exception_and_the_rest_goes_on(world: World):
    async def refuse_the_fifth(writer, request):
        await (say(422, b"unknown SKU") if "c-5" in request.ids else say(204))(writer, request)

    world.endpoint.otherwise = refuse_the_fifth
    world.feed.add(40, key=lambda _number: "one key")
    await world.begin()
    await world.until_acknowledged()

    assert world.feed.rejections == {"c-5": "422 unknown SKU"}
    accepted = [one for request in world.endpoint.requests if "c-5" not in request.ids for one in request.ids]
    assert accepted == [f"c-{n}" for n in range(40) if n != 5]
    assert world.sample("stockade_webhook_changes_total", outcome="given_up") == 1


async def test_an_endpoint_that_is_gone_is_left_alone_and_loses_nothing(world: World):
    world.endpoint.answers = [say(410)]
    world.feed.add(1)
    await world.begin()
    await world.until(lambda: world.deliverer.outbox.disabled)
    world.feed.add(50)
    world.clock.advance(10**7)
    await world.until(lambda: "disabled: 410" in world.feed.errors)

    assert len(world.endpoint.requests) == 1
    assert world.feed.acknowledged == 0
    assert world.sample("stockade_webhook_disabled") == 1.0
    assert world.deliverer.status()["state"] == "disabled"
    await world.end()
    await world.begin()  # the next start asks again
    await world.until_acknowledged()


async def test_the_circuit_opens_is_told_and_closes(world: World):
    world.endpoint.otherwise = say(500, b"down")
    world.feed.add(100)
    await world.begin()
    await world.until(lambda: world.sample("stockade_webhook_circuit_open") == 1.0)
    asked = len(world.endpoint.requests)
    await world.until(lambda: len(world.endpoint.requests) >= asked + 3)

    assert "circuit open: 500 down" in world.feed.errors
    probes = world.endpoint.requests[asked:]
    assert all(b.at_ms - a.at_ms >= 500 for a, b in itertools.pairwise(probes))
    world.endpoint.otherwise = say(204)
    await world.until_acknowledged()
    assert world.sample("stockade_webhook_circuit_open") == 0.0
    assert world.feed.rejections == {}


async def test_requests_under_way_are_bounded_and_order_of_a_key_is_kept(world: World):
    gate = asyncio.Event()

    async def when_open(writer, request):
        await gate.wait()
        await say(204)(writer, request)

    world.endpoint.otherwise = when_open
    world.feed.add(300, key=lambda number: f"key-{number % 9}")
    await world.begin(lanes=3)
    await world.until(lambda: world.endpoint.under_way == 3)
    gate.set()
    await world.until_acknowledged()

    assert world.endpoint.most_under_way == 3
    events = [event for request in world.endpoint.requests for event in request.events]
    for key in range(9):
        numbers = [int(event["id"][2:]) for event in events if event["key"] == f"key-{key}"]
        assert numbers == sorted(numbers)


async def test_no_more_is_read_than_may_wait(world: World):
    world.endpoint.otherwise = never
    world.feed.add(500)
    await world.begin(unsettled_changes_max=50)
    await world.until(lambda: world.endpoint.under_way == 4)
    world.clock.advance(1_000)

    assert 50 <= world.deliverer.outbox.unsettled < 57


async def test_a_deliverer_that_is_killed_again_and_again_loses_nothing(world: World, seed: int):
    rng = random.Random(seed)
    world.feed.add(300, key=lambda number: f"key-{number % 20}")
    for _ in range(5):
        await world.begin()
        goal = len(world.endpoint.requests) + rng.randrange(1, 6)
        await world.until(lambda goal=goal: len(world.endpoint.requests) >= goal)  # type: ignore[misc]
        await world.end()
    assert world.feed.acknowledged < 300
    await world.begin()
    await world.until_acknowledged()

    assert set(world.endpoint.ids) == {f"c-{n}" for n in range(300)}


async def test_a_feed_that_breaks_is_read_and_acknowledged_again(world: World):
    world.feed.break_reads, world.feed.break_acknowledgements = 3, 3
    world.feed.add(20)
    await world.begin()
    await world.until_acknowledged()

    assert sorted(world.endpoint.ids) == sorted(f"c-{n}" for n in range(20))
    assert world.sample("stockade_webhook_source_failures_total") == 6


async def test_when_the_feed_begins_anew_the_receiver_is_told_before_anything_else(world: World):
    world.feed.add(10)
    await world.begin()
    await world.until_acknowledged()
    notice = Change("resync-1", "", b'{"id":"resync-1"}')
    world.feed.anew = FeedBegunAnew("another timeline", notice)
    world.feed.add(10)
    await world.until_acknowledged()

    assert sorted(world.endpoint.ids[:10]) == sorted(f"c-{n}" for n in range(10))
    assert world.endpoint.ids[10] == "resync-1"
    assert sorted(world.endpoint.ids[11:]) == sorted(f"c-{n}" for n in range(10, 20))


async def test_draining_acknowledges_what_was_accepted(world: World):
    world.feed.add(20)
    await world.begin()
    await until(lambda: world.deliverer.outbox.accepted_changes == 20)
    await world.deliverer.drain()
    assert world.feed.acknowledged == 20


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]"])
async def test_addresses_that_are_not_public_are_refused_however_they_are_written(world: World, host: str):
    await world.begin(url=f"http://{host}:{world.endpoint.port}/hook", allowed_networks=())
    world.feed.add(1)
    await until(lambda: world.deliverer.outbox.last_error != "")

    assert "not a public address" in world.deliverer.outbox.last_error
    assert world.endpoint.connections == 0


async def test_tls_is_verified_against_the_authority_that_is_configured(world: World, tmp_path: Path):
    secure = Endpoint(world.clock)
    await secure.start(make_certificate(tmp_path))
    url = f"https://localhost:{secure.port}/hook"
    world.feed.add(1)
    try:
        await world.begin(url=url)
        await world.until(lambda: world.deliverer.outbox.last_error != "")
        assert "CERTIFICATE_VERIFY_FAILED" in world.deliverer.outbox.last_error
        assert secure.requests == []
        await world.end()

        await world.begin(url=url, ca_file=str(tmp_path / "certificate.pem"))
        await world.until_acknowledged()
        assert secure.ids == ["c-0"]
    finally:
        await secure.stop()


@pytest.mark.parametrize(("name", "days"), [("elsewhere.example", 36_500), ("localhost", 30)])
async def test_a_certificate_of_another_name_or_of_the_past_is_not_believed(
    world: World, tmp_path: Path, name: str, days: int
):
    secure = Endpoint(world.clock)
    await secure.start(make_certificate(tmp_path, name, days=days))
    world.feed.add(1)
    try:
        await world.begin(url=f"https://localhost:{secure.port}/", ca_file=str(tmp_path / "certificate.pem"))
        await world.until(lambda: world.deliverer.outbox.last_error != "")
        assert "CERTIFICATE_VERIFY_FAILED" in world.deliverer.outbox.last_error
        assert secure.requests == []
    finally:
        await secure.stop()


async def test_an_endpoint_that_is_down_is_found_again(world: World):
    await world.endpoint.stop()
    world.feed.add(10)
    await world.begin()
    await world.until(lambda: world.sample("stockade_webhook_requests_total", outcome=Outcome.FAILED.value) >= 3)
    await world.endpoint.start()
    await world.until_acknowledged()
    assert set(world.endpoint.ids) == {f"c-{n}" for n in range(10)}
