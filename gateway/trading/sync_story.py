"""The story of ``stockade demo sync``: a line to a warehouse that breaks, and what that must not do to what is sold.

A client like any other: a warehouse system, a web shop, a marketplace that reads changes, and a person who looks after exceptions. Each
chapter says in words what happens and checks it; at the end what the service believes is compared with what lies on the floor.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.trading.sync_warehouse import SOURCE, STREAM, TYPO, WAREHOUSE, WarehouseSystem
from stockade import AsyncClient
from stockade.client import reconciling
from stockade.client.change_results import AvailabilityChanged, Changed, ReservationChanged
from stockade.client.results import Ingested, Refused, StockException

WEB, MARKET = "web", "marketplace"
CONSUMER = "marketplace"
OPENING = {"MUG": 100, "LAMP": 40, "CHAIR": 20, "CLOCK": 30, "VASE": 12}
SILENT_AFTER_S = 3
GAP_PATIENCE_S = 2
CONSUMER_LAG_MAX = 50
TOLERANCE_UNITS = 2
WITHIN_S = 20.0  # everything that the service does by itself happens sooner
SETTINGS = f"""\
data_dir = "."
grpc_port = 0
http_port = 0
gateways = 1
gap_patience_ms = "{GAP_PATIENCE_S}s"

[channels]
{WEB} = {{}}
{MARKET} = {{}}

[warehouses.{WAREHOUSE}]

[warehouses.{WAREHOUSE}.feeds]
{SOURCE} = "{SILENT_AFTER_S}s"

[consumers.{CONSUMER}]
lag_events_max = {CONSUMER_LAG_MAX}
"""

Say = Callable[[str], None]


@dataclass(slots=True)
class Check:
    """Something that must be so."""

    what: str
    ok: bool
    found: str = ""


@dataclass(slots=True)
class SyncReport:
    """What the story came to. ``stock``: SKU → on the floor, in the books, promised, available, shown by the marketplace."""

    chapters: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    stock: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failures(self) -> list[str]:
        """The checks that did not hold, in words."""
        return [f"{check.what} (found {check.found})" for check in self.checks if not check.ok]

    def plain(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


class Marketplace:
    """Shows what may be promised, as the change feed tells it; keeps its place by acknowledging."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.shown: dict[str, int] = {}
        self.orders: Counter[str] = Counter()  # order → how often its opening was heard of
        self._seen: dict[str, int] = {}
        self.taken = 0
        self.resynced = ""

    async def catch_up(self) -> int:
        """Read until nothing older than now is missing, and acknowledge; how many changes came."""
        now_ms, before = time.time_ns() // 1_000_000, self.taken
        start = "" if self.shown or self.taken else "snapshot"  # afterwards from the place that it acknowledged
        batches = self._client.changes(consumer_id=CONSUMER, start=start, on_resync="snapshot", heartbeat_s=0.2)
        async for batch in batches:
            self.resynced = self.resynced or batch.resynced
            for change in batch:
                self.taken += not batch.snapshot
                self._take(change)
            if batch.cursor and batch.as_of_ms >= now_ms:
                await self._client.acknowledge_changes(CONSUMER, batch.cursor)
                break
        return self.taken - before

    def _take(self, change: Changed) -> None:
        if isinstance(change, AvailabilityChanged):
            sku = change.stock_key.sku
            if change.seen_sequence >= self._seen.get(sku, -1):
                self._seen[sku] = change.seen_sequence
                self.shown[sku] = change.available_quantity
        elif isinstance(change, ReservationChanged) and change.what == "OPENED":
            self.orders[change.order_reference] += 1


