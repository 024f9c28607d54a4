"""What became of a batch of events, as results: each its own, though answers that are alike are made once."""

from __future__ import annotations

from actors.domain import answers as views
from actors.domain import outcomes
from gateway.translate.events import Results
from stockade.v1 import warehouse_event_service_pb2 as event_pb

PLACE = (5, 3, 99, 1_700_000_000_123)


def test_results_of_one_batch_do_not_run_into_each_other() -> None:
    """What was put into the last result is kept for the next: only where both are alike."""
    results, filled = Results(), []
    told = [(PLACE, 3, ""), (PLACE, 3, ""), (PLACE, 0, ""), ((*PLACE[:2], 99, 5), 0, ""), (PLACE, 0, "x")]
    for number, (place, shortage, exception_id) in enumerate(told):
        result = event_pb.IngestResult()
        view = views.IngestView(f"e{number}", int(outcomes.IngestOutcome.APPLIED), place, shortage, exception_id, 0)
        results.fill(result, "tl", view)
        filled.append(result)
    seen = [
        (each.event_id, each.applied.position.sequence, each.applied.shortage_quantity, each.applied.exception_id)
        for each in filled
    ]
    assert seen == [(f"e{number}", place[2], short, why) for number, (place, short, why) in enumerate(told)]
