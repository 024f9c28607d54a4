"""What became of a batch of events, as results: each its own, though answers that are alike are made once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.domain import answers as views
from actors.domain import outcomes
from gateway.translate.event_results import ResultBytes, varint
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


WHOLE = st.integers(0, 2**62)
PLACES = st.tuples(st.integers(0, 4_095), WHOLE, WHOLE, st.integers(0, 253_402_300_799_999))
VIEWS = st.builds(
    views.IngestView,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128),
    st.sampled_from([1, 1, 1, 1, 2, 3, 4]),
    PLACES,
    st.sampled_from([0, 0, 0, 7]),
    st.sampled_from(["", "", "1-t-5-1"]),
    st.sampled_from([0, 5]),
    st.sampled_from([0, 0, 2]),
    st.just([1, 2]),
    st.just(9),
    st.just(1_700_000_000_000),
)


@given(st.sampled_from([1, 2]), st.text(max_size=200), st.lists(VIEWS, max_size=5))
def test_results_as_bytes_are_those_of_the_messages(field: int, timeline: str, told: list[views.IngestView]) -> None:
    message = event_pb.IngestEventsResponse() if field == 1 else event_pb.StreamEventsResponse()
    results, results_bytes = Results(), ResultBytes(field, timeline)
    for view in told:
        assert results.fill(message.results.add(), timeline, view) == results_bytes.add(view)
    assert b"".join(results_bytes.parts) == message.SerializeToString()


@given(st.integers(0, 2**63 - 1))
def test_a_number_is_written_as_protobuf_does(number: int) -> None:
    assert b"\x18" + varint(number) == event_pb.StreamEventsResponse(watermark=number).SerializeToString() or not number
