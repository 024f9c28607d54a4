"""Warehouse events as messages: one function a fact, the event's identity and place in one ``Told``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stockade.client.calls import Key, key_message
from stockade.v1 import stock_key_pb2
from stockade.v1 import warehouse_event_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class Told:
    """Who tells what happened, where and when. ``occur_time_ms``: Unix milliseconds."""

    source_id: str
    event_id: str
    stock_key: Key
    occur_time_ms: int
    stream_id: str = ""
    source_sequence: int = 0
    document_id: str = ""
    document_line: str = ""
    lot_id: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


def promise(reservation_id: str = "", *, channel_id: str = "", order_reference: str = "", line_id: str = "") -> Any:
    """To whom units were promised: a reservation, or an order of a channel."""
    if reservation_id:
        return stock_key_pb2.Promise(reservation_id=reservation_id, line_id=line_id)
    order = stock_key_pb2.OrderReference(channel_id=channel_id, order_reference=order_reference)
    return stock_key_pb2.Promise(order=order, line_id=line_id)


def disposition(name: str) -> Any:
    """A disposition by its name; empty: the fact's default. ValueError names the known ones."""
    if not name:
        return 0
    try:
        return stock_key_pb2.Disposition.Value(f"DISPOSITION_{name.upper()}")
    except ValueError:
        known = ", ".join(other.removeprefix("DISPOSITION_") for other in stock_key_pb2.Disposition.keys()[1:])
        raise ValueError(f"disposition: {name!r} is not one of {known}") from None


def event(told: Told, **fact: Any) -> Any:
    """A WarehouseEvent; ``fact`` is one of its facts by name, as a message."""
    message = pb.WarehouseEvent(
        source_id=told.source_id,
        stream_id=told.stream_id,
        event_id=told.event_id,
        source_sequence=told.source_sequence,
        stock_key=key_message(told.stock_key),
        document_id=told.document_id,
        document_line=told.document_line,
        lot_id=told.lot_id,
        attributes=dict(told.attributes),
        **fact,
    )
    message.occur_time.FromMilliseconds(told.occur_time_ms)
    return message


def receipt(told: Told, quantity: int, *, into: str = "", inbound_reference: str = "") -> Any:
    """Goods came in."""
    fact = pb.Receipt(quantity=quantity, disposition=disposition(into), inbound_reference=inbound_reference)
    return event(told, receipt=fact)


def pick(told: Told, quantity: int, promised: Any = None) -> Any:
    """Units were taken off the shelf."""
    return event(told, pick=pb.Pick(quantity=quantity, promise=promised))


def unpick(told: Told, quantity: int, promised: Any = None) -> Any:
    """Picked units were put back."""
    return event(told, unpick=pb.Unpick(quantity=quantity, promise=promised))


def shipment(
    told: Told, quantity: int, shipment_id: str, promised: Any = None, *, close_remainder: bool = False
) -> Any:
    """Units left the building."""
    fact = pb.Shipment(quantity=quantity, shipment_id=shipment_id, promise=promised, close_remainder=close_remainder)
    return event(told, shipment=fact)


def adjustment(told: Told, delta: int, *, of: str = "", reason: str = "", note: str = "") -> Any:
    """The books were corrected."""
    return event(told, adjustment=pb.Adjustment(delta=delta, disposition=disposition(of), reason=reason, note=note))


def stock_count(  # noqa: PLR0913  the parts of a count
    told: Told, quantity: int, *, as_of: int = 0, now: bool = False, of: str = "", includes_picked: bool = False
) -> Any:
    """Somebody counted. ``as_of``: the last sequence of the stream that the count has seen; 0: the one before its own.
    ``now``: the count is of the moment when it arrives.
    """
    fact = pb.StockCount(
        quantity=quantity,
        disposition=disposition(of),
        as_of_source_sequence=as_of,
        take_as_now=now,
        includes_picked=includes_picked,
    )
    return event(told, stock_count=fact)


def disposition_change(told: Told, quantity: int, before: str, after: str) -> Any:
    """Units changed their condition."""
    fact = pb.DispositionChange(
        quantity=quantity, from_disposition=disposition(before), to_disposition=disposition(after)
    )
    return event(told, disposition_change=fact)


def transfer_dispatch(
    told: Told, quantity: int, transfer_id: str, to_warehouse_id: str, *, transfer_line: str = "", out_of: str = ""
) -> Any:
    """Units left for another warehouse. ``out_of``: the disposition they had."""
    fact = pb.TransferDispatch(
        quantity=quantity,
        transfer_id=transfer_id,
        transfer_line=transfer_line,
        to_warehouse_id=to_warehouse_id,
        disposition=disposition(out_of),
    )
    return event(told, transfer_dispatch=fact)


def transfer_receipt(
    told: Told,
    quantity: int,
    transfer_id: str,
    from_warehouse_id: str,
    *,
    transfer_line: str = "",
    final: bool = False,
    into: str = "",
) -> Any:
    """Units came from another warehouse. ``final``: nothing more comes of this line."""
    fact = pb.TransferReceipt(
        quantity=quantity,
        transfer_id=transfer_id,
        transfer_line=transfer_line,
        from_warehouse_id=from_warehouse_id,
        final=final,
        disposition=disposition(into),
    )
    return event(told, transfer_receipt=fact)


def customer_return(told: Told, quantity: int, *, into: str = "", return_id: str = "", promised: Any = None) -> Any:
    """A customer sent units back."""
    fact = pb.CustomerReturn(quantity=quantity, disposition=disposition(into), return_id=return_id, promise=promised)
    return event(told, customer_return=fact)
