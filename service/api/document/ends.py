"""Both ends in the OpenAPI document: channels and storefronts, signed webhooks and dead letters."""

from service.api.dead_letters import DeadLettersAnswer, RetryAnswer
from service.api.document import examples
from service.api.document.parts import (
    KEYED,
    SENT,
    SIGNED,
    Json,
    answer,
    body,
    operation,
    optional,
    parameter,
    problems,
    text_answer,
)
from service.api.document.structs import DeliveryRequest, SnapshotAnswer
from service.api.storefronts import (
    StorefrontAnswer,
    StorefrontPutAnswer,
    StorefrontRequest,
    StorefrontsAnswer,
)
from service.api.webhooks import DeliveryAnswer

_CHANNEL = parameter("code", "path", "The channel's code.", "web")
_STOREFRONT = parameter("name", "path", "The storefront's name, up to 64 characters.", "shop")


def ends() -> Json:
    """Give the operations by path and method."""
    return _channels() | _storefronts() | _webhooks() | _dead_letters()


def _channels() -> Json:
    refused = ("invalid-request", "unknown-channel", "too-many-requests", "ledger-unavailable")
    cursor = optional(
        parameter(
            "cursor",
            "query",
            "The id of the last delta that is known; the snapshot has the first. Wanted where there is no "
            "Last-Event-ID.",
            "41",
        )
    )
    last_event_id = optional(
        parameter("Last-Event-ID", "header", "As `cursor`, and wins over it.", "41")
    )
    return {
        "/v1/channels/{code}/snapshot": {
            "get": operation(
                "Channels",
                "snapshot",
                "Give all figures of a channel, and the cursor that continues them.",
                {
                    "200": answer("Every SKU.", SnapshotAnswer, examples.SNAPSHOT),
                    **problems(*refused, *KEYED),
                },
                _CHANNEL,
            )
        },
        "/v1/channels/{code}/deltas": {
            "get": operation(
                "Channels",
                "deltas",
                "Give every change of a channel's figures after a cursor, as server-sent events.",
                {
                    "200": text_answer(
                        "Events without a gap in their ids, until either side closes; a comment every "
                        "10 s where nothing changes.",
                        "text/event-stream",
                        examples.DELTAS,
                    ),
                    **problems("cursor-expired", *refused, *KEYED),
                },
                _CHANNEL,
                cursor,
                last_event_id,
            )
        },
    }


def _storefronts() -> Json:
    tag = "Storefronts"
    set_answer = examples.STOREFRONT_SET
    without_secret = {name: value for name, value in set_answer.items() if name != "secret"}
    shown = examples.STOREFRONT_SHOWN
    return {
        "/v1/storefronts": {
            "get": operation(
                tag,
                "list_storefronts",
                "List every storefront, and how far behind each is.",
                {
                    "200": answer("Without secrets.", StorefrontsAnswer, {"items": [shown]}),
                    **problems(*KEYED),
                },
            )
        },
        "/v1/storefronts/{name}": {
            "put": operation(
                tag,
                "put_storefront",
                "Create or replace a storefront; it hears every figure of its channel anew.",
                {
                    "201": answer(
                        "Created; `secret` is there, this once, where none was given.",
                        StorefrontPutAnswer,
                        set_answer,
                    ),
                    "200": answer("Replaced.", StorefrontPutAnswer, without_secret),
                    **problems("unknown-channel", *SENT, *KEYED),
                },
                _STOREFRONT,
                requestBody=body(StorefrontRequest, examples.STOREFRONT),
            ),
            "get": operation(
                tag,
                "show_storefront",
                "Show one storefront.",
                {
                    "200": answer("Without its secret.", StorefrontAnswer, shown),
                    **problems("not-found", *KEYED),
                },
                _STOREFRONT,
            ),
            "delete": operation(
                tag,
                "delete_storefront",
                "Push nothing more to a storefront, and forget it.",
                {"204": {"description": "Forgotten."}, **problems("not-found", *KEYED)},
                _STOREFRONT,
            ),
        },
    }


def _webhooks() -> Json:
    headers = (
        (
            "webhook-id",
            "The delivery's id, the same whenever it is sent again; no point in it.",
            "msg_1",
        ),
        (
            "webhook-timestamp",
            "When it was signed, in Unix seconds; within 300 s of now.",
            "1795262400",
        ),
        (
            "webhook-signature",
            "Signatures of `id.timestamp.body`, separated by blanks.",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    )
    return {
        "/v1/webhooks/{source}": {
            "post": operation(
                "Webhooks",
                "receive_webhook",
                "Take a signed movement; it is stored before the answer, and applied right after it.",
                {
                    "200": answer(
                        "Stored, now or before, durably.", DeliveryAnswer, examples.DELIVERED
                    ),
                    **problems(
                        "invalid-request",
                        "unauthorized",
                        "method-not-allowed",
                        "request-timeout",
                        "too-large",
                        "ledger-unavailable",
                        "outcome-unknown",
                        "internal-error",
                    ),
                },
                parameter("source", "path", "The source's name.", "wms"),
                *(parameter(name, "header", text, example) for name, text, example in headers),
                requestBody=body(DeliveryRequest, examples.DELIVERY),
                security=SIGNED,
            )
        }
    }


def _dead_letters() -> Json:
    tag = "Dead letters"
    cursor: Json = {"type": "integer", "minimum": 0, "default": 0}
    limit: Json = {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
    return {
        "/v1/dead-letters": {
            "get": operation(
                tag,
                "list_dead_letters",
                "List deliveries that could not be applied, the oldest first.",
                {
                    "200": answer("A page of them.", DeadLettersAnswer, examples.DEAD_LETTERS),
                    **problems("invalid-request", *KEYED),
                },
                optional(parameter("cursor", "query", "`next` of the page before.", 12, cursor)),
                optional(parameter("limit", "query", "How many at most.", 50, limit)),
            )
        },
        "/v1/dead-letters/{letter_id}/retry": {
            "post": operation(
                tag,
                "retry_dead_letter",
                "Let a dead letter be tried again; one that is not dead any more stays as it is.",
                {
                    "202": answer("What it is now.", RetryAnswer, examples.RETRIED),
                    **problems("not-found", "invalid-request", *KEYED),
                },
                parameter(
                    "letter_id",
                    "path",
                    "The dead letter's id.",
                    12,
                    {"type": "integer", "minimum": 0},
                ),
            )
        },
    }
