"""What callers wish: every verb of the contract, at random from a seed, on few stock keys so that they meet.

Wishes are drawn; what became of earlier ones (a reservation to extend, to amend, to ship) is taken from what was answered.
Nothing here judges an answer; ``asking`` remembers all of them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from stockade import LineWanted, Reservation, StockadeError
from stockade.client.calls import Calls
from stockade.v1 import reservation_service_pb2
from tests.chaos.asking import Connection, GivenUp, Memory

WAREHOUSES = ("main", "overflow")
SKUS = tuple(f"S{number:02}" for number in range(12))
KEYS = tuple((sku, warehouse) for sku in SKUS for warehouse in WAREHOUSES)
CHANNELS = ("web", "b2b", "marketplace", "call-center")
IMPOSING_CHANNEL = "edi"

OPEN_REMEMBERED_MAX = 300  # reservations that shoppers and warehouses pick from
REQUESTS_REMEMBERED_MAX = 3_000  # reserves that are asked again, long after
CONFIRMED_REMEMBERED_MAX = 200
MORE = "more"  # the line id that an amend adds

ALL_OR_NOTHING = reservation_service_pb2.FILL_POLICY_ALL_OR_NOTHING

Wish = Callable[["Shopper"], Awaitable[None]]


class Market:
    """What is sold, and what callers know of each other's reservations.

    ``one_warehouse``: an order's lines lie in one.
    """

    def __init__(self, warehouses: Sequence[str] = WAREHOUSES, *, one_warehouse: bool = False) -> None:
        self.warehouses = tuple(warehouses)
        self.keys = tuple((sku, warehouse) for sku in SKUS for warehouse in self.warehouses)
        self.one_warehouse = one_warehouse
        self.open: deque[Reservation] = deque(maxlen=OPEN_REMEMBERED_MAX)
        self.confirmed: deque[Reservation] = deque(maxlen=CONFIRMED_REMEMBERED_MAX)
        self.reserves: deque[Any] = deque(maxlen=REQUESTS_REMEMBERED_MAX)  # messages that were answered

    def keys_beside(self, warehouse: str) -> Sequence[tuple[str, str]]:
        """What may be in an order that has something from this warehouse."""
        return [key for key in self.keys if key[1] == warehouse] if self.one_warehouse else self.keys

    def note(self, answer: Any) -> None:
        """Remember a reservation by its state."""
        if isinstance(answer, Reservation) and answer.state == "HELD":
            self.open.append(answer)
        elif isinstance(answer, Reservation) and answer.state == "CONFIRMED":
            self.confirmed.append(answer)


class Shopper:
    """One caller: one thing after the other, with a little thought in between."""

    def __init__(self, name: str, connection: Connection, memory: Memory, market: Market, seed: int) -> None:
        self.name = name
        self.draw = random.Random(f"{seed} {name}")
        self.market = market
        self.memory = memory
        self.connection = connection
        self.calls: Calls = connection.client.calls
        self._number = 0

    async def shop(self, stop: asyncio.Event, pause_s: float) -> None:
        """Wish after wish until ``stop``."""
        wishes, weights = zip(*WISHES.items(), strict=True)
        while not stop.is_set():
            with suppress(StockadeError, GivenUp):  # remembered
                await self.draw.choices(wishes, weights)[0](self)
            await asyncio.sleep(self.draw.uniform(0.0, 2.0 * pause_s))

    async def pulse(self, stop: asyncio.Event, pause_s: float) -> None:
        """One small reserve after the other, left to expire: by these the silences are measured."""
        while not stop.is_set():
            with suppress(GivenUp, StockadeError):
                key = self.draw.choice(self.market.keys)
                call = self.calls.reserve([(*key, 1)], request_id=self.id(), ttl_s=2.0, channel_id="web")
                await self.ask(call)
            await asyncio.sleep(pause_s)

    async def ask(self, call: Any) -> Any:
        """Ask and remember."""
        answer = await self.memory.ask(self.name, self.connection, call)
        self.market.note(answer)
        return answer

    def id(self) -> str:
        """A request id of this caller's."""
        self._number += 1
        return f"{self.name}-{self._number}"

    def order(self, warehouse: str = "", **given: Any) -> Any:
        """A reserve, as a message with its own id. ``warehouse``: where it begins, when that matters."""
        draw = self.draw
        imposed = draw.random() < 0.04
        options: dict[str, Any] = {
            "channel_id": IMPOSING_CHANNEL if imposed else draw.choice(CHANNELS),
            "admission": "ALWAYS" if imposed else "",
            "ttl_s": draw.choice((1.0, 1.5, 3.0, 10.0, 60.0, None)),
            "confirm": draw.random() < 0.1,
            "fill_policy": draw.choice(("", "", "ALL_OR_NOTHING", "WHOLE_LINES", "PARTIAL_QUANTITIES")),
            "order_reference": f"order-{draw.randrange(10_000)}" if draw.random() < 0.3 else "",
            "request_id": self.id(),
            **given,
        }
        count = draw.choice((1, 1, 1, 2, 3, 6))
        keys = self.market.keys_beside(warehouse or draw.choice(self.market.warehouses))
        lines = [LineWanted(*draw.choice(keys), draw.choice((1, 1, 2, 3, 9)), f"l{n}") for n in range(count)]
        return self.calls.reserve_message(lines, **options)

    def reserve_call(self, message: Any) -> Any:
        """``message`` as a single reserve."""
        call = self.calls.reserve([(*self.market.keys[0], 1)])
        return type(call)(call.method, message, call.response_type, call.read)

    def some_open(self) -> Reservation | None:
        """A reservation that was held when somebody last looked."""
        return self.draw.choice(self.market.open) if self.market.open else None


