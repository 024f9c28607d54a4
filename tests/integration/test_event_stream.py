"""StreamEvents: a result for each event after it is durable, order, flow control, ends, over a gateway and a real host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from actors.domain.answers import OK, IngestView
from actors.domain.commands import Verb
from gateway.config import STREAM_EVENTS_MAX, Credential
from stockade.v1 import warehouse_event_service_pb2 as pb
from tests.integration import host_world
from tests.integration.gateway_world import Failure, FakeDirectory, FakeHost, World, before, until, world
from tests.integration.test_gateway_with_host import available, key, node


def event(index: int, sku: str = "A", **fields: Any) -> pb.WarehouseEvent:
    made = pb.WarehouseEvent(source_id="wms", event_id=f"e{index}", stock_key=key(sku), receipt=pb.Receipt(quantity=1))
    made.occur_time.GetCurrentTime()
    made.MergeFrom(pb.WarehouseEvent(**fields))
    return made


def applied(item: Sequence[Any]) -> Any:
    if item[0] == Verb.GET_FEED_STATUS:
        return (OK, False, ([], ""))
    return (OK, False, IngestView(item[5][2], 1, (item[1], 1, 7, 1_700_000_000_000), 0, "", 0))


class Caller:
    """The caller's side of one stream."""

    def __init__(self, here: World, **metadata: str) -> None:
        method: Any = here.channel.stream_stream(
            "/stockade.v1.WarehouseEventService/StreamEvents",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=pb.StreamEventsResponse.FromString,
        )
        self.call = method(metadata=tuple(metadata.items()))
        self.results: list[pb.IngestResult] = []
        self.watermark = 0

    async def open(self, source_id: str = "wms", stream_id: str = "") -> pb.StreamOpened:
        await self.say(opening=pb.StreamOpening(source_id=source_id, stream_id=stream_id))
        answer: pb.StreamEventsResponse = await self.hear()
        return answer.opened

    async def say(self, **fields: Any) -> None:
        await self.call.write(pb.StreamEventsRequest(**fields))

    async def hear(self) -> Any:
        message = await asyncio.wait_for(self.call.read(), 10)
        if message is grpc.aio.EOF:
            return None
        self.results.extend(message.results)
        self.watermark = message.watermark
        return message

    async def hear_results(self, count: int) -> list[pb.IngestResult]:
        while len(self.results) < count and await self.hear() is not None:
            pass
        return self.results

    async def end(self) -> str:
        """Close our side and hear the rest; the status."""
        await self.call.done_writing()
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await self.hear() is not None:
                pass
        return (await self.call.code()).name

    async def failure(self) -> Failure:
        """How the stream failed."""
        try:
            while await self.hear() is not None:
                pass
        except grpc.aio.AioRpcError as error:
            return Failure(error)
        raise AssertionError("the stream ended well")


@contextlib.asynccontextmanager
async def fake(**settings: Any) -> AsyncIterator[World]:
    host = FakeHost()
    host.decide = applied
    async with world(host, **settings) as here:
        yield here


async def test_every_event_gets_its_result_in_the_order_sent_once_it_is_durable():
    async with node() as (here, _):
        caller = Caller(here)
        opened = await caller.open()
        assert opened.unacknowledged_events_max == STREAM_EVENTS_MAX
        for index in range(0, 300, 3):
            await caller.say(events=[event(index), event(index + 1), event(index + 2)])
        results = await caller.hear_results(300)
        assert [result.event_id for result in results] == [f"e{index}" for index in range(300)]
        assert {result.WhichOneof("result") for result in results} == {"applied"}
        assert await caller.end() == "OK"
        assert await available(here) == 300


async def test_one_event_alone_is_answered_at_once():
    async with node() as (here, _):
        caller = Caller(here)
        await caller.open()
        for index in range(5):
            await caller.say(events=[event(index)])
            assert len(await caller.hear_results(index + 1)) == index + 1


async def test_what_was_sent_before_the_caller_closed_its_side_is_answered():
    async with node() as (here, _):
        caller = Caller(here)
        await caller.open()
        await caller.say(events=[event(index) for index in range(1_000)])
        assert await caller.end() == "OK"
        assert len(caller.results) == 1_000


async def test_an_event_sent_again_on_another_stream_is_a_duplicate_with_the_first_position():
    async with node() as (here, _):
        first, second = Caller(here), Caller(here)
        for caller in (first, second):
            await caller.open()
        told = event(1)
        await first.say(events=[told])
        await first.hear_results(1)
        await second.say(events=[told])
        (again,) = await second.hear_results(1)
        assert again.duplicate.position == first.results[0].applied.position


