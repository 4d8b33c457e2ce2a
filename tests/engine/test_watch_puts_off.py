"""A shard that differs again and again is rebuilt ever more seldom, and is told of each time."""

import logging
from collections.abc import AsyncIterator, Sequence

import pytest
from engine.shards import CATALOGUE, Shard
from one_redis import OneRedis
from redis.asyncio import Redis

from allocation.comparison import Drift
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.gate.redis_reads import RedisReads
from allocation.ledger.postgres_findings import PostgresFindings
from allocation.verification import Round, Verification
from allocation.watch import (
    PUT_OFF_SECONDS,
    PUT_OFF_SECONDS_MAX,
    Look,
    Place,
    Watch,
)
from service.watching import Watching

STOCK = shard_keys(0)[1]


class Edited:
    """A watch over a shard that somebody edits between all its looks, at times that the test sets."""

    def __init__(self, shard: Shard, redis: Redis, database_url: str) -> None:
        self.at_seconds = 1_000.0
        self.redis, self.reads = redis, RedisReads(OneRedis(redis), 0)
        self.findings = PostgresFindings(database_url, 0)
        self.watching = Watching(0, 60.0)
        verification = Verification(self.reads, shard.ledger, cpu_share_max=1.0)
        self.watch = Watch(
            shard.gate,
            shard.ledger,
            self.findings,
            verification,
            self.watching.note_finding,
            now=lambda: self.at_seconds,
        )

    async def look(self, after_seconds: float, *, edit: bool = True) -> Look:
        """Look once, so much later."""
        self.at_seconds += after_seconds
        if edit:
            await self.redis.hset(STOCK, "HAT", "?")
        return await self.watch.run_once()

    async def close(self) -> None:
        await self.reads.close()
        await self.findings.close()


@pytest.fixture
async def edited(gate: RedisGate, redis: Redis, database_url: str) -> AsyncIterator[Edited]:
    """Give a watch over a shard of one SKU."""
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE)
        await shard.pipeline.stop()
        edited = Edited(shard, redis, database_url)
        yield edited
        await edited.close()


async def test_rebuilds_become_seldom(edited: Edited) -> None:
    """Each rebuild waits twice as long as the one before, up to minutes; until then the gate stays as it is."""
    assert (await edited.look(0)).place is Place.REBUILT
    pause = PUT_OFF_SECONDS
    for _ in range(7):
        early = await edited.look(pause - 1)
        assert (early.place, early.wait_seconds) == (Place.PUT_OFF, 1.0)
        assert await edited.redis.hexists(STOCK, "HAT")
        assert (await edited.look(1)).place is Place.REBUILT
        assert not await edited.redis.hexists(STOCK, "HAT")
        pause = min(PUT_OFF_SECONDS_MAX, 2 * pause)
    assert pause == PUT_OFF_SECONDS_MAX


async def test_a_right_round_ends_it(edited: Edited) -> None:
    """Once a round has found everything right, the next edit is mended at once."""
    assert (await edited.look(0)).place is Place.REBUILT
    assert (await edited.look(1)).place is Place.PUT_OFF
    assert (await edited.look(PUT_OFF_SECONDS)).place is Place.REBUILT
    assert (await edited.look(1, edit=False)).place is Place.VERIFIED
    assert (await edited.look(1)).place is Place.REBUILT


async def test_what_is_put_off_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Each round that leaves the gate different says so, and when it will be mended."""
    looks: Sequence[Look] = [
        Look(Place.PUT_OFF, Round(7, 3, [Drift("stock", "HAT", "?", None)]), 41.7),
        Look(Place.VERIFIED, Round(8, 3, [])),
    ]
    remaining = iter(looks)

    async def next_look() -> Look:
        return next(remaining)

    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError):
        await Watching(0, 0.0).run(next_look)
    (record,) = caplog.records
    assert "differs again at entry 7, in 1 fields, and is rebuilt in 42 s" in record.getMessage()
