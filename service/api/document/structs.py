"""The bodies that the OpenAPI document describes, and the shapes of those that no handler has a struct for."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType, defstruct
from msgspec.structs import fields

from service.api.dead_letters import DeadLettersAnswer, RetryAnswer
from service.api.operations import Health
from service.api.schemas import (
    AvailabilityAnswer,
    AvailabilityItem,
    ChannelRequest,
    ConfiguredAnswer,
    ConfirmRequest,
    ExtendRequest,
    LocationRequest,
    MovementAnswer,
    MovementRequest,
    OrderAnswer,
    OrderRequest,
    ReservationAnswer,
    ReserveRequest,
    ShortageAnswer,
    SkuRequest,
    StockAnswer,
)
from service.api.storefronts import (
    StorefrontAnswer,
    StorefrontPutAnswer,
    StorefrontRequest,
    StorefrontsAnswer,
)
from service.api.webhooks import DeliveryAnswer

# The address has the source already, and the delivery an id.
DeliveryRequest = defstruct(
    "DeliveryRequest",
    [
        (field.name, field.type | UnsetType, UNSET)
        if field.name in {"source", "event_id"}
        else (field.name, field.type, field.default)
        for field in fields(MovementRequest)
    ],
    namespace={"__doc__": "A movement; `source` and `event_id` may be left out."},
    forbid_unknown_fields=True,
    kw_only=True,
)


class ProblemDocument(Struct):
    """An error, as RFC 9457 has it. `lines` is there where stock is insufficient."""

    type: str
    title: str
    status: int
    detail: str
    done: Literal["nothing", "unknown"]
    lines: list[ShortageAnswer] | UnsetType = UNSET


class SnapshotAnswer(Struct):
    """Every figure of a channel; deltas after `cursor` continue it."""

    channel: str
    cursor: int
    items: list[AvailabilityItem]


class LiveAnswer(Struct):
    """The process runs."""

    status: Literal["live"]


STRUCTS: tuple[type[Struct], ...] = (
    ReserveRequest,
    ConfirmRequest,
    ExtendRequest,
    ReservationAnswer,
    AvailabilityAnswer,
    MovementRequest,
    MovementAnswer,
    OrderRequest,
    OrderAnswer,
    StockAnswer,
    SnapshotAnswer,
    StorefrontRequest,
    StorefrontPutAnswer,
    StorefrontAnswer,
    StorefrontsAnswer,
    DeliveryRequest,
    DeliveryAnswer,
    DeadLettersAnswer,
    RetryAnswer,
    LocationRequest,
    ChannelRequest,
    SkuRequest,
    ConfiguredAnswer,
    Health,
    LiveAnswer,
    ProblemDocument,
)
