"""What must be so before anything is decided: suitable servers, this version's tables, a number of shards."""

from importlib import resources
from pathlib import Path

import asyncpg
from pogo_core.util import migrate

from allocation.shards.layout import find_layout, lay_out
from service.embedded.errors import StartError
from service.suitability import require_suitable


async def prepare(redis_url: str, database_url: str) -> None:
    """Look whether the servers can keep the promise, and bring the database to this version's tables."""
    is_cluster = await require_suitable(redis_url, database_url)
    await migrate_database(database_url)
    connection = await asyncpg.connect(database_url)
    try:
        if await find_layout(connection) is None:
            if is_cluster:
                raise StartError(
                    "The Redis is a cluster; say first how many shards there are: `ringfence init --shards N`."
                )
            await lay_out(connection, 1)
    finally:
        await connection.close()


async def migrate_database(database_url: str) -> None:
    """Bring the database to this version's tables."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SELECT pg_advisory_lock(7260)")
        for package in ("allocation.ledger", "service"):
            with resources.as_file(resources.files(package) / "migrations") as folder:
                await migrate.apply(connection, Path(folder), schema_name="public")
    finally:
        await connection.close()
