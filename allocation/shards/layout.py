"""How many shards there are: said once, since it decides which of them has a SKU."""

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from allocation.ledger.queries import named_queries

SHARDS_MAX = 1024
Connection = asyncpg.Connection | asyncpg.Pool | PoolConnectionProxy


async def find_layout(connection: Connection) -> int | None:
    """Give the number of shards; None where nobody has said it yet."""
    shards: int | None = await connection.fetchval(named_queries("allocation.shards")["layout"])
    return shards


async def read_layout(connection: Connection) -> int:
    """Give the number of shards. A database that has been told none has the one that there always is."""
    try:
        return await find_layout(connection) or 1
    except asyncpg.UndefinedTableError:
        return 1


async def lay_out(connection: Connection, shards: int) -> int:
    """Say how many shards there are, unless it has been said, and give what holds."""
    await connection.execute(named_queries("allocation.shards")["lay_out"], shards)
    return await read_layout(connection)
