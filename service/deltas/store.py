"""Deltas in Postgres: a compare-and-set of the channel's head goes with every delta, as in the ledger."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy
from msgspec import Struct

from allocation.ledger.queries import named_queries

PUBLISH_SECONDS_MAX = 10.0
SNAPSHOT_ROWS = 2_000
Connection = asyncpg.Connection | PoolConnectionProxy


class Figure(Struct, frozen=True, gc=False):
    """What a channel may promise of one SKU; `version` is the ledger position of the figure."""

    sku: str
    available: int
    version: int


class Delta(Struct, frozen=True, gc=False):
    """A figure that changed, and its place among the channel's deltas."""

    id: int
    figure: Figure


class ChannelHead(Struct, frozen=True):
    """Where a channel's deltas end, and how far into the ledger of each shard that is; -1 for one never read."""

    last_id: int
    pruned_id: int
    positions: list[int]


class DeltaStore:
    """The deltas of all channels."""

    def __init__(self, pool: asyncpg.Pool, shards: int = 1) -> None:
        self._pool = pool
        self._never_read = [-1] * shards
        self._queries = named_queries("service.deltas")

    async def head(self, channel: str) -> ChannelHead:
        """Read where the deltas of a channel end; a channel that nobody has read yet gets a head."""
        row = await self._pool.fetchrow(self._queries["head"], channel)
        if row is None:
            await self._pool.execute(self._queries["create_head"], channel, self._never_read)
            row = await self._pool.fetchrow(self._queries["head"], channel)
        return _head(row)

    async def publish(
        self,
        channel: str,
        head: ChannelHead,
        positions: Sequence[int],
        figures: Sequence[Figure],
    ) -> list[Delta] | None:
        """Publish the figures that differ, and move to `positions`; None where `head` is not the head."""
        rows = await self._pool.fetch(
            self._queries["publish"],
            channel,
            head.last_id,
            head.positions,
            positions,
            *_columns(figures),
            timeout=PUBLISH_SECONDS_MAX,
        )
        return _deltas(rows) if rows else None

    async def read(self, channel: str, after_id: int, limit: int) -> list[Delta]:
        """Read deltas in order."""
        return _deltas(await self._pool.fetch(self._queries["read"], channel, after_id, limit))

    @asynccontextmanager
    async def snapshot(
        self, channel: str
    ) -> AsyncGenerator[tuple[int, AsyncIterator[list[Figure]]]]:
        """Give every published figure, in pages, and the id of the last delta that is in them."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            head = _head(await connection.fetchrow(self._queries["head"], channel))
            cursor = await connection.cursor(self._queries["figures"], channel)

            async def pages() -> AsyncIterator[list[Figure]]:
                while rows := await cursor.fetch(SNAPSHOT_ROWS):
                    yield [Figure(*row) for row in rows]

            yield head.last_id, pages()

    @asynccontextmanager
    async def only_publisher(self, channel: str) -> AsyncGenerator["Rewrite"]:
        """Keep everybody else from publishing meanwhile; nothing is seen of it before it ends well."""
        async with self._pool.acquire() as connection, connection.transaction():
            head = _head(await connection.fetchrow(self._queries["lock_head"], channel))
            yield Rewrite(connection, channel, head)

    async def prune(self, retention_seconds: float, limit: int) -> int:
        """Forget old deltas, some of each channel, and say how many."""
        deleted = 0
        for row in await self._pool.fetch(self._queries["channels"]):
            tag = await self._pool.execute(self._queries["prune"], row[0], retention_seconds, limit)
            deleted += int(tag.rpartition(" ")[2])
        return deleted


class Rewrite:
    """Publishes a whole catalogue in parts, within one transaction that has locked the head."""

    def __init__(self, connection: Connection, channel: str, head: ChannelHead) -> None:
        self.head = head
        self._connection = connection
        self._channel = channel
        self._queries = named_queries("service.deltas")
        self._first = min(head.positions) < 0

    async def put(self, figures: Sequence[Figure]) -> None:
        """Publish the figures that differ; where none was published before, they are where deltas begin."""
        columns = _columns(figures)
        if self._first:
            await self._connection.execute(self._queries["fill"], self._channel, *columns)
            return
        head = self.head
        rows = await self._connection.fetch(
            self._queries["publish"],
            self._channel,
            head.last_id,
            head.positions,
            head.positions,
            *columns,
        )
        assert rows, "Bug: a locked head was moved"
        self.head = msgspec.structs.replace(head, last_id=head.last_id + len(_deltas(rows)))

    async def move(self, positions: Sequence[int]) -> None:
        """Say how far into the ledger of each shard the figures go."""
        await self._connection.execute(self._queries["move_head"], self._channel, positions)


def _head(row: asyncpg.Record | None) -> ChannelHead:
    assert row is not None, "Bug: a channel's head was deleted"
    return ChannelHead(*row)


def _columns(figures: Sequence[Figure]) -> tuple[list[str], list[int], list[int]]:
    return (
        [figure.sku for figure in figures],
        [figure.available for figure in figures],
        [figure.version for figure in figures],
    )


def _deltas(rows: Sequence[asyncpg.Record]) -> list[Delta]:
    return [Delta(row[0], Figure(*row[1:])) for row in rows if row[0] is not None]
