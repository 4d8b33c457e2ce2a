"""Selling and stock in the OpenAPI document: reservations, availability, movements, recorded orders."""

from service.api.document import examples
from service.api.document.parts import (
    DECIDED,
    REPLAYED,
    SENT,
    TEXT,
    Json,
    answer,
    body,
    operation,
    optional,
    parameter,
    problems,
)
from service.api.schemas import (
    AvailabilityAnswer,
    ConfirmRequest,
    ExtendRequest,
    MovementAnswer,
    MovementRequest,
    OrderAnswer,
    OrderRequest,
    ReservationAnswer,
    ReserveRequest,
    StockAnswer,
)

_KEY = optional(
    parameter(
        "Idempotency-Key",
        "header",
        "The reservation's id; wins over `reservation_id`. The same key and request give the same reservation. "
        "A UUIDv7 or ULID carries its age: too old a key is refused for ever.",
        examples.RESERVATION_ID,
        TEXT | {"maxLength": 255},
    )
)
_ID = parameter("reservation_id", "path", "The reservation's id.", examples.RESERVATION_ID)


# The gate tells a repeat of these from the first time.
_SAY_REPEATED = {"confirm", "release"}


def sales() -> Json:
    """Give the operations by path and method."""
    return _reservations() | {"/v1/availability": {"get": _availability()}} | _stock()


def _reservations() -> Json:
    one = "/v1/reservations/{reservation_id}"
    return {
        "/v1/reservations": {"post": _reserve()},
        one: {"get": _act("read", "Read a reservation.", examples.HELD, None)},
        f"{one}/confirm": {
            "post": _act(
                "confirm",
                "Turn a hold into a placed order; an expired hold takes its units again if they are there.",
                examples.COMMITTED,
                optional(body(ConfirmRequest, {"order_id": "1001"})),
                "hold-lost",
                "idempotency-mismatch",
                *SENT,
            )
        },
        f"{one}/release": {
            "post": _act(
                "release",
                "Give back a hold, or cancel what of a placed order has not been shipped.",
                examples.COMMITTED | {"state": "released"},
                None,
                "already-shipped",
                "request-timeout",
                "too-large",
            )
        },
        f"{one}/extend": {
            "post": _act(
                "extend",
                "Let a live hold end that long from now.",
                examples.HELD,
                body(ExtendRequest, {"ttl_seconds": 900}),
                "hold-lost",
                "already-committed",
                *SENT,
            )
        },
    }


def _reserve() -> Json:
    return operation(
        "Reservations",
        "reserve",
        "Hold units for a checkout, every line or none.",
        {
            "201": answer("Held, durably.", ReservationAnswer, examples.HELD),
            "200": answer(
                "The same key and request again: the reservation as it is now.",
                ReservationAnswer,
                examples.HELD,
                REPLAYED,
            ),
            **problems(
                "insufficient-stock",
                "already-committed",
                "idempotency-mismatch",
                "idempotency-key-expired",
                "unknown-sku",
                "unknown-channel",
                "unknown-location",
                "unknown-reservation",
                "gate-full",
                *SENT,
                *DECIDED,
            ),
        },
        _KEY,
        requestBody=body(ReserveRequest, examples.RESERVE),
    )


def _act(name: str, summary: str, example: Json, sent: Json | None, *slugs: str) -> Json:
    repeated = REPLAYED if name in _SAY_REPEATED else None
    responses = {
        "200": answer("The reservation as it is now.", ReservationAnswer, example, repeated),
        **problems("unknown-reservation", *slugs, *DECIDED),
    }
    if sent is None:
        return operation("Reservations", name, summary, responses, _ID)
    return operation("Reservations", name, summary, responses, _ID, requestBody=sent)


def _availability() -> Json:
    skus: Json = {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 500}
    return operation(
        "Availability",
        "availability",
        "What a channel may promise now of up to 500 SKUs.",
        {
            "200": answer(
                "From memory, a moment old at most.", AvailabilityAnswer, examples.AVAILABILITY
            ),
            **problems("unknown-sku", "unknown-channel", "too-large", *DECIDED),
        },
        parameter("channel", "query", "Who sells.", "web"),
        parameter("sku", "query", "A SKU; once for each.", ["TEE-BLACK-M"], skus),
    )


def _stock() -> Json:
    unknown = ("unknown-sku", "unknown-location", "idempotency-mismatch")
    return {
        "/v1/movements": {
            "post": operation(
                "Stock",
                "move",
                "Apply a stock movement, once per source and event id, in whatever order they come.",
                {
                    "200": answer(
                        "Applied, now or before, durably.", MovementAnswer, examples.MOVED
                    ),
                    **problems(*unknown, "count-too-old", *SENT, *DECIDED),
                },
                requestBody=body(MovementRequest, examples.MOVEMENT),
            )
        },
        "/v1/orders": {
            "post": operation(
                "Stock",
                "record_order",
                "Record a sale that has already been made; says what it oversold.",
                {
                    "201": answer("Recorded, durably.", OrderAnswer, examples.RECORDED),
                    "200": answer(
                        "Recorded before: the order as it is now.",
                        OrderAnswer,
                        examples.RECORDED,
                        REPLAYED,
                    ),
                    **problems(*unknown, "unknown-channel", "gate-full", *SENT, *DECIDED),
                },
                requestBody=body(OrderRequest, examples.ORDER),
            )
        },
        "/v1/stock/{sku}": {
            "get": operation(
                "Stock",
                "stock",
                "Show every bucket of a SKU at every location.",
                {
                    "200": answer("Every location that has it.", StockAnswer, examples.STOCK),
                    **problems("unknown-sku", *DECIDED),
                },
                parameter("sku", "path", "The SKU.", "TEE-BLACK-M"),
            )
        },
    }
