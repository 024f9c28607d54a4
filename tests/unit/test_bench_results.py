"""Results of the benchmark: written, read, compared, drawn; and the proof that may not be talked away."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from bench import plots
from bench.comparing import compare
from bench.machine import is_busy
from bench.metering import below, journal_facts, node_counters, pids_by_role
from bench.report import write_html
from bench.results import PeerResult, ResultError, load_result, merged, save
from bench.running import proof_findings
from bench.tables import show_comparison, show_result
from tests.unit.bench_world import MACHINE, PROOF, result, run, scenario_result


def test_a_result_is_read_as_it_was_written(tmp_path):
    made = result(scenario_result("hot", [1_000, 1_100, 1_200], [2_000, 2_000, 2_000]))

    save(made, tmp_path / "made.json")

    assert load_result(tmp_path / "made.json") == made


@pytest.mark.parametrize(
    ("text", "told"),
    [("{}", "Field required"), ("no JSON", "not a result"), ('{"format": 99}', "not a result")],
)
def test_a_file_that_is_no_result_is_told_by_name(tmp_path, text, told):
    path = tmp_path / "other.json"
    path.write_text(text)

    with pytest.raises(ResultError, match=re.escape(str(path))) as raised:
        load_result(path)

    assert told in str(raised.value)


def test_a_missing_file_is_told_by_name(tmp_path):
    with pytest.raises(ResultError, match="cannot be read"):
        load_result(tmp_path / "none.json")


def test_latencies_of_several_runs_are_merged_from_their_histograms():
    whole = merged([run(100, latency_ms=1.0), run(100, latency_ms=100.0)])

    assert whole.get_total_count() == 100
    assert whole.get_value_at_percentile(40) == pytest.approx(1_000, rel=0.01)
    assert whole.get_value_at_percentile(60) == pytest.approx(100_000, rel=0.01)


def test_the_ratio_to_the_noop_is_made_of_neighbours():
    assert scenario_result("hot", [1_000, 2_000], [2_000, 2_000]).noop_ratios() == [0.5, 1.0]


# --- compare ---


def changes_of(before: list[float], after: list[float]) -> dict[str, str]:
    comparison = compare(result(scenario_result("hot", before)), result(scenario_result("hot", after)))
    return {one.metric: one.verdict for one in comparison.changes}


def test_a_change_beyond_the_spread_is_better_or_worse():
    assert changes_of([1_000, 1_050, 1_100], [1_200, 1_250, 1_300])["a second"] == "better"
    assert changes_of([1_200, 1_250, 1_300], [1_000, 1_050, 1_100])["a second"] == "worse"


def test_a_change_within_the_spread_is_no_change():
    assert changes_of([1_000, 1_050, 1_250], [1_200, 1_250, 1_300])["a second"] == "no difference to be seen"


def test_two_runs_are_said_to_be_few():
    assert changes_of([1_000, 1_050], [2_000, 2_050])["a second"] == "better (of only 2 and 2 runs)"


def test_a_slower_machine_that_slows_the_noop_as_much_changes_no_ratio():
    before = result(scenario_result("hot", [1_000] * 3, [2_000] * 3))
    after = result(scenario_result("hot", [500] * 3, [1_000] * 3))

    verdicts = {one.metric: one.verdict for one in compare(before, after).changes}

    assert (verdicts["a second"], verdicts["÷ no-op"]) == ("worse", "no difference to be seen")


def test_a_longer_latency_is_worse():
    before = result(scenario_result("hot", [1_000] * 3, latency_ms=1.0))
    after = result(scenario_result("hot", [1_000] * 3, latency_ms=3.0))

    (change,) = [one for one in compare(before, after).changes if one.metric == "p99 ms"]

    assert change.verdict == "worse"
    assert change.ratio == pytest.approx(3.0, rel=0.01)
    assert change.least <= change.ratio <= change.greatest


def test_equal_conditions_are_silent():
    assert compare(result(scenario_result("hot", [1_000])), result(scenario_result("hot", [1_000]))).differences == []


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        ({"cpu": "Other 1"}, "cpu Imaginary 9000 in A, Other 1 in B"),
        ({"versions": {"grpcio": "2.0", "ray": "2.60.0"}}, "grpcio 1.85.1 in A, 2.0 in B"),
        ({"fsync_ms": {"p50": 4.0, "p99": 9.0}}, "an fsync took 0.5 ms in A, 4.0 ms in B"),
        ({"load_average": [3.0, 1.0, 1.0]}, "the machine of B was busy"),
    ],
)
def test_other_conditions_are_told(machine, told):
    before, after = result(scenario_result("hot", [1_000])), result(scenario_result("hot", [1_000]), **machine)

    (difference,) = compare(before, after).differences

    assert told in difference


def test_other_settings_of_a_scenario_are_told():
    after = scenario_result("hot", [1_000])
    after.settings["load"]["in_flight"] = 64

    assert compare(result(scenario_result("hot", [1_000])), result(after)).differences == [
        "hot: load.in_flight 128 in A, 64 in B"
    ]


def test_what_only_one_side_has_or_what_does_not_count_is_not_compared():
    spoilt = scenario_result("hot", [1_000])
    spoilt.runs[0].invalid.append("the generator lagged")
    before = result(scenario_result("hot", [1_000]), scenario_result("gone", [1_000]))

    comparison = compare(before, result(spoilt, scenario_result("new", [1_000])))

    assert comparison.changes == []
    assert comparison.missing == ["gone: only in A", "new: only in B", "the scenario hot: no valid run in B"]


# --- the proof ---


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"claims_answered": 299}, "299 claims were answered, 300 are in the journal"),
        ({"facts_answered": 2}, "2 facts were answered, 1 are in the journal"),
        ({"oversells": 1}, "1 oversells"),
        ({"violations": 1}, "1 violations"),
        ({"left_unknown": 1}, "no yes or no"),
        ({"sold_out": True}, "sold out, but 300 of 1,000 units were granted"),
    ],
)
def test_a_journal_that_disagrees_with_the_answers_is_a_finding(change, told):
    (found,) = proof_findings(PROOF.model_copy(update=change), units_granted=300)

    assert told in found


def test_a_journal_that_agrees_is_none():
    assert proof_findings(PROOF, units_granted=300) == []


def test_a_failed_proof_fails_the_result_and_shows_everywhere(tmp_path, capsys):
    one = scenario_result("hot", [1_000])
    assert one.proof is not None
    one.proof.findings.append("300 claims were answered, 299 are in the journal")
    made = result(one)

    show_result(made)
    write_html([made], tmp_path / "report.html")

    assert not made.agrees
    assert "FAILED: 300 claims" in " ".join(capsys.readouterr().out.split())
    assert "299 are in the journal" in (tmp_path / "report.html").read_text()


# --- shown to people ---


VOID = {"meta", "br", "rect", "path"}


class Page(HTMLParser):
    """What a page refers to, and whether its tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def page_of(*scenarios, directory, **machine) -> tuple[Page, str]:
    path = directory / "report.html"
    write_html([result(*scenarios, **machine)], path)
    page = Page()
    page.feed(path.read_text())
    page.close()
    return page, path.read_text()


