"""Reads an order history in the format of UCI *Online Retail*: typed rows, or why a row is none.

A row is skipped for the first of these reasons that applies, and every skipped row is counted.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TextIO

from msgspec import Struct

COLUMNS = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)
# Five lines of the published year are above it: slips of the keyboard and their cancellations.
QUANTITY_MAX = 10_000

_GOODS = re.compile(r"\d{5}[A-Z]{0,2}")
_INVOICE = re.compile(r"(C?)\d+")
# The published files write dates in either way.
_DATE_FORMATS = ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M")


class Skip(StrEnum):
    """Why a row is neither a sale nor a return; in the order in which the reasons are tried."""

    OTHER_MONTH = "of another month"
    UNREADABLE_DATE = "unreadable date"
    WRONG_COLUMNS = "wrong number of columns"
    BLANK_ID = "blank invoice, stock code or country"
    ODD_INVOICE = "neither an invoice nor a cancellation"
    ODD_CODE = "a code that is no goods"
    UNREADABLE_NUMBER = "unreadable quantity or price"
    ZERO_QUANTITY = "quantity 0"
    ABSURD_QUANTITY = f"quantity above {QUANTITY_MAX:,}"
    NEGATIVE_SALE = "negative outside a cancellation"
    POSITIVE_CANCELLATION = "positive in a cancellation"
    BLANK_DESCRIPTION = "blank description"
    STOCK_NOTE = "no price and no customer"


class Row(Struct, frozen=True, gc=False):
    """One line of an invoice, or of a cancellation; the quantity is positive in both."""

    invoice: str
    cancellation: bool
    sku: str
    quantity: int
    customer: str
    country: str


class SkippedRow(Struct, frozen=True, gc=False):
    """A row that is not replayed; `code` is its stock code."""

    reason: Skip
    code: str


class UnreadableFileError(Exception):
    """The file is not an order history; the text is one sentence for a person."""


def read_rows(path: Path, month: str | None) -> Iterator[Row | SkippedRow]:
    """Read every row of a `.csv` or `.csv.gz` file, of one month (`2010-12`) or of all.

    Raises UnreadableFileError.
    """
    try:
        with _open(path) as file:
            lines = csv.reader(file)
            if tuple(name.strip() for name in next(lines, ())) != COLUMNS:
                raise UnreadableFileError(
                    f"{path} does not begin with the columns {', '.join(COLUMNS)}."
                )
            for fields in lines:
                yield read_row(fields, month)
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise UnreadableFileError(f"{path} cannot be read to its end: {error}.") from error


def read_row(fields: list[str], month: str | None) -> Row | SkippedRow:
    """Make a row of the fields of one line, or say why it is none."""
    code = fields[1].strip().upper() if len(fields) > 1 else ""
    if len(fields) != len(COLUMNS):
        return SkippedRow(Skip.WRONG_COLUMNS, code)
    invoice, _, description, quantity_text, date, price_text, customer, country = (
        field.strip() for field in fields
    )
    reason = _skip_date(date, month) or _skip_identity(invoice, code, country)
    if reason is not None:
        return SkippedRow(reason, code)
    try:
        quantity, price = int(quantity_text), float(price_text)
    except ValueError:
        return SkippedRow(Skip.UNREADABLE_NUMBER, code)
    cancellation = invoice.startswith("C")
    reason = _skip_quantity(quantity, cancellation=cancellation)
    if reason is None and not description:
        reason = Skip.BLANK_DESCRIPTION
    if reason is None and price == 0 and not customer:
        reason = Skip.STOCK_NOTE
    if reason is not None:
        return SkippedRow(reason, code)
    # Tables that were once read as numbers have `17850.0` for the customer 17850.
    known_customer = customer.removesuffix(".0")
    return Row(invoice, cancellation, code, abs(quantity), known_customer, country)


def _open(path: Path) -> TextIO:
    # Only descriptions have letters beyond ASCII, and nobody reads them: any encoding will do.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _skip_date(date: str, month: str | None) -> Skip | None:
    # Parsing half a million dates takes longer than all the rest; most are told by their beginning.
    if month is not None and date.startswith(("19", "20")) and not date.startswith(month):
        return Skip.OTHER_MONTH
    moment = _moment(date)
    if moment is None:
        return Skip.UNREADABLE_DATE
    if month is not None and moment.strftime("%Y-%m") != month:
        return Skip.OTHER_MONTH
    return None


def _moment(date: str) -> datetime | None:
    for form in _DATE_FORMATS:
        try:
            if form == _DATE_FORMATS[0]:
                return datetime.fromisoformat(date)
            return datetime.strptime(date, form)  # noqa: DTZ007 - the file's own local time
        except ValueError:
            continue
    return None


def _skip_identity(invoice: str, code: str, country: str) -> Skip | None:
    if not (invoice and code and country):
        return Skip.BLANK_ID
    if not _INVOICE.fullmatch(invoice):
        return Skip.ODD_INVOICE
    if not _GOODS.fullmatch(code):
        return Skip.ODD_CODE
    return None


def _skip_quantity(quantity: int, *, cancellation: bool) -> Skip | None:
    if quantity == 0:
        return Skip.ZERO_QUANTITY
    if abs(quantity) > QUANTITY_MAX:
        return Skip.ABSURD_QUANTITY
    if cancellation and quantity > 0:
        return Skip.POSITIVE_CANCELLATION
    if not cancellation and quantity < 0:
        return Skip.NEGATIVE_SALE
    return None
