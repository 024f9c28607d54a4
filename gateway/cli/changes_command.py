"""``stockade changes``, ``watch`` and ``consumers``: what goes out, as it goes, and who has taken how much of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from gateway.cli.endings import Exit, fail, print_json, told_plainly
from gateway.cli.feeds_command import duration
from gateway.cli.options import CHANNEL, TARGET, TIMEOUT_S, Channel, Json, Target, Timeout, Token, connect
from gateway.cli.showing import key_text, plain, table, when
from stockade.client.change_results import (
    AvailabilityChanged,
    ChangeBatch,
    Changed,
    Consumer,
    ResyncNeeded,
    WarehouseChanged,
    WatchUpdate,
)
from stockade.client.results import Availability

HEARTBEAT_S = 1.0


def read_changes(
    cursor: Annotated[str, typer.Option("--cursor", help="go on after this one")] = "",
    start: Annotated[str, typer.Option("--from", help="oldest, now or snapshot; where there is no cursor")] = "now",
    consumer: Annotated[str, typer.Option("--consumer", help="read as this one, from where it acknowledged")] = "",
    acknowledge: Annotated[bool, typer.Option("--acknowledge", help="acknowledge what was shown")] = False,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="availability, reservation or warehouse")] = None,
    of_channel: Annotated[list[str] | None, typer.Option("--of-channel", help="reservations of this channel")] = None,
    warehouse: Annotated[list[str] | None, typer.Option("--warehouse", help="availability of this warehouse")] = None,
    sku: Annotated[list[str] | None, typer.Option("--sku", help="availability of this SKU")] = None,
    until_now: Annotated[bool, typer.Option("--until-now", help="stop when all that there is was shown")] = False,
    limit: Annotated[int, typer.Option("--limit", help="stop after so many changes; 0: never", min=0)] = 0,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Changes as they happen, or from a cursor on; the last cursor is shown at the end. Ends with Ctrl-C."""
    if acknowledge and not consumer:
        fail("--acknowledge needs --consumer", Exit.USAGE)
    shown, last = 0, ""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        batches = client.changes(
            cursor=cursor,
            start="" if consumer and start == "now" else start,
            consumer_id=consumer,
            kinds=kind or (),
            channel_ids=of_channel or (),
            warehouse_ids=warehouse or (),
            skus=sku or (),
            heartbeat_s=HEARTBEAT_S,
            patience_s=timeout,
        )
        with _until_interrupted(), _resync_told():
            for batch in batches:
                shown += _show_batch(batch, as_json=as_json)
                last = batch.cursor or last
                if acknowledge and batch.cursor and len(batch):
                    client.acknowledge_changes(consumer, batch.cursor)
                if (until_now and batch.as_of_ms) or (limit and shown >= limit):
                    break
    if last and not as_json:
        typer.echo(f"cursor {last}", err=True)


