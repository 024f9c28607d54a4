"""Replies of shard hosts → messages: positions, refusals, reservations, stock, exceptions, explanations.

A reply's payload is read by place, in the order of the tuples in ``actors.domain.answers``: unpacking a tuple is
several times cheaper than naming its fields, and a newer host may only append.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from actors.domain.answers import Granted, LineView, RefusalView, ReservationView, StockView, TransferView
from actors.domain.keys import split_stock_key
from stockade.v1 import (
    availability_service_pb2,
    reservation_service_pb2,
    stock_key_pb2,
    stock_service_pb2,
)

_RESERVATION_VIEW_SIZE = len(ReservationView._fields)
_GRANTED_SIZE = len(Granted._fields)
_LINE_SIZE = len(LineView._fields)
_STOCK_SIZE = len(StockView._fields)
_STOCK_DEFAULTS = (*[None] * (_STOCK_SIZE - len(StockView._field_defaults)), *StockView._field_defaults.values())
_TRANSFER_SIZE = len(TransferView._fields)
_EXPLAINED_SIZE = 11
_REFUSAL_SIZE = len(RefusalView._fields)


def timestamp(milliseconds: int) -> Timestamp | None:
    """Unix milliseconds as a Timestamp; None (absent) for 0."""
    if not milliseconds:
        return None
    return Timestamp(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def position(timeline: str, place: Sequence[int]) -> stock_key_pb2.Position:
    """[shard, epoch, sequence, time_ms] of a timeline."""
    shard, epoch, sequence, time_ms = place[:4]
    return stock_key_pb2.Position(
        timeline=timeline, shard=shard, epoch=epoch, sequence=sequence, time=timestamp(time_ms)
    )


@lru_cache(maxsize=4096)
def stock_key(key: str) -> stock_key_pb2.StockKey:
    """A stock key as a message. Shared: protobuf copies it when it is put into another message; never change it."""
    owner_id, warehouse_id, sku = split_stock_key(key)
    return stock_key_pb2.StockKey(sku=sku, warehouse_id=warehouse_id, owner_id=owner_id)


def refusal(timeline: str, view: Sequence[Any]) -> stock_key_pb2.Refusal:
    """A ``RefusalView``."""
    reason, shortages, state, version, place, *others = view[:_REFUSAL_SIZE]  # an older host tells no others
    message = stock_key_pb2.Refusal(reason=reason, state=state, version=version, position=position(timeline, place))
    for line_id, key, requested, available, why in shortages:
        message.shortages.add(
            line_id=line_id,
            stock_key=stock_key(key) if key else None,  # a line that has no claim lies nowhere
            requested_quantity=requested,
            available_quantity=available,
            reason=why,
        )
    for other in others[0] if others else ():
        message.other_positions.append(position(timeline, other))
    return message


def add_line(lines: Any, view: Sequence[Any]) -> None:
    """Append a ``LineView`` to a repeated field of Line."""
    line_id, key, requested, granted, fulfilled, released, expired, picked, uncovered, imposed = view[:_LINE_SIZE]
    lines.add(
        line_id=line_id,
        stock_key=stock_key(key),
        requested_quantity=requested,
        granted_quantity=granted,
        fulfilled_quantity=fulfilled,
        released_quantity=released,
        expired_quantity=expired,
        picked_quantity=picked,
        uncovered_quantity=uncovered,
        imposed=imposed,
    )


def reservation(timeline: str, view: Sequence[Any]) -> reservation_service_pb2.Reservation:
    """A ``ReservationView``."""
    (
        reservation_id, channel_id, customer_id, order_reference, state, version, lines, labels,
        create_ms, expire_ms, confirm_ms, end_ms, place, others,
    ) = view[:_RESERVATION_VIEW_SIZE]  # fmt: skip
    message = reservation_service_pb2.Reservation(
        reservation_id=reservation_id,
        channel_id=channel_id,
        customer_id=customer_id,
        order_reference=order_reference,
        state=state,
        version=version,
        create_time=timestamp(create_ms),
        expire_time=timestamp(expire_ms),
        confirm_time=timestamp(confirm_ms),
        end_time=timestamp(end_ms),
        position=position(timeline, place),
    )
    for line in lines:
        add_line(message.lines, line)
    for key, value in labels:
        message.labels[key] = value
    for other in others:
        message.other_positions.append(position(timeline, other))
    return message


def granted_reservation(
    timeline: str, payload: Sequence[Any], asked: Sequence[Any], request: reservation_service_pb2.ReserveStockRequest
) -> reservation_service_pb2.ReserveStockResponse:
    """A ``Granted`` with what the request said. ``asked``: the item's body, whose lines are as the shard decided on
    them.
    """
    reservation_id, state, version, create_ms, expire_ms, place, lines, others = payload[:_GRANTED_SIZE]
    response = reservation_service_pb2.ReserveStockResponse()
    message = response.reservation
    message.reservation_id = reservation_id
    message.channel_id = asked[2]
    if asked[8]:
        message.order_reference = asked[8]
    if asked[9]:
        message.customer_id = asked[9]
    message.state = state
    message.version = version
    time = message.create_time
    time.seconds = create_ms // 1000
    time.nanos = create_ms % 1000 * 1_000_000
    if expire_ms:
        time = message.expire_time
        time.seconds = expire_ms // 1000
        time.nanos = expire_ms % 1000 * 1_000_000
    else:
        message.confirm_time.CopyFrom(message.create_time)
    if lines is None:
        kept = message.lines
        for sent, (line_id, _, quantity, _) in zip(request.lines, asked[3], strict=True):
            kept.add(
                line_id=line_id, stock_key=sent.stock_key, requested_quantity=quantity, granted_quantity=quantity
            )  # the lean grant: every line as asked
    else:
        for line in lines:
            add_line(message.lines, line)
    for key, value in asked[11]:
        message.labels[key] = value
    where = message.position
    where.timeline = timeline
    where.shard, where.epoch, where.sequence, now_ms = place
    where.time.seconds = now_ms // 1000
    where.time.nanos = now_ms % 1000 * 1_000_000
    for other in others:
        message.other_positions.append(position(timeline, other))
    return response


def add_granted(granted: reservation_service_pb2.Granted, payload: Sequence[Any], replayed: bool) -> None:  # noqa: FBT001
    """A ``Granted`` of a batch, lean: the hottest path of all."""
    granted.reservation_id = payload[0]
    granted.expire_time_ms = payload[4]
    place = payload[5]
    where = granted.position
    where.shard = place[0]
    where.epoch = place[1]
    where.sequence = place[2]
    if replayed:
        granted.replayed = True
    lines = payload[6]
    if lines is not None:
        for line in lines:
            add_line(granted.lines, line)


def stock(timeline: str, view: Sequence[Any]) -> stock_service_pb2.Stock:
    """A ``StockView``."""
    (
        key, on_hand, held, confirmed, picked, adrift, shortage, safety_stock, selling_state, limit, base_unit, version,
        available, place, item_state, receipt_disposition, recalled_lots, in_transit, transfers,
    ) = (*view[:_STOCK_SIZE], *_STOCK_DEFAULTS[len(view) :])  # fmt: skip  # an older host tells fewer
    message = stock_service_pb2.Stock(
        stock_key=stock_key(key),
        held_quantity=held,
        confirmed_quantity=confirmed,
        picked_quantity=picked,
        picked_adrift_quantity=adrift,
        shortage_quantity=shortage,
        safety_stock_quantity=safety_stock,
        available_quantity=available,
        position=position(timeline, place),
        policy=stock_service_pb2.StockPolicy(
            safety_stock_quantity=safety_stock,
            selling_state=selling_state,
            max_quantity_per_order=limit,
            base_unit=base_unit,
            version=version,
            item_state=item_state,
            receipt_disposition=receipt_disposition,
            recalled_lots=stock_service_pb2.RecalledLots(lot_ids=recalled_lots) if recalled_lots else None,
        ),
        in_transit_quantity=in_transit,
        transfers=map(transfer, transfers),
    )
    for disposition, quantity in on_hand:
        message.on_hand.add(disposition=disposition, quantity=quantity)
    return message


def transfer(view: Sequence[Any]) -> stock_service_pb2.Transfer:
    """A ``TransferView``."""
    key, transfer_id, line, from_warehouse_id, dispatched, received, in_transit, lost, exception_id, last_ms = view[
        :_TRANSFER_SIZE
    ]
    return stock_service_pb2.Transfer(
        stock_key=stock_key(key),
        transfer_id=transfer_id,
        transfer_line=line,
        from_warehouse_id=from_warehouse_id,
        dispatched_quantity=dispatched,
        received_quantity=received,
        in_transit_quantity=in_transit,
        lost_quantity=lost,
        exception_id=exception_id,
        last_time=timestamp(last_ms),
    )


def explanation(timeline: str, view: Sequence[Any]) -> availability_service_pb2.Explanation:
    """An ``ExplanationView``. An unknown stock key explains itself by its refusal reason."""
    (
        of_stock, _known, cover, claims, available, largest, would_succeed, refusal_reason, next_expire_ms,
        next_expire_quantity, events,
    ) = view[:11]  # fmt: skip
    message = availability_service_pb2.Explanation(
        stock=stock(timeline, of_stock) if of_stock else None,
        cover_quantity=cover,
        claims_quantity=claims,
        available_quantity=available,
        largest_quantity_now=largest,
        would_succeed=would_succeed,
        refusal_reason=refusal_reason,
        next_hold_expire_time=timestamp(next_expire_ms),
        next_hold_expire_quantity=next_expire_quantity,
    )
    for event in events:
        sequence, time_ms, kind, quantity, cause = event[:5]
        told = message.events.add(sequence=sequence, time=timestamp(time_ms), kind=kind, quantity=quantity, cause=cause)
        if len(event) >= _EXPLAINED_SIZE:  # an older host tells fewer
            told.document_id, told.document_line, told.lot_id, told.reference, told.disposition, told.note = event[5:11]
    return message
