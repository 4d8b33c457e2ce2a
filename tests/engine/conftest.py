"""A shop with two mugs' worth of catalogue, ready for a table."""

from collections.abc import AsyncIterator

import pytest
from engine.many import ManyShop, Shards, start_of_clock
from engine.table import Shop
from redis.asyncio import Redis

from allocation.gate.redis_gate import RedisGate

CATALOGUE = """
location LON PAR ROM
channel web LON PAR
channel pos PAR
sku MUG CUP
"""


@pytest.fixture
async def one_shard(gate: RedisGate, redis: Redis) -> Shop:
    """Give the shop below on a gate alone, which answers before anything is durable."""
    shop = await Shop.open(gate, redis)
    await shop.follow(CATALOGUE)
    return shop


@pytest.fixture(params=["one shard", "four shards"])
async def shop(
    request: pytest.FixtureRequest, gate: RedisGate, redis: Redis, database_url: str
) -> AsyncIterator[Shop]:
    """Give a shop with three locations, two channels, two SKUs and no stock.

    The web shop sources from London, then Paris; the tills source from Paris alone. Every table holds over several
    shards as it does on one: mugs and cups lie on different ones.
    """
    if request.param == "one shard":
        shop = await Shop.open(gate, redis)
        await shop.follow(CATALOGUE)
        yield shop
        return
    async with Shards.open(redis, database_url) as shards:
        many = ManyShop(shards, redis, await start_of_clock(redis))
        await many.follow(CATALOGUE)
        yield many
