"""The oracle: an independent sequential model of the whole service, in the plainest Python. One call at a time, in order.

It owns which answer is right: ids first, then the decision. Who calls it says when: ``now_ms``, and which holds expire
(``expire``), since only the home's clock decides that; what is due and what is not it knows (``deadline``). The rules of orders
are in ``model_orders``, those of units that come and go in ``model_warehouse``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.simulation import model_amending, model_counts, model_feeds, model_orders, model_warehouse
from tests.simulation.history import Key, LineSeen
from tests.simulation.model_state import (
    EXPIRED,
    FULFILLED,
    HELD,
    RELEASED,
    Outcome,
    Reservation,
    Settings,
    Spent,
    Stock,
    failed,
    refused,
)

__all__ = ["Model", "Settings"]


class Model:
    """All stock keys and reservations."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.stock: dict[Key, Stock] = {}
        self.reservations: dict[str, Reservation] = {}
        self.spent: dict[tuple[Any, ...], Spent] = {}
        self.other_content: dict[tuple[Any, ...], list[Spent]] = {}  # event ids told again with other content
        self.owned: dict[int, tuple[int, int]] = {}  # shard → (owned since, grace until)
        self.shards: dict[Key, int] = {}  # where stock keys are, where the caller told it
        self.homes: dict[str, int] = {}  # reservation id → shard, where the caller told it
        self.feeds: dict[tuple[str, str], model_feeds.Feed] = {}  # (source, stream) → what came of it
        self.exceptions = 0
        self.exceptions_open: dict[int, int] = {}  # by shard

    # --- one call ---------------------------------------------------------------------------------------------------------

    def call(
        self,
        verb: str,
        arguments: Mapping[str, Any],
        now_ms: int,
        *,
        new_id: str = "",
        shard: int = 0,
        digest: bytes = b"",
    ) -> Outcome:
        """The right answer, and its effects. ``new_id``: for a reservation that this makes. ``shard``: where it is decided."""
        if verb in READS:
            return READS[verb](self, arguments)
        identity = self.identity(verb, arguments)
        if identity is None:
            return failed("RESERVATION_NOT_FOUND")
        spent = self.spent.get(identity)
        if spent is not None:
            again = self.repeat(identity, spent, verb, arguments, digest, shard)
            if again is not None:
                return again
        outcome = self._decide(verb, arguments, now_ms, new_id, shard)
        if outcome.changed:
            self._spend(identity, Spent(verb, arguments, digest, outcome.status, outcome.answer), outcome)
        return outcome

    def _decide(self, verb: str, arguments: Mapping[str, Any], now_ms: int, new_id: str, shard: int) -> Outcome:
        if verb == "reserve":
            self.homes[new_id] = shard
            return model_orders.reserve(self, arguments, now_ms, new_id)
        if verb == "ingest":
            return model_feeds.ingest(self, arguments, now_ms, shard)
        if verb == "amend":
            return model_amending.amend(self, arguments, now_ms)
        if verb == "fulfill":
            return model_warehouse.fulfill(self, arguments, now_ms)
        if verb == "release_by_request":
            return self._release_by_request(arguments, now_ms)
        if verb in POLICIES:
            return POLICIES[verb](self, arguments, shard)
        return model_orders.VERBS[verb](self, arguments, now_ms)

    def _release_by_request(self, arguments: Mapping[str, Any], now_ms: int) -> Outcome:
        """A reserve whose answer was never seen; one that did not come yet is refused when it comes."""
        key = ("request", arguments["channel_id"], arguments["reserve_request_id"])
        spent = self.spent.get(key)
        if spent is not None and spent.reservation_id:
            if spent.verb != "reserve":
                return failed("INVALID_FIELD")
            return model_orders.release(self, {**arguments, "reservation_id": spent.reservation_id}, now_ms)
        if spent is None:
            self.spent[key] = Spent("reserve", {}, b"", "refused", dict(TOMBSTONE), tombstone=True)
        return Outcome("ok", nothing(arguments["channel_id"], now_ms), changed=True)

    # --- ids --------------------------------------------------------------------------------------------------------------

    def identity(self, verb: str, arguments: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The id that a call spends, in its scope; None for a verb on a reservation that nobody knows."""
        if verb == "ingest":
            return ("event", arguments["source_id"], arguments["event_id"])
        if "key" in arguments:
            return ("operator", arguments["request_id"], arguments["key"])
        if "channel_id" in arguments:
            return ("request", arguments["channel_id"], arguments["request_id"])
        reservation = self.reservations.get(arguments["reservation_id"])
        return None if reservation is None else ("request", reservation.channel_id, arguments["request_id"])

    def repeat(
        self,
        identity: tuple[Any, ...],
        spent: Spent,
        verb: str,
        arguments: Mapping[str, Any],
        digest: bytes,
        shard: int,
    ) -> Outcome | None:
        """What a spent id gets: the first decision, or REQUEST_ID_REUSED for other content."""
        if spent.tombstone and verb == "reserve":
            return Outcome("refused", dict(TOMBSTONE))
        if not same_content(spent, verb, arguments, digest):
            if verb != "ingest":
                return failed("REQUEST_ID_REUSED")
            for other in self.other_content.get(identity, ()):
                if same_content(other, verb, arguments, digest):
                    return Outcome("ok", other.answer, replayed=True)
            outcome = model_warehouse.reject(self, "EVENT_ID_REUSED", shard)
            if not outcome.changed:
                return outcome
            feed = model_feeds.feed_of(self, arguments)
            feed.receive(arguments["source_sequence"])
            model_feeds.count(feed, outcome)
            self.other_content.setdefault(identity, []).append(Spent(verb, arguments, digest, "ok", outcome.answer))
            return outcome
        if verb == "ingest":
            outcome_again = {"APPLIED": "DUPLICATE"}.get(spent.answer["outcome"], spent.answer["outcome"])
            return Outcome("ok", {**spent.answer, "outcome": outcome_again}, replayed=True)
        if identity[0] == "operator":
            return Outcome("ok", self.stock[arguments["key"]].seen(), replayed=True)
        if spent.status == "refused" or not spent.reservation_id:
            return Outcome(spent.status, spent.answer, replayed=True)
        return Outcome("ok", self.again(spent), replayed=True)

    def again(self, spent: Spent) -> dict[str, Any]:
        """A decision on a reservation given again: as it was decided, with what became of its units since."""
        reservation = self.reservations[spent.reservation_id]
        answer = dict(spent.answer)
        answer["lines"] = self.lines_seen(
            reservation, [(line.line_id, line.key, line.requested, line.granted) for line in answer["lines"]]
        )
        if "confirm_time_ms" in answer:
            answer["order_reference"] = reservation.order_reference
            answer["confirm_time_ms"] = reservation.confirm_time_ms
            answer["end_time_ms"] = reservation.end_time_ms if answer["state"] == reservation.state else 0
        return answer

    def _spend(self, identity: tuple[Any, ...], spent: Spent, outcome: Outcome) -> None:
        spent.reservation_id = outcome.answer.get("reservation_id") or spent.arguments.get("reservation_id", "")
        self.spent[identity] = spent

    # --- what time does -----------------------------------------------------------------------------------------------------

    def own(self, shard: int, now_ms: int, grace_until_ms: int) -> None:
        """A shard has a new owner: deadlines that passed while nobody owned it end with the grace."""
        self.owned[shard] = (now_ms, grace_until_ms)

    def deadline(self, reservation: Reservation) -> int:
        """When a hold ends."""
        since, grace = self.owned.get(self.homes.get(reservation.id, -1), (0, 0))
        expire_time_ms = reservation.expire_time_ms
        return max(expire_time_ms, grace) if expire_time_ms < since else expire_time_ms

    def due(self, reservation: Reservation, now_ms: int) -> bool:
        """Whether a hold's deadline has come."""
        return reservation.state == HELD and now_ms >= self.deadline(reservation)

    def due_on(self, key: Key, now_ms: int) -> list[str]:
        """Holds with units on a stock key whose deadline has come."""
        stock = self.stock.get(key)
        holders = {claim.reservation_id for claim in stock.live.values() if claim.open} if stock is not None else set()
        return sorted(holder for holder in holders if self.due(self.reservations[holder], now_ms))

    def expire(self, reservation_id: str, now_ms: int) -> None:
        """The home let a hold expire."""
        reservation = self.reservations[reservation_id]
        touched = []
        for stock, claim in self.claims_of(reservation):
            if claim.open:
                claim.expired += claim.open
                stock.touched(claim)
                touched.append(stock)
        reservation.version += 1
        self.end(reservation, EXPIRED, now_ms)
        for stock in touched:
            self.watch(stock)

    def forget_claims(self, key: Key, reservation_id: str) -> None:
        """Ended claims left memory: a promise that names them is not known any more."""
        stock = self.stock[key]
        claims = stock.claims.pop(reservation_id)
        for claim in claims.values():
            pile = (reservation_id, "", "")
            if claim.order_reference:
                pile = ("", claim.channel_id, claim.order_reference)
            model_warehouse.Picks(stock).pile(pile, claim.net)
            model_counts.rename(stock, (reservation_id, "", ""), pile)
            stock.live.pop((claim.reservation_id, claim.line_id), None)
            stock.orders.get((claim.channel_id, claim.order_reference), set()).discard(reservation_id)

    def retire(self, reservation_id: str) -> None:
        """An ended reservation left memory: its lines stay as they ended."""
        self.reservations[reservation_id].in_memory = False

    # --- shared by the rules ------------------------------------------------------------------------------------------------

    def claims_of(self, reservation: Reservation) -> list[tuple[Stock, Any]]:
        """Its claims in the order of its lines."""
        found = []
        for line_id, key, _, _ in reservation.lines:
            claim = reservation.claims.get((line_id, key))
            if claim is not None:
                found.append((self.stock[key], claim))
        return found

    def end(self, reservation: Reservation, otherwise: str, now_ms: int) -> None:
        """No unit is open any more."""
        reservation.state = FULFILLED if reservation.fulfilled_units else otherwise
        reservation.end_time_ms = now_ms

    def end_if_nothing_is_open(self, reservation: Reservation, otherwise: str, now_ms: int) -> None:
        """Ends a reservation whose units have all ended."""
        if reservation.live and not sum(claim.open for _, claim in self.claims_of(reservation)):
            self.end(reservation, otherwise, now_ms)

    def watch(self, stock: Stock) -> None:
        """A shortage has an exception as long as it lasts."""
        short = stock.shortage()
        if short and not stock.shortage_exception:
            stock.shortage_exception = self.new_exception(stock.shard)
        elif stock.shortage_exception and not short:
            stock.shortage_exception = ""
            self.exceptions_open[stock.shard] -= 1

    def new_stock(self, key: Key, shard: int = 0) -> Stock:
        """A stock key that nobody knew. ``shard``: where it is, unless that was told before."""
        return Stock(key, self.shards.get(key, shard))

    def new_exception(self, shard: int) -> str:
        """Somebody must look."""
        self.exceptions_open[shard] = self.exceptions_open.get(shard, 0) + 1
        self.exceptions += 1
        return f"exception {self.exceptions}"

    def ended(self, reservation: Reservation) -> Outcome | None:
        """The refusal of a verb on an ended reservation."""
        return None if reservation.live else refused(f"RESERVATION_{reservation.state}", reservation)

    def lines_seen(self, reservation: Reservation, lines: Any = None) -> tuple[LineSeen, ...]:
        """Lines as an answer shows them; ``lines``: those of an earlier decision, with what became of them since."""
        seen = []
        last = {(line_id, key) for line_id, key, _, _ in reservation.lines}
        for line_id, key, requested, granted in lines if lines is not None else reservation.lines:
            claim = reservation.claims.get((line_id, key))
            if claim is None:
                seen.append(LineSeen(line_id, key, requested, granted))
            elif not reservation.in_memory and (line_id, key) not in last:
                seen.append(LineSeen(line_id, key, requested, granted, released=granted))  # an amend took it all away
            else:
                shown = claim.granted if lines is None else granted
                ended = (claim.fulfilled, claim.released, claim.expired, claim.picked)
                seen.append(LineSeen(line_id, key, requested, shown, *ended, claim.uncovered, claim.imposed > 0))
        return tuple(seen)

    def seen(self, reservation: Reservation) -> dict[str, Any]:
        """A reservation as an answer shows it."""
        return {
            "reservation_id": reservation.id,
            "channel_id": reservation.channel_id,
            "customer_id": reservation.customer_id,
            "order_reference": reservation.order_reference,
            "state": reservation.state,
            "version": reservation.version,
            "lines": self.lines_seen(reservation),
            "create_time_ms": reservation.create_time_ms,
            "expire_time_ms": reservation.expire_time_ms,
            "confirm_time_ms": reservation.confirm_time_ms,
            "end_time_ms": reservation.end_time_ms,
        }


TOMBSTONE = {"reason": "RESERVATION_RELEASED", "state": RELEASED, "version": 0, "shortages": ()}


def nothing(channel_id: str, now_ms: int) -> dict[str, Any]:
    """What a release of a reserve that never came answers."""
    return {
        "reservation_id": "", "channel_id": channel_id, "customer_id": "", "order_reference": "", "state": RELEASED,
        "version": 0, "lines": (), "create_time_ms": 0, "expire_time_ms": 0, "confirm_time_ms": 0, "end_time_ms": now_ms,
    }  # fmt: skip


def same_content(spent: Spent, verb: str, arguments: Mapping[str, Any], digest: bytes) -> bool:
    """Whether a call under a spent id asks for the same thing."""
    if digest and spent.digest:
        return digest == spent.digest
    return spent.verb == verb and spent.arguments == arguments


# --- questions ------------------------------------------------------------------------------------------------------------


def _get_reservation(model: Model, arguments: Mapping[str, Any]) -> Outcome:
    reservation = model.reservations.get(arguments["reservation_id"])
    if reservation is None:
        return failed("RESERVATION_NOT_FOUND")
    return Outcome("ok", model.seen(reservation))


def _get_availability(model: Model, arguments: Mapping[str, Any]) -> Outcome:
    found = [model.stock.get(key) for key in arguments["keys"]]
    return Outcome("ok", {"items": tuple((0, False) if one is None else (one.available(), True) for one in found)})


def _get_stock(model: Model, arguments: Mapping[str, Any]) -> Outcome:
    stock = model.stock.get(arguments["key"])
    return failed("STOCK_KEY_NOT_FOUND") if stock is None else Outcome("ok", stock.seen())


READS: dict[str, Callable[[Model, Mapping[str, Any]], Outcome]] = {
    "get_reservation": _get_reservation,
    "get_availability": _get_availability,
    "get_stock": _get_stock,
}


Policy = Callable[[Model, Mapping[str, Any], int], Outcome]

# --- policies -------------------------------------------------------------------------------------------------------------


def _register(model: Model, arguments: Mapping[str, Any], shard: int) -> Outcome:
    key = arguments["key"]
    stock = model.stock.setdefault(key, model.new_stock(key, shard))
    return _set(stock, arguments)


def _set_policy(model: Model, arguments: Mapping[str, Any], _shard: int) -> Outcome:
    stock = model.stock.get(arguments["key"])
    if stock is None:
        return failed("STOCK_KEY_NOT_FOUND")
    if arguments["expected_version"] not in (0, stock.policy_version):
        return refused("VERSION_MISMATCH", version=stock.policy_version)
    return _set(stock, arguments)


def _selling(state: str) -> Policy:
    def set_selling(model: Model, arguments: Mapping[str, Any], _shard: int) -> Outcome:
        stock = model.stock.get(arguments["key"])
        return failed("STOCK_KEY_NOT_FOUND") if stock is None else _set(stock, {"selling_state": state})

    return set_selling


def _set(stock: Stock, given: Mapping[str, Any]) -> Outcome:
    before = stock.policy()
    if given.get("safety_stock_quantity") is not None:
        stock.safety_stock = given["safety_stock_quantity"]
    if given.get("max_quantity_per_order") is not None:
        stock.max_quantity_per_order = given["max_quantity_per_order"]
    stock.selling_state = given.get("selling_state") or stock.selling_state
    stock.base_unit = given.get("base_unit") or stock.base_unit
    stock.item_state = given.get("item_state") or stock.item_state
    stock.receipt_disposition = given.get("receipt_disposition") or stock.receipt_disposition
    if given.get("recalled_lots") is not None:
        stock.recalled_lots = tuple(sorted(set(given["recalled_lots"])))
    if before != stock.policy():
        stock.policy_version += 1
    return Outcome("ok", stock.seen(), changed=True)


POLICIES: dict[str, Policy] = {
    "register_stock": _register,
    "set_stock_policy": _set_policy,
    "suspend_selling": _selling("SUSPENDED"),
    "resume_selling": _selling("OPEN"),
}
