"""A warehouse system that tells what happens, keeps its place, and never tells anything twice by mistake.

    python warehouse_feed.py 127.0.0.1:7450 [HOW_MANY]

Its outbox is a list here; a real one is a table that the warehouse system writes in the same transaction as the fact itself. The
sequence is that table's gapless number, the event id is made once when the row is written.
"""

from __future__ import annotations

import sys
import time

from stockade import Client
from stockade.client import facts
from stockade.client.results import Ingested

SOURCE, STREAM = "wms-example", "main"


def outbox(rows: int) -> list[object]:
    """What the warehouse has to tell, in order: a receipt, then picks and shipments without an order."""
    now_ms = time.time_ns() // 1_000_000
    told = []
    for sequence in range(1, rows + 1):
        at = facts.Told(
            SOURCE, f"{STREAM}-{sequence}", ("MUG", "main"), now_ms, stream_id=STREAM, source_sequence=sequence
        )
        if sequence == 1:
            told.append(facts.receipt(at, 1_000, inbound_reference="PO-1"))
        elif sequence % 100 == 0:
            told.append(
                facts.stock_count(at, 1_000 - 2 * (sequence - 2 - (sequence - 100) // 100), includes_picked=True)
            )
        else:
            told.append(facts.adjustment(at, -2, reason="sold over the counter"))
    return told


def ended(event: object, result: Ingested) -> None:
    """Called once for each event, when its end is durable: here the outbox's row may be deleted."""
    if result.outcome in ("REJECTED", "FAILED"):
        print(f"{result.event_id}: {result.outcome} {result.reason}, exception {result.exception_id or 'none'}")


def main(target: str, rows: int) -> None:
    """Go on behind what the service has received; everything given has its result when the stream closes."""
    with Client(target) as client, client.event_stream(SOURCE, STREAM, ended) as events:
        print(f"received up to {events.watermark}, highest {events.highest_sequence}")
        for event in outbox(rows)[events.watermark :]:
            events.send(event)
        events.flush()
        client.heartbeats([(SOURCE, STREAM, "main", rows)])
        print(dict(events.outcomes))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 250)
