"""Clocks of other machines: which measurement is believed, and when it is said."""

from __future__ import annotations

import logging

import pytest

from actors.shard.clock_skew import ClockSkew


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_the_measurement_with_the_shortest_way_is_believed() -> None:
    skew = ClockSkew()
    skew.note_journal(10_000, 9_000, 10_400)  # a slow answer: 1,200 ahead, give or take 200
    assert skew.known == {"journal": 1_200}
    skew.note_journal(20_000, 19_000, 20_002)
    skew.note_journal(30_000, 29_500, 30_900)
    assert skew.known == {"journal": 1_001}


def test_old_measurements_are_forgotten() -> None:
    skew = ClockSkew()
    skew.note_journal(10_000, 9_000, 10_000)
    for at_ms in range(20_000, 28_000, 1_000):
        skew.note_journal(at_ms, at_ms + 10, at_ms + 10)
    assert skew.known == {"journal": -5}


def test_a_skew_is_warned_of_once_and_again_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    skew = ClockSkew()
    for skew_ms in (249, 251, 400, 251, 210, 199, 0):
        skew.note("node-b", skew_ms)
    ahead, well = warnings_of(caplog)
    assert "251 ms ahead of that of node-b: holds here end so much too early" in ahead
    assert "agree again: 199 ms" in well


def test_a_clock_that_is_behind_lets_holds_live_longer(caplog: pytest.LogCaptureFixture) -> None:
    ClockSkew().note("node-b", -300)
    assert "300 ms behind that of node-b: holds here end so much too late" in caplog.text


def test_what_the_way_may_have_done_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    skew = ClockSkew()
    skew.note_journal(10_000, 9_600, 10_400)  # 600 ahead, give or take 200: surely 400
    assert len(warnings_of(caplog)) == 1
    skew = ClockSkew()
    skew.note_journal(10_000, 9_600, 10_200)  # 500, give or take 100… of another clock
    skew.forget("journal")
    assert skew.known == {}
    caplog.clear()
    ClockSkew().note_journal(10_000, 10_000, 10_600)  # 300, give or take 300
    assert warnings_of(caplog) == []
