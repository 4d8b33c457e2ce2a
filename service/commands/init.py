"""`ringfence init`: says once how many shards there are."""

import asyncpg
import click

from allocation.ledger.queries import named_queries
from allocation.shards.layout import SHARDS_MAX, find_layout, lay_out
from service.commands.connections import database_url, read_settings, run
from service.preparation import migrate_database
from service.suitability import require_suitable_postgres


@click.command()
@click.option(
    "--shards",
    type=click.IntRange(1, SHARDS_MAX),
    required=True,
    help="1 on one Redis; on a Redis Cluster a few for each master that it may ever have.",
)
def init(shards: int) -> None:
    """Prepare a new database, and say for good how many shards there are."""
    found = run(_init(database_url(read_settings()), shards))
    if found != shards:
        raise click.ClickException(
            f"The number of shards is {found} and cannot change: which of them has a SKU follows from it."
        )
    click.echo(f"The number of shards is {shards}.")


async def _init(url: str, shards: int) -> int:
    await require_suitable_postgres(url)
    await migrate_database(url)
    connection = await asyncpg.connect(url)
    try:
        # A ledger from before there was such a number has everything on the first shard.
        used = await connection.fetchval(named_queries("allocation.shards")["is_used"])
        if await find_layout(connection) is None and used:
            return await lay_out(connection, 1)
        return await lay_out(connection, shards)
    finally:
        await connection.close()
