"""`stockade transfers`: what is on its way between warehouses, and what came in short."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.endings import print_json, told_plainly
from gateway.cli.options import TARGET, TIMEOUT_S, Json, Target, Timeout, Token, connect
from gateway.cli.showing import console, key_text, plain, table, when
from stockade.client.results import Transfer

COLUMNS = (
    "transfer",
    "line",
    "from",
    "to",
    "dispatched",
    "received",
    "in transit",
    "missing",
    "last told",
    "exception",
)


def transfers(
    to_warehouse: Annotated[str, typer.Option("--to", help="on their way to this warehouse")] = "",
    from_warehouse: Annotated[str, typer.Option("--from", help="coming from this warehouse")] = "",
    transfer: Annotated[str, typer.Option("--transfer", help="of this transfer")] = "",
    limit: Annotated[int, typer.Option("--limit", help="most rows", min=1)] = 100,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Transfers that are not complete: in transit, came in short, or received before their dispatch was told."""
    found: list[Transfer] = []
    page_token = ""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        while len(found) < limit:
            page, page_token = client.list_transfers(
                to_warehouse_id=to_warehouse,
                from_warehouse_id=from_warehouse,
                transfer_id=transfer,
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


def _row(one: Transfer) -> tuple[object, ...]:
    return (
        one.transfer_id, one.transfer_line, one.from_warehouse_id, key_text(one.stock_key), one.dispatched_quantity,
        one.received_quantity, one.in_transit_quantity, one.lost_quantity or "", when(one.last_time_ms), one.exception_id,
    )  # fmt: skip
