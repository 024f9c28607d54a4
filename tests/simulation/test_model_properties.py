"""Properties over all orders of calls: the engine answers what the model answers, to the last digit.

Three machines: the stock actor (every fact, pick, policy and claim on few stock keys), the reservation (every verb on orders of
several lines in several shards), the shard (whole turns, duplicates, snapshots with turns between their slices, restarts at every
point, ended things leaving memory). A run of a few hundred examples is part of ``make check``; more by

    STOCKADE_EXAMPLES=20000 pytest tests/simulation/test_model_properties.py --timeout 0

A failure prints the shrunk sequence of steps, and the line that replays it (``@reproduce_failure``).
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.domain.commands import Verb
from actors.domain.keys import stock_key
from actors.domain.outcomes import Disposition, Fact, FillPolicy, ReleaseReason, SellingState
from actors.domain.rules import Rules
from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from actors.shard.placement import shard_of
from tests.simulation.checker import check
from tests.simulation.lockstep import RULES, Lockstep
from tests.simulation.recording import Item, Trader, settings_of
from tests.unit.world import SHARDS

EXAMPLES = int(os.environ.get("STOCKADE_EXAMPLES", "80"))
STEPS = 40
RUN = settings(
    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip

quantities = st.integers(1, 9)
skus = st.sampled_from(("A", "B"))
warehouses = st.sampled_from(("main", "main", "east"))
places = st.tuples(skus, warehouses)
dispositions = st.sampled_from(tuple(map(int, Disposition)))
orders = st.sampled_from(("", "", "order 1", "order 2"))
channels = st.sampled_from(("web", "web", "b2b"))
indices = st.sampled_from((*range(6), *range(6), -1))  # of a reservation; −1: one that nobody knows
line_ids = st.sampled_from(("0", "1", "2", "2", "3"))
ttls = st.sampled_from((500, 5_000, 60_000, 300_000))
short_times = st.sampled_from((0, 1, 499, 500, 4_999, 60_000))
shipments = st.integers(1, 25).map("s{}".format)
counts = st.lists(st.integers(3, 12), min_size=4, max_size=4)
first_ttls = st.lists(st.sampled_from((500, 5_000, 60_000)), min_size=1, max_size=3)


PLACES = (("A", "main"), ("B", "main"), ("A", "east"), ("B", "east"))


class Machine(RuleBasedStateMachine):
    """What the first two have in common: time, restarts, repeats, and the judgement at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.both = Lockstep(RULES)

    def promise(self, kind: str, index: int, channel: str, order: str, line_id: str) -> list[str]:
        """Nobody, a reservation, or an order of a channel; of all its lines or of one."""
        if kind == "reservation":
            return [self.both.id(index), "", "", line_id]
        return ["", channel, order, line_id] if kind == "order" and order else []

    def event(self, place: tuple[str, str], fact: Fact, *details: Any, **options: Any) -> None:
        sku, warehouse = place
        self.both.ask(self.both.world.event(fact, sku, *details, warehouse=warehouse, **options))

    @rule(
        place=places, safety=st.integers(-1, 5), limit=st.sampled_from((-1, -1, 0, 3)), version=st.integers(0, 3),
        selling=st.sampled_from((0, 0, 1, 2)),
    )  # fmt: skip
    def a_policy(self, place, safety, limit, version, selling):
        key = stock_key(place[1], place[0])
        body = [self.both.world.fresh_id("o"), repr((key, safety, limit, version, selling)).encode(), key]
        if version == 3:
            self.both.ask(self.both.item(Verb.REGISTER_STOCK, key, *body, safety, selling, limit, "piece"))
        else:
            self.both.ask(self.both.item(Verb.SET_STOCK_POLICY, key, *body, safety, limit, "", version, selling))

    def units_come_in(self, counts: list[int]) -> None:
        for place, quantity in zip(PLACES, counts, strict=True):
            self.event(place, Fact.RECEIPT, quantity, 1, "", "")

    @rule(milliseconds=short_times)
    def time_passes(self, milliseconds):
        self.both.pass_ms(milliseconds)

    @rule(down_ms=st.sampled_from((0, 0, 400, 70_000)))
    def the_process_dies(self, down_ms):
        self.both.restart(down_ms)

    @rule(index=st.integers(0, 60))
    def somebody_asks_again(self, index):
        self.both.again(index)

    @rule()
    def a_snapshot_is_taken(self):
        self.both.world.snapshot()

    def teardown(self) -> None:
        for sku in ("A", "B"):
            for warehouse in ("main", "east"):
                self.both.look_at_stock(sku, warehouse)
        for reservation_id in self.both.ids:
            self.both.look_at(reservation_id)
        self.both.judge()


