"""Two runs of the same year on real processes: told once and in order, and told as networks do while processes are killed.

What stands in the books at the end must be the same, and be what the oracle says, which knows neither order nor repeats.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.runtime.offline import verify_journal
from stockade import AsyncClient
from stockade.client.results import Failed, Granted, LineWanted, Stock
from tests.e2e.serving import Serve
from tests.simulation.feed_oracle import Expected, Key, Order, expected
from tests.withstand_sync.delivering import Deliverer, Told, message, shuffled
from tests.withstand_sync.plan import SyncPlan

Say = Callable[[str], None]
Books = dict[Key, dict[str, Any]]

LINES_PER_BATCH = 1_000
ENVIRONMENT = {
    "STOCKADE_GATEWAYS": "2",
    "STOCKADE_DEDUPE_MEMORY_MS": "5s",
    "STOCKADE_SNAPSHOT_AFTER_EVENTS": "20000",
    "STOCKADE_WAREHOUSES": "north,south,continent",
}
KILLED = ("host", "gateway", "host", "gateway", "serve", "host")
SETTLED_WITHIN_S = 60.0
SHOWN_MAX = 20
PATIENCE = 5  # times a minute


@dataclass
class Run:
    """One run. ``books``: what each stock key shows at the end."""

    told: Told
    books: Books = field(default_factory=dict)
    seconds: float = 0.0
    kills: int = 0
    problems: list[str] = field(default_factory=list)
    reservations: dict[str, str] = field(default_factory=dict)  # invoice → reservation id


async def clean(data_dir: Path, plan: SyncPlan, say: Say) -> Run:
    """Once and in order."""
    return await _run(data_dir, plan, say, None)


async def disturbed(data_dir: Path, plan: SyncPlan, seed: int, say: Say) -> Run:
    """Three times, in random order, some late, over reconnects, a killed host, gateway and service."""
    return await _run(data_dir, plan, say, random.Random(f"{seed} disturbed"))


async def _run(data_dir: Path, plan: SyncPlan, say: Say, draw: random.Random | None) -> Run:
    serve = Serve(data_dir, ENVIRONMENT)
    serve.start()
    try:
        state = await asyncio.to_thread(serve.wait_serving)
        target = state["grpc"]
        serve.keep_port(target.rpartition(":")[2])
        opening = [message(event) for event in plan.events if event.source_id == "opening"]
        rest = [message(event) for event in plan.events if event.source_id != "opening"]
        first = Deliverer(target)
        await first.batches(opening)
        run = Run(first.told)
        run.reservations = await reserve_all(target, plan)
        say(f"{len(run.reservations)} orders stand; {len(rest)} events to tell")
        started = time.monotonic()
        if draw is None:
            deliverer = Deliverer(target, connections=1)
            await deliverer.batches(rest)
        else:
            deliverer = await _disturb(serve, target, rest, draw, run, say)
        run.seconds = time.monotonic() - started
        run.told = deliverer.told
        await back_again(serve)
        run.problems += await settled(target)
        run.books = await books_of(target)
    finally:
        await asyncio.to_thread(serve.end)
    report = await asyncio.to_thread(verify_journal, data_dir)
    run.problems += [f"the journal: {violation}" for violation in report.violations[:SHOWN_MAX]]
    return run


async def _disturb(
    serve: Serve, target: str, events: list[Any], draw: random.Random, run: Run, say: Say
) -> Deliverer:  # fmt: skip
    copies = shuffled(events, draw)
    batched = [copy for copy in copies if draw.random() < 0.7]
    streamed = shuffled(events, draw, times=1)
    total = len(batched) + len(streamed)
    reached = asyncio.Event()
    marks = [total * (number + 1) // (len(KILLED) + 1) for number in range(len(KILLED))]

    def progress(sent: int) -> None:
        if run.kills < len(marks) and sent >= marks[run.kills]:
            reached.set()

    deliverer = Deliverer(target, progress)

    all_answered = False

    async def kill() -> None:
        for victim in KILLED:
            await reached.wait()
            if all_answered:
                return
            reached.clear()
            run.kills += 1
            say(f"{deliverer.told.sent} of {total} copies answered; kill -9 {victim}")
            await asyncio.to_thread(serve.kill, victim)
            if victim == "serve":
                serve.start()
            await back_again(serve)
            progress(deliverer.told.sent)

    async def deliver() -> None:
        await asyncio.gather(deliverer.batches(batched), deliverer.streams(streamed))
        await deliverer.batches([event for event in events if event.event_id not in deliverer.told.answered])

    async with (
        asyncio.TaskGroup() as group
    ):  # when the service does not come back, nothing is delivered to it for minutes
        group.create_task(kill())
        await group.create_task(deliver())
        all_answered = True  # a kill that has begun is finished: what was ended is started again
        reached.set()
    return deliverer


async def back_again(serve: Serve) -> None:
    """Wait until everything serves: a year's journal is read for minutes where other things run, too."""
    for patience in range(PATIENCE, 0, -1):
        try:
            await asyncio.to_thread(serve.wait_serving)
            return
        except AssertionError:
            if serve.ended or patience == 1:
                raise


