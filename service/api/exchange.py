"""One request on the hot path: its headers, its body and its answer, without what Litestar does for others."""

from collections.abc import Awaitable, Mapping
from typing import TypeVar, cast

import msgspec
from litestar.types import Scope, Send
from msgspec import Struct

from allocation.errors import (
    EngineError,
    GateFull,
    GateUnverified,
    LedgerUnavailable,
    OutcomeUnknown,
    TooManyWaiting,
)
from service.api.problems import Header, Problem
from service.keys import KeyRing, Principal

Body = TypeVar("Body")

BODY_BYTES_MAX = 1_048_576
JSON: Header = (b"content-type", b"application/json")

SLUG_OF_FAULT: dict[type[EngineError], str] = {
    GateUnverified: "gate-unverified",
    GateFull: "gate-full",
    LedgerUnavailable: "ledger-unavailable",
    TooManyWaiting: "too-many-requests",
    OutcomeUnknown: "outcome-unknown",
}


class Headers(Struct, gc=False):
    """The headers that the contract looks at; None where one was not sent, or was sent twice."""

    authorization: bytes = b""
    content_type: bytes = b""
    content_length: int = -1
    idempotency_key: bytes | None = None
    idempotency_keys: int = 0


def read_headers(scope: Scope) -> Headers:
    """Pick the headers out that matter."""
    headers = Headers()
    for name, value in scope["headers"]:
        if name == b"authorization":
            # Sent twice it is a list, as HTTP has it, and no list is a key.
            known = headers.authorization
            headers.authorization = known + b", " + value if known else value
        elif name == b"idempotency-key":
            headers.idempotency_key = value
            headers.idempotency_keys += 1
        elif name == b"content-type":
            headers.content_type = value
        elif name == b"content-length" and value.isdigit():
            headers.content_length = int(value)
    return headers


def method_of(scope: Scope) -> str:
    """Give the method; these handlers are only ever reached by HTTP."""
    return str(cast(Mapping[str, object], scope)["method"])


def authorize(ring: KeyRing, authorization: bytes, *scopes: str) -> Principal:
    """Find who calls, and make sure that they have one of the scopes. Raises the problem otherwise."""
    scheme, _, text = authorization.partition(b" ")
    principal = ring.find(text) if scheme.lower() == b"bearer" else None
    if principal is None:
        raise Problem("unauthorized")
    if not principal.may(*scopes):
        raise Problem("forbidden", f"The key lacks the scope {' or '.join(scopes)}.")
    return principal


def is_json(content_type: bytes) -> bool:
    """Say whether a body is said to be JSON: in any case, with parameters or without."""
    media_type = b"application/json"
    return content_type == media_type or (
        content_type.partition(b";")[0].strip().lower() == media_type
    )


def decode(decoder: msgspec.json.Decoder[Body], headers: Headers, body: bytes) -> Body:
    """Decode a body into its struct, or say what is wrong with it and where."""
    if not is_json(headers.content_type):
        raise Problem("unsupported-media-type")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("invalid-request", f"{error}.") from None


async def send_answer(send: Send, status: int, body: bytes, headers: list[Header]) -> None:
    """Send a whole answer."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def problem_of(fault: EngineError) -> Problem:
    """Give the problem that tells a caller of a fault."""
    return Problem(SLUG_OF_FAULT.get(type(fault), "outcome-unknown"))


async def answer_problems(handling: Awaitable[None], send: Send) -> None:
    """Let a handler finish, and answer what it raises as a problem."""
    try:
        await handling
    except Problem as problem:
        await send_answer(send, problem.kind.status, problem.body(), problem.headers())
    except EngineError as fault:
        problem = problem_of(fault)
        await send_answer(send, problem.kind.status, problem.body(), problem.headers())
