"""The life of a reservation over HTTP: the hot path of every sale, on raw ASGI handlers."""

import hashlib
import time
from collections.abc import Coroutine
from urllib.parse import quote

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from allocation.commands import Confirm, Extend, ReadReservation, Release, Reserve, Wanted
from allocation.outcomes import Outcome
from allocation.ports import Decider, Decision
from service.api.answers import problem_of_refusal, reservation_answer
from service.api.bodies import read_body
from service.api.exchange import (
    BODY_BYTES_MAX,
    JSON,
    Headers,
    answer_problems,
    authorize,
    decode,
    method_of,
    read_headers,
    send_answer,
)
from service.api.identifiers import ID_CHARACTERS_MAX, age_ms_of, require_clean, require_path_safe
from service.api.problems import Header, Problem
from service.api.schemas import (
    RESERVATION_LINES_MAX,
    ConfirmRequest,
    ExtendRequest,
    LineRequest,
    ReserveRequest,
)
from service.keys import KeyRing, Principal

_encode = msgspec.json.Encoder().encode
_decode_reserve = msgspec.json.Decoder(ReserveRequest)
_decode_confirm = msgspec.json.Decoder(ConfirmRequest)
_decode_extend = msgspec.json.Decoder(ExtendRequest)
_REPLAYED: Header = (b"idempotent-replayed", b"true")
# No cart may take the id that a recorded order will need.
ORDER_PREFIX = "order:"


def fingerprint(*parts: object) -> str:
    """Hash what makes a request the same request; the order of its JSON fields does not count."""
    return hashlib.blake2b(_encode(parts), digest_size=10).hexdigest()


def wanted_lines(lines: tuple[LineRequest, ...]) -> tuple[Wanted, ...]:
    """Sum what the cart wants per SKU and pin; pins come first, since only they cannot go elsewhere."""
    if len(lines) > RESERVATION_LINES_MAX:
        raise Problem("too-large", f"A request may have {RESERVATION_LINES_MAX} lines.")
    summed: dict[tuple[str, str], int] = {}
    for line in lines:
        require_clean("sku", line.sku)
        place = (line.sku, line.location or "")
        if line.location is not None:
            require_clean("location", line.location)
        summed[place] = summed.get(place, 0) + line.quantity
    wanted = [Wanted(sku, quantity, location) for (sku, location), quantity in summed.items()]
    if len(wanted) > 1:
        wanted.sort(key=lambda want: not want.location)
    return tuple(wanted)


