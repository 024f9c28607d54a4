"""How a node looks from outside: ``ready.json``, ``/readyz``, ``/livez`` and the merged ``/metrics``. Only reads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.runtime.operations import METRICS_CONTENT_TYPE, Answer, merge_metrics, scrape, text_answer
from actors.runtime.plan import DIRECTORY, GATEWAY, HOST, NODE, is_host
from actors.runtime.processes import ProcessId
from actors.runtime.supervision_link import MemberLink, MemberState

__all__ = ["NodeView", "metrics_page", "ready_page", "ready_state"]


@dataclass(slots=True)
class NodeView:
    """What the supervisor knows and may show. ``phase``: starting, serving, mending, stopping."""

    serve: ProcessId
    grpc: str = ""
    http: str = ""
    phase: str = "starting"
    generation: int = 0
    ray: Mapping[str, int] = field(default_factory=dict)
    members: Sequence[MemberLink] = ()
    restarts: dict[str, int] = field(default_factory=dict)


def ready_state(view: NodeView) -> dict[str, Any]:
    """The content of ``ready.json``: pids, ports and states for ``stockade status``, scripts and tests."""
    current = {m.role: m for m in sorted(view.members, key=lambda m: (m.activated, m.generation))}
    pids = {role: member.pid for role, member in current.items()}
    return {
        "state": view.phase,
        "serve_pid": view.serve.pid,
        "serve_start_time": view.serve.start_time,
        "generation": view.generation,
        "grpc": view.grpc,
        "http": view.http,
        "node_pid": pids.get(NODE),
        "gcs_pid": view.ray.get("gcs"),
        "raylet_pid": view.ray.get("raylet"),
        "directory_pid": pids.get(DIRECTORY),
        "host_pid": next((pids[role] for role in sorted(pids) if is_host(role)), None),
        "host_pids": [pids[role] for role in sorted(pids) if is_host(role)],
        "gateway_pids": [pids[role] for role in sorted(pids) if role.startswith(GATEWAY)],
        "restarts": dict(view.restarts),
        "processes": {
            role: {
                "pid": member.pid,
                "state": member.state.value,
                "generation": member.generation,
                **{name: fact for name, fact in member.facts.items() if name != "route"},
            }
            for role, member in sorted(current.items())
        },
    }


def ready_page(view: NodeView) -> Answer:
    """200 while a host and a gateway serve, whatever else is being mended; 503 otherwise, saying what lacks."""
    serving = {member.role for member in view.members if member.state is MemberState.SERVING}
    lacking = [part for part in (HOST, GATEWAY) if not any(role.startswith(part) for role in serving)]
    if view.phase == "stopping" or lacking:
        return text_answer(503, f"{view.phase}: no {' and no '.join(lacking) or 'new calls'}\n")
    return text_answer(200, "ready\n")


async def metrics_page(view: NodeView) -> Answer:
    """The metrics of every process that serves, under the label ``process``."""
    endpoints = {
        member.role: str(member.facts["metrics"])
        for member in view.members
        if member.state is MemberState.SERVING and "metrics" in member.facts
    }
    texts = await asyncio.gather(*(scrape(endpoint) for endpoint in endpoints.values()))
    by_process = {"serve": own_metrics(view), **dict(zip(endpoints, texts, strict=True))}
    return Answer(200, METRICS_CONTENT_TYPE, merge_metrics(by_process).encode())


def own_metrics(view: NodeView) -> str:
    lines = [
        "# HELP stockade_node_serving Whether every process of the node serves",
        "# TYPE stockade_node_serving gauge",
        f"stockade_node_serving {int(view.phase == 'serving')}",
        "# HELP stockade_node_generation How many Rays this serve has started",
        "# TYPE stockade_node_generation gauge",
        f"stockade_node_generation {view.generation}",
        "# HELP stockade_process_restarts_total Processes of the node that ended and were started again, by role",
        "# TYPE stockade_process_restarts_total counter",
        *(f'stockade_process_restarts_total{{role="{role}"}} {count}' for role, count in view.restarts.items()),
    ]
    return "\n".join(lines) + "\n"
