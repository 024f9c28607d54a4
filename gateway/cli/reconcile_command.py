"""``stockade reconcile`` and ``reconciliations``: lists from files compared with the books, and what came of them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.cli.endings import Exit, fail, print_json, told_plainly
from gateway.cli.list_files import ListLine, read_list
from gateway.cli.options import TARGET, TIMEOUT_S, Json, Target, Timeout, Token, connect
from gateway.cli.row_files import CsvRows, ErrorFile, is_csv, json_rows
from gateway.cli.showing import key_text, plain, table, when
from stockade import Client, new_request_id
from stockade.client.reconciliation_results import Finding, Reconciled, Reconciliation

KINDS = {"stock": "STOCK", "open-orders": "OPEN_ORDERS", "channel-availability": "CHANNEL_AVAILABILITY"}
SHOWN_MAX = 20  # for people
LISTED_MAX = 1_000  # in JSON
PROGRESS_S = 0.5
PAGE = 1_000


class ListFile:
    """A list in a file, read as often as it must be sent. ``failed``: rows that cannot be sent, the first of them."""

    def __init__(self, path: Path, kind: str, file_format: str, errors: Path | None) -> None:
        self.path = path
        self.kind = kind
        self._as_csv = is_csv(path, file_format)
        self._errors = errors
        self._began = time.monotonic()
        self.sent = 0
        self.failures = 0
        self.failed: list[dict[str, Any]] = []
        self._error_file: ErrorFile | None = None
        for _ in self._read():  # the header, and that the file is there
            break

    def lines(self) -> Iterator[Any]:
        """The messages of all rows that can be sent; the others are told in the error file."""
        self.sent = self.failures = 0
        self.failed = []
        shown = self._began
        for line in self._read(self._errors):
            if line.message is None:
                self.fail(line, "UNREADABLE", line.problem)
                continue
            self.sent += 1
            yield line.message
            if sys.stderr.isatty() and time.monotonic() - shown >= PROGRESS_S:
                shown = time.monotonic()
                sys.stderr.write(f"\r{self.sent:,} lines sent, {self.sent / (shown - self._began):,.0f} a second ")
                sys.stderr.flush()
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")

    def fail(self, line: ListLine, outcome: str, reason: str) -> None:
        """A row that was not compared."""
        self.failures += 1
        if len(self.failed) < LISTED_MAX:
            self.failed.append({"line": line.number, "outcome": outcome, "reason": reason})
        if self._error_file is not None:
            self._error_file.add(line.number, line.text, outcome, reason)

    def fail_sent(self, done: Reconciled) -> None:
        """Find the rows of lines that the service could not compare: they are read once more."""
        reasons = {one.line_index: one for one in done.failed_lines if one.line_index >= 0}
        if reasons:
            sent = (line for line in self._read() if line.message is not None)
            for index, line in enumerate(sent):
                if index in reasons:
                    one = reasons[index]
                    self.fail(line, one.problem or "INVALID", one.description)

    def close(self) -> None:
        """The error file is complete."""
        if self._error_file is not None:
            self._error_file.close()

    def _read(self, errors: Path | None = None) -> Iterator[ListLine]:
        with self.path.open("rb") as lines:
            rows = CsvRows(lines) if self._as_csv else json_rows(lines)
            if errors is not None:
                self.close()
                self._error_file = ErrorFile(errors, rows if isinstance(rows, CsvRows) else None)
            yield from read_list(rows, self.kind)


def reconcile(  # noqa: PLR0913  each an option of its own
    file: Annotated[Path, typer.Argument(help="CSV, or JSON lines", exists=True, dir_okay=False)],
    warehouse: Annotated[str, typer.Option("--warehouse", help="of which warehouse the list is")],
    kind: Annotated[str, typer.Option("--kind", help=", ".join(KINDS))] = "stock",
    file_format: Annotated[str, typer.Option("--format", help="csv or jsonl; default by the file's name")] = "",
    source: Annotated[str, typer.Option("--source", help="the feed that --as-of is of")] = "",
    stream: Annotated[str, typer.Option("--stream", help="its stream")] = "",
    as_of: Annotated[int, typer.Option("--as-of", help="last source sequence that the list knows of", min=0)] = 0,
    as_of_time: Annotated[
        str, typer.Option("--as-of-time", help="when the list was made, like 2026-11-24T22:00:00Z")
    ] = "",
    tolerance: Annotated[int, typer.Option("--tolerance", help="units that are booked without asking", min=0)] = 0,
    permille: Annotated[int, typer.Option("--tolerance-permille", help="the same, of the books, in ‰", min=0)] = 0,
    report_only: Annotated[bool, typer.Option("--report-only", help="suspend nothing beyond the tolerance")] = False,
    whole: Annotated[
        bool | None, typer.Option("--whole/--part", help="what the list does not name has quantity 0, or is left alone")
    ] = None,
    differences: Annotated[int, typer.Option("--differences-max", help="give up beyond so many", min=0)] = 0,
    answers: Annotated[str, typer.Option("--answers", help="the reconciliation that the service asked for")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="compare and report; change nothing")] = False,
    errors: Annotated[Path | None, typer.Option("--errors", help="where rows that failed are written")] = None,
    findings: Annotated[
        Path | None, typer.Option("--findings", help="where all findings are written, JSON lines")
    ] = None,
    request_id: Annotated[str, typer.Option("--request-id", help="say the same again to go on")] = "",
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = 3_600.0,
    as_json: Json = False,
) -> None:
    """Compare a list with the books: what a warehouse counted, what an ERP has open, what a channel shows."""
    if kind not in KINDS:
        fail(f"--kind {kind!r}: {', '.join(KINDS)}", Exit.USAGE)
    asked = request_id or new_request_id()
    options: dict[str, Any] = {
        "kind": KINDS[kind],
        "request_id": asked,
        "reconciliation_id": answers,
        "source_id": source,
        "stream_id": stream,
        "as_of_source_sequence": as_of,
        "as_of_time_ms": _time(as_of_time),
        "tolerance_units": tolerance,
        "tolerance_permille": permille,
        "beyond_tolerance": "REPORT_ONLY" if report_only else "",
        "unlisted_keys": "" if whole is None else "COUNT_AS_ZERO" if whole else "IGNORE",
        "dry_run": dry_run,
        "differences_max": differences,
    }
    with told_plainly(target, as_json=as_json, request_id=asked), connect(target, "", token, timeout) as client:
        try:
            rows = ListFile(file, KINDS[kind], file_format, errors)
            done = client.reconcile(warehouse, rows.lines, timeout_s=timeout, **options)
            rows.fail_sent(done)
            rows.close()
            if findings is not None:
                _write_findings(client, done, findings)
        except OSError as error:
            fail(f"{error.filename or file}: {error.strerror}", Exit.USAGE)
    _show(done, rows, as_json=as_json, errors=errors)
    if rows.failures or done.reconciliation.state != "DONE" or done.reconciliation.counts.failed:
        raise typer.Exit(int(Exit.REFUSED))


def _time(text: str) -> int:
    stamp = Timestamp()
    if text:
        try:
            stamp.FromJsonString(text)
        except ValueError:
            fail(f"--as-of-time {text!r}: write it like 2026-11-24T22:00:00Z", Exit.USAGE)
    return int(stamp.ToMilliseconds())


def _write_findings(client: Client, done: Reconciled, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for one in _all_findings(client, done):
            file.write(json.dumps(plain(one), ensure_ascii=False) + "\n")


def _all_findings(client: Client, done: Reconciled) -> Iterator[Finding]:
    run = done.reconciliation
    if not run.reconciliation_id:  # a dry run
        yield from done.findings
        return
    token = ""
    while True:
        _, page, token = client.get_reconciliation(run.reconciliation_id, page_size=PAGE, page_token=token)
        yield from page
        if not token:
            return


def _show(done: Reconciled, rows: ListFile, *, as_json: bool, errors: Path | None) -> None:
    run, counts = done.reconciliation, done.reconciliation.counts
    if as_json:
        shown = [plain(one) for one in done.findings[:LISTED_MAX]]
        print_json({"reconciliation": plain(run), "findings": shown, "failed": rows.failed, "failures": rows.failures})
        return
    name = run.reconciliation_id or "dry run"
    table(
        f"{name}: {run.state}" + (f", {run.note}" if run.note else ""),
        ("lines", "match", "timing", "missed event?", "drift", "other", "booked", "suspended", "failed"),
        [
            (
                counts.lines,
                counts.matches,
                counts.timing,
                counts.missed_event_suspected,
                counts.genuine_drift,
                counts.other,
                counts.booked,
                counts.quarantined,
                counts.failed,
            )
        ],
    )
    show_findings(done.findings[:SHOWN_MAX])
    if counts.differences > SHOWN_MAX:
        typer.echo(f"… {counts.differences - SHOWN_MAX:,} more differences: --findings FILE writes all")
    for one in rows.failed[:SHOWN_MAX]:
        typer.echo(f"line {one['line']}: {one['outcome']} {one['reason']}", err=True)
    if rows.failures > SHOWN_MAX:
        where = f"all are in {errors}" if errors is not None else "give --errors FILE for all"
        typer.echo(f"… and {rows.failures - SHOWN_MAX:,} more; {where}", err=True)


def show_findings(findings: Any) -> None:
    """Findings for people."""
    rows = [
        (
            key_text(one.stock_key),
            one.disposition.lower() or " ".join(filter(None, (one.channel_id, one.order_reference))),
            one.found_quantity,
            one.expected_quantity,
            one.kind.lower().replace("_", " "),
            one.state.lower().replace("_", " "),
            "; ".join(one.suspects),
        )
        for one in findings
    ]
    if rows:
        table("", ("stock key", "what", "list says", "books say", "why", "done", "suspects"), rows)


def list_reconciliations(
    warehouse: Annotated[str, typer.Option("--warehouse", help="of this warehouse")] = "",
    states: Annotated[list[str] | None, typer.Option("--state", help="requested, running, done, failed")] = None,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Reconciliations of the last days, also those that the service asks for."""
    found: list[Reconciliation] = []
    page_token = ""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        while True:
            page, page_token = client.list_reconciliations(
                warehouse_id=warehouse, states=states or (), page_size=PAGE, page_token=page_token
            )
            found += page
            if not page_token:
                break
    found.sort(key=lambda one: max(one.request_time_ms, one.begin_time_ms))
    if as_json:
        print_json(plain(found))
        return
    rows = [
        (
            one.reconciliation_id,
            one.warehouse_id,
            one.kind.lower().replace("_", " "),
            one.state,
            one.request_reason.lower().replace("_", " "),
            when(one.request_time_ms or one.begin_time_ms),
            when(one.end_time_ms),
            one.counts.lines,
            one.counts.differences,
            one.counts.quarantined,
        )
        for one in found
    ]
    columns = ("id", "warehouse", "kind", "state", "asked because", "since", "until", "lines", "differ", "suspended")
    table("", columns, rows)


def get_reconciliation(
    reconciliation_id: Annotated[str, typer.Argument(help="its id")],
    limit: Annotated[int, typer.Option("--limit", help="most findings", min=1, max=PAGE)] = 100,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """One reconciliation and its findings."""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        run, findings, _ = client.get_reconciliation(reconciliation_id, page_size=limit)
    if as_json:
        print_json({"reconciliation": plain(run), "findings": plain(findings)})
        return
    counts = run.counts
    typer.echo(f"{run.reconciliation_id}  {run.warehouse_id}  {run.kind}  {run.state}  {run.note}".rstrip())
    typer.echo(
        f"{counts.lines:,} lines, {counts.differences:,} differ: {counts.booked:,} booked, "
        f"{counts.quarantined:,} suspended; {counts.failed:,} failed"
    )
    show_findings(findings)
