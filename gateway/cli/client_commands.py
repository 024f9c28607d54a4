"""Commands that call the service: availability, stock, reservations, policies."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from google.protobuf import json_format

from gateway.cli.endings import Exit, ending_of, fail, print_json, told_plainly
from gateway.cli.options import (
    CHANNEL,
    TARGET,
    TIMEOUT_S,
    Channel,
    Json,
    RequestId,
    Target,
    Timeout,
    Token,
    connect,
)
from gateway.cli.showing import STOCK_COLUMNS, console, key_text, plain, show_reservation, stock_row, table, when
from gateway.cli.showing_stock import gate_sentences, paper
from stockade.client.ids import new_request_id
from stockade.client.results import LineWanted, Refused, Reservation, Stock
from stockade.v1 import stock_key_pb2

QUANTITY_DIGITS_MAX = 18
DAY_S = 86_400.0
Sku = Annotated[str, typer.Argument(help="what is sold")]
Warehouse = Annotated[str, typer.Argument(help="where it lies")]
ReservationId = Annotated[str, typer.Argument(help="the reservation's id")]


def parse_line(text: str) -> LineWanted:
    """``SKU@WAREHOUSE=QUANTITY``, optionally ``LINE:`` before it (a SKU with a colon needs one). Raises ValueError saying
    what is missing.
    """
    line_id, colon, rest = text.partition(":") if ":" in text else ("", "", text)
    stock, equals, quantity = rest.rpartition("=")
    sku, at, warehouse_id = stock.rpartition("@")
    if not (equals and at and sku and warehouse_id and quantity.lstrip("-").isdigit()) or (colon and not line_id):
        raise ValueError(f"line {text!r}: write it as SKU@WAREHOUSE=QUANTITY, or LINE:SKU@WAREHOUSE=QUANTITY")
    return LineWanted(sku, warehouse_id, _units(text, quantity), line_id)


def parse_part(text: str) -> tuple[str, int]:
    """``LINE=QUANTITY``. Raises ValueError."""
    line_id, equals, quantity = text.rpartition("=")
    if not (equals and line_id and quantity.isdigit()):
        raise ValueError(f"line {text!r}: write it as LINE=QUANTITY")
    return line_id, _units(text, quantity)


def _units(text: str, quantity: str) -> int:
    """A whole number that fits into a message; whether it makes sense is the service's to say. Raises ValueError."""
    if not quantity.isascii() or len(quantity) > QUANTITY_DIGITS_MAX:
        raise ValueError(f"line {text!r}: the quantity must be a whole number of at most {QUANTITY_DIGITS_MAX} digits")
    return int(quantity)


def show_decision(result: Reservation | Refused, *, as_json: bool) -> None:
    """A yes as a table; a no as its reason and what there is, with its own exit code."""
    if as_json:
        kind = "refusal" if isinstance(result, Refused) else "reservation"
        print_json({kind: plain(result)})
    elif isinstance(result, Reservation):
        show_reservation(result)
    else:
        console().print(f"[bold red]refused[/]: {result.reason}" + (f" ({result.state})" if result.state else ""))
        if result.shortages:
            rows = [
                (
                    short.line_id,
                    key_text(short.stock_key),
                    short.requested_quantity,
                    short.available_quantity,
                    short.reason,
                )
                for short in result.shortages
            ]
            table("", ("line", "stock key", "requested", "available", "why"), rows)
    if isinstance(result, Refused):
        raise typer.Exit(int(Exit.REFUSED))


