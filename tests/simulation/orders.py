"""What may be asked of the service in simulation: frame items of every verb and fact, drawn at random from what the world knows.

Owns the content of requests, and the world's memory of reservations and orders. When they are sent, how often and through which
gateway is ``traffic``'s.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from actors.domain.commands import Verb
from actors.domain.keys import parse_reservation_id, stock_key
from actors.domain.outcomes import Admission, Disposition, Fact, FillPolicy, SellingState
from actors.shard.placement import feed_shard_of, shard_of
from tests.simulation.plan import HOUR_MS, Plan

Item = list[Any]
SELLABLE = int(Disposition.SELLABLE)


@dataclass(slots=True)
class Known:
    """A reservation that somebody was told of."""

    reservation_id: str
    channel: str
    order: str
    lines: list[list[Any]]  # as asked
    expire_time_ms: int = 0
    confirmed: bool = False


@dataclass(slots=True)
class Sent:
    """A reserve that was sent, whatever came of it."""

    channel: str
    request_id: str
    shard: int


@dataclass(slots=True)
class Memory:
    """What the outside world remembers."""

    reservations: list[Known] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    events: list[Item] = field(default_factory=list)
    shipments: list[str] = field(default_factory=list)
    sequences: dict[str, int] = field(default_factory=dict)  # the last of each source


def digest_of(*content: Any) -> bytes:
    return blake2b(repr(content).encode(), digest_size=16).digest()


class Orders:
    """Draws items for one client. ``wall_ms``: the world's true time."""

    def __init__(self, plan: Plan, draw: random.Random, memory: Memory, name: str, wall_ms: Callable[[], int]) -> None:
        self.plan = plan
        self.draw = draw
        self.memory = memory
        self.name = name
        self.wall_ms = wall_ms
        self._count = 0
        work = plan.work
        self.keys = [str(stock_key(warehouse, sku)) for sku in work.skus for warehouse in work.warehouses]

    # --- parts --------------------------------------------------------------------------------------------------------

    def id(self, prefix: str) -> str:
        """A fresh id; some are UUIDv7, whose age the service can tell."""
        self._count += 1
        if self.draw.random() < 0.2:
            made_ms = self.wall_ms() - (30 * HOUR_MS if self.draw.random() < 0.05 else 0)
            digits = f"{made_ms:012x}7{self.draw.getrandbits(76):019x}"
            return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"
        return f"{prefix}-{self.name}-{self._count}"

    def key(self) -> str:
        if self.draw.random() < self.plan.work.hot:
            return self.keys[0]
        if self.draw.random() < 0.01:
            return str(stock_key(self.plan.work.warehouses[0], "unheard of"))
        return self.draw.choice(self.keys)

    def known(self, *, confirmed: bool = False) -> Known | None:
        """Mostly a recent one; ``confirmed``: preferably one that somebody confirmed."""
        reservations = self.memory.reservations
        if confirmed and self.draw.random() < 0.7:
            reservations = [one for one in reservations if one.confirmed] or reservations
        if not reservations:
            return None
        if self.draw.random() < 0.7:
            reservations = reservations[-8:]
        return self.draw.choice(reservations)

    def _item(self, verb: Verb, shard: int, body: list[Any], weight: int = 1) -> Item:
        cause = ["tester", f"c{self._count}", ""] if self.draw.random() < 0.1 else []
        return [int(verb), shard, 0, weight, cause, body]

    def _of_key(self, verb: Verb, key: str, body: list[Any]) -> Item:
        if verb == Verb.INGEST:
            return self._item(verb, feed_shard_of(str(body[0]), self.plan.shards), body)
        return self._item(verb, shard_of(key, self.plan.shards), body)

    def _of_reservation(self, verb: Verb, reservation_id: str, *fields: Any) -> Item:
        parts = parse_reservation_id(reservation_id)
        shard = parts.shard if parts is not None and parts.shard < self.plan.shards else 0
        body = [self.id("v"), digest_of(verb, reservation_id, fields), reservation_id, *fields]
        return self._item(verb, shard, body)

    # --- orders -------------------------------------------------------------------------------------------------------

    def reserve(self) -> Item:
        draw, work = self.draw, self.plan.work
        channel = draw.choice(work.channels)
        lines: list[list[Any]] = []
        for number in range(draw.randint(1, work.lines_max)):
            quantity = draw.randint(1, work.quantity_max)
            lines.append([str(number), self.key(), quantity, draw.choice((0, 0, 1, quantity))])
        replaced = self.known() if draw.random() < 0.06 else None
        replaces = replaced.reservation_id if replaced is not None else ""
        parts = parse_reservation_id(replaces) if replaces else None
        shard = parts.shard if parts is not None else shard_of(min(line[1] for line in lines), self.plan.shards)
        fields = [
            lines,
            draw.choice(work.ttl_ms),
            draw.random() < 0.22,
            int(draw.choice(list(FillPolicy)) if draw.random() < 0.4 else FillPolicy.ALL_OR_NOTHING),
            int(Admission.ALWAYS if draw.random() < 0.06 else Admission.WHEN_COVERED),
            f"O-{self.name}-{self._count}" if draw.random() < 0.3 else "",
            draw.choice(("", "", "C1")),
            replaces,
            [["note", "gift"]] if draw.random() < 0.05 else [],
        ]
        request_id = self.id("r")
        self.memory.sent.append(Sent(channel, request_id, shard))
        return self._item(Verb.RESERVE, shard, [request_id, digest_of(channel, fields), channel, *fields], len(lines))

    def expiring(self, after_ms: int, before_ms: int) -> Known | None:
        """A hold whose first deadline is within these times."""
        held = [one for one in self.memory.reservations[-30:] if after_ms < one.expire_time_ms < before_ms]
        return self.draw.choice(held) if held else None

    def confirm(self) -> Item | None:
        known = self.known()
        return self.confirm_of(known) if known is not None else None

    def confirm_of(self, known: Known) -> Item:
        order = self.draw.choice(("", f"P-{self.name}-{self._count}"))
        known.order = known.order or order
        return self._of_reservation(Verb.CONFIRM, known.reservation_id, order, self.draw.choice((0, 0, 0, 1)))

    def release(self) -> Item | None:
        known = self.known()
        if known is None:
            return None
        lines = []
        if self.draw.random() < 0.4:
            lines = [[self.draw.choice(known.lines)[0], self.draw.randint(1, 2)]]
        return self._of_reservation(Verb.RELEASE, known.reservation_id, "", "", lines, self.draw.choice((1, 2, 3)), "")

    def release_by_request(self, sent: Sent | None = None) -> Item | None:
        """Of a reserve that was sent, or that never was."""
        draw = self.draw
        if sent is None and self.memory.sent and draw.random() < 0.9:
            sent = draw.choice(self.memory.sent[-10:])
        if sent is None:
            sent = Sent(self.plan.work.channels[0], self.id("never"), draw.randrange(self.plan.shards))
        fields = ["", sent.channel, sent.request_id, [], 3, ""]
        return self._item(Verb.RELEASE, sent.shard, [self.id("c"), digest_of("cancel", fields), *fields])

    def extend(self) -> Item | None:
        known = self.known()
        if known is None:
            return None
        return self._of_reservation(Verb.EXTEND, known.reservation_id, self.draw.choice((1_000, 5_000, 60_000)))

    def amend(self) -> Item | None:
        known, draw = self.known(), self.draw
        if known is None:
            return None
        line_id = draw.choice(known.lines)[0]
        key = draw.choice(known.lines)[1] if draw.random() < 0.6 else self.key()
        targets = [[line_id, key, draw.randint(1, self.plan.work.quantity_max + 1), 0]]
        if draw.random() < 0.25:
            targets.append([f"n{self._count}", self.key(), draw.randint(1, 2), 0])
        others = [line[0] for line in known.lines if line[0] != line_id]
        removed = [draw.choice(others)] if others and draw.random() < 0.3 else []
        return self._of_reservation(Verb.AMEND, known.reservation_id, targets, removed, draw.choice((0, 0, 0, 1, 2)))

    def fulfill(self) -> Item | None:
        known, draw = self.known(confirmed=True), self.draw
        if known is None:
            return None
        lines = []
        if draw.random() < 0.6:
            lines = [[draw.choice(known.lines)[0], draw.randint(1, 2), draw.choice(("", "d1"))]]
        return self._of_reservation(
            Verb.FULFILL, known.reservation_id, self._shipment(), lines, draw.random() < 0.2, self.wall_ms() - 50
        )

    def _shipment(self) -> str:
        shipments = self.memory.shipments
        if shipments and self.draw.random() < 0.15:
            return self.draw.choice(shipments[-10:])
        shipments.append(f"SH-{self.name}-{self._count}")
        return shipments[-1]

    # --- questions ----------------------------------------------------------------------------------------------------

    def plain_reserve(self, key: str, ttl_ms: int) -> Item:
        """One unit, held."""
        fields = [
            [["0", key, 1, 0]],
            ttl_ms,
            False,
            int(FillPolicy.ALL_OR_NOTHING),
            int(Admission.WHEN_COVERED),
            "",
            "",
            "",
            [],
        ]
        self._count += 1
        request_id = f"p-{self.name}-{self._count}"
        return self._of_key(Verb.RESERVE, key, [request_id, digest_of(key, fields), "web", *fields])

    def availability_of(self, key: str) -> Item:
        return self._of_key(Verb.GET_AVAILABILITY, key, ["web", [key]])

    def reservation_of(self, reservation_id: str) -> Item:
        parts = parse_reservation_id(reservation_id)
        assert parts is not None
        return self._item(Verb.GET_RESERVATION, parts.shard, [reservation_id])

    def get_reservation(self) -> Item | None:
        known = self.known()
        return None if known is None else self.reservation_of(known.reservation_id)

    def get_availability(self) -> Item:
        key = self.key()
        shard = shard_of(key, self.plan.shards)
        keys = [key] + [other for other in self.keys if other != key and shard_of(other, self.plan.shards) == shard]
        return self._item(Verb.GET_AVAILABILITY, shard, [self.plan.work.channels[0], keys[: self.draw.randint(1, 3)]])

    def get_stock(self) -> Item:
        key = self.key()
        return self._of_key(Verb.GET_STOCK, key, [key])

    def explain(self) -> Item:
        key = self.key()
        body = [self.plan.work.channels[0], key, self.draw.randint(0, 3)]
        return self._of_key(Verb.EXPLAIN_AVAILABILITY, key, body)

    def lists(self) -> Item:
        size = self.draw.choice((1, 3, 100))
        verb, body = self.draw.choice(
            (
                (Verb.LIST_RESERVATIONS, ["", "", "", [], size, ""]),
                (Verb.LIST_STOCK, ["", False, size, ""]),
                (Verb.LIST_EXCEPTIONS, [[], "", "", [], size, ""]),
                (Verb.GET_HOST_STATUS, []),
            )
        )
        return self._item(verb, -1, body)

    # --- operators ----------------------------------------------------------------------------------------------------

    def policy(self) -> Item:
        draw, key = self.draw, self.key()
        fields = [
            draw.choice((-1, 0, 1, 3)),
            draw.choice((-1, 0, 2)),
            draw.choice(("", "EA")),
            draw.choice((0, 0, 2)),
            0,
            draw.choice((0, 0, 0, 0, 1, 2)),
            draw.choice((0, 0, 0, 1, 2)),
            draw.choice(([], [], [], [["L7"]], [[]])),
        ]
        return self._of_key(Verb.SET_STOCK_POLICY, key, [self.id("o"), digest_of(key, fields), key, *fields])

    def selling(self) -> Item:
        key = self.key()
        state = int(self.draw.choice((SellingState.OPEN, SellingState.OPEN, SellingState.SUSPENDED)))
        return self._of_key(Verb.SET_SELLING, key, [self.id("o"), digest_of(key, state), key, state, ""])

    def register(self, key: str = "") -> Item:
        key = key or self.key()
        fields = [self.draw.choice((-1, 0, 1)), 0, -1, ""]
        return self._of_key(Verb.REGISTER_STOCK, key, [self.id("o"), digest_of(key, fields), key, *fields])

    # --- the warehouse ------------------------------------------------------------------------------------------------

    def fact(self, name: str) -> Item:
        """A fact by its kind's name; now and then one that was told before, or one from before the last."""
        draw, memory = self.draw, self.memory
        if memory.events and draw.random() < 0.08:
            return [*draw.choice(memory.events[-12:])]
        item = self.ingest(*FACTS[name](self))
        if memory.events and draw.random() < 0.02:
            item[5][2] = draw.choice(memory.events[-12:])[5][2]  # an event id with other content
        memory.events.append(item)
        return [*item]

    def ingest(self, fact: int, details: list[Any], key: str = "", document_line: str = "") -> Item:
        key = key or self.key()
        memory, draw = self.memory, self.draw
        source = draw.choice(("wms", "wms", "robots"))
        sequence = 0
        if draw.random() < 0.5:
            last = memory.sequences.get(source, 0)
            if last and draw.random() < 0.02:
                sequence = draw.randint(1, last)  # a number that another event has
            else:
                sequence = memory.sequences[source] = last + 1
        occur_ms = self.wall_ms() - draw.choice((0, 10, 5_000))
        content = digest_of(fact, key, details, document_line)
        event = [source, "s1" if sequence else "", self.id("e"), sequence, occur_ms, key, content, fact, details, "D1"]
        reject = 2 if draw.random() < 0.005 else 0
        return self._of_key(Verb.INGEST, key, [*event, document_line, draw.choice(("", "", "L7")), 0, [], reject])

    def promise(self, key: str = "") -> list[str]:
        known, draw = self.known(confirmed=True), self.draw
        if known is None or draw.random() < 0.25:
            return []
        if known.order and draw.random() < 0.4:
            return ["", known.channel, known.order, ""]
        line_id = next((line[0] for line in known.lines if line[1] == key), "")
        return [known.reservation_id, "", "", draw.choice(("", line_id))]

    def promised_key(self) -> str:
        known = self.known(confirmed=True)
        return self.draw.choice(known.lines)[1] if known is not None and self.draw.random() < 0.8 else self.key()


