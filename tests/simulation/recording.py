"""A world that keeps its history, and a trader who does everything in it, in any order, drawn from a seed.

The fast way to set the model against the engine: no network, no threads, one engine over a journal in memory. What the
simulation adds (gateways, loss, several attempts at once) is not here.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from actors.domain.commands import Verb
from actors.domain.keys import parse_reservation_id, stock_key
from actors.domain.outcomes import Disposition, Door, Fact, FillPolicy, SellingState
from actors.domain.rules import Rules
from actors.shard.placement import shard_of
from tests.simulation.history import History, Operation
from tests.simulation.history_frames import answered, attempted
from tests.simulation.journal_facts import journal_facts
from tests.simulation.model import Settings
from tests.unit.world import SHARDS, Answer, World

Item = list[Any]


def settings_of(rules: Rules) -> Settings:
    """The model's settings for an engine's rules."""
    return Settings(
        catalog_open=rules.catalog_open,
        order_management_ships=frozenset(
            warehouse for warehouse, door in rules.doors.items() if door == Door.ORDER_MANAGEMENT
        ),
        lifetime_ms_max=rules.lifetime_ms_max,
        dedupe_window_ms=rules.dedupe_window_ms,
        takeover_grace_ms=rules.takeover_grace_ms,
        exceptions_open_max=rules.exceptions_open_max,
        deferral_ms_max=rules.deferral_ms_max,
        history_ms=rules.history_ms,
        not_selling=frozenset(rules.warehouses_not_selling),
        quality_hold_suppliers=frozenset(rules.quality_hold_suppliers),
    )


class RecordingWorld(World):
    """A world that keeps an operation of every item it was given."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.operations: list[Operation] = []
        self.turns = 0
        super().__init__(rules)

    def step(self, *items: Item, accept_claims: bool = True) -> list[Answer]:
        self.turns += 1
        begun = [attempted("world", item, float(self.turns)) for item in items]
        answers = super().step(*items, accept_claims=accept_claims)
        for operation, answer in zip(begun, answers, strict=True):
            answered(operation, answer.reply, "t1", self.turns + 0.5)
        self.operations += begun
        return answers

    def history(self) -> History:
        """What happened so far."""
        return History(self.operations, journal_facts(self.journal))


