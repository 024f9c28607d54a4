"""The sweep: histories of several boots, each with lives, faults and a power cut; every moment of a boot is a crash point.

A history comes from its seed alone. Boot after boot: some lives run on a recorded disk; the log of what they did to it is cut at
many moments, each time with another draw of what survived, and each is judged; from one of them the next boot goes on.
"""

from __future__ import annotations

import copy
import itertools
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from actors.journal.sqlite import SqliteJournal
from tests.power_loss.disk import Files, Operation, moments
from tests.power_loss.disk_recording import Fault, Recorder
from tests.power_loss.expectation import Expectation
from tests.power_loss.judging import judge, put
from tests.power_loss.life import SHARD_COUNT, Life, NotServed, small_bounds

BOOTS = 5
BALLAST_BYTES = 768 * 1024  # room for a copy of the WAL and a takeover
ROOMY_BYTES = 1 << 40
FAULTS = ("none", "none", "kill", "kill", "read", "write", "sync", "sync", "full")
TELLING = ("sync", "failed sync", "name", "sync directory", "mark")


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """One power cut: the history's seed, which boot, and the number of operations that happened before it."""

    seed: int
    boot: int
    moment: int

    def __str__(self) -> str:
        return f"--seed {self.seed} --boot {self.boot} --moment {self.moment}"


@dataclass(frozen=True, slots=True)
class Failure:
    """What was lost, and where; moment -1: while it was being lived."""

    point: CrashPoint
    what: str


@dataclass(slots=True)
class Figures:
    """What a sweep did."""

    crash_points: int = 0
    histories: int = 0
    boots: int = 0
    did: Counter[str] = field(default_factory=Counter)  # what the owners did
    operations: int = 0
    under_way: int = 0  # crash points at which something unanswered was found done
    ends: Counter[str] = field(default_factory=Counter)  # how lives ended
    faults: Counter[str] = field(default_factory=Counter)  # faults that struck
    failures: list[Failure] = field(default_factory=list)
    judging_s: float = 0.0


@dataclass(slots=True)
class Options:
    """``sabotage`` gets every journal after it was opened; ``lies_about``: syncs of files so named do nothing."""

    points_per_boot: int = 100
    sabotage: Callable[[SqliteJournal], None] = lambda journal: None
    lies_about: tuple[str, ...] = ()
    only: CrashPoint | None = None


def sweep(seed: int, crash_points: int, work: Path, options: Options, said: Callable[[Figures], None]) -> Figures:
    """Histories of seeds ``seed``, ``seed + 1``, … until there were so many crash points. ``said`` after every boot."""
    figures = Figures()
    with small_bounds():
        for number in itertools.count(seed):
            if figures.crash_points >= crash_points or figures.failures:
                return figures
            figures.histories += 1
            for _ in _History(number, work, options, figures).boots():
                said(figures)
                if figures.crash_points >= crash_points:
                    break
    raise AssertionError("unreachable")


def replay(point: CrashPoint, work: Path, options: Options) -> Figures:
    """That one crash point again; its files are left in ``work / "cut"``."""
    figures = Figures()
    options.only = point
    with small_bounds():
        for boot in _History(point.seed, work, options, figures).boots():
            if boot == point.boot:
                break
    return figures


def with_synchronous(value: str) -> Callable[[SqliteJournal], None]:
    """A sabotage: journals that sync as little as this pragma says."""

    def sabotage(journal: SqliteJournal) -> None:
        journal._connection.execute(f"PRAGMA synchronous = {value}").fetchall()

    return sabotage


