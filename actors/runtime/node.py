"""The node process: Ray's driver. ``python -m actors.runtime.node``, started by the supervisor with a plan on standard
input.

Starts a local Ray and the node's actors, tells the supervisor their Ray's pids, then waits. It decides nothing: which
of the actors is active is the supervisor's word, restarting dead ones is Ray's work. When it ends, Ray's processes
end with it (the kernel sees to that), and so do the actors unless the supervisor still needs them (see
``processes``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sys
import threading
from typing import Any

import uvloop

from actors.runtime.actor_process import EXIT_ORPHANED, EXIT_SERVICE_FAILED
from actors.runtime.local_ray import start_ray
from actors.runtime.plan import DIRECTORY, GATEWAY, HOST, NODE, WEBHOOKS, NodePlan
from actors.runtime.supervision_link import BEAT_INTERVAL_S, MemberState, ProcessLink

__all__ = ["main"]

# At-most-once with unknown outcome is no promise worth having: retries belong to whoever asked. Restarts are for ever.
ACTOR_OPTIONS: dict[str, Any] = {
    "lifetime": "detached",
    "max_restarts": -1,
    "max_task_retries": 0,
    "num_cpus": 0,
}
DIRECTORY_CONCURRENCY_MAX = 1_000  # long polls: gateways and hosts of one cluster


def main() -> None:
    """Read the plan, start Ray in this (the main) thread, keep the link in another until told to stop."""
    logging.basicConfig(level=logging.INFO)
    plan: NodePlan = pickle.load(sys.stdin.buffer)
    started: asyncio.Queue[tuple[MemberState, dict[str, Any]]] = asyncio.Queue(maxsize=2)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=keep_link, args=(loop, plan, started), name="stockade-link", daemon=True)
    thread.start()
    try:
        processes = start_ray(plan)
        loop.call_soon_threadsafe(started.put_nowait, (MemberState.STARTING, {"ray": processes}))
        start_actors(plan)
        loop.call_soon_threadsafe(started.put_nowait, (MemberState.SERVING, {"ray": processes}))
    except BaseException as error:
        logging.exception("Ray did not start")
        loop.call_soon_threadsafe(started.put_nowait, (MemberState.FAILED, {"error": f"Ray did not start: {error}"}))
    thread.join()


def start_actors(plan: NodePlan) -> None:
    """Create the node's detached, named actors. Returns at once; they report by their own links."""
    import ray

    from actors.runtime.directory import DirectoryActor
    from actors.runtime.gateway_actor import GatewayActor
    from actors.runtime.shard_host import ShardHostActor
    from actors.runtime.webhooks_actor import WebhooksActor

    def create(kind: type, name: str, *arguments: Any, **options: Any) -> Any:
        return ray.remote(kind).options(name=name, **ACTOR_OPTIONS, **options).remote(plan, *arguments)

    directory = create(DirectoryActor, DIRECTORY, max_concurrency=DIRECTORY_CONCURRENCY_MAX)
    create(ShardHostActor, HOST, directory)
    for number in range(plan.settings.gateways):
        create(GatewayActor, f"{GATEWAY}-{number}", f"{GATEWAY}-{number}", directory)
    if plan.settings.webhooks:
        create(WebhooksActor, WEBHOOKS, directory)


def keep_link(
    loop: asyncio.AbstractEventLoop, plan: NodePlan, started: asyncio.Queue[tuple[MemberState, dict[str, Any]]]
) -> None:
    """Report to the supervisor until it says stop or is gone; then end this process, and Ray's with it."""
    code = EXIT_SERVICE_FAILED
    try:
        code = loop.run_until_complete(live(plan, started))
    finally:
        os._exit(code)  # ray.shutdown() would wait for a raylet that may be dead


async def live(plan: NodePlan, started: asyncio.Queue[tuple[MemberState, dict[str, Any]]]) -> int:
    try:
        link = await ProcessLink.connect(plan.link_port, plan.link_token, NODE, plan.generation)
    except OSError:
        return EXIT_ORPHANED
    tasks = [asyncio.create_task(work) for work in (obey(link), report_progress(link, started), beat(link))]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done.pop().result()


async def obey(link: ProcessLink) -> int:
    async for command in link.commands():
        if command["do"] == "stop":
            return 0
    return EXIT_ORPHANED


async def report_progress(link: ProcessLink, started: asyncio.Queue[tuple[MemberState, dict[str, Any]]]) -> int:
    while True:
        state, facts = await started.get()
        link.report(state, **facts)
        if state is MemberState.FAILED:
            await link.flush()
            await asyncio.sleep(0.05)
            return EXIT_SERVICE_FAILED


async def beat(link: ProcessLink) -> int:
    number = 0
    while True:
        number += 1
        link.beat(number)
        await asyncio.sleep(BEAT_INTERVAL_S)


if __name__ == "__main__":
    main()
