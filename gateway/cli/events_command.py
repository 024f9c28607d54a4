"""``stockade events push``: warehouse events from a file, over one stream a feed, with progress and a file of what failed."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.cli.endings import Exit, fail, print_json, told_plainly
from gateway.cli.event_files import EventLine, Given, read_events
from gateway.cli.options import TARGET, Json, Target, Timeout, Token, connect
from gateway.cli.row_files import CsvRows, ErrorFile, is_csv, json_rows
from gateway.cli.showing import table
from gateway.config import GatewayConfig
from gateway.translate.events import EventRequests
from gateway.validation import Findings, KnownNames
from stockade import Client
from stockade.client.event_stream import EventStream
from stockade.client.results import Ingested

FEEDS_MAX = 64  # streams open at once, a thread and a connection's stream each
FAILURES_SHOWN_MAX = 20  # for people; the error file has them all
FAILURES_LISTED_MAX = 1_000  # in JSON
PROGRESS_S = 0.5
FAILED = ("REJECTED", "FAILED", "UNREADABLE", "INVALID")


def push_events(
    file: Annotated[
        Path,
        typer.Argument(help="CSV, or JSON lines, each a WarehouseEvent; - for standard input", allow_dash=True),
    ],
    file_format: Annotated[str, typer.Option("--format", help="csv or jsonl; default by the file's name")] = "",
    source: Annotated[str, typer.Option("--source", help="source_id of rows that have none")] = "",
    stream: Annotated[str, typer.Option("--stream", help="stream_id of rows that have none")] = "",
    occur_time: Annotated[
        str, typer.Option("--occur-time", help="occur_time of rows that have none, like 2026-11-24T10:00:00Z")
    ] = "",
    errors: Annotated[
        Path | None, typer.Option("--errors", help="where rows that failed are written, to be mended and pushed again")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check every row here; send nothing")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="send also what the service says it has received before")
    ] = False,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Send warehouse events from a file. Each is applied once: a push that broke off is simply started again, and goes on
    behind what the service has received."""
    given = Given(source, stream, _time(occur_time))
    try:
        lines = typer.get_binary_stream("stdin") if str(file) == "-" else file.open("rb")
        size = 0 if str(file) == "-" else file.stat().st_size
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}", Exit.USAGE)
    with told_plainly(target, as_json=as_json), lines:
        as_csv = is_csv(file, file_format)
        rows = CsvRows(lines) if as_csv else json_rows(lines)
        tally = Tally(_error_file(errors, rows if isinstance(rows, CsvRows) else None))
        try:
            with contextlib.closing(tally):
                events = _with_progress(read_events(rows, given), lines, size, tally)
                if dry_run:
                    check_events(events, tally)
                else:
                    with connect(target, "", token, timeout) as client:
                        Pusher(client, tally, timeout, everything=everything).push(events)
        finally:
            tally.show(as_json=as_json, errors=errors)
    if tally.failures:
        raise typer.Exit(int(Exit.REFUSED))


def _time(text: str) -> Timestamp | None:
    if not text:
        return None
    happened = Timestamp()
    try:
        happened.FromJsonString(text)
    except ValueError:
        fail(f"--occur-time {text!r}: write it like 2026-11-24T10:00:00Z", Exit.USAGE)
    return happened


def _error_file(path: Path | None, rows: CsvRows | None) -> ErrorFile | None:
    if path is None:
        return None
    try:
        return ErrorFile(path, rows)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}", Exit.USAGE)


