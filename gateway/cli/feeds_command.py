"""``stockade feeds``: what the warehouses' systems have told, what is missing, and who is silent."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.cli.endings import Exit, print_json, told_plainly
from gateway.cli.options import TARGET, TIMEOUT_S, Json, Target, Timeout, Token, connect
from gateway.cli.showing import plain, table, when
from stockade.client.results import Feed, WarehouseFeed

GAPS_SHOWN_MAX = 3


def show_feeds(
    source: Annotated[str, typer.Option("--source", help="of this source")] = "",
    stream: Annotated[str, typer.Option("--stream", help="of this stream")] = "",
    warehouse: Annotated[str, typer.Option("--warehouse", help="that tell of this warehouse")] = "",
    check: Annotated[bool, typer.Option("--check", help="exit code 3 when a feed is silent, or misses events")] = False,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """How far each feed has come: what is missing or waits, how late it is, whether it is silent."""
    found: list[Feed] = []
    page_token = ""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        while True:
            page, page_token = client.feed_status(
                source_id=source, stream_id=stream, warehouse_id=warehouse, page_size=1_000, page_token=page_token
            )
            found += page
            if not page_token:
                break
    found.sort(key=lambda feed: (feed.source_id, feed.stream_id))
    if as_json:
        print_json([{**plain(feed), "broken": broken(feed)} for feed in found])
    else:
        table("", COLUMNS, rows_of(found))
    if check and any(map(broken, found)):
        raise typer.Exit(int(Exit.REFUSED))


def broken(feed: Feed) -> bool:
    """Whether the feed cannot be relied on now."""
    return bool(feed.missing) or any(part.stale for part in feed.warehouses)


COLUMNS = (
    "source", "stream", "warehouse", "state", "received up to", "missing", "last event", "lag", "received", "applied",
    "twice", "waiting", "rejected",
)  # fmt: skip


def rows_of(feeds: list[Feed]) -> list[tuple[Any, ...]]:
    """For people: without the stream "" that only says that its source is expected, where another one is heard."""
    heard = {(feed.source_id, part.warehouse_id) for feed in feeds for part in feed.warehouses if part.received_count}
    rows = []
    for feed in feeds:
        for part in feed.warehouses or (None,):
            told = part is None or part.received_count or (feed.source_id, part.warehouse_id) not in heard
            if told:
                rows.append(row(feed, part))
    return rows


def row(feed: Feed, part: WarehouseFeed | None) -> tuple[Any, ...]:
    """One line: a feed in one warehouse."""
    start = (feed.source_id, feed.stream_id)
    received = f"{feed.watermark:,}" if feed.watermark or feed.highest_sequence else "not counted"
    if part is None:
        return (*start, "", state(feed, None), received, missing(feed), "", "", 0, 0, 0, 0, 0)
    return (
        *start,
        part.warehouse_id or "(unknown)",
        state(feed, part),
        received,
        missing(feed),
        when(part.last_occur_time_ms),
        duration(part.lag_ms) if part.last_occur_time_ms else "",
        part.received_count,
        part.applied_count,
        part.duplicate_count,
        part.waiting_count,
        part.rejected_count,
    )


def state(feed: Feed, part: WarehouseFeed | None) -> str:
    """In one word."""
    if part is not None and part.stale:
        return "SILENT"
    return "GAPS" if feed.missing else "ok"


def missing(feed: Feed) -> str:
    """The lowest gaps."""
    gaps = [f"{first:,}" if first == last else f"{first:,}-{last:,}" for first, last in feed.missing]
    return ", ".join(gaps[:GAPS_SHOWN_MAX]) + (", …" if len(gaps) > GAPS_SHOWN_MAX else "")


def duration(milliseconds: int) -> str:
    """For people: the largest unit that fits."""
    seconds = milliseconds / 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
