"""The generator of the benchmark: when calls are due, when a run does not count, how answers and latencies are counted."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from bench.arrivals import due_times, lag_findings
from bench.load import Generator, connected
from bench.outcome import HISTOGRAM_US_MAX, Outcome, histogram, record
from bench.results import run_of
from bench.scenario import Scenario
from bench.traffic import KINDS, Shot, shots_for, varint
from stockade.v1 import availability_service_pb2 as availability_pb
from stockade.v1 import reservation_service_pb2 as pb
from stockade.v1 import stock_key_pb2
from stockade.v1 import warehouse_event_service_pb2 as events_pb


def scenario(**values) -> Scenario:
    return Scenario.model_validate({"title": "t", "about": "a", "work": "reserve", **values})


# --- when calls are due ---


def test_even_arrivals_are_evenly_spaced():
    assert list(due_times(4, 1.0, "even", random.Random(1))) == [0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_have_the_rate_and_come_at_random(seed):
    due = list(due_times(1_000, 20.0, "poisson", random.Random(seed)))
    gaps = [after - before for before, after in itertools.pairwise(due)]

    assert due == sorted(due)
    assert max(due) < 20.0
    assert 19_000 < len(due) < 21_000  # seven standard deviations
    assert max(gaps) > 4 / 1_000


def test_a_run_counts_when_the_generator_kept_to_its_times():
    assert lag_findings(lag_ms_p99=2.0, lag_ms_p99_max=10, planned=1_000, sent=1_000) == []


@pytest.mark.parametrize(
    ("lag_ms", "sent", "told"), [(10.1, 1_000, "10.1 ms late or more"), (1.0, 989, "only 989 of 1,000 calls")]
)
def test_a_generator_that_lagged_makes_the_run_invalid(lag_ms, sent, told):
    (found,) = lag_findings(lag_ms_p99=lag_ms, lag_ms_p99_max=10, planned=1_000, sent=sent)

    assert told in found


# --- what is counted ---


def test_latency_counts_from_when_a_call_was_due_and_not_from_when_it_left():
    outcome = Outcome()

    outcome.answered(due_s=1.0, sent_s=1.8, now_s=2.0)

    assert outcome.latency_us.get_value_at_percentile(50) == pytest.approx(1_000_000, rel=0.01)


def test_a_duration_beyond_the_histogram_counts_as_the_longest_there_is():
    of = histogram()

    record(of, 10_000.0)

    assert of.get_total_count() == 1
    assert of.get_max_value() >= HISTOGRAM_US_MAX * 0.99


def test_the_first_acknowledged_call_after_a_kill_is_one_that_was_sent_after_it():
    outcome = Outcome(struck_s=5.0)

    outcome.answered(due_s=4.9, sent_s=4.9, now_s=5.5)  # sent before
    assert outcome.acknowledged_s is None
    outcome.answered(due_s=5.1, sent_s=5.1, now_s=7.0)
    outcome.answered(due_s=5.2, sent_s=5.2, now_s=7.1)

    assert outcome.acknowledged_s == pytest.approx(2.0)


def test_a_flash_sale_has_a_rate_of_grants_until_it_is_sold_out_and_one_of_refusals_after():
    outcome = Outcome()
    for at_s in (0.5, 1.0, 1.5, 2.0):
        outcome.at_s = at_s
        outcome.grant(100, claims=100)
    for at_s in (2.5, 3.0, 4.0):
        outcome.at_s = at_s
        outcome.refuse(200)
    outcome.seconds = 4.0

    run = run_of(outcome, "", {}, {}, {}, until_sold_out=True)

    assert (run.per_second, run.refused_per_second) == (200.0, 300.0)
    assert sum(row[0] for row in run.series) == 400
    assert sum(row[1] for row in run.series) == 600


def test_a_failed_call_is_in_no_rate():
    outcome = Outcome(seconds=1.0)
    outcome.fail("UNAVAILABLE", 100)

    run = run_of(outcome, "", {}, {}, {})

    assert (run.per_second, run.refused_per_second, run.failed) == (0.0, 0.0, 100)


# --- requests from templates ---


def test_lengths_are_written_as_protobuf_writes_them():
    for value in (0, 1, 127, 128, 300, 16_384):
        message = pb.BatchReserveStockRequest.FromString(b"\x0a" + varint(0))
        assert len(message.requests) == 1
        assert varint(value)[-1] < 0x80
        assert sum((byte & 0x7F) << 7 * at for at, byte in enumerate(varint(value))) == value


@pytest.mark.parametrize(("batch", "lines", "keys"), [(1, 1, 1), (1, 25, 60), (100, 1, 50), (40, 25, 200)])
def test_reserves_made_from_templates_are_whole_and_each_has_its_own_id(seed, batch, lines, keys):
    shots, _ = shots_for(scenario(batch=batch, lines=lines, keys=keys), random.Random(seed))
    some = list(itertools.islice(shots, 5))
    orders = [
        order
        for shot in some
        for order in (
            [pb.ReserveStockRequest.FromString(shot.request)]
            if batch == 1
            else pb.BatchReserveStockRequest.FromString(shot.request).requests
        )
    ]

    assert len(orders) == 5 * batch == len({order.request_id for order in orders})
    assert {shot.units for shot in some} == {batch * lines}
    for order in orders:
        assert len(order.request_id) == 36
        assert order.channel_id == "web"
        assert len({line.stock_key.sku for line in order.lines}) == lines
        assert {line.quantity for line in order.lines} == {1}


def test_reads_and_events_made_from_templates_are_whole(seed):
    draw = random.Random(seed)
    reads, _ = shots_for(scenario(work="availability", keys=30, batch=20), draw)
    events, _ = shots_for(scenario(work="ingest", keys=30, batch=50), draw)

    read = availability_pb.BatchGetAvailabilityRequest.FromString(next(reads).request)
    told = events_pb.IngestEventsRequest.FromString(next(events).request).events

    assert (len(read.stock_keys), read.channel_id) == (20, "web")
    assert len({event.event_id for event in told}) == 50
    assert all(event.WhichOneof("fact") and event.stock_key.sku and event.occur_time.seconds for event in told)


def test_a_mixed_day_ends_reservations_that_were_granted(seed):
    shots, live = shots_for(scenario(work="mixed", keys=30), random.Random(seed))
    assert live is not None
    kinds = set()
    for shot in itertools.islice(shots, 400):
        kinds.add(shot.kind)
        if shot.kind == "reserve":
            live.append("a-reservation")

    assert kinds == {"reserve", "batch availability", "ingest", "confirm", "release"}


# --- a server that answers as it is told ---


class Told:
    """A BatchReserveStock that grants, refuses, fails and forgets to answer as its script says; it remembers what it did."""

    def __init__(self, script: list[str]) -> None:
        self.script = script
        self.granted: set[str] = set()
        self.calls = 0

    async def answer(self, request: Any, context: Any) -> Any:
        word = self.script[min(self.calls, len(self.script) - 1)]
        self.calls += 1
        if word == "overloaded":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now")
        results = []
        for at, order in enumerate(request.requests):
            if word == "refuse":
                results.append(
                    pb.BatchReserveStockResult(
                        refusal=stock_key_pb2.Refusal(reason=stock_key_pb2.REFUSAL_REASON_INSUFFICIENT_STOCK)
                    )
                )
                continue
            self.granted.add(order.request_id)
            lost = word == "half lost" and at % 2
            results.append(
                pb.BatchReserveStockResult(
                    error=failed("unknown") if lost else None, granted=None if lost else pb.Granted()
                )
            )
        if word == "lost":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "granted, but you will not hear of it")
        return pb.BatchReserveStockResponse(results=results)


def failed(outcome: str) -> Any:
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="lost")
    info = error_details_pb2.ErrorInfo(domain="stockade", reason="UNAVAILABLE", metadata={"outcome": outcome})
    status.details.add().Pack(info)
    return status


async def closed_run(told: Told, calls: int) -> tuple[Outcome, Outcome]:
    """One caller's calls of ten orders each, and what asking again brought."""
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        told.answer, pb.BatchReserveStockRequest.FromString, pb.BatchReserveStockResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("stockade.v1.ReservationService", {"BatchReserveStock": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        shots, _ = shots_for(scenario(batch=10, keys=5), random.Random(1))
        async with connected(f"127.0.0.1:{port}", 1) as channels:
            outcome = await Generator(channels).closed(itertools.islice(shots, calls), in_flight=1, seconds=30.0)
            settled = await Generator(channels).settle(outcome.unknown)
        return outcome, settled
    finally:
        await server.stop(1.0)


async def test_grants_refusals_and_failures_are_counted_apart():
    outcome, settled = await closed_run(Told(["grant", "refuse", "overloaded", "grant"]), 4)

    assert (outcome.calls, outcome.granted, outcome.refused, outcome.failed) == (3, 20, 10, 10)
    assert outcome.errors == {"RESOURCE_EXHAUSTED": 10}
    assert (outcome.claims, settled.claims, outcome.unknown) == (20, 0, [])


async def test_an_answer_that_got_lost_is_asked_for_again_and_then_agrees_with_what_was_done():
    told = Told(["grant", "lost", "overloaded", "grant"])

    outcome, settled = await closed_run(told, 2)

    assert (outcome.granted, outcome.failed) == (10, 10)
    assert outcome.claims + settled.claims == len(told.granted) == 20
    assert settled.unknown == []


async def test_only_the_items_of_a_batch_that_are_unknown_are_asked_for_again():
    told = Told(["half lost", "grant"])

    outcome, settled = await closed_run(told, 1)

    assert (outcome.granted, outcome.failed, settled.granted) == (5, 5, 5)
    assert outcome.claims + settled.claims == len(told.granted) == 10


async def test_an_open_loop_sends_what_is_due_and_measures_its_own_lag():
    """Nobody listens: every call fails, none is counted as done, and the times are kept."""
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    shots = itertools.repeat(Shot("reserve", b"", 1))
    generator = Generator([channel])
    loop_was_held_s = 0.05
    asyncio.get_running_loop().call_soon(lambda: busy(generator, loop_was_held_s))

    outcome = await generator.open(shots, iter([0.0, 0.001, 0.002, 0.2]))
    await channel.close()

    assert (outcome.planned, outcome.sent, outcome.granted, outcome.failed) == (4, 4, 0, 4)
    assert outcome.lag_us.get_total_count() == 4
    assert outcome.lag_us.get_max_value() > 0.8 * loop_was_held_s * 1e6


async def test_an_open_loop_that_is_behind_still_hears_answers():
    """All calls are due at once; the first must have failed before the last is sent."""
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    generator = Generator([channel])
    sent_at_first_failure = []

    def watched():
        for _ in range(2_000):
            if generator.outcome.failed and not sent_at_first_failure:
                sent_at_first_failure.append(generator.outcome.sent)
            yield Shot("reserve", b"", 1)

    outcome = await generator.open(watched(), itertools.repeat(0.0))
    await channel.close()

    assert outcome.sent == outcome.failed == 2_000
    assert sent_at_first_failure and sent_at_first_failure[0] < 1_000


def busy(generator: Generator, seconds: float) -> None:
    """Hold the loop, as a generator without processor time does."""
    end_s = generator.now_s() + seconds
    while generator.now_s() < end_s:
        pass


def test_every_kind_of_call_knows_its_method():
    assert all(kind.method.startswith("/stockade.v1.") and kind.method.count("/") == 2 for kind in KINDS.values())
