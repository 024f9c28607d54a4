"""The oracle of warehouse feeds: what stands in the books once all of a set of events came, whatever their order and repeats.

A pure function of the set, written from the design and not from the service, of which it imports nothing. It keeps no state and
knows no arrival: a count is compared with what the facts before its place make, and what came after it is added, so that
``expected`` of the same events in any order is the same. Rules:

* An event is known by (source, event id); told again it is nothing new.
* A fact is *after* a count when both have a place in one stream and its sequence is higher than the count's n; else (another
  stream, no sequence, order management) when it occurred later.
* On hand = the newest count's units, what was picked at its place with them unless it counted them in, and all facts after it.
* Picked of a promise = picks − unpicks − shipped, never below nothing; so at a place as well, of the facts before it.
* What does not commute waits until its stream is whole up to its place: a count as of n for n, a shipment that closes the rest
  of its order for everything before it. With a hole there it is not booked at all.
* In transit = dispatched − received, never below nothing, and nothing once a receipt is the last.

Orders stand before the first event, and do not change but by shipments. Counts that are taken as now are not for this oracle:
they depend on when they come, by intent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Key = tuple[str, str]  # (warehouse_id, sku)
Promise = tuple[str, ...]  # () or (reservation_id, channel_id, order_reference, line_id)
SELLABLE = "SELLABLE"
ORDER_MANAGEMENT = ""  # the source of fulfilments


class WarehouseEvent(NamedTuple):
    """One event, in the words of histories: ``details`` are those of ``history.FACT_DETAILS``."""

    source_id: str
    stream_id: str
    event_id: str
    source_sequence: int  # 0: it has none
    occur_time_ms: int
    key: Key
    fact: str
    details: Mapping[str, Any]
    document_line: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    lot_id: str = ""


class Order(NamedTuple):
    """Units that an order has at a stock key, confirmed, before the first event."""

    reservation_id: str
    key: Key
    quantity: int
    channel_id: str = ""
    order_reference: str = ""


def fulfilment(reservation_id: str, key: Key, quantity: int, shipment_id: str, occur_time_ms: int) -> WarehouseEvent:
    """A shipment that order management tells."""
    details = {
        "quantity": quantity, "shipment_id": shipment_id, "promise": (reservation_id, "", "", ""), "close_remainder": False,
        "disposition": SELLABLE,
    }  # fmt: skip
    return WarehouseEvent(
        ORDER_MANAGEMENT, "", f"{shipment_id} {reservation_id} {key}", 0, occur_time_ms, key, "SHIPMENT", details
    )


@dataclass
class Expected:
    """What must stand in the books. Units that are nothing are left out."""

    on_hand: dict[tuple[Key, str], int] = field(default_factory=dict)  # (key, disposition)
    picked: dict[Key, int] = field(default_factory=dict)
    picked_adrift: dict[Key, int] = field(default_factory=dict)
    fulfilled: dict[tuple[Key, str], int] = field(default_factory=dict)  # (key, reservation id)
    released: dict[tuple[Key, str], int] = field(default_factory=dict)  # by a shipment that closed its order
    in_transit: dict[tuple[Key, str, str], int] = field(
        default_factory=dict
    )  # (key of the destination, transfer, line)
    watermarks: dict[tuple[str, str], int] = field(default_factory=dict)  # (source, stream) → whole up to there
    waiting: set[tuple[str, str]] = field(default_factory=set)  # (source, event id) that wait for a hole to be filled


def expected(
    events: Iterable[WarehouseEvent],
    orders: Sequence[Order] = (),
    *,
    rejected: Collection[tuple[str, str]] = (),
    lands: Callable[[WarehouseEvent, str], str] = lambda event, disposition: disposition,
) -> Expected:
    """What a set of events makes. ``rejected``: (source, event id) of those that were received and not booked, whatever for;
    ``lands``: where units that come in as that disposition are booked (the sale gate).
    """
    known = {(event.source_id, event.event_id): event for event in events}
    found = Expected(watermarks=watermarks(known.values()))
    booked = []
    for identity, event in known.items():
        if identity in rejected or has_no_place(event):
            continue
        if must_wait_for(event) > found.watermarks.get((event.source_id, event.stream_id), 0):
            found.waiting.add(identity)
        else:
            booked.append(event)
    here: dict[Key, tuple[list[WarehouseEvent], list[Order]]] = {}
    for event in booked:
        here.setdefault(event.key, ([], []))[0].append(event)
    for order in orders:
        here.setdefault(order.key, ([], []))[1].append(order)
    for key, (events_here, orders_here) in here.items():
        _stock_key(found, key, events_here, orders_here, lands)
    _transfers(found, booked)
    return found


def place_of(event: WarehouseEvent) -> int | None:
    """The n of a count; None: it has none."""
    return event.details["as_of_source_sequence"] or (event.source_sequence - 1 if event.source_sequence else None)


def has_no_place(event: WarehouseEvent) -> bool:
    """A count that says no place and has none is not booked: nobody knows what was before it."""
    return event.fact == "STOCK_COUNT" and place_of(event) is None


def must_wait_for(event: WarehouseEvent) -> int:
    """Up to where its stream must be whole before it can be booked; 0: at once."""
    if event.fact == "STOCK_COUNT":
        return place_of(event) or 0
    closes = event.fact == "SHIPMENT" and event.details["close_remainder"]
    return max(0, event.source_sequence - 1) if closes else 0


def watermarks(events: Iterable[WarehouseEvent]) -> dict[tuple[str, str], int]:
    """Up to where each stream is whole, from 1 on."""
    sequences: dict[tuple[str, str], set[int]] = {}
    for event in events:
        if event.source_sequence:
            sequences.setdefault((event.source_id, event.stream_id), set()).add(event.source_sequence)
    found = {}
    for stream, numbers in sequences.items():
        whole = 0
        while whole + 1 in numbers:
            whole += 1
        found[stream] = whole
    return found


def is_after(fact: WarehouseEvent, count: WarehouseEvent) -> bool:
    """Whether a fact came after what was counted."""
    n = place_of(count)
    same = (fact.source_id, fact.stream_id) == (count.source_id, count.stream_id)
    if same and fact.source_sequence and n is not None:
        return fact.source_sequence > n
    return fact.occur_time_ms > count.occur_time_ms


def newest_of(counts: Iterable[WarehouseEvent]) -> WarehouseEvent | None:
    """The count that was taken last: in one stream by place; of the streams' last ones by time."""
    last: dict[tuple[str, str], WarehouseEvent] = {}
    for count in counts:
        stream = (count.source_id, count.stream_id)
        if stream not in last or _in_stream(count) > _in_stream(last[stream]):
            last[stream] = count
    return max(last.values(), key=_in_time, default=None)


