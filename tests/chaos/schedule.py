"""Which faults come, in which order, how long each lasts and how long it is quiet before: all of it from a seed. Pure.

Every sort of fault comes once before any comes again, in an order of the seed's. What a fault does is ``faults``'.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

KILL = "kill"  # SIGKILL, one process or several at once
PAUSE = "pause"  # SIGSTOP, later SIGCONT
STOP = "stop"  # a clean stop of serve under load, and a new one
LINK = "link"  # between gateways and host

PROCESSES = ("host", "gateway-0", "gateway-1", "directory", "raylet", "gcs", "node", "serve")
TOGETHER = (
    ("host", "gateway-0"),
    ("host", "raylet"),
    ("gateway-0", "gateway-1"),
    ("directory", "host"),
    ("gcs", "host"),
)

TO_HOST = "to host"
TO_GATEWAY = "to gateway"
BOTH_WAYS = "both ways"

CUT = "cut"  # every connection is reset
REFUSED = "refused"  # for a while nobody gets through to the host
DELAY = "delay"
HOLD = "hold"  # half-open: nothing gets through, nobody is told; what was held arrives late
STRAND = "strand"  # the same for the connections there are; new ones work, so a retry overtakes what is held
GARBAGE = "garbage"  # bytes of chance among the frames
FLIP = "flip"  # one bit of a frame is another
TRUNCATE = "truncate"  # the connection ends in the middle of a frame
LINK_FAULTS = (
    (CUT, BOTH_WAYS),
    (REFUSED, BOTH_WAYS),
    (DELAY, BOTH_WAYS),
    (HOLD, TO_HOST),
    (HOLD, TO_GATEWAY),
    (HOLD, BOTH_WAYS),
    (STRAND, TO_HOST),
    (STRAND, TO_GATEWAY),
    (STRAND, BOTH_WAYS),
    (GARBAGE, TO_HOST),
    (GARBAGE, TO_GATEWAY),
    (FLIP, TO_HOST),
    (FLIP, TO_GATEWAY),
    (TRUNCATE, TO_HOST),
    (TRUNCATE, TO_GATEWAY),
)
LASTING = (REFUSED, DELAY, HOLD, STRAND)

DELAY_MS = (20, 2_500)


@dataclass(frozen=True, slots=True)
class Fault:
    """``targets``: processes, or a direction of the link. ``seconds``: how long it lasts, 0 for one that only strikes.

    ``how``: the sort of a link fault. ``delay_ms``: of a delay. ``quiet_s``: undisturbed time before it.
    ``silence_ms_max``: the setting of that name for a serve that this fault starts.
    """

    kind: str
    targets: tuple[str, ...]
    quiet_s: float
    how: str = ""
    seconds: float = 0.0
    delay_ms: int = 0
    silence_ms_max: int = 0

    @property
    def name(self) -> str:
        """What it is, without how long: its line in the table by kind."""
        return f"{self.kind} {' + '.join(self.targets)}" if self.kind != LINK else f"{self.how} {self.targets[0]}"

    @property
    def restarts_serve(self) -> bool:
        """Whether a serve must be started again afterwards."""
        return self.kind == STOP or (self.kind == KILL and "serve" in self.targets)


@dataclass(frozen=True, slots=True)
class Temper:
    """How hard it is. ``pause_s``: (share, from, to) of pauses and lasting link faults."""

    quiet_s: tuple[float, float]
    pause_s: tuple[tuple[float, float, float], ...]
    silence_ms: tuple[int, ...]


SHORT = Temper(quiet_s=(0.5, 1.5), pause_s=((1.0, 1.0, 6.0),), silence_ms=(20_000,))
LONG = Temper(
    quiet_s=(1.0, 6.0),
    pause_s=((0.6, 1.0, 8.0), (0.25, 8.0, 30.0), (0.15, 30.0, 90.0)),
    silence_ms=(20_000, 20_000, 120_000),  # with two minutes a process that was paused for 90 s goes on where it was
)


def ten_faults(seed: int) -> list[Fault]:
    """The short form: of everything something."""
    draw = random.Random(seed)
    sorts: list[tuple[str, tuple[str, ...], str]] = [
        (KILL, ("host",), ""),
        (KILL, (draw.choice(("gateway-0", "gateway-1")),), ""),
        (KILL, (draw.choice(("raylet", "gcs", "node")),), ""),
        (KILL, ("serve",), ""),
        (KILL, draw.choice(TOGETHER), ""),
        (PAUSE, ("host",), ""),
        (PAUSE, (draw.choice(("gateway-0", "gateway-1", "directory", "raylet", "gcs", "serve")),), ""),
        (LINK, (draw.choice((TO_HOST, TO_GATEWAY, BOTH_WAYS)),), draw.choice((HOLD, STRAND))),
        (LINK, (BOTH_WAYS,), draw.choice((CUT, REFUSED, DELAY))),
        (LINK, (draw.choice((TO_HOST, TO_GATEWAY)),), draw.choice((GARBAGE, FLIP, TRUNCATE))),
    ]
    draw.shuffle(sorts)
    return [make(draw, SHORT, *sort) for sort in sorts]


def endless_faults(seed: int) -> Iterator[Fault]:
    """The long form: all sorts, again and again, each time in another order."""
    draw = random.Random(seed)
    sorts: list[tuple[str, tuple[str, ...], str]] = [
        *((KILL, (process,), "") for process in PROCESSES),
        *((KILL, several, "") for several in TOGETHER),
        *((PAUSE, (process,), "") for process in PROCESSES),
        (STOP, ("serve",), ""),
        *((LINK, (direction,), how) for how, direction in LINK_FAULTS),
    ]
    while True:
        draw.shuffle(sorts)
        for sort in sorts:
            yield make(draw, LONG, *sort)


def make(draw: random.Random, temper: Temper, kind: str, targets: tuple[str, ...], how: str) -> Fault:
    """One fault with its times."""
    lasts = kind == PAUSE or how in LASTING
    shares = [share for share, _, _ in temper.pause_s]
    _, least, most = draw.choices(temper.pause_s, shares)[0]
    seconds, quiet_s = round(draw.uniform(least, most), 2), round(draw.uniform(*temper.quiet_s), 2)
    delay_ms, silence_ms_max = draw.randint(*DELAY_MS), draw.choice(temper.silence_ms)
    return Fault(
        kind,
        targets,
        quiet_s,
        how,
        seconds if lasts else 0.0,
        delay_ms if how == DELAY else 0,
        silence_ms_max,
    )
