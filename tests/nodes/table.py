"""A run over several nodes as a table for people and as plain data for machines. Measures and judges nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.nodes.faults import Measured

HEADING = f"{'fault':<32} {'time to serve again':>20} {'goal':>8}  {'lasted':>8} {'healed':>8}   what"


def row(one: Measured) -> str:
    """One fault, one line."""
    goal = f"≤ {one.goal_s:g} s" if one.goal_s else "-"
    mark = "" if one.within_goal else "  OVER"
    what = ", ".join(f"{name} {value}" for name, value in one.notes.items() if value not in ("", [], None))
    return f"{one.fault:<32} {one.silence_s:>18.2f} s {goal:>8}  {one.lasted_s:>6.1f} s {one.healed_s:>6.1f} s   {what}{mark}"


def outcome(figures: Mapping[str, Any]) -> str:
    """What the judges found, over all faults of a run."""
    names = ("oversells", "lost", "twice", "orders_half_done")
    return ", ".join(f"{name.replace('_', ' ')} {figures.get(name, '?')}" for name in names)


def plain(all_measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """As JSON data."""
    return [
        {
            "fault": one.fault,
            "serve_again_s": round(one.silence_s, 3),
            "worst_warehouse": one.worst,
            "goal_s": one.goal_s or None,
            "within_goal": one.within_goal,
            "lasted_s": round(one.lasted_s, 3),
            "healed_s": round(one.healed_s, 3),
            **one.notes,
        }
        for one in all_measured
    ]
