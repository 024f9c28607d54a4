"""Stockade beside its peers in results: who wins and in which words, what is unsound, and that all of it is shown."""

from __future__ import annotations

from bench.comparing import compare
from bench.load import Told
from bench.peers.company import proof_of
from bench.peers.standings import standings, winners
from bench.peers.tables import Recorded
from bench.report import write_html
from bench.results import PeerResult, load_result, save
from bench.tables import show_result
from tests.unit.bench_world import result, run, scenario_result


def beside(rates, peer_rates, **changes):
    one = scenario_result("hot", rates, [10_000.0] * len(rates))
    proof = proof_of(Recorded(10, 10, 0), Told(claims=10), 100)
    peer = PeerResult(
        name="p", title="the peer", summary="in memory", runs=[run(rate) for rate in peer_rates], proof=proof
    )
    one.peers = [peer.model_copy(update=changes)]
    return one


def verdict_of(rates, peer_rates, **changes) -> str:
    (standing,) = standings(beside(rates, peer_rates, **changes))
    return standing.verdict


def test_whoever_is_faster_in_every_round_wins_and_otherwise_nobody_does():
    assert verdict_of([2_000] * 3, [1_000] * 3) == "Stockade, 2.0 × as fast"
    assert verdict_of([1_000] * 3, [4_000, 2_000, 3_000]) == "THE PEER WINS, 3.0 × as fast"
    assert verdict_of([1_000] * 3, [900, 1_000, 1_100]) == "no difference to be seen"
    assert verdict_of([1_000], [500]) == "Stockade, 2.0 × as fast (of only 1 rounds)"
    assert verdict_of([1_000], [], absent="not installed: x") == "did not run: not installed: x"


def test_ratios_are_those_of_one_round_and_leave_out_runs_that_do_not_count():
    one = beside([1_000, 2_000, 3_000], [500, 500, 500])
    one.peers[0].runs[1].invalid.append("nothing was answered")

    (standing,) = standings(one)

    assert standing.ratios == [2.0, 6.0]
    assert standing.ratio_text == "4.00 × (2.00 … 6.00)"


def test_a_peer_without_a_run_that_counts_says_why():
    one = beside([1_000], [500])
    one.peers[0].runs[0].invalid.append("nothing was answered")

    assert standings(one)[0].verdict == "no round in which both count; nothing was answered"


def test_a_peer_that_wins_is_told_in_a_sentence():
    (said,) = winners([beside([1_000] * 3, [2_000] * 3), beside([1_000] * 3, [500] * 3)])

    assert "the peer is faster than Stockade, 2.0 × (2,000 claims a second" in said
    assert "2.0 × (of only 1 rounds) (2,000" in winners([beside([1_000], [2_000])])[0]


def test_peers_are_written_and_read_back(tmp_path):
    made = result(beside([1_000] * 3, [2_000] * 3, configuration={"fsync": "on"}, versions={"x": "1"}))

    save(made, tmp_path / "made.json")

    assert load_result(tmp_path / "made.json") == made


def test_tables_and_report_show_peers_winners_absent_and_unsound_ones(tmp_path, capsys):
    unsound = proof_of(Recorded(9, 9, 0), Told(claims=10), 100)
    made = result(
        beside([1_000] * 3, [2_000] * 3, configuration={"fsync": "on"}),
        beside([1_000] * 3, [500] * 3, proof=unsound),
        beside([1_000] * 3, [], absent="not <installed>", proof=None),
    )

    show_result(made)
    write_html([made], tmp_path / "report.html")
    said, page = " ".join(capsys.readouterr().out.split()), (tmp_path / "report.html").read_text()

    assert "a peer wins" in said
    for shown in ("2,000", "UNSOUND", "did not run", "0.50 ×"):
        assert shown in said
    for shown in ("A peer wins", "fsync on", "the peer is unsound: 10 claims", "not &lt;installed&gt;", "0.50 ×"):
        assert shown in page


def test_a_comparison_of_two_results_shows_the_ratio_to_each_peer():
    before = result(beside([1_000] * 3, [1_000] * 3))
    after = result(beside([3_000] * 3, [1_500] * 3))

    (change,) = [one for one in compare(before, after).changes if one.metric == "÷ the peer"]

    assert (change.before, change.after, change.verdict) == (1.0, 2.0, "better")