def watch(
    keys: Annotated[list[str] | None, typer.Argument(metavar="SKU@WAREHOUSE...", help="up to 1,000")] = None,
    warehouse: Annotated[str, typer.Option("--warehouse", help="all of this warehouse instead")] = "",
    cursor: Annotated[str, typer.Option("--cursor", help="go on after this one")] = "",
    once: Annotated[bool, typer.Option("--once", help="stop when the current values were shown")] = False,
    target: Target = TARGET,
    channel: Channel = CHANNEL,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """What may be promised, now and whenever it changes. Ends with Ctrl-C."""
    wanted = [_key(text) for text in keys or ()]
    if bool(wanted) == bool(warehouse):
        fail("give either stock keys, as SKU@WAREHOUSE, or --warehouse", Exit.USAGE)
    with told_plainly(target, as_json=as_json, reads=True), connect(target, channel, token, timeout) as client:
        updates = client.watch(
            wanted, warehouse_id=warehouse, cursor=cursor, heartbeat_s=HEARTBEAT_S, patience_s=timeout
        )
        with _until_interrupted():
            for update in updates:
                _show_update(update, as_json=as_json)
                if once and update.as_of_ms:
                    break


def consumers(
    check: Annotated[bool, typer.Option("--check", help="exit code 3 when one is past its limits")] = False,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Who reads changes, how far each has acknowledged, and how far behind it is."""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        found = client.list_consumers()
    if as_json:
        print_json(plain(found))
    else:
        columns = (
            "consumer", "state", "streams", "behind", "events behind", "acknowledged", "rejected", "last error",
        )  # fmt: skip
        table("", columns, [_consumer_row(one) for one in found])
    if check and any(one.lagging or one.resync for one in found):
        raise typer.Exit(int(Exit.REFUSED))


# --- showing ---------------------------------------------------------------------------------------------------------------


def _consumer_row(consumer: Consumer) -> tuple[Any, ...]:
    state = f"RESYNC: {consumer.resync}" if consumer.resync else "LAGGING" if consumer.lagging else "ok"
    return (
        consumer.consumer_id,
        state if consumer.cursor else f"{state}, nothing acknowledged",
        consumer.connected_streams,
        duration(consumer.lag_ms),
        consumer.lag_events,
        when(consumer.acknowledge_time_ms),
        consumer.rejected_count,
        consumer.last_error,
    )


def _show_batch(batch: ChangeBatch, *, as_json: bool) -> int:
    for change in batch:
        if as_json:
            told = {"kind": type(change).__name__.removesuffix("Changed").lower(), **plain(change)}
            typer.echo(json.dumps({**told, "cursor": batch.cursor, "snapshot": batch.snapshot}))
        else:
            typer.echo(f"{when(change.time_ms)}  {_in_words(change)}{'  (now)' if batch.snapshot else ''}")
    return len(batch)


def _in_words(change: Changed) -> str:
    if isinstance(change, AvailabilityChanged):
        return f"{key_text(change.stock_key)}: {change.available_quantity:,} available{' (stale)' * change.stale}"
    if isinstance(change, WarehouseChanged) and change.requested_reconciliation_id:
        return f"warehouse {change.warehouse_id}: reconciliation {change.requested_reconciliation_id} is requested"
    if isinstance(change, WarehouseChanged):
        return f"warehouse {change.warehouse_id}: its feed {'fell silent' if change.stale else 'is heard again'}"
    parts = [f"reservation {change.reservation_id} ({change.channel_id}): {change.what.lower().replace('_', ' ')}"]
    if change.state:
        parts.append(change.state)
    if change.order_reference:
        parts.append(f"order {change.order_reference}")
    parts += [f"{granted:,} × {key_text(key)}" for _, key, _, granted in change.lines]
    ended = (
        ("fulfilled", change.fulfilled_quantity),
        ("released", change.released_quantity),
        ("expired", change.expired_quantity),
    )
    parts += [f"{units:,} {how}" for how, units in ended if units]
    return ", ".join(parts)


def _show_update(update: WatchUpdate, *, as_json: bool) -> None:
    if as_json:
        for one in update.availabilities:
            typer.echo(json.dumps({**plain(one), "cursor": update.cursor, "snapshot": update.snapshot}))
        return
    for one in update.availabilities:
        typer.echo(_value_in_words(one))


def _value_in_words(one: Availability) -> str:
    if not one.known:
        return f"{key_text(one.stock_key)}: not known"
    return f"{key_text(one.stock_key)}: {one.available_quantity:,} available{' (stale)' * one.stale}"


def _key(text: str) -> tuple[str, str]:
    sku, at, warehouse_id = text.rpartition("@")
    if not (at and sku and warehouse_id):
        fail(f"{text!r}: write a stock key as SKU@WAREHOUSE", Exit.USAGE)
    return sku, warehouse_id


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    """Ctrl-C is how one stops listening: no failure."""
    with contextlib.suppress(KeyboardInterrupt):
        yield


@contextlib.contextmanager
def _resync_told() -> Iterator[None]:
    try:
        yield
    except ResyncNeeded as needed:
        fail(f"{needed}; read on with --from snapshot", Exit.REFUSED)