async def reserve(shopper: Shopper) -> None:
    message = shopper.order()
    await shopper.ask(shopper.reserve_call(message))
    shopper.market.reserves.append(message)


async def batch_reserve(shopper: Shopper) -> None:
    """A lean yes of a batch names one position: a line that got nothing has no place in the journal nor in the answer, so
    orders of several lines are all or nothing here."""
    messages = [shopper.order() for _ in range(shopper.draw.randint(2, 12))]
    for message in messages:
        if len(message.lines) > 1:
            message.fill_policy = ALL_OR_NOTHING
    await shopper.ask(shopper.calls.batch_reserve(messages))
    shopper.market.reserves.extend(messages[:2])


async def replace(shopper: Shopper) -> None:
    held = shopper.some_open()
    if held is not None:
        message = shopper.order(
            warehouse_of(held), replaces_reservation_id=held.reservation_id, channel_id=held.channel_id, admission=""
        )
        await shopper.ask(shopper.reserve_call(message))


async def confirm(shopper: Shopper) -> None:
    held = shopper.some_open()
    if held is not None:
        version = held.version if shopper.draw.random() < 0.3 else 0
        call = shopper.calls.confirm(held.reservation_id, expected_version=version, request_id=shopper.id())
        await shopper.ask(call)


async def extend(shopper: Shopper) -> None:
    held = shopper.some_open()
    if held is not None:
        await shopper.ask(
            shopper.calls.extend(held.reservation_id, shopper.draw.uniform(1, 20), request_id=shopper.id())
        )


async def amend(shopper: Shopper) -> None:
    held = shopper.some_open()
    if held is None or not held.lines:
        return
    line = shopper.draw.choice(held.lines)
    wanted = LineWanted(line.stock_key.sku, line.stock_key.warehouse_id, shopper.draw.randint(1, 6), line.line_id)
    others = shopper.market.keys_beside(line.stock_key.warehouse_id)
    adds = shopper.draw.random() < 0.3 and line.line_id != MORE  # a line is amended once in a call
    more = [LineWanted(*shopper.draw.choice(others), 1, MORE)] if adds else []
    await shopper.ask(shopper.calls.amend(held.reservation_id, [wanted, *more], request_id=shopper.id()))


async def release(shopper: Shopper) -> None:
    pool = shopper.market.confirmed if shopper.draw.random() < 0.3 else shopper.market.open
    if not pool:
        return
    held = shopper.draw.choice(pool)
    lines = []
    if shopper.draw.random() < 0.3 and held.lines:
        lines = [(shopper.draw.choice(held.lines).line_id, 1)]
    reason = shopper.draw.choice(("CART_ABANDONED", "PAYMENT_FAILED", "CUSTOMER_CANCELLED", "OPERATOR"))
    await shopper.ask(shopper.calls.release(held.reservation_id, reason=reason, lines=lines, request_id=shopper.id()))


