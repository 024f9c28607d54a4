"""``python -m bench``: run scenarios, alone or in turn with the peers; list, compare and draw; check the cost of the rules.

Without a command it runs the short set, about five minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bench.scenario import Scenario, ScenarioError, all_scenarios, chosen

if TYPE_CHECKING:
    from bench.peers.catalog import Peer

RESULTS = Path(__file__).parent / "results"
REPORTS = Path(__file__).parent / "reports"
COMMANDS = ("run", "peers", "goals", "list", "compare", "report", "check", "reconcile", "feed")
PEER_SCENARIOS = ("hot", "spread", "hot-batch", "spread-batch", "hot-batch-1000")
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INVALID, EXIT_TERMINATED = 0, 1, 2, 3, 143


def parser() -> argparse.ArgumentParser:
    """Every command and its options."""
    whole = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run scenarios by name or TOML file (none: the short set; all: every one)")
    run.add_argument("--gateways", type=int, default=1, help="gateway processes, on both sides (default 1)")
    run.add_argument("--no-noop", action="store_true", help="leave the no-op out")
    add_run_options(run)
    peers = commands.add_parser(
        "peers", help=f"scenarios in turn with the peers (none named: {', '.join(PEER_SCENARIOS)})"
    )
    peers.add_argument("--peers", metavar="A,B", help="some of them (default all): noop, neveroversell, asyncpg, …")
    add_run_options(peers)
    goals = commands.add_parser("goals", help="every performance goal, measured and judged: one table")
    goals.add_argument("--only", metavar="N,...", help="some of them")
    goals.add_argument("--quick", action="store_true", help="shorter runs: all of them in about twenty minutes")
    goals.add_argument("--keys", type=int, default=1_000_000, help="and holds, of goals 12 to 14 (default 1,000,000)")
    goals.add_argument("--cpus", help="processors for everything (default the first two; '' for all)")
    goals.add_argument("--seed", type=int, default=1)
    goals.add_argument("--output", type=Path, help="JSON (default bench/results/goals-<time>.json); a report beside it")
    goals.add_argument("--show", type=Path, metavar="GOALS.json", help="measure nothing: show these")
    goals.add_argument(
        "--record", action="store_true", help="into bench/reports/ and docs/performance.md as well, to be committed"
    )
    commands.add_parser("list", help="what scenarios and peers there are")
    compare = commands.add_parser("compare", help="two results: ratios with spread, and whether conditions differ")
    compare.add_argument("before", type=Path, metavar="A.json")
    compare.add_argument("after", type=Path, metavar="B.json")
    report = commands.add_parser("report", help="results as tables, and as one self-contained HTML file")
    report.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    report.add_argument("--html", type=Path, metavar="FILE")
    reconcile = commands.add_parser(
        "reconcile", help="a very long count beside reservations: their p99, and no oversell"
    )
    reconcile.add_argument("--lines", type=int, default=100_000, help="stock keys, each counted (default 100,000)")
    reconcile.add_argument("--rate", type=float, default=1_000, help="reservations a second (default 1,000)")
    reconcile.add_argument("--seconds", type=float, default=20, help="of reservations alone (default 20)")
    reconcile.add_argument("--gateways", type=int, default=1)
    reconcile.add_argument("--seed", type=int, default=1)
    feed = commands.add_parser("feed", help="how fast changes go out, and how soon a watcher hears of them")
    feed.add_argument("--changes", type=int, default=1_000_000, help="to catch up with (default 1,000,000)")
    feed.add_argument("--watch-seconds", type=float, default=20.0)
    feed.add_argument("--cpus", help="processors for everything (default the first two; '' for all)")
    feed.add_argument("--seed", type=int, default=1)
    feed.add_argument("--output", type=Path, help="figures as JSON")
    check = commands.add_parser("check", help="CPU a claim of a fixed workload against the committed record")
    check.add_argument("--record", action="store_true", help="write the record instead")
    check.add_argument("--rounds", type=int, default=9, help="the least of so many counts (default 9)")
    return whole


def add_run_options(run: argparse.ArgumentParser) -> None:
    """What ``run`` and ``peers`` have in common."""
    run.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    run.add_argument("--seconds", type=float, help="of each run, instead of the scenario's")
    run.add_argument("--minutes", type=float, help="the same in minutes")
    run.add_argument("--warm-up", type=float, dest="warm_up_seconds", help="seconds before the counted runs")
    run.add_argument("--repetitions", type=int, help="counted runs of each scenario")
    run.add_argument("--keys", type=int, help="stock keys, instead of the scenario's")
    run.add_argument("--in-flight", type=int, help="calls in flight of a closed loop")
    run.add_argument("--rate", type=float, dest="rate_per_second", help="calls a second of an open loop")
    run.add_argument("--cpus", help="processors for everything, generator included (default the first two; '' for all)")
    run.add_argument("--seed", type=int, default=1)
    run.add_argument("--output", type=Path, help="JSON result (default bench/results/<time>.json)")
    run.add_argument("--html", type=Path, help="write the report as well")


def reconcile(options: argparse.Namespace) -> int:
    """A list beside reservations."""
    from bench.reconciling import Wanted, measure

    wanted = Wanted(options.lines, options.rate, options.seconds, options.gateways, options.seed)
    return measure(wanted, lambda text: print(text, flush=True))


def main(arguments: list[str]) -> int:
    """Exit code: 0; 1 journal and answers disagree, or the check found a regression; 2 usage; 3 a run does not count."""
    if not arguments or (arguments[0] not in COMMANDS and arguments[0] not in ("-h", "--help")):
        arguments = ["run", *arguments]
    options = parser().parse_args(arguments)
    from bench.results import ResultError

    try:
        return {
            "run": run,
            "peers": run_with_peers,
            "goals": goals,
            "list": show_list,
            "compare": compare,
            "report": report,
            "check": check,
            "reconcile": reconcile,
            "feed": feed,
        }[options.command](options)
    except (ScenarioError, ResultError) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except typer.Exit as ended:  # the service did not start, and has said why
        return ended.exit_code


def adapted(options: argparse.Namespace) -> list[Scenario]:
    """The scenarios asked for, with the command line's values instead of their own."""
    scenarios = chosen(options.scenarios)
    seconds = options.seconds if options.minutes is None else options.minutes * 60
    changed = []
    for one in scenarios:
        rate = options.rate_per_second if one.load.mode == "open" else None
        share = {"share_of_peak": None} if rate is not None else {}
        if share:
            one = one.model_copy(update={"load": one.load.model_copy(update=share)})
        changed.append(
            one.adapted(
                seconds=seconds,
                warm_up_seconds=options.warm_up_seconds,
                repetitions=options.repetitions,
                keys=options.keys,
                in_flight=options.in_flight,
                rate_per_second=rate,
            )
        )
    return changed


