"""``stockade verify``: judges a journal and says what it found, for people or as JSON. The judging is ``actors.journal``'s."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gateway.cli.endings import Exit, print_json
from gateway.cli.options import Config, DataDir, Json
from gateway.cli.server_commands import journal_told_plainly, load
from gateway.cli.showing import console, table, when

VIOLATIONS_TOLD = 10
LINE_EVERY_S = 2.0  # progress in plain lines when standard error is no terminal

DISPOSITIONS = {1: "sellable", 2: "quality hold", 3: "damaged", 4: "expired", 5: "recalled"}


class VerifyWatcher:
    """How far it is, on standard error: a bar on a terminal, lines otherwise, or nothing. Called from threads."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> VerifyWatcher:
        if self._shown and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("verifying", total=None, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: Any) -> None:
        """So much was read: an ``actors.journal.verify.Done``."""
        if not self._shown:
            return
        now = time.monotonic()
        elapsed = now - self._started
        rate = done.events / elapsed if elapsed else 0.0
        what = "verifying" if done.round == 1 else "verifying again, to say where"
        note = f"{done.records:,} records, {done.events:,} of {done.events_total:,} events, {rate:,.0f}/s"
        if done.round > 1:
            note = f"{done.events:,} of {done.events_total:,} events"
        if self._bar is not None:
            self._bar.update(
                self._task, description=what, completed=done.events, total=done.events_total or None, note=note
            )
        elif now - self._said >= LINE_EVERY_S:
            self._said = now
            left = (done.events_total - done.events) / rate if rate and done.round == 1 else 0.0
            typer.echo(f"{what}: {note}, {elapsed:.0f} s" + (f", {left:.0f} s left" if left else ""), err=True)


def run_verify(
    place: Any, dedupe_window_ms: int = 24 * 3600 * 1000, jobs: int = 0, progress: bool | None = None
) -> Any:
    """Verify the journal of ``place`` (a data directory, or settings) as of one moment; also while a server writes it.

    ``jobs`` 0: as many processes as are worth it. ``progress`` None: when standard error is a terminal.
    """
    from actors.runtime import offline

    shown = sys.stderr.isatty() if progress is None else progress
    with journal_told_plainly(), VerifyWatcher(shown=shown) as watcher:
        return offline.verify_journal(place, watcher if shown else None, dedupe_window_ms, jobs)


def verify(
    config: Config = None,
    data_dir: DataDir = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="processes; 0: one a core, if worth it", min=0)] = 0,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="on standard error; default: on a terminal")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge every record of the journal again: no oversell, nothing lost, nothing twice. Works beside a running server.

    Exit code 7 when something is wrong: it is said where, what the record did there, and which rule it broke.
    """
    settings = load(config, data_dir=data_dir).settings
    if as_json and progress is None:
        progress = False
    report = run_verify(settings, settings.dedupe_window_ms, jobs, progress)
    if as_json:
        print_json(report.plain())
    else:
        show_verified(report)
    if not report.ok:
        raise typer.Exit(int(Exit.VERIFY_FAILED))


def show_verified(report: Any) -> None:
    """A verify report for people."""
    table("journal verified", ("", ""), _rows(report))
    out = console()
    for note in report.notes:
        out.print(f"[yellow]note[/]: {escape(note)}")
    for number, wrong in enumerate(report.violations[:VIOLATIONS_TOLD], 1):
        _show_violation(out, number, wrong.plain())
    if report.violation_count > VIOLATIONS_TOLD:
        out.print(
            f"… and {report.violation_count - VIOLATIONS_TOLD:,} more; the first {len(report.violations)}: --json"
        )


def _rows(report: Any) -> Sequence[Sequence[Any]]:
    rate = report.events / report.seconds if report.seconds else 0
    on_hand = ", ".join(
        f"{DISPOSITIONS.get(disposition, disposition)} {units:,}"
        for disposition, units in sorted(report.on_hand.items())
    )
    granted = (
        f"{report.units_granted:,} units in {report.claims_granted:,} claims of {report.reservations:,} reservations"
    )
    ended = (
        f"{report.units_fulfilled:,} fulfilled + {report.units_released:,} released + {report.units_expired:,} expired + "
        f"{report.units_open:,} open"
    )
    begun = f" ({report.from_snapshot_shards} from a snapshot on)" if report.from_snapshot_shards else ""
    rules = ", ".join(f"{rule} {count:,}" for rule, count in sorted(report.violations_by_rule.items()))
    return [
        ("events, records", f"{report.events:,} in {report.records:,}"),
        ("shards, stock keys", f"{report.shards}{begun}, {report.stock_keys:,}"),
        ("granted", granted),
        ("  ended or open", ended),
        ("conservation", "every unit ends once, none from nowhere" if report.conserved else "BROKEN"),
        ("on hand", on_hand or "nothing"),
        ("warehouse facts", f"{report.facts:,}"),
        ("imposed, of it uncovered", f"{report.imposed_units:,}, {report.imposed_uncovered_units:,} units"),
        ("shortages opened, healed", f"{report.shortages_opened:,}, {report.shortages_healed:,}"),
        ("snapshots compared", f"{report.entities_compared:,} entities in {report.snapshots_compared:,} slices"),
        ("rate", _rate(report, rate)),
        ("oversells", f"{report.oversells:,}" + (f" of {report.oversold_units:,} units" if report.oversells else "")),
        ("verdict", "correct" if report.ok else f"{report.violation_count:,} VIOLATIONS: {rules}"),
    ]


def _rate(report: Any, rate: float) -> str:
    processes = f"{report.jobs} process" + ("es" if report.jobs > 1 else "")
    return f"{rate:,.0f} events/s: {report.seconds:.1f} s, {report.cpu_seconds:.1f} s of CPU, {processes}"


def _show_violation(out: Console, number: int, wrong: dict[str, Any]) -> None:
    place = f"shard {wrong['shard']}, record {wrong['record_number']}"
    if wrong["sequence"]:
        place += f", sequence {wrong['sequence']}"
    about = wrong["stock_key"].strip("\x1f").replace("\x1f", "/")
    out.print(f"[bold red]{number}. {escape(place)}[/], {when(wrong['time_ms'])}: {escape(wrong['message'])}")
    told = (
        ("about", about),
        ("rule", f"{wrong['rule']}: {wrong['rule_text']}"),
        ("expected", wrong["expected"]),
        ("found", wrong["found"]),
        ("because of", wrong["cause"]),
        ("the record did", wrong["event"]),
    )
    for name, text in told:
        if text:
            out.print(f"   {name:<15}{escape(text)}", soft_wrap=True, highlight=False)