async def reserve_all(target: str, plan: SyncPlan) -> dict[str, str]:
    """Every order, confirmed, before its first event. AssertionError for one that is refused."""
    found: dict[str, str] = {}
    async with AsyncClient(target) as client:
        batch: list[Any] = []
        names: list[str] = []
        lines = 0
        for order in plan.orders:
            wanted = [LineWanted(key[0], key[1], units, line_id) for line_id, key, units in order.lines]
            batch.append(
                client.reserve_message(wanted, channel_id=order.channel, order_reference=order.invoice, confirm=True)
            )
            names.append(order.invoice)
            lines += len(wanted)
            if lines >= LINES_PER_BATCH or order is plan.orders[-1]:
                for name, answer in zip(names, await _granted(client, batch), strict=True):
                    assert isinstance(answer, Granted), f"order {name}: {answer}"
                    found[name] = answer.reservation_id
                batch, names, lines = [], [], 0
    return found


async def _granted(client: AsyncClient, batch: list[Any]) -> list[Any]:
    """The answers of a batch; what failed is asked again with its own id."""
    answers: list[Any] = list(await client.batch_reserve(batch, timeout_s=60.0))
    while again := [place for place, answer in enumerate(answers) if isinstance(answer, Failed) and answer.retryable]:
        await asyncio.sleep(0.05)
        for place, answer in zip(again, await client.batch_reserve([batch[at] for at in again]), strict=True):
            answers[place] = answer
    return answers


async def settled(target: str) -> list[str]:
    """Nothing waits, nothing is missing, and what was received is what was applied, told again, waits or was rejected."""
    async with AsyncClient(target) as client:
        give_up_s = time.monotonic() + SETTLED_WITHIN_S
        while True:
            feeds, _ = await client.feed_status(page_size=1000)
            waiting = [feed for feed in feeds if feed.waiting_count or feed.missing]
            if not waiting or time.monotonic() > give_up_s:
                break
            await asyncio.sleep(0.1)
    problems = [f"{one.source_id}/{one.stream_id} waits, or misses {one.missing[:3]}" for one in waiting]
    for feed in feeds:
        for part in feed.warehouses:
            counts = (part.applied_count, part.duplicate_count, part.waiting_count, part.rejected_count)
            if part.received_count != sum(counts):
                problems.append(
                    f"{feed.source_id}/{feed.stream_id} {part.warehouse_id}: {part.received_count} ≠ {counts}"
                )
    return problems


async def books_of(target: str) -> Books:
    """Every stock key."""
    found: Books = {}
    token = ""
    async with AsyncClient(target) as client:
        while True:
            page, token = await client.list_stock(page_size=1000, page_token=token)
            found |= {(one.stock_key.warehouse_id, one.stock_key.sku): shown(one) for one in page}
            if not token:
                return found


def shown(stock: Stock) -> dict[str, Any]:
    """What is compared of a stock key."""
    return {
        "on hand": {name: units for name, units in stock.on_hand.items() if units},
        "picked": stock.picked_quantity,
        "picked adrift": stock.picked_adrift_quantity,
        "confirmed": stock.confirmed_quantity,
        "shortage": stock.shortage_quantity,
    }


# --- judgement ------------------------------------------------------------------------------------------------------------


def oracle_of(plan: SyncPlan) -> Expected:
    """What the set of events makes."""
    orders = []
    for order in plan.orders:
        units: dict[Key, int] = {}
        for _, (sku, warehouse), quantity in order.lines:
            units[(warehouse, sku)] = units.get((warehouse, sku), 0) + quantity
        orders += [
            Order(f"{order.channel} {order.invoice}", key, quantity, order.channel, order.invoice)
            for key, quantity in units.items()
        ]
    return expected(plan.events, orders)


def differences(name: str, books: Books, should_be: Expected) -> list[str]:
    """Where a run's books are not the oracle's."""
    found = []
    units: dict[Key, dict[str, int]] = {}
    for (key, disposition), quantity in should_be.on_hand.items():
        units.setdefault(key, {})[disposition] = quantity
    for key in sorted({*books, *units}):
        is_there = books.get(key, {"on hand": {}, "picked": 0, "picked adrift": 0})
        wanted = {
            "on hand": units.get(key, {}),
            "picked": should_be.picked.get(key, 0),
            "picked adrift": should_be.picked_adrift.get(key, 0),
        }
        for what, must in wanted.items():
            if is_there[what] != must:
                found.append(f"{name}: {what} of {key} is {is_there[what]}, the oracle says {must}")
    return found


def judge(plan: SyncPlan, undisturbed: Run, run: Run) -> list[str]:
    """Everything that is wrong."""
    problems = [f"clean: {one}" for one in undisturbed.problems] + [f"disturbed: {one}" for one in run.problems]
    for name, one in (("clean", undisturbed), ("disturbed", run)):
        problems += [
            f"{name}: {event_id} was rejected: {why}" for event_id, why in list(one.told.rejected.items())[:SHOWN_MAX]
        ]
    for key in sorted({*undisturbed.books, *run.books}):
        if undisturbed.books.get(key) != run.books.get(key):
            problems.append(f"{key}: clean {undisturbed.books.get(key)}, disturbed {run.books.get(key)}")
    should_be = oracle_of(plan)
    problems += differences("clean", undisturbed.books, should_be)
    return problems + differences("disturbed", run.books, should_be)
