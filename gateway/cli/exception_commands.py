"""`stockade exceptions`: what somebody must look at, one of them in full, and what they do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.cli.endings import Exit, fail, print_json, told_plainly
from gateway.cli.options import TARGET, TIMEOUT_S, Json, Target, Timeout, Token, connect
from gateway.cli.showing import console, key_text, plain, table, when
from stockade.client.results import Resolved, StockException
from stockade.v1 import warehouse_event_service_pb2

COLUMNS = ("exception", "priority", "kind", "state", "stock key", "units", "what", "team", "since")
ExceptionId = Annotated[str, typer.Argument(help="as `stockade exceptions list` shows it")]


def list_exceptions(  # noqa: PLR0913  an option for each filter
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="shortage, shipment_mismatch, event_rejected, …")
    ] = None,
    states: Annotated[list[str] | None, typer.Option("--state", help="open, healed, resolved; default open")] = None,
    priorities: Annotated[list[str] | None, typer.Option("--priority", help="low, normal, high, urgent")] = None,
    team: Annotated[str, typer.Option("--team", help="of this team")] = "",
    warehouse: Annotated[str, typer.Option("--warehouse", help="of this warehouse")] = "",
    source: Annotated[str, typer.Option("--source", help="caused by events of this source")] = "",
    sku: Annotated[str, typer.Option("--sku", help="of this SKU; with --warehouse")] = "",
    since: Annotated[str, typer.Option("--since", help="opened then or later, like 2026-11-24T10:00:00Z")] = "",
    newest_first: Annotated[bool, typer.Option("--newest-first", help="the latest opened first")] = False,
    limit: Annotated[int, typer.Option("--limit", help="most rows", min=1)] = 100,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """What somebody must look at."""
    if sku and not warehouse:
        fail("--sku needs --warehouse", Exit.USAGE)
    since_ms = _since_ms(since) if since else 0
    found: list[StockException] = []
    page_token = ""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        while len(found) < limit:
            page, page_token = client.list_exceptions(
                kinds=kinds or (),
                states=states or ("open",),
                priorities=priorities or (),
                owning_team=team,
                warehouse_id="" if sku else warehouse,
                stock_key=(sku, warehouse) if sku else None,
                source_id=source,
                open_from_ms=since_ms,
                newest_first=newest_first,
                page_size=min(1_000, limit - len(found)),
                page_token=page_token,
            )
            found += page
            if not page_token:
                break
    if as_json:
        print_json(plain(found))
        return
    table("", COLUMNS, map(_row, found))
    if page_token:
        console().print(f"… and more: --limit {limit} was reached")


def show_exception(
    exception_id: ExceptionId,
    event_only: Annotated[
        bool, typer.Option("--event", help="only its event, as JSON: to be corrected and given to resolve")
    ] = False,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """One exception in full: its cause, its event, what to do, and what was done."""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        exception = client.get_exception(exception_id)
    if event_only:
        if not exception.event:
            fail(f"exception {exception_id} keeps no event", Exit.REFUSED)
        print_json(exception.event)
    elif as_json:
        print_json(plain(exception))
    else:
        _show(exception)


def resolve_exception(  # noqa: PLR0913  who, how and why
    exception_id: ExceptionId,
    note: Annotated[str, typer.Option("--note", help="why; required")],
    retry: Annotated[bool, typer.Option("--retry", help="have its event decided again, as it was sent")] = False,
    correct: Annotated[
        Path | None, typer.Option("--correct", help="have it decided again as this file says (JSON)", exists=True)
    ] = None,
    discard: Annotated[bool, typer.Option("--discard", help="end it; nothing is booked")] = False,
    acknowledge: Annotated[bool, typer.Option("--acknowledge", help="it stays open; somebody looks after it")] = False,
    resolver: Annotated[str, typer.Option("--by", help="who, where no credential says it", envvar="USER")] = "",
    request_id: Annotated[str, typer.Option("--request-id", help="to repeat a call whose answer was lost")] = "",
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Do something about an exception, and say why."""
    actions = {"RETRY": retry, "CORRECT_AND_RETRY": correct is not None, "DISCARD": discard, "ACKNOWLEDGE": acknowledge}
    chosen = [name for name, given in actions.items() if given]
    if len(chosen) != 1:
        fail("say what to do: one of --retry, --correct FILE, --discard, --acknowledge", Exit.USAGE)
    corrected = _corrected(correct) if correct is not None else None
    with told_plainly(target, as_json=as_json), connect(target, "", token, timeout) as client:
        resolved = client.resolve_exception(
            exception_id,
            action=chosen[0],
            note=note,
            resolver=resolver,
            corrected_event=corrected,
            request_id=request_id or None,
        )
    if as_json:
        print_json(plain(resolved))
    else:
        _tell(resolved)
    if resolved.result is not None and resolved.result.outcome == "REJECTED":
        raise typer.Exit(int(Exit.REFUSED))


