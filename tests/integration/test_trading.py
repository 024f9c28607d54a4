"""The main job in small: a trading day and a replay of real-shaped orders, judged by an oracle that knows no rule."""

from __future__ import annotations

import csv
import gzip
import io
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.trading import day_driver, retail_plan, trading_day
from gateway.trading.replay import Replay, ReplayReport
from gateway.trading.retail_file import COLUMNS, Meaning, RetailFileError, read_retail_lines
from gateway.trading.traffic import Traffic
from stockade import AsyncClient
from tests.integration.withstand_world import service

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).resolve().parents[2]
# The real file may not be redistributed with the project: it is used where somebody put it beside the checkout.
BESIDE = sorted(ROOT.parent.glob("*/data/online_retail*.csv.gz"))
REAL_FILE = Path(os.environ.get("RETAIL_FILE", BESIDE[0] if BESIDE else "online_retail.csv.gz"))
SLICE_LINES = 6_000
LARGEST_INVOICE, LARGEST_INVOICE_LINES = "573585", 1_114
TRADING = {"channels": {name: {} for name in retail_plan.CHANNELS}, "warehouses": ",".join(retail_plan.WAREHOUSES)}

# one line of every kind that the layout knows, and what it means for stock
KINDS: list[tuple[tuple[str, ...], Meaning]] = [
    (("536365", "85123A", "HEART", "6", "2010-12-01 08:26", "2.55", "17850", "United Kingdom"), Meaning.SALE),
    (("536365", "85123a", "HEART", "6", "2010-12-01 08:26", "2.55", "17850", "United Kingdom"), Meaning.SALE),
    (("536365", "85123A", "HEART", "6", "2010-12-01 08:26", "2.55", "17850", "United Kingdom"), Meaning.SALE),
    (("536366", "22423", "CAKESTAND", "3", "2010-12-01 09:00", "0", "17850.0", "France"), Meaning.SALE),
    (("536367", "71053", "LAMP", "2", "2010-12-01 09:05", "3.39", "", "United Kingdom"), Meaning.SALE),
    (("C536379", "85123A", "HEART", "-2", "2010-12-01 09:41", "2.55", "17850", "United Kingdom"), Meaning.CANCELLATION),
    (("536380", "22139", "wet pallet", "-4", "2010-12-01 10:00", "0", "", "United Kingdom"), Meaning.ADJUSTMENT),
    (("536381", "22139", "found", "9", "2010-12-01 10:01", "0", "", "United Kingdom"), Meaning.ADJUSTMENT),
    (("536382", "POST", "POSTAGE", "1", "2010-12-01 10:02", "18", "12583", "France"), Meaning.NOT_STOCK),
    (("C536383", "D", "Discount", "-1", "2010-12-01 10:03", "27.5", "14527", "United Kingdom"), Meaning.NOT_STOCK),
    (("536384", "gift_0001_20", "Voucher", "1", "2010-12-01 10:04", "16.67", "", "United Kingdom"), Meaning.NOT_STOCK),
    (("A563185", "B", "Adjust bad debt", "1", "2010-12-01 10:05", "11062.06", "", "United Kingdom"), Meaning.NOT_STOCK),
]


def write(path: Path, rows: list[tuple[str, ...]], *, zipped: bool = False) -> Path:
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *rows])
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if zipped else content)
    return path


def generated_rows(seed: int, orders: int) -> list[tuple[str, ...]]:
    """Real-shaped baskets in this layout, with a cancellation and an odd line now and then."""
    draw = random.Random(seed)
    rows: list[tuple[str, ...]] = []
    for basket in trading_day.make_day(max(200, orders), seed).baskets[:orders]:
        day, minute = 1 + basket.number * 20 // orders, draw.randrange(60)
        when = f"2010-12-{day:02d} {draw.randrange(8, 18):02d}:{minute:02d}"
        customer = str(draw.randrange(12_000, 12_100)) if draw.random() > 0.01 else ""
        country = "France" if draw.random() < 0.1 else "United Kingdom"
        invoice = str(536_000 + basket.number)
        for (sku, _), units in basket.lines:
            rows.append((invoice, sku, "a thing", str(units), when, "1.25", customer, country))
            if draw.random() < 0.03:
                rows.append((f"C{invoice}", sku, "a thing", str(-units), when, "1.25", customer, country))
        if draw.random() < 0.1:
            rows.append((invoice, "POST", "POSTAGE", "1", when, "18", customer, country))
            rows.append((f"9{invoice}", basket.lines[0][0][0], "damaged", "-1", when, "0", "", country))
    return rows


async def replayed(plan: retail_plan.RetailPlan, directory: Path) -> ReplayReport:
    async with service(directory, **TRADING) as shop, AsyncClient(shop.target) as client:
        return await Replay(plan, Traffic(client, "replay")).run()


