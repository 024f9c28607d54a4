"""A small exhaustive search for an order that explains the answers: positions and journal are ignored, so that those that lie
are caught.

The search of Wing and Gong (1993), with the memory of Lowe (2017): an operation may come next when no other one that is not
yet placed had returned before it was invoked; states seen before are not searched again. Calls without an answer, and the
expiry of every hold, may happen at any time after they were asked for, or never; but no answer of a time before a hold's
deadline comes after its expiry. Other times inside answers are not compared: they are the judge's business. Histories are cut
into groups of stock keys that no order joins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.simulation import model_feeds
from tests.simulation.history import OK, OPERATOR_VERBS, READS, REFUSED, UNKNOWN, Operation
from tests.simulation.model import Model, Settings

OPERATIONS_MAX = 40  # of one search: it is exhaustive
STATES_MAX = 20_000  # looked at before a search is given up undecided
ENDED = ("RESERVATION_EXPIRED", "RESERVATION_RELEASED", "RESERVATION_FULFILLED")
ENDED_STATES = ("EXPIRED", "RELEASED", "FULFILLED")
FOREVER_MS = 10**18
OF_TIME = ("TOO_OLD", "SEQUENCE_REUSED", "DEFERRED_TOO_LONG", "BEFORE_HISTORY")
ID_ASKED = {"reserve": "request_id", "release_by_request": "reserve_request_id"}  # whose answers tell a reserve's id


@dataclass(frozen=True, slots=True)
class Unexplained:
    """Operations whose answers no order explains, and the longest part of one that does."""

    operations: tuple[Operation, ...]
    explained: tuple[Operation, ...]

    def __str__(self) -> str:
        lines = ["no order explains these answers; as far as the longest goes:"]
        lines += [f"  {one.about}" for one in self.explained]
        lines += ["and left over:"]
        return "\n".join(lines + [f"  {one.about}" for one in self.operations if one not in self.explained])


def unexplained(
    operations: Sequence[Operation], settings: Settings | None = None, most: int = OPERATIONS_MAX
) -> list[Unexplained]:
    """Groups of keys whose first ``most`` operations no order explains; empty when all is well."""
    found = []
    for group in groups(operations):
        search = Search(first_of(group, most), settings or Settings())
        if search.run() is False:
            best = tuple(search.operations[number] for number in search.best)
            found.append(Unexplained(tuple(one for one in search.operations if one.verb != "expire"), best))
    return found


# --- what is searched -----------------------------------------------------------------------------------------------------


def groups(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Operations that have to do with each other, over stock keys, reservations and ids."""
    leader: dict[Any, Any] = {}

    def find(name: Any) -> Any:
        leader.setdefault(name, name)
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    concerned = [list(names(operation)) for operation in operations]
    for group in concerned:
        for name in group:
            leader[find(name)] = find(group[0])
    found: dict[Any, list[Operation]] = {}
    for operation, group in zip(operations, concerned, strict=True):
        if group:
            found.setdefault(find(group[0]), []).append(operation)
    return list(found.values())


def names(operation: Operation) -> Iterable[Any]:
    """What an operation is about."""
    arguments, answer = operation.arguments, operation.answer
    yield from (("key", key) for key in arguments.get("keys", ()))
    if "key" in arguments:
        yield ("key", arguments["key"])
    for line in (*arguments.get("lines", ()), *arguments.get("target_lines", ())):
        if len(line) == 4:
            yield ("key", line[1])
    for name in ("reservation_id", "replaces_reservation_id"):
        if arguments.get(name) or answer.get(name):
            yield ("reservation", arguments.get(name) or answer.get(name))
    if operation.verb == "ingest":
        yield ("event", arguments["source_id"], arguments["event_id"])
        if arguments["fact"] == "TRANSFER_DISPATCH":
            yield ("key", (arguments["details"]["to_warehouse_id"], arguments["key"][1]))
        promise = arguments["details"].get("promise")
        if promise:
            yield ("reservation", promise[0]) if promise[0] else ("order", promise[1], promise[2])
    elif "request_id" in arguments and operation.verb not in OPERATOR_VERBS:
        yield ("request", arguments["request_id"])
        if arguments.get("reserve_request_id"):
            yield ("request", arguments["reserve_request_id"])
    if arguments.get("order_reference") and arguments.get("channel_id"):
        yield ("order", arguments["channel_id"], arguments["order_reference"])


def first_of(group: Sequence[Operation], most: int) -> list[Operation]:
    """The first operations of a group. One that others, which are left out, might have come before explains nothing."""
    group = sorted(group, key=lambda operation: operation.invoked)
    if len(group) <= most:
        return group
    until = group[most].invoked
    return [
        one if one.returned < until else replace(one, status=UNKNOWN, returned=math.inf, answer=dict(one.answer))
        for one in group[:most]
    ]


