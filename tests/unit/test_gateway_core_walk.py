"""Random walks over the gateway's core: hosts die, shards move, replies come late, twice or not at all. One seed, one
history.

Whatever happens: every call ends exactly once, in time, each item with its own answer; what was said to be not done was
never handed to a host; no copy outlives its call; frames keep their bounds; at the end nothing is left behind.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from actors.domain.answers import ERROR, OK
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason
from actors.shard.directory import HostRoute, Routes
from gateway.config import LINES_PER_FRAME_MAX, GatewayConfig
from gateway.core import NOT_DONE, UNKNOWN, WHEEL_MS, Call, Core, Frame

SHARDS = 16
HOSTS = ("a", "b", "c")
STEPS = 300


class Walk:
    """One history. ``done``: item texts that a host took, as far as it knows."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  reproducible on purpose
        self.core = Core(GatewayConfig(cluster_token="t", channels={}, warehouses={}, pending_lines_per_host_max=60))
        self.now = 10_000
        self.version = 0
        self.owner = {shard: self.random.choice(HOSTS) for shard in range(SHARDS)}
        self.up: set[str] = set()
        self.under_way: list[Frame] = []
        self.decided: list[tuple[Frame, list[Any]]] = []
        self.done: set[str] = set()
        self.calls: list[Call] = []
        self.ended: dict[int, int] = {}
        self.publish()
        for host in HOSTS:
            self.link(host)

    def publish(self) -> None:
        self.version += 1
        shards_of = {host: tuple(shard for shard in self.owner if self.owner[shard] == host) for host in HOSTS}
        hosts = tuple(HostRoute(host, "x:1", 1, shards, (1,) * len(shards)) for host, shards in shards_of.items())
        self.core.set_routes(Routes(self.version, "c", "tl", SHARDS, hosts), self.now)

    def link(self, host: str) -> None:
        shards = [shard for shard in self.owner if self.owner[shard] == host]
        self.core.link_up(host, timeline="tl", host_time_ms=self.now, shards=shards, now=self.now)
        self.up.add(host)

    # --- what may happen ----------------------------------------------------------------------------------------------

    def submit(self) -> None:
        number = len(self.calls)
        count = self.random.choice((1, 1, 1, 3, 10))
        items = [
            [int(Verb.RESERVE), self.random.randrange(SHARDS), 0, 1, [], [f"{number}.{index}"]]
            for index in range(count)
        ]

        def ended(call: Call) -> None:
            self.ended[number] = self.ended.get(number, 0) + 1
            assert self.now <= call.deadline + 2 * WHEEL_MS + self.tick_gap, "a call ended long after its deadline"

        call = Call(
            items, ended, deadline=self.now + self.random.choice((50, 500, 3_000)), size=50 * count, weight=count,
            mutating=True, patience=self.now + self.random.choice((100, 1_000)),
        )  # fmt: skip
        self.calls.append(call)
        self.core.submit(call, self.now)

    def send(self) -> None:
        for frame in self.core.take_frames(self.now):
            assert frame.host_id in self.up
            assert sum(item[3] for item in frame.items) <= LINES_PER_FRAME_MAX
            for part in frame.parts:
                for index in part.indices:
                    assert part.call.items[index][2] <= part.call.deadline, "a copy of a request may outlive it"
            self.under_way.append(frame)
        for host in self.up:
            frames = [*self.under_way, *(frame for frame, _ in self.decided)]
            assert sum(frame.host_id == host for frame in frames) <= 2

    def decide(self) -> None:
        """A host decides a frame; its answer leaves later, if ever."""
        if self.under_way:
            frame = self.under_way.pop(self.random.randrange(len(self.under_way)))
            self.decided.append((frame, [self.decision(frame, item) for item in frame.items]))

    def decision(self, frame: Frame, item: list[Any]) -> Any:
        if self.owner[item[1]] != frame.host_id:
            return (ERROR, int(ErrorReason.WRONG_OWNER), "", 0)
        if self.random.random() < 0.05:
            return (ERROR, int(ErrorReason.SHARD_UNAVAILABLE), "", 20)
        if item[2] <= self.now:
            return (ERROR, int(ErrorReason.DEADLINE_EXCEEDED), "", 0)
        self.done.add(item[5][0])
        return (OK, False, list(item[5]))

    def answer(self) -> None:
        if self.decided:
            frame, replies = self.decided.pop(self.random.randrange(len(self.decided)))
            for _ in range(self.random.choice((1, 1, 1, 2))):
                self.core.receive(frame.host_id, frame.frame_id, self.now, replies, self.now)

    def die(self) -> None:
        if self.up:
            host = self.random.choice(sorted(self.up))
            self.up.discard(host)
            for frame in [frame for frame in self.under_way if frame.host_id == host]:
                self.under_way.remove(frame)
                if self.random.random() < 0.5:  # decided, and the answer was lost
                    for item in frame.items:
                        self.decision(frame, item)
            self.decided = [(frame, replies) for frame, replies in self.decided if frame.host_id != host]
            self.core.link_down(host, self.now)

    def return_(self) -> None:
        for host in HOSTS:
            if host not in self.up and self.random.random() < 0.5:
                self.link(host)

    def move(self) -> None:
        self.owner[self.random.randrange(SHARDS)] = self.random.choice(HOSTS)
        if self.random.random() < 0.7:
            self.publish()

    def cancel(self) -> None:
        if self.calls:
            self.core.cancel(self.random.choice(self.calls))

    tick_gap = 120

    def wait(self) -> None:
        self.now += self.random.randrange(self.tick_gap)
        self.core.tick(self.now)

    # --- the walk -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        steps = [self.submit] * 6 + [self.send] * 6 + [self.decide] * 6 + [self.answer] * 6 + [self.wait] * 3
        steps += [self.die, self.return_, self.return_, self.move, self.cancel]
        for _ in range(STEPS):
            self.random.choice(steps)()
            self.check_books()
        for _ in range(200):  # heal, and let time pass
            self.publish()
            for host in HOSTS:
                if host not in self.up:
                    self.link(host)
            self.send()
            while self.under_way or self.decided:
                self.decide()
                self.answer()
            self.wait()
        self.check()

    def check(self) -> None:
        assert self.core.idle
        assert not any(self.core.pending_lines().values()), self.core.pending_lines()
        for number, call in enumerate(self.calls):
            times = self.ended.get(number, 0)
            assert call.done
            assert times <= 1
            if times == 0:
                continue  # cancelled
            assert len(call.replies) == len(call.items)
            for index, reply in enumerate(call.replies):
                self.check_reply(f"{number}.{index}", reply)

    def check_books(self) -> None:
        """What is bounded is counted right."""
        core = self.core
        waiting = {link.host_id: sum(part.weight for part in link.pending) for link in core._links.values()}
        waiting[""] = sum(part.weight for part in core._parked)
        assert core.pending_lines() == waiting

    def check_reply(self, text: str, reply: Any) -> None:
        if reply[0] == OK:
            assert reply[2] == [text], "an item got another one's answer"
            return
        assert reply[0] == ERROR
        if len(reply) > 4 and reply[4] == UNKNOWN:
            return
        own = len(reply) > 4
        assert not own or reply[4] == NOT_DONE
        assert text not in self.done, f"{text} was said to be not done, but a host did it: {reply}"


@pytest.mark.parametrize("seed", range(300))
def test_a_random_walk_keeps_every_promise(seed: int) -> None:
    Walk(seed).run()
