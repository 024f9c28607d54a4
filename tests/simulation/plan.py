"""What one seed's history is like: the shape of its traffic, the bounds of its service, and which faults strike how often.

Everything here is drawn from the seed before the history begins. Small bounds are drawn often, so that every queue fills,
everything leaves memory, and snapshots are taken all the time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from actors.domain.outcomes import Door
from actors.domain.rules import Rules
from actors.shard.host_config import HostConfig
from tests.simulation.journal import DiskFaults
from tests.simulation.network import NetworkFaults

TOKEN = "the cluster's token"
HOUR_MS = 3600 * 1000
TOLD_FLOOR, ORDERED_FLOOR = "F1", "F2"  # warehouses of the warehouse systems; order management ships from the second

KINDS = (
    "reserve", "reserve many", "confirm", "release", "release by request", "extend", "amend", "fulfill",
    "get reservation", "get availability", "get stock", "explain", "lists", "same twice", "reuse",
    "last moment",
    "receipt", "pick", "unpick", "shipment", "adjustment", "count", "disposition", "dispatch", "transfer", "return",
    "policy", "selling", "register",
)  # fmt: skip
USUAL = {
    "reserve": 30.0, "reserve many": 3, "confirm": 12, "release": 6, "release by request": 3, "extend": 3, "amend": 6,
    "fulfill": 4, "get reservation": 5, "get availability": 6, "get stock": 3, "explain": 2, "lists": 1, "same twice": 2,
    "reuse": 1, "last moment": 2, "receipt": 8, "pick": 4, "unpick": 2, "shipment": 6, "adjustment": 2, "count": 1, "disposition": 1.5,
    "dispatch": 1, "transfer": 1, "return": 1, "policy": 1.5, "selling": 0.7, "register": 0.5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Workload:
    """The traffic. Times in ms of virtual time."""

    channels: tuple[str, ...]
    skus: tuple[str, ...]
    warehouses: tuple[str, ...]
    clients: int
    actions: int  # a client
    think_ms: float  # between two actions of a client, on average
    lines_max: int
    quantity_max: int
    receipt_max: int
    ttl_ms: tuple[int, ...]
    hot: float  # chance that a line is of the first stock key
    timeout_ms: tuple[int, ...]
    tries_max: int
    weights: dict[str, float]
    gateways: int
    frames_in_flight: int
    request_lost: float
    answer_lost: float
    reads_changes: bool
    floor_steps: int  # how much happens on the floors of the warehouse systems


@dataclass(frozen=True, slots=True)
class Faults:
    """Rates are events a virtual second, chances or ms."""

    network: NetworkFaults = field(default_factory=NetworkFaults)
    disk: DiskFaults = field(default_factory=DiskFaults)
    crash: float = 0.0
    pause: float = 0.0
    usurp: float = 0.0
    gateway_crash: float = 0.0
    directory_loss: float = 0.0
    late_map: float = (
        0.0  # chance that a gateway hears of a new map long after the others, and uses the old one until then
    )
    partition: float = 0.0
    cut_all: float = 0.0
    wall_jump: float = 0.0
    disk_full: float = 0.0
    stop_gently: float = 0.0
    machine_lost: float = 0.0  # chance that a crash is of the whole machine: nobody is told
    restart_ms: tuple[int, int] = (100, 100)
    skew_ms: int = 0
    pause_ms: int = 0
    long_down: float = 0.0  # chance that the wall is hours later at a restart


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it."""

    seed: int
    shards: int
    rules: Rules
    host: HostConfig
    work: Workload
    faults: Faults


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    draw = random.Random(f"{seed}/plan")
    warehouses = tuple(f"W{number}" for number in range(draw.choice((1, 1, 2, 3))))
    return Plan(
        seed,
        draw.choice((4, 8, 8, 16, 64)),
        _rules(draw, warehouses),
        _host(draw),
        _workload(draw, warehouses),
        _faults(draw),
    )


def _rules(draw: random.Random, warehouses: tuple[str, ...]) -> Rules:
    return Rules(
        catalog_open=draw.random() < 0.8,
        doors={one: Door.ORDER_MANAGEMENT for one in warehouses if draw.random() < 0.45}
        | {ORDERED_FLOOR: Door.ORDER_MANAGEMENT},
        lifetime_ms_max=draw.choice((20_000, 24 * HOUR_MS)),
        dedupe_memory_ms=draw.choice((0, 300, 1_000, 5_000, 900_000)),
        ended_in_memory_max=draw.choice((0, 3, 200_000, 200_000)),
        expiries_per_turn_max=draw.choice((1, 2, 2_000)),
        takeover_grace_ms=draw.choice((0, 500, 2_000)),
        healed_memory_ms=draw.choice((500, 24 * HOUR_MS)),
        healed_in_memory_max=draw.choice((2, 20_000)),
        deferral_ms_max=draw.choice((300, 5_000, 900_000, 900_000)),
        gap_patience_ms=draw.choice((200, 3_000, 300_000)),
        history_ms=draw.choice((4_000, 72 * HOUR_MS, 72 * HOUR_MS, 72 * HOUR_MS)),
        warehouses_not_selling=frozenset(warehouses[1:]) if draw.random() < 0.1 else frozenset(),
        feeds={one: {"wms": draw.choice((400, 5_000))} for one in (*warehouses, TOLD_FLOOR) if draw.random() < 0.3},
    )


