"""The bodies of requests and answers, with their bounds."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

QUANTITY_MAX = 1_000_000_000
RESERVATION_LINES_MAX = 1_000
MOVEMENT_LINES_MAX = 10_000
TTL_SECONDS_MAX = 7 * 24 * 3600

Code = Annotated[
    str, Meta(min_length=1, max_length=64, description="1 to 64 printable characters.")
]
Sku = Annotated[str, Meta(min_length=1, max_length=128, examples=["RF-TEE-BLACK-M"])]
Identifier = Annotated[str, Meta(min_length=1, max_length=255)]
Name = Annotated[str, Meta(max_length=255)]
Quantity = Annotated[int, Meta(ge=1, le=QUANTITY_MAX, examples=[2])]
SignedQuantity = Annotated[int, Meta(ge=-QUANTITY_MAX, le=QUANTITY_MAX)]
TtlSeconds = Annotated[int, Meta(ge=1, le=TTL_SECONDS_MAX, examples=[900])]


class Request(Struct, forbid_unknown_fields=True, frozen=True):
    """A body that refuses fields it does not know."""


class LineRequest(Request, frozen=True):
    """Units of one SKU; with `location`, from there and nowhere else."""

    sku: Sku
    quantity: Quantity
    location: Code | None = None


class ReserveRequest(Request, frozen=True):
    """Hold units for a checkout."""

    channel: Code
    lines: Annotated[tuple[LineRequest, ...], Meta(min_length=1)]
    reservation_id: Identifier | None = None
    ttl_seconds: TtlSeconds = 900
    partial: bool = False
    replaces: Identifier | None = None
    ack: Literal["ledger"] = "ledger"


class ConfirmRequest(Request, frozen=True):
    """Turn a hold into a placed order."""

    order_id: Identifier | None = None


class ExtendRequest(Request, frozen=True):
    """Let a hold live longer."""

    ttl_seconds: TtlSeconds


class MovementLine(Request, frozen=True):
    """One line of a movement. Which of the optional fields are wanted depends on the kind."""

    sku: Sku
    location: Code
    quantity: SignedQuantity
    to_location: Code | None = None
    from_status: Literal["available", "damaged", "quality_control"] | None = None
    to_status: Literal["available", "damaged", "quality_control"] | None = None


class MovementRequest(Request, frozen=True):
    """A stock event, applied once per source and event id."""

    source: Code
    event_id: Identifier
    kind: Literal["receipt", "adjustment", "count", "shipment", "return", "transfer", "status"]
    lines: Annotated[tuple[MovementLine, ...], Meta(min_length=1)]
    occurred_at: str | None = None
    as_of: str | None = None
    reservation_id: Identifier | None = None


class OrderRequest(Request, frozen=True):
    """A sale that a marketplace has already made."""

    order_id: Identifier
    channel: Code
    lines: Annotated[tuple[LineRequest, ...], Meta(min_length=1)]


class LocationRequest(Request, frozen=True):
    """A place that holds stock."""

    name: Name = ""


class ChannelRequest(Request, frozen=True):
    """A place that sells, and where it sources from, first choice first."""

    locations: tuple[Code, ...]
    name: Name = ""


class SafetyStock(Request, frozen=True):
    """Units withheld from every channel at one location."""

    location: Code
    quantity: Annotated[int, Meta(ge=0, le=QUANTITY_MAX)]


class SkuRequest(Request, frozen=True):
    """A thing that is sold."""

    name: Name = ""
    safety_stock: tuple[SafetyStock, ...] = ()


class LineAnswer(Struct, frozen=True, gc=False):
    """Units of one SKU that a reservation has at one location."""

    sku: str
    quantity: int
    location: str


class ReservationAnswer(Struct, frozen=True, gc=False):
    """A reservation as it is now. `expires_at` is there while it is held."""

    reservation_id: str
    state: str
    channel: str
    lines: list[LineAnswer]
    expires_at: str | UnsetType = UNSET
    order_id: str | UnsetType = UNSET
    replaced_by: str | UnsetType = UNSET


class ShortageAnswer(Struct, frozen=True, gc=False):
    """What one SKU lacked."""

    sku: str
    requested: int
    available: int
    limited_by: str


class OversoldAnswer(Struct, frozen=True, gc=False):
    """Units of one SKU that were sold without being there."""

    sku: str
    quantity: int


class OrderAnswer(Struct, frozen=True):
    """A recorded order, and what it oversold."""

    order_id: str
    reservation_id: str
    state: str
    channel: str
    lines: list[LineAnswer]
    oversold: list[OversoldAnswer]


class MovementAnswer(Struct, frozen=True):
    """Whether a movement was applied now, or had been before."""

    applied: bool
    duplicate: bool
    source: str
    event_id: str
    lines: int


class AvailabilityItem(Struct, frozen=True):
    """What a channel may promise of one SKU; `version` is the ledger position of the figure."""

    sku: str
    available: int
    version: int


class AvailabilityAnswer(Struct, frozen=True):
    """What a channel may promise now."""

    channel: str
    items: list[AvailabilityItem]


class Unavailable(Struct, frozen=True):
    """Units on hand that cannot be sold."""

    damaged: int
    quality_control: int


class ChannelUse(Struct, frozen=True):
    """What one channel has promised of one pool."""

    channel: str
    reserved: int
    committed: int


class PoolAnswer(Struct, frozen=True):
    """The stock of one SKU at one location."""

    location: str
    on_hand: int
    unavailable: Unavailable
    reserved: int
    committed: int
    safety_stock: int
    available: int
    channels: list[ChannelUse]


class StockAnswer(Struct, frozen=True):
    """The stock of one SKU, every bucket at every location."""

    sku: str
    version: int
    locations: list[PoolAnswer]


class ConfiguredAnswer(Struct, frozen=True):
    """A location, channel or SKU as it was set."""

    code: str
    name: str
    version: int
    locations: tuple[str, ...] | UnsetType = UNSET
    safety_stock: tuple[SafetyStock, ...] | UnsetType = UNSET
