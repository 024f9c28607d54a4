"""The guard against regressions: its counts repeat exactly, and it fails when something costs more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.shard.turns import stock_key_of
from bench import check
from bench.check import TOLERANCES, WORKLOADS, bench_of, count_bytes, count_calls, regressions

WORKLOAD = {one.name: one for one in WORKLOADS}
RECORDED = {"hot": {"cpu": 10.0, "calls": 40.0, "bytes": 1_000.0}}


@pytest.mark.parametrize("name", ["hot, one line", "orders of 25 lines", "refusals", "feed, whole host"])
def test_a_fixed_workload_gets_the_answer_it_is_meant_to_get(name):
    bench = bench_of(WORKLOAD[name])

    bench.run()

    assert bench.answers == {WORKLOAD[name].answer}
    assert bench.units >= 3_000
    bench.end()


def test_function_calls_repeat_exactly():
    assert count_calls(WORKLOAD["refusals"]) == count_calls(WORKLOAD["refusals"])


def test_a_call_more_for_each_item_is_seen(monkeypatch):
    before = count_calls(WORKLOAD["hot, one line"])
    monkeypatch.setattr(check, "stock_key_of", lambda item: stock_key_of(item))

    after = count_calls(WORKLOAD["hot, one line"])

    assert after == pytest.approx(before + 1)
    assert regressions({"w": {"cpu": 1, "calls": before, "bytes": 0}}, {"w": {"cpu": 1, "calls": after, "bytes": 0}})


def test_what_stays_in_memory_is_counted_and_a_refusal_leaves_nothing():
    assert count_bytes(WORKLOAD["hot, one line"]) > 500
    assert count_bytes(WORKLOAD["refusals"]) < 5


def test_a_workload_that_is_answered_otherwise_is_no_measure():
    refused = replace(WORKLOAD["hot, one line"], stock=0)

    with pytest.raises(AssertionError, match="answers"):
        check.measure(refused, rounds=1)


@pytest.mark.parametrize("what", list(TOLERANCES))
def test_costs_within_the_tolerance_pass_and_beyond_it_fail(what):
    within = {**RECORDED["hot"], what: RECORDED["hot"][what] * (TOLERANCES[what] - 0.005)}
    beyond = {**RECORDED["hot"], what: RECORDED["hot"][what] * (TOLERANCES[what] + 0.01)}

    assert regressions(RECORDED, {"hot": within}) == []
    (found,) = regressions(RECORDED, {"hot": beyond})
    assert found.startswith(f"hot: {what} ")


def test_a_recorded_workload_that_was_not_measured_fails():
    assert regressions(RECORDED, {}) == ["hot: is recorded but was not measured"]


def test_a_time_that_seems_too_long_is_measured_again_and_a_real_one_stays(monkeypatch):
    names = [one.name for one in WORKLOADS]
    before = {name: {"cpu": 10.0, "calls": 40.0, "bytes": 1_000.0, "us": 5.0} for name in names}
    disturbed, slower = names[0], names[1]
    now = {name: {**before[name], "cpu": 13.0 if name in (disturbed, slower) else 10.0} for name in names}
    looks = []

    def measured(workload, rounds):
        looks.append(workload.name)
        return {**before[workload.name], "cpu": 10.1 if workload.name == disturbed else 13.1}

    monkeypatch.setattr(check, "measure", measured)
    found = regressions(before, check.looked_again(now, before, 1))

    assert looks == [disturbed, slower, slower]
    assert [one.partition(":")[0] for one in found] == [slower]
