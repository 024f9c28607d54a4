"""All webhooks of a node in one process: a gateway of its own to read from, a deliverer each, a page of metrics.

The gateway listens on loopback, behind a token that only this process knows: webhooks read by the service's own calls,
whatever TLS and credentials the public port asks for, and what they read slows no caller's gateway. One webhook's
fault stops no other: what ends is begun again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from actors.shard.directory import Directory
from gateway.config import Credential, GatewayConfig
from gateway.http import Answer, HttpServer, text
from gateway.metrics import CONTENT_TYPE
from gateway.server import RunningGateway, start_gateway
from gateway.webhooks.change_feed import ChangeFeed
from gateway.webhooks.clock import Clock, SystemClock
from gateway.webhooks.config import WebhookConfig
from gateway.webhooks.deliverer import Deliverer
from gateway.webhooks.metrics import WebhookMetrics
from gateway.webhooks.sender import Sender
from stockade.client.asynchronous import AsyncClient

BEGIN_AGAIN_MS = 5_000
PRINCIPAL = "webhooks"

log = logging.getLogger(__name__)


class RunningWebhooks:
    """Webhooks that deliver. ``http_port``: of ``/metrics`` and ``/webhooks``, on loopback."""

    def __init__(self, webhooks: Sequence[WebhookConfig], gateway: RunningGateway, client: AsyncClient) -> None:
        self.http_port = 0
        self.deliverers: dict[str, Deliverer] = {}
        self.metrics = WebhookMetrics()
        self._webhooks = webhooks
        self._gateway = gateway
        self._client = client
        self._clock: Clock = SystemClock()
        self._running: list[asyncio.Task[None]] = []
        self._troubles: dict[str, str] = {}
        pages = {
            "/metrics": lambda: Answer(200, CONTENT_TYPE, self.metrics.text()),
            "/webhooks": lambda: Answer(200, "application/json", json.dumps(self.status()).encode()),
            "/livez": lambda: text(200, "alive\n"),
        }
        self._http = HttpServer(pages)

    async def start(self) -> None:
        await self._http.start("127.0.0.1", 0)
        self.http_port = self._http.port
        self._running = [asyncio.create_task(self._keep_running(webhook)) for webhook in self._webhooks]

    def status(self) -> list[dict[str, Any]]:
        """Of each webhook, plain values."""
        found = []
        for webhook in self._webhooks:
            deliverer = self.deliverers.get(webhook.webhook_id)
            trouble = self._troubles.get(webhook.webhook_id, "")
            known = deliverer.status() if deliverer else {"webhook_id": webhook.webhook_id, "state": "not begun"}
            found.append({**known, "trouble": trouble} if trouble else known)
        return found

    async def stop(self, grace_s: float) -> None:
        """Finish requests under way and acknowledge, within the time; what is cut short comes again."""
        draining = [deliverer.drain() for deliverer in self.deliverers.values()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*draining, return_exceptions=True)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._client.close()
        await self._gateway.stop(0)
        await self._http.stop()

    async def _keep_running(self, webhook: WebhookConfig) -> None:
        """Its deliverer, again whenever it ended: by a bug, or because its authority's file cannot be read."""
        webhook_id = webhook.webhook_id
        while True:
            try:
                sender = Sender(webhook, self._gateway.config.version, self._clock.wall_s)
                feed = ChangeFeed(webhook, self._client, self._clock.wall_s)
                self.deliverers[webhook_id] = Deliverer(webhook, feed, sender, self._clock, self.metrics)
                self._troubles.pop(webhook_id, None)
                await self.deliverers[webhook_id].run()
            except Exception as error:
                self._troubles[webhook_id] = f"{type(error).__name__}: {error}"
                log.exception("webhook %s ended; it begins again", webhook_id)
            await self._clock.wait(asyncio.Event(), self._clock.now_ms() + BEGIN_AGAIN_MS)


async def start_webhooks(
    config: GatewayConfig, webhooks: Sequence[WebhookConfig], directory: Directory
) -> RunningWebhooks:
    """Start delivering. ``config``: as the node's gateways have it; its ports, TLS and credentials are not used."""
    token = secrets.token_urlsafe(32)
    private = replace(
        config,
        bind_host="127.0.0.1",
        bind_port=0,
        so_reuseport=False,
        tls=None,
        credentials=(Credential(token, PRINCIPAL, operator=True),),
    )
    gateway = await start_gateway(private, directory)
    client = AsyncClient(f"127.0.0.1:{gateway.port}", token=token)
    running = RunningWebhooks(webhooks, gateway, client)
    try:
        await running.start()
    except BaseException:
        await running.stop(0)
        raise
    return running