FactDetails = tuple[int, list[Any], str, str]


def _receipt(orders: Orders) -> FactDetails:
    disposition = orders.draw.choice((SELLABLE,) * 8 + (2, 3))
    return int(Fact.RECEIPT), [orders.draw.randint(1, orders.plan.work.receipt_max), disposition, "", ""], "", ""


def _pick(orders: Orders) -> FactDetails:
    key = orders.promised_key()
    return int(Fact.PICK), [orders.draw.randint(1, 3), orders.promise(key)], key, ""


def _unpick(orders: Orders) -> FactDetails:
    key = orders.promised_key()
    return int(Fact.UNPICK), [orders.draw.randint(1, 3), orders.promise(key)], key, ""


def _shipment(orders: Orders) -> FactDetails:
    draw, key = orders.draw, orders.promised_key()
    details = [draw.randint(1, 3), orders._shipment(), orders.promise(key), draw.random() < 0.2, SELLABLE]
    return int(Fact.SHIPMENT), details, key, draw.choice(("", "", "1"))


def _adjustment(orders: Orders) -> FactDetails:
    return (
        int(Fact.ADJUSTMENT),
        [orders.draw.choice((-3, -1, 1, 4)), orders.draw.choice((SELLABLE, 3)), "found", ""],
        "",
        "",
    )


