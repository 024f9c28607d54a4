"""What is sent and how answers are counted, for each kind of work. Requests are bytes, made from templates.

A message's serialized parts may be concatenated (protobuf merges them), so a request is its own fresh id before a tail that
is made once for each stock key or order. An answer counts as granted only when it says so; an error never does.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.noop import CHANNEL, WAREHOUSE
from bench.outcome import Outcome
from bench.scenario import Scenario
from stockade.client import facts
from stockade.client.errors import from_status
from stockade.client.ids import new_request_id
from stockade.v1 import availability_service_pb2 as availability_pb
from stockade.v1 import reservation_service_pb2 as pb
from stockade.v1 import stock_key_pb2
from stockade.v1 import warehouse_event_service_pb2 as events_pb

SOURCE = "bench"
POOL = 2_000  # orders and reads made once and drawn from
LIVE_MAX = 10_000  # reservations a mixed load remembers to end
ENCODED_AHEAD_MAX = 40_000  # calls; the rest is made as it is sent
CALLS_PER_SECOND_AHEAD = 12_000
ID_FIELD = b"\x0a\x24"  # field 1, 36 characters: a request id
EVENT_ID_FIELD = b"\x1a\x24"  # field 3, 36 characters: an event id
ITEM_FIELD = b"\x0a"  # field 1, an embedded message
STREAMED_FIELD = b"\x12"  # field 2, the same in a message of a stream
SEQUENCE_FIELD, SEQUENCE_BYTES = (
    b"\x20",
    5,
)  # field 4, a number written as long as the longest, so that lengths are fixed


class Shot(NamedTuple):
    """One call: of which kind, its bytes, how many units of work it asks for."""

    kind: str
    request: bytes
    units: int


Count = Callable[[Outcome, Shot, Any], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """A method. ``count`` reads its answer; ``settled``: whether an answer that got lost must be asked for again."""

    method: str
    response_type: Any
    count: Count
    settled: bool


def varint(value: int) -> bytes:
    """A length as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def skus(count: int) -> list[tuple[str, str]]:
    """Stock keys of a scenario."""
    return [(f"SKU-{number:07d}", WAREHOUSE) for number in range(count)]


def key_messages(count: int) -> list[Any]:
    """The same as messages."""
    return [stock_key_pb2.StockKey(sku=sku, warehouse_id=warehouse) for sku, warehouse in skus(count)]


def order_tails(keys: int, lines: int, draw: random.Random) -> list[bytes]:
    """Orders without their ids: one a stock key, or a pool of orders of several different keys."""
    messages = key_messages(keys)
    if lines == 1:
        orders = [[key] for key in messages]
    else:
        orders = [draw.sample(messages, lines) for _ in range(POOL)]
    return [
        pb.ReserveStockRequest(
            channel_id=CHANNEL, lines=[pb.LineRequest(stock_key=key, quantity=1) for key in order]
        ).SerializeToString()
        for order in orders
    ]


def reserves(scenario: Scenario, draw: random.Random) -> Iterator[Shot]:
    """Reserves for ever: single, or so many orders a call."""
    tails = order_tails(scenario.keys, scenario.lines, draw)
    batch, units = scenario.batch, scenario.batch * scenario.lines
    if batch == 1:
        while True:
            yield Shot("reserve", ID_FIELD + new_request_id().encode() + draw.choice(tails), units)
    heads = [ITEM_FIELD + varint(len(tail) + len(ID_FIELD) + 36) + ID_FIELD for tail in tails]
    pairs = list(zip(heads, tails, strict=True))
    while True:
        parts: list[bytes] = []
        for head, tail in draw.choices(pairs, k=batch):
            parts += (head, new_request_id().encode(), tail)
        yield Shot("batch reserve", b"".join(parts), units)


