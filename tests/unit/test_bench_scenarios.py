"""Scenario files of the benchmark: those that come with it are whole, and a fault in one is told by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import adapted, parser
from bench.scenario import ScenarioError, all_scenarios, chosen, read_scenario

WHOLE = """
title = "a scenario"
about = "for a test"
work = "reserve"
keys = 10
[load]
mode = "closed"
in_flight = 4
"""


def scenario_file(directory: Path, text: str) -> Path:
    path = directory / "made.toml"
    path.write_text(text)
    return path


def test_every_kind_of_load_that_users_meet_has_a_scenario():
    names = {one.name for one in all_scenarios()}

    assert names >= {
        "hot", "spread", "hot-batch", "spread-batch", "idle", "half-peak", "peak", "flash-sale", "orders", "availability",
        "mixed-day", "storm", "ingest", "ingest-stream", "overload", "wide", "recovery", "soak",
    }  # fmt: skip


def test_nothing_named_means_the_short_set_and_all_means_all():
    assert {one.name for one in chosen([])} == {one.name for one in all_scenarios() if one.short}
    assert chosen(["all"]) == all_scenarios()
    assert [one.name for one in chosen(["soak", "hot"])] == ["soak", "hot"]


def test_the_short_set_takes_about_five_minutes():
    measured_s = sum(
        (one.load.seconds * one.load.repetitions + one.load.warm_up_seconds) * (2 if one.noop else 1)
        for one in chosen([])
    )
    started_and_judged_s = 12 * len(chosen([]))

    assert measured_s + started_and_judged_s < 330


def test_a_scenario_of_ones_own_is_read_from_its_file(tmp_path):
    path = scenario_file(tmp_path, WHOLE)

    (one,) = chosen([str(path)])

    assert (one.name, one.keys, one.load.in_flight, one.load.repetitions) == ("made", 10, 4, 3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ('work = "reserve"', 'work = "dance"'),
            "work: Input should be 'reserve', 'availability', 'ingest' or 'mixed'",
        ),
        (("keys = 10", "keyes = 10"), "keyes: there is no such field; did you mean keys?"),
        (("in_flight = 4", "in_fligth = 4"), "load.in_fligth: there is no such field; did you mean in_flight?"),
        (("in_flight = 4", "in_flight = 0"), "load.in_flight: Input should be greater than or equal to 1"),
        (("keys = 10", "keys = 10\nlines = 25"), "orders of 25 different stock keys need keys ≥ 25"),
        (("keys = 10", "keys = 10\nlines = 10\nbatch = 1000"), "must not exceed 4000 lines a call"),
        (('mode = "closed"', 'mode = "open"'), "an open loop needs either rate_per_second or share_of_peak"),
        (('mode = "closed"', 'mode = "closed"\nrate_per_second = 5.0'), "belong to mode = 'open'"),
        (("in_flight = 4", "until_sold_out = true"), "until_sold_out needs work = 'reserve' and restock = true"),
        (('title = "a scenario"', ""), "title: Field required"),
        (("keys = 10", "keys = "), "not valid TOML"),
    ],
)
def test_a_fault_names_the_file_the_field_and_what_would_be_right(tmp_path, change, told):
    path = scenario_file(tmp_path, WHOLE.replace(*change))

    with pytest.raises(ScenarioError) as raised:
        read_scenario(path)

    assert told in str(raised.value)
    assert str(path) in str(raised.value)


def test_an_unknown_scenario_is_answered_with_the_nearest_one():
    with pytest.raises(ScenarioError, match="did you mean flash-sale"):
        chosen(["flashsale"])


def test_the_command_line_overrides_what_a_scenario_says():
    options = parser().parse_args(["run", "wide", "half-peak", "--keys", "77", "--minutes", "2", "--rate", "50"])

    wide, half = adapted(options)

    assert (wide.keys, wide.load.seconds, wide.load.rate_per_second) == (77, 120.0, None)
    assert (half.load.rate_per_second, half.load.share_of_peak) == (50.0, None)


def test_an_override_that_cannot_be_is_told_like_a_fault_in_a_file():
    options = parser().parse_args(["run", "orders", "--keys", "5"])

    with pytest.raises(ScenarioError, match="orders: the scenario: orders of 25 different stock keys"):
        adapted(options)