def _count(orders: Orders) -> FactDetails:
    draw = orders.draw
    as_of, now = draw.choice(((0, True), (0, False), (0, False), (3, False)))
    return int(Fact.STOCK_COUNT), [draw.randint(0, 20), SELLABLE, as_of, now, draw.random() < 0.5], "", ""


def _disposition(orders: Orders) -> FactDetails:
    pair = orders.draw.choice(([SELLABLE, 3], [3, SELLABLE], [SELLABLE, 2]))
    return int(Fact.DISPOSITION_CHANGE), [orders.draw.randint(1, 3), *pair], "", ""


def _dispatch(orders: Orders) -> FactDetails:
    draw = orders.draw
    truck, other = draw.choice(("T1", "T2")), draw.choice(orders.plan.work.warehouses)
    return int(Fact.TRANSFER_DISPATCH), [draw.randint(1, 3), truck, "1", other, SELLABLE], "", ""


def _transfer(orders: Orders) -> FactDetails:
    draw = orders.draw
    truck, other = draw.choice(("T1", "T2")), draw.choice(orders.plan.work.warehouses)
    details = [draw.randint(1, 3), truck, "1", other, draw.random() < 0.3, SELLABLE]
    return int(Fact.TRANSFER_RECEIPT), details, "", ""


def _return(orders: Orders) -> FactDetails:
    key = orders.promised_key()
    return int(Fact.CUSTOMER_RETURN), [orders.draw.randint(1, 2), SELLABLE, orders.promise(key), "R1"], key, ""


FACTS: dict[str, Callable[[Orders], FactDetails]] = {
    "receipt": _receipt,
    "pick": _pick,
    "unpick": _unpick,
    "shipment": _shipment,
    "adjustment": _adjustment,
    "count": _count,
    "disposition": _disposition,
    "dispatch": _dispatch,
    "transfer": _transfer,
    "return": _return,
}