promises: dict[str, Any] = {
    "kind": st.sampled_from(("nobody", "reservation", "reservation", "order")),
    "index": indices, "channel": channels, "order": orders, "line_id": st.sampled_from(("", "", "0")),
}  # fmt: skip


class StockActorMachine(Machine):
    """One stock actor and its neighbours: facts, picks, policies, single claims."""

    @initialize(counts=counts, ttls=first_ttls, order=orders)
    def there_is_stock_and_some_of_it_is_claimed(self, counts, ttls, order):
        self.units_come_in(counts)
        for number, ttl_ms in enumerate(ttls):
            sku, warehouse = PLACES[number % 2]
            self.both.ask(
                self.both.world.reserve_item(
                    (sku, number + 1, "0", warehouse), ttl_ms=ttl_ms, order=order, confirm=number == 2
                )
            )

    @rule(
        place=places,
        quantity=quantities,
        disposition=dispositions,
        fact=st.sampled_from(tuple(Fact)),
        negative=st.booleans(),
    )
    def a_fact(self, place, quantity, disposition, fact, negative):
        details: dict[Fact, tuple[Any, ...]] = {
            Fact.RECEIPT: (quantity, disposition, "", ""),
            Fact.ADJUSTMENT: (-quantity if negative else quantity, disposition, "", ""),
            Fact.STOCK_COUNT: (quantity, disposition, 0, quantity != 9, negative),
            Fact.DISPOSITION_CHANGE: (quantity, disposition, disposition % 5 + 1),
            Fact.TRANSFER_DISPATCH: (quantity, "t", "", "east", disposition),
            Fact.TRANSFER_RECEIPT: (quantity, "t", "", "main", True, disposition),
            Fact.CUSTOMER_RETURN: (quantity, disposition, [], ""),
        }
        if fact in details:
            self.event(place, fact, *details[fact])

    @rule(place=places, quantity=st.integers(1, 12))
    def units_are_received(self, place, quantity):
        self.event(place, Fact.RECEIPT, quantity, 1, "", "")

    @rule(place=places, quantity=quantities, back=st.booleans(), **promises)
    def units_are_picked(self, place, quantity, back, kind, index, channel, order, line_id):
        fact = Fact.UNPICK if back else Fact.PICK
        self.event(place, fact, quantity, self.promise(kind, index, channel, order, line_id))

    @rule(
        place=places, quantity=quantities, shipment=shipments, close=st.booleans(), disposition=st.sampled_from((1, 1, 3)),
        document_line=st.sampled_from(("", "", "d1")), **promises,
    )  # fmt: skip
    def units_are_shipped(
        self, place, quantity, shipment, close, disposition, document_line, kind, index, channel, order, line_id
    ):
        promise = self.promise(kind, index, channel, order, line_id)
        self.event(place, Fact.SHIPMENT, quantity, shipment, promise, close, disposition, document_line=document_line)

    @rule(
        place=places,
        event=st.integers(1, 40).map("e{}".format),
        age_ms=st.sampled_from((0, 25 * 3_600_000)),
        reject=st.sampled_from((0, 0, 7)),
    )
    def an_event_that_may_not_be_understood(self, place, event, age_ms, reject):
        self.event(place, Fact.RECEIPT, 1, 1, "", "", event=event, age_ms=age_ms, reject=reject)

    @rule(place=places, quantity=st.sampled_from((10**15, 10**15 - 3)))
    def a_number_that_leaves_all_bounds(self, place, quantity):
        self.event(place, Fact.RECEIPT, quantity, 4, "", "")

    @rule(place=places, state=st.sampled_from((SellingState.OPEN, SellingState.OPEN, SellingState.SUSPENDED)))
    def selling_is_suspended_or_resumed(self, place, state):
        key = stock_key(place[1], place[0])
        body = [self.both.world.fresh_id("o"), repr((key, state)).encode(), key, int(state), ""]
        self.both.ask(self.both.item(Verb.SET_SELLING, key, *body))

    @rule(
        place=places,
        quantity=quantities,
        confirm=st.booleans(),
        always=st.booleans(),
        order=orders,
        channel=channels,
        ttl=ttls,
    )
    def a_claim(self, place, quantity, confirm, always, order, channel, ttl):
        line = (place[0], quantity, "0", place[1], 0)
        self.both.ask(
            self.both.world.reserve_item(line, confirm=confirm, always=always, order=order, channel=channel, ttl_ms=ttl)
        )

    @rule(index=indices)
    def it_is_released(self, index):
        self.both.ask(self.both.about(Verb.RELEASE, index, "", "", [], int(ReleaseReason.OPERATOR)))

    @invariant()
    def both_show_the_same(self):
        self.both.look_at_stock("A", "main")


