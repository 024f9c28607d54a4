"""What `stockade explain` says beyond the numbers: the sale gate in sentences, and the paper behind an event."""

from __future__ import annotations

from stockade.v1 import availability_service_pb2, stock_key_pb2, stock_service_pb2

LOTS_NAMED_MAX = 10


def gate_sentences(policy: stock_service_pb2.StockPolicy) -> list[str]:
    """What a stock key's sale gate does with units that come in, where that is not the default."""
    said = []
    if policy.item_state == stock_service_pb2.ITEM_STATE_INACTIVE:
        said.append("the item is inactive: what comes in starts in quality hold")
    if policy.receipt_disposition == stock_key_pb2.DISPOSITION_QUALITY_HOLD:
        said.append("what comes in starts in quality hold until a disposition change lifts it")
    lots = list(policy.recalled_lots.lot_ids)
    if lots:
        named = ", ".join(lots[:LOTS_NAMED_MAX]) + (", …" if len(lots) > LOTS_NAMED_MAX else "")
        said.append(f"recalled lots: {named}: what comes in of them starts recalled")
    return said


def paper(event: availability_service_pb2.ExplanationEvent) -> str:
    """Disposition, reference, document and lot of an event, as far as it has them."""
    parts = []
    if event.disposition > stock_key_pb2.DISPOSITION_SELLABLE:
        parts.append(stock_key_pb2.Disposition.Name(event.disposition).removeprefix("DISPOSITION_").lower())
    if event.reference:
        parts.append(event.reference)
    if event.document_id:
        line = f" line {event.document_line}" if event.document_line else ""
        parts.append(f"document {event.document_id}{line}")
    elif event.document_line:
        parts.append(f"line {event.document_line}")
    if event.lot_id:
        parts.append(f"lot {event.lot_id}")
    if event.note:
        parts.append(event.note)
    return ", ".join(parts)
