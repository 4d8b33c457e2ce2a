"""Turns the rows of an order history into what a shop would have asked for: carts and returns.

All sale rows of one invoice number are one cart on the channel of its country, in the order of the
first rows; rows of one SKU are summed. All rows of one `C` invoice are one return. What has more
SKUs than one request may have becomes several carts.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from service.api.schemas import RESERVATION_LINES_MAX
from service.replay.reading import Row, Skip, SkippedRow, read_rows

CODE_CHARACTERS_MAX = 64


class Cart(Struct):
    """One invoice or cancellation, or a part; `lines` has the quantity of each row of each SKU."""

    key: str
    cancellation: bool
    channel: str
    customer: str
    lines: dict[str, list[int]]

    @property
    def rows(self) -> int:
        """How many rows of the file it stands for."""
        return sum(len(quantities) for quantities in self.lines.values())


class History(Struct):
    """A whole file: its carts in order, its channels by code, and what was skipped, and why."""

    carts: list[Cart] = msgspec.field(default_factory=list[Cart])
    channels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    skus: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    skipped: Counter[Skip] = msgspec.field(default_factory=Counter[Skip])
    odd_codes: Counter[str] = msgspec.field(default_factory=Counter[str])
    rows: int = 0


def read_history(path: Path, month: str | None) -> History:
    """Read a file into carts. Raises UnreadableFileError."""
    return gather(read_rows(path, month))


def gather(rows: Iterable[Row | SkippedRow]) -> History:
    """Make carts of rows; `skus` counts the units that each SKU's carts ask for."""
    history = History()
    carts: dict[str, Cart] = {}
    for row in rows:
        history.rows += 1
        if isinstance(row, SkippedRow):
            history.skipped[row.reason] += 1
            if row.reason is Skip.ODD_CODE:
                history.odd_codes[row.code] += 1
            continue
        cart = carts.get(row.invoice)
        if cart is None:
            channel = channel_code(row.country)
            history.channels.setdefault(channel, row.country)
            cart = carts[row.invoice] = Cart(
                row.invoice, row.cancellation, channel, row.customer, {}
            )
        cart.lines.setdefault(row.sku, []).append(row.quantity)
        sold = 0 if row.cancellation else row.quantity
        history.skus[row.sku] = history.skus.get(row.sku, 0) + sold
    history.carts = [part for cart in carts.values() for part in _parts(cart)]
    return history


def channel_code(country: str) -> str:
    """Name the channel of a country: `United Kingdom` sells on `united-kingdom`."""
    code = re.sub(r"[\W_]+", "-", country.casefold()).strip("-")
    return code[:CODE_CHARACTERS_MAX] or "unnamed"


def _parts(cart: Cart) -> Iterator[Cart]:
    if len(cart.lines) <= RESERVATION_LINES_MAX:
        yield cart
        return
    lines = list(cart.lines.items())
    for first in range(0, len(lines), RESERVATION_LINES_MAX):
        key = f"{cart.key}-{first // RESERVATION_LINES_MAX + 1}" if first else cart.key
        part = dict(lines[first : first + RESERVATION_LINES_MAX])
        yield Cart(key, cart.cancellation, cart.channel, cart.customer, part)
