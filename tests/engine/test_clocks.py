"""A clock of Redis that is set while the service runs: holds neither end early nor stay for ever."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from engine.shards import CATALOGUE, Shard, hold
from one_redis import OneRedis
from redis.asyncio import Redis

from allocation.commands import Move, MovedLine, Movement, ReadStock
from allocation.gate.clock import TOLERANCE_MS, GateClock
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.model import Stock
from allocation.outcomes import Outcome

META = shard_keys(0)[0]
DAY_MS, HOUR_MS, TTL_MS = 86_400_000, 3_600_000, 60_000


class Elapsed:
    """The time that has passed for the service, as the test says; the clock of Redis is the real one."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def elapsed() -> Elapsed:
    """Give a service for which no time passes by itself."""
    return Elapsed()


@pytest.fixture
async def shard(redis: Redis, elapsed: Elapsed, database_url: str) -> AsyncIterator[Shard]:
    """Give a running pipeline with a hundred mugs in London."""
    gate = RedisGate(OneRedis(redis), 0, 7 * DAY_MS, 14 * DAY_MS, GateClock(elapsed))
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE)
        yield shard


async def test_a_clock_set_forward_ends_no_hold(
    shard: Shard, redis: Redis, elapsed: Elapsed
) -> None:
    """A hold of a minute is there while the clock says an hour later, and gone after a minute of time."""
    seconds, _ = await redis.time()
    shard.gate.clock = GateClock(elapsed)
    shard.gate.clock.begin(int(seconds) * 1_000 - HOUR_MS)
    # What the gate went by until now is forgotten, so that the hour lies ahead of it.
    await redis.hset(META, "last_ms", 0)
    await shard.do(hold("r1", 100, TTL_MS))
    assert (await shard.do(hold("r2")))[0].outcome is Outcome.INSUFFICIENT_STOCK
    assert shard.gate.clock.offset_ms > HOUR_MS - 2 * TOLERANCE_MS
    elapsed.seconds += (TTL_MS + TOLERANCE_MS) / 1_000
    assert (await shard.do(hold("r3", 100)))[0].outcome is Outcome.HELD


async def test_a_clock_set_back_keeps_no_hold(shard: Shard, elapsed: Elapsed) -> None:
    """A hold of a minute ends after a minute of time, though the clock has not come that far."""
    await shard.do(hold("r1", 100, TTL_MS))
    assert (await shard.do(hold("r2")))[0].outcome is Outcome.INSUFFICIENT_STOCK
    elapsed.seconds += (TTL_MS + 2 * TOLERANCE_MS) / 1_000
    assert (await shard.do(hold("r3", 100)))[0].outcome is Outcome.HELD
    assert shard.gate.clock.offset_ms < -TTL_MS


async def test_a_clock_set_back_keeps_movements_in_their_order(
    shard: Shard, redis: Redis, elapsed: Elapsed
) -> None:
    """What left just after a count is not taken for what the count has seen, though the gate is behind both."""
    seconds, _ = await redis.time()
    elapsed.seconds += 10.0
    now_ms = int(seconds) * 1_000 + 10_000
    moved = (MovedLine("MUG", "LON", 2),)
    await shard.do(Move("count", "", int(Movement.COUNT), now_ms - 1_000, "", moved))
    await shard.do(Move("left", "", int(Movement.SHIPMENT), now_ms - 500, "", moved))
    (read,) = await shard.do(ReadStock(("MUG",)))
    (stock,) = msgspec.msgpack.decode(read.extra, type=list[Stock])
    assert stock.pools[0].on_hand == 0
