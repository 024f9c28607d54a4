"""Feeds as metrics: the equation by stream, few labels however many streams there are."""

from __future__ import annotations

from actors.domain.answers import FeedView, FeedWarehouseView
from actors.runtime.feed_metrics import STREAMS_MAX, feed_metrics


def view(source_id: str, *, applied: int = 3, waiting: int = 0, stale: bool = False) -> FeedView:
    counts = {"applied": applied, "rejected": 1, "duplicates": 2, "waiting": waiting}
    part = FeedWarehouseView(
        "main", 5_000, 4_000, 1_000, stale=stale, expected_interval_ms=0, received=sum(counts.values()),
        last_heard_ms=6_000, **counts,
    )  # fmt: skip
    return FeedView(source_id, "", 7, 12, [(8, 9), (11, 11)], waiting, [part])


def samples(*views: FeedView) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in feed_metrics(views, 8_000)
        for sample in family.samples
    }


def test_a_stream_says_what_came_in_and_what_became_of_it():
    found = samples(view("wms", waiting=4, stale=True))
    counts = {key[-1]: value for key, value in found.items() if key[0] == "stockade_feed_events_total"}
    assert counts == {"received": 10, "applied": 3, "duplicate": 2, "rejected": 1, "waiting": 4}
    assert found["stockade_feed_missing_sequences", "wms", ""] == 3
    assert found["stockade_feed_watermark", "wms", ""] == 7
    assert found["stockade_feed_stale", "wms", "", "main"] == 1
    assert found["stockade_feed_lag_seconds", "wms", "", "main"] == 1
    assert found["stockade_feed_silence_seconds", "wms", "", "main"] == 2


def test_streams_beyond_the_bound_are_told_together_and_none_is_lost():
    views = [view(f"source-{number:04d}") for number in range(STREAMS_MAX + 50)]
    found = samples(*views)
    applied = {key[1]: value for key, value in found.items() if key[0::3] == ("stockade_feed_events_total", "applied")}
    assert len(applied) == STREAMS_MAX + 1
    assert applied["other"] == 150
    assert sum(applied.values()) == 3 * len(views)
