"""Which channels are being turned into deltas: those that somebody reads, and no others."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from allocation.journal import decode_stock_change
from service.deltas.channel_deltas import ChannelDeltas
from service.deltas.rescan import Rescan
from service.deltas.sources import Sources
from service.deltas.store import DeltaStore
from service.endless import start_endless


class Projection:
    """Follows the feed while a channel has a reader; without any, selling costs nothing more."""

    def __init__(
        self, sources: Sources, store: DeltaStore, *, broken: asyncio.Future[None]
    ) -> None:
        self.store = store
        self.on_published: Callable[[], None] = lambda: None
        self._sources, self._broken = sources, broken
        self._rescan = Rescan(sources, store)
        self._ended = False
        self._channels: dict[str, ChannelDeltas] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def open(self, code: str) -> ChannelDeltas:
        """Begin to read a channel, which must exist; `close` it for every time that it was opened."""
        deltas = self._channels.get(code)
        if deltas is None:
            if not self._channels:
                self._follow()
            deltas = ChannelDeltas(
                code,
                self._sources,
                self.store,
                self._rescan,
                self._tell_published,
            )
            deltas.ended = self._ended
            self._channels[code] = deltas
            self._tasks[code] = start_endless(deltas.run(), f"deltas of {code}", self._broken)
        deltas.readers += 1
        return deltas

    def close(self, code: str) -> None:
        """Read a channel no more."""
        deltas = self._channels[code]
        deltas.readers -= 1
        if deltas.readers > 0:
            return
        del self._channels[code]
        self._tasks.pop(code).cancel()
        if not self._channels:
            self._unfollow()

    @asynccontextmanager
    async def reading(self, code: str) -> AsyncGenerator[ChannelDeltas]:
        """Read a channel for a while."""
        deltas = self.open(code)
        try:
            yield deltas
        finally:
            self.close(code)

    def end_streams(self) -> None:
        """Let every reader go: a server that stops waits for its answers to end."""
        self._ended = True
        for deltas in self._channels.values():
            deltas.end()

    async def stop(self) -> None:
        """Publish nothing more."""
        self.end_streams()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _tell_published(self) -> None:
        self.on_published()

    def _follow(self) -> None:
        for source in self._sources:
            source.feed.follow(self._note_entry)

    def _unfollow(self) -> None:
        for source in self._sources:
            source.feed.unfollow(self._note_entry)

    def _note_entry(self, _sequence: int, body: bytes) -> None:
        change = decode_stock_change(body)
        for deltas in self._channels.values():
            deltas.note(change.stock)
