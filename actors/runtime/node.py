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
from actors.runtime.directory_server import DirectoryLink, DirectoryUnreachable
from actors.runtime.local_ray import start_ray
from actors.runtime.plan import DIRECTORY, GATEWAY, NODE, WEBHOOKS, NodePlan, shape_of
from actors.runtime.supervision_link import BEAT_INTERVAL_S, MemberState, ProcessLink

__all__ = ["main"]

# At-most-once with unknown outcome is no promise worth having: retries belong to whoever asked. Restarts are for ever.
ACTOR_OPTIONS: dict[str, Any] = {
    "lifetime": "detached",
    "max_restarts": -1,
    "max_task_retries": 0,
    "num_cpus": 0,
}
HEAD_LOOK_INTERVAL_S = 0.2
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
        processes = start_ray(plan, asyncio.run(find_head_ray(plan)))
        loop.call_soon_threadsafe(started.put_nowait, (MemberState.STARTING, {"ray": processes}))
        start_actors(plan)
        loop.call_soon_threadsafe(started.put_nowait, (MemberState.SERVING, {"ray": processes}))
    except BaseException as error:
        logging.exception("Ray did not start")
        loop.call_soon_threadsafe(started.put_nowait, (MemberState.FAILED, {"error": f"Ray did not start: {error}"}))
    thread.join()


async def find_head_ray(plan: NodePlan) -> str:
    """Where the head's Ray is, as its directory says, however long that takes; "" for a node that joins none."""
    if plan.cluster is None or plan.is_head or plan.settings.cluster.ray_address:
        return ""
    link = DirectoryLink(plan.cluster.directory, plan.cluster_token, f"node {plan.cluster.node_id}")
    complained = False
    while True:
        try:
            return str((await link.facts())["ray"])
        except DirectoryUnreachable as error:
            if not complained:
                logging.warning("waiting for the head: %s", error)
            complained = True
            await asyncio.sleep(HEAD_LOOK_INTERVAL_S)


def start_actors(plan: NodePlan) -> None:
    """Create the node's detached, named actors, on this node. Returns at once; they report by their own links."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from actors.runtime.directory import DirectoryActor
    from actors.runtime.gateway_actor import GatewayActor
    from actors.runtime.shard_host import ShardHostActor
    from actors.runtime.webhooks_actor import WebhooksActor

    here = ray.get_runtime_context().get_node_id()
    pinned = {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)} if plan.cluster else {}

    def create(kind: type, role: str, *arguments: Any, **options: Any) -> Any:
        """One name of several nodes and generations must not meet itself in their common Ray."""
        name = f"{role}.{plan.cluster.node_id}.{plan.serve_pid}.{plan.generation}" if plan.cluster else role
        return ray.remote(kind).options(name=name, **ACTOR_OPTIONS, **pinned, **options).remote(plan, *arguments)

    shape = shape_of(plan.settings)
    directory = None
    if shape.directory:
        directory = create(DirectoryActor, DIRECTORY, max_concurrency=DIRECTORY_CONCURRENCY_MAX)
    for role in shape.hosts:
        create(ShardHostActor, role, role, directory)
    for number in range(plan.settings.gateways):
        create(GatewayActor, f"{GATEWAY}-{number}", f"{GATEWAY}-{number}", directory)
    if plan.settings.webhooks and plan.is_head:
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
