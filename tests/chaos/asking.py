"""Calls through the real client, each asked again until it is answered, and every one of them remembered as a history.

An operation here is one logical call, or one item of a batch: one content, one request id, however often it had to be
sent. One that its caller gave up has no answer, and may have happened. Judges nothing.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar

from stockade import AsyncClient, StockadeError
from stockade.client.calls import Call
from tests.simulation.history import NOT_DONE, OK, REFUSED, UNKNOWN, Operation
from tests.simulation.history_client import answered, attempted, failed

T = TypeVar("T")

ANSWERED_WITHIN_S = 240.0  # the longest pause, the restart after it, and room: beyond it the service is not alive
ASKED_AGAIN_AFTER_S = 0.05
RESERVES = frozenset(("ReserveStock", "BatchReserveStock"))


class GivenUp(Exception):
    """Asked for minutes and not answered."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One client: one TCP connection, to whichever gateway the kernel chose."""

    number: int
    client: AsyncClient


@dataclass
class Memory:
    """Everything that was asked, in the order of asking. ``moment``s are monotonic seconds."""

    operations: list[Operation] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)  # by method
    errors: Counter[str] = field(default_factory=Counter)  # answers that say neither yes nor no
    given_up: list[str] = field(default_factory=list)
    failures: int = 0  # a call, with the client's own attempts, that ended without an answer and was made again
    reserves: list[tuple[float, float, int]] = field(default_factory=list)  # answered: at, sent at, connection
    _rejected: set[tuple[str, str]] = field(default_factory=set)  # events whose rejection was told

    async def ask(self, who: str, connection: Connection, call: Call[T]) -> T:
        """The answer, however often the service has to be asked. StockadeError when it answers with an error."""
        method = call.method.rpartition("/")[2]
        self.calls[method] += 1
        sent_at = time.monotonic()
        operations = attempted(who, call.request, sent_at)
        self.operations += operations
        replayed = False

        def read(response: Any, given_again: bool) -> T:
            nonlocal replayed
            replayed = given_again
            return call.read(response, given_again)

        listening = replace(call, read=read)
        while True:
            try:
                answer = await connection.client.run(listening)
            except StockadeError as error:
                now = time.monotonic()
                if not error.retryable:
                    failed(operations, error, now)
                    be_modest(operations)
                    self.errors[f"{method} {error.reason or error.code.name}"] += 1
                    raise
                self.failures += 1
                if now - sent_at > ANSWERED_WITHIN_S:
                    failed(operations, error, now)
                    be_modest(operations)
                    self.given_up.append(
                        f"{method} of {who} was not answered within {ANSWERED_WITHIN_S:.0f} s: {error}"
                    )
                    raise GivenUp(self.given_up[-1]) from error
                await asyncio.sleep(ASKED_AGAIN_AFTER_S)
                continue
            now = time.monotonic()
            if operations:
                answered(operations, answer, now)
                self._note_what_was_given_again(operations, replayed=replayed)
                be_modest(operations)
            if method in RESERVES and any(operation.status in (OK, REFUSED) for operation in operations):
                self.reserves.append((now, sent_at, connection.number))
            return answer

    def _note_what_was_given_again(self, operations: Iterable[Operation], *, replayed: bool) -> None:
        """A stock's answer and a rejection do not say so by themselves; the call's trailers, and its caller, do."""
        for operation in operations:
            operation.replayed |= replayed
            if operation.answer.get("outcome") == "REJECTED":
                event = (operation.arguments["source_id"], operation.arguments["event_id"])
                operation.replayed = event in self._rejected
                self._rejected.add(event)

    def reserves_since(self, moment: float) -> list[tuple[float, float, int]]:
        """Reserves that were sent and answered after ``moment``, in the order of their answers."""
        first = bisect_left(self.reserves, (moment,))
        return [one for one in self.reserves[first:] if one[1] >= moment]

    def first_reserve_after(self, moment: float) -> float | None:
        """When the first reserve that was sent after ``moment`` was answered."""
        return next((answered_at for answered_at, _, _ in self.reserves_since(moment)), None)

    def connections_served_since(self, moment: float) -> set[int]:
        """Connections on which a reserve that was sent after ``moment`` was answered."""
        return {connection for _, _, connection in self.reserves_since(moment)}

    def longest_silence(self, since: float, until: float) -> float:
        """The longest time between two answered reserves."""
        first, last = bisect_left(self.reserves, (since,)), bisect_left(self.reserves, (until,))
        moments = [answered_at for answered_at, _, _ in self.reserves[first:last]]
        return max(after - before for before, after in pairwise([since, *moments, until]))


def be_modest(operations: Iterable[Operation]) -> None:
    """ "Not done" is the word of the last attempt alone: an earlier one, whose answer was lost, may have done it."""
    for operation in operations:
        if operation.status == NOT_DONE:
            operation.status = UNKNOWN
