"""``kill -9`` of every kind of process under load: nothing acknowledged is lost, nothing is done twice, service
returns.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from actors.runtime.offline import verify_journal
from actors.runtime.processes import find_marked
from actors.runtime.settings import load_settings
from tests.e2e.conftest import StartServe
from tests.e2e.journal_check import check_against_answers, check_snapshots_against_full_replay
from tests.e2e.serving import Serve, pid_of
from tests.e2e.shopping import Answered, Memory, Shop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# Ten kills; each kind comes at least once, and processes also die while the node has been mended before.
VICTIMS = ["host", "gateway", "raylet", "directory", "serve", "gcs", "host", "node", "raylet", "serve"]
FIRST_RESERVE_WITHIN_S = 5.0
SERVE_BACK_WITHIN_S = 20.0
SHOPPERS = 12
SKUS = [f"SKU-{number}" for number in range(40)]
RECEIVED = 100_000  # units of each SKU: no refusals here, they are tested elsewhere
SEED = 20
ASKED_AGAIN = 300
ENVIRONMENT = {
    "STOCKADE_GATEWAYS": "2",
    "STOCKADE_SNAPSHOT_AFTER_EVENTS": "500",
    "STOCKADE_DEDUPE_MEMORY_MS": "500ms",
}


async def test_ten_kills_under_load_lose_nothing_and_repeat_nothing(make_serve: StartServe) -> None:
    print(f"seed {SEED}")
    serve = make_serve(environment=ENVIRONMENT)
    memory = Memory()
    serve.start()
    state = await asyncio.to_thread(serve.wait_serving)
    grpc_port = state["grpc"].rpartition(":")[2]
    serve.keep_port(grpc_port)
    shop = Shop(state["grpc"], memory, SEED, SKUS)
    await shop.receive(RECEIVED)
    stop = asyncio.Event()
    shoppers = [asyncio.create_task(shop.shop_until(stop)) for _ in range(SHOPPERS)]
    for victim in VICTIMS:
        await kill_and_watch(serve, victim, memory)
    assert await asyncio.to_thread(serve.terminate) == 0  # a clean stop under load loses nothing either
    stopped_at = time.monotonic()
    serve.start()
    await first_granted(memory, stopped_at, SERVE_BACK_WITHIN_S)
    stop.set()
    await asyncio.gather(*shoppers)
    await shop.ask_again(ASKED_AGAIN)
    await shop.close()
    assert serve.terminate() == 0
    assert find_marked(str(serve.data_dir)) == []

    events = check_against_answers(serve.data_dir, memory, RECEIVED)
    with_snapshot = check_snapshots_against_full_replay(serve.data_dir, load_settings(environment={}).settings.rules())
    report = verify_journal(serve.data_dir)
    assert report.ok, report.violations[:5]
    assert report.oversells == 0
    print(f"{len(memory.granted)} granted, {memory.retries} retries")
    print(f"{events} events, {with_snapshot} shards with a snapshot")
    assert with_snapshot > 0


async def kill_and_watch(serve: Serve, victim: str, memory: Memory) -> None:
    """Kill one process, time the first reserve that was sent after it, wait until everything serves again."""
    killed_pid = serve.kill(victim)
    killed_at = time.monotonic()
    if victim == "serve":
        serve.start()
    limit_s = SERVE_BACK_WITHIN_S if victim == "serve" else FIRST_RESERVE_WITHIN_S
    answered = await first_granted(memory, killed_at, limit_s)
    state = await asyncio.to_thread(serve.wait_serving, lambda state: is_replaced(state, victim, killed_pid))
    after_s, mended_s = answered.answered_at - killed_at, time.monotonic() - killed_at
    silence_s = memory.longest_silence(killed_at, time.monotonic())
    print(f"{victim} killed: first reserve after {after_s:.2f} s, all processes serve after {mended_s:.2f} s,", end=" ")
    print(f"longest silence {silence_s:.2f} s, generation {state['generation']}")


async def first_granted(memory: Memory, since: float, limit_s: float) -> Answered:
    deadline = since + limit_s
    while time.monotonic() < deadline:
        if (answered := memory.first_granted_after(since)) is not None and answered.answered_at <= deadline:
            return answered
        await asyncio.sleep(0.01)
    raise AssertionError(f"no reserve was acknowledged within {limit_s} s")


def is_replaced(state: dict[str, Any], victim: str, killed_pid: int) -> bool:
    return pid_of(state, victim) != killed_pid
