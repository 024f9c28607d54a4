"""What answers show of the books: views of reservations, stock and exceptions, and the first decision given again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.answers import (
    ExceptionView,
    Granted,
    LineView,
    Reply,
    ReservationView,
    StockView,
    TransferView,
    error,
    ok,
    pending,
    refused,
)
from actors.domain.exception_kinds import meaning_of
from actors.domain.exception_state import StockException
from actors.domain.identity import (
    ANSWER_REFUSAL,
    ANSWER_TOMBSTONE,
    ANSWER_TOMBSTONE_RELEASE,
    request_key,
    uuid7_time_ms,
)
from actors.domain.operation_state import Operation
from actors.domain.outcomes import ErrorReason, ExceptionState, RefusalReason, ReservationState
from actors.domain.quantities import available_to_sell, shortage
from actors.domain.rules import Rules
from actors.domain.state import SELLABLE, Entry, Reservation, ShardState, Spent, StockActor
from actors.domain.stock_parts import DEFAULT_GATE, in_transit, unsettled
from actors.domain.turn import Turn

TRANSFERS_SHOWN_MAX = 20  # with a stock key; LIST_TRANSFERS has them all

RELEASED = int(ReservationState.RELEASED)
HELD = int(ReservationState.HELD)
OPEN_EXCEPTION = int(ExceptionState.OPEN)
CONFIRMED = int(ReservationState.CONFIRMED)


def line_views(turn: Turn, reservation: Reservation, lines: Sequence[Sequence[Any]] | None = None) -> list[LineView]:
    """The lines with their claims' quantities as they are now; ``lines``: those of an earlier decision, whose granted
    quantities are shown."""
    if reservation.final_lines is not None:
        return _final_views([LineView(*line) for line in reservation.final_lines], lines)
    views = []
    stock = turn.books.stock
    reservation_id = reservation.id
    remote = turn.remote[reservation_id][0] if reservation_id in turn.remote else {}
    for line_id, key, requested, granted in lines if lines is not None else reservation.lines:
        actor = stock.get(key)
        first = actor.claims.get(reservation_id) if actor is not None else None
        claim = first.line(line_id) if first is not None else None
        if claim is None:
            row = remote.get((line_id, key))
            if row is None:
                views.append(LineView(line_id, key, requested, 0, 0, 0, 0, 0, 0, False))
            else:
                _, _, claimed, fulfilled, released, expired, picked, uncovered, imposed = row
                shown = claimed if lines is None else granted
                ended = (fulfilled, released, expired)
                views.append(LineView(line_id, key, requested, shown, *ended, max(0, picked), uncovered, imposed > 0))
        else:
            views.append(
                LineView(
                    line_id,
                    key,
                    requested,
                    claim.granted if lines is None else granted,
                    claim.fulfilled,
                    claim.released,
                    claim.expired,
                    max(0, claim.picked),
                    claim.uncovered,
                    claim.imposed > 0,
                )
            )
    return views


def _final_views(final: list[LineView], lines: Sequence[Sequence[Any]] | None) -> list[LineView]:
    """How the lines ended; ``lines``: those of an earlier decision. What it granted and the last decision has no entry of
    was released."""
    if lines is None:
        return final
    ended = {(view.line_id, view.stock_key): view for view in final}
    views = []
    for line_id, key, requested, granted in lines:
        view = ended.get((line_id, key)) or LineView(line_id, key, requested, granted, 0, granted, 0, 0, 0, False)
        views.append(view._replace(requested_quantity=requested, granted_quantity=granted))
    return views


def other_positions(turn: Turn, reservation: Reservation, home: ShardState) -> list[tuple[int, ...]]:
    """One position for every shard but the home that holds lines of the reservation, or gave back units of it just now (an
    amended line, a replaced hold).
    """
    changed = turn.changed_beside(home)
    if not changed:
        if reservation.final_lines is not None:
            return []
        if len(reservation.lines) == 1 and reservation.lines[0][1] in home.stock:
            return []
    shards: dict[int, ShardState] = {shard_id: turn.books.shards[shard_id] for shard_id in changed}
    for line in reservation.lines:
        actor = turn.books.stock.get(line[1])
        if actor is not None and actor.shard is not home:
            shards[actor.shard.id] = actor.shard
    positions: list[tuple[int, ...]] = [turn.position(shard) for shard in shards.values()]
    if reservation.id in turn.remote:
        told = turn.remote[reservation.id][1]
        positions += [position for shard_id, position in told.items() if shard_id not in shards]
    return positions


def refused_about(
    turn: Turn,
    reservation: Reservation,
    home: ShardState,
    reason: RefusalReason,
    shortages: Sequence[Sequence[Any]] = (),
    others: Sequence[Sequence[int]] | None = None,
) -> Reply:
    """A refusal that looked at the reservation's claims, wherever they are. ``others``: where it looked, if at more."""
    return refused(
        reason,
        turn.position(home),
        shortages=shortages,
        state=reservation.state,
        version=reservation.version,
        other_positions=other_positions(turn, reservation, home) if others is None else others,
    )


