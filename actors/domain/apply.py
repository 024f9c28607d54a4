"""Applies events to the books: what each event does, and nothing about whether it should have happened.

The same functions serve the live shard and replay. Bugs are asserts: an event that breaks an invariant raises, the host
ends, and nothing of that turn leaves it. While a sliced snapshot's early events are applied part by part (``strict`` off),
sums over several entities are meaningless and not asserted; ``rebuild_sums`` makes them afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any

from actors.domain.apply_consumers import APPLY_CONSUMERS, rebuild_consumers
from actors.domain.apply_errands import APPLY_ERRANDS
from actors.domain.apply_exceptions import APPLY_EXCEPTIONS, rebuild_exceptions
from actors.domain.apply_feeds import APPLY_FEEDS, rebuild_feeds
from actors.domain.apply_history import APPLY_HISTORY
from actors.domain.apply_operations import APPLY_OPERATIONS, rebuild_operations
from actors.domain.apply_reconciliation import APPLY_RECONCILIATION, rebuild_reconciliations
from actors.domain.apply_transfers import APPLY_TRANSFERS
from actors.domain.events import (
    AdriftPicked,
    ClaimConfirmed,
    ClaimExpired,
    ClaimFulfilled,
    ClaimGranted,
    ClaimPicked,
    ClaimReleased,
    ClaimsForgotten,
    EntryRetired,
    EntrySpent,
    OnHandChanged,
    ReservationAmended,
    ReservationConfirmed,
    ReservationEnded,
    ReservationExtended,
    ReservationOpened,
    ReservationRetired,
    ReservationUnitsEnded,
    ShardOwned,
    StockKeyRegistered,
    StockPolicySet,
    VerbSpent,
)
from actors.domain.feed_events import EntrySettled
from actors.domain.history import History
from actors.domain.identity import order_key, request_key
from actors.domain.keys import RESERVATION_ID_VERSION
from actors.domain.outcomes import Admission, ReservationState
from actors.domain.quantities import headroom
from actors.domain.state import (
    SELLABLE,
    Books,
    Claim,
    Entry,
    Reservation,
    ShardState,
    Spent,
    StockActor,
)
from actors.domain.stock_parts import DEFAULT_GATE, SaleGate

ALWAYS = int(Admission.ALWAYS)
HELD = int(ReservationState.HELD)
CONFIRMED = int(ReservationState.CONFIRMED)


def apply_event(books: Books, shard: ShardState, event: Any, time_ms: int) -> None:
    """Apply one event as the shard's next; counts its sequence. Raises AssertionError when it cannot be true."""
    shard.sequence += 1
    APPLY[type(event)](books, shard, event, time_ms)


def _shard_owned(_books: Books, shard: ShardState, event: ShardOwned, time_ms: int) -> None:
    assert event.epoch >= shard.epoch, "epochs only grow"
    shard.epoch = event.epoch
    shard.timeline = event.timeline
    shard.id_prefix = f"{RESERVATION_ID_VERSION}-{event.timeline}-{shard.id}-"
    shard.owned_time_ms = time_ms
    shard.grace_until_ms = event.grace_until_ms


# --- stock actors ---------------------------------------------------------------------------------------------------------


def _stock_key_registered(books: Books, shard: ShardState, event: StockKeyRegistered, _time_ms: int) -> None:
    actor = StockActor(event.stock_key, shard)
    shard.stock[event.stock_key] = actor
    books.stock[event.stock_key] = actor


def _stock_policy_set(_books: Books, shard: ShardState, event: StockPolicySet, _time_ms: int) -> None:
    actor = shard.stock[event.stock_key]
    actor.safety_stock = event.safety_stock_quantity
    actor.selling_state = event.selling_state
    actor.max_quantity_per_order = event.max_quantity_per_order
    actor.base_unit = event.base_unit
    actor.policy_version = event.version
    gate = SaleGate(event.item_state, event.receipt_disposition, tuple(event.recalled_lot_ids))
    actor.gate = gate if gate != DEFAULT_GATE else None


def _on_hand_changed(_books: Books, shard: ShardState, event: OnHandChanged, _time_ms: int) -> None:
    key, _, disposition, delta = event[:4]
    actor = shard.stock[key]
    if disposition == SELLABLE:
        actor.sellable += delta
    else:
        if actor.on_hand is None:
            actor.on_hand = {}
        quantity = actor.on_hand.get(disposition, 0) + delta
        if quantity:
            actor.on_hand[disposition] = quantity
        else:
            actor.on_hand.pop(disposition, None)
    if event[13] >= 0:
        history = actor.history
        if history is None:
            history = actor.history = History()
        history.note(event[11], event[12], event[13], disposition, delta, 0, "")


