"""Calls a running service by its HTTP contract, and repeats until an answer is definite."""

import ssl
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import stamina
from msgspec import Struct

from allocation.outcomes import State
from service.api.answers import NAME_OF_STATE
from service.api.schemas import ReservationAnswer, ShortageAnswer, StockAnswer

REPEAT_SECONDS_MAX = 120.0
REPEAT_PAUSE_SECONDS_MAX = 2.0
ANSWER_SECONDS_MAX = 30.0
_CREATED, _OK, _CONFLICT = 201, 200, 409
_INDEFINITE = {429, 503}
_FINAL_CONFLICTS = {"insufficient-stock", "hold-lost"}


class CallError(Exception):
    """The service gave no answer, or one that the contract does not have for this request."""


class Refused(Struct, frozen=True):
    """A reservation that was refused for want of stock, and what was short."""

    shortages: list[ShortageAnswer]


class HoldLost(Struct, frozen=True):
    """A hold that ended before it was confirmed."""


class Problem(Struct):
    """The part of a problem document that is acted on."""

    type: str = ""
    detail: str = ""
    lines: list[ShortageAnswer] = []


class _Indefinite(Exception):
    pass


_encode = msgspec.json.Encoder().encode
_decode_reservation = msgspec.json.Decoder(ReservationAnswer).decode
_decode_stock = msgspec.json.Decoder(StockAnswer).decode
_decode_problem = msgspec.json.Decoder(Problem).decode
_COMMITTED = {NAME_OF_STATE[state] for state in (State.COMMITTED, State.SHIPPED, State.RETURNED)}


class Service:
    """A service at an address, as somebody with an admin key meets it; so many calls at a time."""

    def __init__(self, url: str, key: str, connections: int) -> None:
        self.repeats = 0
        # One connection a client: a pool of many looks at all of them for every request.
        tls = ssl.create_default_context()
        self._clients = [_client(url, key, tls) for _ in range(connections)]
        self._free = list(self._clients)

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    async def configure(self, kind: str, code: str, body: dict[str, Any]) -> None:
        """Create or replace a SKU, a location or a channel."""
        answer = await self._ask("PUT", f"/v1/{kind}/{quote(code, safe='')}", body)
        _expect(answer, _OK, _CREATED)

    async def reserve(
        self, key: str, channel: str, lines: dict[str, int], *, partial: bool
    ) -> ReservationAnswer | Refused:
        """Hold a cart under an idempotency key."""
        body = {
            "channel": channel,
            "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines.items()],
            "partial": partial,
        }
        answer = await self._ask("POST", "/v1/reservations", body, {"Idempotency-Key": key})
        if answer.status_code == _CONFLICT:
            return Refused(_decode_problem(answer.content).lines)
        return _decode_reservation(_expect(answer, _OK, _CREATED))

    async def confirm(self, reservation_id: str, order_id: str) -> HoldLost | None:
        """Turn a hold into a placed order."""
        path = f"/v1/reservations/{quote(reservation_id, safe='')}/confirm"
        answer = await self._ask("POST", path, {"order_id": order_id})
        if answer.status_code == _CONFLICT:
            return HoldLost()
        confirmed = _decode_reservation(_expect(answer, _OK))
        if confirmed.state not in _COMMITTED:
            raise CallError(f"{reservation_id} is {confirmed.state} after it was confirmed.")
        return None

    async def move(
        self,
        event_id: str,
        kind: str,
        lines: list[dict[str, Any]],
        reservation_id: str | None = None,
    ) -> None:
        """Report a stock movement."""
        body = {"source": "replay", "event_id": event_id, "kind": kind, "lines": lines}
        if reservation_id is not None:
            body["reservation_id"] = reservation_id
        _expect(await self._ask("POST", "/v1/movements", body), _OK)

    async def stock(self, sku: str) -> StockAnswer:
        """Read every bucket of a SKU."""
        answer = await self._ask("GET", f"/v1/stock/{quote(sku, safe='')}", None)
        return _decode_stock(_expect(answer, _OK))

    async def _ask(
        self, method: str, path: str, body: object, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        content = None if body is None else _encode(body)
        try:
            async for attempt in stamina.retry_context(
                on=_Indefinite,
                attempts=None,
                timeout=REPEAT_SECONDS_MAX,
                wait_max=REPEAT_PAUSE_SECONDS_MAX,
            ):
                with attempt:
                    self.repeats += attempt.num > 1
                    return await self._ask_once(method, path, content, headers)
        except _Indefinite as error:
            raise CallError(f"{method} {path} got no definite answer: {error}.") from error
        raise AssertionError("Bug: repeating ended without an answer.")

    async def _ask_once(
        self, method: str, path: str, content: bytes | None, headers: dict[str, str] | None
    ) -> httpx.Response:
        client = self._free.pop()
        try:
            answer = await client.request(method, path, content=content, headers=headers)
        except httpx.TransportError as fault:
            raise _Indefinite(str(fault) or type(fault).__name__) from fault
        finally:
            self._free.append(client)
        if answer.status_code in _INDEFINITE:
            raise _Indefinite(f"status {answer.status_code}")
        if answer.status_code == _CONFLICT and _slug(answer) not in _FINAL_CONFLICTS:
            if _slug(answer) == "in-progress":
                raise _Indefinite("in progress")
            raise CallError(_told(answer))
        return answer


def _client(url: str, key: str, tls: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        timeout=ANSWER_SECONDS_MAX,
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        verify=tls,
        # What the environment says of proxies is not meant for a service near by.
        trust_env=False,
    )


def _expect(answer: httpx.Response, *statuses: int) -> bytes:
    if answer.status_code not in statuses:
        raise CallError(_told(answer))
    return answer.content


def _slug(answer: httpx.Response) -> str:
    try:
        return _decode_problem(answer.content).type.rpartition("/")[2]
    except msgspec.MsgspecError:
        return ""


def _told(answer: httpx.Response) -> str:
    request = answer.request
    return f"{request.method} {request.url.path} was answered {answer.status_code}: {answer.text}"