def reservation_view(
    turn: Turn, reservation: Reservation, home: ShardState, spent: Spent | None = None
) -> ReservationView:
    """The reservation now, or (``spent``) as an earlier decision left it; other quantities are those of now."""
    return ReservationView(
        reservation.id,
        reservation.channel_id,
        reservation.customer_id,
        reservation.order_reference,
        reservation.state if spent is None else spent.state,
        reservation.version if spent is None else spent.version,
        line_views(turn, reservation, None if spent is None else spent.lines),
        reservation.labels,
        reservation.create_time_ms,
        reservation.expire_time_ms if spent is None else spent.expire_time_ms,
        reservation.confirm_time_ms,
        reservation.end_time_ms if spent is None or spent.state == reservation.state else 0,
        turn.position(home) if spent is None else (home.id, spent.epoch, spent.sequence, spent.time_ms),
        other_positions(turn, reservation, home),
    )


def granted_again(turn: Turn, reservation: Reservation, home: ShardState) -> Granted:
    """The first decision of a reserve: ids, granted quantities, first deadline and position."""
    lines = reservation.first_lines if reservation.first_lines is not None else reservation.lines
    expire_time_ms = reservation.first_expire_time_ms
    return Granted(
        reservation.id,
        HELD if expire_time_ms else CONFIRMED,
        1,
        reservation.create_time_ms,
        expire_time_ms,
        (home.id, reservation.open_epoch, reservation.open_sequence, reservation.create_time_ms),
        line_views(turn, reservation, lines),
        other_positions(turn, reservation, home),
    )


def tombstone_view(
    turn: Turn, channel_id: str, home: ShardState, position: Sequence[int] | None = None
) -> ReservationView:
    """What a release by request id answers for a reserve that was not seen: no id, no lines, RELEASED."""
    place = position or turn.position(home)
    return ReservationView("", channel_id, "", "", RELEASED, 0, (), (), 0, 0, 0, place[3], place, ())


def repeat(
    turn: Turn,
    home: ShardState,
    channel_id: str,
    request_id: str,
    digest: bytes,
    *,
    reservation: Reservation | None = None,
    is_reserve: bool = False,
) -> Reply | None:
    """The answer to an id that was spent before, REQUEST_ID_REUSED, REQUEST_ID_EXPIRED, or None for a fresh id.

    ``reservation``: what a verb is about; one read back from the entries table knows the ids spent on it itself.
    """
    spender: Reservation | Entry | Operation | None = turn.spender(request_key(channel_id, request_id))
    if spender is None and reservation is not None and reservation.final_lines is not None:
        known = (reservation.request_id, *(spent.request_id for spent in reservation.spent or ()))
        spender = reservation if request_id in known else None
    if spender is None:
        # UUIDv7 sort by time as text, so nearly every id is told from an old one without being read.
        made_ms = uuid7_time_ms(request_id) if request_id < turn.oldest_uuid7 else None
        if made_ms is not None and made_ms < turn.now_ms - turn.books.rules.dedupe_window_ms:
            return error(
                ErrorReason.REQUEST_ID_EXPIRED, "request_id is older than the dedupe window: look the order up"
            )
        return None
    if isinstance(spender, Operation):  # under way: this one waits with the first
        return pending(spender.id) if spender.command[1] == digest else _reused(request_id)
    if isinstance(spender, Entry):
        return _repeat_entry(turn, home, channel_id, digest, spender, is_reserve=is_reserve)
    if spender.request_id == request_id:
        if spender.digest != digest:
            return _reused(request_id)
        return ok(granted_again(turn, spender, _home(turn, spender, home)), True)
    for spent in spender.spent or ():
        if spent.request_id == request_id:
            if spent.digest != digest:
                return _reused(request_id)
            return _repeat_verb(turn, spender, _home(turn, spender, home), spent)
    raise AssertionError("an id leads to a reservation that does not know it")


