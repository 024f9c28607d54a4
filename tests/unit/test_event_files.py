"""Warehouse events in CSV files: every row becomes an event or says what is wrong with it, by column."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from gateway.cli.event_files import FACTS, EventLine, Given, read_events
from gateway.cli.row_files import CsvRows, ErrorFile, is_csv, json_rows
from stockade.v1 import stock_key_pb2
from stockade.v1 import warehouse_event_service_pb2 as pb

HEADER = "event_id,occur_time,sku,warehouse_id,fact,quantity,disposition"
SELLABLE, DAMAGED = stock_key_pb2.DISPOSITION_SELLABLE, stock_key_pb2.DISPOSITION_DAMAGED


def read(text: str) -> list[EventLine]:
    rows = CsvRows(text.encode().splitlines(keepends=True))
    return list(read_events(rows, Given("wms")))


def only(text: str) -> pb.WarehouseEvent:
    (line,) = read(text)
    assert line.event is not None, line.problem
    return line.event


def test_a_row_fills_the_events_fields_and_the_facts():
    event = only(f"{HEADER}\ne1,2026-11-24T10:00:00Z,A,main,receipt,5,damaged\n")
    assert (event.source_id, event.event_id, event.occur_time.seconds) == ("wms", "e1", 1795514400)
    assert (event.stock_key.sku, event.stock_key.warehouse_id) == ("A", "main")
    assert (event.receipt.quantity, event.receipt.disposition) == (5, DAMAGED)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_the_headers(delimiter: str):
    text = f"\ufeff{HEADER}\ne1,2026-11-24T10:00:00Z,A,main,pick,2,\n".replace(",", delimiter)
    assert only(text).pick.quantity == 2


@pytest.mark.parametrize(
    ("columns", "cells", "expected"),
    [
        ("quantity,shipment_id,channel_id,order_reference,close_remainder", "1,s1,web,SO-1,yes",
         pb.WarehouseEvent(shipment=pb.Shipment(
             quantity=1, shipment_id="s1", close_remainder=True,
             promise=stock_key_pb2.Promise(
                 order=stock_key_pb2.OrderReference(channel_id="web", order_reference="SO-1"))))),
        ("quantity,reservation_id,line_id", "1,1-x-0-1,2",
         pb.WarehouseEvent(pick=pb.Pick(
             quantity=1, promise=stock_key_pb2.Promise(reservation_id="1-x-0-1", line_id="2")))),
        ("quantity,reason", "-3,broken", pb.WarehouseEvent(adjustment=pb.Adjustment(delta=-3, reason="broken"))),
        ("quantity,as_of_source_sequence,includes_picked", "9,17,0",
         pb.WarehouseEvent(stock_count=pb.StockCount(quantity=9, as_of_source_sequence=17))),
        ("quantity,from_disposition,to_disposition", "1,SELLABLE,damaged",
         pb.WarehouseEvent(disposition_change=pb.DispositionChange(
             quantity=1, from_disposition=SELLABLE, to_disposition=DAMAGED))),
        ("quantity,transfer_id,from_warehouse_id,final", "4,t1,overflow,true",
         pb.WarehouseEvent(transfer_receipt=pb.TransferReceipt(
             quantity=4, transfer_id="t1", from_warehouse_id="overflow", final=True))),
        ("quantity,attribute:supplier_id,source_sequence", "4,acme,12",
         pb.WarehouseEvent(receipt=pb.Receipt(quantity=4), attributes={"supplier_id": "acme"}, source_sequence=12)),
    ],
)  # fmt: skip
def test_every_kind_of_fact_has_its_columns(columns: str, cells: str, expected: pb.WarehouseEvent):
    name = expected.WhichOneof("fact")
    event = only(f"fact,occur_time,{columns}\n{name},2026-11-24T10:00:00Z,{cells}\n")
    event.ClearField("source_id")
    event.ClearField("occur_time")
    assert event == expected


@pytest.mark.parametrize(
    ("columns", "cells", "told"),
    [
        ("quantity", "many", "quantity: 'many' is no whole number"),
        ("quantity", "99999999999999999999", "quantity"),
        ("quantity,shipment_id", "1,s1", "shipment_id: a receipt has none"),
        ("quantity,reservation_id", "1,r", "reservation_id: a receipt has none"),
        ("quantity,disposition", "1,rotten", "disposition: 'rotten' is none of SELLABLE"),
        ("quantity,lot_expire_time", "1,tomorrow", "lot_expire_time"),
    ],
)
def test_what_is_wrong_with_a_row_names_the_column(columns: str, cells: str, told: str):
    (line,) = read(f"fact,occur_time,{columns}\nreceipt,2026-11-24T10:00:00Z,{cells}\n")
    assert line.event is None
    assert told in line.problem


def test_a_row_that_is_bad_says_so_and_the_rest_goes_on():
    lines = [
        HEADER.encode() + b"\n",
        b"e1,2026-11-24T10:00:00Z,A,main,receipt,1,\n",
        b"\n",
        b"e2,2026-11-24T10:00:00Z,A,main,gift,1,\n",
        b"e3,2026-11-24T10:00:00Z,A\xff,main,receipt,1,\n",
        b"e4,,A,main,receipt,1,\n",
        b"e5,2026-11-24T10:00:00Z,A,main,receipt,1,,,7\n",
        b'"e6","2026-11-24T10:00:00Z","A ""b""","main","receipt","1",""\n',
    ]
    found = list(read_events(CsvRows(lines), Given("wms")))
    assert [(line.number, bool(line.problem)) for line in found] == [
        (2, False), (4, True), (5, True), (6, True), (7, True), (8, False),
    ]  # fmt: skip
    assert "gift" in found[1].problem
    assert "UTF-8" in found[2].problem
    assert "occur_time" in found[3].problem
    assert "9 cells" in found[4].problem
    assert found[5].event is not None
    assert found[5].event.stock_key.sku == 'A "b"'


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("", "name the columns"),
        ("event_id,fact,quantty", "do you mean 'quantity'"),
        ("event_id,sku", "a column 'fact'"),
        ("fact,sku,sku", "named twice"),
    ],
)
def test_a_header_that_cannot_be_right_is_refused_at_once(header: str, told: str):
    with pytest.raises(ValueError, match=told):
        read(f"{header}\na,b,c\n")


