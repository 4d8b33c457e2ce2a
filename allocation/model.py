"""The records that the gate keeps and the ledger remembers, as the engine and its callers see them.

Each is an array in the journal: the order of the fields is the format, shared with the gate's Lua.
"""

from collections.abc import Iterator
from typing import Any, cast

from msgspec import Struct

from allocation.outcomes import State


class Use(Struct, frozen=True, gc=False):
    """Units of one pool that one channel has promised."""

    channel: str
    reserved: int
    committed: int


class Pool(Struct, frozen=True):
    """The stock of one SKU at one location, in units.

    `shipped` counts committed units that left without naming their order: they are no longer on hand,
    so they no longer weigh on what is available.
    """

    location: str
    on_hand: int
    damaged: int
    quality_control: int
    safety_stock: int
    shipped: int
    counted_at_ms: int
    uses: tuple[Use, ...]

    @property
    def reserved(self) -> int:
        """Units in live holds."""
        return sum(use.reserved for use in self.uses)

    @property
    def committed(self) -> int:
        """Units of placed orders that have not been shipped."""
        return sum(use.committed for use in self.uses) - self.shipped

    @property
    def available(self) -> int:
        """Units that may still be promised; below zero when more was promised than there is.

        A status below zero waits for a movement that is still on its way; until then it frees no unit.
        """
        return (
            self.on_hand
            - max(0, self.damaged)
            - max(0, self.quality_control)
            - self.safety_stock
            - self.reserved
            - self.committed
        )


_POOL_VALUES, _USE_VALUES = 8, 3


class Stock(Struct, array_like=True, frozen=True, gc=False):
    """One SKU over all its locations. `version` is the ledger sequence that last changed it.

    `values` has the pools one after the other: what `Pool` names, with the number of uses in place of
    the uses, and then each use. One flat array is what the gate reads and writes fastest.
    """

    version: int
    values: tuple[str | int, ...]

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The stock at each location."""
        return tuple(self._each_pool())

    def _each_pool(self) -> Iterator[Pool]:
        values, first = cast("tuple[Any, ...]", self.values), 0
        while first < len(values):
            first_use = first + _POOL_VALUES
            past = first_use + _USE_VALUES * values[first_use - 1]
            uses = tuple(
                Use(*values[use : use + _USE_VALUES]) for use in range(first_use, past, _USE_VALUES)
            )
            yield Pool(*values[first : first_use - 1], uses=uses)
            first = past


class Line(Struct, array_like=True, frozen=True, gc=False):
    """Units of one SKU that a reservation has at one location."""

    sku: str
    quantity: int
    location: str
    shipped: int
    returned: int
    pinned: bool


class Shortage(Struct, array_like=True, frozen=True, gc=False):
    """What one SKU lacked; `limited_by` names the figure that bound."""

    sku: str
    requested: int
    available: int
    limited_by: str


class Reservation(Struct, array_like=True, frozen=True):
    """One reservation over its whole life.

    `deadline_ms` is when a hold expires, or when a closed record may be forgotten; 0 while committed.
    `shortages` says why it was refused, or what a recorded order oversold.
    """

    state: State
    version: int
    fingerprint: str
    channel: str
    deadline_ms: int
    order_id: str
    replaced_by: str
    lines: tuple[Line, ...]
    shortages: tuple[Shortage, ...]


class Location(Struct, array_like=True, frozen=True):
    """A place that holds stock."""

    version: int
    name: str


class Channel(Struct, array_like=True, frozen=True):
    """A place that sells, and the locations it sources from, first choice first."""

    version: int
    name: str
    locations: tuple[str, ...]


def available_to_sell(channel: Channel, stock: Stock) -> int:
    """Give the units that `channel` may promise now.

    A pool that is short counts as empty: it never eats into what another location has.
    """
    return sum(max(0, pool.available) for pool in stock.pools if pool.location in channel.locations)
