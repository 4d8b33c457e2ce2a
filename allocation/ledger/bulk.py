"""Long reads and writes beside the ledger's own work: pages of entries, parts of checkpoints."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Mapping
from itertools import pairwise

import asyncpg

from allocation.errors import CheckpointDamaged, Diverged
from allocation.ports import Checkpoint, Page, Part

# Larger pages are decoded more slowly: their parts do not stay in the processor's cache until they are taken over.
PAGE_ENTRIES = 1_000
CHECKPOINTS_KEPT = 2


class Bulk:
    """One connection for one long read or write of a shard. Raises the driver's faults as they are."""

    def __init__(
        self, connection: asyncpg.Connection, queries: Mapping[str, str], shard: int
    ) -> None:
        self._connection, self._queries, self._shard = connection, queries, shard

    async def pages(self, after: int, through: int) -> AsyncGenerator[Page]:
        """Give entries in pages; while one is being looked at, Postgres puts the next one together.

        Raises Diverged where an entry is missing.
        """
        read = await self._connection.prepare(self._queries["read_page"])
        bounds = list(pairwise([*range(after, through, PAGE_ENTRIES), through]))
        calls = (read.fetchrow(self._shard, *ends) for ends in bounds)
        following = _started(next(calls))
        try:
            for first, last in bounds:
                row = await following
                following = _started(next(calls, None))
                if row is None or row[0] != last - first:
                    raise Diverged
                yield Page(row[0], last, row[1])
        finally:
            await _abandon(following)

    async def checkpoint_parts(self, checkpoint: Checkpoint) -> AsyncGenerator[Part]:
        """Give the parts in order, the next being read meanwhile.

        Raises CheckpointDamaged where one is missing or was changed.
        """
        read = await self._connection.prepare(self._queries["checkpoint_part"])
        digests = checkpoint.digests
        calls = (
            read.fetchrow(self._shard, checkpoint.sequence, part) for part in range(len(digests))
        )
        following = _started(next(calls, None))
        try:
            for digest in digests:
                row = await following
                following = _started(next(calls, None))
                if row is None or _digest(row[0], row[1]) != digest:
                    raise CheckpointDamaged
                yield Part(row[0], row[1])
        except asyncpg.DataCorruptedError as fault:
            raise CheckpointDamaged from fault
        finally:
            await _abandon(following)

    async def keep_checkpoint(
        self, sequence: int, last_hash: str, parts: AsyncIterable[Part]
    ) -> None:
        """Write a checkpoint and drop older ones, in one transaction.

        Raises Diverged where the hash is not the ledger's.
        """
        connection, queries, shard = self._connection, self._queries, self._shard
        async with connection.transaction():
            await connection.execute(queries["lock_checkpoints"], shard)
            if await connection.fetchval(queries["hash_at"], shard, sequence) != last_hash:
                raise Diverged
            await connection.execute(queries["drop_checkpoints"], shard, sequence)
            add_part = await connection.prepare(queries["add_part"])
            digests: list[str] = []
            async for part in parts:
                await add_part.fetch(shard, sequence, len(digests), part.key, part.body)
                digests.append(_digest(part.key, part.body))
            await connection.execute(queries["add_checkpoint"], shard, sequence, last_hash, digests)
            await connection.execute(queries["keep_checkpoints"], shard, CHECKPOINTS_KEPT)


def _digest(key: int, body: bytes) -> str:
    digest = hashlib.sha256(key.to_bytes(2, "big"))
    digest.update(body)
    return digest.hexdigest()


async def _nothing() -> None:
    return


def _started(
    call: Awaitable[asyncpg.Record | None] | None,
) -> asyncio.Future[asyncpg.Record | None]:
    return asyncio.ensure_future(call or _nothing())


async def _abandon(reading: asyncio.Future[asyncpg.Record | None]) -> None:
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
