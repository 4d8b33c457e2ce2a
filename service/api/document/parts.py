"""The pieces that an operation in the OpenAPI document is put together from."""

from typing import Any

from msgspec import Struct

from service.api.document.structs import ProblemDocument
from service.api.problems import MEDIA_TYPE, PROBLEMS

Json = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"
API_KEY, SIGNATURE = "key", "signature"
SIGNED: list[Json] = [{SIGNATURE: []}]
OPEN: list[Json] = []
TEXT: Json = {"type": "string"}

# What any call with a key may meet; then one that the gate decides; then one with a body.
KEYED = ("unauthorized", "forbidden", "method-not-allowed", "internal-error")
DECIDED = (
    "invalid-request",
    *KEYED,
    "too-many-requests",
    "ledger-unavailable",
    "gate-unverified",
    "outcome-unknown",
)
SENT = ("invalid-request", "request-timeout", "too-large", "unsupported-media-type")

_RETRY_AFTER: Json = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
}
REPLAYED: Json = {
    "Idempotent-Replayed": {
        "description": "Always `true`: the answer of an earlier request, as things are now.",
        "schema": TEXT,
    }
}


def operation(
    tag: str, name: str, summary: str, responses: Json, *parameters: Json, **more: object
) -> Json:
    """Describe one operation."""
    described: Json = {
        "tags": [tag],
        "operationId": name,
        "summary": summary,
        "responses": responses,
        **more,
    }
    return described | ({"parameters": list(parameters)} if parameters else {})


def parameter(
    name: str, place: str, description: str, example: object, schema: Json | None = None
) -> Json:
    """Describe one parameter, which must be there."""
    return {
        "name": name,
        "in": place,
        "required": True,
        "description": description,
        "schema": schema or TEXT,
        "example": example,
    }


def optional(described: Json) -> Json:
    """Let a parameter, or a body, be left out."""
    return described | {"required": False}


def body(struct: type[Struct], example: Json) -> Json:
    """Describe the body of a request."""
    return {"content": {"application/json": _content(struct, example)}, "required": True}


def answer(
    description: str, struct: type[Struct], example: Json, headers: Json | None = None
) -> Json:
    """Describe an answer in JSON."""
    answered: Json = {
        "description": description,
        "content": {"application/json": _content(struct, example)},
    }
    return answered | ({"headers": headers} if headers else {})


def text_answer(description: str, media_type: str, example: str) -> Json:
    """Describe an answer in text."""
    return {
        "description": description,
        "content": {media_type: {"schema": TEXT, "example": example}},
    }


def problems(*slugs: str) -> Json:
    """Describe problems by status; several may share one."""
    by_status: dict[str, list[str]] = {}
    for slug in dict.fromkeys(slugs):
        by_status.setdefault(str(PROBLEMS[slug].status), []).append(slug)
    return {status: _problem(slugs) for status, slugs in sorted(by_status.items())}


def _problem(slugs: list[str]) -> Json:
    described: Json = {
        "description": " · ".join(f"`{slug}`: {PROBLEMS[slug].title}" for slug in slugs),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": REFERENCE.format(name=ProblemDocument.__name__)},
                "examples": {slug: {"value": _example_of(slug)} for slug in slugs},
            }
        },
    }
    waits = any(PROBLEMS[slug].retry_after_seconds for slug in slugs)
    return described | ({"headers": _RETRY_AFTER} if waits else {})


def _example_of(slug: str) -> Json:
    kind = PROBLEMS[slug]
    document: Json = {
        "type": f"/problems/{slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": kind.next_step,
        "done": kind.done,
    }
    if slug == "insufficient-stock":
        document["lines"] = [
            {"sku": "LAST-ONE", "requested": 2, "available": 1, "limited_by": "on_hand"}
        ]
    return document


def _content(struct: type[Struct], example: Json) -> Json:
    return {"schema": {"$ref": REFERENCE.format(name=struct.__name__)}, "example": example}
