"""Server-sent events: one channel's deltas as they come, from a cursor on, until the reader goes."""

import asyncio
from collections.abc import Callable

import msgspec
from litestar.types import Receive, Send

from service.api.problems import Header
from service.deltas.channel_deltas import ChannelDeltas
from service.deltas.store import Delta

HEARTBEAT_SECONDS = 10.0
# A reader that takes nothing for so long has gone without saying so.
SEND_SECONDS_MAX = 30.0
_HEADERS: list[Header] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_encode = msgspec.json.Encoder().encode


class EventStream:
    """One answer to one reader."""

    def __init__(
        self, deltas: ChannelDeltas, cursor: int, authorized: Callable[[], bool], send: Send
    ) -> None:
        self._deltas, self._cursor = deltas, cursor
        self._authorized, self._send = authorized, send

    async def run(self, receive: Receive) -> None:
        """Send until the reader goes, its key is revoked, or the deltas it needs have been pruned."""
        sending = asyncio.create_task(self._send_all())
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send_all(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS]})
        await self._write(b": the deltas follow\n\n")
        while self._authorized():
            page = await self._deltas.after(self._cursor)
            if page and page[0].id != self._cursor + 1:
                break
            if page:
                await self._write(b"".join(map(_event, page)))
                self._cursor = page[-1].id
            elif self._deltas.ended:
                break
            elif not await self._deltas.until(self._has_news, HEARTBEAT_SECONDS):
                await self._write(b": still here\n\n")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _has_news(self, deltas: ChannelDeltas) -> bool:
        return deltas.last_id > self._cursor or deltas.ended

    async def _write(self, body: bytes) -> None:
        async with asyncio.timeout(SEND_SECONDS_MAX):
            await self._send({"type": "http.response.body", "body": body, "more_body": True})


def _event(delta: Delta) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (delta.id, _encode(delta.figure))


async def _disconnected(receive: Receive) -> None:
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