def _host(draw: random.Random) -> HostConfig:
    return HostConfig(
        "host-a",
        TOKEN,
        link_frames_max=draw.choice((2, 16)),
        turn_lines_max=draw.choice((2, 20, 4_000)),
        queue_lines_per_shard_max=draw.choice((4, 20_000, 20_000)),
        status_waiting_max=2,
        overloaded_retry_ms=20,
        unavailable_retry_ms=50,
        snapshot_after_events=draw.choice((5, 20, 60, 50_000)),
        snapshot_entities_per_slice=draw.choice((1, 4, 20, 250)),
        snapshot_pause_ms=draw.choice((0.5, 2.0, 50.0)),
        records_retention_ms=draw.choice((0, 2_000, 7 * 24 * HOUR_MS)),
        compact_interval_ms=draw.choice((500, 5_000, 600_000)),
        housekeeping_interval_ms=draw.choice((200, 1_000)),
    )


def _workload(draw: random.Random, warehouses: tuple[str, ...]) -> Workload:
    clients = draw.choice((2, 4, 6, 10))
    weights = dict(USUAL)
    for kind in KINDS:
        if draw.random() < 0.15:
            weights[kind] *= draw.choice((0.0, 0.3, 4.0))
    weights["reserve"] = max(weights["reserve"], 8.0)
    weights["receipt"] = max(weights["receipt"], 3.0)
    return Workload(
        channels=("web", "edi", "portal")[: draw.randint(1, 3)],
        skus=tuple(f"S{number}" for number in range(draw.choice((1, 2, 4, 8)))),
        warehouses=warehouses,
        clients=clients,
        actions=draw.choice((40, 90, 160)) // clients + 1,
        think_ms=draw.choice((2.0, 20.0, 100.0, 400.0)),
        lines_max=draw.choice((1, 2, 5)),
        quantity_max=draw.choice((1, 3, 10)),
        receipt_max=draw.choice((5, 30, 200)),
        ttl_ms=draw.choice(((1_000,), (1_000, 3_000, 60_000), (60_000, 900_000), (500, 2_000, 10_000))),
        hot=draw.choice((0.0, 0.5, 0.9)),
        timeout_ms=draw.choice(((5_000,), (1_000, 5_000), (300, 1_000, 5_000), (50, 300))),
        tries_max=draw.choice((1, 3, 6)),
        weights=weights,
        gateways=draw.choice((1, 2, 3)),
        frames_in_flight=draw.choice((1, 2, 4)),
        request_lost=draw.choice((0.0, 0.0, 0.02, 0.1)),
        answer_lost=draw.choice((0.0, 0.0, 0.02, 0.2)),
        reads_changes=draw.random() < 0.5,
        floor_steps=draw.choice((0, 0, 20, 60)),
    )


class Chances:
    """Draws rates: many seeds meet few kinds of faults, so that much happens between them, and some meet all at once."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._presence = draw.choice((0.08, 0.2, 0.5))

    def rate(self, *rates: float) -> float:
        """0, or one of the rates."""
        here = self._draw.random() < self._presence
        rate = self._draw.choice(rates)
        return rate if here else 0.0


def _faults(draw: random.Random) -> Faults:
    if draw.random() < 0.1:
        return Faults()
    chances = Chances(draw)
    network = NetworkFaults(
        delay_ms=draw.choice(((0.05, 0.5), (0.1, 20.0), (0.1, 150.0))),
        cut=chances.rate(0.005, 0.03, 0.15, 0.3),
        silence=chances.rate(0.002, 0.02),
        double=chances.rate(0.05, 0.5),
        pieces=chances.rate(0.3),
        late=chances.rate(0.02, 0.3),
    )
    disk = DiskFaults(
        fail=chances.rate(0.005, 0.03),
        unknown=chances.rate(0.005, 0.03),
        slow=chances.rate(0.02, 0.3),
        slow_ms=draw.choice((20.0, 300.0, 2_000.0)),
        die_before=chances.rate(0.005, 0.03),
        die_after=chances.rate(0.005, 0.03),
        stop_after=chances.rate(0.005, 0.02),
        other=chances.rate(0.01),
    )
    return Faults(
        network,
        disk,
        crash=chances.rate(0.1, 0.5),
        pause=chances.rate(0.1, 0.3),
        usurp=chances.rate(0.1, 0.3),
        gateway_crash=chances.rate(0.1, 0.3),
        directory_loss=chances.rate(0.1),
        late_map=chances.rate(0.3, 0.7),
        partition=chances.rate(0.1, 0.3),
        cut_all=chances.rate(0.3),
        wall_jump=chances.rate(0.1),
        disk_full=chances.rate(0.1),
        stop_gently=chances.rate(0.1),
        machine_lost=chances.rate(0.3),
        restart_ms=draw.choice(((10, 100), (10, 100), (100, 3_000), (2_000, 10_000))),
        skew_ms=draw.choice((0, 500, 4_000)),
        pause_ms=draw.choice((500, 6_000)),
        long_down=chances.rate(0.3),
    )