def ats(
    skus: Annotated[list[str], typer.Argument(help="SKU@WAREHOUSE, one or more", metavar="SKU@WAREHOUSE…")],
    target: Target = TARGET,
    channel: Channel = CHANNEL,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Available to sell now, answered by the stock actors."""
    keys = []
    for text in skus:
        sku, at, warehouse_id = text.rpartition("@")
        if not (at and sku and warehouse_id):
            fail(f"{text!r}: write it as SKU@WAREHOUSE", Exit.USAGE)
        keys.append((sku, warehouse_id))
    with told_plainly(target, as_json=as_json, reads=True), connect(target, channel, token, timeout) as client:
        found = client.batch_availability(keys)
    if as_json:
        print_json(plain(found))
    else:
        rows = [
            (key_text(one.stock_key), one.available_quantity, "" if one.known else "unknown stock key") for one in found
        ]
        table("", ("stock key", "available to sell", ""), rows)


def stock(
    sku: Annotated[str, typer.Argument(help="what is sold; none: a list")] = "",
    warehouse: Annotated[str, typer.Argument(help="where it lies")] = "",
    shortages: Annotated[bool, typer.Option("--shortages", help="only with a shortage")] = False,
    limit: Annotated[int, typer.Option("--limit", help="most rows of a list", min=1)] = 100,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Every quantity of a stock key, or a list: `stock SKU WAREHOUSE`, `stock`, `stock --shortages`."""
    stocks: list[Stock] = []
    page_token = ""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        if sku:
            if not warehouse:
                fail("stock SKU WAREHOUSE: the warehouse is missing", Exit.USAGE)
            stocks = [client.get_stock((sku, warehouse))]
        else:
            while len(stocks) < limit:
                page, page_token = client.list_stock(
                    warehouse_id=warehouse,
                    only_shortage=shortages,
                    page_size=min(1_000, limit - len(stocks)),
                    page_token=page_token,
                )
                stocks += page
                if not page_token:
                    break
    if as_json:
        print_json(plain(stocks[0] if sku else stocks))
    else:
        table("", STOCK_COLUMNS, map(stock_row, stocks))
        if page_token:
            console().print(f"… and more: --limit {limit} was reached")


def explain(
    sku: Sku,
    warehouse: Warehouse,
    quantity: Annotated[int, typer.Argument(help="how many somebody wants")] = 0,
    target: Target = TARGET,
    channel: Channel = CHANNEL,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Why available to sell is what it is, and what would succeed."""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, channel, token, timeout) as client:
        found = client.explain((sku, warehouse), quantity)
    if as_json:
        print_json(json_format.MessageToDict(found, preserving_proto_field_name=True))
        return
    held, confirmed = found.stock.held_quantity, found.stock.confirmed_quantity
    sellable = sum(part.quantity for part in found.stock.on_hand if part.disposition == 1)
    rows: list[tuple[str, Any]] = [
        ("sellable on hand", sellable),
        ("− picked adrift", found.stock.picked_adrift_quantity),
        ("− safety stock", found.stock.safety_stock_quantity),
        ("= cover", found.cover_quantity),
        ("− held", held),
        ("− confirmed", confirmed),
        ("= available to sell", found.available_quantity),
        ("most for one order now", found.largest_quantity_now),
        ("shortage", found.stock.shortage_quantity),
    ]
    table(f"{sku} @ {warehouse}", ("term", "units"), rows)
    if found.stock.policy.selling_state == stock_key_pb2.SELLING_STATE_SUSPENDED:
        console().print("selling is suspended: nothing is granted, whatever is there")
    if quantity:
        reason = "" if found.would_succeed else stock_key_pb2.RefusalReason.Name(found.refusal_reason)
        answer = "would be granted" if found.would_succeed else "would be refused: "
        console().print(f"{quantity:,} units {answer}{reason.removeprefix('REFUSAL_REASON_')}")
    if found.next_hold_expire_quantity:
        at = when(found.next_hold_expire_time.ToMilliseconds())
        console().print(f"the next hold ends at {at} and frees {found.next_hold_expire_quantity} units")
    on_its_way = found.stock.in_transit_quantity
    if on_its_way:
        console().print(f"{on_its_way:,} units are in transit to here: not available before they are received")
    for sentence in gate_sentences(found.stock.policy):
        console().print(sentence)
    happened = [
        (event.sequence, when(event.time.ToMilliseconds()), event.kind, event.quantity, event.cause, paper(event))
        for event in found.events
    ]
    table("last events", ("sequence", "time", "event", "units", "cause", "paper"), happened)


def reserve(
    lines: Annotated[
        list[str],
        typer.Argument(
            help="[LINE:]SKU@WAREHOUSE=QUANTITY, one or more; a SKU with a colon needs a LINE",
            metavar="SKU@WAREHOUSE=QTY…",
        ),
    ],
    ttl: Annotated[
        float | None,
        typer.Option("--ttl", help="seconds the hold lasts; default: the service's", min=0.001, max=365 * DAY_S),
    ] = None,
    confirm_now: Annotated[bool, typer.Option("--confirm", help="straight to CONFIRMED")] = False,
    fill_policy: Annotated[str, typer.Option("--fill", help="all_or_nothing, whole_lines or partial_quantities")] = "",
    admission: Annotated[str, typer.Option("--admission", help="when_covered, or always: promised elsewhere")] = "",
    order: Annotated[str, typer.Option("--order", help="the order's reference")] = "",
    customer: Annotated[str, typer.Option("--customer", help="the customer's id")] = "",
    replaces: Annotated[str, typer.Option("--replaces", help="a hold whose units this one takes over")] = "",
    request_id: RequestId = None,
    target: Target = TARGET,
    channel: Channel = CHANNEL,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Hold stock for an order, or with --confirm sell it."""
    request_id = request_id or new_request_id()
    with (
        told_plainly(target, as_json=as_json, request_id=request_id),
        connect(target, channel, token, timeout) as client,
    ):
        result = client.reserve(
            [parse_line(text) for text in lines],
            ttl_s=ttl,
            confirm=confirm_now,
            fill_policy=fill_policy,
            admission=admission,
            order_reference=order,
            customer_id=customer,
            replaces_reservation_id=replaces,
            request_id=request_id,
        )
    show_decision(result, as_json=as_json)


def confirm(
    reservation_id: ReservationId,
    order: Annotated[str, typer.Option("--order", help="the order's reference")] = "",
    version: Annotated[int, typer.Option("--expected-version", help="the version it must have")] = 0,
    request_id: RequestId = None,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """The order was placed: the hold loses its deadline."""
    request_id = request_id or new_request_id()
    with told_plainly(target, as_json=as_json, request_id=request_id), connect(target, "", token, timeout) as client:
        result = client.confirm(reservation_id, order_reference=order, expected_version=version, request_id=request_id)
    show_decision(result, as_json=as_json)


def release(
    reservation_id: ReservationId,
    lines: Annotated[list[str] | None, typer.Option("--line", help="LINE=QUANTITY; none: all that is open")] = None,
    reason: Annotated[str, typer.Option("--reason", help="cart_abandoned, customer_cancelled, …")] = "operator",
    note: Annotated[str, typer.Option("--note", help="for people")] = "",
    request_id: RequestId = None,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Give open units back, all or part."""
    request_id = request_id or new_request_id()
    with told_plainly(target, as_json=as_json, request_id=request_id), connect(target, "", token, timeout) as client:
        parts = [parse_part(text) for text in lines or ()]
        result = client.release(reservation_id, reason=reason, lines=parts, note=note, request_id=request_id)
    show_decision(result, as_json=as_json)


def extend(
    reservation_id: ReservationId,
    ttl: Annotated[float, typer.Argument(help="seconds from now", min=0.001, max=365 * DAY_S)],
    request_id: RequestId = None,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Give a hold a later deadline."""
    request_id = request_id or new_request_id()
    with told_plainly(target, as_json=as_json, request_id=request_id), connect(target, "", token, timeout) as client:
        result = client.extend(reservation_id, ttl, request_id=request_id)
    show_decision(result, as_json=as_json)


def amend(
    reservation_id: ReservationId,
    lines: Annotated[
        list[str] | None, typer.Argument(help="LINE:SKU@WAREHOUSE=TARGET", metavar="[LINE:SKU@WAREHOUSE=QTY]…")
    ] = None,
    removed: Annotated[list[str] | None, typer.Option("--remove", help="a line to be removed")] = None,
    version: Annotated[int, typer.Option("--expected-version", help="the version it must have")] = 0,
    request_id: RequestId = None,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Change quantities, warehouses or lines: all or nothing. A target counts open plus fulfilled units."""
    request_id = request_id or new_request_id()
    with told_plainly(target, as_json=as_json, request_id=request_id), connect(target, "", token, timeout) as client:
        result = client.amend(
            reservation_id,
            [parse_line(text) for text in lines or ()],
            removed_line_ids=removed or (),
            expected_version=version,
            request_id=request_id,
        )
    show_decision(result, as_json=as_json)


def fulfill(
    reservation_id: ReservationId,
    shipment_id: Annotated[str, typer.Argument(help="the shipment's id")],
    lines: Annotated[list[str] | None, typer.Option("--line", help="LINE=QUANTITY; none: all that is open")] = None,
    close: Annotated[bool, typer.Option("--close-remainder", help="release what is still open afterwards")] = False,
    request_id: RequestId = None,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Tell a shipment, where order management is the warehouse's door."""
    request_id = request_id or new_request_id()
    with told_plainly(target, as_json=as_json, request_id=request_id), connect(target, "", token, timeout) as client:
        parts = [parse_part(text) for text in lines or ()]
        result = client.fulfill(reservation_id, shipment_id, lines=parts, close_remainder=close, request_id=request_id)
    show_decision(result, as_json=as_json)


def get_reservation(
    reservation_id: ReservationId,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """One reservation with its lines."""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        found = client.get_reservation(reservation_id)
    if as_json:
        print_json(plain(found))
    else:
        show_reservation(found)


def list_reservations(
    channel: Annotated[str, typer.Option("--channel", "-c", help="of this channel")] = "",
    order: Annotated[str, typer.Option("--order", help="of this order (needs --channel)")] = "",
    sku: Annotated[str, typer.Option("--sku", help="with claims on this SKU (needs --warehouse)")] = "",
    warehouse: Annotated[str, typer.Option("--warehouse", help="… in this warehouse")] = "",
    states: Annotated[
        list[str] | None, typer.Option("--state", help="held, confirmed, fulfilled, released, expired")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="most rows", min=1)] = 100,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Reservations by order, stock key or state."""
    found: list[Reservation] = []
    page_token = ""
    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        while len(found) < limit:
            page, page_token = client.list_reservations(
                channel_id=channel,
                order_reference=order,
                stock_key=(sku, warehouse) if sku or warehouse else None,
                states=states or (),
                page_size=min(1_000, limit - len(found)),
                page_token=page_token,
            )
            found += page
            if not page_token:
                break
    if as_json:
        print_json(plain(found))
        return
    rows = [
        (
            one.reservation_id,
            one.channel_id,
            one.order_reference,
            one.state,
            len(one.lines),
            sum(line.open_quantity for line in one.lines),
            when(one.create_time_ms),
            when(one.expire_time_ms) if one.state == "HELD" else "",
        )
        for one in found
    ]
    table("", ("reservation", "channel", "order", "state", "lines", "open units", "made", "until"), rows)
    if page_token:
        console().print(f"… and more: --limit {limit} was reached")


def set_policy(
    sku: Sku,
    warehouse: Warehouse,
    safety_stock: Annotated[
        int | None, typer.Option("--safety-stock", help="units withheld from every channel")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit-per-order", help="most units of one order; 0: no limit")] = None,
    base_unit: Annotated[str, typer.Option("--base-unit", help="the unit of all quantities, for people")] = "",
    item_state: Annotated[str, typer.Option("--item", help="active or inactive: whether the item is traded")] = "",
    receipt_disposition: Annotated[
        str, typer.Option("--receipts-start", help="where units that come in start: sellable or quality_hold")
    ] = "",
    recalled_lots: Annotated[
        list[str] | None, typer.Option("--recalled-lot", help="a lot that is not sold; again for each of them")
    ] = None,
    no_recalled_lots: Annotated[bool, typer.Option("--no-recalled-lots", help="no lot is recalled any more")] = False,
    register: Annotated[bool, typer.Option("--register", help="create the stock key if need be")] = False,
    request_id: RequestId = None,
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Set safety stock, limits and the sale gate of a stock key. What is not given stays; recalled lots are given as a whole."""
    if recalled_lots and no_recalled_lots:
        fail("give either --recalled-lot or --no-recalled-lots", Exit.USAGE)
    policy: dict[str, Any] = {
        "safety_stock_quantity": safety_stock,
        "max_quantity_per_order": limit,
        "base_unit": base_unit,
        "item_state": item_state.upper(),
        "receipt_disposition": receipt_disposition.upper(),
        "recalled_lot_ids": [] if no_recalled_lots else recalled_lots or None,
        "request_id": request_id,
    }
    with told_plainly(target, as_json=as_json), connect(target, "", token, timeout) as client:
        result: Any = (
            client.register_stock([(sku, warehouse)], **policy)[0]
            if register
            else client.set_policy((sku, warehouse), **policy)
        )
    show_stock(result, as_json=as_json)


def show_stock(result: Any, *, as_json: bool) -> None:
    """The stock after a change, or why it was not changed."""
    if as_json:
        print_json(plain(result))
    elif isinstance(result, Stock):
        table("", STOCK_COLUMNS, [stock_row(result)])
    if isinstance(result, Refused):
        fail(f"refused: {result.reason}, the version is {result.version}", Exit.REFUSED)
    if not isinstance(result, Stock):
        fail(f"{result.reason}: {result.message}", ending_of(result.code, result.outcome))


def suspend(
    sku: Sku,
    warehouse: Warehouse,
    note: Annotated[str, typer.Option("--note", help="for people")] = "",
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Stop granting claims on a stock key."""
    with told_plainly(target, as_json=as_json), connect(target, "", token, timeout) as client:
        show_stock(client.suspend((sku, warehouse), note=note), as_json=as_json)


def resume(
    sku: Sku,
    warehouse: Warehouse,
    note: Annotated[str, typer.Option("--note", help="for people")] = "",
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Grant claims again."""
    with told_plainly(target, as_json=as_json), connect(target, "", token, timeout) as client:
        show_stock(client.resume((sku, warehouse), note=note), as_json=as_json)