class SyncStory:
    """Tells the story once, on a service that is empty. ``say``: gets each line."""

    def __init__(self, client: AsyncClient, say: Say) -> None:
        self._client = client
        self._say = say
        self._wms = WarehouseSystem()
        self._market = Marketplace(client)
        self._sold: Counter[str] = Counter()  # granted, over all orders
        self._shipped: Counter[str] = Counter()
        self._orders = 0
        self._accepted: Counter[str] = Counter()  # orders
        self._line_is_good = False  # from the first event on
        self.report = SyncReport()

    async def run(self) -> SyncReport:
        """All chapters. Raises nothing for what does not hold: that is in the report."""
        started = time.monotonic()
        heart = asyncio.create_task(self._beat())
        for title, chapter in (
            ("A quiet morning", self._morning),
            ("The line to the warehouse gets bad", self._bad_line),
            ("… and falls silent", self._silence),
            ("The marketplace sleeps", self._lagging),
            ("The line is back", self._back),
            ("The requested count", self._reconciliation),
            ("The marketplace wakes up", self._awake),
            ("What is left to do", self._exceptions),
            ("The proof", self._proof),
        ):
            self.report.chapters.append(title)
            self._say(f"\n{len(self.report.chapters)}. {title}")
            await chapter()
        heart.cancel()
        self.report.seconds = time.monotonic() - started
        return self.report

    async def _beat(self) -> None:
        """The warehouse system's sign of life, as long as the line is good."""
        while True:
            if self._line_is_good:
                await self._client.heartbeats([(SOURCE, STREAM, WAREHOUSE, self._wms.last_sequence)])
            await asyncio.sleep(SILENT_AFTER_S / 4)

    # --- chapters ---------------------------------------------------------------------------------------------------------

    async def _morning(self) -> None:
        wms = self._wms
        for sku, units in OPENING.items():
            wms.receives(sku, units)
        await self._deliver(range(1, wms.last_sequence + 1))
        await self._market.catch_up()
        self._say(f"   The warehouse takes {sum(OPENING.values())} units of {len(OPENING)} articles into stock.")
        await self._sell("MUG", 3)
        await self._sell("LAMP", 2, MARKET)
        wms.ships("MUG", 3, WEB, "O-1")
        self._shipped["MUG"] += 3
        await self._deliver(range(6, 8))
        await self._market.catch_up()
        self._line_is_good = True
        self._say("   3 mugs are sold and shipped, 2 lamps are sold on the marketplace, which reads every change.")
        self._check("the marketplace shows what may be sold", self._market.shown == await self._available())

    async def _bad_line(self) -> None:
        wms, self._line_is_good = self._wms, False
        await self._sell("MUG", 2)  # O-3
        wms.receives("CHAIR", 10)  # 8
        wms.breaks("VASE", 2)  # 9
        wms.ships("LAMP", 2, MARKET, "O-2")  # 10, 11
        wms.receives("MUG", 24)  # 12
        wms.ships("MUG", 2, WEB, "O-3")  # 13, 14
        self._shipped += Counter(LAMP=2, MUG=2)
        wms.receives("CLOCK", 6)  # 15
        wms.counts("MUG")  # 16: as of 15
        wms.receives("VASE", 5, warehouse_id=TYPO)  # 17
        counted = wms.floor["MUG"]
        results = await self._deliver([8, 15, 15, 16, 17, 8])
        outcomes = [result.outcome for result in results]
        self._say("   Events 9 to 14 get lost on the way, others come twice and in the wrong order.")
        self._check(
            "an event that comes twice is booked once", outcomes[2] == outcomes[5] == "DUPLICATE", str(outcomes)
        )
        await self._sell("MUG", 20)
        before = (await self._available())["MUG"]
        self._say(
            f"   The nightly count says {counted} mugs. Booked at once, the 24 of a delivery that got lost would be there twice when it\n"
            f"   is told again; so it waits for what it has seen. {before} are for sale, none of them sold already."
        )
        self._check("the count waits until what it has seen is here", outcomes[3] == "DEFERRED", outcomes[3])
        self._check("an event of a warehouse that does not exist stops nothing", outcomes[4] == "REJECTED", outcomes[4])
        self._say(
            f"   5 vases were booked in at {TYPO!r}: nobody knows that warehouse, so the event is put aside for a person."
        )

    async def _silence(self) -> None:
        self._say(f"   Nothing is heard of {SOURCE} for {SILENT_AFTER_S} seconds …")
        await self._until("stale", self._is_stale, "every availability of the warehouse says that it is out of date")
        await self._until("gap", self._has_open("FEED_GAP"), "the missing events are an exception")
        await self._until("silent", self._has_open("FEED_STALE"), "the silent feed is an exception")
        await self._until("asked", self._is_asked, "the service itself asks for a reconciliation of the warehouse")
        feed = await self._feed()
        missing = ", ".join(f"{first} to {last}" for first, last in feed.missing)
        self._say(f"   It knows exactly what it does not know: received up to {feed.watermark}, missing {missing}.")
        bought = await asyncio.gather(*[self._buy("CHAIR", 1) for _ in range(40)])
        self._say(f"   Selling goes on: 40 customers want one of 30 chairs, {sum(bought)} get one.")
        self._check("30 of 40 customers get a chair", sum(bought) == 30, str(sum(bought)))  # noqa: PLR2004

    async def _lagging(self) -> None:
        await self._until(
            "lagging", self._has_open("CONSUMER_LAGGING"), "a marketplace that does not read is an exception"
        )
        (consumer,) = [one for one in await self._client.list_consumers() if one.consumer_id == CONSUMER]
        self._say(
            f"   It is {consumer.lag_events} changes behind and may be {CONSUMER_LAG_MAX}. It still shows chairs:"
        )
        shown = self._market.shown["CHAIR"]
        self._say(f"   {shown}, and there is none left. An order from there is refused, not oversold.")
        self._check("the sold-out chair is refused", not await self._buy("CHAIR", 1, MARKET))

        self._say("   What people have on their desks now:")
        for one in await self._open():
            self._say(f"   • {one.priority.lower()}, {one.owning_team}: {one.message}\n     → {one.suggested_action}")

    async def _back(self) -> None:
        wms = self._wms
        async with self._client.event_stream(SOURCE, STREAM) as stream:
            received = stream.watermark
        self._say(
            f"   The warehouse system asks how far it had come: {received}. It tells everything since then three times over."
        )
        self._check("the service says where to go on", received == 8, str(received))  # noqa: PLR2004
        again = list(range(received + 1, wms.last_sequence + 1)) * 3
        random.Random(1).shuffle(again)
        await self._deliver(again)
        self._line_is_good = True
        await self._until("complete", self._is_complete, "nothing is missing any more, and nothing waits")
        await self._until("fresh", self._is_fresh, "the warehouse's availability is up to date again")
        await self._until("healed", self._has_no_open("FEED_GAP", "FEED_STALE"), "both exceptions healed by themselves")
        self._say("   The count of mugs has found its place: only what it knew better was booked.")
        books = await self._on_hand()
        self._check("the mugs on the books are those on the floor", books["MUG"] == wms.floor["MUG"], str(books["MUG"]))

    async def _reconciliation(self) -> None:
        wms, client = self._wms, self._client
        wms.loses("LAMP", 1)
        wms.loses("CLOCK", 8)
        self._say(
            "   Meanwhile a lamp fell down and 8 clocks are gone; nobody told. The warehouse counts as the service asked."
        )
        asked = await self._asked()
        # the mistyped vases are somebody's task already: they are counted when that is done
        lines = [
            reconciling.stock_line(sku, units, includes_picked=True)
            for sku, units in sorted(wms.floor.items())
            if sku != "VASE"
        ]
        done = await client.reconcile(
            WAREHOUSE,
            lines,
            reconciliation_id=asked[0].reconciliation_id if asked else "",
            source_id=SOURCE,
            stream_id=STREAM,
            as_of_source_sequence=wms.last_sequence,
            as_of_time_ms=time.time_ns() // 1_000_000,
            tolerance_units=TOLERANCE_UNITS,
            beyond_tolerance="QUARANTINE",
        )
        counts = done.reconciliation.counts
        self._say(
            f"   {counts.lines} lines: {counts.matches} as the books say; the lamp is within the tolerance of {TOLERANCE_UNITS} and "
            f"booked;\n   the clocks are not: selling them stops until a person has looked."
        )
        self._check("one line is booked, one is set aside", (counts.booked, counts.quarantined) == (1, 1), str(counts))
        self._check("clocks in question are not sold", not await self._buy("CLOCK", 1))
        drift = next(iter(await self._open("RECONCILIATION_DRIFT")), None)
        if drift is not None:
            await self._resolve(drift, "RETRY", "counted again by hand: 8 clocks are gone")
        self._say("   A person counts the clocks again and accepts the count; they are sold again.")
        self._check("clocks are sold again after that", await self._buy("CLOCK", 1))
        await self._until("answered", self._is_answered, "the reconciliation that the service asked for is done")

    async def _awake(self) -> None:
        count = await self._market.catch_up()
        self._say(f"   It goes on where it was and takes in {count} changes; no new snapshot is needed.")
        heard = self._market.orders == self._accepted
        self._check(
            f"it heard of each of the {len(self._accepted)} orders exactly once", heard, str(self._market.orders)
        )
        self._check("the marketplace did not have to begin anew", not self._market.resynced, self._market.resynced)
        await self._until("caught up", self._has_no_open("CONSUMER_LAGGING"), "its exception healed by itself")

    async def _exceptions(self) -> None:
        rejected = next(iter(await self._open("EVENT_REJECTED")), None)
        self._check("the mistyped event is the only thing left", len(await self._open()) == 1, str(await self._open()))
        if rejected is None:
            return
        corrected = self._wms.events([17])[0]
        corrected.stock_key.warehouse_id = WAREHOUSE
        await self._resolve(rejected, "CORRECT_AND_RETRY", f"{TYPO} is {WAREHOUSE}", corrected)
        self._say(
            f"   A person corrects {TYPO!r} to {WAREHOUSE!r} and has the event decided again: the 5 vases are in the books."
        )

    async def _proof(self) -> None:
        await self._market.catch_up()
        books, available, floor = await self._on_hand(), await self._available(), self._wms.floor
        for sku in sorted(OPENING):
            promised = self._sold[sku] - self._shipped[sku]
            self.report.stock[sku] = {
                "on the floor": floor[sku],
                "in the books": books[sku],
                "promised": promised,
                "for sale": available[sku],
                "marketplace shows": self._market.shown.get(sku, -1),
            }
            self._check(
                f"{sku}: the books are what lies on the floor", books[sku] == floor[sku], f"{books[sku]}, {floor[sku]}"
            )
            self._check(f"{sku}: nothing is promised that is not there", 0 <= promised <= floor[sku], str(promised))
            self._check(f"{sku}: for sale is the rest", available[sku] == floor[sku] - promised, str(available[sku]))
        self._check("the marketplace shows the same", self._market.shown == available, str(self._market.shown))
        feed = await self._feed()
        parts = [
            (part.received_count, part.applied_count + part.duplicate_count + part.waiting_count + part.rejected_count)
            for part in feed.warehouses
        ]
        balanced = all(received == ended for received, ended in parts)
        self._check("every event that came is applied, twice, waiting or rejected", balanced, str(parts))
        self._check("nobody has anything left to do", not await self._open(), str(await self._open()))

    # --- what is done again and again -----------------------------------------------------------------------------------------

    async def _deliver(self, sequences: Any) -> list[Ingested]:
        """Events get through, in this order, over a stream."""
        results: list[Ingested] = []
        async with self._client.event_stream(SOURCE, STREAM, lambda _, result: results.append(result)) as stream:
            for event in self._wms.events(list(sequences)):
                await stream.send(event)
        return results

    async def _sell(self, sku: str, units: int, channel_id: str = WEB) -> None:
        self._check(f"{units} of {sku} are sold", await self._buy(sku, units, channel_id))

    async def _buy(self, sku: str, units: int, channel_id: str = WEB) -> bool:
        """Whether an order for it is accepted."""
        self._orders += 1
        order = f"O-{self._orders}"
        answer = await self._client.reserve(
            [(sku, WAREHOUSE, units)], channel_id=channel_id, order_reference=order, confirm=True
        )
        if isinstance(answer, Refused):
            return False
        self._sold[sku] += units
        self._accepted[order] = 1
        return True

    async def _resolve(self, found: StockException, action: str, note: str, corrected: Any = None) -> None:
        await self._client.resolve_exception(
            found.exception_id, action=action, note=note, resolver="the shift leader", corrected_event=corrected
        )

    async def _available(self) -> dict[str, int]:
        answers = await self._client.batch_availability([(sku, WAREHOUSE) for sku in OPENING], channel_id=MARKET)
        return {one.stock_key.sku: one.available_quantity for one in answers}

    async def _on_hand(self) -> dict[str, int]:
        stock = [await self._client.get_stock((sku, WAREHOUSE)) for sku in OPENING]
        return {one.stock_key.sku: one.on_hand.get("SELLABLE", 0) for one in stock}

    async def _feed(self) -> Any:
        feeds, _ = await self._client.feed_status(source_id=SOURCE, stream_id=STREAM)
        return feeds[0]

    async def _open(self, *kinds: str) -> list[StockException]:
        found, _ = await self._client.list_exceptions(kinds=kinds, states=("OPEN",))
        return found

    async def _asked(self) -> list[Any]:
        found, _ = await self._client.list_reconciliations(warehouse_id=WAREHOUSE, states=("REQUESTED",))
        return found

    # --- what is waited for -----------------------------------------------------------------------------------------------------

    async def _is_stale(self) -> bool:
        return (await self._client.availability(("MUG", WAREHOUSE), channel_id=MARKET)).stale

    async def _is_fresh(self) -> bool:
        return not await self._is_stale()

    async def _is_complete(self) -> bool:
        feed = await self._feed()
        return not feed.missing and not feed.waiting_count

    async def _is_asked(self) -> bool:
        return bool(await self._asked())

    async def _is_answered(self) -> bool:
        return not await self._asked()

    def _has_open(self, kind: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return bool(await self._open(kind))

        return look

    def _has_no_open(self, *kinds: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return not await self._open(*kinds)

        return look

    async def _until(self, name: str, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait for what the service does by itself; that it never did is a failed check."""
        deadline = time.monotonic() + WITHIN_S
        while not await condition():
            if time.monotonic() > deadline:
                self._check(what, ok=False, found=f"not {name} within {WITHIN_S:g} s")
                return
            await asyncio.sleep(0.05)
        self._check(what, ok=True)

    def _check(self, what: str, ok: bool, found: str = "") -> None:  # noqa: FBT001  a check reads as one
        self.report.checks.append(Check(what, ok, found))
        self._say(f"   {'✓' if ok else '✗'} {what}" + ("" if ok else f" — found {found or 'otherwise'}"))
