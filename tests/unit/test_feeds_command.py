"""``stockade feeds`` for people: one line a feed, silence and gaps in one word."""

from __future__ import annotations

import pytest

from gateway.cli.feeds_command import COLUMNS, broken, duration, rows_of
from stockade.client.results import Feed, WarehouseFeed


def part(*, stale: bool = False, received: int = 3) -> WarehouseFeed:
    return WarehouseFeed(
        warehouse_id="main",
        last_received_time_ms=0,
        last_occur_time_ms=0,
        last_heard_time_ms=0,
        lag_ms=0,
        stale=stale,
        expected_interval_ms=0,
        received_count=received,
        applied_count=received,
        duplicate_count=0,
        waiting_count=0,
        rejected_count=0,
    )


def feed(stream_id: str, *parts: WarehouseFeed, missing: tuple[tuple[int, int], ...] = ()) -> Feed:
    return Feed("wms", stream_id, 7, 9, missing, 0, parts)


def told(*feeds: Feed) -> list[tuple[str, str, str]]:
    at = [COLUMNS.index(name) for name in ("stream", "state", "missing")]
    return [tuple(row[index] for index in at) for row in rows_of(list(feeds))]


def test_silence_and_gaps_are_said_in_one_word():
    assert told(feed("day", part())) == [("day", "ok", "")]
    assert told(feed("day", part(stale=True))) == [("day", "SILENT", "")]
    gaps = ((3, 3), (5, 8), (10, 10), (12, 14))
    assert told(feed("day", part(), missing=gaps)) == [("day", "GAPS", "3, 5-8, 10, …")]
    assert [broken(feed("day", part(stale=stale), missing=gap)) for stale in (False, True) for gap in ((), gaps)] == [
        False,
        True,
        True,
        True,
    ]


def test_a_source_that_is_only_expected_has_a_line_until_one_of_its_streams_is_heard():
    expected = feed("", part(stale=True, received=0))
    assert told(expected) == [("", "SILENT", "")]
    assert told(expected, feed("day", part(stale=True))) == [("day", "SILENT", "")]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0.0 s"), (119_000, "119.0 s"), (120_000, "2 min"), (7_200_000, "2 h"), (172_800_000, "2 d")],
)
def test_durations_are_for_people(milliseconds: int, text: str):
    assert duration(milliseconds) == text