def test_the_report_is_one_whole_page_that_needs_nothing_else(tmp_path):
    page, text = page_of(scenario_result("hot", [1_000, 1_100], [2_000, 2_000]), directory=tmp_path)

    assert page.open == []
    assert page.references == []
    assert page.tags.count("svg") >= 5
    assert "url(" not in text
    assert "<script" not in text
    for shown in (
        "Imaginary 9000",
        "0123456789ab",
        "the scenario hot",
        "The journal agrees with every answer",
        "0.53 ×",
    ):
        assert shown in text


def test_the_report_stays_whole_with_peers(tmp_path):
    one = scenario_result("hot", [1_000, 1_100], [2_000, 2_000])
    one.peers = [
        PeerResult(name="fast", title="a <fast> peer", summary="s", runs=[run(5_000), run(6_000)]),
        PeerResult(name="none", title="an absent peer", summary="s", absent="not installed: x"),
    ]

    page, text = page_of(one, directory=tmp_path)

    assert page.open == []
    assert "A peer wins: the scenario hot: a &lt;fast&gt; peer is faster than Stockade, 5.2 ×" in text
    assert "did not run: not installed: x" in text


def test_the_report_says_when_the_machine_was_busy_and_when_a_run_does_not_count(tmp_path):
    spoilt = scenario_result("hot", [1_000])
    spoilt.runs[0].invalid.append("the generator <lagged>")

    page, text = page_of(spoilt, directory=tmp_path, load_average=[4.0, 2.0, 2.0])

    assert page.open == []
    assert "no measure of the service" in text
    assert "does not count: the generator &lt;lagged&gt;" in text
    assert "INVALID" in text


