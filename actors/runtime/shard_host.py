"""The shard host actor: Ray's grip on the process in which ``actors.shard.host`` runs the shards."""

from __future__ import annotations

import os
from typing import Any

from actors.runtime.actor_process import run_in_thread
from actors.runtime.plan import HOST, NodePlan

__all__ = ["ShardHostActor"]


class ShardHostActor:
    """Detached, named, restarted for ever. Does nothing in Ray's thread but answer ``ping``."""

    def __init__(self, plan: NodePlan, directory: Any) -> None:
        run_in_thread(plan, HOST, plan.entry_points.host, directory)

    def ping(self) -> int:
        """The pid, for whoever asks Ray whether the actor is there."""
        return os.getpid()