async def test_a_bad_event_fails_alone_and_the_stream_goes_on():
    async with node() as (here, _):
        caller = Caller(here)
        await caller.open()
        bad = event(2)
        bad.receipt.quantity = 0
        strange = event(3, stream_id="other")
        await caller.say(events=[event(1), bad, strange, event(4)])
        results = await caller.hear_results(4)
        assert [result.WhichOneof("result") for result in results] == ["applied", "error", "error", "applied"]
        assert "receipt.quantity" in results[1].error.message
        assert "stream_id" in results[2].error.message
        assert await caller.end() == "OK"


async def test_a_stream_begins_with_its_opening():
    async with fake() as here:
        early, twice = Caller(here), Caller(here)
        await early.say(events=[event(1)])
        failure = await early.failure()
        assert (*failure.what, failure.fields) == ("INVALID_ARGUMENT", "INVALID_FIELD", "not_done", ["opening"])
        await twice.open()
        await twice.say(opening=pb.StreamOpening(source_id="wms"))
        assert (await twice.failure()).fields == ["opening"]


async def test_too_many_events_in_a_message_end_the_stream_after_the_results_of_those_before():
    async with fake() as here:
        caller = Caller(here)
        await caller.open()
        await caller.say(events=[event(1)])
        await caller.say(events=[event(index) for index in range(1_001)])
        assert (await caller.failure()).fields == ["events"]
        assert [result.event_id for result in caller.results] == ["e1"]


async def test_bytes_that_are_no_message_end_the_stream():
    async with fake() as here:
        caller = Caller(here)
        await caller.open()
        await caller.call.write(b"\xff\xff\xff\xff")
        assert (await caller.failure()).reason == "INVALID_FIELD"


async def test_a_source_that_the_credential_does_not_have_is_denied():
    mine = Credential("secret", "wms-only", sources=frozenset({"wms"}))
    async with fake(credentials=(mine,)) as here:
        denied, allowed = Caller(here, authorization="Bearer secret"), Caller(here, authorization="Bearer secret")
        await denied.say(opening=pb.StreamOpening(source_id="erp"))
        assert (await denied.failure()).reason == "PERMISSION_DENIED"
        await allowed.open("wms")
        assert (await Caller(here).failure()).reason == "UNAUTHENTICATED"


async def test_a_caller_that_never_waits_is_stopped_when_too_many_events_have_no_result():
    async with fake() as here:
        here.host.decide = lambda item: (
            applied(item) if item[0] == Verb.GET_FEED_STATUS else None
        )  # no event is answered
        caller = Caller(here)
        await caller.open()
        label = "x" * 128
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                batch = [event(sent + index, document_id=label, document_line=label) for index in range(1_000)]
                await caller.say(events=batch)
                sent += 1_000

        flooding = asyncio.create_task(flood())
        await until(lambda: sent >= STREAM_EVENTS_MAX)
        seen = -1
        async with asyncio.timeout(20):
            while seen != sent:  # until the transport has no room either
                seen = sent
                await asyncio.sleep(0.3)
        flooding.cancel()
        assert sent < 100_000  # what lies in the buffers of both ends; the gateway itself took no more than it may
        assert len(here.host.seen) <= STREAM_EVENTS_MAX + 1_000


async def test_little_that_arrives_while_batches_are_under_way_travels_together():
    async with fake() as here:
        here.host.delay_s = 0.05
        caller = Caller(here)
        await caller.open()
        for index in range(200):
            await caller.say(events=[event(index)])
        assert len(await caller.hear_results(200)) == 200
        assert here.host.frames < 60


async def test_a_caller_that_goes_away_leaves_nothing_behind():
    async with fake() as here:
        here.host.decide = lambda item: applied(item) if item[0] == Verb.GET_FEED_STATUS else None
        caller = Caller(here)
        await caller.open()
        await caller.say(events=[event(1)])
        await until(lambda: any(item[0] == Verb.INGEST for item in here.host.seen))
        _, page = await here.get("/metrics")
        assert 'stockade_gateway_streams{method="StreamEvents"} 1.0' in page
        caller.call.cancel()
        async with asyncio.timeout(10):
            while 'stockade_gateway_streams{method="StreamEvents"} 0.0' not in page:
                _, page = await here.get("/metrics")
                await asyncio.sleep(0.01)


