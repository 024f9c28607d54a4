"""The gateway actor: Ray's grip on a process that runs one gateway, found by its entry point (the runtime imports none)."""

from __future__ import annotations

import os
from typing import Any

from actors.runtime.actor_process import run_in_thread
from actors.runtime.plan import NodePlan

__all__ = ["GatewayActor"]


class GatewayActor:
    """Detached, named, restarted for ever. Does nothing in Ray's thread but answer ``ping``."""

    def __init__(self, plan: NodePlan, role: str, directory: Any) -> None:
        run_in_thread(plan, role, plan.entry_points.gateway, directory)

    def ping(self) -> int:
        """The pid, for whoever asks Ray whether the actor is there."""
        return os.getpid()