# --- the search -----------------------------------------------------------------------------------------------------------


class Search:
    """One exhaustive search. ``run``: True, False, or None when it was given up."""

    def __init__(self, operations: Sequence[Operation], settings: Settings) -> None:
        self._settings = replace(settings, lifetime_ms_max=FOREVER_MS, dedupe_window_ms=FOREVER_MS, feeds=False)
        operations = without_clock(operations)
        known = [one for one in operations if explains(one) or (one.verb not in READS and one.status == UNKNOWN)]
        ids = {
            (one.arguments["channel_id"], one.arguments[ID_ASKED[one.verb]]): one.answer["reservation_id"]
            for one in known
            if one.verb in ID_ASKED and one.answer.get("reservation_id")
        }
        self._new_ids = {
            number: ids.get((one.arguments["channel_id"], one.arguments["request_id"]), f"unknown {number}")
            for number, one in enumerate(known)
            if one.verb == "reserve"
        }
        self.operations = [*known, *expiries(known, self._new_ids), *settlings(known)]
        self._required = sum(1 << number for number, one in enumerate(self.operations) if explains(one))
        self._seen: set[Any] = set()
        self._path: list[int] = []
        self.best: list[int] = []

    def run(self) -> bool | None:
        """Look for an order."""
        found = self._from(0, Model(self._settings))
        return None if not found and len(self._seen) >= STATES_MAX else found

    def _from(self, done: int, model: Model) -> bool:
        """Whether the rest can be placed after those that are ``done``."""
        depth = len(self._path)
        done, model = self._place_questions(done, model)
        if len(self._path) > len(self.best):
            self.best = list(self._path)
        if done & self._required == self._required:
            return True
        state = (done, signature(model))
        if state not in self._seen and len(self._seen) < STATES_MAX:
            self._seen.add(state)
            for number in self._next(done):
                placed, changed = self._try(number, model)
                if placed and changed:
                    self._path.append(number)
                    if self._from(done | 1 << number, model):
                        return True
                    self._path.pop()
                if changed:
                    model = self._again()
        del self._path[depth:]
        return False

    def _next(self, done: int) -> list[int]:
        """Those that may come next: nobody who is not placed had returned before they were invoked; answered ones first."""
        open_ones = [number for number in range(len(self.operations)) if not done >> number & 1]
        until = min(
            (self.operations[number].returned for number in open_ones if self._required >> number & 1), default=0
        )
        ready = [number for number in open_ones if self.operations[number].invoked <= until]
        return sorted(ready, key=lambda number: (not self._required >> number & 1, self.operations[number].returned))

    def _place_questions(self, done: int, model: Model) -> tuple[int, Model]:
        """What changes nothing and is right here may as well come here."""
        placed = True
        while placed:
            placed = False
            for number in self._next(done):
                one = self.operations[number]
                if not self._required >> number & 1 or not (one.verb in READS or one.status == REFUSED or one.replayed):
                    continue
                fits_here, changed = self._try(number, model)
                if changed:
                    model = self._again()
                elif fits_here:
                    done |= 1 << number
                    self._path.append(number)
                    placed = True
        return done, model

    def _try(self, number: int, model: Model) -> tuple[bool, bool]:
        """Place one: whether its answer fits, and whether the model is another one now."""
        one = self.operations[number]
        if one.time_ms and not one.replayed and one.time_ms < self._latest_expiry_ms() and one.verb != "expire":
            return False, False
        return self._place(number, model)

    def _place(self, number: int, model: Model) -> tuple[bool, bool]:
        one = self.operations[number]
        if one.verb == "expire":
            reservation = model.reservations.get(one.arguments["reservation_id"])
            if reservation is None or reservation.state != "HELD":
                return False, False
            model.expire(reservation.id, 0)
            return True, True
        if one.verb == "settle":
            settled = model_feeds.settle(model, one.arguments["identity"], 0)
            return settled.changed, settled.changed
        outcome = model.call(one.verb, one.arguments, 0, new_id=self._new_ids.get(number, ""), digest=one.digest)
        return not self._required >> number & 1 or fits(one, outcome), outcome.changed

    def _latest_expiry_ms(self) -> int:
        """No answer of an earlier time comes after that."""
        placed = [self.operations[number] for number in self._path]
        return max((one.time_ms for one in placed if one.verb == "expire"), default=0)

    def _again(self) -> Model:
        """The model after the path so far."""
        model = Model(self._settings)
        for number in self._path:
            self._place(number, model)
        return model