class Tally:
    """How many rows ended how, and those that failed. Told by several threads."""

    def __init__(self, error_file: ErrorFile | None) -> None:
        self.outcomes: Counter[str] = Counter()
        self.failed: list[dict[str, Any]] = []
        self.failures = 0
        self.feeds: dict[tuple[str, str], list[int]] = {}  # rows, lowest and highest sequence
        self._error_file = error_file
        self._lock = threading.Lock()

    def count(self, outcome: str) -> None:
        """A row that ended well."""
        with self._lock:
            self.outcomes[outcome] += 1

    def fail(self, number: int, text: str, outcome: str, reason: str) -> None:
        """A row that did not."""
        with self._lock:
            self.outcomes[outcome] += 1
            self.failures += 1
            if len(self.failed) < FAILURES_LISTED_MAX:
                self.failed.append({"line": number, "outcome": outcome, "reason": reason, "event": text})
            if self._error_file is not None:
                self._error_file.add(number, text, outcome, reason)

    def seen(self, event: Any) -> None:
        """A row of a feed."""
        found = self.feeds.setdefault((event.source_id, event.stream_id), [0, 0, 0])
        sequence = event.source_sequence
        found[0] += 1
        if sequence:
            found[1] = min(found[1] or sequence, sequence)
            found[2] = max(found[2], sequence)

    def close(self) -> None:
        """The error file is complete."""
        if self._error_file is not None:
            self._error_file.close()

    def show(self, *, as_json: bool, errors: Path | None) -> None:
        """The end of the command."""
        feeds = [
            {"source_id": source, "stream_id": stream, "rows": rows, "first_sequence": first, "last_sequence": last}
            for (source, stream), (rows, first, last) in sorted(self.feeds.items())
        ]
        if as_json:
            print_json({"outcomes": self.outcomes, "feeds": feeds, "failed": self.failed, "failures": self.failures})
            return
        table("", ("outcome", "events"), sorted(self.outcomes.items()))
        for one in self.failed[:FAILURES_SHOWN_MAX]:
            typer.echo(f"line {one['line']}: {one['outcome']} {one['reason']}", err=True)
        if self.failures > FAILURES_SHOWN_MAX:
            where = f"all are in {errors}" if errors is not None else "give --errors FILE for all"
            typer.echo(f"… and {self.failures - FAILURES_SHOWN_MAX:,} more; {where}", err=True)


def check_events(events: Iterable[EventLine], tally: Tally) -> None:
    """What the service would check without looking at stock. Warehouses, sources and the catalog are known only there."""
    names = KnownNames(GatewayConfig("", {}, {}))
    names.set_shard_count(1)
    requests = EventRequests(GatewayConfig("", {}, {}), names)
    for line in events:
        if line.event is None:
            tally.fail(line.number, line.text, "UNREADABLE", line.problem)
            continue
        tally.seen(line.event)
        findings = Findings()
        requests.event(line.event, (), findings)
        if line.event.WhichOneof("fact") is None:
            findings.add("fact", "is required: what happened?")
        if findings:
            reason = "; ".join(f"{found.field}: {found.description}" for found in findings)
            tally.fail(line.number, line.text, "INVALID", reason)
        else:
            tally.count("VALID")


class Pusher:
    """Sends rows, each over the stream of its feed."""

    def __init__(self, client: Client, tally: Tally, timeout_s: float, *, everything: bool) -> None:
        self._client = client
        self._tally = tally
        self._timeout_s = timeout_s
        self._everything = everything
        self._streams: dict[tuple[str, str], EventStream] = {}
        self._rows: dict[int, tuple[int, str]] = {}  # by the event's identity, while it is under way

    def push(self, events: Iterable[EventLine]) -> None:
        """All of them. Raises StockadeError when the service does not answer."""
        with contextlib.ExitStack() as opened:
            for line in events:
                event = line.event
                if event is None:
                    self._tally.fail(line.number, line.text, "UNREADABLE", line.problem)
                    continue
                self._tally.seen(event)
                stream = self._stream(event, opened)
                if 0 < event.source_sequence <= stream.watermark and not self._everything:
                    self._tally.count("RECEIVED BEFORE")
                    continue
                self._rows[id(event)] = (line.number, line.text)
                stream.send(event)

    def _stream(self, event: Any, opened: contextlib.ExitStack) -> EventStream:
        feed = (event.source_id, event.stream_id)
        stream = self._streams.get(feed)
        if stream is None:
            if len(self._streams) >= FEEDS_MAX:
                raise ValueError(f"the file has events of more than {FEEDS_MAX} sources and streams: split it")
            stream = self._client.event_stream(*feed, self._ended, patience_s=self._timeout_s)
            self._streams[feed] = opened.enter_context(stream)
        return stream

    def _ended(self, event: Any, result: Ingested) -> None:
        """Called by the streams' threads."""
        number, text = self._rows.pop(id(event))
        if result.outcome in FAILED:
            self._tally.fail(number, text, result.outcome, result.reason)
        else:
            self._tally.count(result.outcome)


def _with_progress(events: Iterator[EventLine], lines: IO[bytes], size: int, tally: Tally) -> Iterator[EventLine]:
    """The same events; on a terminal, how far it is."""
    if not sys.stderr.isatty():
        yield from events
        return
    began = shown = time.monotonic()
    for count, event in enumerate(events, 1):
        now = time.monotonic()
        if now - shown >= PROGRESS_S:
            shown = now
            part = f"{lines.tell() / size:4.0%}, " if size else ""
            ended = sum(tally.outcomes.values())
            sys.stderr.write(f"\r{part}{count:,} rows read, {ended:,} ended, {ended / (now - began):,.0f} a second ")
            sys.stderr.flush()
        yield event
    sys.stderr.write("\r\x1b[K")
