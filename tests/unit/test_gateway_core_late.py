"""The gateway's core and replies that come later, because other hosts must answer first."""

from __future__ import annotations

from typing import Any

from actors.domain.answers import ERROR, OK, PENDING
from actors.domain.outcomes import ErrorReason
from gateway.core import UNKNOWN, Frame
from tests.unit.test_gateway_core import World, one_host, texts

LATER = [PENDING, 0, ""]


def late(world: World, frame: Frame, place: int, reply: Any) -> None:
    world.core.receive_late(frame.host_id, frame.frame_id, world.now + 500_000, place, reply, world.now)


def test_a_reply_that_comes_later_ends_its_call_and_holds_up_no_other() -> None:
    world = one_host()
    waits, ends = world.call(1, 2), world.call(3)
    (frame,) = world.frames()
    world.answer(frame, [OK, False, "first"], LATER, [OK, False, "third"])
    assert ends.payloads == ["third"]
    assert waits.times == 0
    assert not world.core.idle
    late(world, frame, 1, [OK, False, "second"])
    assert waits.payloads == ["first", "second"]
    assert world.core.idle


def test_what_waits_for_a_late_reply_takes_no_room_from_the_next_frames() -> None:
    world = one_host()
    for _ in range(20):
        world.call(1)
        (frame,) = world.frames()
        world.answer(frame, LATER)


def test_a_late_reply_nobody_waits_for_is_ignored() -> None:
    world = one_host()
    waits = world.call(1)
    (frame,) = world.frames()
    late(world, frame, 0, [OK, False, "too early"])
    world.answer(frame, LATER)
    late(world, frame, 5, [OK, False, "another's"])
    late(world, frame, 0, [OK, False, "mine"])
    late(world, frame, 0, [OK, False, "doubled"])
    assert waits.payloads == ["mine"]


def test_a_link_that_breaks_before_a_late_reply_sends_the_item_again() -> None:
    world = one_host()
    waits = world.call(1, 2)
    (frame,) = world.frames()
    world.answer(frame, LATER, [OK, False, "second"])
    world.core.link_down("a", world.now)
    world.up("a", range(8))
    (again,) = world.frames()
    assert texts(again) == ["item 0"]
    world.answer(again, [OK, True, "first"])
    assert waits.payloads == ["first", "second"]


def test_a_late_reply_that_never_comes_is_unknown_at_the_deadline() -> None:
    world = one_host()
    waits = world.call(1, deadline_ms=300)
    (frame,) = world.frames()
    world.answer(frame, LATER)
    world.pass_ms(400)
    assert waits.errors == [("DEADLINE_EXCEEDED", UNKNOWN)]
    late(world, frame, 0, [OK, False, "too late"])


def test_what_is_busy_is_sent_again_after_a_pause() -> None:
    world = one_host()
    waits = world.call(1)
    (frame,) = world.frames()
    world.answer(frame, LATER)
    late(world, frame, 0, [ERROR, int(ErrorReason.BUSY), "", 0])
    assert world.frames() == []
    world.pass_ms(200)
    (again,) = world.frames()
    world.answer(again)
    assert waits.payloads == [["item 0"]]
