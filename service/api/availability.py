"""What a channel may promise now, answered from memory a moment old."""

from urllib.parse import unquote_plus

from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from service.api.exchange import (
    JSON,
    answer_problems,
    authorize,
    method_of,
    read_headers,
    send_answer,
)
from service.api.identifiers import require_clean
from service.api.problems import Problem
from service.figures import Figures
from service.keys import KeyRing

SKUS_MAX = 500


class Availability:
    """The handler, with what it needs."""

    def __init__(self, figures: Figures, ring: KeyRing) -> None:
        self._figures = figures
        self._ring = ring

    def handlers(self) -> list[ASGIRouteHandler]:
        """Give the route."""

        @asgi("/v1/availability", copy_scope=False)
        async def availability(scope: Scope, receive: Receive, send: Send) -> None:
            del receive
            await answer_problems(self._answer(scope, send), send)

        return [availability]

    async def _answer(self, scope: Scope, send: Send) -> None:
        if method_of(scope) != "GET":
            raise Problem.of_method("GET")
        principal = authorize(self._ring, read_headers(scope).authorization, "read", "reserve")
        channel, skus = _parse(scope["query_string"].decode("latin-1"))
        if not principal.may_sell_on(channel):
            raise Problem("forbidden", "The key is for other channels.")
        if channel not in self._figures.channels:
            raise Problem("unknown-channel", f"Channel {channel}.")
        items = [self._figures.known(channel, sku) for sku in skus]
        if None in items:
            items = await self._read(channel, skus)
        body = b'{"channel":%s,"items":[%s]}' % (
            self._figures.quoted(channel),
            b",".join(item for item in items if item),
        )
        await send_answer(send, 200, body, [JSON])

    async def _read(self, channel: str, skus: list[str]) -> list[bytes | None]:
        for sku in skus:
            require_clean("sku", sku)
        found = await self._figures.read(skus)
        unknown = [sku for sku in skus if found[sku] is None]
        if unknown:
            raise Problem("unknown-sku", f"SKU {', '.join(unknown[:10])}.")
        return [
            self._figures.answer(channel, sku, stock)
            for sku in skus
            if (stock := found[sku]) is not None
        ]


def _parse(query: str) -> tuple[str, list[str]]:
    channels: list[str] = []
    skus: list[str] = []
    for part in query.split("&"):
        name, _, text = part.partition("=")
        if "%" in text or "+" in text:
            text = unquote_plus(text)
        if name == "sku" and text:
            skus.append(text)
        elif name == "channel":
            channels.append(text)
        elif part:
            raise Problem("invalid-request", "The parameters are channel and sku.")
    if len(channels) != 1 or not channels[0]:
        raise Problem("invalid-request", "Name one channel.")
    if not skus:
        raise Problem("invalid-request", "Name at least one sku.")
    if len(skus) > SKUS_MAX:
        raise Problem("too-large", f"A request may name {SKUS_MAX} SKUs.")
    return channels[0], skus
