"""Questions: availability, stock, reservations, and why ATS is what it is. They change nothing.

Pages go by shard, then by a stable order within it; a page token is ``shard:place`` and holds across restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import nsmallest
from typing import TypeVar

from actors.domain.answers import AvailabilityView, ExplanationView, Page, Reply, TransferView, error, ok
from actors.domain.commands import (
    ExplainAvailability,
    GetAvailability,
    GetReservation,
    GetStock,
    ListReservations,
    ListStock,
    ListTransfers,
)
from actors.domain.identity import order_key
from actors.domain.keys import split_stock_key
from actors.domain.lifecycle import deadline_of, expire_if_due, not_found
from actors.domain.outcomes import ErrorReason, RefusalReason, ReservationState
from actors.domain.quantities import available_to_sell, claims, cover, shortage
from actors.domain.state import OPEN, Reservation, ShardState, StockActor
from actors.domain.transfers import TRANSFERS_PER_KEY_MAX
from actors.domain.turn import Turn
from actors.domain.views import reservation_view, stock_view, transfer_views

HELD = int(ReservationState.HELD)
SCANNED_PER_PAGE_MAX = 20_000  # entities looked at for one page; a sparse filter gets a short page and a token
LINES_PER_PAGE_MAX = 4_000  # of reservations, as many as a turn has: long orders come in shorter pages

T = TypeVar("T")


def get_availability(turn: Turn, shard: ShardState, command: GetAvailability) -> Reply:
    """ATS of stock keys of one shard, by their actors. OK payload: ``AvailabilityView``."""
    stock, silent = shard.stock, turn.books.stale_warehouses
    items = []
    for key in command.stock_keys:
        actor = stock.get(key)
        stale = bool(silent) and key.split("\x1f")[1] in silent
        items.append((0, False, stale) if actor is None else (available_to_sell(actor), True, stale))
    return ok(AvailabilityView(items, turn.position(shard)))


def get_stock(turn: Turn, shard: ShardState, command: GetStock) -> Reply:
    """Every quantity of one stock key. OK payload: ``StockView``."""
    actor = shard.stock.get(command.stock_key)
    if actor is None:
        parts = split_stock_key(command.stock_key)
        detail = f"stock_key: SKU {parts.sku!r} in warehouse {parts.warehouse_id!r} is not registered"
        return error(ErrorReason.STOCK_KEY_NOT_FOUND, detail)
    return ok(stock_view(turn, actor))


def get_reservation(turn: Turn, home: ShardState, command: GetReservation) -> Reply:
    """A reservation now. OK payload: ``ReservationView``."""
    reservation = turn.reservation(command.reservation_id)
    if reservation is None:
        return not_found(command.reservation_id)
    expire_if_due(turn, home, reservation)
    return ok(reservation_view(turn, reservation, home))


def _start(token: str) -> tuple[int, str]:
    """Where a page begins: (shard, place within it)."""
    shard, _, place = token.partition(":")
    return (_number(shard), place) if shard else (-1, "")


def _number(place: str) -> int:
    """A place in a list that goes by numbers; 0, the beginning, for what no page of ours ended at."""
    return int(place) if place.isascii() and place.isdigit() else 0


def paged(
    turn: Turn,
    token: str,
    page_size: int,
    within: Callable[[ShardState, str], Iterable[tuple[str, T | None]]],
    lines_of: Callable[[T], int] = lambda _: 0,
) -> tuple[list[T], str]:
    """Walk the shards; ``within`` gives (place, entity or None when filtered out) of a shard after a place, in order."""
    first_shard, place = _start(token)
    found: list[T] = []
    scanned = lines = 0
    for shard_id in sorted(turn.books.shards):
        if shard_id < first_shard:
            continue
        after = place if shard_id == first_shard else ""
        for here, entity in within(turn.books.shards[shard_id], after):
            scanned += 1
            if entity is not None:
                found.append(entity)
                lines += lines_of(entity)
            if len(found) >= page_size or scanned >= SCANNED_PER_PAGE_MAX or lines >= LINES_PER_PAGE_MAX:
                return found, f"{shard_id}:{here}"
    return found, ""


def list_stock(turn: Turn, command: ListStock) -> Reply:
    """Stock actors by shard and key. OK payload: ``Page`` of ``StockView``."""

    filtered = bool(command.warehouse_id) or command.only_shortage
    looked_at = SCANNED_PER_PAGE_MAX if filtered else command.page_size + 1

    def within(shard: ShardState, after: str) -> Iterator[tuple[str, StockActor | None]]:
        for key in nsmallest(looked_at, (key for key in shard.stock if key > after)):
            actor = shard.stock[key]
            yield key, actor if not filtered or wanted(actor) else None

    def wanted(actor: StockActor) -> bool:
        if command.warehouse_id and split_stock_key(actor.key).warehouse_id != command.warehouse_id:
            return False
        return not command.only_shortage or shortage(actor) > 0

    actors, token = paged(turn, command.page_token, command.page_size, within)
    return ok(Page([stock_view(turn, actor) for actor in actors], token))


def list_transfers(turn: Turn, command: ListTransfers) -> Reply:
    """Lines of transfers that are not complete, by the shard and key they go to. OK payload: ``Page`` of ``TransferView``."""

    def within(shard: ShardState, after: str) -> Iterator[tuple[str, TransferView | None]]:
        for key in sorted(shard.transferring):
            if after > f"{key}\x1f" and not after.startswith(f"{key}\x1f"):
                continue  # all of its lines were told
            if command.to_warehouse_id and split_stock_key(key).warehouse_id != command.to_warehouse_id:
                continue
            views = transfer_views(shard.stock[key], TRANSFERS_PER_KEY_MAX)
            for name, view in sorted((f"{key}\x1f{one.transfer_id}\x1f{one.transfer_line}", one) for one in views):
                if name > after:
                    yield name, view if wanted(view) else None

    def wanted(view: TransferView) -> bool:
        if command.from_warehouse_id and view.from_warehouse_id != command.from_warehouse_id:
            return False
        return not command.transfer_id or view.transfer_id == command.transfer_id

    views, token = paged(turn, command.page_token, command.page_size, within)
    return ok(Page(views, token))


def list_reservations(turn: Turn, command: ListReservations) -> Reply:
    """Reservations in memory by shard and number. OK payload: ``Page`` of ``ReservationView``."""
    books = turn.books
    candidates: set[str] | None = None
    if command.order_reference:
        candidates = set(books.orders.get(order_key(command.channel_id, command.order_reference), ()))
    if command.stock_key:
        actor = books.stock.get(command.stock_key)
        claimed = set(actor.claims) if actor is not None else set()
        candidates = claimed if candidates is None else candidates & claimed

    def within(shard: ShardState, after: str) -> Iterator[tuple[str, Reservation | None]]:
        number = _number(after)
        among: Iterable[Reservation] = shard.reservations.values()
        if candidates is not None:
            known = (shard.reservations.get(reservation_id) for reservation_id in candidates)
            among = sorted((one for one in known if one is not None), key=lambda one: one.number)
        for reservation in among:
            if reservation.number > number:
                yield str(reservation.number), reservation if wanted(reservation) else None

    def wanted(reservation: Reservation) -> bool:
        if command.channel_id and reservation.channel_id != command.channel_id:
            return False
        return not command.states or reservation.state in command.states

    found, token = paged(turn, command.page_token, command.page_size, within, lambda one: len(one.lines))
    views = [reservation_view(turn, reservation, books.home_of(reservation)) for reservation in found]
    return ok(Page(views, token))


def explain_availability(turn: Turn, shard: ShardState, command: ExplainAvailability) -> Reply:
    """Every term of ATS, and for a quantity what would happen. OK payload: ``ExplanationView`` without events."""
    actor = shard.stock.get(command.stock_key)
    if actor is None:
        return get_stock(turn, shard, GetStock(command.stock_key))
    available = available_to_sell(actor)
    limit = actor.max_quantity_per_order
    largest = min(available, limit) if limit else available
    reason = 0
    if command.quantity > largest:
        if actor.selling_state != OPEN:
            reason = int(RefusalReason.SELLING_SUSPENDED)
        elif limit and command.quantity > limit:
            reason = int(RefusalReason.LIMIT_PER_ORDER)
        else:
            reason = int(RefusalReason.INSUFFICIENT_STOCK)
    expire_time_ms, expire_quantity = _next_hold(turn, actor)
    return ok(
        ExplanationView(
            stock_view(turn, actor),
            True,
            cover(actor),
            claims(actor),
            available,
            largest,
            command.quantity <= largest,
            reason,
            expire_time_ms,
            expire_quantity,
            (),
        )
    )


def _next_hold(turn: Turn, actor: StockActor) -> tuple[int, int]:
    """When the next hold on this stock key ends by its deadline, and how many units come back then; (0, 0): none."""
    best, units = 0, 0
    for reservation_id, first in actor.claims.items():
        reservation = turn.books.reservations.get(reservation_id)
        if reservation is None or reservation.state != HELD:
            continue
        deadline = deadline_of(turn.books.home_of(reservation), reservation)
        if not best or deadline <= best:
            here = sum(claim.open for claim in first.chain())
            units = here + (units if deadline == best else 0)
            best = deadline
    return best, units
