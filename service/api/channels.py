"""A channel's figures for whoever keeps a copy: all of them, and from there every change."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
from litestar import Controller, Request, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, QueryParameter
from litestar.types import ASGIApp, Receive, Scope, Send

from allocation.ledger.postgres_ledger import FAULTS
from service.api.event_stream import EventStream
from service.api.exchange import JSON, authorize
from service.api.guards import principal_of, requires
from service.api.problems import Problem
from service.deltas.channel_deltas import ChannelDeltas
from service.deltas.projection import Projection
from service.deltas.sources import Sources
from service.figures import Figures
from service.keys import KeyRing

STREAMS_MAX = 500
# Each holds a connection to the database for as long as its reader takes.
SNAPSHOTS_MAX = 2
SNAPSHOT_SECONDS_MAX = 120.0
# The first reader of a large channel waits until all its stock has been read.
READY_SECONDS_MAX = 60.0
_CURSOR = re.compile(r"\d{1,18}", re.ASCII)
_encode = msgspec.json.Encoder().encode

AnyRequest = Request[None, None, State]
Cursor = Annotated[
    str, QueryParameter(required=False, description="The id of the last delta that is known.")
]
LastEventId = Annotated[
    str,
    HeaderParameter(name="last-event-id", required=False, description="As cursor; wins over it."),
]


class ChannelReads:
    """The bounds of reading: how many at once, and for how long."""

    def __init__(self, projection: Projection, sources: Sources) -> None:
        self._projection, self._sources = projection, sources
        self._streams = 0
        self._snapshots = 0

    def snapshot(self, code: str) -> ASGIApp:
        """Give all figures of a channel, in parts."""

        async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
            if self._snapshots >= SNAPSHOTS_MAX:
                raise Problem("too-many-requests", f"{SNAPSHOTS_MAX} snapshots are being read.")
            self._snapshots += 1
            try:
                async with self._ready(code), asyncio.timeout(SNAPSHOT_SECONDS_MAX):
                    await self._send_snapshot(code, send)
            finally:
                self._snapshots -= 1

        return answer

    def deltas(self, code: str, cursor: int, may_read: Callable[[], bool]) -> ASGIApp:
        """Give the deltas of a channel as they come."""

        async def answer(_scope: Scope, receive: Receive, send: Send) -> None:
            if self._streams >= STREAMS_MAX:
                raise Problem("too-many-requests", f"{STREAMS_MAX} streams are open.")
            self._streams += 1
            try:
                async with self._ready(code) as deltas:
                    await _check_cursor(deltas, cursor)
                    await EventStream(deltas, cursor, may_read, send).run(receive)
            finally:
                self._streams -= 1

        return answer

    async def _send_snapshot(self, code: str, send: Send) -> None:
        async with self._projection.store.snapshot(code) as (cursor, pages):
            await send({"type": "http.response.start", "status": 200, "headers": [JSON]})
            part = b'{"channel":%s,"cursor":%d,"items":[' % (_encode(code), cursor)
            separator = b""
            async for page in pages:
                part += separator + b",".join(map(_encode, page))
                await send({"type": "http.response.body", "body": part, "more_body": True})
                part, separator = b"", b","
            await send({"type": "http.response.body", "body": part + b"]}", "more_body": False})

    @asynccontextmanager
    async def _ready(self, code: str) -> AsyncGenerator[ChannelDeltas]:
        """Read a channel whose deltas reach as far as the ledger of every shard does now."""
        needed = [source.pipeline.durable_sequence for source in self._sources]

        def is_ready(deltas: ChannelDeltas) -> bool:
            reached = zip(deltas.reached, needed, strict=True)
            return all(position >= wanted for position, wanted in reached)

        async with self._projection.reading(code) as deltas:
            if not await deltas.until(is_ready, READY_SECONDS_MAX):
                raise Problem("ledger-unavailable")
            yield deltas


class ChannelsController(Controller):
    """What keeps a copy of a channel's figures right."""

    path = "/v1/channels/{code:str}"
    tags = ("Channels",)
    guards = (requires("read"),)

    @get("/snapshot")
    async def snapshot(
        self,
        code: str,
        request: AnyRequest,
        figures: NamedDependency[Figures],
        channel_reads: NamedDependency[ChannelReads],
    ) -> ASGIApp:
        """Give all figures of a channel, and the cursor that continues them."""
        _require_channel(request, code, figures)
        if request.query_params:
            raise Problem("invalid-request", "A snapshot takes no parameters.")
        return channel_reads.snapshot(code)

    @get("/deltas", media_type="text/event-stream")
    async def deltas(  # noqa: PLR0913, PLR0917 - two places for the cursor, and what the handler needs
        self,
        code: str,
        request: AnyRequest,
        figures: NamedDependency[Figures],
        channel_reads: NamedDependency[ChannelReads],
        cursor: Cursor = "",
        last_event_id: LastEventId = "",
    ) -> ASGIApp:
        """Give every change of a channel's figures after a cursor, as server-sent events."""
        _require_channel(request, code, figures)
        # A reader that connects again says in the header where it was; its address has become old.
        text = last_event_id or cursor
        if not _CURSOR.fullmatch(text) or {*request.query_params} - {"cursor"}:
            raise Problem("invalid-request", "cursor is the id of a delta; the snapshot has one.")
        ring: KeyRing = request.app.state.ring
        authorization = request.headers.get("authorization", "").encode("latin-1")

        def may_read() -> bool:
            try:
                return authorize(ring, authorization, "read").may_sell_on(code)
            except Problem:
                return False

        return channel_reads.deltas(code, int(text), may_read)


def _require_channel(request: AnyRequest, code: str, figures: Figures) -> None:
    if not principal_of(request).may_sell_on(code):
        raise Problem("forbidden", "The key is for other channels.")
    if code not in figures.channels:
        raise Problem("unknown-channel", f"Channel {code}.")


async def _check_cursor(deltas: ChannelDeltas, cursor: int) -> None:
    try:
        head = await deltas.read_head()
    except FAULTS:
        raise Problem("ledger-unavailable") from None
    if cursor < head.pruned_id:
        raise Problem("cursor-expired", f"Deltas begin after {head.pruned_id}.")
    if cursor > head.last_id:
        raise Problem("invalid-request", f"The newest delta is {head.last_id}.")