def explains(operation: Operation) -> bool:
    """Whether its answer says something that an order has to explain."""
    if operation.status not in (OK, REFUSED):
        return False
    if operation.answer.get("reason") == "LIFETIME_EXCEEDED":  # only a clock explains it
        return False
    # A shipment told again is known only while its reservation is in memory.
    return not (operation.verb == "fulfill" and operation.status == REFUSED and operation.answer["reason"] in ENDED)


def without_clock(operations: Sequence[Operation]) -> list[Operation]:
    """An event that only a clock, or the order of its source's whole stream, says to reject comes as one that is, whoever of
    its senders was told; one that somebody was told waits comes as one that does."""
    reasons: dict[Any, str] = {}
    waiting = set()
    firsts = {_event(one) for one in operations if one.verb == "ingest" and not one.replayed}
    # Told a duplicate though nobody had its id decided: so old that its sequence alone told it. It changed nothing.
    operations = [one for one in operations if one.verb != "ingest" or _event(one) in firsts]
    for one in operations:
        if one.verb == "ingest":
            if one.answer.get("reject_reason") in OF_TIME:
                reasons[_event(one)] = one.answer["reject_reason"]
            if one.answer.get("outcome") == "DEFERRED":
                waiting.add(_event(one))
    return [
        replace(one, arguments={**one.arguments, "reject_reason": reasons.get(_event(one), ""), "waits": True})
        if one.verb == "ingest" and _event(one) in waiting
        else replace(one, arguments={**one.arguments, "reject_reason": reasons[_event(one)]})
        if one.verb == "ingest" and _event(one) in reasons
        else one
        for one in operations
    ]


def _event(operation: Operation) -> Any:
    return (operation.arguments["source_id"], operation.arguments["event_id"], operation.digest)


def settlings(operations: Sequence[Operation]) -> list[Operation]:
    """What waits is decided at any time after it was told, or not yet."""
    firsts: dict[Any, Operation] = {}
    for one in operations:
        if one.verb == "ingest" and one.arguments.get("waits"):
            firsts.setdefault(("event", *_event(one)[:2]), one)
    return [Operation("clock", "settle", {"identity": identity}, one.invoked) for identity, one in firsts.items()]


def expiries(operations: Sequence[Operation], new_ids: dict[int, str]) -> list[Operation]:
    """A hold may expire at any time from its first deadline on, or never."""
    holds = {
        new_ids[number]: one
        for number, one in reversed(list(enumerate(operations)))
        if one.verb == "reserve" and one.status != REFUSED and not one.arguments["confirm"]
    }
    return [
        Operation("clock", "expire", {"reservation_id": held}, one.invoked, time_ms=one.answer.get("expire_time_ms", 0))
        for held, one in holds.items()
    ]


def fits(operation: Operation, outcome: Any) -> bool:
    """Whether the answer is the model's, times and exceptions' names apart."""
    if outcome.status != operation.status or (outcome.replayed and not operation.replayed):
        return False
    return all(
        _unpicked(outcome.answer, name) == _unpicked(operation.answer, name)
        for name in operation.answer
        if not name.endswith("_time_ms") and name not in ("exception_id", "watermark")
    )


def _unpicked(answer: dict[str, Any], name: str) -> Any:
    """A part of an answer. What was picked for an ended reservation counts as its own while its claims are in memory, and as
    adrift under its name afterwards: when they leave is no caller's doing."""
    value = answer.get(name)
    if name == "lines" and answer.get("state") in ENDED_STATES:
        return [line._replace(picked=0) for line in value or ()]
    return value


def signature(model: Model) -> Any:
    """What tells two states of the model apart, given which operations were placed."""
    stock = [
        (
            one.key, tuple(sorted(one.on_hand.items())), one.safety_stock, one.selling_state, one.max_quantity_per_order,
            one.policy_version, tuple(sorted(one.adrift.items())), tuple(sorted(one.booked.items())), one.policy(),
            tuple(sorted((name, repr(transfer)) for name, transfer in one.transfers.items())), repr(one.counts),
            repr(one.notes),
        )
        for one in model.stock.values()
    ]  # fmt: skip
    orders = [
        (
            one.id, one.state, one.version, one.order_reference, tuple(one.lines),
            tuple(
                (where, claim.granted, claim.fulfilled, claim.released, claim.expired, claim.picked, claim.uncovered)
                for where, claim in one.claims.items()
            ),
        )
        for one in model.reservations.values()
    ]  # fmt: skip
    decisions = [(repr(identity), repr(spent.answer)) for identity, spent in model.spent.items()]  # to be given again
    return (tuple(sorted(stock)), tuple(sorted(orders)), tuple(sorted(decisions)))