class Sequences:
    """Numbers of events in two streams: mostly in order, some held back and sent later, now and then one again."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._next: dict[tuple[str, str], int] = {}
        self._held: list[tuple[str, str, int]] = []

    def draw_one(self) -> tuple[str, str, int]:
        """(source, stream, sequence or 0)."""
        draw = self._draw
        if draw.random() < 0.4:
            return "wms", "", 0
        if self._held and draw.random() < 0.5:
            return self._held.pop(draw.randrange(len(self._held)))
        source, stream = draw.choice((("wms", "s1"), ("robots", "s1")))
        if self._next.get((source, stream)) and draw.random() < 0.02:
            return source, stream, draw.randint(1, self._next[(source, stream)])
        number = self._next[(source, stream)] = self._next.get((source, stream), 0) + 1
        if draw.random() < 0.2:
            self._held.append((source, stream, number))
            number = self._next[(source, stream)] = number + 1
        return source, stream, number


class Trader:
    """Draws items: all verbs and facts, sensible and not, on few stock keys and few reservations, so that they meet."""

    def __init__(self, seed: int, rules: Rules | None = None) -> None:
        self.skus: tuple[str, ...] = ("A", "B", "C", "D")
        self.warehouses: tuple[str, ...] = ("main", "main", "main", "east")  # order management ships from "east"
        self.draw = random.Random(seed)
        doors = {"east": Door.ORDER_MANAGEMENT}
        drawn = Rules(doors=doors, lifetime_ms_max=600_000)
        if seed % 4 == 0:
            drawn = replace(drawn, warehouses_not_selling={"east"}, quality_hold_suppliers={"slow"})
        self.world = RecordingWorld(rules or drawn)
        self.ids: list[str] = []
        self.late: list[Item] = []  # reserves whose release by request id overtook them
        self.shipments = ["s0"]
        self.sent: list[Item] = []
        self.sequences = Sequences(self.draw)
        self.actions = (
            (30, self.reserve), (10, self.confirm), (8, self.release), (4, self.extend), (12, self.amend),
            (8, self.fulfill), (3, self.release_by_request), (6, self.receive), (20, self.fact), (4, self.policy),
            (8, self.read), (6, self.again),
        )  # fmt: skip

    def trade(self, turns: int) -> RecordingWorld:
        """That many turns of one to five items, with time passing, restarts and snapshots between them."""
        for _ in range(turns):
            self.turn()
        self.look_at_everything()
        return self.world

    def turn(self) -> None:
        draw, world = self.draw, self.world
        chance = draw.random()
        if chance < 0.03:
            world.pass_ms(draw.choice((1, 500, 20_000, 60_000, 60_000, 16 * 60_000)))
        elif chance < 0.05:
            world.now_ms += draw.choice((0, 0, 30_000, 120_000))  # the time that nobody owned the shards
            world.restart()
        elif chance < 0.06:
            world.snapshot()
        else:
            world.now_ms += draw.choice((0, 0, 1, 7, 400, 3_000))
            self.step([self.item() for _ in range(draw.choice((1, 1, 1, 2, 3, 5)))])

    def step(self, items: list[Item]) -> None:
        for item, answer in zip(items, self.world.step(*items), strict=True):
            self.sent.append(item)
            if item[0] == Verb.RESERVE and answer.ok:
                self.ids.append(answer.id)

    def item(self) -> Item:
        weights, makers = zip(*self.actions, strict=True)
        return self.draw.choices(makers, weights)[0]()

    # --- parts --------------------------------------------------------------------------------------------------------------

    def place(self) -> tuple[str, str]:
        return self.draw.choice(self.skus), self.draw.choice(self.warehouses)

    def reservation(self) -> str:
        if not self.ids or self.draw.random() < 0.01:
            return "1-t1-3-999"
        return self.draw.choice(self.ids[-6:]) if self.draw.random() < 0.8 else self.draw.choice(self.ids)

    def order(self) -> str:
        return self.draw.choice(("", "", "order 1", "order 2", "order 3"))

    def promise(self) -> list[str]:
        draw = self.draw
        line_id = draw.choice(("", "", "0", "1"))
        if draw.random() < 0.2:
            return []
        if draw.random() < 0.4:
            return ["", draw.choice(("web", "b2b")), self.order() or "order 1", line_id]
        return [self.reservation(), "", "", line_id]

    def quantity(self) -> int:
        return self.draw.choice((1, 1, 1, 2, 2, 3, 5, 9))

    # --- orders -------------------------------------------------------------------------------------------------------------

    def reserve(self) -> Item:
        draw = self.draw
        lines = []
        for index in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
            sku, warehouse = self.place()
            quantity = self.quantity()
            lines.append((sku, quantity, str(index), warehouse, draw.randint(0, quantity)))
        replaces = self.reservation() if draw.random() < 0.2 else ""
        return self.world.reserve_item(
            *lines,
            channel=draw.choice(("web", "web", "b2b")),
            ttl_ms=draw.choice((500, 5_000, 60_000)),
            confirm=draw.random() < 0.2,
            fill=draw.choice((FillPolicy.ALL_OR_NOTHING, FillPolicy.WHOLE_LINES, FillPolicy.PARTIAL_QUANTITIES)),
            always=draw.random() < 0.15,
            order=self.order(),
            replaces=replaces,
        )

    def verb(self, verb: Verb, *fields: Any) -> Item:
        return self.world._verb(verb, self.reservation(), *fields)

    def confirm(self) -> Item:
        return self.verb(Verb.CONFIRM, self.order(), self.draw.choice((0, 0, 0, 1, 2)))

    def release(self) -> Item:
        lines = [[str(index), self.quantity()] for index in range(self.draw.choice((0, 0, 1, 2)))]
        return self.verb(Verb.RELEASE, "", "", lines, 3)

    def extend(self) -> Item:
        return self.verb(Verb.EXTEND, self.draw.choice((500, 60_000, 400_000)))

    def amend(self) -> Item:
        draw = self.draw
        line_ids = draw.sample(("0", "1", "2", "3", "new"), draw.randint(1, 3))
        targets = []
        for line_id in line_ids:
            sku, warehouse = self.place()
            targets.append([line_id, stock_key(warehouse, sku), self.quantity(), 0])
        removed = [line_id for line_id in ("0", "1") if line_id not in line_ids and draw.random() < 0.2]
        return self.verb(Verb.AMEND, targets, removed, draw.choice((0, 0, 0, 0, 1, 2)))

    def shipment(self) -> str:
        if self.draw.random() < 0.7:
            self.shipments.append(f"s{len(self.shipments)}")
            return self.shipments[-1]
        return self.draw.choice(self.shipments[-4:])

    def fulfill(self) -> Item:
        draw = self.draw
        line_ids = draw.sample(("0", "1", "2"), draw.choice((0, 1, 1, 2)))
        lines = [[line_id, self.quantity(), draw.choice(("", "", f"d{line_id}"))] for line_id in line_ids]
        return self.verb(Verb.FULFILL, self.shipment(), lines, draw.random() < 0.2, 0)

    def release_by_request(self) -> Item:
        """Of a reserve that was sent, or of one that comes later or never."""
        reserves = [item for item in self.sent[-40:] if item[0] == Verb.RESERVE]
        if reserves and self.draw.random() < 0.5:
            reserve = self.draw.choice(reserves)
        else:
            reserve = self.reserve()
            self.late.append(reserve)
        channel, request = reserve[5][2], reserve[5][0]
        content = f"release {channel} {request}".encode()
        body = [self.world.fresh_id("v"), content, "", channel, request, [], 1, ""]
        return [int(Verb.RELEASE), reserve[1], 0, 1, [], body]

    # --- the warehouse ------------------------------------------------------------------------------------------------------

    def receive(self) -> Item:
        sku, warehouse = self.place()
        return self.world.event(Fact.RECEIPT, sku, self.draw.randint(1, 12), 1, "", "", warehouse=warehouse)

    def fact(self) -> Item:
        draw = self.draw
        sku, warehouse = self.place()
        fact = draw.choice((*Fact, Fact.PICK, Fact.SHIPMENT, Fact.SHIPMENT, Fact.UNPICK))
        one, other = draw.sample(list(Disposition), 2) if draw.random() < 0.4 else (1, Disposition.DAMAGED)
        quantity, transfer = self.quantity(), draw.choice(("t1", "t2", "t3"))
        details: dict[Fact, tuple[Any, ...]] = {
            Fact.RECEIPT: (quantity, int(one), "", ""),
            Fact.PICK: (quantity, self.promise()),
            Fact.UNPICK: (quantity, self.promise()),
            Fact.SHIPMENT: (quantity, self.shipment(), self.promise(), draw.random() < 0.2, int(one)),
            Fact.ADJUSTMENT: (draw.choice((-1, 1)) * quantity, int(one), "", ""),
            Fact.STOCK_COUNT: (draw.randint(0, 20), int(one), 0, draw.random() < 0.4, draw.random() < 0.5),
            Fact.DISPOSITION_CHANGE: (quantity, int(one), int(other)),
            Fact.TRANSFER_DISPATCH: (quantity, transfer, "", draw.choice(("east", "main")), int(one)),
            Fact.TRANSFER_RECEIPT: (quantity, transfer, "", "main", draw.random() < 0.3, int(one)),
            Fact.CUSTOMER_RETURN: (quantity, int(one), self.promise(), ""),
        }
        event = self.world.fresh_id("e") if draw.random() < 0.97 else f"e{draw.randint(1, 50)}"
        age_ms = draw.choice((0, 0, 0, 0, 1_000, 25 * 3600 * 1000))
        line = draw.choice(("", "", "", "d0", "d1"))
        source, stream, sequence = self.sequences.draw_one()
        told = list(details[fact])
        if fact == Fact.STOCK_COUNT and sequence and draw.random() < 0.6:
            told[2] = max(0, sequence - draw.choice((0, 1, 2, 3, 5)))
        return self.world.event(
            fact, sku, *told, warehouse=warehouse, event=event, document_line=line, age_ms=age_ms, source=source,
            stream=stream, sequence=sequence, lot_id=draw.choice(("", "", "L7")),
            attributes=draw.choice(([], [["supplier_id", "slow"]])),
        )  # fmt: skip

    # --- operations and questions -------------------------------------------------------------------------------------------

    def policy(self) -> Item:
        draw, world = self.draw, self.world
        sku, warehouse = self.place()
        key = stock_key(warehouse, sku)
        shard = shard_of(key, SHARDS)
        safety, limit = draw.choice((-1, 0, 0, 2, 5)), draw.choice((-1, 0, 0, 3, 6))
        selling = draw.choice((0, 0, SellingState.OPEN, SellingState.SUSPENDED))
        verb = draw.choice((Verb.REGISTER_STOCK, Verb.SET_STOCK_POLICY, Verb.SET_SELLING, Verb.SET_SELLING))
        fields: list[Any] = [safety, int(selling), limit, ""]
        if verb == Verb.SET_STOCK_POLICY:
            fields = [safety, limit, "piece", draw.choice((0, 0, 1, 2)), int(selling), *self.gate()]
        elif verb == Verb.SET_SELLING:
            fields = [int(draw.choice((SellingState.OPEN, SellingState.OPEN, SellingState.SUSPENDED))), ""]
        content = repr((int(verb), key, fields)).encode()
        return [int(verb), shard, 0, 1, [], [world.fresh_id("o"), content, key, *fields]]

    def gate(self) -> list[Any]:
        """Item state, where receipts start, recalled lots; mostly as they are."""
        draw = self.draw
        lots = draw.choice(([], [], [["L7"]], [[]]))
        return [draw.choice((0, 0, 0, 1, 2)), draw.choice((0, 0, 1, 2)), lots]

    def read(self) -> Item:
        draw = self.draw
        sku, warehouse = self.place()
        key = stock_key(warehouse, sku)
        shard = shard_of(key, SHARDS)
        if draw.random() < 0.5:
            return self.look_at(self.reservation())
        if draw.random() < 0.5:
            return [int(Verb.GET_STOCK), shard, 0, 1, [], [key]]
        return [int(Verb.GET_AVAILABILITY), shard, 0, 1, [], ["web", [key]]]

    def look_at(self, reservation_id: str) -> Item:
        parts = parse_reservation_id(reservation_id)
        assert parts is not None
        return [int(Verb.GET_RESERVATION), parts.shard, 0, 1, [], [reservation_id]]

    def again(self) -> Item:
        """An item sent before, as it was; now and then with other content under the same id."""
        if self.late and self.draw.random() < 0.3:
            return self.late.pop()
        if not self.sent:
            return self.receive()
        item = self.draw.choice(self.sent[-30:]) if self.draw.random() < 0.8 else self.draw.choice(self.sent)
        if self.draw.random() < 0.1 and item[0] in (Verb.CONFIRM, Verb.EXTEND, Verb.RELEASE):
            item = [*item[:5], [item[5][0], b"other content", *item[5][2:]]]
        return item

    def look_at_everything(self) -> None:
        """Every stock key and every reservation, at the end."""
        keys = [stock_key(warehouse, sku) for sku in self.skus for warehouse in sorted(set(self.warehouses))]
        items: list[Item] = [[int(Verb.GET_STOCK), shard_of(key, SHARDS), 0, 1, [], [key]] for key in keys]
        items += [self.look_at(reservation_id) for reservation_id in self.ids]
        self.world.step(*items)
