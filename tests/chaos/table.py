"""A chaos run as a table for people and as plain data for machines. Measures and judges nothing."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tests.chaos.faults import Measured
from tests.chaos.schedule import DELAY, LINK

COLUMNS = ("first_reserve_s", "silence_s", "serving_s", "healed_s")
HEADINGS = ("first reserve", "silence", "serving", "healed")


def lasts(measured: Measured) -> str:
    """How long the fault lasted, and how hard it was."""
    fault = measured.fault
    seconds = f"{fault.seconds:.1f} s" if fault.seconds else ""
    return f"{seconds} by {fault.delay_ms} ms" if fault.kind == LINK and fault.how == DELAY else seconds


def row(number: int, measured: Measured) -> str:
    """One fault, one line."""
    times = " ".join(f"{getattr(measured, column):>12.2f}s" for column in COLUMNS)
    return f"{number:>4} {measured.at_s:>7.1f}s  {measured.fault.name:<28} {lasts(measured):<18} {times}"


HEADING = f"{'':>4} {'at':>8}  {'fault':<28} {'lasting':<18} " + " ".join(f"{name:>13}" for name in HEADINGS)


def by_kind(all_measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Median and maximum of every figure, by sort of fault."""
    sorts: dict[str, list[Measured]] = defaultdict(list)
    for measured in all_measured:
        sorts[measured.fault.name].append(measured)
    rows: list[dict[str, Any]] = []
    for name, those in sorted(sorts.items()):
        line: dict[str, Any] = {"fault": name, "count": len(those)}
        for column in COLUMNS:
            values = [getattr(measured, column) for measured in those]
            line[column] = {"p50": round(statistics.median(values), 3), "max": round(max(values), 3)}
        rows.append(line)
    return rows


def kinds_table(all_measured: Sequence[Measured]) -> list[str]:
    """``by_kind`` for people: median / maximum, in seconds."""
    lines = [f"{'fault':<28} {'count':>5} " + " ".join(f"{name:>16}" for name in HEADINGS) + "   (p50 / max, s)"]
    for line in by_kind(all_measured):
        cells = " ".join(f"{line[column]['p50']:>7.2f} / {line[column]['max']:>6.2f}" for column in COLUMNS)
        lines.append(f"{line['fault']:<28} {line['count']:>5} {cells}")
    return lines


def plain(measured: Measured) -> dict[str, Any]:
    """One fault as JSON data."""
    fault = measured.fault
    return {
        "fault": fault.name,
        "kind": fault.kind,
        "targets": list(fault.targets),
        "lasting_s": fault.seconds,
        "delay_ms": fault.delay_ms,
        "at_s": round(measured.at_s, 2),
        "generation": measured.generation,
        **{column: round(getattr(measured, column), 3) for column in COLUMNS},
    }