def _adrift_picked(_books: Books, shard: ShardState, event: AdriftPicked, _time_ms: int) -> None:
    actor = shard.stock[event.stock_key]
    _set_adrift(actor, event.promise, (actor.adrift or {}).get(event.promise, 0) + event.delta)
    if event.was and actor.history is not None:
        actor.history.rename(event.was, event.promise)


def _set_adrift(actor: StockActor, promise: str, units: int) -> None:
    if actor.adrift is None:
        actor.adrift = {}
    shown = max(0, units) - max(0, actor.adrift.get(promise, 0))
    if units:
        actor.adrift[promise] = units
    else:
        actor.adrift.pop(promise, None)
    actor.picked += shown
    actor.picked_adrift += shown


# --- claims ---------------------------------------------------------------------------------------------------------------


def _claim_granted(books: Books, shard: ShardState, event: ClaimGranted, _time_ms: int) -> None:
    key, reservation_id, line_id, quantity, carried, admission, imposed, uncovered, confirmed, channel_id, order = event
    actor = shard.stock[key]
    if shard.strict and quantity > carried and admission != ALWAYS and headroom(actor) < quantity:
        books.oversells += 1
        raise AssertionError(f"granted without cover: {key!r} {reservation_id} line {line_id!r}")
    kept = actor.kept_claims
    first: Claim | None = None
    if type(kept) is dict:  # not isinstance: every grant comes through here
        if reservation_id in kept:
            first = kept[reservation_id]
    elif kept is not None and kept.reservation_id == reservation_id:  # type: ignore[union-attr]
        first = kept  # type: ignore[assignment]
    if first is None:
        claim = Claim(reservation_id, line_id, channel_id, order, shard.sequence)
        if type(kept) is dict:
            kept[reservation_id] = claim
        else:
            actor.put_claim(claim)
        claim.confirmed = confirmed
        if order:
            index_order(actor, claim)
    else:
        if confirmed and not first.confirmed:  # it was confirmed while it had nothing here
            _confirm_claims(actor, first)
        if order != first.order_reference:
            _refer(actor, first, order)
        found = first.line(line_id)
        if found is None:
            found = Claim(reservation_id, line_id, first.channel_id, first.order_reference, shard.sequence)
            found.confirmed = first.confirmed
            last = first
            while last.next is not None:
                last = last.next
            last.next = found
        claim = found
    claim.granted += quantity
    if imposed:
        claim.imposed += imposed
        claim.uncovered += uncovered
    if admission == ALWAYS:
        books.imposed_uncovered_units += uncovered
    if claim.confirmed:
        actor.confirmed += quantity
    else:
        actor.held += quantity
    if claim.rest is not None and claim.picked:
        open_after = claim.open
        actor.picked_adrift += max(0, claim.picked - open_after) - max(0, claim.picked - open_after + quantity)


def index_order(actor: StockActor, claim: Claim) -> None:
    """Make the claim findable by its order reference, as a warehouse names it."""
    if actor.orders is None:
        actor.orders = {}
    ids = actor.orders.setdefault(order_key(claim.channel_id, claim.order_reference), [])
    if claim.reservation_id not in ids:
        ids.append(claim.reservation_id)
        if len(ids) > 1:  # oldest first, however late an order got its reference
            ids.sort(key=lambda reservation_id: actor.claims[reservation_id].sequence)


def unindex_order(actor: StockActor, claim: Claim) -> None:
    """The claim is not found by its order reference any more."""
    if claim.order_reference and actor.orders is not None:
        order = order_key(claim.channel_id, claim.order_reference)
        ids = [other for other in actor.orders.get(order, ()) if other != claim.reservation_id]
        if ids:
            actor.orders[order] = ids
        else:
            actor.orders.pop(order, None)


def _claim_confirmed(_books: Books, shard: ShardState, event: ClaimConfirmed, _time_ms: int) -> None:
    actor = shard.stock[event.stock_key]
    first = actor.claims[event.reservation_id]
    _confirm_claims(actor, first)
    if event.order_reference:
        _refer(actor, first, event.order_reference)


def _refer(actor: StockActor, first: Claim, order_reference: str) -> None:
    """The order has another reference from now on."""
    unindex_order(actor, first)
    for claim in first.chain():
        claim.order_reference = order_reference
    if order_reference:
        index_order(actor, first)


