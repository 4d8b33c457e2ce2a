"""Every problem that the API answers with (RFC 9457): what was wrong, what was done, what to do next."""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from allocation.outcomes import Outcome

MEDIA_TYPE = "application/problem+json"
Header = tuple[bytes, bytes]


class ProblemKind(Struct, frozen=True):
    """One row of the table of problems. `done` is nothing or unknown; never something in between."""

    slug: str
    status: int
    title: str
    next_step: str
    done: str = "nothing"
    retry_after_seconds: int = 0


_ALL = (
    ProblemKind("invalid-request", 400, "The request is not valid.", "Correct the request."),
    ProblemKind(
        "unauthorized",
        401,
        "The request does not prove who sends it.",
        "Send `Authorization: Bearer <key>`; a webhook, a valid signature.",
    ),
    ProblemKind("forbidden", 403, "The API key may not do this.", "Use a key with that right."),
    ProblemKind("not-found", 404, "There is nothing at this address.", "Check the address."),
    ProblemKind(
        "unknown-reservation", 404, "There is no such reservation.", "Check the reservation's id."
    ),
    ProblemKind("method-not-allowed", 405, "This address does not take this method.", "See /docs."),
    ProblemKind("request-timeout", 408, "The body did not arrive in time.", "Send it again."),
    ProblemKind(
        "insufficient-stock",
        409,
        "There is less stock than the request asks for.",
        "Ask for what is available, under a new key.",
    ),
    ProblemKind("hold-lost", 409, "The hold has ended.", "Reserve again, under a new key."),
    ProblemKind(
        "already-committed",
        409,
        "The reservation is a placed order.",
        "Release the order first, or leave it as it is.",
    ),
    ProblemKind(
        "already-shipped", 409, "The order has left.", "Record a return when it comes back."
    ),
    ProblemKind(
        "idempotency-key-expired",
        410,
        "The key is older than keys are remembered.",
        "Look the reservation up; use a new key for a new request.",
    ),
    ProblemKind("too-large", 413, "The request is too large.", "Send it in smaller parts."),
    ProblemKind("unsupported-media-type", 415, "The body is not JSON.", "Send application/json."),
    ProblemKind(
        "idempotency-mismatch",
        422,
        "The key was used before for another request.",
        "Repeat the first request, or use a new key.",
    ),
    ProblemKind("unknown-sku", 422, "There is no such SKU.", "Create the SKU first."),
    ProblemKind("unknown-channel", 422, "There is no such channel.", "Create the channel first."),
    ProblemKind(
        "unknown-location",
        422,
        "There is no such location, or the channel does not source from it.",
        "Create the location, or add it to the channel.",
    ),
    ProblemKind(
        "duplicate-location", 422, "A location is listed twice.", "List every location once."
    ),
    ProblemKind(
        "count-too-old",
        422,
        "The count is from before the movements that are still known.",
        "Send a newer count.",
    ),
    ProblemKind(
        "cursor-expired", 410, "The cursor is too old.", "Read the snapshot and go on from there."
    ),
    ProblemKind(
        "too-many-requests",
        429,
        "More requests wait than can be answered in time.",
        "Repeat with the same key.",
        retry_after_seconds=1,
    ),
    ProblemKind(
        "internal-error",
        500,
        "The service met a fault of its own.",
        "Repeat with the same key; report it if it stays.",
        done="unknown",
    ),
    ProblemKind(
        "ledger-unavailable",
        503,
        "The ledger cannot take entries now.",
        "Repeat with the same key.",
        retry_after_seconds=1,
    ),
    ProblemKind(
        "gate-unverified",
        503,
        "The gate has not been verified since it changed.",
        "Repeat with the same key.",
        retry_after_seconds=1,
    ),
    ProblemKind(
        "gate-full",
        503,
        "The gate's memory is nearly full; units can only be given back.",
        "Repeat with the same key later.",
        retry_after_seconds=5,
    ),
    ProblemKind(
        "outcome-unknown",
        503,
        "It is not known yet whether this was done.",
        "Repeat with the same key until the answer is definite.",
        done="unknown",
        retry_after_seconds=1,
    ),
)
PROBLEMS: Mapping[str, ProblemKind] = {kind.slug: kind for kind in _ALL}

SLUG_OF_REFUSAL: Mapping[Outcome, str] = {
    Outcome.INSUFFICIENT_STOCK: "insufficient-stock",
    Outcome.HOLD_LOST: "hold-lost",
    Outcome.ALREADY_COMMITTED: "already-committed",
    Outcome.ALREADY_SHIPPED: "already-shipped",
    Outcome.IDEMPOTENCY_MISMATCH: "idempotency-mismatch",
    Outcome.UNKNOWN_SKU: "unknown-sku",
    Outcome.UNKNOWN_CHANNEL: "unknown-channel",
    Outcome.UNKNOWN_LOCATION: "unknown-location",
    Outcome.UNKNOWN_RESERVATION: "unknown-reservation",
    Outcome.COUNT_TOO_OLD: "count-too-old",
    Outcome.FAULT: "internal-error",
}

_encode = msgspec.json.Encoder().encode


class Problem(Exception):
    """A request that cannot be answered as asked; carries the row of the table and the particulars."""

    def __init__(self, slug: str, detail: str = "", **members: object) -> None:
        super().__init__(slug)
        self.kind = PROBLEMS[slug]
        self.detail = detail
        self.members = members
        self.allowed_methods = ""

    @classmethod
    def of_method(cls, allowed_methods: str) -> "Problem":
        """Make the problem of a method that an address does not take."""
        problem = cls("method-not-allowed", f"It takes {allowed_methods}.")
        problem.allowed_methods = allowed_methods
        return problem

    def body(self) -> bytes:
        """Give the problem document."""
        kind = self.kind
        document: dict[str, object] = {
            "type": f"/problems/{kind.slug}",
            "title": kind.title,
            "status": kind.status,
            "detail": f"{self.detail} {kind.next_step}".strip(),
            "done": kind.done,
        }
        return _encode(document | self.members)

    def headers(self) -> list[Header]:
        """Give the headers of the answer, its length excepted."""
        headers = [(b"content-type", MEDIA_TYPE.encode())]
        if self.kind.retry_after_seconds:
            headers.append((b"retry-after", str(self.kind.retry_after_seconds).encode()))
        if self.kind.status == 401:  # noqa: PLR2004 - the status is its own name
            headers.append((b"www-authenticate", b"Bearer"))
        if self.allowed_methods:
            headers.append((b"allow", self.allowed_methods.encode()))
        return headers