async def test_a_gateway_that_stops_answers_what_it_read_and_sends_the_caller_elsewhere():
    async with host_world.world() as there, before(FakeDirectory(there.host.route)) as here:
        caller = Caller(here)
        await caller.open()
        await caller.say(events=[event(1)])
        await caller.hear_results(1)
        stopping = asyncio.create_task(here.gateway.stop(5))
        failure = await caller.failure()
        assert failure.what == ("UNAVAILABLE", "SHARD_UNAVAILABLE", "not_done")
        await stopping


async def test_a_host_that_has_gone_is_an_error_of_the_event_not_of_the_stream():
    async with fake(route_patience_ms=200, deadline_default_ms=1_000) as here:
        caller = Caller(here)
        await caller.open()
        await here.host.stop()
        await caller.say(events=[event(1)])
        (result,) = await caller.hear_results(1)
        assert result.WhichOneof("result") == "error"
        await here.host.start()
        await until(lambda: here.gateway.ready)
        await caller.say(events=[event(2)])
        assert (await caller.hear_results(2))[1].WhichOneof("result") == "applied"
        assert await caller.end() == "OK"


async def test_a_stream_is_opened_with_how_far_the_source_had_come():
    async with node() as (here, _):
        first = Caller(here)
        opened = await first.open(stream_id="day")
        assert (opened.watermark, opened.highest_sequence) == (0, 0)
        for sequence in (1, 2, 5):
            await first.say(events=[event(sequence, stream_id="day", source_sequence=sequence)])
        await first.hear_results(3)
        assert first.watermark == 2
        other, again = Caller(here), Caller(here)
        assert (await other.open()).watermark == 0
        opened = await again.open(stream_id="day")
        assert (opened.watermark, opened.highest_sequence) == (2, 5)


async def test_an_event_that_must_wait_says_for_what_and_how_long():
    async with node() as (here, _):
        caller = Caller(here)
        await caller.open()
        shipped = pb.Shipment(quantity=1, shipment_id="s1", close_remainder=True)
        waits = event(3, source_sequence=3)
        waits.shipment.CopyFrom(shipped)
        await caller.say(events=[event(1, source_sequence=1), waits])
        (_, result) = await caller.hear_results(2)
        assert result.deferred.waits_for_sequence == 2
        assert result.deferred.until_time.seconds > waits.occur_time.seconds
        assert await available(here) == 1
        await caller.say(events=[event(2, source_sequence=2), waits])
        again = (await caller.hear_results(4))[3]
        assert again.WhichOneof("result") in ("duplicate", "deferred")
        await until_available(here, 1)


async def until_available(here: World, quantity: int) -> None:
    async with asyncio.timeout(10):
        while await available(here) != quantity:
            await asyncio.sleep(0.01)


async def test_heartbeats_and_feed_status_tell_how_far_each_feed_is_and_what_is_missing():
    async with node() as (here, _):
        told = [event(sequence, source_sequence=sequence) for sequence in (1, 2, 4, 4, 9)]
        told[3].receipt.quantity = 7  # another event with the sequence of the one before
        told[3].event_id = "other"
        await here.call(pb.IngestEventsRequest(events=[*told, told[0]]))
        beats = [
            pb.Heartbeat(source_id="wms", warehouse_id="main", last_source_sequence=12),
            pb.Heartbeat(source_id="wms", warehouse_id="nowhere"),
        ]
        live, bad = (await here.call(pb.SendHeartbeatsRequest(heartbeats=beats))).results
        assert (live.watermark, live.highest_sequence) == (2, 12)
        assert "nowhere" in bad.error.message
        (feed,) = (await here.call(pb.GetFeedStatusRequest(source_id="wms"))).feeds
        assert (feed.watermark, feed.highest_sequence) == (2, 12)
        missing = [(each.first_sequence, each.last_sequence) for each in feed.missing]
        assert missing == [(3, 3), (5, 8), (10, 12)]
        (part,) = feed.warehouses
        counts = (
            part.received_count,
            part.applied_count,
            part.duplicate_count,
            part.waiting_count,
            part.rejected_count,
        )
        assert counts == (6, 4, 1, 0, 1)
        assert part.last_received_time.seconds >= part.last_occur_time.seconds > 0


async def test_the_status_of_all_feeds_is_for_operators():
    mine = Credential("secret", "wms-only", sources=frozenset({"wms"}))
    async with fake(credentials=(mine,)) as here:
        bearer: Any = {"authorization": "Bearer secret"}
        assert (await here.failure(pb.GetFeedStatusRequest(), **bearer)).reason == "PERMISSION_DENIED"
        assert (await here.failure(pb.GetFeedStatusRequest(source_id="erp"), **bearer)).reason == "PERMISSION_DENIED"
        assert (await here.call(pb.GetFeedStatusRequest(source_id="wms"), **bearer)).feeds == []
