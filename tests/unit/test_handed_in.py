"""What people and other programs hand in, as fuzzing spoiled it: an error that names the place, never a traceback."""

from __future__ import annotations

import gzip

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from actors.domain.commands import Verb
from actors.domain.keys import stock_key
from actors.domain.outcomes import ErrorReason
from actors.runtime.settings import SettingsError, load_settings, parse_duration_ms, parse_size_bytes
from actors.shard.placement import shard_of
from gateway.cli.event_files import read_event_lines
from gateway.cli.showing import when
from gateway.trading.retail_file import COLUMNS, RetailFileError, read_retail_lines
from stockade.client import reading
from stockade.client.errors import from_status
from stockade.client.results import Granted
from stockade.v1 import reservation_service_pb2
from tests.unit.world import SHARDS, World

HEAD = ",".join(COLUMNS) + "\n"
GOOD = "536365,85123A,HEART,6,2010-12-01 08:26,2.55,17850,United Kingdom\n"


def archive() -> bytearray:
    rows = "".join(GOOD.replace("536365", str(number)) for number in range(99))
    return bytearray(gzip.compress((HEAD + rows).encode(), mtime=0))


def spoiled_archive() -> bytes:
    data = archive()
    data[60] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ((HEAD + GOOD + '"' + "x" * 140_000).encode(), "after line 2.*field larger"),
        (bytes(archive()[:-9]), "cannot be read"),
        (spoiled_archive(), "cannot be read|line"),
        ((HEAD + GOOD.replace("2.55", "nan")).encode(), "line 2: UnitPrice 'nan'"),
        ((HEAD + GOOD.replace("2.55", "-inf")).encode(), "line 2: UnitPrice"),
        ((HEAD + GOOD.replace(",6,", f",{'9' * 30},")).encode(), "line 2: Quantity"),
        ((HEAD + GOOD.replace(",6,", ",1_000,")).encode(), "line 2: Quantity"),
        ((HEAD + GOOD.replace("85123A", "85\x1f23A")).encode(), "line 2: StockCode"),
        ((HEAD + GOOD.replace("536365", "5" * 65)).encode(), "line 2: InvoiceNo"),
        ((HEAD + GOOD.replace("2010-", "1910-")).encode(), "line 2: InvoiceDate"),
    ],
)
def test_a_retail_file_that_cannot_be_read_says_where(tmp_path, data, reason):
    path = tmp_path / "orders.csv"
    path.write_bytes(data)
    with pytest.raises(RetailFileError, match=reason):
        list(read_retail_lines(path))


def test_the_dates_of_one_retail_file_do_not_become_those_of_the_next(tmp_path):
    def minutes(*dates: str) -> list[int]:
        path = tmp_path / "orders.csv"
        path.write_text(HEAD + "".join(GOOD.replace("2010-12-01 08:26", date) for date in dates), encoding="utf-8")
        return [line.minute for line in read_retail_lines(path)]

    american = minutes("12/31/2010 08:00", "02/03/2011 08:00")[1]
    british = minutes("31/12/2010 08:00", "02/03/2011 08:00")[1]
    assert british - american == 27 * 24 * 60


def test_every_line_of_an_event_file_comes_out_once_with_what_is_wrong_with_it():
    good = b'{"eventId": "e1", "occurTime": "2026-11-24T10:00:00Z"}\n'
    lines = [
        good,
        b"\n",
        b"\xff\xfe\n",
        b'{"eventId": "e2"}\n',
        b"[" * 100_000 + b"\n",
        b'{"receipt": 5}\n',
        b"null\n",
        good,
    ]
    read = list(read_event_lines(lines, "wms", None))
    assert [(one.number, bool(one.problem)) for one in read] == [
        (1, False), (3, True), (4, True), (5, True), (6, True), (7, True), (8, False),
    ]  # fmt: skip
    assert "occur_time" in read[2].problem
    given = next(read_event_lines(lines[3:4], "wms", Timestamp(seconds=5))).event
    assert given is not None
    assert (given.source_id, given.occur_time.seconds) == ("wms", 5)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "d", "1" * 41 + "ms", "٣s"])
def test_a_duration_or_size_that_no_number_holds_is_refused(text):
    for parse in (parse_duration_ms, parse_size_bytes):
        with pytest.raises(ValueError, match=r"duration|size|characters"):
            parse(text)


def test_a_large_number_keeps_its_last_digit():
    assert parse_duration_ms("9007199254740993ms") == 9007199254740993
    assert parse_size_bytes("9007199254740993") == 9007199254740993
    assert parse_duration_ms("0.1s") == 100


@pytest.mark.parametrize(
    ("toml", "environment", "reason"),
    [
        ('data_dir = "~nobody-here/x"', {}, "data_dir"),
        ('data_dir = "a\\u0000b"', {}, "data_dir"),
        ("channels = " + "[" * 20_000, {}, "TOML"),
        ("", {"STOCKADE_CREDENTIALS": "[" * 100_000}, "credentials"),
        ("", {"STOCKADE_CHANNELS": "[" * 100_000}, "channels"),
        ("", {"STOCKADE_RETENTION_MS": "40000d"}, "retention_ms"),
        ("", {"STOCKADE_BALLAST_BYTES": "9999999999 GiB"}, "ballast_bytes"),
    ],
)
def test_settings_beyond_all_bounds_are_refused_by_name(tmp_path, toml, environment, reason):
    (tmp_path / "stockade.toml").write_text(toml, encoding="utf-8")
    with pytest.raises(SettingsError, match=reason):
        load_settings(None, {}, environment, tmp_path)


def test_an_error_whose_details_are_spoiled_is_read_as_far_as_possible():
    bad = AnyMessage()
    bad.Pack(error_details_pb2.BadRequest())
    bad.value = b"\xff"
    info = AnyMessage()
    info.Pack(error_details_pb2.ErrorInfo(reason="OVERLOADED", domain="stockade", metadata={"outcome": "not_done"}))
    error = from_status(status_pb2.Status(details=[bad, info]), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert (error.reason, error.outcome, error.violations) == ("OVERLOADED", "not_done", {})


def test_a_grant_in_a_batch_without_a_timeline_is_read():
    granted = reservation_service_pb2.Granted(reservation_id="1-t-0-1")
    result = reading.batch_result(reservation_service_pb2.BatchReserveStockResult(granted=granted), "")
    assert isinstance(result, Granted)
    assert result.position.timeline == ""


def test_a_time_beyond_the_calendar_is_shown_as_it_came():
    assert when(2**62) == f"{2**62} ms"


def test_an_event_that_comes_to_another_shard_than_its_stock_keys_is_sent_back():
    world = World()
    item = world.event(1, "A", 5, 1, "", "")
    item[1] = (shard_of(stock_key("main", "A"), SHARDS) + 1) % SHARDS
    answer = world.one(item)
    assert (item[0], answer.error) == (Verb.INGEST, ErrorReason.WRONG_OWNER.name)
    world.restart()