def _confirm_claims(actor: StockActor, first: Claim) -> None:
    for claim in first.chain():
        if not claim.confirmed:
            units = claim.open
            actor.held -= units
            actor.confirmed += units
            claim.confirmed = True


def _end_units(actor: StockActor, claim: Claim, units: int, shard: ShardState) -> None:
    """Take ended units out of the sums. The claim's own counters are already changed."""
    open_after = claim.open
    assert units >= 0, "a unit ends once"
    assert open_after >= 0, "a unit ends once"
    if claim.confirmed:
        actor.confirmed -= units
    else:
        actor.held -= units
    if claim.picked:
        actor.picked_adrift += max(0, claim.picked - open_after) - max(0, claim.picked - open_after - units)
    if shard.strict:
        assert actor.held >= 0, "claims below 0"
        assert actor.confirmed >= 0, "claims below 0"


def _claim_released(_books: Books, shard: ShardState, event: ClaimReleased, _time_ms: int) -> None:
    actor = shard.stock[event.stock_key]
    claim = actor.claims[event.reservation_id].line(event.line_id)
    assert claim is not None, "released a line that has no claim"
    claim.released += event.quantity
    _end_units(actor, claim, event.quantity, shard)


def _claim_expired(_books: Books, shard: ShardState, event: ClaimExpired, _time_ms: int) -> None:
    actor = shard.stock[event.stock_key]
    claim: Claim | None = actor.claims[event.reservation_id]
    while claim is not None:
        units = claim.open
        if units:
            claim.expired += units
            _end_units(actor, claim, units, shard)
        claim = claim.next


def _claim_fulfilled(_books: Books, shard: ShardState, event: ClaimFulfilled, _time_ms: int) -> None:
    actor = shard.stock[event.stock_key]
    claim = actor.claims[event.reservation_id].line(event.line_id)
    assert claim is not None, "fulfilled a line that has no claim"
    picked = claim.picked - event.shipped
    _set_picked(actor, claim, picked if event.signed else max(0, picked))
    claim.fulfilled += event.quantity
    _end_units(actor, claim, event.quantity, shard)


def _claim_picked(_books: Books, shard: ShardState, event: ClaimPicked, _time_ms: int) -> None:
    actor = shard.stock[event.stock_key]
    claim = actor.claims[event.reservation_id].line(event.line_id)
    assert claim is not None, "picked for a line that has no claim"
    _set_picked(actor, claim, claim.picked + event.delta)


def _set_picked(actor: StockActor, claim: Claim, picked: int) -> None:
    open_units = claim.open
    actor.picked += max(0, picked) - max(0, claim.picked)
    actor.picked_adrift += max(0, picked - open_units) - max(0, claim.picked - open_units)
    claim.picked = picked


def _claims_forgotten(_books: Books, shard: ShardState, event: ClaimsForgotten, _time_ms: int) -> None:
    actor = shard.stock[event.stock_key]
    first = actor.pop_claim(event.reservation_id)
    for claim in first.chain():
        assert claim.open == 0 and claim.picked <= 0, "forgot a claim that is alive"  # noqa: PT018  one fact
        unindex_order(actor, claim)


# --- reservations ---------------------------------------------------------------------------------------------------------


def _reservation_opened(books: Books, shard: ShardState, event: ReservationOpened, time_ms: int) -> None:
    (
        reservation_id,
        number,
        channel_id,
        request_id,
        digest,
        state,
        expire_time_ms,
        lines,
        order,
        customer,
        old,
        labels,
    ) = event
    spent_key = f"c\x1f{channel_id}\x1f{request_id}"  # identity.request_key, without the call
    reservation = Reservation(reservation_id, channel_id, spent_key, digest, state, expire_time_ms, order)
    reservation.create_time_ms = time_ms
    reservation.open_epoch = shard.epoch
    reservation.open_sequence = shard.sequence
    if len(lines) == 1:
        reservation.kept_lines = lines[0]
        reservation.open_units = lines[0][3]
    else:
        reservation.kept_lines = lines
        reservation.open_units = sum([line[3] for line in lines])
    if customer or old or labels:
        reservation.customer_id = customer
        reservation.replaces_reservation_id = old
        reservation.labels = labels
    if state == CONFIRMED:
        reservation.confirm_time_ms = time_ms
    else:
        books.held_reservations += 1
        heappush(books.deadlines, (expire_time_ms, shard.id, reservation_id))
    shard.reservations[reservation_id] = reservation
    books.reservations[reservation_id] = reservation
    books.request_ids[spent_key] = reservation
    if order:
        _index_reservation(books, reservation)
    if number >= shard.next_reservation_number:
        shard.next_reservation_number = number + 1