lines = st.lists(st.tuples(skus, quantities, warehouses, st.integers(0, 9)), min_size=1, max_size=4)
parts = st.lists(st.tuples(line_ids, st.integers(1, 3)), max_size=3, unique_by=lambda part: part[0])
amendments = st.lists(
    st.tuples(st.sampled_from(("0", "1", "2", "new")), skus, quantities, warehouses),
    max_size=3, unique_by=lambda target: target[0],
)  # fmt: skip


class ReservationMachine(Machine):
    """Orders of several lines in several shards: every verb, whole and in parts."""

    @initialize(counts=counts, ttls=first_ttls, order=orders)
    def there_is_stock_and_there_are_orders(self, counts, ttls, order):
        self.units_come_in(counts)
        for number, ttl_ms in enumerate(ttls):
            lines = [(sku, number + 1, str(place), warehouse) for place, (sku, warehouse) in enumerate(PLACES)]
            self.both.ask(
                self.both.world.reserve_item(*lines[number:], ttl_ms=ttl_ms, order=order, confirm=number == 2)
            )

    def wanted(self, lines: list[tuple[str, int, str, int]]) -> list[tuple[Any, ...]]:
        return [
            (sku, quantity, str(number), warehouse, min(minimum, quantity))
            for number, (sku, quantity, warehouse, minimum) in enumerate(lines)
        ]

    @rule(
        lines=lines, confirm=st.booleans(), always=st.booleans(), fill=st.sampled_from(tuple(FillPolicy)), order=orders,
        channel=channels, ttl=ttls,
    )  # fmt: skip
    def an_order(self, lines, confirm, always, fill, order, channel, ttl):
        self.both.ask(
            self.both.world.reserve_item(
                *self.wanted(lines), confirm=confirm, always=always, fill=fill, order=order, channel=channel, ttl_ms=ttl
            )
        )

    @rule(
        lines=lines, index=indices, confirm=st.booleans(), always=st.booleans(), fill=st.sampled_from(tuple(FillPolicy))
    )
    def a_cart_replaces_another(self, lines, index, confirm, always, fill):
        self.both.ask(
            self.both.world.reserve_item(
                *self.wanted(lines), confirm=confirm, always=always, fill=fill, replaces=self.both.id(index)
            )
        )

    @rule(index=indices, order=orders, version=st.sampled_from((0, 0, 1, 2)))
    def it_is_confirmed(self, index, order, version):
        self.both.ask(self.both.about(Verb.CONFIRM, index, order, version))

    @rule(index=indices, ttl=ttls)
    def it_is_extended(self, index, ttl):
        self.both.ask(self.both.about(Verb.EXTEND, index, ttl))

    @rule(index=indices, parts=parts)
    def it_is_released(self, index, parts):
        given = [list(part) for part in parts]
        self.both.ask(self.both.about(Verb.RELEASE, index, "", "", given, int(ReleaseReason.CUSTOMER_CANCELLED)))

    @rule(
        index=indices,
        amendments=amendments,
        removed=st.lists(line_ids, max_size=2, unique=True),
        version=st.sampled_from((0, 0, 0, 1)),
    )
    def it_is_amended(self, index, amendments, removed, version):
        wanted = [[line_id, stock_key(warehouse, sku), quantity, 0] for line_id, sku, quantity, warehouse in amendments]
        self.both.ask(self.both.about(Verb.AMEND, index, wanted, removed, version))

    @rule(index=indices, shipment=shipments, parts=parts, close=st.booleans(), line=st.sampled_from(("", "", "d1")))
    def order_management_ships(self, index, shipment, parts, close, line):
        given = [[line_id, quantity, line and f"{line}-{line_id}"] for line_id, quantity in parts]
        self.both.ask(self.both.about(Verb.FULFILL, index, shipment, given, close, 0))

    @rule(place=places, quantity=quantities, shipment=shipments, close=st.booleans(), **promises)
    def the_warehouse_ships(self, place, quantity, shipment, close, kind, index, channel, order, line_id):
        promise = self.promise(kind, index, channel, order, line_id)
        self.event(place, Fact.SHIPMENT, quantity, shipment, promise, close, 1)

    @rule(place=places, quantity=quantities, **promises)
    def the_warehouse_picks(self, place, quantity, kind, index, channel, order, line_id):
        self.event(place, Fact.PICK, quantity, self.promise(kind, index, channel, order, line_id))

    @rule(place=places, quantity=st.integers(-9, 9).filter(bool))
    def stock_is_adjusted(self, place, quantity):
        self.event(place, Fact.ADJUSTMENT, quantity, 1, "", "")

    @rule(place=places, channel=channels, index=st.integers(0, 20))
    def somebody_gives_up_a_reserve_without_an_answer(self, place, channel, index):
        reserves = [item for item in self.both.sent if item[0] == Verb.RESERVE and item[5][2] == channel]
        request, shard = "never came", shard_of(stock_key(place[1], place[0]), SHARDS)
        if reserves and index:
            reserve = reserves[index % len(reserves)]
            request, shard = reserve[5][0], reserve[1]
        body = [self.both.world.fresh_id("v"), f"{channel} {request}".encode(), "", channel, request, [], 1, ""]
        self.both.ask([int(Verb.RELEASE), shard, 0, 1, [], body])

    @precondition(lambda self: self.both.ids)
    @invariant()
    def both_show_the_same(self):
        self.both.look_at(self.both.ids[-1])