def test_a_result_without_runs_can_still_be_shown(tmp_path, capsys):
    empty = scenario_result("hot", [])

    page, _ = page_of(empty, directory=tmp_path)
    show_result(result(empty))

    assert page.open == []
    assert "the scenario hot" in capsys.readouterr().out


def test_tables_show_figures_ratio_and_conditions(capsys):
    show_result(result(scenario_result("hot", [1_000, 1_100, 1_200], [2_000, 2_000, 2_000])))
    show_comparison(compare(result(scenario_result("hot", [1_000] * 3)), result(scenario_result("hot", [2_000] * 3))))
    said = capsys.readouterr().out

    for shown in ("1,100", "0.55 × (0.50 … 0.60)", "Imaginary 9000", "2.000 × (2.000 … 2.000)", "better"):
        assert shown in said


def test_every_plot_is_well_formed_and_stays_inside_its_frame(tmp_path):
    struck = scenario_result("recovery", [1_000, 5_000], seconds=10.0)
    struck.runs[-1].struck_s = 3.3
    _, text = page_of(scenario_result("hot", [10, 30_000], [2_000, 2_000]), struck, directory=tmp_path)
    drawn = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]

    assert len(drawn) >= 8
    for svg in drawn:
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        for part in svg:
            if part.tag.endswith("rect"):
                assert float(part.attrib["x"]) + float(part.attrib["width"]) <= width
                assert float(part.attrib["y"]) + float(part.attrib["height"]) <= height
            elif part.tag.endswith("text"):
                assert 0 <= float(part.attrib["x"]) <= width
                assert 0 <= float(part.attrib["y"]) <= height
            else:
                for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", part.attrib["d"]):
                    assert 0 <= float(x) <= width
                    assert 0 <= float(y) <= height


@pytest.mark.parametrize(
    ("top", "levels"), [(0, [0, 1]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (950, [0, 200, 400, 600, 800, 1_000])]
)
def test_axes_have_round_numbers_that_reach_the_top(top, levels):
    assert plots.ticks(top) == pytest.approx(levels)


def test_percentiles_lie_on_an_axis_of_nines():
    assert [round(plots.nines(share), 6) for share in (0, 90, 99, 99.9, 100)] == [0, 1, 2, 3, 4]


# --- meters ---


def test_processes_are_told_apart_by_role_and_the_rest_below_them_is_rays():
    ready = {
        "gateway_pids": [20, 21], "host_pid": 22, "directory_pid": 23, "node_pid": 24, "serve_pid": 10, "gcs_pid": 11,
        "raylet_pid": 12,
    }  # fmt: skip
    parent_of = {10: 1, 11: 10, 12: 10, 20: 12, 21: 12, 22: 12, 23: 12, 24: 12, 30: 12, 31: 30, 99: 1}

    roles = pids_by_role(ready, parent_of)

    assert roles["gateway"] == {20, 21}
    assert roles["host"] == {22}
    assert roles["ray"] == {11, 12, 30, 31}
    assert below({30}, parent_of) == {30, 31}


def test_commits_and_turns_come_from_the_difference_of_two_scrapes():
    scraped = node_counters(
        "# TYPE stockade_turns counter\n"
        'stockade_turns_total{process="host"} 10\n'
        "# TYPE stockade_items counter\n"
        'stockade_items_total{process="host"} 500\n'
        "# TYPE stockade_commit_duration_seconds histogram\n"
        'stockade_commit_duration_seconds_bucket{le="+Inf",process="host"} 5\n'
        'stockade_commit_duration_seconds_count{process="host"} 5\n'
        'stockade_commit_duration_seconds_sum{process="host"} 0.02\n'
    )

    facts = journal_facts({}, scraped)

    assert (facts["items_per_turn"], facts["commits"], facts["commit_ms_mean"]) == (50.0, 5.0, 4.0)


def test_counters_that_began_anew_are_no_difference():
    assert journal_facts({"turns": 100.0}, {"turns": 5.0}) == {}


def test_a_machine_with_other_work_is_busy():
    assert is_busy({**MACHINE, "load_average": [1.5, 0, 0]})
    assert not is_busy(MACHINE)
