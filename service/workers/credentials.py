"""Keeps keys and sources in memory as the database has them: at once where it can say so, else soon."""

from collections.abc import Callable

import asyncpg

from service.keys import KeyRing, KeyStore
from service.warehouses.sources import SourceRing, SourceStore

CHANNEL = "ringfence_credentials"
# For a database that cannot be listened to, behind a pooler for example.
LOOK_SECONDS = 2.0
CONNECT_SECONDS_MAX = 5.0


class Credentials:
    """The duty of the worker. What is in memory stays as it is while the database is away."""

    def __init__(
        self,
        database_url: str,
        keys: tuple[KeyStore, KeyRing],
        sources: tuple[SourceStore, SourceRing],
    ) -> None:
        self._url = database_url
        self._keys, self._sources = keys, sources
        self._listening: asyncpg.Connection | None = None
        self.on_change: Callable[[], None] = lambda: None

    async def run_once(self) -> int:
        """Listen for changes, and read everything; nothing ever remains to be done."""
        if self._listening is None or self._listening.is_closed():
            connection = await asyncpg.connect(self._url, timeout=CONNECT_SECONDS_MAX)
            await connection.add_listener(CHANNEL, self._hear)
            self._listening = connection
        store, ring = self._keys
        ring.replace(await store.live())
        sources, source_ring = self._sources
        source_ring.replace(await sources.live())
        return 0

    def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.terminate()
        self._listening = None

    def _hear(self, *_: object) -> None:
        self.on_change()