class ShardMachine(RuleBasedStateMachine):
    """Whole turns of anything, with everything between them that a process may suffer; judged at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.trader = Trader(0)
        self.world = self.trader.world

    @initialize(
        seed=st.integers(0, 2**32),
        memory_ms=st.sampled_from((0, 5_000, 15 * 60_000)),
        held_max=st.sampled_from((2, 200_000)),
    )
    def a_trader(self, seed, memory_ms, held_max):
        rules = Rules(
            doors=RULES.doors, lifetime_ms_max=600_000, dedupe_memory_ms=memory_ms, ended_in_memory_max=held_max,
            exceptions_open_max=held_max,
        )  # fmt: skip
        self.trader = Trader(seed, rules)
        self.world = self.trader.world

    @rule(count=st.integers(1, 6), later_ms=st.sampled_from((0, 0, 1, 400, 3_000)))
    def a_turn(self, count, later_ms):
        self.world.now_ms += later_ms
        self.trader.step([self.trader.item() for _ in range(count)])

    @rule(milliseconds=st.sampled_from((0, 500, 5_000, 60_000, 16 * 60_000)))
    def time_passes(self, milliseconds):
        self.world.pass_ms(milliseconds)

    @rule(down_ms=st.sampled_from((0, 0, 1_000, 120_000)))
    def the_process_dies(self, down_ms):
        self.world.now_ms += down_ms
        self.world.restart()

    @rule(counts=st.lists(st.integers(0, 2), max_size=8))
    def a_snapshot_is_taken_while_turns_go_on(self, counts):
        left = list(counts)

        def between() -> None:
            items: list[Item] = [self.trader.item() for _ in range(left.pop() if left else 0)]
            if items:
                self.trader.step(items)

        self.world.snapshot(between)

    def teardown(self) -> None:
        self.trader.look_at_everything()
        self.world.check_replay()
        assert check(self.world.history(), settings_of(self.world.rules)) == []
        assert verify(MemoryJournal(self.world.store)).violations == []


TestStockActor = StockActorMachine.TestCase
TestStockActor.settings = RUN
TestReservation = ReservationMachine.TestCase
TestReservation.settings = RUN
TestShard = ShardMachine.TestCase
TestShard.settings = RUN