class Reservations:
    """The handlers, with what they need."""

    def __init__(self, pipeline: Decider, ring: KeyRing, key_retention_ms: int) -> None:
        self._pipeline = pipeline
        self._ring = ring
        self._key_retention_ms = key_retention_ms

    def handlers(self) -> list[ASGIRouteHandler]:
        """Give the route: one mount, since a raw handler of Litestar's takes no path parameters."""

        @asgi("/v1/reservations", is_mount=True, copy_scope=False)
        async def reservations(scope: Scope, receive: Receive, send: Send) -> None:
            await answer_problems(self._dispatch(scope, receive, send), send)

        return [reservations]

    def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[None, None, None]:
        rest = scope["path"].strip("/")
        if not rest:
            return self._reserve(scope, receive, send)
        reservation_id, _, action = rest.partition("/")
        match action:
            case "":
                return self._read(reservation_id, scope, send)
            case "confirm":
                return self._confirm(reservation_id, scope, receive, send)
            case "release":
                return self._release(reservation_id, scope, receive, send)
            case "extend":
                return self._extend(reservation_id, scope, receive, send)
            case _:
                return _refuse(Problem("not-found"))

    async def _reserve(self, scope: Scope, receive: Receive, send: Send) -> None:
        _require_method(scope, "POST")
        headers = read_headers(scope)
        principal = authorize(self._ring, headers.authorization, "reserve")
        request = decode(
            _decode_reserve,
            headers,
            await read_body(headers.content_length, receive, BODY_BYTES_MAX),
        )
        command = self._reserve_command(request, headers, principal)
        if command.replaces:
            await self._require_own(command.replaces, principal)
        decision = await self._pipeline.submit(command)
        if decision.outcome is Outcome.HELD:
            await _send_reservation(send, 201, command.reservation_id, decision)
        elif decision.outcome is Outcome.REPLAYED:
            await _send_reservation(send, 200, command.reservation_id, decision)
        else:
            raise problem_of_refusal(decision)

    def _reserve_command(
        self, request: ReserveRequest, headers: Headers, principal: Principal
    ) -> Reserve:
        if not principal.may_sell_on(request.channel):
            raise Problem("forbidden", "The key is for other channels.")
        require_clean("channel", request.channel)
        if request.replaces is not None:
            require_clean("replaces", request.replaces)
        return Reserve(
            self._key_of(request, headers),
            fingerprint(
                request.channel,
                request.lines,
                request.ttl_seconds,
                request.partial,
                request.replaces,
                request.ack,
            ),
            request.channel,
            request.ttl_seconds * 1000,
            request.partial,
            request.replaces or "",
            wanted_lines(request.lines),
        )

    def _key_of(self, request: ReserveRequest, headers: Headers) -> str:
        if headers.idempotency_keys > 1:
            raise Problem("invalid-request", "The header Idempotency-Key was sent twice.")
        if headers.idempotency_key is not None:
            key = _text_of(headers.idempotency_key)
        elif request.reservation_id is not None:
            key = request.reservation_id
        else:
            raise Problem(
                "invalid-request", "The header Idempotency-Key or a reservation_id is missing."
            )
        require_path_safe("Idempotency-Key", key)
        if key.startswith(ORDER_PREFIX):
            raise Problem("invalid-request", f"Keys that start with {ORDER_PREFIX} are for orders.")
        if request.replaces == key:
            raise Problem("invalid-request", "A reservation cannot replace itself.")
        age_ms = age_ms_of(key, int(time.time() * 1000))
        if age_ms is not None and age_ms > self._key_retention_ms:
            days = self._key_retention_ms / 86_400_000
            raise Problem("idempotency-key-expired", f"Keys are remembered for {days:g} days.")
        return key

    async def _read(self, reservation_id: str, scope: Scope, send: Send) -> None:
        _require_method(scope, "GET")
        principal = authorize(self._ring, read_headers(scope).authorization, "read", "reserve")
        await self._require_own(reservation_id, principal)
        await self._decide(send, ReadReservation(reservation_id))

    async def _confirm(
        self, reservation_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers = await self._authorize_post(reservation_id, scope)
        body = await read_body(headers.content_length, receive, BODY_BYTES_MAX)
        request = decode(_decode_confirm, headers, body) if body else ConfirmRequest()
        if request.order_id is not None:
            require_clean("order_id", request.order_id)
        await self._decide(send, Confirm(reservation_id, request.order_id or ""))

    async def _release(
        self, reservation_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers = await self._authorize_post(reservation_id, scope)
        body = await read_body(headers.content_length, receive, BODY_BYTES_MAX)
        if body.strip() not in {b"", b"{}"}:
            raise Problem("invalid-request", "A release takes no body.")
        await self._decide(send, Release(reservation_id))

    async def _extend(
        self, reservation_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers = await self._authorize_post(reservation_id, scope)
        request = decode(
            _decode_extend,
            headers,
            await read_body(headers.content_length, receive, BODY_BYTES_MAX),
        )
        await self._decide(send, Extend(reservation_id, request.ttl_seconds * 1000))

    async def _authorize_post(self, reservation_id: str, scope: Scope) -> Headers:
        _require_method(scope, "POST")
        headers = read_headers(scope)
        principal = authorize(self._ring, headers.authorization, "reserve")
        await self._require_own(reservation_id, principal)
        return headers

    async def _require_own(self, reservation_id: str, principal: Principal) -> None:
        """Answer a key that is bound to channels as if reservations of others did not exist."""
        if not principal.channels:
            return
        record = (await self._pipeline.submit(ReadReservation(reservation_id))).record
        if record is not None and not principal.may_sell_on(record.channel):
            raise Problem("unknown-reservation", f"Reservation {reservation_id}.")

    async def _decide(
        self, send: Send, command: Confirm | Release | Extend | ReadReservation
    ) -> None:
        require_path_safe("reservation_id", command.reservation_id)
        decision = await self._pipeline.submit(command)
        if decision.record is None or decision.outcome >= Outcome.INSUFFICIENT_STOCK:
            raise problem_of_refusal(decision)
        await _send_reservation(send, 200, command.reservation_id, decision)


async def _refuse(problem: Problem) -> None:
    raise problem


def _require_method(scope: Scope, method: str) -> None:
    if method_of(scope) != method:
        raise Problem.of_method(method)


async def _send_reservation(
    send: Send, status: int, reservation_id: str, decision: Decision
) -> None:
    assert decision.record is not None, "Bug: a reservation without its record"
    headers = [JSON]
    if decision.outcome is Outcome.REPLAYED:
        headers.append(_REPLAYED)
    body = _encode(reservation_answer(reservation_id, decision.record))
    await send_answer(send, status, body, headers)


def _text_of(header: bytes) -> str:
    try:
        return header.decode()
    except UnicodeDecodeError:
        raise Problem("invalid-request", "Idempotency-Key must be UTF-8.") from None


def order_reservation_id(channel: str, order_id: str) -> str:
    """Give the reservation that a recorded order becomes; fit for an address, whatever the order's id."""
    name = f"{ORDER_PREFIX}{quote(channel, safe='')}:{quote(order_id, safe='')}"
    if len(name) <= ID_CHARACTERS_MAX:
        return name
    return f"{ORDER_PREFIX}{hashlib.sha256(name.encode()).hexdigest()}"
