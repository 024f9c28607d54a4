"""The table of goals: what is judged reached, what is run for whom, and that a figure is never talked up."""

from __future__ import annotations

import pytest

from bench.goals.catalog import GOALS, Found
from bench.goals.measures import SCENARIO_MEASURES
from bench.goals.running import MEASURES, chosen_goals, needed
from bench.goals.showing import markdown, show_goals, write_goals_html
from bench.goals.table import MISSED, REACHED, UNMEASURED, Figures, Goal, GoalTable, load_table, row, save_table
from bench.peers.catalog import PEERS
from bench.results import ResultError, ScenarioResult
from bench.scenario import ScenarioError, chosen
from tests.unit.bench_world import result, run, scenario_result


def at_least(wanted: float, *values: float) -> Goal:
    return Goal(number=1, work="work", rows=row("row", values, figure="figure", unit="×", at_least=wanted))


def test_a_goal_is_reached_by_the_median_repetition():
    assert at_least(0.85, 0.80, 0.86, 0.90).state == REACHED
    assert at_least(0.85, 0.80, 0.84, 0.99).state == MISSED


def test_a_bound_from_above_is_judged_the_other_way_round():
    low = Goal(number=7, work="latency", rows=row("row", [0.6, 0.7, 0.9], figure="", unit="ms", at_most=0.7))
    high = Goal(number=7, work="latency", rows=row("row", [0.6, 0.8, 0.9], figure="", unit="ms", at_most=0.7))

    assert (low.state, high.state) == (REACHED, MISSED)


def test_a_goal_of_two_figures_needs_both():
    both = at_least(5, 6.0).rows + at_least(200, 150.0).rows

    assert Goal(number=2, work="both", rows=both).state == MISSED


def test_what_was_not_measured_is_not_reached():
    assert at_least(1).state == UNMEASURED
    assert {goal.judged(Found()).state for goal in GOALS.values()} == {UNMEASURED}


def test_the_ratio_of_a_goal_is_that_of_neighbouring_runs():
    found = Found(scenarios={"hot": scenario_result("hot", [800, 1_600, 900], [1_000, 2_000, 1_000])})

    (shown,) = GOALS[1].judged(found).rows

    assert (shown.value, shown.low, shown.high, shown.count) == (0.8, 0.8, 0.9, 3)


def test_the_slowest_of_all_kills_is_judged():
    killed = scenario_result("recovery", [500.0, 500.0, 500.0])
    for one, seconds in zip(killed.runs, (2.0, 2.5, 3.5), strict=True):
        one.first_acknowledged_s = seconds

    goal = GOALS[15].judged(Found(scenarios={"recovery": killed}))

    assert (goal.rows[0].value, goal.state) == (3.5, MISSED)


def phases(before: float, flood: float, after: float, errors: dict[str, int] | None = None) -> ScenarioResult:
    made = scenario_result("overload", [])
    for label, per_second in (("1 ×", before), ("10 ×", flood), ("again", after)):
        made.runs.append(run(per_second, label=label, seconds=2.0))
    made.runs[1].errors = errors or {}
    return made


def missed(one: ScenarioResult) -> list[str]:
    goal = GOALS[16].judged(Found(scenarios={"overload": one}))
    return [shown.what for shown in goal.rows if not shown.reached]


def test_a_flood_that_is_served_or_told_so_reaches_the_goal():
    assert missed(phases(1_000, 950, 1_000, {"OVERLOADED": 500})) == []


def test_a_flood_that_costs_goodput_misses_it():
    assert missed(phases(1_000, 850, 1_000)) == ["calls: goodput at ten times as much"]


def test_calls_that_grpc_drops_miss_it():
    assert missed(phases(1_000, 950, 1_000, {"CANCELLED": 1})) == [
        "calls: calls that got neither an answer nor OVERLOADED"
    ]


def test_being_slow_after_a_flood_misses_it():
    assert missed(phases(1_000, 950, 800)) == ["calls: right after it"]


def test_growth_is_the_ratio_of_every_pair():
    values = {"cpu_small": [10.0, 20.0], "cpu_big": [20.0, 20.0]}

    (shown,) = GOALS[14].judged(Found(figures={"big": Figures(name="big", values=values)})).rows

    assert (shown.low, shown.value, shown.high) == (1.0, 1.5, 2.0)


def test_everything_a_goal_needs_can_be_run():
    for goal in GOALS.values():
        for measure, peers in goal.needs.items():
            assert measure in MEASURES, goal.number
            assert set(peers) <= set(PEERS), goal.number
            if measure in SCENARIO_MEASURES:
                assert set(peers) <= set(SCENARIO_MEASURES[measure].peers), goal.number


def test_every_measure_is_a_scenario_that_exists():
    for measure in SCENARIO_MEASURES.values():
        assert chosen([measure.scenario])
        assert not measure.beside or chosen([measure.beside])


def test_a_measure_runs_once_for_all_its_goals_with_all_their_peers():
    assert needed(chosen_goals("1,5,3")) == {"hot": {"ray", "asyncpg"}, "hot-batch": {"asyncpg"}}


def test_an_unknown_goal_is_told():
    with pytest.raises(ScenarioError, match="there is no goal '99'"):
        chosen_goals("1,99")


def table_of(*goals: Goal) -> GoalTable:
    return GoalTable(quick=True, goals=list(goals), result=result(scenario_result("hot", [900.0], [1_000.0])))


def test_a_table_is_read_as_it_was_written(tmp_path):
    made = table_of(at_least(0.85, 0.9, 0.9, 0.9))

    save_table(made, tmp_path / "goals.json")

    assert load_table(tmp_path / "goals.json") == made


def test_a_file_that_is_no_table_is_told_by_name(tmp_path):
    (tmp_path / "other.json").write_text("{}")

    with pytest.raises(ResultError, match=r"other\.json"):
        load_table(tmp_path / "other.json")


def test_people_see_figure_spread_goal_and_verdict(tmp_path, capsys):
    table = table_of(at_least(0.85, 0.80, 0.86, 0.90), at_least(5, 4.0), Goal(number=17, work="hosts", note="later"))

    show_goals(table)
    write_goals_html(table, tmp_path / "goals.html")
    texts = (capsys.readouterr().out, markdown(table), (tmp_path / "goals.html").read_text())

    for text in texts:
        for said in ("0.86 × (0.8 … 0.9)", "≥ 0.85 ×", "NOT REACHED", "not measured", "17: later"):
            assert said in text
        assert "1 reached, 1 not reached, 1 not measured" in text
