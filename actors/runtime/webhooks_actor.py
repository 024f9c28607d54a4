"""The webhooks actor: Ray's grip on the process that delivers changes to webhooks. There is one, and only when the
settings have webhooks; it holds no truth, so its death costs a pause.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from actors.runtime import wiring
from actors.runtime.actor_process import Start, run_in_thread
from actors.runtime.directory_client import RemoteDirectory
from actors.runtime.directory_server import DirectoryLink
from actors.runtime.gateway_actor import directory_of
from actors.runtime.plan import WEBHOOKS, NodePlan

__all__ = ["WebhooksActor", "start_service"]


class WebhooksActor:
    """Detached, named, restarted for ever. Does nothing in Ray's thread but answer ``ping``."""

    def __init__(self, plan: NodePlan, directory: Any) -> None:
        run_in_thread(plan, WEBHOOKS, plan.entry_points.webhooks, directory)

    def ping(self) -> int:
        """The pid, for whoever asks Ray whether the actor is there."""
        return os.getpid()


class WebhooksService:
    """Running webhooks and their own way to the directory."""

    def __init__(self, webhooks: Any, directory: RemoteDirectory | DirectoryLink) -> None:
        self._webhooks = webhooks
        self._directory = directory

    def facts(self) -> Mapping[str, Any]:
        return {"metrics": f"127.0.0.1:{self._webhooks.http_port}"}

    async def wait_failed(self) -> BaseException:
        """Never: what ends within is begun again there."""
        return await asyncio.Future()

    async def close(self, drain_ms: int) -> None:
        await self._webhooks.stop(drain_ms / 1000)
        self._directory.close()


async def start_service(start: Start) -> WebhooksService:
    """Begin delivering what the consumers of this name had not acknowledged."""
    plan = start.plan
    config = wiring.gateway_config(plan.settings, plan.cluster_token, name=WEBHOOKS, grpc_port=0)
    directory = directory_of(start)
    webhooks = await wiring.start_webhooks(config, wiring.webhook_configs(plan.settings), directory)
    return WebhooksService(webhooks, directory)
