"""What the processes cost: CPU and memory of each by its role, and the node's own counters of commits and turns.

Reads ``/proc`` and ``/metrics``; starts and ends nothing. Roles: ``gateway``, ``host``, ``directory``, ``node``, ``serve``,
``ray`` (everything else below serve) and ``generator`` (this process).
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench.machine import cpu_seconds, memory_mib

SCRAPE_TIMEOUT_S = 10.0
COUNTERS = {
    "turns": "stockade_turns_total",
    "items": "stockade_items_total",
    "turn_seconds": "stockade_turn_seconds_total",
    "records": "stockade_journal_records_total",
    "snapshots": "stockade_snapshots_total",
    "overloaded": "stockade_overloaded_total",
    "late": "stockade_late_total",
    "expired": "stockade_expired_total",
    "commits": "stockade_commit_duration_seconds_count",
    "commit_seconds": "stockade_commit_duration_seconds_sum",
}
GAUGES = {
    "journal_bytes": "stockade_journal_bytes",
    "live_reservations": "stockade_live_reservations",
    "recovery_seconds": "stockade_recovery_seconds",
    "recovered_events": "stockade_recovered_events",
}


def parents() -> dict[int, int]:
    """Every process and its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue  # it has gone
    return found


def below(roots: set[int], parent_of: dict[int, int]) -> set[int]:
    """These processes and all that descend from them."""
    found = set(roots)
    grown = True
    while grown:
        more = {pid for pid, parent in parent_of.items() if parent in found and pid not in found}
        found |= more
        grown = bool(more)
    return found


def pids_by_role(ready: dict[str, Any], parent_of: dict[int, int]) -> dict[str, set[int]]:
    """The processes of a node by role, from its ``ready.json``."""
    roles = {
        "gateway": {pid for pid in ready["gateway_pids"] if pid},
        "host": {ready["host_pid"]},
        "directory": {ready["directory_pid"]},
        "node": {ready["node_pid"]},
        "serve": {ready["serve_pid"]},
    }
    named = set().union(*roles.values())
    rays = {ready.get("gcs_pid"), ready.get("raylet_pid")}
    roles["ray"] = below({pid for pid in named | rays if pid}, parent_of) - named
    return {role: {pid for pid in pids if pid} for role, pids in roles.items()}


class Meter:
    """CPU and memory by role since it was made. A process that was started later counts from its start; one that ended, to
    where it was seen last.
    """

    def __init__(self, data_dir: Path | None, others: dict[str, list[int]] | None = None) -> None:
        self._data_dir = data_dir
        self._others = {role: set(pids) for role, pids in (others or {}).items()}
        self._node: dict[str, set[int]] = {}
        self._ready_written = 0
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._role: dict[int, str] = {}
        self.memory_mib_max: dict[str, float] = {}
        self.memory_series: list[dict[str, float]] = []
        self._look(begin=True)

    def sample(self) -> None:
        """Look at every process now."""
        self._look(begin=False)

    def _look(self, *, begin: bool) -> None:
        memory: dict[str, float] = defaultdict(float)
        for role, pids in self._pids().items():
            for pid in pids:
                spent = cpu_seconds(pid)
                if spent == 0.0 and pid in self._last:
                    continue  # it has ended
                self._first.setdefault(pid, spent if begin else 0.0)
                self._last[pid] = spent
                self._role[pid] = role
                memory[role] += memory_mib(pid)
        self.memory_series.append({role: round(mib, 1) for role, mib in memory.items()})
        for role, mib in memory.items():
            self.memory_mib_max[role] = max(self.memory_mib_max.get(role, 0.0), round(mib, 1))

    def _pids(self) -> dict[str, set[int]]:
        """All of /proc is walked only when the node says that its processes changed: the generator shares the processor."""
        if self._data_dir is not None:
            path = self._data_dir / "ready.json"
            try:
                written = path.stat().st_mtime_ns
                if written != self._ready_written:
                    self._node = pids_by_role(json.loads(path.read_text()), parents())
                    self._ready_written = written
            except (OSError, ValueError):
                pass  # being written, or gone: what was known before still counts
        return {**self._others, "generator": {os.getpid()}, **self._node}

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU by role."""
        spent: dict[str, float] = defaultdict(float)
        for pid, role in self._role.items():
            spent[role] += self._last[pid] - self._first[pid]
        return dict(spent)


def node_counters(text: str) -> dict[str, float]:
    """The counters and gauges that a result keeps, from a node's ``/metrics``, summed over its processes."""
    wanted = {metric: name for name, metric in {**COUNTERS, **GAUGES}.items()}
    found: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in wanted:
                found[wanted[sample.name]] += sample.value
    return dict(found)


def scrape_node(data_dir: Path) -> dict[str, float]:
    """What the node counts now; empty when it does not answer."""
    try:
        http = json.loads((data_dir / "ready.json").read_text())["http"]
        url = f"http://{http.removeprefix('http://')}/metrics"
        with urllib.request.urlopen(url, timeout=SCRAPE_TIMEOUT_S) as answer:  # noqa: S310  our own node
            return node_counters(answer.read().decode())
    except (OSError, ValueError, KeyError):
        return {}


def journal_facts(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Commits, their size and duration, and turns between two scrapes; without the counters that were started anew."""
    grown = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in COUNTERS}
    if not after or min(grown.values()) < 0:
        return {}
    turns, commits = grown["turns"], grown["commits"]
    return {
        **{name: round(value, 3) for name, value in grown.items()},
        "items_per_turn": round(grown["items"] / turns, 1) if turns else 0.0,
        "records_per_commit": round(grown["records"] / commits, 1) if commits else 0.0,
        "commit_ms_mean": round(grown["commit_seconds"] / commits * 1000, 3) if commits else 0.0,
        "journal_bytes": after.get("journal_bytes", 0.0),
        "live_reservations": after.get("live_reservations", 0.0),
    }
