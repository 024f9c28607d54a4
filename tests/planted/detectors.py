"""The checks that planted bugs are shown to, and how one is run in a copy of the tree.

General checkers know promises, not bugs: random histories, walks and sweeps, each judged from outside. The tests of single
things come after them, those of the bug's own area first.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.planted.catalog import Bug

PYTEST = (sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "--tb=line", "-p", "no:cacheprovider")
CPU_SECONDS_MAX = 600
CAUGHT = (1, 2)  # exit codes: a test failed, a module could not even be imported; any other is our own mistake

WALK = "tests/unit/test_gateway_core_walk.py"
HISTORIES = "tests/unit/test_verify_random.py"
CONFORMANCE = "tests/unit/test_journal_conformance.py"
POWER_LOSS = "tests/unit/test_power_loss.py"
GENERAL_FILES = (WALK, HISTORIES, CONFORMANCE, POWER_LOSS)
CRASH_POINTS = 400


@dataclass(frozen=True, slots=True)
class Detector:
    """``command``: argv for a bug, a number of seeds and the tree. ``general``: it knows promises, not bugs."""

    name: str
    general: bool
    command: Callable[[Bug | None, int, Path], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one detector said, after how many seconds of CPU. ``evidence``: the seed or test that failed; empty: none."""

    detector: str
    caught: bool
    seconds: float
    evidence: str
    output: str


def simulation(_bug: Bug | None, seeds: int, _tree: Path) -> Sequence[str]:
    module = (sys.executable, "-m", "tests.simulation")
    return (*module, "--seeds", str(seeds), "--jobs", "1", "--until-failure")


def histories(_bug: Bug | None, _seeds: int, _tree: Path) -> Sequence[str]:
    return (*PYTEST, f"{HISTORIES}::test_an_honest_history_passes_whole_and_compacted", "--seed", "1")


def gateway_walk(_bug: Bug | None, _seeds: int, _tree: Path) -> Sequence[str]:
    return (*PYTEST, WALK)


def conformance(_bug: Bug | None, _seeds: int, _tree: Path) -> Sequence[str]:
    return (*PYTEST, CONFORMANCE)


def power_loss(_bug: Bug | None, _seeds: int, _tree: Path) -> Sequence[str]:
    return (sys.executable, "-m", "tests.power_loss", "--crash-points", str(CRASH_POINTS), "--seed", "1")


def single_tests(bug: Bug | None, _seeds: int, tree: Path) -> Sequence[str]:
    """Every test of single things, those of the bug's area first."""
    every = [
        str(path.relative_to(tree))
        for folder in ("unit", "integration")
        for path in sorted((tree / "tests" / folder).glob("test_*.py"))
    ]
    near = list(bug.tests) if bug is not None else []
    files = dict.fromkeys([*near, *(path for path in every if path not in GENERAL_FILES)])
    return (*PYTEST, *files)


DETECTORS = (
    Detector("simulation", True, simulation),
    Detector("histories", True, histories),
    Detector("gateway walk", True, gateway_walk),
    Detector("journal conformance", True, conformance),
    Detector("power loss", True, power_loss),
    Detector("single tests", False, single_tests),
)


def run(detector: Detector, bug: Bug | None, tree: Path, seeds: int) -> Finding:
    """Run one detector in a copy of the tree. One that does not end in time has caught something too."""
    paths = (str(tree), str(tree / "protos"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            detector.command(bug, seeds, tree), cwd=tree, env=environment, stdout=printed, stderr=subprocess.STDOUT
        )
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        output = printed.read()
    seconds = used.ru_utime + used.ru_stime
    if process.returncode < 0:
        return Finding(detector.name, True, seconds, f"no end in {CPU_SECONDS_MAX} s of CPU", output)
    if process.returncode not in (0, *CAUGHT):
        raise RuntimeError(f"{detector.name} could not be run:\n{output}")
    evidence = evidence_in(output) if process.returncode else ""
    return Finding(detector.name, process.returncode != 0, seconds, evidence, output)


def evidence_in(output: str) -> str:
    """The test or seed that failed, as the detector named it, and what it said."""
    if found := re.search(r"^(?:FAILED|ERROR) (?:\S+/)?(\S+\.py(?:::\S+)?)", output, re.MULTILINE):
        return found[1]
    if found := re.search(r"^seed (\d+) failed.*\n\s*(.*)", output, re.MULTILINE):
        return f"seed {found[1]}: {found[2]}"
    if found := re.search(r"^FAILED: (.*)", output, re.MULTILINE):
        return found[1]
    lines = output.strip().splitlines()
    return lines[-1] if lines else "ended without a word"
