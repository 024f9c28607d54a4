"""The gateway's core without sockets: routing, batching, deadlines, retries, and what it says when no answer came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from actors.domain.answers import ERROR, OK
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason
from actors.shard.directory import HostRoute, Routes
from gateway.config import GATHER_LINES, GATHER_MS_MAX, GatewayConfig
from gateway.core import NOT_DONE, UNKNOWN, Call, Core, Frame

SHARDS = 8


class World:
    """A core, its clock, and the hosts as a table of who has which shards."""

    def __init__(self, hosts: dict[str, Sequence[int]], **settings: Any) -> None:
        self.core = Core(GatewayConfig(cluster_token="t", channels={}, warehouses={}, **settings))
        self.now = 1_000
        self.version = 0
        self.route(hosts)
        for host_id, shards in hosts.items():
            self.up(host_id, shards)

    def route(self, hosts: dict[str, Sequence[int]]) -> None:
        self.version += 1
        routes = tuple(
            HostRoute(h, f"127.0.0.1:{i}", 1, tuple(s), (1,) * len(s)) for i, (h, s) in enumerate(hosts.items())
        )
        self.core.set_routes(Routes(self.version, "c", "tl", SHARDS, routes), self.now)

    def up(self, host_id: str, shards: Sequence[int], ahead_ms: int = 500_000) -> None:
        self.core.link_up(host_id, timeline="tl", host_time_ms=self.now + ahead_ms, shards=shards, now=self.now)

    def call(
        self, *shards: int, mutating: bool = True, deadline_ms: int = 1_000, patience_ms: int = 0, **more: Any
    ) -> Ended:
        verb = Verb.RESERVE if mutating else Verb.GET_STOCK
        items = [[int(verb), shard, 0, 1, [], [f"item {index}"]] for index, shard in enumerate(shards)]
        ended = Ended()
        ended.call = Call(
            items,
            ended.end,
            deadline=self.now + deadline_ms,
            size=100 * len(items),
            weight=len(items),
            mutating=mutating,
            patience=self.now + patience_ms if patience_ms else 0,
            **more,
        )
        self.core.submit(ended.call, self.now)
        return ended

    def frames(self) -> list[Frame]:
        return self.core.take_frames(self.now)

    def answer(self, frame: Frame, *replies: Any) -> None:
        given = replies or [(OK, False, item[5]) for item in frame.items]
        self.core.receive(frame.host_id, frame.frame_id, self.now + 500_000, list(given), self.now)

    def pass_ms(self, ms: int) -> list[str]:
        self.now += ms
        return self.core.tick(self.now)


class Ended:
    """How a call ended."""

    call: Call

    def __init__(self) -> None:
        self.times = 0

    def end(self, call: Call) -> None:
        self.times += 1

    @property
    def replies(self) -> list[Any]:
        assert self.times == 1, f"the call ended {self.times} times"
        return self.call.replies

    @property
    def payloads(self) -> list[Any]:
        return [reply[2] for reply in self.replies]

    @property
    def errors(self) -> list[tuple[str, str]]:
        assert all(reply[0] == ERROR for reply in self.replies), self.replies
        return [(ErrorReason(reply[1]).name, reply[4] if len(reply) > 4 else "") for reply in self.replies]


def one_host() -> World:
    return World({"a": range(SHARDS)})


def two_hosts() -> World:
    return World({"a": range(4), "b": range(4, 8)})


def texts(frame: Frame) -> list[str]:
    return [item[5][0] for item in frame.items]


def test_a_call_is_sent_at_once_and_ends_with_its_reply() -> None:
    world = one_host()
    ended = world.call(3)
    (frame,) = world.frames()
    world.answer(frame)
    assert ended.payloads == [["item 0"]]
    assert world.core.idle


def test_items_carry_their_deadline_in_the_hosts_time() -> None:
    world = one_host()
    world.call(3, deadline_ms=700)
    (frame,) = world.frames()
    assert frame.items[0][2] == world.now + 700 + 500_000


def test_two_frames_are_in_flight_and_the_rest_gathers_into_the_next() -> None:
    world = one_host()
    calls = [world.call(0)]
    frames = world.frames()
    calls.append(world.call(1))
    frames += world.frames()
    calls += [world.call(2), world.call(3), world.call(4)]
    assert world.frames() == []
    world.answer(frames[0])
    (third,) = world.frames()
    assert len(third.items) == 3
    world.answer(frames[1])
    world.answer(third)
    assert [ended.payloads for ended in calls] == [[["item 0"]]] * 5


def test_a_busy_gateway_waits_for_the_calls_that_are_just_coming_but_never_long() -> None:
    world = one_host()
    began = world.now
    world.call(0)
    assert not world.core.gathers(began, world.now), "a call that comes alone goes at once"
    (alone,) = world.frames()
    world.call(1)
    assert world.core.gathers(began, world.now), "one is under way: more may be coming"
    assert not world.core.gathers(began, began + GATHER_MS_MAX), "but not for ever"
    world.answer(alone)
    world.call(2)
    (several,) = world.frames()
    world.answer(several)
    world.call(3)
    assert world.core.gathers(began, world.now), "calls came together before: this one is probably not alone"
    world.call(*[0] * GATHER_LINES)
    assert not world.core.gathers(began, world.now), "a frame that is worth its cost goes at once"
    world.frames()
    assert not world.core.gathers(began, world.now), "nothing waits"


def test_a_batch_over_two_hosts_comes_back_in_the_order_asked() -> None:
    world = two_hosts()
    ended = world.call(5, 0, 6, 1, 0)
    frames = {frame.host_id: frame for frame in world.frames()}
    assert texts(frames["a"]) == ["item 1", "item 3", "item 4"]
    world.answer(frames["b"])
    assert ended.times == 0
    world.answer(frames["a"])
    assert ended.payloads == [[f"item {index}"] for index in range(5)]


def test_a_large_batch_is_cut_into_frames_of_bounded_lines() -> None:
    world = World({"a": range(SHARDS)}, frames_in_flight_per_host=100)
    ended = world.call(*[0] * 9_001)
    frames = world.frames()
    assert [len(frame.items) for frame in frames] == [4_000, 4_000, 1_001]
    for frame in frames:
        world.answer(frame)
    assert ended.payloads == [[f"item {index}"] for index in range(9_001)]


def test_twice_as_many_frames_are_under_way_while_much_waits_and_no_more() -> None:
    world = one_host()
    sent = []
    for _ in range(6):
        world.call(*[0] * GATHER_LINES)
        sent.append(len(world.frames()))
    assert sent == [1, 1, 1, 1, 0, 0]


def test_single_calls_keep_two_frames_under_way() -> None:
    world = one_host()
    for _ in range(2):
        world.call(0)
        assert len(world.frames()) == 1
    for _ in range(GATHER_LINES - 1):
        world.call(0)
        assert world.frames() == []
    world.call(0)
    assert [len(frame.items) for frame in world.frames()] == [GATHER_LINES]


def test_a_batch_of_large_items_is_cut_into_frames_of_bounded_bytes() -> None:
    world = World({"a": range(SHARDS)}, frames_in_flight_per_host=100)
    items = [[int(Verb.RESERVE), 0, 0, 1, [], ["x" * 300_000]] for _ in range(7)]
    ended = Ended()
    ended.call = Call(items, ended.end, deadline=world.now + 1000, size=2_200_000, weight=7, mutating=True)
    world.core.submit(ended.call, world.now)
    frames = world.frames()
    assert [len(frame.items) for frame in frames] == [3, 3, 1]
    for frame in frames:
        world.answer(frame)
    assert len(ended.payloads) == 7


def test_a_broken_link_sends_the_items_again_with_the_same_content_and_a_fresh_deadline() -> None:
    world = one_host()
    first, second = world.call(0), world.call(1, 2)
    (frame,) = world.frames()
    waiting = world.call(3)
    world.core.link_down("a", world.now)
    assert world.frames() == []
    world.now += 300
    world.up("a", range(SHARDS), ahead_ms=499_000)
    (again,) = world.frames()
    assert texts(again) == ["item 0", "item 0", "item 1", "item 0"]
    assert {item[2] for item in again.items} == {1_000 + 1_000 + 499_000}
    world.answer(again)
    assert [ended.times for ended in (first, second, waiting)] == [1, 1, 1]
    world.answer(frame)  # late, from the dead link
    assert first.times == 1


def test_a_lost_mutation_that_cannot_be_sent_again_is_unknown() -> None:
    world = one_host()
    sent = world.call(0, patience_ms=400)
    world.frames()
    world.core.link_down("a", world.now)
    unsent = world.call(0, patience_ms=400)
    read = world.call(0, mutating=False, patience_ms=400)
    world.pass_ms(401)
    assert sent.errors == [("SHARD_UNAVAILABLE", UNKNOWN)]
    assert unsent.errors == [("SHARD_UNAVAILABLE", NOT_DONE)]
    assert read.errors == [("SHARD_UNAVAILABLE", NOT_DONE)]


@pytest.mark.parametrize(("mutating", "outcome"), [(True, UNKNOWN), (False, NOT_DONE)])
def test_a_call_in_flight_ends_at_its_deadline(mutating: bool, outcome: str) -> None:  # noqa: FBT001
    world = one_host()
    ended = world.call(0, mutating=mutating, deadline_ms=200)
    world.frames()
    world.pass_ms(199)
    assert ended.times == 0
    world.pass_ms(51)
    assert ended.errors == [("DEADLINE_EXCEEDED", outcome)]
    assert world.core.idle


def test_a_call_that_never_left_ends_at_its_deadline_as_not_done() -> None:
    world = one_host()
    for shard in (0, 1):
        world.call(shard)
        world.frames()
    gathered = world.call(2, deadline_ms=200)
    world.pass_ms(251)
    assert gathered.errors == [("DEADLINE_EXCEEDED", NOT_DONE)]


def test_a_call_whose_deadline_passed_before_it_began_is_not_sent() -> None:
    world = one_host()
    ended = world.call(0, deadline_ms=0)
    assert ended.errors == [("DEADLINE_EXCEEDED", NOT_DONE)]
    assert world.frames() == []


def test_a_timed_out_or_cancelled_call_leaves_the_queue_without_being_sent() -> None:
    world = one_host()
    frames = []
    for shard in (0, 1):
        world.call(shard, deadline_ms=5_000)
        frames += world.frames()
    late, gone, kept = world.call(2, deadline_ms=100), world.call(3), world.call(4)
    world.core.cancel(gone.call)
    world.pass_ms(200)
    world.answer(frames[0])
    (next_frame,) = world.frames()
    assert len(next_frame.items) == 1
    world.answer(next_frame)
    assert (late.times, gone.times, kept.times) == (1, 0, 1)


def test_a_wrong_owner_is_asked_again_where_the_new_map_says() -> None:
    world = two_hosts()
    ended = world.call(0, 5)
    frames = {frame.host_id: frame for frame in world.frames()}
    world.answer(frames["b"])
    world.answer(frames["a"], (ERROR, int(ErrorReason.WRONG_OWNER), "", 0))
    assert world.core.stale_routes
    assert world.frames() == []
    world.route({"a": [1, 2, 3], "b": [0, 4, 5, 6, 7]})
    (again,) = world.frames()
    assert (again.host_id, texts(again)) == ("b", ["item 0"])
    world.answer(again)
    assert ended.payloads == [["item 0"], ["item 1"]]


def test_an_unavailable_shard_is_asked_again_after_a_pause() -> None:
    world = one_host()
    ended = world.call(0, 1)
    (frame,) = world.frames()
    world.answer(frame, (OK, False, ["yes"]), (ERROR, int(ErrorReason.SHARD_UNAVAILABLE), "", 80))
    world.pass_ms(79)
    assert world.frames() == []
    world.pass_ms(1)
    (again,) = world.frames()
    world.answer(again)
    assert ended.payloads == [["yes"], ["item 1"]]


def test_what_waits_for_a_host_moves_with_its_shards() -> None:
    world = two_hosts()
    frames = []
    for shard in (0, 1):
        world.call(shard, deadline_ms=9_000)
        frames += world.frames()
    waiting = world.call(2, 3)
    world.route({"a": [0, 1, 3], "b": [2, 4, 5, 6, 7]})
    moved = world.frames()
    assert [(frame.host_id, texts(frame)) for frame in moved] == [("b", ["item 0"])]
    world.answer(frames[0])
    (stayed,) = world.frames()
    assert texts(stayed) == ["item 1"]
    world.answer(moved[0])
    world.answer(stayed)
    assert len(waiting.payloads) == 2


def test_an_answer_to_the_second_copy_that_settles_nothing_is_unknown() -> None:
    world = one_host()
    ended = world.call(0)
    world.frames()
    world.core.link_down("a", world.now)
    world.up("a", range(SHARDS))
    (again,) = world.frames()
    world.answer(again, (ERROR, int(ErrorReason.OVERLOADED), "queue full", 100))
    assert ended.errors == [("OVERLOADED", UNKNOWN)]


def test_overload_is_refused_at_once_and_memory_stays_bounded() -> None:
    world = World({"a": range(SHARDS)}, pending_lines_per_host_max=10)
    for shard in (0, 1):
        world.call(shard)
        world.frames()
    accepted = [world.call(*[0] * 5), world.call(*[0] * 5)]
    refused = world.call(0)
    assert refused.errors == [("OVERLOADED", NOT_DONE)]
    assert [ended.times for ended in accepted] == [0, 0]
    assert world.core.pending_lines()["a"] == 10


def test_an_idle_queue_takes_a_call_larger_than_its_bound() -> None:
    world = World({"a": range(SHARDS)}, pending_lines_per_host_max=10)
    assert world.call(*[0] * 50).times == 0


def test_what_waits_without_a_host_is_bounded_too() -> None:
    world = World({}, pending_lines_per_host_max=10)
    world.call(*[0] * 10)
    assert world.call(0).errors == [("OVERLOADED", NOT_DONE)]


def test_a_host_that_is_silent_with_a_frame_in_flight_is_reported_dead() -> None:
    world = one_host()
    world.call(0, deadline_ms=60_000)
    world.frames()
    assert world.pass_ms(4_000) == []
    assert world.pass_ms(1) == ["a"]


def test_an_idle_link_is_never_reported_dead() -> None:
    world = one_host()
    assert world.pass_ms(3_600_000) == []
    world.call(0, deadline_ms=60_000)
    world.frames()
    assert world.pass_ms(3_000) == []


def test_a_doubled_reply_frame_is_ignored() -> None:
    world = one_host()
    ended = world.call(0)
    (frame,) = world.frames()
    world.answer(frame)
    world.answer(frame)
    assert ended.times == 1


def test_a_host_that_answers_too_few_items_leaves_them_unknown() -> None:
    world = one_host()
    ended = world.call(0, 1)
    (frame,) = world.frames()
    world.answer(frame, (OK, False, ["yes"]))
    assert ended.replies[0] == (OK, False, ["yes"])
    assert ended.replies[1][1:] == (ErrorReason.INTERNAL, "the shard host answered too few items", 0, UNKNOWN)


def test_routable_means_that_every_shard_has_a_link() -> None:
    world = two_hosts()
    world.core.link_down("b", world.now)
    without = world.core.routable
    world.up("b", range(4, 8))
    assert (without, world.core.routable) == (False, True)


def test_a_call_to_a_named_host_goes_there_whatever_the_shards_say() -> None:
    world = two_hosts()
    world.call(-1, mutating=False, host_id="b")
    assert [frame.host_id for frame in world.frames()] == ["b"]
