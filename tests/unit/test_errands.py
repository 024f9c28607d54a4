"""Errands are done once, in order, and answered once, whatever is lost, doubled, reordered, or ended in between."""

from __future__ import annotations

from random import Random

import pytest

from actors.domain.answers import ERROR, OK
from actors.domain.errand_registry import ERRANDS
from actors.domain.errands import OPEN_PER_PAIR_MAX, has_room
from actors.domain.outcomes import ErrorReason
from actors.domain.rules import Rules
from actors.domain.state import Books
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from actors.shard.encoding import canonical_state
from actors.shard.recovery import load_shard
from tests.unit.errand_world import DO, SHARDS, ErrandWorld, random_split, teach

HALVES = [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.fixture(autouse=True)
def _verbs(monkeypatch):
    teach(monkeypatch)


def judge_all(world, names):
    world.judge(names)
    report = verify(MemoryJournal(world.store))
    assert not report.violations, report.violations[:3]
    assert report.errands_open == 0
    for host in world.hosts:
        for use_snapshots in (False, True):
            books = Books(Rules(), lambda _key: 0)
            for shard in sorted(host.shards):
                load_shard(MemoryJournal(world.store), books, shard, use_snapshots=use_snapshots)
                assert canonical_state(books, shard) == canonical_state(host.engine.books, shard)


def test_an_errand_is_done_and_its_answer_ends_the_command():
    world = ErrandWorld(HALVES)
    world.ask("a", 0, 4)
    world.settle()

    assert world.hosts[0].answers["a"][0] == OK
    assert world.counted("d") == {"a": 1}
    judge_all(world, {"a"})


def test_an_errand_to_a_shard_of_the_same_host_goes_the_same_way():
    world = ErrandWorld(HALVES)
    world.ask("a", 0, 1, more=2)
    world.ask("b", 2, 2)
    world.settle()
    judge_all(world, {"a", "a.", "a..", "b"})


def test_nothing_leaves_before_it_is_durable_neither_an_errand_nor_that_it_is_settled():
    world = ErrandWorld(HALVES)
    first, second = world.hosts
    world.ask("a", 0, 4)
    first.step(10)
    first.pump(10)
    assert not world.network
    first.commit()
    first.pump(10)
    world.deliver(0)
    second.step(10)
    assert not world.network
    second.commit()
    world.deliver(0)
    first.step(10)  # the answer is applied, and may still be lost
    world.ask("b", 0, 4)
    first.step(10)
    first.commit()
    first.commit()
    first.pump(10)
    (message,) = world.network
    assert message.parcel.item[5][:3] == [0, 2, 2], "once it is durable its number is settled"


@pytest.mark.parametrize("crashing", [0, 1])
@pytest.mark.parametrize("kept", [True, False])
def test_a_host_may_end_after_any_step(crashing, kept):
    """One step after the other, and a host's end after each of them in turn; ``kept``: what is on its way arrives."""
    steps = [
        lambda world: world.hosts[0].step(2),
        lambda world: world.hosts[0].commit(),
        lambda world: world.hosts[0].pump(2),
        lambda world: world.deliver(0) if world.network else None,
        lambda world: world.deliver(0) if world.network else None,
        lambda world: world.hosts[1].step(2),
        lambda world: world.hosts[1].commit(),
        lambda world: world.deliver(0) if world.network else None,
        lambda world: world.deliver(0) if world.network else None,
        lambda world: world.hosts[0].step(2),
        lambda world: world.hosts[0].commit(),
        lambda world: world.hosts[0].pump(2),
    ]
    for last in range(len(steps)):
        world = ErrandWorld(HALVES)
        world.ask("a", 0, 4, more=1)
        world.ask("b", 0, 4)
        for step in steps[: last + 1]:
            step(world)
        world.crash(crashing)
        if not kept:
            world.network.clear()
        for step in steps:  # the same once more, with whatever is left
            step(world)
        world.ask("a", 0, 4, more=1)  # whoever asked asks again
        world.ask("b", 0, 4)
        world.settle()
        judge_all(world, {"a", "a.", "b"})
        assert {name: reply[0] for name, reply in world.hosts[0].answers.items()} == {"a": OK, "b": OK}, last


def test_once_and_in_order_over_any_faults(run_seed):
    for round_number in range(12):
        _random_days(Random(f"{run_seed} {round_number}"))


def _random_days(draw):
    world = ErrandWorld(random_split(draw))
    asked: list[tuple[str, int, int, int]] = []
    names: set[str] = set()
    for at in range(draw.randrange(100, 400)):
        world.now_ms += draw.choice((0, 1, 60, 1_500))
        host = draw.choice(world.hosts)
        what = draw.random()
        if what < 0.12:
            shard, to_shard, more = draw.randrange(SHARDS), draw.randrange(SHARDS), draw.choice((0, 0, 0, 1, 3))
            asked.append((f"n{at}", shard, to_shard, more))
            names |= {f"n{at}" + "." * depth for depth in range(more + 1)}
            world.ask(*asked[-1])
        elif what < 0.15 and asked:
            world.ask(*draw.choice(asked))
        elif what < 0.35:
            host.step(draw.choice((1, 2, 50)))
        elif what < 0.5:
            host.commit()
        elif what < 0.65:
            host.pump(draw.choice((1, 2, 50)))
        elif what < 0.94 and world.network:
            _network(draw, world)
        elif what < 0.96:
            host.lose()
        elif what < 0.97 and host.shards:
            host.snapshot(draw.choice(sorted(host.shards)))
        elif what < 0.99:
            world.crash(host.name)
        elif what < 0.995:
            world.split(random_split(draw))
    for one in asked:  # whoever has no answer asks again
        world.ask(*one)
    world.settle()
    judge_all(world, names)
    answers = {name: reply for host in world.hosts for name, reply in host.answers.items()}
    assert {name: reply[0] for name, reply in answers.items()} == {name: OK for name, *_ in asked}


def _network(draw, world):
    at = draw.randrange(len(world.network))
    fate = draw.random()
    if fate < 0.1:
        world.network.pop(at)
    elif fate < 0.25:
        world.network.append(world.network[at])
    else:
        world.deliver(at if fate < 0.5 else 0)


def test_a_command_asks_for_room_first_and_what_must_follow_is_sent_all_the_same():
    world = ErrandWorld(HALVES)
    shard = world.hosts[0].engine.books.shards[0]
    assert has_room(shard, 4)
    for at in range(OPEN_PER_PAIR_MAX):
        world.ask(f"n{at}", 0, 4)
    world.hosts[0].step(OPEN_PER_PAIR_MAX)
    assert not has_room(shard, 4)
    assert has_room(shard, 5)


def test_an_errand_that_is_not_known_stays_with_its_sender(monkeypatch):
    world = ErrandWorld(HALVES)
    first, second = world.hosts
    world.ask("a", 0, 4)
    with monkeypatch.context() as older:
        older.delitem(ERRANDS, DO)
        first.step(1)
        first.commit()
        first.pump(1)
        world.deliver(0)
        second.step(1)
        second.commit()
        (message,) = world.network
        assert list(message.reply or ())[:2] == [ERROR, int(ErrorReason.INTERNAL)]
        world.deliver(0)
        assert first.courier.open == 1
    world.settle()
    judge_all(world, {"a"})