async def fulfill(shopper: Shopper) -> None:
    if not shopper.market.confirmed:
        return
    order = shopper.draw.choice(shopper.market.confirmed)
    lines = [(line.line_id, line.open_quantity) for line in order.lines if line.open_quantity > 0][:1]
    if lines:
        await shopper.ask(
            shopper.calls.fulfill(order.reservation_id, shopper.id(), lines=lines, request_id=shopper.id())
        )


async def give_up_and_cancel(shopper: Shopper) -> None:
    """An impatient caller: he does not wait for his reserve, and releases it by its request id."""
    message = shopper.order(confirm=False, admission="")
    asking = asyncio.create_task(shopper.ask(shopper.reserve_call(message)))
    patient_until = time.monotonic() + shopper.draw.choice((0.0, 0.002, 0.01))
    while not asking.done() and time.monotonic() < patient_until:
        await asyncio.sleep(0.001)
    asking.cancel()
    with suppress(asyncio.CancelledError, StockadeError):
        await asking
    await release_by_request(shopper, message)
    if shopper.draw.random() < 0.5:
        await shopper.ask(shopper.reserve_call(message))  # a late copy of the reserve


async def cancel_before(shopper: Shopper) -> None:
    """The release overtakes its reserve, which must then be refused."""
    message = shopper.order(confirm=False, admission="")
    await release_by_request(shopper, message)
    await shopper.ask(shopper.reserve_call(message))


async def release_by_request(shopper: Shopper, message: Any) -> None:
    keys = [(line.stock_key.sku, line.stock_key.warehouse_id) for line in message.lines]
    call = shopper.calls.release(
        reason="CUSTOMER_CANCELLED",
        reserve_request_id=message.request_id,
        stock_key=smallest(keys),
        channel_id=message.channel_id,
        request_id=shopper.id(),
    )
    await shopper.ask(call)


def warehouse_of(held: Reservation) -> str:
    """That of its first line."""
    return str(held.lines[0].stock_key.warehouse_id) if held.lines else ""


def smallest(keys: list[tuple[str, str]]) -> tuple[str, str]:
    """The smallest stock key as the contract orders them: by warehouse, then by SKU."""
    return min(keys, key=lambda key: (key[1], key[0]))


async def ask_again(shopper: Shopper) -> None:
    """A reserve that was answered long ago: the judge wants the same answer."""
    if shopper.market.reserves:
        message = shopper.draw.choice(shopper.market.reserves)
        await shopper.ask(shopper.reserve_call(message))


async def look(shopper: Shopper) -> None:
    draw, calls = shopper.draw, shopper.calls
    key = draw.choice(shopper.market.keys)
    held = shopper.some_open()
    which = draw.randrange(6)
    if which == 0 and held is not None:
        await shopper.ask(calls.get_reservation(held.reservation_id))
    elif which == 1:
        await shopper.ask(calls.get_stock(key))
    elif which == 2:
        await shopper.ask(calls.batch_availability(draw.sample(shopper.market.keys, 3), channel_id="web"))
    else:
        await shopper.ask(calls.availability(key, channel_id="web"))


async def operate(shopper: Shopper) -> None:
    """Safety stock, a limit per order, selling suspended for a moment."""
    draw, calls = shopper.draw, shopper.calls
    key = draw.choice(shopper.market.keys)
    which = draw.randrange(3)
    if which == 0:
        await shopper.ask(calls.set_policy(key, safety_stock_quantity=draw.randrange(4), request_id=shopper.id()))
    elif which == 1:
        limit = draw.choice((0, 0, 8))
        await shopper.ask(calls.set_policy(key, max_quantity_per_order=limit, request_id=shopper.id()))
    else:
        await shopper.ask(calls.suspend(key, request_id=shopper.id()))
        await shopper.ask(calls.resume(key, request_id=shopper.id()))


WISHES: dict[Wish, float] = {
    reserve: 20,
    batch_reserve: 3,
    replace: 3,
    confirm: 8,
    extend: 4,
    amend: 6,
    release: 10,
    fulfill: 4,
    give_up_and_cancel: 3,
    cancel_before: 2,
    ask_again: 4,
    look: 14,
    operate: 1,
}