def test_every_kind_of_line_means_what_it_does_for_stock(tmp_path: Path) -> None:
    for zipped in (False, True):
        path = write(tmp_path / f"lines-{zipped}.csv", [row for row, _ in KINDS], zipped=zipped)
        lines = list(read_retail_lines(path))
        assert [line.meaning for line in lines] == [meaning for _, meaning in KINDS]
        assert lines[3].customer == "17850"
        assert lines[0].sku != lines[1].sku, "codes that differ only in case are different SKUs"


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("Quantity", "six", "Quantity 'six'"),
        ("UnitPrice", "2,55", "UnitPrice '2,55'"),
        ("InvoiceDate", "yesterday", "InvoiceDate 'yesterday'"),
    ],
)
def test_a_bad_cell_is_named_by_line_column_and_content(tmp_path: Path, column: str, value: str, told: str) -> None:
    bad = list(KINDS[0][0])
    bad[COLUMNS.index(column)] = value
    with pytest.raises(RetailFileError, match=told) as caught:
        list(read_retail_lines(write(tmp_path / "bad.csv", [KINDS[0][0], tuple(bad)])))
    assert "line 3" in str(caught.value)


def test_a_file_of_another_layout_is_told_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("sku;quantity\nA;1\n")
    with pytest.raises(RetailFileError, match="InvoiceNo, StockCode"):
        list(read_retail_lines(path))


@pytest.mark.parametrize("wanted", [0.01, 0.03, 0.10])
def test_the_stock_out_rate_asked_for_is_planned_within_one_point(tmp_path: Path, seed: int, wanted: float) -> None:
    lines = list(read_retail_lines(write(tmp_path / "lines.csv", generated_rows(seed, 400))))
    plan = retail_plan.make_plan(lines, seed, wanted)
    assert abs(plan.expected_refusal_rate - wanted) <= 0.01
    assert retail_plan.make_plan(lines, seed, wanted) == plan, "the same seed makes the same plan"


async def test_a_generated_file_replays_and_the_oracle_agrees(tmp_path: Path, seed: int) -> None:
    lines = list(read_retail_lines(write(tmp_path / "lines.csv", generated_rows(seed, 300))))
    plan = retail_plan.make_plan(lines, seed)
    report = await replayed(plan, tmp_path / "data")
    assert report.differences == []
    assert abs(report.refusal_rate - 0.03) <= 0.02, "of so few lines"
    assert report.cancellations_of_refused_lines + report.released_cancellations + report.returns > 0
    assert report.order_lines >= plan.order_lines


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"{REAL_FILE.name} is not here: the generated file stands for it")
async def test_a_slice_of_the_real_orders_replays_and_the_oracle_agrees(tmp_path: Path) -> None:
    plan = retail_plan.make_plan(read_retail_lines(REAL_FILE, SLICE_LINES), 1)
    report = await replayed(plan, tmp_path)
    assert report.differences == []
    assert report.lines_read == SLICE_LINES
    assert abs(report.refusal_rate - 0.03) <= 0.01
    assert max(len(order.lines) for order in plan.orders) > 500


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"{REAL_FILE.name} is not here")
async def test_the_largest_real_order_is_served_whole(tmp_path: Path) -> None:
    lines = [line for line in read_retail_lines(REAL_FILE) if line.invoice == LARGEST_INVOICE]
    assert len(lines) == LARGEST_INVOICE_LINES
    plan = retail_plan.make_plan(lines, 1, 0.0)
    (order,) = plan.orders
    report = await replayed(plan, tmp_path)
    assert (report.differences, report.lines_refused) == ([], 0)
    assert report.units_granted == sum(line.quantity for line in lines if line.meaning is Meaning.SALE)
    assert report.order_lines == len(order.lines)


async def test_the_oracle_sees_a_single_unit_that_is_not_where_it_should_be(tmp_path: Path, seed: int) -> None:
    lines = list(read_retail_lines(write(tmp_path / "lines.csv", generated_rows(seed, 30))))
    plan = retail_plan.make_plan(lines, seed)
    async with service(tmp_path / "data", **TRADING) as shop, AsyncClient(shop.target) as client:
        traffic = Traffic(client, "replay")
        assert (await Replay(plan, traffic).run()).differences == []
        stocks = await traffic.all_stock()
        stock, *others = stocks
        for planted in (
            replace(stock, held_quantity=stock.held_quantity + 1),
            replace(stock, confirmed_quantity=stock.confirmed_quantity - 1),
            replace(stock, on_hand={**stock.on_hand, "SELLABLE": stock.on_hand.get("SELLABLE", 0) + 1}),
            replace(stock, picked_quantity=stock.picked_quantity + 1),
        ):
            (found,) = traffic.oracle.differences([planted, *others])
            assert stock.stock_key.sku in found
        assert traffic.oracle.differences(others), "a stock key that is missing is a difference too"


async def test_a_short_trading_day_keeps_its_promises(tmp_path: Path, seed: int) -> None:
    day = trading_day.make_day(200, seed)
    warehouses, channels = ",".join(trading_day.WAREHOUSES), {name: {} for name in trading_day.CHANNELS}
    channels[trading_day.IMPOSING_CHANNEL] = {"may_impose": True}
    async with service(tmp_path, warehouses=warehouses, channels=channels) as shop:
        report = await day_driver.run_day(day, shop.target, seconds=4.0)
    assert report.differences == []
    assert (report.oversells, report.shortages_open) == (0, 0)
    assert day_driver.failures(report) == []