def pin(cpus: str | None) -> None:
    """Everything to these processors, by default the first two: so that figures of larger machines compare."""
    if cpus is None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    elif cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})


def run(options: argparse.Namespace) -> int:
    """Run, show, write."""
    return measure(options, adapted(options), gateways=options.gateways, noop=not options.no_noop)


def run_with_peers(options: argparse.Namespace) -> int:
    """The same in turn with the peers."""
    from bench.peers.catalog import chosen_peers

    peers, noop = chosen_peers(options.peers)
    options.scenarios = options.scenarios or list(PEER_SCENARIOS)
    scenarios = adapted(options)
    for peer in peers:
        if missing := peer.missing():
            print(f"{peer.name} does not run: {missing}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # servers that peers started must end
    return measure(options, scenarios, gateways=1, noop=noop, peers=peers)


def goals(options: argparse.Namespace) -> int:
    """The table of goals."""
    from bench.goals.running import Conditions, chosen_goals, run_goals
    from bench.goals.showing import record_goals, show_goals, write_goals_html
    from bench.goals.table import load_table

    wanted = chosen_goals(options.only)
    if options.show is not None:
        table = load_table(options.show)
    else:
        pin(options.cpus)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
        output = options.output or RESULTS / f"goals-{time.strftime('%Y%m%d-%H%M%S')}.json"
        conditions = Conditions(options.quick, options.seed, options.keys)
        table = run_goals(wanted, conditions, output=output, say=say)
        write_goals_html(table, output.with_suffix(".html"))
        print(f"written to {output} and {output.with_suffix('.html').name}")
    show_goals(table)
    if options.record:
        print("recorded in", ", ".join(map(str, record_goals(table, REPORTS))))
    return EXIT_OK if table.result.agrees else EXIT_FAILED


def say(line: str) -> None:
    """Progress, at once."""
    print(line, flush=True)


def measure(
    options: argparse.Namespace,
    scenarios: list[Scenario],
    *,
    gateways: int,
    noop: bool,
    peers: Sequence[Peer] = (),
) -> int:
    """Run the scenarios one by one, show, write."""
    from bench.machine import describe
    from bench.report import write_html
    from bench.results import Result, save
    from bench.running import run_scenario
    from bench.tables import show_result

    pin(options.cpus)
    began = datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(dir=os.environ.get("STOCKADE_BENCH_DIR")) as made:
        machine = describe(Path(made))
    output = options.output or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    result = Result(
        began=began,
        machine=machine,
        conditions={"gateways": gateways, "seed": options.seed},
        scenarios=[],
    )
    for scenario in scenarios:
        result.scenarios.append(
            run_scenario(
                scenario,
                gateways=gateways,
                noop=noop,
                say=say,
                seed=options.seed,
                peers=peers,
            )
        )
        save(result, output)  # what was measured stays, whatever happens to the next
    show_result(result)
    print(f"written to {output}")
    if options.html:
        write_html([result], options.html)
        print(f"report in {options.html}")
    if not result.agrees:
        print("FAILED: the journal and the answers disagree", file=sys.stderr)
        return EXIT_FAILED
    if any(not one.valid(label) for one in result.scenarios for label in one.labels):
        print("INVALID: at least one scenario has no run that counts", file=sys.stderr)
        return EXIT_INVALID
    return 0


def show_list(options: argparse.Namespace) -> int:
    """What there is."""
    from bench.peers.catalog import PEERS
    from bench.tables import show_peers, show_scenarios

    show_scenarios(all_scenarios())
    show_peers(PEERS.values())
    return 0


def compare(options: argparse.Namespace) -> int:
    """B against A."""
    from bench.comparing import compare as comparison_of
    from bench.results import load_result
    from bench.tables import show_comparison

    show_comparison(comparison_of(load_result(options.before), load_result(options.after)))
    return 0


def report(options: argparse.Namespace) -> int:
    """Tables, and the HTML file."""
    from bench.report import write_html
    from bench.results import load_result
    from bench.tables import show_result

    results = [load_result(path) for path in options.results]
    for result in results:
        show_result(result)
    if options.html:
        write_html(results, options.html)
        print(f"report in {options.html}")
    return 0


def feed(options: argparse.Namespace) -> int:
    """The change feed."""
    from bench.feed import run_feed

    pin(options.cpus)
    return run_feed(
        changes=options.changes, watch_seconds=options.watch_seconds, seed=options.seed, output=options.output
    )


def check(options: argparse.Namespace) -> int:
    """The guard against regressions."""
    from bench.check import run_check

    return run_check(record=options.record, rounds=options.rounds)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
    sys.exit(130)
