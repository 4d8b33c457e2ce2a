"""Where warehouses deliver what has happened: signed, stored before the answer, applied right after it."""

from collections.abc import Callable

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from service.api.bodies import read_body
from service.api.exchange import JSON, answer_problems, method_of, read_headers, send_answer
from service.api.problems import Problem
from service.warehouses.inbox import Inbox
from service.warehouses.port import Unverified
from service.warehouses.sources import SourceRing

DELIVERY_BYTES_MAX = 256 * 1024
_encode = msgspec.json.Encoder().encode


class DeliveryAnswer(Struct, frozen=True):
    """A delivery that is stored, now or since it was first sent; `duplicate` where its id was known."""

    source: str
    webhook_id: str
    duplicate: bool


class Webhooks:
    """The handler, with what it needs.

    Whatever is stored is answered 200. A sender of Standard Webhooks takes that as the end of a delivery, and
    repeats after anything else; so a known id with another body is 200 too, since no repeat could change it:
    it is stored as a dead letter, for a person to look at.
    """

    def __init__(self, sources: SourceRing, inbox: Inbox, wake_worker: Callable[[], None]) -> None:
        self._sources, self._inbox, self._wake_worker = sources, inbox, wake_worker

    def handlers(self) -> list[ASGIRouteHandler]:
        """Give the route: raw, since a signature covers the body as it came."""

        @asgi("/v1/webhooks", is_mount=True, copy_scope=False)
        async def webhooks(scope: Scope, receive: Receive, send: Send) -> None:
            await answer_problems(self._receive(scope, receive, send), send)

        return [webhooks]

    async def _receive(self, scope: Scope, receive: Receive, send: Send) -> None:
        source_name = scope["path"].strip("/")
        if not source_name or "/" in source_name:
            raise Problem("not-found")
        if method_of(scope) != "POST":
            raise Problem.of_method("POST")
        content_length = read_headers(scope).content_length
        body = await read_body(content_length, receive, DELIVERY_BYTES_MAX)
        source = self._sources.find(source_name)
        verdict = source.warehouse.verify(_texts(scope), body, source.secrets)
        # The second half cannot happen; it must not depend on luck that it cannot.
        if isinstance(verdict, Unverified) or source.name != source_name:
            raise Problem("unauthorized", "It takes the signature of a source.")
        new = await self._inbox.store(source_name, verdict.delivery_id, body)
        if new:
            self._wake_worker()
        answer = DeliveryAnswer(source_name, verdict.delivery_id, duplicate=not new)
        await send_answer(send, 200, _encode(answer), [JSON])


def _texts(scope: Scope) -> dict[str, str]:
    """Give the headers as texts; one that was sent twice is as good as none."""
    texts: dict[str, str] = {}
    for name, value in scope["headers"]:
        text = name.decode("latin-1")
        texts[text] = "" if text in texts else value.decode("latin-1")
    return texts