def _index_reservation(books: Books, reservation: Reservation) -> None:
    books.orders.setdefault(order_key(reservation.channel_id, reservation.order_reference), []).append(reservation.id)


def unindex_reservation(books: Books, reservation: Reservation) -> None:
    """The reservation is not found by its order reference any more."""
    key = order_key(reservation.channel_id, reservation.order_reference)
    ids = [other for other in books.orders.get(key, ()) if other != reservation.id]
    if ids:
        books.orders[key] = ids
    else:
        books.orders.pop(key, None)


def _reservation_confirmed(books: Books, shard: ShardState, event: ReservationConfirmed, time_ms: int) -> None:
    reservation = shard.reservations[event.reservation_id]
    assert reservation.state == HELD, "HELD is left once"
    reservation.state = CONFIRMED
    reservation.confirm_time_ms = time_ms
    reservation.version += 1
    if event.order_reference and event.order_reference != reservation.order_reference:
        if reservation.order_reference:
            unindex_reservation(books, reservation)
        reservation.order_reference = event.order_reference
        _index_reservation(books, reservation)
    books.held_reservations -= 1


def _reservation_extended(books: Books, shard: ShardState, event: ReservationExtended, _time_ms: int) -> None:
    reservation = shard.reservations[event.reservation_id]
    reservation.extend(event.expire_time_ms)
    reservation.version += 1
    heappush(books.deadlines, (event.expire_time_ms, shard.id, reservation.id))


def _reservation_amended(_books: Books, shard: ShardState, event: ReservationAmended, _time_ms: int) -> None:
    reservation = shard.reservations[event.reservation_id]
    if reservation.first_lines is None:
        reservation.first_lines = reservation.lines
    for spent in reservation.spent or ():
        if spent.lines is None:
            spent.lines = reservation.lines
    reservation.lines = event.lines
    reservation.open_units += event.added - event.released
    reservation.version += 1
    assert reservation.open_units >= 0, "a unit ends once"


def _reservation_units_ended(_books: Books, shard: ShardState, event: ReservationUnitsEnded, _time_ms: int) -> None:
    reservation = shard.reservations[event.reservation_id]
    reservation.open_units -= event.fulfilled + event.released + event.expired
    reservation.fulfilled_units += event.fulfilled
    reservation.version += 1
    assert reservation.open_units >= 0, "a unit ends once"


def _reservation_ended(books: Books, shard: ShardState, event: ReservationEnded, time_ms: int) -> None:
    reservation = shard.reservations[event.reservation_id]
    assert reservation.open_units == 0, "ended with open units"
    assert reservation.state in (HELD, CONFIRMED), "ended twice"
    if reservation.state == HELD:
        books.held_reservations -= 1
    reservation.state = event.state
    reservation.end_time_ms = time_ms
    books.ended.append((time_ms, reservation.id))


def _verb_spent(books: Books, shard: ShardState, event: VerbSpent, time_ms: int) -> None:
    reservation = shard.reservations[event.reservation_id]
    spent = Spent(event.request_id, event.digest, event.verb, event.refusal)
    spent.state = reservation.state
    spent.version = reservation.version
    spent.expire_time_ms = reservation.expire_time_ms
    spent.epoch = shard.epoch
    spent.sequence = shard.sequence
    spent.time_ms = time_ms
    if reservation.spent is None:
        reservation.spent = [spent]
    else:
        reservation.spent.append(spent)
    books.request_ids[request_key(reservation.channel_id, event.request_id)] = reservation


def _reservation_retired(books: Books, shard: ShardState, event: ReservationRetired, _time_ms: int) -> None:
    reservation = shard.reservations.pop(event.reservation_id)
    books.reservations.pop(event.reservation_id, None)
    if reservation.order_reference:
        unindex_reservation(books, reservation)
    books.request_ids.pop(reservation.request_key, None)
    for spent in reservation.spent or ():
        books.request_ids.pop(request_key(reservation.channel_id, spent.request_id), None)


# --- dedupe entries --------------------------------------------------------------------------------------------------------


def _entry_spent(books: Books, shard: ShardState, event: EntrySpent, time_ms: int) -> None:
    key, digest, answer = event
    entry = Entry(key, digest, answer, shard.id, time_ms, shard.epoch, shard.sequence)
    shard.entries[key] = entry
    if key[0] in "ce":
        books.request_ids[key] = entry
    books.entries_spent.append((time_ms, shard.id, key))


