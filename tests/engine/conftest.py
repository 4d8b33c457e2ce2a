"""A shop with two mugs' worth of catalogue, ready for a table."""

import pytest
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
async def shop(gate: RedisGate, redis: Redis) -> Shop:
    """Give a shop with three locations, two channels, two SKUs and no stock.

    The web shop sources from London, then Paris; the tills source from Paris alone.
    """
    shop = await Shop.open(gate, redis)
    await shop.follow(CATALOGUE)
    return shop
