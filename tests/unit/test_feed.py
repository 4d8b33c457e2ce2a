"""The feed of durable entries: what it cannot hand on ends whoever runs it, and never goes unseen."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from engine.shards import CATALOGUE, Shard, until
from in_process import served

from allocation.errors import Diverged
from allocation.gate.redis_gate import RedisGate
from service.feed import Feed

WITHIN_SECONDS = 5.0


@pytest.fixture
async def shard(gate: RedisGate, database_url: str) -> AsyncIterator[Shard]:
    """Give a ledger of four entries."""
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE)
        yield shard


async def lose_entry(database_url: str, sequence: int) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("ALTER TABLE ledger DISABLE TRIGGER ledger_is_append_only")
    assert (
        await connection.execute("DELETE FROM ledger WHERE sequence = $1", sequence) == "DELETE 1"
    )
    await connection.close()


async def test_entries_of_another_process(shard: Shard) -> None:
    """Entries that only the ledger has are handed on in order, each once."""
    seen: list[int] = []
    feed = Feed()
    feed.begin(shard.ledger, 0)
    feed.follow(lambda sequence, _body: seen.append(sequence))
    feed.note_durable(4, 5, [])
    running = asyncio.create_task(feed.run())
    await asyncio.wait_for(until(lambda: feed.sequence == 4), WITHIN_SECONDS)
    running.cancel()
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize("sequence", [1, 3, 4])
async def test_missing_entry(shard: Shard, database_url: str, sequence: int) -> None:
    """An entry that the ledger should have and lacks ends the feed with the number of that entry."""
    await lose_entry(database_url, sequence)
    feed = Feed()
    feed.begin(shard.ledger, 0)
    feed.note_durable(4, 5, [])
    with pytest.raises(Diverged, match=f"entry {sequence} "):
        await asyncio.wait_for(feed.run(), WITHIN_SECONDS)
    assert feed.sequence == sequence - 1


async def test_follower_that_fails(redis_url: str, database_url: str) -> None:
    """A follower that fails breaks the process, as a fault of the pipeline does."""

    def fail(sequence: int, body: bytes) -> None:
        raise LookupError(sequence, body)

    async with served(redis_url, database_url) as running:
        for source in running.service.sources:
            source.feed.follow(fail)
        await running.client.put("/v1/skus/NEW", json={})
        with pytest.raises(LookupError):
            await asyncio.wait_for(asyncio.shield(running.service.engine.broken), WITHIN_SECONDS)
