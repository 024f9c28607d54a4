"""A nightly count from a program: what a warehouse has on the shelf, as of the last event that its feed gave out.

    python docs/examples/nightly_count.py 127.0.0.1:7450 main wms "" 4711 2026-11-24T22:00:00Z

Reads ``SKU quantity`` lines from standard input. Run it again after a failure: the request id is made of warehouse and place,
so it goes on with the same reconciliation and nothing is booked twice.
"""

from __future__ import annotations

import sys

from google.protobuf.timestamp_pb2 import Timestamp

from stockade import Client
from stockade.client.reconciling import stock_line


def main() -> int:
    """0 when every line matched, was booked or was a matter of timing."""
    target, warehouse, source, stream, sequence, time = sys.argv[1:]
    as_of = Timestamp()
    as_of.FromJsonString(time)
    counted = [line.split() for line in sys.stdin if line.strip()]
    with Client(target) as client:
        done = client.reconcile(
            warehouse,
            [stock_line(sku, int(quantity)) for sku, quantity in counted],
            request_id=f"night-{warehouse}-{source}-{sequence}",
            source_id=source,
            stream_id=stream,
            as_of_source_sequence=int(sequence),
            as_of_time_ms=as_of.ToMilliseconds(),
            tolerance_units=1,
        )
    counts = done.reconciliation.counts
    print(f"{counts.lines} lines, {counts.booked} booked, {counts.quarantined} suspended, {counts.failed} failed")
    for one in done.findings:
        print(f"{one.stock_key.sku}: {one.found_quantity} counted, {one.expected_quantity} in the books, {one.kind}")
    return 1 if counts.quarantined or counts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
