"""Reads the UCI "Online Retail" layout (CSV, optionally gzipped) and says what each line means for stock.

Columns: InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country. The data set: Chen, D.
(2015), Online Retail, UCI Machine Learning Repository. Stock codes that differ only in case are different SKUs; the same
SKU twice in an invoice, and exact duplicates, are legitimate lines.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import IO

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
DATE_FORMATS = ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M")
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,9}")
CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")
NAME_BYTES_MAX = 64  # of what becomes part of ids, which have 128
MINUTES_KEPT_MAX = 100_000
TEXT_SHOWN_MAX = 60
NOT_STOCK = frozenset(("POST", "DOT", "M", "m", "D", "C2", "C3", "S", "B", "PADS", "BANK CHARGES", "AMAZONFEE", "CRUK"))
NOT_STOCK_PREFIX = re.compile(r"^(gift|TEST|DCGS)", re.IGNORECASE)


class Meaning(Enum):
    """What a line means for stock."""

    SALE = "sale"
    CANCELLATION = "cancellation"
    ADJUSTMENT = "adjustment"
    NOT_STOCK = "not stock"


class RetailFileError(ValueError):
    """The file is not of this layout; names the line, the column and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class RetailLine:
    """One line of the file. ``minute``: minutes since the epoch, UTC. ``quantity`` keeps its sign."""

    number: int
    invoice: str
    sku: str
    description: str
    quantity: int
    minute: int
    price: float
    customer: str
    country: str
    meaning: Meaning


def meaning_of(invoice: str, sku: str, quantity: int, price: float, customer: str) -> Meaning:
    """The table of what each kind of line means."""
    if invoice[:1] in "Aa" and not invoice[:1].isdigit():
        return Meaning.NOT_STOCK  # bad debt
    if sku in NOT_STOCK or NOT_STOCK_PREFIX.match(sku) or not sku or quantity == 0:
        return Meaning.NOT_STOCK
    if invoice[:1] in "Cc" and quantity < 0:
        return Meaning.CANCELLATION
    if price == 0 and not customer:
        return Meaning.ADJUSTMENT
    if quantity > 0:
        return Meaning.SALE  # also the few given away: they leave the shelf like any other
    return Meaning.ADJUSTMENT if price == 0 else Meaning.NOT_STOCK


def read_retail_lines(path: Path, limit: int = 0) -> Iterator[RetailLine]:
    """Every line in order; ``limit`` 0: all. Raises RetailFileError, OSError."""
    number = 1
    try:
        for line in _lines(path, limit):
            number = line.number
            yield line
    except (csv.Error, EOFError, zlib.error) as error:  # a cell without end, a torn or spoiled archive
        raise RetailFileError(f"{path} after line {number}: cannot be read: {error}") from None


def _lines(path: Path, limit: int) -> Iterator[RetailLine]:
    minutes: dict[str, int] = {}
    with _open(path) as text:
        reader = csv.reader(text)
        header = next(reader, None)
        if header is None or tuple(name.strip("\ufeff ") for name in header[: len(COLUMNS)]) != COLUMNS:
            raise RetailFileError(f"{path} line 1: the columns must be {', '.join(COLUMNS)}")
        date_format = ""
        for number, row in enumerate(reader, 2):
            if limit and number - 1 > limit:
                return
            if not row:
                continue
            if len(row) < len(COLUMNS):
                raise RetailFileError(f"{path} line {number}: {len(row)} columns where {len(COLUMNS)} are needed")
            invoice, sku, description, quantity_text, date_text, price_text, customer, country = (
                cell.strip() for cell in row[:8]
            )
            if not WHOLE_NUMBER.fullmatch(quantity_text):
                raise RetailFileError(
                    f"{path} line {number}: Quantity {quantity_text[:TEXT_SHOWN_MAX]!r} is not a whole number of at most "
                    "nine digits"
                )
            quantity = int(quantity_text)
            price = _price(path, number, price_text)
            for column, name in ((0, invoice), (1, sku), (6, customer)):
                if len(name.encode()) > NAME_BYTES_MAX or CONTROL_CHARACTER.search(name):
                    raise RetailFileError(
                        f"{path} line {number}: {COLUMNS[column]} {name[:TEXT_SHOWN_MAX]!r} has more than {NAME_BYTES_MAX} "
                        "bytes or a control character"
                    )
            if not date_format:
                date_format = _date_format(path, number, date_text)
            try:
                minute = minutes.get(date_text, -1)
                if minute < 0:
                    if len(minutes) > MINUTES_KEPT_MAX:
                        minutes.clear()
                    minute = minutes[date_text] = _minute(date_text, date_format)
            except ValueError:
                raise RetailFileError(
                    f"{path} line {number}: InvoiceDate {date_text[:TEXT_SHOWN_MAX]!r} is not like {date_format!r}"
                ) from None
            customer = customer.removesuffix(".0")
            meaning = meaning_of(invoice, sku, quantity, price, customer)
            yield RetailLine(number, invoice, sku, description, quantity, minute, price, customer, country, meaning)


def _price(path: Path, number: int, text: str) -> float:
    try:
        price = float(text or 0)
    except ValueError:
        price = math.nan
    if not math.isfinite(price):
        raise RetailFileError(f"{path} line {number}: UnitPrice {text[:TEXT_SHOWN_MAX]!r} is not a number")
    return price


def _minute(text: str, date_format: str) -> int:
    """Raises ValueError for what is no date, or one before 1970."""
    parsed = datetime.strptime(text, date_format)  # noqa: DTZ007  the file's own clock, taken as UTC
    minute = (parsed - datetime(1970, 1, 1)) // _ONE_MINUTE  # noqa: DTZ001
    if minute < 0:
        raise ValueError("before 1970")
    return minute


_ONE_MINUTE = datetime(1970, 1, 1, 0, 1) - datetime(1970, 1, 1)  # noqa: DTZ001


def _date_format(path: Path, number: int, text: str) -> str:
    for candidate in DATE_FORMATS:
        try:
            datetime.strptime(text, candidate)  # noqa: DTZ007
        except ValueError:
            continue
        return candidate
    raise RetailFileError(
        f"{path} line {number}: InvoiceDate {text[:TEXT_SHOWN_MAX]!r} is not a date like 2010-12-01 08:26"
    )


def _open(path: Path) -> IO[str]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    if zipped:
        return gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="")
    return path.open("rt", encoding="utf-8", errors="replace", newline="")