class _History:
    """One seed's boots."""

    def __init__(self, seed: int, work: Path, options: Options, figures: Figures) -> None:
        self.seed, self.options, self.figures = seed, options, figures
        self._draw = random.Random(seed)
        self._live, self._cut = work / "live", work / "cut"
        self._clock = itertools.count(1)
        self._expectation = Expectation(SHARD_COUNT)
        self._files: Files = {"/backups": None}

    def boots(self) -> Iterator[int]:
        for boot in range(BOOTS):
            self.figures.boots += 1
            began = copy.deepcopy(self._expectation)
            recorder = self._lived(boot)
            if recorder is None:
                return
            self.figures.operations += len(recorder.log)
            if not self._judged(boot, recorder, began):
                return
            yield boot

    def _lived(self, boot: int) -> Recorder | None:
        """A boot's lives, recorded; None when something happened there that must not."""
        draw = self._draw
        put(self._files, self._live)
        recorder = Recorder(self._live, self._files, random.Random(draw.random()))
        recorder.lies_about = self.options.lies_about
        was_full = False
        with recorder:
            for _ in range(draw.randint(1, 4)):
                was_full = self._life(boot, recorder, was_full=was_full)
                if self.figures.failures:
                    return None
        return recorder

    def _life(self, boot: int, recorder: Recorder, *, was_full: bool) -> bool:
        """One life; whether it ended because the disk was full."""
        draw = self._draw
        kind = "full" if was_full else draw.choice(FAULTS)
        bounds = {"kill": 1_500, "read": 80, "write": 400, "sync": 60}
        recorder.fault = Fault(kind, draw.randint(1, bounds[kind])) if kind in bounds else None
        if was_full and draw.random() < 0.5:
            recorder.size_bytes = ROOMY_BYTES  # somebody made room
        room = draw.randint(10_000, 300_000)

        def after_opening(journal: SqliteJournal) -> None:
            if kind == "full" and not was_full:  # from now on it fills up; the ballast is there
                recorder.size_bytes = recorder.used_bytes() + room
            self.options.sabotage(journal)

        life = Life(
            recorder,
            self._expectation,
            draw,
            self._clock,
            ballast_bytes=BALLAST_BYTES if kind == "full" else 0,
            after_opening=after_opening,
        )
        try:
            end = life.run(draw.randint(3, 40))
            if was_full and not life.did["appends"] and life.full:
                raise NotServed(f"on the full disk not even the takeover was possible: {end}")
        except (AssertionError, Exception) as error:
            self._fail(CrashPoint(self.seed, boot, -1), error)
            return False
        self.figures.did.update(life.did)
        fault = recorder.fault
        if fault is not None and fault.struck:
            self.figures.faults[fault.kind] += 1
        self.figures.ends[_short(end)] += 1
        if not life.full:
            recorder.size_bytes = ROOMY_BYTES
        return life.full

    def _judged(self, boot: int, recorder: Recorder, began: Expectation) -> bool:
        """Judge the boot's crash points; go on from one of them. False when one failed."""
        log, only = recorder.log, self.options.only
        wanted = sorted(_chosen(log, self.options.points_per_boot, random.Random(self._draw.random())))
        goes_on = self._draw.choice(wanted)
        if only is not None:
            wanted = [only.moment] if only.boot == boot and only.moment >= 0 else [goes_on]
        expectation, done = copy.deepcopy(began), 0
        next_boot: tuple[Expectation, Files] | None = None
        for moment, disk in moments(log, self._files, wanted):
            for operation in log[done:moment]:
                if operation[0] == "mark":
                    expectation.note(operation[1:])
            done = moment
            point = CrashPoint(self.seed, boot, moment)
            files = disk.after_power_cut(random.Random(f"{self.seed} {boot} {moment}"))
            started = time.perf_counter()
            try:
                put(files, self._cut)
                happened = judge(self._cut, expectation)
            except (AssertionError, Exception) as error:
                self._fail(point, error)
                return False
            self.figures.judging_s += time.perf_counter() - started
            self.figures.crash_points += 1
            self.figures.under_way += bool(happened)
            if moment == goes_on and next_boot is None:
                settled = copy.deepcopy(expectation)
                settled.settle(happened)
                next_boot = (settled, files)
        if next_boot is not None:
            self._expectation, self._files = next_boot
        return True

    def _fail(self, point: CrashPoint, error: BaseException) -> None:
        self.figures.failures.append(Failure(point, f"{type(error).__name__}: {error}"))
        shutil.rmtree(self._live, ignore_errors=True)


def _chosen(log: list[Operation], count: int, draw: random.Random) -> set[int]:
    """Moments: half of them anywhere, half of them right before and behind what makes something certain."""
    everywhere = range(len(log) + 1)
    telling = [at + side for at, operation in enumerate(log) if operation[0] in TELLING for side in (0, 1)]
    chosen = {draw.choice(telling) for _ in range(count // 2)} if telling else set()
    spare = min(count, len(everywhere)) - len(chosen)
    return chosen | set(draw.sample(everywhere, max(0, spare)))


def _short(end: str) -> str:
    """A life's end without its details."""
    if end == "closed":
        return end
    words = ("is gone", "fsync failed", "a write failed", "a read failed", "full", "truncation")
    return next((word for word in words if word in end), end.partition("(")[0])
