"""What the supervisor does next, as tables of members: one host holds the journal, gateways follow, old generations
end.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.runtime.mending import Activate, EndGeneration, Stop, is_complete, next_actions
from actors.runtime.plan import NodeShape
from actors.runtime.supervision_link import MemberState

PREPARED, STARTING, SERVING, STOPPED = (
    MemberState.PREPARED,
    MemberState.STARTING,
    MemberState.SERVING,
    MemberState.STOPPED,
)


@dataclass(frozen=True)
class FakeMember:
    role: str
    generation: int
    state: MemberState
    activated: bool = True
    told_to_stop: bool = False


def waiting(role: str, generation: int = 1) -> FakeMember:
    return FakeMember(role, generation, PREPARED, activated=False)


def serving(role: str, generation: int = 1) -> FakeMember:
    return FakeMember(role, generation, SERVING)


def whole(generation: int) -> list[FakeMember]:
    return [serving(role, generation) for role in ("node", "directory", "host", "gateway-0", "gateway-1")]


def test_at_the_start_everything_is_activated() -> None:
    members = [waiting("directory"), waiting("host"), waiting("gateway-0"), waiting("gateway-1")]
    actions = next_actions(members, generations=[1], shape=NodeShape(2))
    assert {action.member.role for action in actions if isinstance(action, Activate)} == {
        "directory", "host", "gateway-0", "gateway-1",
    }  # fmt: skip
    assert len(actions) == 4


def test_nothing_is_done_when_everything_serves() -> None:
    assert next_actions(whole(1), generations=[1], shape=NodeShape(2)) == []
    assert is_complete(whole(1), 1, NodeShape(2))


def test_a_restarted_host_is_activated_again() -> None:
    members = [member for member in whole(1) if member.role != "host"] + [host := waiting("host")]
    assert next_actions(members, generations=[1], shape=NodeShape(2)) == [Activate(host)]


def test_a_second_host_is_not_activated_while_one_holds_the_journal() -> None:
    assert next_actions([*whole(1), waiting("host")], generations=[1], shape=NodeShape(2)) == []


def test_the_old_host_gives_way_once_all_of_the_next_generation_is_prepared() -> None:
    old = whole(1)
    coming = [serving("node", 2), serving("directory", 2), waiting("host", 2), waiting("gateway-0", 2)]
    assert next_actions([*old, *coming], generations=[1, 2], shape=NodeShape(2)) == []
    assert next_actions([*old, *coming, waiting("gateway-1", 2)], generations=[1, 2], shape=NodeShape(2)) == [
        Stop(old[2])
    ]


def test_the_successor_opens_only_after_the_old_host_has_closed() -> None:
    stopping = FakeMember("host", 1, MemberState.STOPPING, told_to_stop=True)
    stopped = FakeMember("host", 1, STOPPED, told_to_stop=True)
    successor = waiting("host", 2)
    assert next_actions([stopping, successor], generations=[1, 2], shape=NodeShape(2)) == []
    assert next_actions([stopped, successor], generations=[1, 2], shape=NodeShape(2)) == [Activate(successor)]


def test_webhooks_begin_when_everything_else_serves_and_nobody_waits_for_them() -> None:
    webhooks = waiting("webhooks")
    starting = [member for member in whole(1) if member.role != "gateway-1"] + [webhooks]
    assert next_actions(starting, generations=[1], shape=NodeShape(2)) == []
    assert next_actions([*whole(1), webhooks], generations=[1], shape=NodeShape(2)) == [Activate(webhooks)]
    assert is_complete([*whole(1), webhooks], 1, NodeShape(2))


def test_one_process_delivers_also_while_generations_change() -> None:
    old, coming = serving("webhooks"), waiting("webhooks", 2)
    stopping = FakeMember("webhooks", 1, MemberState.STOPPING, told_to_stop=True)
    stopped = FakeMember("webhooks", 1, STOPPED, told_to_stop=True)
    assert next_actions([*whole(2), old, coming], generations=[1, 2], shape=NodeShape(2)) == [Stop(old)]
    assert next_actions([*whole(2), stopping, coming], generations=[1, 2], shape=NodeShape(2)) == []
    assert next_actions([*whole(2), stopped, coming], generations=[1, 2], shape=NodeShape(2)) == [
        Activate(coming),
        EndGeneration(1),
    ]


def test_new_gateways_open_when_the_new_host_serves() -> None:
    old = [serving("gateway-0"), serving("gateway-1")]
    new = [waiting("gateway-0", 2), waiting("gateway-1", 2)]
    assert next_actions([*old, *new, FakeMember("host", 2, STARTING)], generations=[1, 2], shape=NodeShape(2)) == []
    assert next_actions([*old, *new, serving("host", 2)], generations=[1, 2], shape=NodeShape(2)) == [
        Activate(new[0]),
        Activate(new[1]),
    ]


def test_old_gateways_drain_and_the_old_generation_ends_when_the_new_one_is_complete() -> None:
    old_gateway = serving("gateway-0")
    assert next_actions([old_gateway, *whole(2)], generations=[1, 2], shape=NodeShape(2)) == [Stop(old_gateway)]
    stopped = FakeMember("gateway-0", 1, STOPPED, told_to_stop=True)
    assert next_actions([stopped, serving("node"), *whole(2)], generations=[1, 2], shape=NodeShape(2)) == [
        EndGeneration(1)
    ]


def test_a_generation_whose_processes_have_all_died_is_ended_too() -> None:
    assert next_actions(whole(3), generations=[1, 2, 3], shape=NodeShape(2)) == [EndGeneration(1), EndGeneration(2)]


def test_when_no_gateway_answers_new_ones_do_not_wait_for_the_host() -> None:
    new = waiting("gateway-0", 2)
    assert next_actions([new], generations=[1, 2], shape=NodeShape(1)) == [Activate(new)]
