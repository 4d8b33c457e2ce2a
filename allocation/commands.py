"""Everything that can be asked of the gate: one tagged union, packed as arrays for the Lua script.

The number of each tag is the operation that the script dispatches on.
"""

from enum import IntEnum

from msgspec import Struct


class Operation(IntEnum):
    """The tag of each command, shared with the gate's Lua."""

    RESERVE = 1
    CONFIRM = 2
    RELEASE = 3
    EXTEND = 4
    ORDER = 5
    MOVE = 6
    CONFIGURE_SKU = 7
    CONFIGURE_LOCATION = 8
    CONFIGURE_CHANNEL = 9
    READ_RESERVATION = 10
    READ_STOCK = 11
    READ_CONFIGURATION = 12
    CHECK_LINES = 13


class Movement(IntEnum):
    """The kinds of stock movement, shared with the gate's Lua."""

    RECEIPT = 1
    ADJUSTMENT = 2
    COUNT = 3
    SHIPMENT = 4
    RETURN = 5
    TRANSFER = 6
    STATUS = 7


class Wanted(Struct, array_like=True, frozen=True):
    """Units of one SKU that somebody wants, from one location or from wherever the channel sources."""

    sku: str
    quantity: int
    location: str = ""


class Reserve(Struct, array_like=True, frozen=True, tag=int(Operation.RESERVE)):
    """Hold every line or none of them; with `partial`, as much of each line as there is."""

    reservation_id: str
    fingerprint: str
    channel: str
    ttl_ms: int
    partial: bool
    replaces: str
    lines: tuple[Wanted, ...]


class Confirm(Struct, array_like=True, frozen=True, tag=int(Operation.CONFIRM)):
    """Turn a hold into a commitment; take the units again if the hold has expired."""

    reservation_id: str
    order_id: str


class Release(Struct, array_like=True, frozen=True, tag=int(Operation.RELEASE)):
    """Give back the units of a hold, or cancel the unshipped units of a commitment unless it is for holds only."""

    reservation_id: str
    hold_only: bool = False


class Extend(Struct, array_like=True, frozen=True, tag=int(Operation.EXTEND)):
    """Let a live hold end `ttl_ms` from now."""

    reservation_id: str
    ttl_ms: int


class Order(Struct, array_like=True, frozen=True, tag=int(Operation.ORDER)):
    """Record a sale that has already happened elsewhere, even where it exceeds what may be sold."""

    reservation_id: str
    fingerprint: str
    channel: str
    order_id: str
    lines: tuple[Wanted, ...]


class MovedLine(Struct, array_like=True, frozen=True):
    """One line of a movement. `to` is a location (transfer) or a status (status); `source` a status."""

    sku: str
    location: str
    quantity: int
    source: str = ""
    to: str = ""


class Move(Struct, array_like=True, frozen=True, tag=int(Operation.MOVE)):
    """Apply one stock movement, once. `occurred_at_ms` 0 means that it happens as it arrives."""

    event_key: str
    fingerprint: str
    kind: int
    occurred_at_ms: int
    reservation_id: str
    lines: tuple[MovedLine, ...]


class ConfigureSku(Struct, array_like=True, frozen=True, tag=int(Operation.CONFIGURE_SKU)):
    """Create a SKU, or set its safety stock; `safety_stock` is flat: location, units and so on."""

    sku: str
    safety_stock: tuple[str | int, ...]


class ConfigureLocation(
    Struct, array_like=True, frozen=True, tag=int(Operation.CONFIGURE_LOCATION)
):
    """Create a location, or rename it."""

    code: str
    name: str


class ConfigureChannel(Struct, array_like=True, frozen=True, tag=int(Operation.CONFIGURE_CHANNEL)):
    """Create a channel, or set the order in which it sources from locations."""

    code: str
    name: str
    locations: tuple[str, ...]


class ReadReservation(Struct, array_like=True, frozen=True, tag=int(Operation.READ_RESERVATION)):
    """Read one reservation."""

    reservation_id: str


class ReadStock(Struct, array_like=True, frozen=True, tag=int(Operation.READ_STOCK)):
    """Read the stock records of some SKUs."""

    skus: tuple[str, ...]


class ReadConfiguration(
    Struct, array_like=True, frozen=True, tag=int(Operation.READ_CONFIGURATION)
):
    """Read every location and channel."""


class CheckLines(Struct, array_like=True, frozen=True, tag=int(Operation.CHECK_LINES)):
    """Say whether all these SKUs and locations exist, so that a split movement is refused whole."""

    skus: tuple[str, ...]
    locations: tuple[str, ...]


Command = (
    Reserve
    | Confirm
    | Release
    | Extend
    | Order
    | Move
    | ConfigureSku
    | ConfigureLocation
    | ConfigureChannel
    | ReadReservation
    | ReadStock
    | ReadConfiguration
    | CheckLines
)
