"""The load generator: calls in a closed or an open loop over real connections; what was lost is asked for again afterwards.

A closed loop has a fixed number of callers who wait for their answers: it finds the most the service does. An open loop
sends when a call is due, whatever the service does, and counts latency from that moment. Failed callers of a closed loop
wait as long as the service asked them to.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from bench.outcome import Outcome, record
from bench.traffic import KINDS, Kind, Shot
from stockade.client.errors import from_call_error
from stockade.client.transport import CHANNEL_OPTIONS

CALL_TIMEOUT_S = 10.0
CONNECTED_WITHIN_S = 30.0
IN_FLIGHT_PER_CONNECTION = 64
OPEN_IN_FLIGHT_MAX = 20_000  # then the service is so far behind that more calls would only measure this process
SENT_AT_ONCE_MAX = (
    32  # by an open loop that is behind: between them it hears answers, or it would hear none until it is done
)
PAUSE_S = 0.01  # of a closed loop's caller whose call failed without a word about when to try again
SOLD_OUT_WITHIN_S = 120.0
SETTLED_WITHIN_S = 120.0
SETTLE_IN_FLIGHT = 16


class Generator:
    """Connections to one target, and one run over them."""

    def __init__(self, channels: list[Any], live: deque[str] | None = None) -> None:
        self.outcome = Outcome(live=live)
        self._started = time.perf_counter()
        self._end_s = 0.0
        self._calls: dict[str, tuple[Kind, list[Any]]] = {
            name: (
                kind,
                [
                    channel.unary_unary(kind.method, response_deserializer=kind.response_type.FromString)
                    for channel in channels
                ],
            )
            for name, kind in KINDS.items()
        }

    def now_s(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._started

    async def closed(self, shots: Iterator[Shot], *, in_flight: int, seconds: float, sold_out: bool = False) -> Outcome:
        """So many callers at once. ``sold_out``: until the first refusal, and ``seconds`` more."""
        self._end_s = SOLD_OUT_WITHIN_S if sold_out else seconds
        self._started = time.perf_counter()
        await asyncio.gather(*[self._caller(number, shots, seconds, sold_out) for number in range(in_flight)])
        self.outcome.seconds = self.now_s()
        return self.outcome

    async def _caller(self, number: int, shots: Iterator[Shot], seconds: float, sold_out: bool) -> None:
        outcome = self.outcome
        for shot in shots:
            sent_s = self.now_s()
            if sent_s >= self._end_s:
                return
            outcome.planned += 1
            pause_s = await self._one(number, shot, sent_s, sent_s)
            if sold_out and outcome.first_refusal_s is not None:
                self._end_s = min(self._end_s, outcome.first_refusal_s + seconds)
            if pause_s:  # but not beyond the end: the run is as long as its callers
                await asyncio.sleep(max(0.0, min(pause_s, self._end_s - self.now_s())))

    async def open(self, shots: Iterator[Shot], due: Iterable[float]) -> Outcome:
        """Calls when they are due; then their answers are waited for."""
        outcome, tasks = self.outcome, set[asyncio.Task[float]]()
        self._started = time.perf_counter()
        for number, (due_s, shot) in enumerate(zip(due, shots, strict=False)):
            outcome.planned += 1
            wait_s = due_s - self.now_s()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            elif number % SENT_AT_ONCE_MAX == 0:
                await asyncio.sleep(0)
            sent_s = self.now_s()
            record(outcome.lag_us, sent_s - due_s)
            if len(tasks) >= OPEN_IN_FLIGHT_MAX:
                continue
            task = asyncio.create_task(self._one(number, shot, due_s, sent_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        outcome.seconds = self.now_s()
        await asyncio.gather(*tasks)
        return outcome

    async def _one(self, number: int, shot: Shot, due_s: float, sent_s: float) -> float:
        """One call; how long its caller should wait before the next."""
        outcome = self.outcome
        kind, calls = self._calls[shot.kind]
        outcome.sent += 1
        try:
            response = await calls[number % len(calls)](shot.request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as call_error:
            error = from_call_error(call_error)
            outcome.at_s = self.now_s()
            record(outcome.failed_us, outcome.at_s - due_s)
            outcome.fail(error.reason or error.code.name, shot.units)
            if kind.settled and (outcome.settling or error.outcome != "not_done"):
                outcome.unknown.append(shot)
            return error.retry_after_ms / 1000 or PAUSE_S
        outcome.answered(due_s, sent_s, self.now_s())
        kind.count(outcome, shot, response)
        return 0.0

    async def settle(self, unknown: list[Shot]) -> Outcome:
        """Ask again, with the same ids, for what was neither yes nor no; what stays unknown after a while is left over."""
        waiting, deadline = unknown, time.perf_counter() + SETTLED_WITHIN_S
        outcome = self.outcome
        outcome.settling = True
        while waiting and time.perf_counter() < deadline:
            for start in range(0, len(waiting), SETTLE_IN_FLIGHT):
                some = waiting[start : start + SETTLE_IN_FLIGHT]
                pauses = await asyncio.gather(
                    *[self._one(number, shot, self.now_s(), self.now_s()) for number, shot in enumerate(some)]
                )
                if any(pauses):
                    await asyncio.sleep(max(pauses))
            waiting, outcome.unknown = outcome.unknown, []
        outcome.unknown = waiting
        return outcome


@dataclass(slots=True)
class Told:
    """What callers were told, added up over runs: what a journal, or a peer's tables, must hold."""

    claims: int = 0
    facts: int = 0
    asked_again: int = 0
    left_unknown: int = 0

    async def add(self, channels: list[Any], outcome: Outcome) -> None:
        """Add a run; ask again for what is unknown in it, which is no part of any rate."""
        self.claims += outcome.claims
        self.facts += outcome.facts
        if outcome.unknown:
            self.asked_again += len(outcome.unknown)
            settled = await Generator(channels).settle(outcome.unknown)
            self.claims += settled.claims
            self.facts += settled.facts
            self.left_unknown += len(settled.unknown)


@asynccontextmanager
async def connected(target: str, connections: int) -> AsyncIterator[list[Any]]:
    """So many connections, ready; closed at the end."""
    channels = [grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) for _ in range(connections)]
    try:
        await asyncio.wait_for(asyncio.gather(*[one.channel_ready() for one in channels]), CONNECTED_WITHIN_S)
        yield channels
    finally:
        for channel in channels:
            await channel.close()


def connections_for(in_flight: int) -> int:
    """One connection for every 64 calls in flight."""
    return max(1, -(-in_flight // IN_FLIGHT_PER_CONNECTION))


async def beside(run: Awaitable[Outcome], *others: Callable[[], Awaitable[None]]) -> Outcome:
    """The run, with others beside it that end with it."""
    tasks = [asyncio.ensure_future(other()) for other in others]
    try:
        return await run
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for result in ended:
            if isinstance(result, Exception):
                raise result