def _in_stream(count: WarehouseEvent) -> tuple[Any, ...]:
    return (place_of(count) or 0, count.occur_time_ms, count.source_sequence, count.event_id)


def _in_time(count: WarehouseEvent) -> tuple[Any, ...]:
    place = place_of(count) or 0
    return (count.occur_time_ms, count.source_id, count.stream_id, place, count.source_sequence, count.event_id)


# --- one stock key ----------------------------------------------------------------------------------------------------


def _stock_key(
    found: Expected,
    key: Key,
    here: Sequence[WarehouseEvent],
    orders: Sequence[Order],
    lands: Callable[[WarehouseEvent, str], str],
) -> None:
    facts = [event for event in here if event.fact != "STOCK_COUNT"]
    moves = [(event, disposition, units) for event in facts for disposition, units in moved(event, lands)]
    counts = [event for event in here if event.fact == "STOCK_COUNT"]
    for disposition in {one for _, one, _ in moves} | {count.details["disposition"] for count in counts}:
        newest = newest_of(count for count in counts if count.details["disposition"] == disposition)
        units = 0
        if newest is not None:
            units = newest.details["quantity"]
            if disposition == SELLABLE and not newest.details["includes_picked"]:
                before = [event for event in facts if not is_after(event, newest)]
                units += sum(max(0, net) for net in picked_nets(before, orders).values())
        units += sum(
            delta for event, one, delta in moves if one == disposition and (newest is None or is_after(event, newest))
        )
        _put(found.on_hand, (key, disposition), units)
    _orders(found, key, facts, orders)