def reads(scenario: Scenario, draw: random.Random) -> Iterator[Shot]:
    """Availability of so many stock keys a call."""
    messages = key_messages(scenario.keys)
    if scenario.batch == 1:
        singles = [
            availability_pb.GetAvailabilityRequest(channel_id=CHANNEL, stock_key=key).SerializeToString()
            for key in messages
        ]
        while True:
            yield Shot("availability", draw.choice(singles), 1)
    pool = [
        availability_pb.BatchGetAvailabilityRequest(
            channel_id=CHANNEL, stock_keys=draw.choices(messages, k=scenario.batch)
        ).SerializeToString()
        for _ in range(POOL // 10)
    ]
    while True:
        yield Shot("batch availability", draw.choice(pool), scenario.batch)


SEQUENCES = itertools.count(1)  # of the one source, over all runs against a service


def long_varint(value: int) -> bytes:
    """A number in ``SEQUENCE_BYTES`` bytes, however small it is."""
    parts = [(value >> 7 * at) & 0x7F | 0x80 for at in range(SEQUENCE_BYTES)]
    parts[-1] &= 0x7F
    return bytes(parts)


def ingests(scenario: Scenario, draw: random.Random) -> Iterator[Shot]:
    """Receipts, corrections up and down, and counts, so many a call or a message of a stream."""
    now_ms = time.time_ns() // 1_000_000
    made: list[Any] = []
    for key in skus(scenario.keys):
        told = facts.Told(SOURCE, "", key, now_ms)
        made += (
            facts.receipt(told, 5),
            facts.adjustment(told, -1, reason="broken"),
            facts.adjustment(told, 1, reason="found"),
            facts.stock_count(told, scenario.units_per_key, now=True),
        )
    tails = [message.SerializeToString() for message in made]
    item = STREAMED_FIELD if scenario.streamed else ITEM_FIELD
    more = len(EVENT_ID_FIELD) + 36 + (len(SEQUENCE_FIELD) + SEQUENCE_BYTES if scenario.sequenced else 0)
    heads = [item + varint(len(tail) + more) + EVENT_ID_FIELD for tail in tails]
    pairs = list(zip(heads, tails, strict=True))
    weights = list(itertools.accumulate([5, 2, 2, 1] * scenario.keys))
    while True:
        parts: list[bytes] = []
        for head, tail in draw.choices(pairs, cum_weights=weights, k=scenario.batch):
            parts += (head, new_request_id().encode(), tail)
            if scenario.sequenced:
                parts += (SEQUENCE_FIELD, long_varint(next(SEQUENCES)))
        yield Shot("ingest", b"".join(parts), scenario.batch)


class MixedDay:
    """A shop's day at once: carts of one to six lines, then confirmed or released or left; reads; facts of the warehouse."""

    def __init__(self, scenario: Scenario, draw: random.Random) -> None:
        self.live: deque[str] = deque(maxlen=LIVE_MAX)
        self._draw = draw
        sizes = range(1, min(6, scenario.keys) + 1)
        self._tails = [tail for lines in sizes for tail in order_tails(scenario.keys, lines, draw)[:POOL]]
        self._reads = reads(scenario.adapted(work="availability", batch=min(20, scenario.keys)), draw)
        self._events = ingests(scenario.adapted(work="ingest", batch=20), draw)

    def __iter__(self) -> Iterator[Shot]:
        while True:
            yield self._next()

    def _next(self) -> Shot:
        chance = self._draw.random()
        if chance < 0.3:
            return next(self._reads)._replace(units=1)
        if chance < 0.35:
            return next(self._events)._replace(units=1)
        if chance < 0.6 and self.live:
            return self._end(self.live.popleft())
        return Shot("reserve", ID_FIELD + new_request_id().encode() + self._draw.choice(self._tails), 1)

    def _end(self, reservation_id: str) -> Shot:
        if self._draw.random() < 0.7:
            confirm = pb.ConfirmReservationRequest(request_id=new_request_id(), reservation_id=reservation_id)
            return Shot("confirm", confirm.SerializeToString(), 1)
        release = pb.ReleaseReservationRequest(
            request_id=new_request_id(),
            reservation_id=reservation_id,
            reason=pb.RELEASE_REASON_CART_ABANDONED,
        )
        return Shot("release", release.SerializeToString(), 1)


def shots_for(scenario: Scenario, draw: random.Random) -> tuple[Iterator[Shot], deque[str] | None]:
    """The calls of a scenario, without end; and where the answers of a mixed day leave the reservations it then ends."""
    if scenario.work == "mixed":
        day = MixedDay(scenario, draw)
        return iter(day), day.live
    makers = {"reserve": reserves, "availability": reads, "ingest": ingests}
    return makers[scenario.work](scenario, draw), None


def calls_ahead(scenario: Scenario, seconds: float, in_flight: int) -> int:
    """How many calls are made before a run."""
    units = scenario.batch * scenario.lines
    return min(ENCODED_AHEAD_MAX, int(CALLS_PER_SECOND_AHEAD * seconds / max(1, units / 4)) + in_flight)


def shots_ahead(scenario: Scenario, draw: random.Random, seconds: float, in_flight: int) -> Iterator[Shot]:
    """The calls of a scenario, the first of them encoded before the run."""
    shots, live = shots_for(scenario, draw)
    if live is not None:
        return shots
    return itertools.chain(list(itertools.islice(shots, calls_ahead(scenario, seconds, in_flight))), shots)


# --- reading answers -----------------------------------------------------------------------------------------------------------


def count_decision(outcome: Outcome, shot: Shot, response: Any) -> None:
    """A single reserve."""
    if response.WhichOneof("result") == "reservation":
        outcome.grant(shot.units, claims=len(response.reservation.lines))
        if outcome.live is not None:
            outcome.live.append(response.reservation.reservation_id)
    else:
        outcome.refuse(shot.units)


def count_batch(outcome: Outcome, shot: Shot, response: Any) -> None:
    """A batch of reserves: every item by what it says; items that failed with unknown outcome are asked for again."""
    results = response.results
    lines = shot.units // len(results)
    granted = refused = 0
    unknown: list[int] = []
    for at, result in enumerate(results):
        which = result.WhichOneof("result")
        if which == "granted":
            granted += 1
        elif which == "refusal":
            refused += 1
        else:
            _count_item_error(outcome, result.error, lines, at, unknown)
    outcome.grant(granted * lines, claims=granted * lines)
    outcome.refuse(refused * lines)
    if unknown:
        requests = pb.BatchReserveStockRequest.FromString(shot.request).requests
        again = pb.BatchReserveStockRequest(requests=[requests[at] for at in unknown]).SerializeToString()
        outcome.unknown.append(shot._replace(request=again, units=lines * len(unknown)))


def count_ingested(outcome: Outcome, shot: Shot, response: Any) -> None:
    """A batch of events. ``duplicate``: an earlier attempt of the same event was applied."""
    each = shot.units // len(response.results)  # 0 in a mixed day, where the call counts as one command
    applied = 0
    unknown: list[int] = []
    for at, result in enumerate(response.results):
        which = result.WhichOneof("result")
        if which in ("applied", "duplicate"):
            applied += 1
        elif which == "error":
            _count_item_error(outcome, result.error, each, at, unknown)
        else:
            outcome.fail(f"event {which}", each)
    outcome.facts += applied
    outcome.grant(applied if each else shot.units, claims=0)
    if unknown:
        events = events_pb.IngestEventsRequest.FromString(shot.request).events
        again = events_pb.IngestEventsRequest(events=[events[at] for at in unknown]).SerializeToString()
        outcome.unknown.append(shot._replace(request=again, units=each * len(unknown)))


def _count_item_error(outcome: Outcome, status: Any, units: int, at: int, unknown: list[int]) -> None:
    error = from_status(status, _code(status.code))
    outcome.fail(error.reason or error.code.name, units)
    if outcome.settling or error.outcome != "not_done":
        unknown.append(at)


def _code(number: int) -> Any:
    import grpc

    return next(code for code in grpc.StatusCode if code.value[0] == number)


def count_read(outcome: Outcome, shot: Shot, response: Any) -> None:
    """Availability of one stock key; one that nobody knows counts as failed."""
    _count_reads(outcome, shot, [response.availability])


def count_reads(outcome: Outcome, shot: Shot, response: Any) -> None:
    """Availability of several."""
    _count_reads(outcome, shot, response.availabilities)


def _count_reads(outcome: Outcome, shot: Shot, answers: Sequence[Any]) -> None:
    known = sum(1 for one in answers if one.known)
    if known < len(answers):
        outcome.fail("unknown stock key", len(answers) - known)
    outcome.grant(min(known, shot.units), claims=0)


def count_ending(outcome: Outcome, shot: Shot, response: Any) -> None:
    """A confirm or a release."""
    if response.WhichOneof("result") == "reservation":
        outcome.grant(shot.units, claims=0)
    else:
        outcome.refuse(shot.units)


_RESERVATIONS, _AVAILABILITY = "/stockade.v1.ReservationService/", "/stockade.v1.AvailabilityService/"
KINDS: dict[str, Kind] = {
    "reserve": Kind(_RESERVATIONS + "ReserveStock", pb.ReserveStockResponse, count_decision, True),
    "batch reserve": Kind(_RESERVATIONS + "BatchReserveStock", pb.BatchReserveStockResponse, count_batch, True),
    "confirm": Kind(_RESERVATIONS + "ConfirmReservation", pb.ConfirmReservationResponse, count_ending, False),
    "release": Kind(_RESERVATIONS + "ReleaseReservation", pb.ReleaseReservationResponse, count_ending, False),
    "availability": Kind(_AVAILABILITY + "GetAvailability", availability_pb.GetAvailabilityResponse, count_read, False),
    "batch availability": Kind(
        _AVAILABILITY + "BatchGetAvailability", availability_pb.BatchGetAvailabilityResponse, count_reads, False
    ),
    "ingest": Kind(
        "/stockade.v1.WarehouseEventService/IngestEvents", events_pb.IngestEventsResponse, count_ingested, True
    ),
}