def _corrected(path: Path) -> Any:
    event = warehouse_event_service_pb2.WarehouseEvent()
    try:
        json_format.ParseDict(json.loads(path.read_text(encoding="utf-8")), event)
    except (OSError, ValueError, json_format.ParseError) as error:
        fail(f"{path} holds no warehouse event: {error}", Exit.USAGE)
    return event


def _since_ms(text: str) -> int:
    time = Timestamp()
    try:
        time.FromJsonString(text)
    except ValueError:
        fail(f"--since {text!r}: write it like 2026-11-24T10:00:00Z", Exit.USAGE)
    return time.ToMilliseconds()


def _row(one: StockException) -> tuple[Any, ...]:
    return (
        one.exception_id,
        one.priority.lower(),
        one.kind.lower(),
        one.state.lower(),
        key_text(one.stock_key) if one.stock_key.warehouse_id else "",
        one.quantity,
        one.message,
        one.owning_team,
        when(one.open_time_ms),
    )


def _show(one: StockException) -> None:
    """For people at night: what, how bad, whose, what to do."""
    facts = [
        ("what", one.message),
        ("kind", one.kind.lower() + (f", {one.reject_reason.lower()}" if one.reject_reason else "")),
        ("state", one.state.lower() + (f" since {when(one.end_time_ms)}" if one.end_time_ms else "")),
        ("priority", one.priority.lower()),
        ("team", one.owning_team),
        ("opened", when(one.open_time_ms)),
        ("stock key", key_text(one.stock_key) if one.stock_key.warehouse_id else ""),
        ("units", f"{one.quantity:,}" if one.quantity else ""),
        ("reservations", ", ".join(one.reservation_ids)),
        ("caused by", _cause(one)),
        ("what to do", one.suggested_action),
        ("ends by", ", ".join(action.lower() for action in one.actions)),
    ]
    table(one.exception_id, ("", ""), [(name, text) for name, text in facts if text])
    if one.event:
        console().print("its event, as it was sent:")
        print_json(one.event)
    if one.handlings:
        rows = [
            (when(done.time_ms), done.resolver, done.action.lower(), done.reject_reason.lower(), done.note)
            for done in one.handlings
        ]
        table("what was done", ("when", "who", "what", "rejected again", "why"), rows)


def _cause(one: StockException) -> str:
    if one.source_id:
        stream = f", stream {one.cause_stream_id}" if one.cause_stream_id else ""
        place = f", sequence {one.cause_sequence}" if one.cause_sequence else ""
        return f"event {one.event_id} of source {one.source_id}{stream}{place}"
    who = " ".join(text for text in (one.channel_id, one.request_id) if text)
    return " ".join(text for text in (one.cause_verb.replace("_", " "), who) if text)


def _tell(resolved: Resolved) -> None:
    exception, result = resolved.exception, resolved.result
    again = " (decided before: the same request id)" if resolved.replayed else ""
    if result is not None and result.outcome == "REJECTED":
        typer.echo(f"rejected again: {result.reason.lower()}; {exception.exception_id} stays open{again}")
        return
    became = f"; its event: {result.outcome.lower()}" if result is not None else ""
    typer.echo(f"{exception.exception_id} is {exception.state.lower()}{became}{again}")