def test_the_rows_that_failed_can_be_mended_and_read_again(tmp_path: Path):
    text = f'{HEADER}\ne1,2026-11-24T10:00:00Z,A,main,gift,1,\ne2,2026-11-24T10:00:00Z,"A,1",main,gift,2,damaged\n'
    rows = CsvRows(text.encode().splitlines(keepends=True))
    file = ErrorFile(tmp_path / "errors.csv", rows)
    for line in read_events(rows, Given("wms")):
        file.add(line.number, line.text, "UNREADABLE", line.problem)
    file.close()
    written = (tmp_path / "errors.csv").read_text()
    told = list(csv.DictReader(written.splitlines()))
    assert [(one["error_row"], one["error_outcome"], one["sku"]) for one in told] == [
        ("2", "UNREADABLE", "A"),
        ("3", "UNREADABLE", "A,1"),
    ]
    again = read(written.replace(",gift,", ",receipt,"))
    assert [line.event.stock_key.sku for line in again if line.event is not None] == ["A", "A,1"]


def test_the_format_is_said_or_read_from_the_name():
    assert is_csv(Path("day.CSV"), "")
    assert not is_csv(Path("day.jsonl"), "")
    assert is_csv(Path("-"), "csv")
    with pytest.raises(ValueError, match="xml"):
        is_csv(Path("-"), "xml")


def test_json_lines_take_what_is_given_for_all():
    line = b'{"eventId": "e1", "occurTime": "2026-11-24T10:00:00Z", "receipt": {"quantity": 1}}\n'
    (found,) = read_events(json_rows([line]), Given("wms", "day"))
    assert found.event is not None
    assert (found.event.source_id, found.event.stream_id) == ("wms", "day")
    (without,) = read_events(json_rows([line]), Given())
    assert "--source" in without.problem


def test_the_page_for_integrators_names_columns_that_exist():
    page = Path(__file__).resolve().parents[2].joinpath("docs", "warehouse-events.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.count("|") == 3]
    told: dict[str, set[str]] = {}
    for _, names, columns, _ in rows:
        for name in re.findall(r"`(\w+)`", names):
            if name in FACTS:
                told[name] = set(re.findall(r"`(\w+)`", columns))
    assert set(told) == set(FACTS)
    for name, listed in told.items():
        assert listed - {"quantity"} <= set(FACTS[name].fields_by_name), name
        assert {field.name for field in FACTS[name].fields} - {"quantity", "delta", "promise"} <= listed, name
