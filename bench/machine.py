"""Describes the machine a figure was measured on: figures without it mean nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FSYNC_SAMPLES = 100
BUSY_LOAD_SHARE = 0.35  # of the allowed cores, before the benchmark does anything
ROOT = Path(__file__).resolve().parents[1]


def describe(directory: Path) -> dict[str, Any]:
    """Cores allowed, kernel, Python, versions, load of others, and how long an fsync takes below ``directory``."""
    return {
        "cpu": processor_name(),
        "cores_allowed": sorted(os.sched_getaffinity(0)),
        "cores": os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("stockade-server", "grpcio", "protobuf", "ray", "apsw", "uvloop")
        },
        "commit": git_commit(),
        "fsync_ms": fsync_ms(directory),
    }


def processor_name() -> str:
    """As the kernel names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def git_commit() -> str:
    """What was measured: the commit, with "+" when files differ from it; empty outside of a checkout."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def is_busy(machine: dict[str, Any]) -> bool:
    """Whether others used the processors when the machine was described: then figures are no measure of the service."""
    return bool(machine["load_average"][0] > BUSY_LOAD_SHARE * len(machine["cores_allowed"]))


def fsync_ms(directory: Path) -> dict[str, float]:
    """Median and 99th percentile of writing 4 KiB and fsyncing it."""
    samples = []
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        for _ in range(FSYNC_SAMPLES):
            started = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 4096, 0)
            os.fsync(file.fileno())
            samples.append((time.perf_counter() - started) * 1000)
    samples.sort()
    return {"p50": round(samples[len(samples) // 2], 3), "p99": round(samples[int(len(samples) * 0.99)], 3)}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


def memory_mib(pid: int) -> float:
    """Resident memory of a process; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def describe_briefly() -> dict[str, Any]:
    """What a record of the in-process check was made on."""
    return {"cpu": processor_name(), "python": sys.version.split()[0], "commit": git_commit()}
