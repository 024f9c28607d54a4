"""What to do next so that one host and all gateways serve: a pure decision over what the supervisor knows.

A *generation* is one node process with its own Ray and actors. When a Ray is lost (raylet, GCS or driver died) its
actors still serve; the next generation is started beside it and takes over in this order: the old host closes, the
new host opens (same endpoint, so that gateways of both find it), the new gateways open on the same port, the old
gateways drain, the old generation ends. Within a generation Ray restarts what dies; it is activated here as soon as
it says it is prepared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.runtime.plan import DIRECTORY, GATEWAY, NODE, WEBHOOKS, NodeShape, is_host
from actors.runtime.supervision_link import MemberState

__all__ = ["Action", "Activate", "EndGeneration", "Member", "Stop", "is_complete", "next_actions"]


class Member(Protocol):
    """A process of the node as the supervisor sees it."""

    @property
    def role(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def state(self) -> MemberState: ...
    @property
    def activated(self) -> bool: ...
    @property
    def told_to_stop(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Activate:
    member: Member


@dataclass(frozen=True, slots=True)
class Stop:
    member: Member


@dataclass(frozen=True, slots=True)
class EndGeneration:
    number: int


FAILED = MemberState.FAILED

Action = Activate | Stop | EndGeneration


def next_actions(members: Sequence[Member], generations: Collection[int], shape: NodeShape) -> list[Action]:
    """What should be said now; empty when everything is as it should be or somebody must first answer.

    ``generations``: numbers of those that have not been ended, with or without members; the highest is the newest.
    """
    newest = max(generations)
    prepared = {member.role for member in members if member.generation == newest and member.state is not FAILED}
    everybody_is_there = shape.roles <= prepared
    actions: list[Action] = []
    for role in shape.hosts:
        these = [member for member in members if member.role == role]
        actions += host_actions(these, newest, hand_over=everybody_is_there)
    actions += directory_actions([member for member in members if member.role == DIRECTORY], newest, shape)
    actions += gateway_actions(members, newest, shape)
    actions += webhooks_actions(members, newest, shape)
    if is_complete(members, newest, shape):
        holding = {member.generation for member in members if holds(member)}
        actions += [
            EndGeneration(number) for number in sorted(generations) if number != newest and number not in holding
        ]
    return actions


def host_actions(hosts: Sequence[Member], newest: int, *, hand_over: bool) -> Iterable[Action]:
    """At most one host of a name holds the journal. An older one gives way once its successor is prepared, and all that
    takes part: starting processes beside a host that replays would make its callers wait longer."""
    waiting = sorted((host for host in hosts if is_waiting(host)), key=lambda host: host.generation)
    holders = [host for host in hosts if holds(host)]
    if not holders:
        return [Activate(waiting[-1])] if waiting else []
    successor_waits = bool(waiting) and waiting[-1].generation == newest
    if not (successor_waits and hand_over):
        return []
    return [Stop(host) for host in holders if host.generation < newest and not host.told_to_stop]


def directory_actions(directories: Sequence[Member], newest: int, shape: NodeShape) -> Iterable[Action]:
    """A cluster's directory has a port, so that two must not serve at once; the other sort is only Ray's."""
    waiting = [directory for directory in directories if is_waiting(directory)]
    gone = (FAILED, MemberState.STOPPED)
    older = [
        directory
        for directory in directories
        if directory.generation < newest and directory.activated and directory.state not in gone
    ]
    if not (shape.is_of_a_cluster and older):
        yield from map(Activate, waiting)
    elif waiting:
        yield from (Stop(directory) for directory in older if not directory.told_to_stop)


def gateway_actions(members: Sequence[Member], newest: int, shape: NodeShape) -> Iterable[Action]:
    """New gateways open when they have a host to ask, or when nobody else answers; old ones drain once all new ones
    serve.
    """
    gateways = [member for member in members if member.role.startswith(GATEWAY)]
    older = [gateway for gateway in gateways if gateway.generation < newest and holds(gateway)]
    host_serves = any(host.generation == newest and host.state is MemberState.SERVING for host in hosts_among(members))
    if host_serves or not older:
        yield from (Activate(gateway) for gateway in gateways if is_waiting(gateway) and gateway.generation == newest)
    if is_complete(members, newest, shape):
        yield from (Stop(gateway) for gateway in older if not gateway.told_to_stop)


def webhooks_actions(members: Sequence[Member], newest: int, shape: NodeShape) -> Iterable[Action]:
    """One process delivers, and begins when everything else serves: nobody waits for it."""
    if not is_complete(members, newest, shape):
        return
    deliverers = [member for member in members if member.role == WEBHOOKS]
    holders = [member for member in deliverers if holds(member) and member.state is not FAILED]
    yield from (Stop(member) for member in holders if member.generation < newest and not member.told_to_stop)
    if not holders:
        yield from (Activate(member) for member in deliverers if is_waiting(member) and member.generation == newest)


def is_complete(members: Iterable[Member], generation: int, shape: NodeShape) -> bool:
    """Whether this generation serves with everything it should have."""
    serving = {m.role for m in members if m.generation == generation and m.state is MemberState.SERVING}
    return shape.roles <= serving


def hosts_among(members: Iterable[Member]) -> list[Member]:
    return [member for member in members if is_host(member.role)]


def is_waiting(member: Member) -> bool:
    return member.state is MemberState.PREPARED and not member.activated


def holds(member: Member) -> bool:
    """Whether it may still hold a journal or a port."""
    return member.role not in (NODE, DIRECTORY) and member.activated and member.state is not MemberState.STOPPED