def _home(turn: Turn, reservation: Reservation, home: ShardState) -> ShardState:
    return turn.books.shards.get(int(reservation.id.split("-")[2]), home)


def _reused(request_id: str) -> Reply:
    return error(ErrorReason.REQUEST_ID_REUSED, f"request_id {request_id!r} was already used for other content")


def _repeat_entry(
    turn: Turn, home: ShardState, channel_id: str, digest: bytes, entry: Entry, *, is_reserve: bool
) -> Reply:
    kind = entry.answer[0]
    if kind == ANSWER_TOMBSTONE and is_reserve:  # a first answer, of now
        here = turn.books.shards.get(entry.shard, home)
        return refused(RefusalReason.RESERVATION_RELEASED, turn.position(here), state=RELEASED)
    position = (entry.shard, entry.epoch, entry.sequence, entry.time_ms)
    if entry.digest != digest:
        return _reused(entry.key.split("\x1f")[2])
    if kind == ANSWER_TOMBSTONE_RELEASE:
        return ok(tombstone_view(turn, channel_id, home, position), True)
    assert kind == ANSWER_REFUSAL, "an entry under a request id is a refusal or a tombstone"
    _, reason, shortages, state, version = entry.answer
    return refused(RefusalReason(reason), position, shortages=shortages, state=state, version=version, replayed=True)


def _repeat_verb(turn: Turn, reservation: Reservation, home: ShardState, spent: Spent) -> Reply:
    if spent.refusal:
        reason, shortages, state, version = spent.refusal
        position = (home.id, spent.epoch, spent.sequence, spent.time_ms)
        return refused(
            RefusalReason(reason), position, shortages=shortages, state=state, version=version, replayed=True
        )
    return ok(reservation_view(turn, reservation, home, spent), True)


def stock_view(turn: Turn, actor: StockActor) -> StockView:
    """Every quantity of a stock actor now."""
    on_hand = [(SELLABLE, actor.sellable)] if actor.sellable else []
    on_hand += sorted((actor.on_hand or {}).items())
    return StockView(
        actor.key,
        on_hand,
        actor.held,
        actor.confirmed,
        actor.picked,
        actor.picked_adrift,
        shortage(actor),
        actor.safety_stock,
        actor.selling_state,
        actor.max_quantity_per_order,
        actor.base_unit,
        actor.policy_version,
        available_to_sell(actor),
        turn.position(actor.shard),
        *(actor.gate or DEFAULT_GATE),
        in_transit(actor.transfers),
        transfer_views(actor, TRANSFERS_SHOWN_MAX),
    )


def transfer_views(actor: StockActor, most: int) -> list[TransferView]:
    """The transfers to a stock key that are not complete, oldest first, at most ``most``."""
    return [
        TransferView(
            actor.key, transfer_id, line, transfer.from_warehouse_id, transfer.dispatched, transfer.received,
            transfer.in_transit, transfer.lost, transfer.exception_id, transfer.time_ms,
        )
        for transfer_id, line, transfer in unsettled(actor.transfers)[:most]
    ]  # fmt: skip


def exception_view(rules: Rules, exception: StockException) -> ExceptionView:
    """A stock exception now."""
    kind, stock_key, message, source_id, event_id, request_id, channel_id, reject_reason = exception.fields
    meaning = meaning_of(rules, kind, reject_reason)
    return ExceptionView(
        exception.id,
        kind,
        exception.state,
        stock_key,
        message,
        exception.quantity,
        exception.reservation_ids,
        source_id,
        event_id,
        request_id,
        channel_id,
        exception.open_time_ms,
        exception.end_time_ms,
        reject_reason,
        int(meaning.priority),
        meaning.team,
        meaning.suggested_action,
        meaning.actions if exception.state == OPEN_EXCEPTION else (),
        exception.payload,
        exception.cause,
        exception.handlings,
    )