def _entry_retired(books: Books, shard: ShardState, event: EntryRetired, _time_ms: int) -> None:
    forget_entry(books, shard, event.entry_key)


def forget_entry(books: Books, shard: ShardState, key: str) -> None:
    """What EntryRetired does."""
    entry = shard.entries.pop(key)
    if books.request_ids.get(key) is entry:
        del books.request_ids[key]


Apply = Callable[[Books, ShardState, Any, int], None]

APPLY: dict[type[Any], Apply] = {
    ShardOwned: _shard_owned,
    StockKeyRegistered: _stock_key_registered,
    StockPolicySet: _stock_policy_set,
    OnHandChanged: _on_hand_changed,
    AdriftPicked: _adrift_picked,
    ClaimGranted: _claim_granted,
    ClaimConfirmed: _claim_confirmed,
    ClaimReleased: _claim_released,
    ClaimExpired: _claim_expired,
    ClaimFulfilled: _claim_fulfilled,
    ClaimPicked: _claim_picked,
    ClaimsForgotten: _claims_forgotten,
    ReservationOpened: _reservation_opened,
    ReservationConfirmed: _reservation_confirmed,
    ReservationExtended: _reservation_extended,
    ReservationAmended: _reservation_amended,
    ReservationUnitsEnded: _reservation_units_ended,
    ReservationEnded: _reservation_ended,
    VerbSpent: _verb_spent,
    ReservationRetired: _reservation_retired,
    EntrySpent: _entry_spent,
    EntrySettled: _entry_spent,
    EntryRetired: _entry_retired,
    **APPLY_EXCEPTIONS,
    **APPLY_FEEDS,
    **APPLY_HISTORY,
    **APPLY_CONSUMERS,
    **APPLY_RECONCILIATION,
    **APPLY_TRANSFERS,
    **APPLY_ERRANDS,
    **APPLY_OPERATIONS,
}


def rebuild_sums(actor: StockActor) -> None:
    """Make the sums and the order index of a stock actor anew from its claims (after a snapshot was loaded)."""
    chains = list(actor.claims.values())
    if len(chains) > 1:
        chains.sort(key=lambda claim: claim.sequence)
        actor.kept_claims = {first.reservation_id: first for first in chains}
    actor.held = actor.confirmed = actor.picked = actor.picked_adrift = 0
    actor.orders = None
    for first in chains:
        for claim in first.chain():
            if claim.confirmed:
                actor.confirmed += claim.open
            else:
                actor.held += claim.open
            actor.picked += max(0, claim.picked)
            actor.picked_adrift += max(0, claim.picked - claim.open)
        if first.order_reference:
            index_order(actor, first)
    for units in (actor.adrift or {}).values():
        actor.picked += max(0, units)
        actor.picked_adrift += max(0, units)


def rebuild_indices(books: Books) -> None:
    """Make everything that is derived from several shards anew, after recovery."""
    books.request_ids.clear()
    books.deadlines = []
    books.orders.clear()
    books.held_reservations = 0
    books.shortage_units = 0
    books.imposed_uncovered_units = sum(
        claim.uncovered for actor in books.stock.values() for first in actor.claims.values() for claim in first.chain()
    )
    ended: list[tuple[int, str]] = []
    spent_entries: list[tuple[int, int, str]] = []
    for shard in books.shards.values():
        shard.transferring = {key: None for key, actor in shard.stock.items() if actor.transfers}
        for reservation in shard.reservations.values():
            books.request_ids[reservation.request_key] = reservation
            for spent in reservation.spent or ():
                books.request_ids[request_key(reservation.channel_id, spent.request_id)] = reservation
            if reservation.order_reference:
                _index_reservation(books, reservation)
            if reservation.state == HELD:
                books.held_reservations += 1
                heappush(books.deadlines, (reservation.expire_time_ms, shard.id, reservation.id))
            elif reservation.state != CONFIRMED:
                ended.append((reservation.end_time_ms, reservation.id))
        for entry in shard.entries.values():
            if entry.key[0] in "ce":
                books.request_ids[entry.key] = entry
            spent_entries.append((entry.time_ms, shard.id, entry.key))
    books.ended.clear()
    books.ended.extend(sorted(ended))
    books.entries_spent.clear()
    books.entries_spent.extend(sorted(spent_entries))
    rebuild_feeds(books)
    rebuild_consumers(books)
    rebuild_reconciliations(books)
    rebuild_exceptions(books)
    rebuild_operations(books)