def moved(
    event: WarehouseEvent, lands: Callable[[WarehouseEvent, str], str] = lambda event, disposition: disposition
) -> list[tuple[str, int]]:
    """(disposition, units) that a fact brings or takes."""
    details = event.details
    if event.fact in ("PICK", "UNPICK", "STOCK_COUNT"):
        return []
    if event.fact == "ADJUSTMENT":
        return [(details["disposition"], details["delta"])]
    quantity = details["quantity"]
    if event.fact == "DISPOSITION_CHANGE":
        return [(details["from_disposition"], -quantity), (details["to_disposition"], quantity)]
    if event.fact in ("SHIPMENT", "TRANSFER_DISPATCH"):
        return [(details["disposition"], -quantity)]
    return [(lands(event, details["disposition"]), quantity)]


def picked_nets(facts: Iterable[WarehouseEvent], orders: Sequence[Order]) -> dict[Promise, int]:
    """By promise: picks less unpicks less shipped; may be below nothing, when a shipment overtook its pick."""
    signs = {"PICK": 1, "UNPICK": -1, "SHIPMENT": -1}
    known = names_of(orders)
    nets: dict[Promise, int] = {}
    for fact in facts:
        if fact.fact in signs:
            promise = whose(fact, known)
            nets[promise] = nets.get(promise, 0) + signs[fact.fact] * fact.details["quantity"]
    return nets


def names_of(orders: Sequence[Order]) -> dict[Promise, Promise]:
    """Under which one name goes what names the reservation, or its order; the line does not matter."""
    names: dict[Promise, Promise] = {}
    for order in orders:
        name = (order.reservation_id, "", "")
        names[name] = name
        if order.order_reference:
            names[("", order.channel_id, order.order_reference)] = name
    return names


def whose(fact: WarehouseEvent, names: Mapping[Promise, Promise]) -> Promise:
    """The one name of a fact's promise."""
    promise: Promise = tuple(fact.details["promise"][:3])
    if promise and promise[0]:
        promise = (promise[0], "", "")
    return names.get(promise, promise)


def _orders(found: Expected, key: Key, facts: Sequence[WarehouseEvent], orders: Sequence[Order]) -> None:
    nets, names = picked_nets(facts, orders), names_of(orders)
    shipped: dict[Promise, int] = {}
    closed: set[Promise] = set()
    for fact in facts:
        if fact.fact == "SHIPMENT":
            promise = whose(fact, names)
            shipped[promise] = shipped.get(promise, 0) + fact.details["quantity"]
            if fact.details["close_remainder"]:
                closed.add(promise)
    open_units: dict[Promise, int] = {}
    for order in orders:
        mine: Promise = (order.reservation_id, "", "")
        fulfilled = min(order.quantity, shipped.get(mine, 0))
        _put(found.fulfilled, (key, order.reservation_id), fulfilled)
        _put(found.released, (key, order.reservation_id), order.quantity - fulfilled if mine in closed else 0)
        open_units[mine] = 0 if mine in closed else order.quantity - fulfilled
    shown = {promise: max(0, net) for promise, net in nets.items()}
    _put(found.picked, key, sum(shown.values()))
    _put(
        found.picked_adrift,
        key,
        sum(max(0, units - open_units.get(promise, 0)) for promise, units in shown.items()),
    )


# --- between warehouses -----------------------------------------------------------------------------------------------


def _transfers(found: Expected, booked: Iterable[WarehouseEvent]) -> None:
    dispatched: dict[tuple[Key, str, str], int] = {}
    received: dict[tuple[Key, str, str], int] = {}
    last: set[tuple[Key, str, str]] = set()
    for event in booked:
        details = event.details
        if event.fact == "TRANSFER_DISPATCH":
            destination = (details["to_warehouse_id"], event.key[1])
            transfer = (destination, details["transfer_id"], details["transfer_line"])
            dispatched[transfer] = dispatched.get(transfer, 0) + details["quantity"]
        elif event.fact == "TRANSFER_RECEIPT":
            transfer = (event.key, details["transfer_id"], details["transfer_line"])
            received[transfer] = received.get(transfer, 0) + details["quantity"]
            if details["final"]:
                last.add(transfer)
    for transfer, units in dispatched.items():
        _put(found.in_transit, transfer, 0 if transfer in last else max(0, units - received.get(transfer, 0)))


def _put(into: dict[Any, int], name: Any, units: int) -> None:
    if units:
        into[name] = units
