"""``stockade webhooks``: how the webhooks of this machine's serve stand, and a ping to one of them."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import time
import urllib.request
import uuid
from typing import Annotated, Any

import typer

from gateway.cli.endings import Exit, fail, print_json
from gateway.cli.options import Config, DataDir, Json
from gateway.cli.server_commands import load
from gateway.cli.showing import table

ANSWER_WITHIN_S = 5.0


def status(config: Config = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """How each webhook stands: what waits, what failed last. Asks the serve of this data directory."""
    from actors.runtime import wiring

    settings = load(config, data_dir=data_dir).settings
    state = wiring.read_status(settings.data_dir)
    if state is None:
        fail(f"nobody serves {settings.data_dir}", Exit.UNAVAILABLE)
    process = state["processes"].get("webhooks")
    if process is None:
        fail("the running serve has no webhooks; they are set as [webhooks.ID] in the settings", Exit.NOT_FOUND)
    found = _ask(process)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["webhook_id"],
            one["state"],
            one.get("unsettled_changes", ""),
            f"{one.get('oldest_unsettled_ms', 0) / 1000:.0f} s",
            f"{one.get('accepted_changes', 0):,}",
            one.get("given_up_changes", ""),
            one.get("trouble") or one.get("source_error") or one.get("last_error", ""),
        )
        for one in found
    ]
    table("", ("webhook", "state", "waiting", "oldest", "accepted", "given up", "last error"), rows)


def _ask(process: dict[str, Any]) -> list[dict[str, Any]]:
    """What the process that delivers says."""
    if "metrics" not in process:
        fail(f"the process that delivers is {process['state']}: try again", Exit.UNAVAILABLE)
    try:
        with urllib.request.urlopen(f"http://{process['metrics']}/webhooks", timeout=ANSWER_WITHIN_S) as answer:
            found: list[dict[str, Any]] = json.load(answer)
    except (OSError, ValueError) as error:
        fail(f"the process that delivers does not answer: {error}", Exit.UNAVAILABLE)
    return found


def ping(
    webhook_id: Annotated[str, typer.Argument(metavar="WEBHOOK", help="its id in the settings")],
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Send one signed ping from here, with the settings as they are, and say what came back. Nothing needs to be running."""
    from actors.runtime import wiring

    settings = load(config, data_dir=data_dir).settings
    try:
        known = {webhook.webhook_id: webhook for webhook in wiring.webhook_configs(settings)}
    except (ValueError, OSError) as error:
        fail(str(error), Exit.USAGE)
    if webhook_id not in known:
        fail(f"no webhook {webhook_id!r} in the settings; there are: {', '.join(known) or 'none'}", Exit.NOT_FOUND)
    try:
        verdict, seconds = asyncio.run(_ping(known[webhook_id]))
    except (OSError, ValueError) as error:
        fail(f"webhooks.{webhook_id}: {error}", Exit.USAGE)
    accepted = verdict.outcome.value == "accepted"
    if as_json:
        print_json(
            {
                "webhook_id": webhook_id,
                "outcome": verdict.outcome.value,
                "status": verdict.status,
                "reason": verdict.reason,
                "seconds": round(seconds, 3),
            }
        )
    elif accepted:
        typer.echo(f"{webhook_id}: accepted with {verdict.status} after {seconds * 1000:.0f} ms")
    if not accepted:
        fail(f"{webhook_id}: {verdict.outcome.value}: {verdict.reason}", Exit.REFUSED)


async def _ping(webhook: Any) -> tuple[Any, float]:
    """The verdict of one request with a ping in it, and how long it took."""
    from gateway.webhooks.cloud_events import ping_event
    from gateway.webhooks.sender import Sender

    sender = Sender(webhook, importlib.metadata.version("stockade-server"), time.time)
    began_s = time.perf_counter()
    try:
        ping = ping_event(uuid.uuid4().hex, time.time())
        verdict = await sender.post(uuid.uuid4().hex, 1, b"[" + ping.event + b"]")
        return verdict, time.perf_counter() - began_s
    finally:
        await sender.close()
