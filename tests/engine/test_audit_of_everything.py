"""The audit compares all that the gate keeps, and holds beside sales."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from engine.shards import CATALOGUE, Shard, hold
from one_redis import OneRedis
from redis.asyncio import Redis

from allocation.audit import Audit, audit
from allocation.commands import Confirm
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.gate.redis_reads import RedisReads

_, _, RESERVATIONS, EVENTS, CONFIGURATION, DEADLINES, MOVES, _ = shard_keys(0)


@pytest.fixture
async def shard(gate: RedisGate, database_url: str) -> AsyncIterator[Shard]:
    """Give a running pipeline with holds and an order."""
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE, *(hold(f"r{number}") for number in range(5)))
        await shard.do(Confirm("r0", "order"))
        yield shard


async def audited(shard: Shard, redis: Redis) -> Audit:
    reads = RedisReads(OneRedis(redis), 0)
    try:
        return await audit(shard.gate, shard.ledger, reads=reads)
    finally:
        await reads.close()


EDITS: dict[str, Callable[[Redis], Awaitable[object]]] = {
    "reservations": lambda redis: redis.hdel(RESERVATIONS, "r1"),
    "events": lambda redis: redis.hset(EVENTS, "hoax", msgspec.msgpack.encode(["", 1, 1])),
    "configuration": lambda redis: redis.hdel(CONFIGURATION, "location:LON"),
    "deadlines": lambda redis: redis.zincrby(DEADLINES, 1, "rr1"),
    "moves": lambda redis: redis.zremrangebyrank(MOVES, 1, 1),
}


@pytest.mark.parametrize("key", EDITS)
async def test_each_key_is_compared(shard: Shard, redis: Redis, key: str) -> None:
    """What was changed in any key of Redis is named, and all that is right is not."""
    assert (await audited(shard, redis)).holds
    await EDITS[key](redis)
    found = await audited(shard, redis)
    assert [(one.store, one.figure) for one in found.differences] == [("gate", key)]


async def test_beside_sales(shard: Shard, redis: Redis) -> None:
    """An audit of everything holds while the shard goes on selling."""

    async def sell() -> None:
        for number in range(50):
            await shard.do(hold(f"s{number}"), hold(f"t{number}", ttl_ms=1))

    selling = asyncio.create_task(sell())
    assert (await audited(shard, redis)).holds
    await selling
    assert (await audited(shard, redis)).holds
