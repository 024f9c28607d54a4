"""The clients: shops, warehouses and operators that ask, wait, lose patience and ask again with the same id.

Owns when something is sent, through which gateway, how often, and what is still unsettled at the end. What is asked is
``orders``'.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from actors.domain.answers import ERROR, OK
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason, ReservationState
from tests.simulation.cluster import Cluster
from tests.simulation.orders import FACTS, Item, Known, Memory, Orders, Sent, digest_of
from tests.simulation.trace import Recording

CONFIRMED = int(ReservationState.CONFIRMED)
MUTATING = frozenset(int(verb) for verb in Verb if verb < 10 or 30 <= verb <= 40)
SETTLED = frozenset(
    int(reason)
    for reason in (
        ErrorReason.INVALID_FIELD,
        ErrorReason.REQUEST_ID_REUSED,
        ErrorReason.REQUEST_ID_EXPIRED,
        ErrorReason.RESERVATION_NOT_FOUND,
        ErrorReason.STOCK_KEY_NOT_FOUND,
    )
)


FLOOR = "warehouse systems"


def settled(reply: Sequence[Any] | None) -> bool:
    """Whether a reply says for good what became of the request."""
    return reply is not None and (reply[0] != ERROR or reply[1] in SETTLED)


class Outside:
    """All clients. ``unsettled``: items whose outcome nobody knows yet, by (client, item)."""

    def __init__(self, cluster: Cluster, recording: Recording) -> None:
        self.cluster = cluster
        self.recording = recording
        self.memory = Memory()
        self.unsettled: list[tuple[str, Item]] = []
        self.clients = [Client(self, number) for number in range(cluster.plan.work.clients)]

    async def send(
        self, client: str, items: list[Item], timeout_ms: int, draw: random.Random
    ) -> list[Sequence[Any] | None]:
        """One attempt of a call: a reply or None for each item."""
        cluster, recording = self.cluster, self.recording
        gateway = draw.choice(cluster.gateways)
        attempts = [recording.begin(client, item) for item in items]
        mutating = any(item[0] in MUTATING for item in items)
        replies = await gateway.call(
            [[*item] for item in items], timeout_ms, mutating=mutating, walks_off=draw.random() < 0.3
        )
        if replies is None:
            replies = [None] * len(items)
        for attempt, reply in zip(attempts, replies, strict=True):
            recording.end(attempt, reply)
            if client != FLOOR:  # nobody else touches its orders, so that an oracle can say what becomes of them
                self._learn(attempt.item, reply)
        return list(replies)

    def _learn(self, item: Sequence[Any], reply: Sequence[Any] | None) -> None:
        if reply is None or reply[0] != OK:
            return
        body, reservations = item[5], self.memory.reservations
        if item[0] == Verb.RESERVE and not reply[1]:
            known = Known(reply[2][0], body[2], body[8], body[3], reply[2][4], reply[2][1] == CONFIRMED)
            reservations.append(known)
        elif item[0] == Verb.CONFIRM:
            for known in reservations[-20:]:
                known.confirmed = known.confirmed or known.reservation_id == body[2]

    async def settle(self, client: str, item: Item, draw: random.Random) -> Sequence[Any] | None:
        """Ask until it is answered: only when nothing fails any more."""
        for _ in range(40):
            [reply] = await self.send(client, [item], 5_000, draw)
            if settled(reply):
                return reply
            await self.cluster.loop.pass_time(0.2)
        return None


class Client:
    """One caller, with one thing in mind at a time."""

    def __init__(self, outside: Outside, number: int) -> None:
        cluster = outside.cluster
        self.name = f"client {number}"
        self._outside = outside
        self._cluster = cluster
        self._work = cluster.plan.work
        self._draw = random.Random(f"{cluster.plan.seed}/client {number}")
        self._orders = Orders(cluster.plan, self._draw, outside.memory, str(number), cluster.wall_ms)
        self._kinds = list(self._work.weights)
        self._weights = list(self._work.weights.values())

    async def run(self) -> None:
        """All actions of the safety phase."""
        for _ in range(self._work.actions):
            await self._cluster.loop.pass_time(self._draw.expovariate(1000 / self._work.think_ms))
            [kind] = self._draw.choices(self._kinds, self._weights)
            await self._act(kind)

    async def _act(self, kind: str) -> None:
        if kind == "reserve many":
            await self._pursue([self._orders.reserve() for _ in range(self._draw.randint(2, 8))])
        elif kind in ("same twice", "reuse"):
            await self._race(kind)
        elif kind == "last moment":
            await self._hit_a_deadline()
        elif kind in FACTS:
            await self._pursue([self._orders.fact(kind) for _ in range(self._draw.choice((1, 1, 1, 3)))])
        else:
            item = getattr(self._orders, kind.replace(" ", "_"))()
            if item is not None:
                await self._pursue([item])

    async def _hit_a_deadline(self) -> None:
        """Confirm a hold so that it arrives at its deadline, as exactly as one can: a millisecond before, at it, or after."""
        loop, draw = self._cluster.loop, self._draw
        now_ms = self._cluster.current.shard_time_ms()
        known = self._orders.expiring(now_ms + 20, now_ms + 6_000)
        if known is None:
            return
        await loop.pass_time((known.expire_time_ms - now_ms) / 1000 - 0.02)
        now_ms = self._cluster.current.shard_time_ms()  # it may have been another host's, or slewed
        left_s = (known.expire_time_ms - now_ms) / 1000 - draw.uniform(0.0, 0.004)
        await loop.pass_time(min(1.0, max(0.0, left_s)))
        for _ in range(3):
            await self._outside.send(
                self.name, [self._orders.confirm_of(known)], draw.choice(self._work.timeout_ms), draw
            )

    async def _race(self, kind: str) -> None:
        """The same request twice at once, or its id with other content."""
        first = self._orders.reserve()
        second = [*first]
        if kind == "reuse":
            body = [*first[5]]
            body[4] += 1
            body[1] = digest_of(body[2:], "other")
            second = [*first[:5], body]
        await asyncio.gather(self._pursue([first]), self._pursue([second]))

    async def _pursue(self, items: list[Item]) -> None:
        """Ask, and ask again what was not answered, as often as this seed's clients do; then cancel or leave it open."""
        draw, work = self._draw, self._work
        left = items
        for again in range(work.tries_max):
            if again:
                await self._cluster.loop.pass_time(draw.choice((0.0, 0.05, 0.5)))
            replies = await self._outside.send(self.name, left, draw.choice(work.timeout_ms), draw)
            left = [item for item, reply in zip(left, replies, strict=True) if not settled(reply)]
            if not left:
                return
        for item in left:
            if item[0] == Verb.RESERVE and draw.random() < 0.4:
                cancel = self._orders.release_by_request(Sent(item[5][2], item[5][0], item[1]))
                if cancel is not None:
                    [reply] = await self._outside.send(self.name, [cancel], draw.choice(work.timeout_ms), draw)
                    if not settled(reply):
                        self._outside.unsettled.append((self.name, cancel))
            if item[0] in MUTATING:
                self._outside.unsettled.append((self.name, item))
