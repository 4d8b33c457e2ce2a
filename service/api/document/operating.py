"""What operators use in the OpenAPI document: configuration, health and metrics."""

from msgspec import Struct

from service.api.document import examples
from service.api.document.parts import (
    DECIDED,
    OPEN,
    SENT,
    Json,
    answer,
    body,
    operation,
    parameter,
    problems,
    text_answer,
)
from service.api.document.structs import LiveAnswer
from service.api.operations import Health
from service.api.schemas import ChannelRequest, ConfiguredAnswer, LocationRequest, SkuRequest
from service.telemetry import CONTENT_TYPE


def operating() -> Json:
    """Give the operations by path and method."""
    return _configuration() | _operations()


def _configuration() -> Json:
    return {
        "/v1/locations/{code}": {
            "put": _put(
                "put_location",
                "Create or rename a location.",
                parameter("code", "path", "The location's code.", "LONDON"),
                (LocationRequest, examples.LOCATION),
                examples.LOCATION_SET,
            )
        },
        "/v1/channels/{code}": {
            "put": _put(
                "put_channel",
                "Create a channel, or set where it sources from, first choice first.",
                parameter("code", "path", "The channel's code.", "web"),
                (ChannelRequest, examples.CHANNEL),
                examples.CHANNEL_SET,
                "unknown-location",
                "duplicate-location",
            )
        },
        "/v1/skus/{sku}": {
            "put": _put(
                "put_sku",
                "Create a SKU, or set its name and safety stock.",
                parameter("sku", "path", "The SKU.", "TEE-BLACK-M"),
                (SkuRequest, examples.SKU),
                examples.SKU_SET,
                "unknown-location",
                "duplicate-location",
            )
        },
    }


def _put(
    name: str, summary: str, code: Json, sent: tuple[type[Struct], Json], example: Json, *slugs: str
) -> Json:
    return operation(
        "Configuration",
        name,
        summary,
        {
            "201": answer("Created.", ConfiguredAnswer, example),
            "200": answer("Replaced, or as it was.", ConfiguredAnswer, example),
            **problems(*slugs, *SENT, *DECIDED),
        },
        code,
        requestBody=body(*sent),
    )


def _operations() -> Json:
    live = answer("It runs.", LiveAnswer, {"status": "live"})
    ready = {
        "200": answer("Reservations are decided and made durable.", Health, examples.READY),
        "503": answer("They are not, now.", Health, examples.NOT_READY),
    }
    metrics = text_answer("Prometheus' text format.", CONTENT_TYPE, examples.METRICS)
    return {
        "/health/live": {
            "get": operation(
                "Operations",
                "live",
                "Say that the process runs.",
                {"200": live},
                security=OPEN,
            )
        },
        "/health/ready": {
            "get": operation(
                "Operations",
                "ready",
                "Say whether reservations are decided and made durable.",
                ready,
                security=OPEN,
            )
        },
        "/metrics": {
            "get": operation(
                "Operations",
                "metrics",
                "Give the metrics in Prometheus' text format.",
                {"200": metrics},
                security=OPEN,
            )
        },
    }
